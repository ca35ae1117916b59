"""*tool*: plain code of a pack, found on this machine by the pack's name and checked by its hash."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema

from protocols.answers import Answer, Ask, Failed, Signals
from protocols.packs import Pack
from swarm.errors import PackError
from swarm.specialists.base import Rehearsed


class Tool:
    """Tier *code*: calls `run(**inputs)` of the pack's tools.py, in a thread so that slow code stalls nobody else."""

    def __init__(self, pack: Pack, path: Path) -> None:
        self._pack = pack
        self._run = _load(pack, path)

    async def answer(self, ask: Ask) -> Answer | Failed:
        try:
            output = await asyncio.to_thread(self._run, **ask.input)
        except Exception as e:
            detail = f"tools.py of pack {self._pack.name!r} raised {type(e).__name__}: {e}"
            return Failed(id=ask.id, reason="tool_error", detail=detail[:500])
        if inspect.isawaitable(output):
            output = await output
        try:
            jsonschema.validate(output, self._pack.output_schema)
        except jsonschema.ValidationError as e:
            return Failed(id=ask.id, reason="invalid_output", detail=f"pack {self._pack.name!r}: {e.message}")
        return Answer(id=ask.id, output=output, signals=Signals(p=1.0))

    async def rehearse(self) -> list[Rehearsed]:
        return []


def _load(pack: Pack, path: Path) -> Callable[..., Any]:
    source = path.read_bytes()
    if hashlib.sha256(source).hexdigest() != pack.tools_sha256:
        raise PackError(f"{path}: not the tools.py that the swarm was loaded with; put the same pack on every machine")
    module = ModuleType(f"swarm_pack_{pack.name}")
    module.__file__ = str(path)
    exec(compile(source, str(path), "exec"), module.__dict__)
    run = getattr(module, "run", None)
    if not callable(run):
        raise PackError(f"{path}: defines no function 'run'; a tool pack needs run(**inputs) -> dict")
    return run  # type: ignore[no-any-return]
