import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_writing import NO_ROWS, Bytes, random_model, request, run, saying

from swarm.engine.llama.drafting import Acceptance, Lookup
from swarm.engine.llama.generate_work import GenerateWork
from swarm.engine.llama.grammar.fields import field_means
from swarm.errors import SchemaUnsupported

ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "note": {"type": ["string", "null"]},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"},
    },
    "required": ["n", "note", "code"],
    "additionalProperties": False,
}
SHORTEST = b'{"n": 0, "note": "", "code": "AA-0"}'


def test_the_end_token_ends_the_text_and_is_not_part_of_it() -> None:
    """A generation stops at the model's end token, which is neither text nor counted."""
    result, _ = run(request(), saying(b"yes"))
    assert (result.text, result.finish, result.tokens_out, len(result.logprobs)) == ("yes", "stop", 3, 3)


def test_a_stop_string_ends_the_text_at_its_first_byte() -> None:
    """The text ends before the stop string, though that was spread over several tokens."""
    result, steps = run(request(stop=("\n\n", "zzz")), saying(b"one\n\ntwo"))
    assert (result.text, result.finish, steps) == ("one", "stop", 5)


def test_too_long_a_text_is_cut_and_says_so() -> None:
    """At `max_tokens` the text is cut and `finish` is `length`."""
    result, _ = run(request(4), saying(b"abcdef"))
    assert (result.text, result.finish, result.tokens_out) == ("abcd", "length", 4)


def test_a_character_spread_over_tokens_is_whole_or_left_out() -> None:
    """Multi-byte characters are put together from several tokens; one cut in its middle is left out."""
    assert run(request(), saying("größe €".encode()))[0].text == "größe €"
    assert run(request(3), saying("a€".encode()))[0].text == "a"


def test_a_restarted_generation_keeps_what_it_wrote() -> None:
    """Work that lost its place in memory decodes its prompt and its own text again, and goes on from there."""
    work = GenerateWork(Bytes(), (1, 2, 3), request(9), None, acceptance=Acceptance())
    work.pending.clear()
    work.absorb(saying(b"A")([])[None, :], None, NO_ROWS)
    work.prepare(0, 8)
    assert (work.pending[:1], work.writing) == ([65], True)
    work.restart()
    work.admitted(prefix=1, cached=1)
    assert (work.pending, work.writing, work.wanted, work.tokens_in) == ([2, 3, 65], False, 1, 2)


def test_forced_tokens_are_written_without_a_step() -> None:
    """What a schema leaves no choice about costs no step and has no log-probability."""
    result, steps = run(request(schema=ORDER), saying(b'{"n": 7, "note": null, "code": "XY-1"}'))
    assert json.loads(result.text) == {"n": 7, "note": None, "code": "XY-1"}
    assert steps == len(result.logprobs) < 12 < result.tokens_out


def test_each_field_has_the_mean_of_its_own_choices() -> None:
    """A field's log-probability is the mean over the tokens that were chosen for its value."""
    result, _ = run(request(schema=ORDER), random_model(3))
    assert set(result.fields) <= {"n", "note", "code"}
    pieces = [(b'{"', None), (b"a", -9.0), (b'": [', -1.0), (b'"}, {', -3.0), (b'"], ', None), (b'"b"', -9.0)]
    assert field_means([*pieces, (b": 1", -2.0), (b"}", -4.0)]) == {"a": -2.0, "b": -3.0}
    assert field_means([(b'["a", ', -1.0), (b'{"b": 1}]', -1.0)]) == {}
    assert field_means([(b'{"\\u00e4\\"": ', None), (b"1}", -1.0)]) == {'ä"': -1.0}


# --- the way out


@given(seed=st.integers(0, 2**32 - 1), max_tokens=st.integers(len(SHORTEST), 90), temperature=st.sampled_from([0.0, 1]))
@settings(max_examples=60)
def test_a_cut_text_satisfies_its_schema(seed: int, max_tokens: int, temperature: float) -> None:
    """However little room a model that writes nonsense has, the text is JSON that satisfies the schema."""
    import jsonschema

    asked = request(max_tokens, schema=ORDER, temperature=temperature, seed=seed)
    result, _ = run(asked, random_model(seed), acceptance=Acceptance())
    jsonschema.validate(json.loads(result.text), ORDER)
    assert result.tokens_out <= max_tokens


def test_a_cut_text_keeps_what_fits() -> None:
    """A text that has to be cut is ended as near to its limit as was found, and says that it was cut."""
    result, _ = run(request(40, schema=ORDER), saying(b'{"n": 7, "note": "a note that is much too long to fit"'))
    assert json.loads(result.text)["note"].startswith("a n")
    assert (result.finish, 36 <= result.tokens_out <= 40) == ("length", True)


def test_a_schema_that_cannot_end_in_time_is_refused() -> None:
    """A limit that even the shortest JSON would break is an error that names both numbers."""
    with pytest.raises(SchemaUnsupported, match=f"has {len(SHORTEST)} tokens, max_tokens is {len(SHORTEST) - 1}"):
        run(request(len(SHORTEST) - 1, schema=ORDER), random_model(0))


