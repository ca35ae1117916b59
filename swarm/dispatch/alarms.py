"""The alarms of a run's certificates. What they have seen outlasts the run, for as long as the calibration does.

A step's wealth (`drift`) is kept under the calibration that its certificate was made from, and every run goes on where
the last one stopped: to start at 1 with each run would forget every breach that is slower than a run, and give each run
a false alarm of its own to raise. After an alarm the step keeps nothing local, in this run or the next, until it is
calibrated anew; a new calibration file has another digest, and its watch begins afresh.

Several runs may watch at once. What one has seen is laid on what the others have written meanwhile, so that there is
one bettor for all of them. If two write in the same moment, the answers of one are lost to her: she knows less than she
might, and still raises no more false alarms, as it is not for what they say that they are lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import msgspec
import structlog

from swarm.dispatch.drift import Drift, Wealth
from swarm.dispatch.lasting import ALARM, Lasting
from swarm.errors import StoreError
from swarm.state.records import Record

log = structlog.get_logger(__name__)

REMEDY = "nothing local is kept for this step any more; calibrate it with new labels"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, Wealth]).decode  # by the certified error: another promise, another watch


class Alarms:
    """One run's. `errors`: step -> the error that was certified. `lasting` None: nothing outlasts the run.

    `raised`: steps whose certificate no longer holds; the set stays the same object.
    """

    def __init__(self, errors: Mapping[str, float], lasting: Lasting | None = None) -> None:
        self.raised: set[str] = set()
        self._drifts = {step: Drift(error) for step, error in errors.items()}
        self._lasting = lasting
        self._unwritten: dict[str, list[bool]] = {step: [] for step in errors}
        self._writing = asyncio.Lock()

    async def begin(self) -> None:
        """Take up what earlier runs have found. Raises `StoreError`: without it nobody knows what may be kept."""
        for step in self._drifts if self._lasting is not None else ():
            kept = await self._kept(step)
            self._take_up(step, kept.get(self._promise(step)))

    async def observe(self, step: str, wrong: bool) -> None:
        """A kept answer was looked at again, and was wrong or not. It counts at once, also where it cannot be kept."""
        if step not in self._drifts or step in self.raised:
            return
        self._drifts[step].observe(wrong)
        self._ring(step)
        if self._lasting is not None:
            self._unwritten[step].append(wrong)
            async with self._writing:
                await self._write(step)

    async def _write(self, step: str) -> None:
        """Lay what was seen here on what is kept, and keep that; whatever gathered during the last writing at once."""
        seen = self._unwritten[step]
        if not seen:
            return
        self._unwritten[step] = []
        try:
            kept = await self._kept(step)
            here, both = self._drifts[step], Drift(self._drifts[step].error, wealth=kept.get(self._promise(step)))
            for wrong in seen:
                both.observe(wrong)
            if step in self.raised:  # and stays so, whatever came between
                both.wealth = replace(both.wealth, peak=max(both.wealth.peak, here.wealth.peak))
            await self._keep(step, kept | {self._promise(step): both.wealth})
        except StoreError as e:
            self._unwritten[step] = seen + self._unwritten[step]
            log.warning("alarm.not_kept", step=step, cause=str(e))
            return
        self._take_up(step, both.wealth)

    def _take_up(self, step: str, wealth: Wealth | None) -> None:
        """Go on from `wealth`, with what has been seen here since."""
        drift = self._drifts[step] = Drift(self._drifts[step].error, wealth=wealth)
        for wrong in self._unwritten[step]:
            drift.observe(wrong)
        self._ring(step)

    def _ring(self, step: str) -> None:
        drift = self._drifts[step]
        if drift.alarm and step not in self.raised:
            self.raised.add(step)
            log.warning("certificate.broken", step=step, error=drift.error, answers=drift.wealth.n, remedy=REMEDY)

    # --- the records

    def _promise(self, step: str) -> str:
        return f"{self._drifts[step].error:.9g}"

    async def _kept(self, step: str) -> dict[str, Wealth]:
        assert self._lasting is not None
        key = f"{self._lasting.calibration}/{step}"
        record = await self._lasting.records.get(ALARM, self._lasting.scope, key)
        try:
            return _decode(record.body) if record is not None else {}
        except msgspec.DecodeError as e:
            raise StoreError(f"alarm {key!r} of {self._lasting.scope!r} cannot be read ({e}); calibrate anew") from e

    async def _keep(self, step: str, wealth: Mapping[str, Wealth]) -> None:
        assert self._lasting is not None
        now = self._lasting.now()
        key = f"{self._lasting.calibration}/{step}"
        await self._lasting.records.put(
            [Record(kind=ALARM, scope=self._lasting.scope, key=key, body=_encode(wealth), at=now)]
        )
