"""What an engine is told beside the prompt: for whom it works, until when, and with which adapter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace
from specialist_packs import ask, classify_pack, extract_pack, generate_pack

from swarm.engine.base import Origin
from swarm.engine.scripted import ScriptedEmbedder, ScriptedModel
from swarm.specialists.base import Answerer
from swarm.specialists.classify import Chooser
from swarm.specialists.examples import ExampleIndex
from swarm.specialists.extract import Filler
from swarm.specialists.generate import Writer

EMBEDDER = ScriptedEmbedder()
CLASSIFY, EXTRACT, GENERATE = classify_pack(), extract_pack(), generate_pack()
ASK = ask({"text": "Where is it?", "intent": "parcel", "fields": None})


def chooser(model: ScriptedModel, adapter: str | None) -> Answerer:
    index = asyncio.run(ExampleIndex.build(CLASSIFY, EMBEDDER))
    return Chooser(CLASSIFY, "small", model, index, EMBEDDER, None, adapter)


def filler(model: ScriptedModel, adapter: str | None) -> Answerer:
    index = asyncio.run(ExampleIndex.build(EXTRACT, EMBEDDER))
    return Filler(EXTRACT, "small", model, index, EMBEDDER, adapter)


def writer(model: ScriptedModel, adapter: str | None) -> Answerer:
    return Writer(GENERATE, model, adapter)


@pytest.mark.parametrize("made", [chooser, filler, writer])
@pytest.mark.parametrize("adapter", ["/a.gguf", None])
@pytest.mark.parametrize(("left_ms", "left_s"), [(1500, 1.5), (None, None)])
def test_a_request_says_for_whom_until_when_and_with_what(
    made: Callable[[ScriptedModel, str | None], Answerer],
    adapter: str | None,
    left_ms: int | None,
    left_s: float | None,
) -> None:
    """Every kind passes on the task, the specialist, the time that is left, and the specialist's adapter."""
    model = ScriptedModel(generate='{"order": null, "amount": null}')
    asyncio.run(made(model, adapter).answer(replace(ASK, left_ms=left_ms)))
    (request,) = model.requests
    assert request.origin == Origin("t-1", "desk", left_s)
    assert request.adapter == adapter


@pytest.mark.parametrize("made", [chooser, filler])
def test_examples_are_rehearsed_with_the_adapter(made: Callable[[ScriptedModel, str | None], Answerer]) -> None:
    """Calibration learns how sure the adapted model is, not the plain one."""
    model = ScriptedModel(generate='{"order": null, "amount": null}')
    asyncio.run(made(model, "/a.gguf").rehearse())
    assert model.requests and {request.adapter for request in model.requests} == {"/a.gguf"}
