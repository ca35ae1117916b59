"""Which program works on a run: noted with it, so that no second one takes it up while the first is alive."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from protocols.ids import RunId
from swarm.errors import StoreError
from swarm.state.records import Record, RecordExists, Records

KIND, KEY = "worker", "-"

_here: set[str] = set()  # nonces of those in this process


class Worker(msgspec.Struct, frozen=True):
    """`machine`: one life of one machine. `started`: when the process was. `nonce`: which run of that process."""

    machine: str
    pid: int
    started: str
    nonce: str


async def take(records: Records, run: RunId, nonce: str) -> None:
    """Note who works on the run. Raises `StoreError` while another of this machine does.

    Of a program on another machine nobody here can say whether it lives; it is taken to be gone.
    """
    me = Worker(_machine(), os.getpid(), _started(os.getpid()), nonce)
    record = Record(kind=KIND, scope=run, key=KEY, body=msgspec.json.encode(me))
    try:
        await records.put([record], new=True)
    except RecordExists:
        known = await records.get(KIND, run, KEY)
        if known is not None and _lives(other := msgspec.json.decode(known.body, type=Worker), me):
            raise StoreError(
                f"run {run!r} is worked on by process {other.pid} of this machine; end that first"
            ) from None
        await records.put([record])
    _here.add(nonce)


async def leave(records: Records, run: RunId, nonce: str) -> None:
    """Nobody works on it any more."""
    _here.discard(nonce)
    await records.forget(KIND, run)


def forget_all() -> None:
    """As if this process had just begun: for simulations, whose programs die within it."""
    _here.clear()


def _lives(other: Worker, me: Worker) -> bool:
    if other.machine != me.machine:
        return False
    if other.pid == me.pid and other.started == me.started:
        return other.nonce in _here
    return _started(other.pid) == other.started


def _machine() -> str:
    return _read("/proc/sys/kernel/random/boot_id")


def _started(pid: int) -> str:
    """Empty where there is no such process, or the system does not say."""
    return (_read(f"/proc/{pid}/stat").rpartition(")")[2].split() or [""] * 20)[19]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
