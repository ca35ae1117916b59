"""What a shard has of a run's account, kept in memory: the ledger's own rules, with the lease as the run's limit."""

from __future__ import annotations

from collections.abc import Mapping

from protocols.ids import RunId
from protocols.money import Amount, Limit
from swarm.state.account import NOTHING, Account, Hold, Units, amount_of, plus, units
from swarm.state.base import AccountId, Refusal
from swarm.state.ledger import Ledger

LOW = 0.25  # of a slice: less than this left, and the next one is fetched
NONE = Amount()
PLENTY = Amount(micro_usd=1_000_000, tokens=50_000)  # a slice of what has no limit


def slice_of(limit: Limit, share: float = 0.05) -> Amount:
    """A share of every unit that is limited; a round number of money and tokens that are not."""

    def of(most: int | None, otherwise: int) -> int:
        return otherwise if most is None else int(most * share)

    return Amount(
        micro_usd=of(limit.micro_usd, PLENTY.micro_usd),
        tokens=of(limit.tokens, PLENTY.tokens),
        ms=of(limit.ms, PLENTY.ms),
    )


class Slice(Ledger):
    """Ended holds are forgotten and nothing is booked: the store does both."""

    def __init__(self, run: RunId) -> None:
        super().__init__()
        self.root = Account(f"run:{run}", run, NOTHING)
        self._accounts[self.root.id] = self.root
        self._steps: dict[str, list[AccountId]] = {}  # task -> accounts of those of its steps that have limits

    def has(self, account: AccountId) -> bool:
        return account in self._accounts

    def widen(self, amount: Amount, sign: int = 1) -> None:
        money, tokens, ms = units(amount)
        self.root.limit = plus(_limit(self.root), (sign * money, sign * tokens, sign * ms))

    def free(self) -> Units:
        money, tokens, ms = (
            most - settled - held
            for most, settled, held in zip(_limit(self.root), self.root.settled, self.root.held, strict=True)
        )
        return money, tokens, ms

    def low(self, slice: Amount) -> bool:
        return any(left < LOW * whole for left, whole in zip(self.free(), units(slice), strict=True))

    def missing(self, amount: Amount, at_least: Amount = NONE, times: int = 1) -> Amount:
        """What must be fetched so that `amount` fits so many times, and at least this much of each unit."""
        money, tokens, ms = (
            max(times * wanted - left if wanted > left else 0, least)
            for wanted, left, least in zip(units(amount), self.free(), units(at_least), strict=True)
        )
        return Amount(micro_usd=money, tokens=tokens, ms=ms)

    def try_hold(self, id: str, leaf: Account, amount: Amount, sent: bool, expires_s: float | None) -> Refusal | None:
        self.expire()
        return self.hold(id, leaf, amount, sent=sent, expires_s=expires_s)

    def unaccounted(self) -> Amount:
        """What was sent and nobody has ended."""
        total = NOTHING
        for hold in self._holds.values():
            if hold.state == "sent":
                total = plus(total, hold.amount)
        return amount_of(total)

    def open_task(self, run: str, task: str, limit: Limit, steps: Mapping[str, Limit]) -> None:
        super().open_task(run, task, limit, steps)
        if steps:
            self._steps[task] = [f"step:{task}/{step}" for step in steps]

    def forget(self, task: str) -> None:
        for id in (f"task:{task}", *self._steps.pop(task, ())):
            self._accounts.pop(id, None)

    def _changed(self, hold: Hold) -> None:
        if not hold.open:
            self._holds.pop(hold.id, None)

    def _book(self, *_: object) -> None:
        pass


def _limit(root: Account) -> Units:
    money, tokens, ms = root.limit
    assert money is not None and tokens is not None and ms is not None
    return money, tokens, ms
