"""A swarm file is tried without any model: everything is real but the answers."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from protocols.answers import Ask
from protocols.events import TaskFinished
from protocols.money import Amount
from swarm.errors import SwarmFileError
from swarm.runtime.launch import planned
from swarm.state.sqlite import SqliteStore
from swarm.testing import (
    Answers,
    Dies,
    Fails,
    Hangs,
    Refuses,
    Says,
    Script,
    ScriptedEmbedder,
    ScriptedModel,
    VirtualClock,
    launch_scripted,
)

SWARM = """\
schema: swarm/v1
name: shop
models:
  head: all-MiniLM-L6-v2
  small: smollm2-135m-instruct
  remote: {model: gpt, base_url: "https://a.example/v1", api_key: "${env:NO_SUCH_KEY}", price: {input: 1, output: 2}}
specialists:
  mood:
    kind: classify
    labels: {happy: pleased, unhappy: upset}
    examples: {happy: [Thank you, Lovely, Great], unhappy: [It broke, No reply, What a mess]}
    tiers: [head, small, remote, person]
  shout: {kind: tool, tools: shout.py, input: [text, mood], output_schema: {type: object, required: [said]}}
steps:
  mood: {specialist: mood, input: {text: "${input.text}"}}
  shout: {specialist: shout, input: {text: "${input.text}", mood: "${mood.label}"}}
budget: {task: {tokens: 3000}, on_exhausted: degrade}
runtime: {person_file: person.jsonl, max_in_flight: 4, store: never_made.db}
"""
TOOLS = "def run(text, mood):\n    return {'said': f'{text.upper()} ({mood})'}\n"
HAPPY = {"label": "happy"}
UNHAPPY = {"label": "unhappy"}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shout.py").write_text(TOOLS)
    (tmp_path / "swarm.yaml").write_text(SWARM)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "swarm.yaml"


def run(file: Path, answers: Script | Answers, **more: Any) -> Any:
    with launch_scripted(file, answers, **more) as swarm:
        return swarm.run_sync({"text": "hi"})


# --- what a script can say --------------------------------------------------------------------------------------


def test_plain_code_runs_for_real_behind_scripted_models(file: Path) -> None:
    """A step is answered by whatever tier is asked, and its tool gets what the script said."""
    result = run(file, {"mood": HAPPY})
    assert (result.status, result.output) == ("done", {"mood": HAPPY, "shout": {"said": "HI (happy)"}})
    assert (result.steps["mood"].tier, result.steps["mood"].confidence) == ("head", 1.0)


def test_code_can_be_scripted_too(file: Path) -> None:
    """What the script names, it answers, also for a tool."""
    script: Answers = {"mood": HAPPY, "shout/code": {"said": "nothing"}}
    assert run(file, script).output["shout"] == {"said": "nothing"}


def test_tiers_are_scripted_one_by_one(file: Path) -> None:
    """An answer that is not sure goes up the ladder, to a remote tier that needs no key here."""
    script = Script({"mood/head": Says(HAPPY, 0.5), "mood/small": Says(HAPPY, 0.6), "mood/remote": UNHAPPY})
    result = run(file, script)
    assert (result.status, result.steps["mood"].tier, result.output["mood"]) == ("done", "remote", UNHAPPY)
    assert [ask.tier for ask in script.asked("mood")] == ["head", "small", "remote"]
    assert [earlier.output for earlier in script.asked("mood", "remote")[0].earlier] == [HAPPY, HAPPY]


def test_a_tier_can_be_out_of_reach(file: Path) -> None:
    """As if its key were missing: the person gets it, and no file is written for him."""
    script: Answers = {"mood": Says(HAPPY, 0.5)}
    result = run(file, script, unavailable={"remote": "no key"})
    assert (result.status, result.steps["mood"].status) == ("person", "person")
    assert not Path("person.jsonl").exists()


def test_what_an_answer_costs_can_be_scripted(file: Path) -> None:
    """Tokens and money go through the real ledger, and the receipt shows them."""
    script: Answers = {
        "mood/head": Says(HAPPY, 0.5),
        "mood/small": Says(HAPPY, 0.5, tokens=42),
        "mood/remote": Says(HAPPY, tokens=100, micro_usd=250),
    }
    with launch_scripted(file, script) as swarm:
        result = swarm.run_sync({"text": "hi"})
        assert (result.cost.tokens, result.cost.micro_usd) == (142, 250)
        receipt = swarm.receipt()
    assert (receipt.spent.tokens, receipt.spent.micro_usd, receipt.held) == (142, 250, Amount())
    assert [(line.step, line.tier, line.asked) for line in receipt.tiers] == [
        ("mood", "head", 1),
        ("mood", "small", 1),
        ("mood", "remote", 1),
        ("shout", "code", 1),
    ]


def test_a_budget_can_be_tried(file: Path) -> None:
    """The file's own limits hold: what does not fit is not asked."""
    text = file.read_text().replace("tokens: 3000", "tokens: 20")
    file.write_text(text)
    script = Script({"mood": Says(HAPPY, 0.5)})
    result = run(file, script)
    assert (result.status, result.steps["mood"].tier) == ("degraded", "head")
    assert "raise budget.task.tokens" in result.steps["mood"].reason
    assert script.asked("mood", "small") == []