def test_a_cut_text_matches_its_regex_where_it_can() -> None:
    """A text that is cut under a regex is ended so that it matches, if there is room for any match at all."""
    asked = "[a-z]+@[a-z]+\\.com"
    assert run(request(9, regex=asked), saying(b"someone@somewhere.com"))[0].text.endswith(".com")
    assert run(request(3, regex=asked), saying(b"someone@somewhere.com"))[0].text == "som"


def test_a_constraint_with_stop_strings_is_refused() -> None:
    """A stop string could cut JSON anywhere: with a constraint it makes no sense."""
    with pytest.raises(ValueError, match="stop strings"):
        run(request(schema=ORDER, stop=("x",)), random_model(0))


# --- drafts


@given(
    seed=st.integers(0, 2**32 - 1),
    context=st.integers(1, 3),
    temperature=st.sampled_from([0.0, 0.7]),
    schema=st.sampled_from([None, ORDER]),
)
@settings(max_examples=60)
def test_drafts_change_nothing_but_the_number_of_steps(
    seed: int, context: int, temperature: float, schema: dict[str, Any] | None
) -> None:
    """With drafts, right or wrong, the text and its log-probabilities are those without; steps are never more."""
    asked = request(70, schema=schema, temperature=temperature, seed=seed)
    model = random_model(seed, context, strength=4)
    prompt = list(b'such as {"n": 12, "note": "a note", "code": "AB-12"} or so')
    plain, plain_steps = run(asked, model, prompt)
    drafted, drafted_steps = run(asked, model, prompt, Acceptance())
    assert (drafted.text, drafted.finish, drafted.logprobs) == (plain.text, plain.finish, plain.logprobs)
    assert drafted_steps <= plain_steps
    assert 0 <= drafted.accepted <= drafted.drafted


def test_what_repeats_the_prompt_is_written_several_tokens_at_a_time() -> None:
    """A text that copies its prompt takes a fraction of the steps, and tells how many guesses were right."""
    text = b"the parcel with my new shoes has not arrived"
    result, steps = run(request(), saying(text), list(b"Repeat: " + text), Acceptance())
    assert result.text == text.decode()
    assert steps < len(text) / 3
    assert result.drafted >= result.accepted > len(text) / 2


def test_a_request_may_forbid_drafts() -> None:
    """With `draft` off, or without a record of acceptance, no token is guessed."""
    text = b"again and again and again"
    assert run(request(draft=False), saying(text), list(text), Acceptance())[0].drafted == 0
    assert run(request(), saying(text), list(text))[0].drafted == 0


def test_a_draft_that_was_not_decoded_is_made_anew() -> None:
    """Preparing twice leaves one draft; a step that reads only a part of the prompt leaves the work as it was."""
    work = GenerateWork(Bytes(), tuple(b"abcdefabcde"), request(9), None, acceptance=Acceptance())
    assert work.absorb(np.empty((0, 262), np.float32), None, NO_ROWS) is None
    work.pending.clear()
    work.absorb(saying(b"f")(b"")[None, :], None, NO_ROWS)
    work.prepare(0, 8)
    first = (list(work.pending), work.wanted, work.writing)
    work.prepare(0, 8)
    assert (work.pending, work.wanted, work.writing) == first == ([*b"fabcd"], 5, True)


def test_drafts_are_made_where_they_pay() -> None:
    """At five tokens a step, drafts pay alone from one right guess in six, with fifteen others from three in four.

    What is known of one specialist and one length of agreement says nothing about another.
    """
    acceptance = Acceptance(step_cost=5)
    assert [acceptance.pays("new", alike, 15) for alike in (3, 48)] == [False, True]
    for _ in range(60):
        acceptance.record("half", 3, right=2, wrong=2)
        acceptance.record("never", 3, right=0, wrong=4)
        acceptance.record("never", 12, right=0, wrong=0)
    assert [acceptance.pays("half", 3, n) for n in (0, 5, 15)] == [True, False, False]
    assert [acceptance.pays("never", alike, 0) for alike in (3, 12)] == [False, True]


def test_guesses_that_were_not_decoded_teach() -> None:
    """A specialist that begins to copy is found out without any draft having been paid for."""
    acceptance = Acceptance()
    lengths = (3, 6, 12, 24, 48)
    for _ in range(60):
        for alike in lengths:
            acceptance.record("", alike, right=0, wrong=1)
    assert not any(acceptance.pays("", alike, 0) for alike in lengths)
    text = b"the parcel with my new shoes has not arrived"
    for _ in range(8):
        result, _ = run(request(), saying(text), list(b"Repeat: " + text), acceptance)
    assert result.accepted > len(text) / 3


def test_guesses_reach_further_while_they_are_right() -> None:
    """After a right guess the next one is longer, after a wrong one it is as long as what was right, and one more."""
    lookup = Lookup(Bytes().piece, b"0123456789abcdef 012")
    reach = []
    for drafted, accepted in ((4, 4), (8, 8), (8, 2), (3, 0)):
        lookup.checked(drafted, accepted)
        guess = lookup.guess(99)
        assert guess is not None and guess.alike == 3
        reach.append(bytes(guess.tokens))
    assert reach == [b"3456789a", b"3456789a", b"345", b"3"]
    assert lookup.guess(0) is None
