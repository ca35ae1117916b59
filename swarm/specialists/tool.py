"""*tool*: plain code of a pack, found on this machine by the pack's name and checked by its hash."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from protocols.answers import Answer, Ask, Failed, Signals
from protocols.packs import Pack
from swarm.config.packs import IDEMPOTENCY_KEY, MEMORY
from swarm.config.schemas import Validator
from swarm.errors import PackError
from swarm.specialists.base import Rehearsed
from swarm.specialists.threads import Threads, TooManyAbandoned

Run = Callable[..., Any]


class Tool:
    """Tier *code*: calls `run(**inputs)` of the pack's tools.py.

    A plain function runs in a thread of the pack's own, so that slow code stalls nobody else, and code that never
    returns stalls its own pack only; a coroutine function is awaited among all the work of its host, and should
    therefore not block. Besides the inputs, `run` gets `memory` (the step's notes) and `idempotency_key` (of a write)
    where it has parameters of these names. A write is made under a key only, so never to try or to calibrate something.
    """

    def __init__(self, pack: Pack, path: Path) -> None:
        self._pack = pack
        self._schema = Validator(pack.output_schema)
        self._run = _load(pack, path)
        self._takes = _parameters(self._run)
        self._threads = None if inspect.iscoroutinefunction(self._run) else Threads(pack.name)

    async def answer(self, ask: Ask) -> Answer | Failed:
        if self._pack.effects == "write" and not ask.key:
            detail = f"pack {self._pack.name!r} writes, and is called in a task's course only, under an idempotency key"
            return Failed(id=ask.id, reason="declined", detail=detail)
        given = self._given(ask)
        if self._threads is None:
            output, error = await _awaited(self._run, given)
        else:
            try:
                output, error = await self._threads.call(functools.partial(_called, self._run, given))
            except TooManyAbandoned as e:
                return Failed(id=ask.id, reason="unavailable", detail=str(e))
        if error is not None:
            detail = f"tools.py of pack {self._pack.name!r} raised {type(error).__name__}: {error}"
            return Failed(id=ask.id, reason="tool_error", detail=detail[:500])
        if problem := self._schema.problem(output):
            return Failed(id=ask.id, reason="invalid_output", detail=f"pack {self._pack.name!r}: {problem}")
        return Answer(id=ask.id, output=output, signals=Signals(p=1.0))

    async def rehearse(self) -> list[Rehearsed]:
        return []

    def _given(self, ask: Ask) -> dict[str, Any]:
        """The pack's inputs, and of what comes beside them that which `run` takes."""
        inputs = self._pack.input
        given = {name: v for name, v in ask.input.items() if name != MEMORY or name in inputs or name in self._takes}
        return {**given, IDEMPOTENCY_KEY: ask.key} if ask.key and IDEMPOTENCY_KEY in self._takes else given


# What a tool raises is handed on as a value: a `StopIteration` or `SystemExit` must not reach the event loop.


def _called(run: Run, given: Mapping[str, Any]) -> tuple[Any, BaseException | None]:
    """What `run` returns, as plain data that can travel, or what it raises."""
    try:
        output = run(**given)
        if inspect.iscoroutine(output):
            output = asyncio.run(output)
        return _sent(output), None
    except BaseException as e:
        return None, e


async def _awaited(run: Run, given: Mapping[str, Any]) -> tuple[Any, BaseException | None]:
    """The same for a coroutine function. Cancelling the attempt cancels it."""
    try:
        return _sent(await run(**given)), None
    except asyncio.CancelledError as e:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return None, e
    except BaseException as e:
        return None, e


def _parameters(run: Run) -> frozenset[str]:
    """The names that may be given to `run` as keywords, but for those that only `**kwargs` would take."""
    try:
        found = inspect.signature(run).parameters.values()
    except (TypeError, ValueError):  # some callables do not say
        return frozenset()
    return frozenset(p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))


def _sent(output: Any) -> Any:
    """`output` as it is after a journey to another machine."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(msgspec.to_builtins(output, str_keys=True)))


def _load(pack: Pack, path: Path) -> Run:
    source = path.read_bytes()
    if hashlib.sha256(source).hexdigest() != pack.tools_sha256:
        raise PackError(f"{path}: not the tools.py that the swarm was loaded with; put the same pack on every machine")
    module = ModuleType(f"swarm_pack_{pack.name}_{pack.tools_sha256[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and their like look for a class's module
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except Exception as e:
        raise PackError(f"{path}: cannot be run: {type(e).__name__}: {e}") from e
    run = getattr(module, "run", None)
    if not callable(run):
        raise PackError(f"{path}: defines no function 'run'; a tool pack needs run(**inputs) -> dict")
    return run  # type: ignore[no-any-return]
