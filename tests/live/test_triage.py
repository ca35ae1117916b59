"""The example swarm with real models in this process: what a user gets, and that a budget holds."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import swarm
from protocols.events import StepAccepted, TaskAccepted, TaskFinished
from protocols.tasks import Result

CONFIGS = Path(__file__).parents[2] / "configs"
INBOX = [json.loads(line) for line in (CONFIGS / "triage" / "inbox.jsonl").read_text("utf-8").splitlines()]
GOLD = [json.loads(line) for line in (CONFIGS / "triage" / "gold.jsonl").read_text("utf-8").splitlines()]
CLEAR = {"text": "My card was stolen in Paris, please block it now!"}


@pytest.fixture(scope="module")
def triage(tmp_path_factory: pytest.TempPathFactory, smollm2_path: str) -> Iterator[swarm.Swarm]:
    """The shipped swarm file, with its person file in a temporary folder."""
    folder = tmp_path_factory.mktemp("triage")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("OPENAI_API_KEY", raising=False)
        with swarm.launch(CONFIGS / "triage.yaml", runtime="in-process", store=":memory:") as running:
            yield running


def test_a_clear_message_is_answered_by_the_cheapest_tiers(triage: swarm.Swarm) -> None:
    """Intent, urgency, queue and a reply come back, with the decisions that led there, at no cost."""
    result = triage.run_sync(CLEAR)
    assert result.status == "done"
    assert result.output["intent"] == {"label": "card_lost"}
    assert result.output["urgency"] == {"label": "high"}
    assert result.output["route"] == {"queue": "fraud", "priority": 1}
    assert result.output["reply"]["text"]
    assert {step.tier for step in result.steps.values()} == {"head", "code"}
    assert result.cost.micro_usd == 0 and result.cost.tokens == 0
    assert {why.decision for why in result.why} == {"accepted"}
    assert all(why.signals for why in result.why if why.step in ("intent", "urgency", "fields"))


def test_an_unsure_message_climbs_the_ladder_and_ends_with_a_person(triage: swarm.Swarm) -> None:
    """What no tier is sure of is written to the person file with everything known so far."""
    unsure = {"text": "Es geht um das Ding von neulich, Sie wissen schon, AB-123456, das mit dem Konto oder so?"}
    result = triage.run_sync(unsure)
    assert result.status == "person", result
    tiers = [w.tier for w in result.why if w.step == "intent"]
    assert tiers[:2] == ["head", "small"] and "remote" in tiers
    (line,) = [json.loads(x) for x in Path("out/for_a_person.jsonl").read_text("utf-8").splitlines()][-1:]
    assert line["input"] == unsure
    assert line["known"]["fields"]["order_number"] == "AB-123456"
    assert {t["tier"] for t in line["tried"]} >= {"head", "small"}


def test_the_whole_api_works_inside_a_running_loop(triage: swarm.Swarm) -> None:
    """run, map in order and as finished, and stream: all awaited from the caller's own event loop."""

    async def use() -> tuple[Result, list[Result], list[Result], list[Any]]:
        one = await triage.run(CLEAR)
        texts = [CLEAR, {"text": "Where is my order AB-100001?"}, {"text": "What's the weather like on Mars?"}]
        ordered = [r async for r in triage.map(texts)]
        finished = [r async for r in triage.map(iter(texts), ordered=False)]
        events = [e async for e in triage.stream(CLEAR)]
        assert triage.run_sync(CLEAR).status == "done"  # as in a notebook's cell
        return one, ordered, finished, events

    one, ordered, finished, events = asyncio.run(use())
    assert one.status == "done"
    assert [r.position for r in ordered] == [0, 1, 2]
    assert sorted(r.position or 0 for r in finished) == [0, 1, 2]
    assert isinstance(events[0], TaskAccepted) and isinstance(events[-1], TaskFinished)
    accepted = [e.step for e in events if isinstance(e, StepAccepted)]
    assert set(accepted) == {"intent", "urgency", "fields", "route", "reply"}
    assert accepted.index("route") > max(accepted.index(s) for s in ("intent", "urgency", "fields"))


