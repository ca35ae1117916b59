"""A swarm with a paid tier against a provider that misbehaves: what it costs, and that no budget is overdrawn."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import msgspec
import openai.resources.chat.completions  # noqa: F401 - takes most of a second, more than these tests wait
import pytest
import structlog
from paid_swarm import KEY, MESSAGE, RIGHT, launched, outcome
from remote_provider import Act, cuts, hangs, provider, refuses, says, sends

from swarm.runtime.estimate import Estimator


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_MODEL_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# --- trying again


def test_refused_call_is_tried_again_once_with_a_hold_of_its_own(tmp_path: Path) -> None:
    """After a 429 the dispatcher, and nobody else, asks once more; the first hold costs nothing."""
    seen = outcome(tmp_path, refuses(429, "slow down"), says(RIGHT, 100, 10))
    assert seen.result.status == "done" and seen.result.output == {"sort": {"label": "parcel"}}
    assert len(seen.server.seen) == len(seen.holds) == seen.line.asked == 2
    assert (seen.line.failed, seen.line.accepted) == (1, 1)
    assert seen.settled_micro_usd == seen.result.cost.micro_usd == 120


def test_provider_that_goes_on_refusing_is_asked_twice(tmp_path: Path) -> None:
    """A second refusal ends the step; the task says why, and nothing was spent."""
    seen = outcome(tmp_path, refuses(500, "sorry"))
    assert len(seen.server.seen) == 2
    assert seen.result.status == "failed" and "status 500" in (seen.result.reason or "")
    assert seen.settled_micro_usd == 0


def test_wrong_key_is_not_tried_again(tmp_path: Path) -> None:
    """What will not pass by itself is asked once."""
    seen = outcome(tmp_path, refuses(401, "bad key"))
    assert len(seen.server.seen) == 1 and seen.result.status == "failed"


# --- what cannot be known


@pytest.mark.parametrize("act", [hangs, cuts])
def test_unknown_outcome_is_charged_whole(act: Act, tmp_path: Path) -> None:
    """A call whose answer never came is charged its whole hold, and so is its second try."""
    seen = outcome(tmp_path, act, timeout=0.5)
    assert seen.result.status == "failed" and len(seen.server.seen) == 2
    assert seen.settled_micro_usd == sum(hold.micro_usd for hold in seen.holds) == 2 * seen.holds[0].micro_usd > 0
    assert seen.result.cost.micro_usd == seen.receipt.spent.micro_usd == seen.settled_micro_usd


def test_task_out_of_time_is_charged_for_the_call_it_left(tmp_path: Path) -> None:
    """When the task's time ends before the provider has answered, the call is charged its whole hold."""
    seen = outcome(tmp_path, hangs, timeout=3600, task="{seconds: 0.5}")
    assert seen.result.status in ("deadline", "failed")
    assert len(seen.server.seen) == 1
    assert seen.settled_micro_usd == seen.holds[0].micro_usd > 0


@pytest.mark.parametrize(
    "usage", [None, {"prompt_tokens": -5, "completion_tokens": 1}, {"prompt_tokens": 10**19, "completion_tokens": 1}]
)
def test_answer_without_usable_token_counts_is_charged_whole(usage: Any, tmp_path: Path) -> None:
    """Counts that are missing, negative or absurd are not believed: the whole hold is charged, never less or more."""
    body = json.dumps({"choices": [{"message": {"content": RIGHT}}], "usage": usage}).encode()
    seen = outcome(tmp_path, sends(body))
    (hold,) = seen.holds
    assert seen.settled_micro_usd == hold.micro_usd > 0
    assert seen.result.status == "failed" and "token count" in (seen.result.reason or "")


def test_receipt_shows_where_the_unknown_money_went(tmp_path: Path) -> None:
    """What was charged for calls of unknown outcome stands in the line of their tier."""
    seen = outcome(tmp_path, hangs, timeout=0.5)
    assert seen.line.micro_usd == seen.receipt.spent.micro_usd > 0


# --- limits


def test_usage_beyond_the_hold_is_recorded_and_not_booked(tmp_path: Path) -> None:
    """A provider that reports more than was held gets the hold booked and the rest on record; no limit is passed."""
    seen = outcome(tmp_path, says(RIGHT, tokens_in=9_000, tokens_out=4_000), task="{usd: 0.005}")
    (hold,) = seen.holds
    assert hold.over_micro_usd == 17_000 - hold.micro_usd > 0
    assert seen.settled_micro_usd == hold.micro_usd <= 5_000
    assert seen.result.output == {"sort": {"label": "parcel"}}


