"""The ledger over SQLite: what a group of operations touches is read once, kept in memory, and written once.

What is kept stays true as long as no other program has written (`PRAGMA data_version` tells) and no transaction was
undone; then it is dropped and read again. It is a cache and may be dropped at any time between transactions.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import apsw

from protocols.ids import new_id
from swarm.state.account import Account, Hold, Units
from swarm.state.audit import audit, summed
from swarm.state.base import AccountId, OwnerId
from swarm.state.ledger import Ledger
from swarm.state.owners import TTL_S, Owners
from swarm.state.schema import prepare
from swarm.state.seals import seal

KEPT = 50_000  # most accounts in memory; a long run has many tasks, and those that are over are not asked for again
RETRY_S = 1.0  # before what could not be written, and nobody waits for, is tried again

_UNITS = ("micro_usd", "tokens", "ms")


def _columns(*of: str) -> str:
    return ", ".join(f"{name}_{unit}" if name else unit for name in of for unit in _UNITS)


def _upsert(table: str, columns: str, n: int, changing: str) -> str:
    sets = ", ".join(f"{column} = excluded.{column}" for column in changing.split(", "))
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * n)}) ON CONFLICT (id) DO UPDATE SET {sets}"


_ACCOUNT = f"id, run, parent, {_columns('limit', 'settled', 'held', 'overrun')}"
_HOLD = f"id, kind, account, owner, state, {_columns('', 'charged', 'overrun')}"
_READ_ACCOUNT = f"SELECT {_ACCOUNT} FROM accounts WHERE id = ?"
_READ_HOLD = f"SELECT {_HOLD} FROM holds WHERE id = ?"
_READ_OPEN = f"SELECT {_HOLD} FROM holds WHERE state IN ('held', 'sent')"
_WRITE_ACCOUNT = _upsert("accounts", _ACCOUNT, 15, _columns("limit", "settled", "held", "overrun"))
_WRITE_HOLD = _upsert("holds", f"{_HOLD}, run", 15, f"state, {_columns('', 'charged', 'overrun')}")
_WRITE_ENTRY = f"""
INSERT INTO entries (transaction_id, kind, hold, account, debit, credit, {_columns("")})
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SUMS = f"SELECT account, part, {', '.join(f'sum({unit})' for unit in _UNITS)} FROM legs GROUP BY account, part"
_LAST = "SELECT transaction_id FROM entries ORDER BY id DESC LIMIT 1"


