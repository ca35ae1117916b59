"""The rules of the ledger, without I/O: what takes from an account, what gives back, and the entry for each.

Every method checks first and changes afterwards: one that raises has changed nothing. Engines say where accounts, holds
and keys are found and what becomes of changes (`_load_…`, `_changed`).
"""

from __future__ import annotations

import hashlib
import heapq
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from protocols.money import Amount, Limit
from protocols.records import Attempt
from swarm.errors import KeyConflict, StoreError
from swarm.state.account import (
    MOST,
    NOTHING,
    Account,
    Entry,
    Hold,
    Units,
    amount_of,
    limits,
    minus,
    plus,
    split,
    units,
)
from swarm.state.base import AccountId, Draw, Ended, OwnerId, Refusal, Repeated


class Ledger:
    """`owner` is this life of this program, `clock` a monotonic clock in seconds."""

    def __init__(self, owner: OwnerId = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.owner = owner
        self.entries: list[Entry] = []
        self._clock = clock
        self._accounts: dict[AccountId, Account] = {}
        self._holds: dict[str, Hold] = {}
        self._keys: dict[tuple[str, str], bytes] = {}
        self._transaction = 0
        self.due: list[tuple[float, str]] = []  # when unsent holds of this owner expire

    # --- where things are found

    def account(self, id: AccountId) -> Account:
        account = self._accounts.get(id) or self._load_account(id)
        if account is None:
            raise StoreError(f"account {id!r} does not exist")
        return account

    def leaf(self, run: str, task: str, step: str | None) -> Account:
        """The lowest account above an attempt."""
        account = self.account(f"task:{task}" if step is None else f"step:{task}/{step}")
        if account.run != run:
            raise StoreError(f"{account.id} is of run {account.run!r}, not of {run!r}")
        return account

    def find(self, id: str) -> Hold | None:
        return self._holds.get(id) or self._load_hold(id)

    def accounts(self) -> Iterable[Account]:
        return self._accounts.values()

    def open_holds(self) -> list[Hold]:
        return [hold for hold in self._holds.values() if hold.open]

    def _load_account(self, id: AccountId) -> Account | None:
        return None

    def _load_hold(self, id: str) -> Hold | None:
        return None

    def _load_key(self, verb: str, key: str) -> bytes | None:
        return None

    def _load_open(self, run: str | None, owner: OwnerId | None) -> Iterable[Hold]:
        return [hold for hold in self.open_holds() if hold.account.run == run or hold.owner == owner]

    def _changed(self, hold: Hold) -> None:
        """`hold`, and with it the accounts in its chain, is not as it was."""

    def _opened(self, account: Account) -> None:
        """`account` is new, or has a new limit."""

    # --- accounts

    def tenant(self, id: str, limit: Limit) -> None:
        known = self._accounts.get(f"tenant:{id}") or self._load_account(f"tenant:{id}")
        account = known or Account(f"tenant:{id}", "", limits(limit))
        old, account.limit = account.limit, limits(limit)
        if refusal := account.refuses(NOTHING):
            account.limit = old
            spent = f"{-refusal.left} {refusal.unit} more than that are spent or held"
            raise StoreError(f"the ledger refused: the limit of tenant {id!r} is too low, {spent}")
        self._accounts[account.id] = account
        self._opened(account)

    def open_run(self, run: str, limit: Limit, tenant: str | None) -> None:
        self._open(f"run:{run}", run, limit, None if tenant is None else self.account(f"tenant:{tenant}"))

    def open_task(self, run: str, task: str, limit: Limit, steps: Mapping[str, Limit]) -> None:
        for most in steps.values():
            limits(most)
        account = self._open(f"task:{task}", run, limit, self.account(f"run:{run}"))
        for step, most in steps.items():
            self._open(f"step:{task}/{step}", run, most, account)

    def _open(self, id: AccountId, run: str, limit: Limit, above: Account | None) -> Account:
        if id in self._accounts or self._load_account(id) is not None:
            raise StoreError(f"the ledger refused: account {id!r} exists already")
        account = self._accounts[id] = Account(id, run, limits(limit), above)
        self._opened(account)
        return account

    # --- holds

    def hold(
        self, id: str, account: Account, amount: Amount, *, key: str | None = None, sent: bool = True,
        expires_s: float | None = None, kind: str = "attempt",
    ) -> Refusal | None:  # fmt: skip
        wanted = units(amount)
        _check(id, wanted, sent, expires_s)
        if key is not None:
            digest = _digest(id, account.id, wanted)
            if self._seen("hold", key, digest):
                return self._repeated(id, account, wanted)
        for above in account.chain:
            if refusal := above.refuses(wanted):
                return refusal
        if self.find(id) is not None:
            raise StoreError(f"the ledger refused: {id!r} has held already")
        hold = self._holds[id] = Hold(id, kind, account, wanted, "sent" if sent else "held", self.owner)
        self._transaction += 1
        self._book(kind, id, account, "free", "held", wanted)
        for above in account.chain:
            _add(above.held, wanted)
        if expires_s is not None:
            heapq.heappush(self.due, (self._clock() + expires_s, id))
        if key is not None:
            self._keep_key("hold", key, digest)
        self._changed(hold)
        return None

    def sent(self, id: str) -> None:
        hold = self.find(id)
        if hold is None or not hold.open:
            state = "not there" if hold is None else hold.state
            raise StoreError(f"hold {id!r} is {state}: the request must not be sent; take a new hold")
        if hold.state == "held":
            hold.state = "sent"
            self._changed(hold)

    def end(self, id: str, used: Amount, state: str, key: str | None = None, content: Attempt | None = None) -> bool:
        """Whether it was open and ended now. `state`: settled | void."""
        hold = self.find(id)
        if key is not None and self._ended_before(hold, used, state, key, content):
            return False
        if hold is None or not hold.open:
            return False
        self._end(hold, used, state, "settle" if state == "settled" else "void")
        return True

    def _end(self, hold: Hold, used: Amount, state: str, kind: str) -> None:
        charged, over = split(hold.amount, used)
        rest = minus(hold.amount, charged)
        self._transaction += 1
        self._book(kind, hold.id, hold.account, "held", "spent", charged)
        self._book(kind, hold.id, hold.account, "held", "free", rest)
        self._book("overrun", hold.id, hold.account, "outside", "over", over)
        for above in hold.account.chain:
            _take(above.held, hold.amount)
            _add(above.settled, charged)
            if over is not NOTHING:
                _add(above.over, over)
        hold.state = state
        if hold.kind == "lease":
            hold.charged, hold.amount = plus(hold.charged, charged), NOTHING
        else:
            hold.charged, hold.over = charged, over
        self._changed(hold)

    # --- holds nobody ends

    def expire(self) -> int:
        """End unsent holds whose time is up; returns how many. Their time is measured here, by no wall clock."""
        ended = 0
        while self.due and self.due[0][0] <= self._clock():
            hold = self.find(heapq.heappop(self.due)[1])
            if hold is not None and hold.state == "held":
                self._end(hold, Amount(), "void", "expire")
                ended += 1
        return ended

    def recover(self, run: str | None = None, owner: OwnerId | None = None) -> Ended:
        void = settled = 0
        for hold in self._load_open(run, owner):
            if hold.state == "held":
                self._end(hold, Amount(), "void", "recover")
                void += 1
            else:
                self._end(hold, amount_of(hold.amount), "settled", "recover")
                settled += 1
        return Ended(void, settled)

    # --- leases

    def lease(self, id: str, run: str, amount: Amount) -> Refusal | None:
        hold, account, wanted = self.find(id), self.account(f"run:{run}"), units(amount)
        if hold is None:
            return self.hold(id, account, amount, kind="lease")
        _check(id, wanted, sent=True, expires_s=None)
        _lease(hold, id, account)
        for above in account.chain:
            if refusal := above.refuses(wanted):
                return refusal
        self._transaction += 1
        self._book("lease", id, account, "free", "held", wanted)
        for above in account.chain:
            _add(above.held, wanted)
        hold.amount = plus(hold.amount, wanted)
        self._changed(hold)
        return None

    def draw(self, id: str, run: str, draws: Iterable[Draw]) -> list[Attempt]:
        """The attempts that were not drawn before; they are charged now. All of them, or none."""
        new: dict[str, Draw] = {}
        for draw in draws:
            if self.find(draw.attempt.id) is None:
                new.setdefault(draw.attempt.id, draw)
        if not new:
            return []
        lease = _lease(self.find(id), id, self.account(f"run:{run}"))
        parts = {draw.attempt.id: (self.account(draw.account), *_parts(draw)) for draw in new.values()}
        self._check_room(lease, parts.values())
        for draw in new.values():
            self._draw(lease, draw, *parts[draw.attempt.id])
        return [draw.attempt for draw in new.values()]

    def _check_room(self, lease: Hold, parts: Iterable[tuple[Account, Units, Units, Units]]) -> None:
        left, wanted = lease.amount, dict[Account, Units]()
        for account, _, charged, _ in parts:
            left = minus(left, charged)
            for below in account.chain[: -len(lease.account.chain)]:
                wanted[below] = plus(wanted.get(below, NOTHING), charged)
            if lease.account not in account.chain:
                raise StoreError(f"lease {lease.id!r} is of {lease.account.id}, and {account.id} is not below it")
        refused = next((r for below, units in wanted.items() if (r := below.refuses(units))), None)
        if min(left) < 0 or refused is not None:
            raise StoreError(f"the ledger refused: lease {lease.id!r} is drawn beyond {refused or 'what it has'}")

    def _draw(self, lease: Hold, draw: Draw, account: Account, held: Units, charged: Units, over: Units) -> None:
        hold = Hold(draw.attempt.id, "drawn", account, held, "void" if draw.void else "settled", self.owner)
        hold.charged, hold.over = charged, over
        self._holds[hold.id] = hold
        self._transaction += 1
        self._book("draw", lease.id, lease.account, "held", "free", charged)
        self._book("draw", hold.id, account, "free", "spent", charged)
        self._book("overrun", hold.id, account, "outside", "over", over)
        lease.amount, lease.charged = minus(lease.amount, charged), plus(lease.charged, charged)
        for above in lease.account.chain:
            _take(above.held, charged)
        for above in account.chain:
            _add(above.settled, charged)
            _add(above.over, over)
        self._changed(lease)
        self._changed(hold)

    # --- entries and keys

    def _book(self, kind: str, hold: str, account: Account, debit: str, credit: str, amount: Units) -> None:
        if amount != NOTHING:
            self.entries.append((self._transaction, kind, hold, account.id, debit, credit, *amount))

    def _seen(self, verb: str, key: str, digest: bytes) -> bool:
        known = self._keys.get((verb, key)) or self._load_key(verb, key)
        if known is not None and known != digest:
            raise KeyConflict(f"the key {key!r} stood for another {verb}; the same key must come with the same content")
        return known is not None

    def _keep_key(self, verb: str, key: str, digest: bytes) -> None:
        self._keys[verb, key] = digest

    def _repeated(self, id: str, account: Account, wanted: Units) -> Repeated | None:
        hold = self.find(id)
        if hold is None or hold.open:
            return None
        return Repeated(account.id, "usd", wanted[0], 0, False, hold.state, amount_of(hold.charged))

    def _ended_before(self, hold: Hold | None, used: Amount, state: str, key: str, content: Attempt | None) -> bool:
        digest = _digest(state, units(used), content)
        if self._seen("end", key, digest):
            return True
        if hold is not None and not hold.open:
            charged, over = split(hold.amount, used)
            if (hold.state, hold.charged, hold.over) != (state, charged, over):
                raise KeyConflict(f"attempt {hold.id!r} has ended otherwise: {hold.state}, {amount_of(hold.charged)}")
        self._keep_key("end", key, digest)
        return False


def _check(id: str, wanted: Units, sent: bool, expires_s: float | None) -> None:
    if min(wanted) < 0:
        raise StoreError(f"hold {id}: a negative amount cannot be held")
    if max(wanted) > MOST:
        raise StoreError(f"hold {id}: {max(wanted)} is more than any hold may be ({MOST})")
    if sent and expires_s is not None:
        raise StoreError(f"hold {id}: only what is not sent can expire; pass sent=False with expires_s")


def _lease(hold: Hold | None, id: str, account: Account) -> Hold:
    if hold is None or not hold.open or hold.kind != "lease" or hold.account is not account:
        raise StoreError(f"lease {id!r} has ended or is not of {account.id}: nothing can be drawn from it")
    return hold


def _parts(draw: Draw) -> tuple[Units, Units, Units]:
    held = units(draw.held)
    return held, *split(held, Amount() if draw.void else draw.used)


def _digest(*content: Any) -> bytes:
    return hashlib.blake2b(msgspec.msgpack.encode(content), digest_size=16).digest()


def _add(to: list[int], amount: Units) -> None:
    to[0] += amount[0]
    to[1] += amount[1]
    to[2] += amount[2]


def _take(of: list[int], amount: Units) -> None:
    of[0] -= amount[0]
    of[1] -= amount[1]
    of[2] -= amount[2]