def test_entries_of_a_list_are_said_one_after_the_other(file: Path) -> None:
    """One for each delivery: failures, refusals and deaths on the way are seen through; the last is said for ever."""
    script = Script({"mood/head": [Refuses(), Dies(), Fails("error", retryable=True), UNHAPPY, HAPPY]})
    with launch_scripted(file, script) as swarm:
        results = [swarm.run_sync({"text": "hi"}) for _ in range(3)]
        assert swarm.statistics().restarts == 1
    assert [r.output["mood"] for r in results] == [UNHAPPY, HAPPY, HAPPY]
    assert len(script.asked("mood", "head")) == 6


def test_a_function_may_answer(file: Path) -> None:
    """It sees the ask; what it leaves out is left to plain code."""

    def answer(ask: Ask) -> Says | None:
        return Says(UNHAPPY if "!" in ask.input["text"] else HAPPY) if ask.step == "mood" else None

    with launch_scripted(file, answer) as swarm:
        outputs = [result.output for result in swarm.map_sync([{"text": "ok"}, {"text": "no!"}])]
    assert outputs == [
        {"mood": HAPPY, "shout": {"said": "OK (happy)"}},
        {"mood": UNHAPPY, "shout": {"said": "NO! (unhappy)"}},
    ]


def test_a_function_that_raises_is_a_failed_attempt(file: Path) -> None:
    """The error is in the result's reason, and nothing hangs."""

    def answer(ask: Ask) -> Says | None:
        assert ask.step != "mood", "a surprise"
        return None

    result = run(file, answer)
    assert result.status == "person"
    assert any("a surprise" in why.reason for why in result.why)


def test_silence_is_a_failure_that_says_so(file: Path) -> None:
    """A tier that the script forgot does not answer, and the reason names the step and the tier."""
    result = run(file, {"mood/small": HAPPY})
    assert result.steps["mood"].tier == "small"
    assert result.why[0].reason == "unavailable: the script says nothing for step 'mood' at tier 'head'"


def test_an_answer_must_satisfy_the_schema(file: Path) -> None:
    """As with a real model, what breaks the schema is no answer."""
    result = run(file, {"mood/head": {"label": "furious"}, "mood/small": HAPPY})
    assert result.steps["mood"].tier == "small"
    said = "the script's answer to step 'mood': output.label does not satisfy the schema: 'furious'"
    assert said in result.why[0].reason


@pytest.mark.parametrize(
    ("name", "hint"), [("moood", "did you mean 'mood'?"), ("mood/code", "did you mean"), ("mood/person/x", "mood")]
)
def test_a_name_that_is_never_asked_is_an_error(file: Path, name: str, hint: str) -> None:
    """A slip in a script is found before anything runs."""
    with pytest.raises(ValueError, match=rf"the script answers '{name}', which swarm 'shop' never asks.*{hint}"):
        launch_scripted(file, {name: HAPPY})


def test_a_bad_file_is_an_error_as_ever(file: Path) -> None:
    """A scripted launch finds what a real one would."""
    file.write_text(SWARM.replace("${mood.label}", "${mood.lable}"))
    with pytest.raises(SwarmFileError, match="lable"):
        launch_scripted(file, {"mood": HAPPY})


def test_a_model_without_a_price_is_out_of_reach(file: Path) -> None:
    """No budget could hold it, as in real life."""
    file.write_text(SWARM.replace("model: gpt", "model: nobody-knows-me").replace(", price: {input: 1, output: 2}", ""))
    result = run(file, {"mood": Says(HAPPY, 0.5)})
    assert result.status == "person"
    assert "no price known for 'nobody-knows-me'" in [why.reason for why in result.why]


