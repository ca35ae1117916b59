"""*generate*: templates with places, and the small model that writes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from specialist_packs import answered, any_text, ask, failed, generate_pack

from swarm.engine.base import GenerateRequest
from swarm.engine.scripted import ScriptedModel
from swarm.specialists import generate
from swarm.specialists.generate import Templates, Writer, fill

PACK = generate_pack()
GIVEN = {"text": "Where is it?", "intent": "parcel", "fields": {"order": "A-1", "name": None}}


# --- templates


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{name}", "Ann"),
        ("{order}", "A-1"),
        ("{fields.order}", "A-1"),
        ("{fields.missing|none}", "none"),
        ("{missing}", ""),
        ("{missing|a fall back, really}", "a fall back, really"),
        ("{amount|0}", "0"),
        ("{{name}} is {name}", "{name} is Ann"),
        ("{{{name}}}", "{Ann}"),
        ("{tricky}", "{name} {{x}}"),
        ("{zero}", "0"),
        ("no place", "no place"),
        ("{1bad} {", "{1bad} {"),
    ],
)
def test_places_are_filled_once(template: str, filled: str) -> None:
    """A place takes an input, a field of an input that is an object, or its fallback; braces are doubled; what is put
    in is not read again."""
    given = {"name": "Ann", "fields": {"order": "A-1", "amount": None}, "tricky": "{name} {{x}}", "zero": 0}
    assert fill(template, given) == filled


@given(value=st.text(), name=st.sampled_from(["name", "other"]))
def test_any_value_is_put_in_as_it_is(value: str, name: str) -> None:
    """A value with braces, bars or backslashes comes out unchanged."""
    assert fill("<{name|none}>", {name: value}) == (f"<{value}>" if name == "name" else "<none>")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (GIVEN, "Order A-1 of you is on its way. {Sic}"),
        ({**GIVEN, "fields": None}, "Order unknown of you is on its way. {Sic}"),
        ({**GIVEN, "intent": "other"}, "Thank you, dear customer."),
        ({**GIVEN, "intent": None, "name": "Ann"}, "Thank you, Ann."),
    ],
)
async def test_template_is_chosen_by_an_input(given: dict[str, Any], text: str) -> None:
    """The value of one input picks the template, any other value the default; the text is certain."""
    answer = answered(await Templates(PACK).answer(ask(given)))
    assert answer.output == {"text": text} and answer.signals.p == 1.0


async def test_what_a_model_shall_write_is_declined() -> None:
    """For the values that the pack gives to a model the templates have nothing to say."""
    reply = failed(await Templates(PACK).answer(ask({**GIVEN, "intent": "praise"})))
    assert reply.reason == "declined" and "praise" in reply.detail


async def test_text_beside_the_schema_is_a_failure() -> None:
    """A filled template that the pack's schema does not allow is no answer; the same holds for a written text."""
    schema = {"type": "object", "properties": {"text": {"type": "string", "maxLength": 10}}}
    pack = generate_pack(output_schema=schema)
    assert failed(await Templates(pack).answer(ask(GIVEN))).reason == "invalid_output"
    reply = failed(await Writer(pack, ScriptedModel(generate="Far too long an answer.")).answer(ask(GIVEN)))
    assert reply.reason == "invalid_output" and reply.usage.tokens_out > 0


# --- writer


async def test_model_is_told_everything_that_is_known() -> None:
    """The other inputs stand before the message, the instructions above it; the text ends at an empty line."""
    model = ScriptedModel(generate="  Thank you!\n\nMessage: next one")
    answer = answered(await Writer(PACK, model).answer(ask({**GIVEN, "fields": None})))
    assert answer.output == {"text": "Thank you!"}
    (request,) = model.requests
    assert isinstance(request, GenerateRequest) and request.max_tokens == PACK.max_tokens
    system, user = request.prompt.turns
    assert system.text == PACK.instructions
    assert "intent: parcel" in user.text and user.text.endswith("Message: Where is it?")
    assert "fields" not in user.text, "what is null is not known"


@pytest.mark.parametrize("written", ["", "  \n", "word " * 500])
async def test_nothing_and_no_end_are_failures(written: str) -> None:
    """An empty text, and one that does not end within the pack's tokens, is no answer."""
    reply = failed(await Writer(PACK, ScriptedModel(generate=written)).answer(ask(GIVEN)))
    assert reply.reason == "invalid_output" and "max_tokens" in reply.detail and reply.usage.tokens_in > 0


@given(text=any_text, name=any_text, allowed=st.integers(0, 700), bytes_per_token=st.integers(1, 4))
def test_no_more_is_used_than_was_allowed(text: str, name: str, allowed: int, bytes_per_token: int) -> None:
    """Whatever the inputs, prompt and text stay within `max_tokens`, or nothing is asked."""
    model = ScriptedModel(generate="x" * 10_000, count=lambda t: -(-len(t.encode()) // bytes_per_token))
    given = {"text": text, "intent": name, "fields": None}
    reply = failed(asyncio.run(Writer(PACK, model).answer(ask(given, max_tokens=allowed))))
    if model.requests:
        assert reply.usage.tokens_in + reply.usage.tokens_out <= allowed
    else:
        assert reply.reason == "too_long"


@given(text=any_text, name=any_text)
def test_hold_is_enough_to_be_answered(text: str, name: str) -> None:
    """With the allowance that is held for it every message gets its text, in any script, and within it."""
    model = ScriptedModel(generate="Thank you.", count=lambda t: -(-len(t.encode()) // 2))
    given = {"text": text, "intent": name, "fields": {"order": name}}
    held = generate.allowance(PACK, given)
    usage = answered(asyncio.run(Writer(PACK, model).answer(ask(given, max_tokens=held)))).usage
    assert usage.tokens_in + usage.tokens_out <= held