class SqliteLedger(Ledger):
    """Lives in the writer's thread; the writer calls it as its `Keeper`."""

    def __init__(self, path: Path | str, clock: Callable[[], float] = time.monotonic, ttl_s: float = TTL_S) -> None:
        super().__init__(new_id("o"), clock)
        self._path = path
        self._owners = Owners(self.owner, clock, ttl_s)
        self._data_version = -1
        self._not_before = -math.inf  # a store that cannot be written is not asked all the time
        self._changed_accounts: dict[AccountId, Account] = {}
        self._changed_holds: dict[str, Hold] = {}
        self._new_keys: dict[tuple[str, str], bytes] = {}
        self._attempts: list[tuple[str, str, bytes, bytes]] = []
        self._results: dict[str, tuple[str, str, str, bytes, bytes]] = {}
        self._expiring: list[tuple[float, str]] = []

    # --- what the writer asks for

    def prepare(self, db: apsw.Connection) -> None:
        prepare(db, self._path)
        self._db = db

    def begun(self) -> None:
        self._expiring.clear()
        seen = self._db.execute("PRAGMA data_version").get
        if seen != self._data_version or len(self._accounts) > KEPT:
            self._forget()
            self._data_version = seen
            self._transaction = self._db.execute(_LAST).get or 0
        if self.due and self.due[0][0] <= self._clock():
            self._expiring = [due for due in self.due if due[0] <= self._clock()]
            self.expire()

    def flush(self) -> None:
        self._write()
        for dead in self._owners.tend(self._db):
            self.recover(owner=dead)
            self._write()

    def _write(self) -> None:
        """Parents come before their children: they were opened before them."""
        write = self._db.executemany
        if self._changed_accounts:
            write(_WRITE_ACCOUNT, [_account_row(account) for account in self._changed_accounts.values()])
            self._changed_accounts.clear()
        if self._changed_holds:
            write(_WRITE_HOLD, [_hold_row(hold) for hold in self._changed_holds.values()])
            for hold in self._changed_holds.values():
                if not hold.open:
                    self._holds.pop(hold.id, None)
            self._changed_holds.clear()
        for query, rows in (
            (_WRITE_ENTRY, self.entries),
            ("INSERT OR IGNORE INTO attempts VALUES (?, ?, ?, ?)", self._attempts),
        ):
            if rows:
                write(query, rows)
                rows.clear()
        if self._results:
            write("INSERT INTO results VALUES (?, ?, ?, ?, ?)", list(self._results.values()))
            self._results.clear()
        if self._new_keys:
            write("INSERT INTO keys VALUES (?, ?, ?)", [(*name, digest) for name, digest in self._new_keys.items()])
            self._new_keys.clear()
            self._keys.clear()

    def lost(self) -> None:
        self._forget()
        for _, id in self._expiring:
            heapq.heappush(self.due, (self._clock() + RETRY_S, id))
        self._expiring.clear()
        self._not_before = self._clock() + RETRY_S

    def _forget(self) -> None:
        kept: tuple[dict[Any, Any] | list[Any], ...] = (
            self._accounts, self._holds, self._keys, self._changed_accounts, self._changed_holds, self._new_keys,
            self.entries, self._attempts, self._results,
        )  # fmt: skip
        for one in kept:
            one.clear()
        self._data_version = -1

    def wait_s(self) -> float | None:
        times = [self.due[0][0]] if self.due else []
        times += [] if self._owners.next is None else [self._owners.next]
        return max(0.0, min(times) - self._clock(), self._not_before - self._clock()) if times else None

    # --- the journal, and a look at all of it

    def keep_attempt(self, id: str, run: str, body: bytes) -> None:
        self._attempts.append((id, run, body, seal(body)))

    def keep_result(self, task: str, run: str, status: str, body: bytes) -> None:
        self._results[task] = (task, run, status, body, seal(body))

    def has_result(self, task: str) -> bool:
        known: int = self._db.execute("SELECT count(*) FROM results WHERE task = ?", (task,)).get
        return task in self._results or known > 0

    def problems(self) -> list[str]:
        self.flush()
        ids: list[Any] = self._db.execute("SELECT id FROM accounts").fetchall()
        rows: list[Any] = self._db.execute(_SUMS).fetchall()
        sums = summed((account, part, (money, tokens, ms)) for account, part, money, tokens, ms in rows)
        return audit([self.account(id) for (id,) in ids], sums, self._read_open())

    def leave(self) -> None:
        self.flush()
        self._owners.leave(self._db)

    # --- what the ledger asks for

    def _load_account(self, id: AccountId) -> Account | None:
        row: Any = self._db.execute(_READ_ACCOUNT, (id,)).fetchone()
        if row is None:
            return None
        _, run, parent, *numbers = row
        limit = (numbers[0], numbers[1], numbers[2])
        account = Account(id, run, limit, None if parent is None else self.account(parent))
        account.settled, account.held, account.over = numbers[3:6], numbers[6:9], numbers[9:]
        self._accounts[id] = account
        return account

    def _load_hold(self, id: str) -> Hold | None:
        row = self._db.execute(_READ_HOLD, (id,)).fetchone()
        return None if row is None else self._hold(row)

    def _load_key(self, verb: str, key: str) -> bytes | None:
        known: bytes | None = self._db.execute("SELECT digest FROM keys WHERE verb = ? AND key = ?", (verb, key)).get
        return known

    def _load_open(self, run: str | None, owner: OwnerId | None) -> Iterable[Hold]:
        self._write()
        return [hold for hold in self._read_open() if hold.account.run == run or hold.owner == owner]

    def _read_open(self) -> list[Hold]:
        rows: list[Any] = self._db.execute(_READ_OPEN).fetchall()
        return [self._holds.get(row[0]) or self._hold(row) for row in rows]

    def _hold(self, row: Any) -> Hold:
        id, kind, account, owner, state, *numbers = row
        hold = Hold(id, kind, self.account(account), _three(numbers), state, owner)
        hold.charged, hold.over = _three(numbers[3:6]), _three(numbers[6:])
        if hold.open:
            self._holds[id] = hold
        return hold

    def _changed(self, hold: Hold) -> None:
        self._changed_holds[hold.id] = hold
        for account in hold.account.chain:
            self._changed_accounts[account.id] = account
        if hold.open:
            self._owners.wake()

    def _opened(self, account: Account) -> None:
        self._changed_accounts[account.id] = account

    def _keep_key(self, verb: str, key: str, digest: bytes) -> None:
        self._keys[verb, key] = self._new_keys[verb, key] = digest


def _account_row(of: Account) -> tuple[Any, ...]:
    return (of.id, of.run, of.parent, *of.limit, *of.settled, *of.held, *of.over)


def _hold_row(of: Hold) -> tuple[Any, ...]:
    return (of.id, of.kind, of.account.id, of.owner, of.state, *of.amount, *of.charged, *of.over, of.account.run)


def _three(numbers: list[int]) -> Units:
    return (numbers[0], numbers[1], numbers[2])