async def test_delays_go_by_a_virtual_clock(file: Path) -> None:
    """An answer comes when the clock has gone on far enough, and not before."""
    clock = VirtualClock()
    with launch_scripted(file, {"mood": Says(HAPPY, after_s=3600)}, clock=clock) as swarm:
        running = asyncio.create_task(swarm.run({"text": "hi"}))
        while not clock.sleepers:  # noqa: ASYNC110 (the swarm works in a thread of its own)
            await asyncio.sleep(0.001)
        clock.advance(3599)
        assert clock.sleepers == 1
        clock.advance(1)
        assert (await running).status == "done"


async def test_runs_are_kept_where_they_are_told(file: Path, tmp_path: Path) -> None:
    """A store can be given, to look into afterwards; by default nothing is kept, whatever the file says."""
    run(file, {"mood": HAPPY})
    assert set(os.listdir(tmp_path)) == {"swarm.yaml", "shout.py"}
    with launch_scripted(file, {"mood": HAPPY}, store=tmp_path / "kept.db") as swarm:
        kept = swarm.run_sync({"text": "hi"})
        id = swarm.run_id
    store = await SqliteStore.open(tmp_path / "kept.db")
    assert await store.results(id) == [kept]
    record = await store.run(id)
    assert record is not None
    assert record.finished is not None
    await store.close()


def test_a_plan_may_be_given_as_well(file: Path) -> None:
    """What `planned` returns is launched as it is."""
    assert run(planned(file), {"mood": HAPPY}).status == "done"  # type: ignore[arg-type]


def test_the_engine_s_fakes_are_here_too() -> None:
    """One import for all fakes."""
    assert ScriptedModel(generate="x").count("four") == 1
    assert ScriptedEmbedder(8).count("two words") == 2


# --- the swarm itself -------------------------------------------------------------------------------------------


async def test_results_come_in_the_order_of_the_items(file: Path) -> None:
    """Or as they finish, each with its place; no more at once than the file allows."""
    at_once, most = 0, 0

    def answer(ask: Ask) -> Says | None:
        nonlocal at_once, most
        if ask.step == "shout":
            at_once -= 1
            return None
        at_once += 1
        most = max(most, at_once)
        return Says(HAPPY, after_s=0.05 if ask.input["text"] == "0" else 0.001)

    items = [{"text": str(i)} for i in range(12)]
    with launch_scripted(file, answer) as swarm:
        ordered = [result async for result in swarm.map(items)]
        assert [r.position for r in ordered] == list(range(12))
        assert [r.output["shout"]["said"] for r in ordered] == [f"{i} (happy)" for i in range(12)]
        loose = [result async for result in swarm.map(items, ordered=False)]
        assert sorted(r.position for r in loose if r.position is not None) == list(range(12))
        assert loose[0].position != 0
        assert {r.output["shout"]["said"] for r in loose} == {r.output["shout"]["said"] for r in ordered}
    assert most == 4


async def test_a_stream_ends_with_the_result(file: Path) -> None:
    """Events as they happen, the last of which has the result."""
    with launch_scripted(file, {"mood": HAPPY}) as swarm:
        seen = [event async for event in swarm.stream({"text": "hi"})]
    assert [type(event).__name__ for event in seen] == [
        "TaskAccepted", "StepAsked", "StepAccepted", "StepAsked", "StepAccepted", "TaskFinished",
    ]  # fmt: skip
    assert isinstance(seen[-1], TaskFinished)
    assert seen[-1].result.status == "done"


async def test_cancelling_reaches_the_host(file: Path) -> None:
    """A caller who goes away ends the task, and the swarm serves the next one."""
    script = Script({"mood/head": [Hangs(), HAPPY]})
    with launch_scripted(file, script) as swarm:
        running = asyncio.create_task(swarm.run({"text": "hi"}))
        while not script.asks:  # noqa: ASYNC110 (the swarm works in a thread of its own)
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await swarm.run({"text": "hi"})).status == "done"
        swarm.stop_tasks()
        assert swarm.receipt().tasks == {"cancelled": 1, "done": 1}


def test_closing_ends_what_runs(file: Path) -> None:
    """A task that hangs does not keep the swarm open, and whoever waits for it learns that."""
    script = Script({"mood": Hangs()})
    with ThreadPoolExecutor(1) as pool, launch_scripted(file, script) as swarm:
        waiting = pool.submit(swarm.run_sync, {"text": "hi"})
        while not script.asks:
            time.sleep(0.001)
        swarm.close()
        with pytest.raises(CancelledError):
            waiting.result(30)
