"""What a specialist is to its host, and the small things that all kinds share."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from protocols.answers import Answer, Ask, Failed, Signals
from protocols.packs import Example, Pack
from swarm.config.expressions import Unknown, expression, same
from swarm.config.numbers import exact
from swarm.config.packs import MEMORY
from swarm.config.schemas import Validator
from swarm.engine.base import LanguageModel, Origin
from swarm.specialists.arithmetic import wrong_sums

EMBEDDED = 1000  # characters of a text that are embedded; about the 256 tokens of the usual models' window


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """An answer to an example that the answerer had not seen: its signals, and whether it was right."""

    signals: Signals
    correct: bool


class Answerer(Protocol):
    """One tier of one specialist."""

    async def answer(self, ask: Ask) -> Answer | Failed:
        """Answer within `ask.max_tokens` language-model tokens in all (prompt and output), or fail saying why.

        Engine errors may be raised; the host turns them into `Failed`.
        """
        ...

    async def rehearse(self) -> list[Rehearsed]:
        """Answers to the pack's own examples, each left out of what it is answered from. Empty: nothing to learn."""
        ...


def origin(ask: Ask) -> Origin:
    """For whom an engine works when it works for `ask`."""
    return Origin(ask.task, ask.specialist, None if ask.left_ms is None else ask.left_ms / 1000)


def text_of(pack: Pack, given: Mapping[str, Any]) -> str:
    """The input that is read: the pack's first."""
    value = given.get(pack.input[0], "")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def notes_of(pack: Pack, given: Mapping[str, Any]) -> str:
    """What stands before the message in a prompt: the step's notes from before, where it has any."""
    notes = given.get(MEMORY) if MEMORY not in pack.input else None
    return f"Known from before:\n{notes}\n" if isinstance(notes, str) and notes else ""


def n_bytes(text: str) -> int:
    """Length in UTF-8: what a script needs in tokens goes with its bytes rather than with its characters."""
    return len(text.encode(errors="surrogatepass"))


def mean_bytes(examples: Sequence[Example], name: str) -> int:
    """Bytes of input `name`, on average over the examples."""
    return sum(n_bytes(str(e.input.get(name, ""))) for e in examples) // max(1, len(examples))


def text_allowance(text: str, most: int) -> int:
    """Tokens that reading `text` may take: one for every two bytes is plenty in any script; at most `most`."""
    return min(most, n_bytes(text) // 2 + 8)


def over_allowance(ask: Ask) -> Failed:
    """The failure of a prompt that does not fit what the attempt may use."""
    detail = (
        f"step {ask.step!r} may use {ask.max_tokens:,} tokens at tier {ask.tier!r} and its shortest prompt needs more"
    )
    return Failed(id=ask.id, reason="too_long", detail=f"{detail}; shorten the pack's instructions or the input")


def in_message(value: str, text: str) -> bool:
    """Whether `value` stands in `text`, but for case and the width of spaces."""
    return _folded(value) in _folded(text)


def failed_checks(pack: Pack, output: Mapping[str, Any], text: str) -> tuple[str, ...]:
    """Names of the pack's checks that `output` does not pass, as `check:field`."""
    if not pack.checks and not pack.equals:
        return ()
    texts = [(field, value) for field, value in output.items() if isinstance(value, str)]
    failed = []
    if "in_message" in pack.checks:
        failed += [f"in_message:{field}" for field, value in texts if not in_message(value, text)]
    if "arithmetic" in pack.checks:
        failed += [f"arithmetic:{field}" for field, value in texts if wrong_sums(value)]
    failed += [f"equals:{field}" for field, rule in pack.equals.items() if _differs(output, field, rule)]
    return tuple(failed)


def _differs(output: Mapping[str, Any], field: str, rule: str) -> bool:
    """Whether a field is otherwise than its rule computes it; where either is unknown, nothing is said."""
    said = output.get(field)
    try:
        wanted = expression(rule).value(output)
    except Unknown:
        return False
    if said is None or wanted is None or (exact(wanted) is not None and exact(said) is None):
        return False
    return not same(said, wanted)


def agreement(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Share of the fields of `one` on which `other` says the same, but for case and spaces."""
    if not one:
        return 1.0
    return sum(_same(value, other.get(key)) for key, value in one.items()) / len(one)


def parse_output(schema: Validator, text: str) -> dict[str, Any] | str:
    """A model's JSON as an output that satisfies `schema`, or a sentence saying what is wrong with it."""
    start, end = text.find("{"), text.rfind("}")
    try:
        value: dict[str, Any] = msgspec.json.decode(text[start : end + 1].encode(), type=dict[str, Any])
        msgspec.msgpack.encode(value)  # whole numbers beyond 64 bits could not travel
    except (ValueError, OverflowError, RecursionError) as e:
        return f"not JSON: {e}"
    return schema.problem(value) or value


def gist(text: str) -> str:
    """What an embedder should see of `text`: its window would lose the end, where requests often stand."""
    return text if len(text) <= EMBEDDED else f"{text[: EMBEDDED // 2]} … {text[-EMBEDDED // 2 :]}"


def cut(text: str, model: LanguageModel, most: int) -> str:
    """`text` within `most` tokens: its beginning and its end, as requests stand at either."""
    if n_bytes(text) <= most or model.count(text) <= most:  # a token is at least one byte
        return text
    keep = min(len(text), most * 3) // 2  # characters at each end
    while keep > 0:
        short = f"{text[:keep]} … {text[-keep:]}"
        if model.count(short) <= most:
            return short
        keep = keep * 3 // 4
    return ""


def _folded(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().casefold()


def _same(one: Any, other: Any) -> bool:
    return _folded(one) == _folded(other) if isinstance(one, str) and isinstance(other, str) else bool(one == other)