def test_accepted_answers_on_the_inbox_are_mostly_right(triage: swarm.Swarm) -> None:
    """On the trivial messages what is kept local agrees with the gold labels in at least eight of ten cases."""
    chosen = [(i, g) for i, g in zip(INBOX, GOLD, strict=True) if g["kind"] == "trivial"]
    results = list(triage.map_sync({"text": item["text"]} for item, _ in chosen))
    kept = [
        r.output["intent"]["label"] == g["intent"]
        for r, (_, g) in zip(results, chosen, strict=True)
        if r.steps["intent"].status == "accepted"
    ]
    assert len(kept) >= 10
    assert sum(kept) / len(kept) >= 0.8
    for r, (item, _) in zip(results, chosen, strict=True):
        for value in (r.output.get("fields") or {}).values():
            assert value is None or value.casefold() in item["text"].casefold()


def test_forged_markers_and_ten_kilobytes_of_noise_are_only_text(triage: swarm.Swarm) -> None:
    """Hostile and noisy messages end in a terminal state like any other, and nothing they order is done."""
    hostile = [i for i, g in zip(INBOX, GOLD, strict=True) if g["kind"] in ("hostile", "noisy")]
    results = list(triage.map_sync({"text": item["text"]} for item in hostile))
    assert {r.status for r in results} <= {"done", "person", "degraded"}
    labels = triage.plan.step("intent").pack.labels
    assert all(r.output["intent"]["label"] in labels for r in results if "intent" in r.output)


def test_the_receipt_compares_with_the_remote_model(triage: swarm.Swarm) -> None:
    """What was asked adds up, nothing was spent, and the always-remote way has a price and a source."""
    receipt = triage.receipt()
    assert sum(receipt.tasks.values()) > 30
    for line in receipt.tiers:
        assert line.asked == line.accepted + line.escalated + line.degraded + line.failed + line.cancelled
    assert receipt.spent.micro_usd == 0 and receipt.spent.tokens > 0
    assert receipt.baseline is not None and receipt.baseline.micro_usd > 0
    assert receipt.baseline.model == "gpt-4o-mini" and "genai-prices" in receipt.baseline.source
    (missed,) = receipt.missed
    assert missed.tier == "remote" and missed.asks > 0 and "OPENAI_API_KEY" in missed.reason


@pytest.mark.parametrize("on_exhausted", ["stop", "degrade"])
def test_a_run_never_goes_over_its_token_budget(tmp_path: Path, smollm2_path: str, on_exhausted: str) -> None:
    """A run that wants 50,000 tokens with 32 tasks in flight ends within its 5,000."""
    path = tmp_path / "hungry.yaml"
    path.write_text(
        f"""\
schema: swarm/v1
name: hungry
models: {{head: all-MiniLM-L6-v2, small: smollm2-135m-instruct}}
specialists:
  intent: {{pack: intent, tiers: [head, small]}}
  urgency: {{pack: urgency, tiers: [head, small]}}
steps:
  intent: {{specialist: intent, input: {{text: "${{input.text}}"}}, accept_at: 1.0}}
  urgency: {{specialist: urgency, input: {{text: "${{input.text}}"}}, accept_at: 1.0}}
budget: {{run: {{tokens: 5000}}, on_exhausted: {on_exhausted}}}
runtime: {{kind: in-process, max_in_flight: 32}}
"""
    )
    with swarm.launch(path, store=":memory:") as running:
        results = list(running.map_sync({"text": f"{item['text']} ({n})"} for n in range(2) for item in INBOX))
        receipt = running.receipt()
    small = [line for line in receipt.tiers if line.tier == "small"]
    answered = sum(line.accepted + line.escalated + line.degraded for line in small)
    wanted = len(results) * 2 * sum(line.tokens_in for line in small) / answered
    assert wanted > 45_000
    assert 3_000 < receipt.spent.tokens <= 5_000
    assert receipt.held.tokens == 0
    statuses = Counter(r.status for r in results)
    if on_exhausted == "stop":
        assert statuses["budget_exhausted"] > 60
        assert any("raise budget.run.tokens" in (r.reason or "") for r in results)
    else:
        assert statuses == {"degraded": len(results)}
        assert all(r.output["intent"] and r.output["urgency"] for r in results)
