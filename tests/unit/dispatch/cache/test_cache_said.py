"""What tiers said is remembered for inputs whose step was not accepted."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from cache_desk import records

from protocols.answers import Answer, Ask, Earlier, Failed, Signals, Usage
from swarm.dispatch.cache.said import Said

ASK = Ask(id="a-1", task="t-1", step="intent", specialist="intent", tier="small", input={"text": "hi"}, max_tokens=90)
ANSWER = Answer(id="a-1", output={"label": "x"}, signals=Signals(p=0.4), usage=Usage(tokens_in=30, ms=4), host="h-1")


def again(**changed: Any) -> Ask:
    """The same, asked by another task with other time left."""
    return msgspec.structs.replace(ASK, **{"id": "a-2", "task": "t-2", "left_ms": 50, **changed})


async def test_the_same_ask_gets_the_same_reply_for_nothing() -> None:
    """Its output and signals, under the new ask's id; nothing is used now, and no host has worked."""
    said = Said(records(), "-/p")
    await said.keep(ASK, "i", ANSWER)
    found = await said.find(again(), "i")
    assert found == Answer(id="a-2", output={"label": "x"}, signals=Signals(p=0.4))


@pytest.mark.parametrize(
    "changed",
    [{"input": {"text": "ho"}}, {"tier": "large"}, {"max_tokens": 91}, {"earlier": (Earlier("head", {"label": "y"}),)}],
    ids=["input", "tier", "allowance", "earlier answers"],
)
async def test_another_ask_is_asked(changed: dict[str, Any]) -> None:
    """Whatever the host sees of it makes a difference; and so does what the step depends on."""
    said = Said(records(), "-/p")
    await said.keep(ASK, "i", ANSWER)
    assert await said.find(again(**changed), "i") is None
    assert await said.find(again(), "j") is None


@pytest.mark.parametrize(
    ("reply", "is_kept"),
    [
        (Failed(id="a-1", reason="invalid_output", usage=Usage(tokens_out=9)), True),
        (Failed(id="a-1", reason="invalid_output", usage=Usage(tokens_out=9), retryable=True), False),
        (Failed(id="a-1", reason="timeout", usage=Usage(tokens_out=9)), False),
        (Answer(id="a-1", output={}), False),
    ],
    ids=["the input's fault", "may help to ask again", "by chance", "cost nothing"],
)
async def test_only_what_would_be_the_same_and_cost_again_is_kept(reply: Answer | Failed, is_kept: bool) -> None:
    """A failure by chance is not to be repeated."""
    said = Said(records(), "-/p")
    await said.keep(ASK, "i", reply)
    assert (await said.find(again(), "i") is not None) == is_kept
