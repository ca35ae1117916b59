"""A dispatcher that spends from a shared account until it is killed.

    python store_spender.py URL NAME FOLDER

Beside FOLDER/NAME.bills, what has really left and what it cost, it writes FOLDER/NAME.told: attempts that the store has
acknowledged as ended. Both outlive everything.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from random import Random

from protocols.money import Amount
from protocols.records import Attempt
from swarm.errors import StoreError
from swarm.state.postgres.store import PostgresStore

RUN = "r-1"
TASKS = 12
SIDE_BY_SIDE = 8
TTL_S = 3.0
PAUSE_S = 0.05  # after an error of the store


async def spend(store: PostgresStore, name: str, folder: Path, chance: Random) -> None:
    bills = os.open(folder / f"{name}.bills", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    told = os.open(folder / f"{name}.told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for n in range(10**9):
        task = f"t-{chance.randrange(TASKS)}"
        attempt = Attempt(id=f"a-{name}-{n}", task=task, step="s", tier="t", outcome="accepted")
        amount = Amount(tokens=chance.randint(1, 30), micro_usd=chance.randint(0, 20))
        used = Amount(tokens=chance.randint(0, amount.tokens), micro_usd=chance.randint(0, amount.micro_usd))
        try:
            if await store.hold(attempt.id, RUN, task, amount, sent=False, expires_s=5.0) is not None:
                await asyncio.sleep(PAUSE_S)
                continue
            await store.sent(attempt.id)
            os.write(bills, f"{attempt.id} {used.tokens} {used.micro_usd}\n".encode())
            if chance.random() < 0.02:
                continue  # its holder is gone: nobody will end it
            await store.settle(attempt, RUN, used)
            os.write(told, f"{attempt.id}\n".encode())
        except StoreError:
            await asyncio.sleep(PAUSE_S)


async def main(url: str, name: str, folder: Path) -> None:
    store = await PostgresStore.open(url, ttl_s=TTL_S)
    chance = Random(name)
    await asyncio.gather(*(spend(store, f"{name}-{i}", folder, chance) for i in range(SIDE_BY_SIDE)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
