"""*tool*: a pack's own code, run apart and checked."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from specialist_packs import answered, ask, failed, tool_pack

from protocols.answers import Answer, Failed
from swarm.errors import PackError
from swarm.specialists.tool import Tool

ADD = "def run(a, b):\n    return {'sum': a + b}\n"


async def reply_of(folder: Path, code: str, **given: object) -> Answer | Failed:
    pack, path = tool_pack(folder, code)
    return await Tool(pack, path).answer(ask(given or {"a": 1, "b": 2}))


async def test_tool_answers_from_its_inputs(tmp_path: Path) -> None:
    """`run` gets the step's inputs by name, and what it returns is the certain answer."""
    answer = answered(await reply_of(tmp_path, ADD, a=2, b=3))
    assert answer.output == {"sum": 5} and answer.signals.p == 1.0


async def test_coroutine_function_is_awaited(tmp_path: Path) -> None:
    """`run` may be a coroutine function."""
    code = "import asyncio\nasync def run(a, b):\n    await asyncio.sleep(0)\n    return {'sum': a + b}\n"
    assert answered(await reply_of(tmp_path, code)).output == {"sum": 3}


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("raise ValueError('no such account')", "ValueError: no such account"),
        ("return {'sum': a / 0}", "ZeroDivisionError"),
        ("return next(iter([]))", "StopIteration"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("return run(a, b)", "RecursionError"),
        ("return {'sum': object()}", "TypeError"),
        ("return {'sum': 10 ** 30}", "OverflowError"),
    ],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_whatever_a_tool_raises_is_a_failure(tmp_path: Path, body: str, name: str, kind: str) -> None:
    """An exception of any kind ends the attempt, names itself, and leaves the host alone."""
    if kind == "async def":
        name, body = name.replace("StopIteration", "RuntimeError"), body.replace("run(", "await run(")
    reply = failed(await reply_of(tmp_path, f"{kind} run(a, b):\n    {body}\n"))
    assert reply.reason == "tool_error" and f"raised {name}" in reply.detail and "'desk'" in reply.detail
    assert len(reply.detail) <= 500


async def test_wrong_inputs_are_said(tmp_path: Path) -> None:
    """A step that gives a tool other inputs than it takes fails with Python's own sentence."""
    reply = failed(await reply_of(tmp_path, ADD, a=1, c=2))
    assert reply.reason == "tool_error" and "unexpected keyword argument 'c'" in reply.detail


@pytest.mark.parametrize("returned", ["None", "5", "{'sum': '3'}", "{}", "[1]"])
async def test_output_beside_the_schema_is_a_failure(tmp_path: Path, returned: str) -> None:
    """What is returned must satisfy the pack's schema."""
    reply = failed(await reply_of(tmp_path, f"def run(a, b):\n    return {returned}\n"))
    assert reply.reason == "invalid_output" and "'desk'" in reply.detail


async def test_output_is_the_same_here_and_on_another_machine(tmp_path: Path) -> None:
    """Tuples, sets, dates and the like become what they would be after a journey."""
    code = (
        "import datetime, dataclasses\n"
        "@dataclasses.dataclass\nclass Row:\n    n: int\n"
        "def run(a, b):\n"
        "    return {'sum': 1, 'x': (1, 2), 'day': datetime.date(2024, 5, 3), 'rows': [Row(1)], 7: None}\n"
    )
    answer = answered(await reply_of(tmp_path, code))
    assert answer.output == {"sum": 1, "x": [1, 2], "day": "2024-05-03", "rows": [{"n": 1}], "7": None}


async def test_slow_tool_stalls_nobody(tmp_path: Path) -> None:
    """While one tool waits, the event loop goes on."""
    pack, path = tool_pack(tmp_path, "def run(a, b):\n    a.wait(10)\n    return {'sum': 1}\n")
    released = threading.Event()
    slow = asyncio.create_task(Tool(pack, path).answer(ask({"a": released, "b": 0})))
    await asyncio.sleep(0)
    assert not slow.done()
    released.set()
    assert answered(await slow).output == {"sum": 1}


def test_changed_code_is_not_run(tmp_path: Path) -> None:
    """Code that is not what the swarm was loaded with is refused before any of it runs."""
    pack, path = tool_pack(tmp_path, ADD)
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{ADD}")
    with pytest.raises(PackError, match=r"not the tools\.py"):
        Tool(pack, path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("x = 1\n", "no function 'run'"),
        ("run = 5\n", "no function 'run'"),
        ("def run(:\n", "SyntaxError"),
        ("import no_such_module\n", "ModuleNotFoundError"),
        ("1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_code_that_cannot_be_used_is_a_fault_of_the_pack(tmp_path: Path, code: str, why: str) -> None:
    """A tools.py that does not load, or has no `run`, is reported with its path."""
    pack, path = tool_pack(tmp_path, code)
    with pytest.raises(PackError, match=why) as caught:
        Tool(pack, path)
    assert str(path) in str(caught.value)


async def test_tool_is_compiled_as_it_stands(tmp_path: Path) -> None:
    """No `from __future__` of ours changes what a tool's code means."""
    code = "def run(a: int, b: int):\n    return {'sum': int(run.__annotations__['a'] is int)}\n"
    assert answered(await reply_of(tmp_path, code)).output == {"sum": 1}


async def test_dataclasses_with_postponed_annotations_work(tmp_path: Path) -> None:
    """A tool's module is where Python looks for it."""
    code = (
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass Pair:\n    a: int\n    b: int\n"
        "def run(a, b):\n    pair = Pair(a, b)\n    return {'sum': pair.a + pair.b}\n"
    )
    assert answered(await reply_of(tmp_path, code)).output == {"sum": 3}
