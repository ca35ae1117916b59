"""The rows that a group of operations needs, locked for one transaction, as a ledger to apply its rules to.

Every dispatcher locks the accounts that it needs, with all above them, in the order of their names: two that want the
same rows wait for each other and do not block each other. Holds, keys and results are read when the locks are there, as
whoever changes them has locked their accounts too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from protocols.money import Amount
from swarm.state.account import Account, Hold, Units
from swarm.state.base import AccountId, OwnerId
from swarm.state.ledger import Ledger
from swarm.state.seals import seal

_UNITS = ("micro_usd", "tokens", "ms")


def _columns(*of: str) -> str:
    return ", ".join(f"{name}_{unit}" if name else unit for name in of for unit in _UNITS)


def _insert(table: str, columns: str) -> str:
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join(['%s'] * len(columns.split(', ')))})"


_ACCOUNT = f"id, run, parent, {_columns('limit', 'settled', 'held', 'overrun')}"
_HOLD = f"id, kind, account, owner, state, {_columns('', 'charged', 'overrun')}"
_OPEN = "state IN ('held', 'sent') AND (run = ANY(%s) OR owner = ANY(%s))"
_ACCOUNTS_OF_HOLDS = f"SELECT account FROM holds WHERE id = ANY(%s) UNION SELECT account FROM holds WHERE {_OPEN}"
_READ_ACCOUNTS = f"""
WITH RECURSIVE chain AS (
  SELECT id, parent FROM accounts WHERE id = ANY(%s)
  UNION SELECT above.id, above.parent FROM accounts above JOIN chain ON above.id = chain.parent
)
SELECT {_ACCOUNT} FROM accounts WHERE id IN (SELECT id FROM chain) ORDER BY id FOR UPDATE
"""
_READ_HOLDS = f"SELECT {_HOLD} FROM holds WHERE id = ANY(%s) OR {_OPEN}"
_READ_KEYS = "SELECT verb, key, digest FROM keys WHERE (verb, key) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"
_READ_RESULTS = "SELECT task FROM results WHERE task = ANY(%s)"
_READ_RUNS = "SELECT id FROM runs WHERE id = ANY(%s)"
_WRITE_ACCOUNT = f"""
UPDATE accounts SET ({_columns("limit", "settled", "held", "overrun")}) = ROW({", ".join(["%s"] * 12)}) WHERE id = %s
"""
_WRITE_HOLD = f"""
UPDATE holds SET (state, {_columns("", "charged", "overrun")}) = ROW({", ".join(["%s"] * 10)}) WHERE id = %s
"""
_NEW_ACCOUNT = _insert("accounts", _ACCOUNT)
_NEW_HOLD = _insert("holds", f"{_HOLD}, run")
_NEW_KEY = _insert("keys", "verb, key, digest")
_NEW_ENTRY = _insert("entries", f"transaction_id, kind, hold, account, debit, credit, {_columns('')}")


class Moved(Exception):
    """Somebody else's commit came between: the page must be read again."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a page must hold for a rule: accounts with all above them, holds with theirs, all open ones of some."""

    accounts: tuple[AccountId, ...] = ()
    holds: tuple[str, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    tasks: tuple[str, ...] = ()  # which of them have a result
    runs: tuple[str, ...] = ()  # which of them are there, and their open holds
    owners: tuple[OwnerId, ...] = ()  # their open holds


class Page(Ledger):
    """Lives for one transaction. `read`, apply rules, `write`, commit."""

    def __init__(self, owner: OwnerId, clock: Callable[[], float]) -> None:
        super().__init__(owner, clock)
        self.ended: set[str] = set()  # tasks that have a result
        self.runs: set[str] = set()  # of those that were asked for, the ones that are there
        self._read: set[str] = set()  # accounts and holds that the database has
        self._changed_accounts: dict[AccountId, Account] = {}
        self._changed_holds: dict[str, Hold] = {}
        self._new_keys: list[tuple[str, str, bytes]] = []
        self._rows: list[tuple[str, tuple[Any, ...]]] = []

    # --- reading

    async def read(self, db: psycopg.AsyncConnection, needs: Sequence[Needs]) -> None:
        accounts = {id for each in needs for id in each.accounts}
        holds = [id for each in needs for id in each.holds]
        open_of = ([id for each in needs for id in each.runs], [id for each in needs for id in each.owners])
        if holds or any(open_of):
            accounts |= {id for (id,) in await _rows(db, _ACCOUNTS_OF_HOLDS, (holds, *open_of))}
        if accounts:
            self._add_accounts(await _rows(db, _READ_ACCOUNTS, (list(accounts),)))
        if holds or any(open_of):
            self._add_holds(await _rows(db, _READ_HOLDS, (holds, *open_of)))
        if keys := [key for each in needs for key in each.keys]:
            for verb, key, digest in await _rows(db, _READ_KEYS, tuple(map(list, zip(*keys, strict=True)))):
                self._keys[verb, key] = digest
        if tasks := [id for each in needs for id in each.tasks]:
            self.ended.update(
                id for (id,) in await _rows(db, "SELECT task FROM results WHERE task = ANY(%s)", (tasks,))
            )
        if open_of[0]:
            self.runs.update(id for (id,) in await _rows(db, _READ_RUNS, (open_of[0],)))

    def _add_accounts(self, rows: Iterable[tuple[Any, ...]]) -> None:
        by_id = {row[0]: row for row in rows}

        def add(id: AccountId) -> Account:
            if id not in self._accounts:
                _, run, parent, *numbers = by_id[id]
                above = None if parent is None else add(parent)
                account = Account(id, run, (numbers[0], numbers[1], numbers[2]), above)
                account.settled, account.held, account.over = numbers[3:6], numbers[6:9], numbers[9:]
                self._accounts[id] = account
                self._read.add(id)
            return self._accounts[id]

        for id in by_id:
            add(id)

    def _add_holds(self, rows: Iterable[tuple[Any, ...]]) -> None:
        for id, kind, account, owner, state, *numbers in rows:
            if account not in self._accounts:
                raise Moved
            hold = Hold(id, kind, self._accounts[account], _three(numbers), state, owner)
            hold.charged, hold.over = _three(numbers[3:6]), _three(numbers[6:])
            self._holds[id] = hold
            self._read.add(id)

    async def read_all(self, db: psycopg.AsyncConnection) -> None:
        """Every account and every open hold, for a look at the books."""
        self._add_accounts(await _rows(db, f"SELECT {_ACCOUNT} FROM accounts"))
        self._add_holds(await _rows(db, f"SELECT {_HOLD} FROM holds WHERE state IN ('held', 'sent')"))

    # --- what rules say besides

    def put(self, query: str, *row: Any) -> None:
        """A row to write with the rest."""
        self._rows.append((query, row))

    def keep_attempt(self, id: str, run: str, body: bytes) -> None:
        self.put("INSERT INTO attempts VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING", id, run, body, seal(body))

    def lapse(self, ids: Iterable[str]) -> None:
        """End those that were not sent."""
        for id in ids:
            hold = self.find(id)
            if hold is not None and hold.state == "held":
                self._end(hold, Amount(), "void", "expire")

    @property
    def holds_something(self) -> bool:
        return any(hold.open for hold in self._changed_holds.values())

    # --- writing

    async def write(self, db: psycopg.AsyncConnection) -> None:
        """Parents come before their children: they were opened before them."""
        async with db.pipeline(), db.cursor() as to:
            accounts, holds = self._changed_accounts.values(), self._changed_holds.values()
            await _many(to, _NEW_ACCOUNT, [_account_row(of) for of in accounts if of.id not in self._read])
            await _many(to, _WRITE_ACCOUNT, [(*_account_row(of)[3:], of.id) for of in accounts if of.id in self._read])
            await _many(to, _NEW_HOLD, [_hold_row(of) for of in holds if of.id not in self._read])
            await _many(to, _WRITE_HOLD, [(*_hold_row(of)[4:14], of.id) for of in holds if of.id in self._read])
            await self._write_entries(to)
            await _many(to, _NEW_KEY, self._new_keys)
            for query, row in self._rows:
                await to.execute(query.encode(), row)

    async def _write_entries(self, to: psycopg.AsyncCursor) -> None:
        if self.entries:
            await to.execute(f"SELECT nextval('transactions') FROM generate_series(1, {self._transaction})".encode())
            numbers = [number for (number,) in await to.fetchall()]
            rows = [(numbers[entry[0] - 1], *entry[1:]) for entry in self.entries]
            await _many(to, _NEW_ENTRY, rows)

    # --- what the ledger says

    def _changed(self, hold: Hold) -> None:
        self._changed_holds[hold.id] = hold
        for account in hold.account.chain:
            self._changed_accounts[account.id] = account

    def _opened(self, account: Account) -> None:
        self._changed_accounts[account.id] = account

    def _keep_key(self, verb: str, key: str, digest: bytes) -> None:
        self._keys[verb, key] = digest
        self._new_keys.append((verb, key, digest))


async def _rows(db: psycopg.AsyncConnection, query: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    return await (await db.execute(query.encode(), arguments)).fetchall()


async def _many(to: psycopg.AsyncCursor, query: str, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        await to.executemany(query.encode(), rows)


def _account_row(of: Account) -> tuple[Any, ...]:
    return (of.id, of.run, of.parent, *of.limit, *of.settled, *of.held, *of.over)


def _hold_row(of: Hold) -> tuple[Any, ...]:
    return (of.id, of.kind, of.account.id, of.owner, of.state, *of.amount, *of.charged, *of.over, of.account.run)


def _three(numbers: list[int]) -> Units:
    return (numbers[0], numbers[1], numbers[2])
