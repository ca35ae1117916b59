import numpy as np

from swarm.engine.base import Generated, GenerateRequest, Prompt, Turn
from swarm.engine.llama.scoring import option_tree
from swarm.engine.llama.work import GenerateWork, PromptTokens, ScoreWork

PROMPT = PromptTokens((), (1, 2, 3))
EMPTY = np.empty((0, 256), np.float32)


class Bytes:
    """A vocabulary whose tokens are bytes, and 0 the end."""

    def is_end(self, token: int) -> bool:
        return token == 0

    def piece(self, token: int) -> bytes:
        return bytes([token])


def write(text: bytes, max_tokens: int = 99, stop: tuple[str, ...] = ()) -> tuple[Generated, int]:
    """What comes out of a model that says `text`, and how many steps it took."""
    request = GenerateRequest(Prompt((Turn("user", ""),)), max_tokens, stop=stop)
    work = GenerateWork(Bytes(), PROMPT, request, None)
    for step, token in enumerate(text + b"\0", 1):
        work.pending.clear()
        logits = np.zeros(256, np.float32)
        logits[token] = 9
        result = work.absorb(logits, None, EMPTY)
        if result is not None:
            assert isinstance(result, Generated)
            return result, step
    raise AssertionError("the end token did not end it")


def test_the_end_token_ends_the_text_and_is_not_part_of_it() -> None:
    """A generation stops at the model's end token, which is neither text nor counted."""
    result, _ = write(b"yes")
    assert (result.text, result.finish, result.tokens_out, len(result.logprobs)) == ("yes", "stop", 3, 3)


def test_a_stop_string_ends_the_text_at_its_first_byte() -> None:
    """The text ends before the stop string, though that was spread over several tokens."""
    result, steps = write(b"one\n\ntwo", stop=("\n\n", "zzz"))
    assert (result.text, result.finish, steps) == ("one", "stop", 5)


def test_too_long_a_text_is_cut_and_says_so() -> None:
    """At `max_tokens` the text is cut and `finish` is `length`."""
    result, _ = write(b"abcdef", max_tokens=4)
    assert (result.text, result.finish) == ("abcd", "length")


def test_a_character_spread_over_tokens_is_whole_or_left_out() -> None:
    """Multi-byte characters are put together from several tokens; one cut in its middle is left out."""
    assert write("größe €".encode())[0].text == "größe €"
    assert write("a€".encode(), max_tokens=3)[0].text == "a"


def test_a_restarted_generation_keeps_what_it_wrote() -> None:
    """Work that lost its place in memory decodes its prompt and its own text again, and goes on from there."""
    work = GenerateWork(Bytes(), PROMPT, GenerateRequest(Prompt((Turn("user", ""),)), 9), None)
    work.pending.clear()
    work.absorb(np.eye(256, dtype=np.float32)[65], None, EMPTY)
    assert (work.pending, work.writing) == ([65], True)
    work.restart()
    assert (work.pending, work.writing) == ([1, 2, 3, 65], False)


def test_scoring_ends_only_after_its_last_wave() -> None:
    """A tree of two waves gives its scores when both were decoded, and counts their tokens."""
    tree = option_tree([[1, 2], [3, 4]], max_lanes=1, max_nodes=4)
    work = ScoreWork(PROMPT, tree)
    work.admitted(cached=False)
    work.pending.clear()
    logits = np.zeros((1, 256), np.float32)
    assert work.absorb(logits[0], work.wave, logits) is None
    result = work.absorb(None, work.wave, logits)
    assert result is not None
    assert np.allclose(result.logprobs, -2 * np.log(256))
    assert result.tokens_in == 3 + 2