@pytest.mark.parametrize("on_exhausted", ["stop", "degrade"])
def test_budget_below_the_hold_sends_nothing(on_exhausted: str, tmp_path: Path) -> None:
    """A call that might cost more than is left is not made: the server sees no request, the task says what to raise."""
    seen = outcome(tmp_path, says(RIGHT), task="{usd: 0.000050}", on_exhausted=on_exhausted)
    assert seen.result.status == "budget_exhausted" and "budget.task.usd" in (seen.result.reason or "")
    assert not seen.server.seen and not seen.holds
    assert seen.line.refused == 1 and seen.settled_micro_usd == 0


def test_budget_of_exactly_the_hold_is_enough(tmp_path: Path) -> None:
    """The last micro-dollar may be spent: a budget of just the hold allows the call, one less does not."""
    with provider(says(RIGHT)) as server, launched(tmp_path, server.url) as paid:
        step = paid.plan.step("sort")
        hold = Estimator().hold(step, step.ladder[0], {"text": MESSAGE})
    for micro_usd, status in ((hold.micro_usd, "done"), (hold.micro_usd - 1, "budget_exhausted")):
        seen = outcome(tmp_path, says(RIGHT), task=f"{{usd: {micro_usd / 1_000_000:.6f}}}")
        assert seen.result.status == status


# --- wrong answers


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("I think it is about a parcel.", "not JSON"),
        ('{"label": "parcel"', "not JSON"),
        ('{"label": "weather"}', "schema"),
        ('{"label": ["parcel"]}', "schema"),
        ('{"label": "parcel", "note": 1}', "schema"),
        ('{"label": "\\ud800"}', "not JSON"),
        ('{"label": ' + "[" * 100_000 + "}", "not JSON"),
        ("", "not JSON"),
        (None, "not JSON"),
    ],
)
def test_wrong_answer_is_paid_for_and_no_answer(content: str | None, why: str, tmp_path: Path) -> None:
    """An answer that is no JSON, or not what the schema asks for, costs what it cost and is never passed on."""
    seen = outcome(tmp_path, says(content, 100, 10))
    assert seen.result.status == "failed" and seen.result.output == {}
    assert why in (seen.result.reason or "") and len(seen.result.reason or "") < 700
    assert seen.settled_micro_usd == seen.line.micro_usd == 120 * len(seen.server.seen)
    assert len(seen.server.seen) == 2


def test_second_try_may_be_right(tmp_path: Path) -> None:
    """A label outside the labels is asked for again, and both answers are paid."""
    seen = outcome(tmp_path, says('{"label": "weather"}', 100, 10), says(RIGHT, 100, 10))
    assert seen.result.status == "done" and seen.settled_micro_usd == 240


def test_json_within_talk_is_found(tmp_path: Path) -> None:
    """JSON in a fence or between sentences is an answer."""
    assert outcome(tmp_path, says(f"Sure!\n```json\n{RIGHT}\n```")).result.status == "done"


# --- secrets


@pytest.mark.parametrize(
    "act",
    [refuses(401, f"wrong key {KEY}"), refuses(500, f"Bearer {KEY}"), says(f"My key is {KEY}"), says(json.dumps(KEY)),
     sends(KEY.encode())],
)  # fmt: skip
def test_key_comes_out_nowhere(act: Act, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A key that the provider repeats is in no result, receipt, store or log."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logs:
        seen = outcome(tmp_path, act)
    assert seen.server.seen[0].headers["authorization"] == f"Bearer {KEY}", "it was sent"
    told = msgspec.json.encode([seen.result, seen.receipt]).decode() + str(logs) + caplog.text
    assert KEY not in told
    assert not [p for p in tmp_path.iterdir() if KEY.encode() in p.read_bytes()]


def test_without_the_key_the_receipt_says_what_was_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A swarm without its key starts; the tier is unavailable, and the receipt says what it would have got."""
    monkeypatch.delenv("TEST_MODEL_KEY")
    seen = outcome(tmp_path, says(RIGHT))
    assert not seen.server.seen and seen.result.status == "failed"
    (missed,) = seen.receipt.missed
    assert (missed.tier, missed.asks) == ("remote", 1)
    assert "TEST_MODEL_KEY" in missed.reason and missed.micro_usd is not None and missed.micro_usd > 0
