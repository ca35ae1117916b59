"""Any mix of what a store can be asked for, on PostgreSQL: as on the other engines (test_ledger.py)."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import rule, run_state_machine_as_test
from ledger_books import RUN, record
from postgres_server import Server
from test_ledger import STEPS, Ledger

from protocols.money import Limit
from swarm.state.postgres.store import PostgresStore


def test_books_in_postgresql_are_right_after_any_mix(postgres: Server) -> None:
    """The same answers as the model of a few lines, and the same balances."""

    class InPostgres(Ledger):
        async def begun(self, run: Limit, tenant: Limit) -> None:
            self.url = postgres.new()
            self.store = await PostgresStore.open(self.url)
            await self.store.tenant("acme", tenant)
            await self.store.begin(record(RUN), run, "acme")

        @rule()
        def reopen(self) -> None:
            """A store that is closed and opened again says the same."""
            self.runner.run(self.store.close())
            self.store = self.runner.run(PostgresStore.open(self.url))

    few = settings(max_examples=max(1, STEPS // 40), stateful_step_count=20, deadline=None)
    run_state_machine_as_test(InPostgres, settings=few)
