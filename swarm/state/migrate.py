"""An old store becomes a new one: 1 → 2 books what its accounts say as the first entries, 2 → 3 seals its journal."""

from __future__ import annotations

from typing import Any

import apsw

from swarm.state.seals import seal

_ASIDE = """
ALTER TABLE accounts RENAME TO v1_accounts;
ALTER TABLE holds RENAME TO v1_holds;
"""

# Holds of version 1 did not say whether they were sent, so they count as sent. Each was booked on its task and on its
# run, so a run's balances are the sums of its tasks'; what is not (there should be none) is booked on the run.
_COPY = """
INSERT INTO accounts (
    id, run, parent, limit_micro_usd, limit_tokens, settled_micro_usd, settled_tokens, held_micro_usd, held_tokens)
  SELECT id, run, CASE WHEN id LIKE 'task:%' THEN 'run:' || run END, limit_micro_usd, limit_tokens,
    settled_micro_usd, settled_tokens, held_micro_usd, held_tokens
  FROM v1_accounts ORDER BY id LIKE 'task:%';
INSERT INTO holds (id, kind, account, run, owner, state, micro_usd, tokens, ms, overrun_micro_usd, overrun_tokens)
  SELECT id, 'attempt', 'task:' || task, run, '', CASE state WHEN 'held' THEN 'sent' ELSE state END,
    micro_usd, tokens, 0, overrun_micro_usd, overrun_tokens FROM v1_holds;
UPDATE accounts SET
  overrun_micro_usd = (SELECT coalesce(sum(overrun_micro_usd), 0) FROM holds WHERE account = accounts.id
    OR (holds.run = accounts.run AND accounts.parent IS NULL)),
  overrun_tokens = (SELECT coalesce(sum(overrun_tokens), 0) FROM holds WHERE account = accounts.id
    OR (holds.run = accounts.run AND accounts.parent IS NULL))
WHERE run IN (SELECT run FROM holds WHERE overrun_micro_usd > 0 OR overrun_tokens > 0);
INSERT INTO entries (transaction_id, kind, hold, account, debit, credit, micro_usd, tokens, ms)
  SELECT 1, 'opening', '', own.id, 'free', 'spent',
    own.settled_micro_usd - coalesce(sum(below.settled_micro_usd), 0),
    own.settled_tokens - coalesce(sum(below.settled_tokens), 0), 0
  FROM accounts own LEFT JOIN accounts below ON below.parent = own.id GROUP BY own.id
  HAVING own.settled_micro_usd > coalesce(sum(below.settled_micro_usd), 0)
    OR own.settled_tokens > coalesce(sum(below.settled_tokens), 0);
INSERT INTO entries (transaction_id, kind, hold, account, debit, credit, micro_usd, tokens, ms)
  SELECT 1, 'opening', id, account, 'free', 'held', micro_usd, tokens, 0 FROM holds WHERE state = 'sent';
INSERT INTO entries (transaction_id, kind, hold, account, debit, credit, micro_usd, tokens, ms)
  SELECT 1, 'opening', id, account, 'outside', 'over', overrun_micro_usd, overrun_tokens, 0
  FROM holds WHERE overrun_micro_usd > 0 OR overrun_tokens > 0;
DROP TABLE v1_accounts;
DROP TABLE v1_holds;
UPDATE meta SET version = 2;
"""


def from_v1(db: apsw.Connection, ledger: str) -> None:
    """Within a transaction. `ledger`: what makes the tables of version 2."""
    db.execute(_ASIDE + ledger + _COPY)


# What was accepted before version 3 is not known; such a run can be looked at, and not gone on with.
_JOURNAL_ASIDE = """
ALTER TABLE attempts RENAME TO v2_attempts;
ALTER TABLE results RENAME TO v2_results;
DROP INDEX attempts_of_run;
DROP INDEX results_of_run;
"""
_SEAL = """
INSERT INTO attempts SELECT id, run, body, seal(body) FROM v2_attempts;
INSERT INTO results SELECT task, run, status, body, seal(body) FROM v2_results;
DROP TABLE v2_attempts;
DROP TABLE v2_results;
UPDATE meta SET version = 3;
"""


def from_v2(db: apsw.Connection, journal: str) -> None:
    """Within a transaction. `journal`: what makes the tables of version 3."""
    db.create_scalar_function("seal", _seal, 1, deterministic=True)
    db.execute(_JOURNAL_ASIDE + journal + _SEAL)


def _seal(*body: Any) -> bytes:
    return seal(body[0])
