"""Does what the accounts say follow from the entries? The proof that balances are derived and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from swarm.errors import StoreError
from swarm.state.account import NOTHING, UNITS, Account, Hold, Units, minus, plus
from swarm.state.base import AccountId

Parts = Mapping[tuple[AccountId, str], Units]  # (account, part) -> what was booked into it, less what was booked out


def summed(legs: Iterable[tuple[AccountId, str, Units]]) -> dict[tuple[AccountId, str], Units]:
    parts: dict[tuple[AccountId, str], Units] = {}
    for account, part, amount in legs:
        parts[account, part] = plus(parts.get((account, part), NOTHING), amount)
    return parts


def audit(accounts: Iterable[Account], parts: Parts, holds: Iterable[Hold]) -> list[str]:
    """What does not fit, a line each; entries are booked where they happen and count on every account above."""
    known = {account.id: account for account in accounts}
    problems = [f"{id} has entries and is no account" for id in sorted({id for id, _ in parts} - known.keys())]
    booked: dict[tuple[AccountId, str], Units] = {}
    for (id, part), amount in parts.items():
        for above in known[id].chain if id in known else ():
            booked[above.id, part] = plus(booked.get((above.id, part), NOTHING), amount)
    waiting: dict[AccountId, Units] = {}
    for hold in holds:
        for above in hold.account.chain:
            waiting[above.id] = plus(waiting.get(above.id, NOTHING), hold.amount)
    return problems + [problem for account in known.values() for problem in _problems(account, booked, waiting)]


def demand_none(problems: list[str]) -> None:
    """Raises `StoreError` with the first of them."""
    if problems:
        raise StoreError("the books are wrong: " + "; ".join(problems[:10]))


def _problems(account: Account, booked: Parts, waiting: Mapping[AccountId, Units]) -> Iterable[str]:
    for part, kept in (("held", account.held), ("spent", account.settled), ("over", account.over)):
        entries = booked.get((account.id, part), NOTHING)
        if entries != (kept[0], kept[1], kept[2]):
            yield f"{account.id} has {part} {tuple(kept)}, its entries say {entries}"
    if (open_holds := waiting.get(account.id, NOTHING)) != tuple(account.held):
        yield f"{account.id} has held {tuple(account.held)}, its open holds say {open_holds}"
    total = plus(booked.get((account.id, "held"), NOTHING), booked.get((account.id, "spent"), NOTHING))
    if minus(NOTHING, total) != booked.get((account.id, "free"), NOTHING):
        yield f"the entries of {account.id} do not sum to nothing"
    for unit, most in enumerate(account.limit):
        if most is not None and total[unit] > most:
            yield f"{account.id} is overdrawn: {total[unit]} of {most} {UNITS[unit]}"
