"""Options to be scored after a prompt, on their way through the engine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from swarm.engine.base import Scored, ScoreRequest
from swarm.engine.llama.logits import Rows
from swarm.engine.llama.scoring import ROOT, OptionTree, Wave
from swarm.engine.llama.search import Bounds
from swarm.engine.llama.work import Result, Work

_COMPANY = 4  # requests that share a step: then it is full, and a node more costs what it costs alone
_AT_ONCE, _MORE_AT_ONCE = 1, 3  # ways read on in one step


class ScoreWork(Work):
    """Reads all options together with the prompt's end or, where only the best matters, the promising ones after it."""

    def __init__(
        self,
        prompt: Sequence[int],
        tree: OptionTree,
        request: ScoreRequest,
        offsets: Sequence[float] = (),
        *,
        shared: int = 0,
    ) -> None:
        super().__init__(prompt, tree.room, shared=shared, origin=request.origin)
        self._tree = tree
        self._searching = request.need != "all"
        lengths = np.array(tree.lengths, np.float64)
        weights = 1 / lengths if request.by_length else np.ones_like(lengths)
        shifts = np.array(offsets or np.zeros_like(lengths), np.float64)
        self._bounds = Bounds(tree, weights, shifts, sure=1 if request.need == "best" else 2)
        self._open: list[int] = []  # options to be read on, the most promising first
        self._edges = tree.known.copy()
        self._waves = () if self._searching else tree.waves
        self._waves_done = 0
        self._root_read = False

    @property
    def wave(self) -> Wave | None:
        """The first of the chosen waves that was not decoded yet."""
        return self._waves[self._waves_done] if self._waves_done < len(self._waves) else None

    @property
    def writing(self) -> bool:
        """The prompt's last token is read: what is left are options."""
        return self._root_read

    def restart(self) -> None:
        """What was read of options stays known; what was about to be read is chosen anew."""
        self._waves, self._waves_done = () if self._searching else self._tree.waves, 0
        self._root_read, self._open = False, []

    def prepare(self, companions: int, drafts: int) -> int:
        """Choose what is read next: the most promising alone where a step is shared, more where it would be small."""
        if not self._open:
            return 0
        most = _AT_ONCE if self._tree.constrained and companions >= _COMPANY else _MORE_AT_ONCE
        lanes = (self._tree.lane(option, self._edges) for option in self._open)
        self._waves, self._waves_done = self._tree.waves_for(islice(dict.fromkeys(lanes), most)), 0
        self._open = []
        return 0

    def absorb(self, heads: Rows, wave: Wave | None, rows: Rows) -> Result | None:
        """Read the options' tokens off the logits. Raises `EngineError` when these are no numbers."""
        if len(heads):
            self._tree.read([ROOT], heads, self._edges)
            self._root_read = True
        if wave is not None:
            self._tree.read([node.id for node in wave.nodes if node.read], rows, self._edges)
            self._waves_done += 1
            self.tokens_in += len(wave.nodes)
        if self.pending or self.wave:
            return None
        self._bounds.learn(self._edges)
        self._open = self._bounds.open() if self._searching else []
        return None if self._open else self._result()

    def _result(self) -> Scored:
        bounds = self._bounds
        return Scored(
            logprobs=tuple(bounds.logprobs.tolist()),
            lengths=self._tree.lengths,
            tokens_in=self.tokens_in,
            tokens_cached=self.tokens_cached,
            scores=tuple(bounds.scores.tolist()),
            exact=tuple(bounds.exact.tolist()),
        )
