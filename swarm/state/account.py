"""Accounts, holds and entries as plain objects: what both engines of the store compute with."""

from __future__ import annotations

from protocols.money import Amount, Limit
from protocols.records import Balance
from swarm.errors import StoreError
from swarm.state.base import AccountId, Refusal

UNITS = ("usd", "tokens", "ms")
Units = tuple[int, int, int]  # millionths of a dollar, tokens, milliseconds
Limits = tuple[int | None, int | None, int | None]
NOTHING: Units = (0, 0, 0)
MOST = 2**53  # of any unit at once; a number beyond it is somebody's mistake and would overflow sums

# One transfer, both its legs: transaction, kind, hold, account, from which part, to which, and how much of each unit.
Entry = tuple[int, str, str, AccountId, str, str, int, int, int]


class Account:
    """`chain` is the account itself and all above it: a hold counts on each of them."""

    __slots__ = ("chain", "held", "id", "limit", "over", "run", "settled")

    def __init__(self, id: AccountId, run: str, limit: Limits, above: Account | None = None) -> None:
        self.id = id
        self.run = run  # empty for a tenant
        self.limit = limit
        self.settled = [0, 0, 0]
        self.held = [0, 0, 0]
        self.over = [0, 0, 0]  # used beyond what was held
        self.chain: tuple[Account, ...] = (self, *(above.chain if above is not None else ()))

    @property
    def parent(self) -> AccountId | None:
        return self.chain[1].id if len(self.chain) > 1 else None

    def balance(self) -> Balance:
        return Balance(
            limit=Limit(micro_usd=self.limit[0], tokens=self.limit[1], ms=self.limit[2]),
            settled=amount_of(self.settled),
            held=amount_of(self.held),
            overrun=amount_of(self.over),
        )

    def refuses(self, wanted: Units) -> Refusal | None:
        """What is larger than what is left is refused, never cut."""
        for unit, most in enumerate(self.limit):
            if most is not None and self.settled[unit] + self.held[unit] + wanted[unit] > most:
                left = most - self.settled[unit] - self.held[unit]
                passing = self.settled[unit] + wanted[unit] <= most
                return Refusal(self.id, UNITS[unit], wanted[unit], left, passing)
        return None


class Hold:
    """`held → sent → settled`, or `held → void`; a lease is `sent` from the beginning."""

    __slots__ = ("account", "amount", "charged", "id", "kind", "over", "owner", "state")

    def __init__(self, id: str, kind: str, account: Account, amount: Units, state: str, owner: str) -> None:
        self.id = id
        self.kind = kind  # attempt | lease
        self.account = account
        self.amount = amount
        self.state = state
        self.owner = owner
        self.charged = NOTHING
        self.over = NOTHING

    @property
    def open(self) -> bool:
        return self.state in ("held", "sent")


def units(amount: Amount) -> Units:
    return (amount.micro_usd, amount.tokens, amount.ms)


def limits(limit: Limit) -> Limits:
    for most in (limit.micro_usd, limit.tokens, limit.ms):
        if most is not None and not 0 <= most < 2**63:
            raise StoreError(f"the ledger refused: a limit of {most} cannot be kept")
    return (limit.micro_usd, limit.tokens, limit.ms)


def amount_of(of: list[int] | Units) -> Amount:
    return Amount(micro_usd=of[0], tokens=of[1], ms=of[2])


def plus(one: Units, other: Units) -> Units:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2])


def minus(one: Units, other: Units) -> Units:
    return (one[0] - other[0], one[1] - other[1], one[2] - other[2])


def split(held: Units, used: Amount) -> tuple[Units, Units]:
    """What of `used` is charged and what is overrun: less than nothing is nothing, more than was held is overrun.

    Time is owed only where it was held: what bounds it elsewhere are deadlines.
    """
    real = (_clamped(used.micro_usd), _clamped(used.tokens), _clamped(used.ms))
    charged = (min(real[0], held[0]), min(real[1], held[1]), min(real[2], held[2]))
    over = (real[0] - charged[0], real[1] - charged[1], real[2] - charged[2] if held[2] else 0)
    return charged, over if over != NOTHING else NOTHING


def _clamped(n: int) -> int:
    return 0 if n < 0 else min(n, MOST)
