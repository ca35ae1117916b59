"""*tool*: a pack's own code, run apart and checked."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest
from specialist_packs import answered, ask, failed, tool_pack

from protocols.answers import Answer, Failed
from swarm.errors import PackError
from swarm.specialists.threads import AT_ONCE, MOST_ABANDONED
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


KEYED = "def run(a, b, idempotency_key=''):\n    return {'sum': a + b, 'key': idempotency_key}\n"


async def test_tool_that_writes_gets_its_key(tmp_path: Path) -> None:
    """A `run` that takes an idempotency key is given the one of its ask; any other is called as ever."""
    for code, output in ((KEYED, {"sum": 3, "key": "k1"}), (ADD, {"sum": 3})):
        pack, path = tool_pack(tmp_path, code, effects="write")
        reply = await Tool(pack, path).answer(msgspec.structs.replace(ask({"a": 1, "b": 2}), key="k1"))
        assert answered(reply).output == output


async def test_tool_that_writes_is_not_called_without_a_key(tmp_path: Path) -> None:
    """Whoever asks just to see what a tool says, as calibrating does, does not change the world by it."""
    pack, path = tool_pack(tmp_path, f"def run(a, b):\n    open({str(tmp_path / 'ran')!r}, 'w')\n", effects="write")
    reply = failed(await Tool(pack, path).answer(ask({"a": 1, "b": 2})))
    assert reply.reason == "declined" and "idempotency key" in reply.detail and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("head", "told"), [("a, b, memory='none'", "they called"), ("a, b", None), ("a, b, **more", None)]
)
async def test_notes_go_to_a_tool_that_names_them(tmp_path: Path, head: str, told: str | None) -> None:
    """The step's notes are given to a `run` with a parameter `memory`, and to no other."""
    code = f"def run({head}):\n    return {{'sum': 1, 'told': locals().get('memory')}}\n"
    pack, path = tool_pack(tmp_path, code)
    reply = await Tool(pack, path).answer(ask({"a": 1, "b": 2, "memory": "they called"}))
    assert answered(reply).output["told"] == told


class Gate:
    """What calls wait at until they are let go; others can wait until so many have come."""

    def __init__(self) -> None:
        self._released = threading.Event()
        self._come = threading.Semaphore(0)

    def wait(self) -> None:
        self._come.release()
        self._released.wait(30)

    def open(self) -> None:
        self._released.set()

    async def until(self, calls: int) -> None:
        for _ in range(calls):
            await asyncio.to_thread(self._come.acquire)


class Hanging:
    """A tool whose calls wait until they are let go."""

    def __init__(self, folder: Path) -> None:
        pack, path = tool_pack(folder, "def run(a, b):\n    a.wait() if b else None\n    return {'sum': 1}\n")
        self.tool = Tool(pack, path)
        self.gate = Gate()

    async def abandon(self, calls: int) -> None:
        """Make as many calls that hang, and end their attempts."""
        tasks = [asyncio.create_task(self.call(hang=True)) for _ in range(calls)]
        await self.gate.until(calls)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def call(self, hang: bool = False) -> Answer | Failed:
        return await self.tool.answer(ask({"a": self.gate, "b": int(hang)}))


async def test_calls_that_hang_do_not_block_others(tmp_path: Path) -> None:
    """Threads that outlive their attempts leave room for the next calls of the same pack."""
    hanging = Hanging(tmp_path)
    try:
        await hanging.abandon(MOST_ABANDONED)
        replies = await asyncio.gather(*(hanging.call() for _ in range(2 * AT_ONCE)))
        assert [answered(reply).output for reply in replies] == [{"sum": 1}] * (2 * AT_ONCE)
    finally:
        hanging.gate.open()


async def test_pack_that_keeps_hanging_is_refused_until_its_calls_return(tmp_path: Path) -> None:
    """With too many threads left behind a pack is not called any more, and the failure says what to do."""
    hanging = Hanging(tmp_path)
    try:
        await hanging.abandon(MOST_ABANDONED + 1)
        reply = failed(await hanging.call())
        assert reply.reason == "unavailable" and not reply.unknown
        assert "9 of its calls outlived their attempts" in reply.detail and "timeout of its own" in reply.detail
    finally:
        hanging.gate.open()
    for _ in range(200):
        if isinstance(reply := await hanging.call(), Answer):
            break
        await asyncio.sleep(0.01)
    assert answered(reply).output == {"sum": 1}


async def test_call_that_was_not_begun_is_not_made(tmp_path: Path) -> None:
    """An attempt that ends while it waits for a thread never reaches the tool."""
    calls = tmp_path / "calls"
    code = (
        f"def run(a, b):\n    open({str(calls)!r}, 'a').write(str(b))\n    a.wait() if b == 1 else None\n"
        "    return {'sum': 1}\n"
    )
    pack, path = tool_pack(tmp_path, code)
    tool, gate = Tool(pack, path), Gate()
    busy = [asyncio.create_task(tool.answer(ask({"a": gate, "b": 1}))) for _ in range(AT_ONCE)]
    waiting = asyncio.create_task(tool.answer(ask({"a": gate, "b": 2})))
    await gate.until(AT_ONCE)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    gate.open()
    await asyncio.gather(*busy)
    assert calls.read_text() == "1" * AT_ONCE
