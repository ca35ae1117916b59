"""How fast a host answers, for comparison with its peers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Kind = tuple[str, str]  # (specialist, tier): only like is compared with like

KEPT = 0.97  # of what was seen, a second later: half of it counts after 23 s
ENOUGH = 8.0  # answers before a host is compared
SLOWER = 4.0  # times as long as the fastest peer: such a host is slow
NOTICED_S = 0.05  # what is answered faster than this is fast enough


@dataclass(slots=True)
class Pace:
    """Seconds from ask to answer, as a mean over the last half minute or so."""

    answers: float = 0.0
    seconds: float = 0.0

    def took(self, seconds: float) -> None:
        self.answers += 1
        self.seconds += seconds

    def fade(self) -> None:
        """A second has passed."""
        self.answers *= KEPT
        self.seconds *= KEPT

    @property
    def mean_s(self) -> float | None:
        """`None` as long as too little is known."""
        return self.seconds / self.answers if self.answers >= ENOUGH else None


def is_slow(own: Mapping[Kind, Pace], peers: Iterable[Mapping[Kind, Pace]]) -> bool:
    """Whether a host takes much longer than its fastest peer over anything that both do."""
    others = list(peers)
    for kind, pace in own.items():
        known = [mean for peer in others if kind in peer and (mean := peer[kind].mean_s) is not None]
        mean = pace.mean_s
        if known and mean is not None and mean > max(NOTICED_S, SLOWER * min(known)):
            return True
    return False
