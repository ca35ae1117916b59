"""The public fakes of the engines keep the promises of what they stand for."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.engine.base import GenerateRequest, Prompt, ScoreRequest, Turn
from swarm.engine.scripted import ScriptedEmbedder, ScriptedModel
from swarm.errors import EngineClosed, PromptTooLong

PROMPT = Prompt((Turn("system", "Sort."), Turn("user", "Hello")), answer_start="Label:")


async def test_scores_come_from_the_script() -> None:
    """Options have the log-probability that they are given; others are unlikely; every request is kept."""
    model = ScriptedModel(score={" a": -0.5})
    scored = await model.score(ScoreRequest(PROMPT, (" a", " b")))
    assert scored.logprobs[0] == -0.5 > scored.logprobs[1] and len(scored.lengths) == 2
    assert model.requests == [ScoreRequest(PROMPT, (" a", " b"))]


async def test_script_may_depend_on_the_request_and_may_raise() -> None:
    """A function sees the request, and what it raises is what the engine raises."""

    def say(request: GenerateRequest) -> str:
        if "Hello" in request.prompt.turns[-1].text:
            raise PromptTooLong("too long")
        return "ok"

    model = ScriptedModel(generate=say)
    assert (await model.generate(GenerateRequest(Prompt((Turn("user", "x"),)), 5))).text == "ok"
    with pytest.raises(PromptTooLong):
        await model.generate(GenerateRequest(PROMPT, 5))


@given(text=st.text(max_size=300), most=st.integers(1, 50))
def test_generated_text_is_within_the_limit(text: str, most: int) -> None:
    """A text is cut at the request's tokens, and says so; what is not cut is whole."""
    model = ScriptedModel(generate=text)
    generated = asyncio.run(model.generate(GenerateRequest(PROMPT, most)))
    assert model.count(generated.text) == generated.tokens_out == len(generated.logprobs) <= most
    assert text.startswith(generated.text) and (generated.finish == "stop") == (generated.text == text)


async def test_stop_string_ends_the_text_and_is_not_part_of_it() -> None:
    """The text ends before the first stop string."""
    generated = await ScriptedModel(generate="one\n\ntwo").generate(GenerateRequest(PROMPT, 50, stop=("\n\n",)))
    assert (generated.text, generated.finish) == ("one", "stop")


async def test_prompt_beyond_the_context_is_refused() -> None:
    """As an engine does."""
    with pytest.raises(PromptTooLong):
        await ScriptedModel(context=5).score(ScoreRequest(PROMPT, (" a",)))


async def test_closed_engines_say_so() -> None:
    """After `close`, which may be called twice, nothing is answered."""
    model, embedder = ScriptedModel(), ScriptedEmbedder()
    for engine in (model, embedder):
        engine.close()
        engine.close()
    with pytest.raises(EngineClosed):
        await model.score(ScoreRequest(PROMPT, (" a",)))
    with pytest.raises(EngineClosed):
        await embedder.embed(("x",))


@given(texts=st.lists(st.text(st.characters(codec=None)), max_size=8))
def test_embeddings_are_unit_vectors_and_always_the_same(texts: list[str]) -> None:
    """Any texts give rows of length 1, each the same whatever it is embedded with."""
    vectors = asyncio.run(ScriptedEmbedder().embed(tuple(texts)))
    assert vectors.shape == (len(texts), 64) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        assert np.array_equal(asyncio.run(ScriptedEmbedder().embed((text,)))[0], vector)


async def test_texts_that_share_words_are_near() -> None:
    """Nearness goes with common words."""
    one, near, far = await ScriptedEmbedder(256).embed(("my card is lost", "lost card", "order a blue lamp"))
    assert one @ near > one @ far + 0.3
