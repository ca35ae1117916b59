"""Free checks: sums in texts, fields that follow from others, what a tool requires."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from specialist_packs import answered, ask, extract_pack, failed, generate_pack, tool_pack

from protocols.packs import Pack
from swarm.engine.scripted import ScriptedModel
from swarm.specialists.arithmetic import wrong_sums
from swarm.specialists.base import failed_checks
from swarm.specialists.generate import Writer
from swarm.specialists.guarded import guarded
from swarm.specialists.tool import Tool

FIELDS = {"type": "object", "properties": {name: {} for name in ("price", "quantity", "total", "net")}}


def priced(**changes: Any) -> Pack:
    rules = {"total": "price * quantity", "net": "round(total / 1.19, 2)"}
    return extract_pack(**{"output_schema": FIELDS, "equals": rules, "patterns": {}, "examples": (), "checks": (),
                           **changes})  # fmt: skip


# --- sums in texts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *("12.50 * 3 = 37.50", "3 × 4 = 12 and 2+2 = 4", "10 / 3 = 3.33", "€12,50 * 3 = €37,50", "(2 + 3) * 4 = 20"),
        *("1,299.00 + 1 = 1,300.00", "3 - 5 = -2", "12.5*3 = 37.50.", "5*5=25=20+5", "12.50 * 3 = 38", "no sum at all"),
    ],
)
def test_right_sums_pass(text: str) -> None:
    """Exactly re-computed, a result may be rounded as it is written."""
    assert wrong_sums(text) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("12.50 * 3 = 37.60", ["12.50 * 3 = 37.60"]),
        ("3 × 4 = 12, but 2+2=5", ["2 + 2 = 5"]),
        ("10 / 3 = 3.34", ["10 / 3 = 3.34"]),
        ("3 - 5 = −3", ["3 - 5 = -3"]),
        ("3 x 4 = 13", ["3 * 4 = 13"]),
        ("1.299,00 € + 1,00 € = 1.301,00 €", ["1299.00 + 1.00 = 1301.00"]),
    ],
)
def test_wrong_sums_are_found(text: str, wrong: list[str]) -> None:
    """Each is told in plain signs and numbers."""
    assert wrong_sums(text) == wrong


@pytest.mark.parametrize(
    "text",
    [
        *("x - 3 + 5 = 9", "A12 + 3 = 16", "10% * 50 = 6", "1,299 + 1 = 5", "2 * 3 = 6 + 1", "2*3 = 7x", "1/0 = 3"),
        *("2024-05-03 = 5", "a = b = 3", "3 + = 5", "v1.2-3 = 7", "5 = 6", "2^3 + 1 = 8", "1 + 1 = 3%"),
    ],
)
def test_what_cannot_be_read_for_certain_is_passed_over(text: str) -> None:
    """A false alarm would cost a good answer."""
    assert wrong_sums(text) == []


@given(a=st.integers(0, 9999), b=st.integers(10, 9999), cents=st.sampled_from([0, 1, -1]), sign=st.sampled_from("+-*"))
def test_a_sum_is_found_wrong_exactly_when_it_is(a: int, b: int, cents: int, sign: str) -> None:
    """Of numbers with one decimal place: the true result passes, a cent beside it does not."""
    x, y = Decimal(a) / 10, Decimal(b) / 10
    true = {"+": x + y, "-": x - y, "*": x * y}[sign]
    stated = (true + Decimal(cents) / 100).quantize(Decimal("0.01"))
    assert bool(wrong_sums(f"{x:.1f} {sign} {y:.1f} = {stated}")) == bool(cents)


def test_hostile_text_takes_no_time() -> None:
    """A long row of signs, numbers or brackets is read once."""
    for text in (
        "1+" * 30_000 + "=",
        "=" * 30_000,
        "1 " * 30_000 + "= 1",
        "(" * 30_000 + "1+1=3",
        "9" * 60_000 + "+1=2",
    ):
        assert wrong_sums(text) in ([], ["1 + 1 = 3"])


# --- fields that follow from others -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "wrong"),
    [
        ({"price": 12.5, "quantity": 3, "total": 37.5}, ()),
        ({"price": "12,50 €", "quantity": 3, "total": "€ 37.50"}, ()),
        ({"price": 0.1, "quantity": 3, "total": 0.3}, ()),
        ({"price": 12.5, "quantity": 3, "total": 37.51}, ("equals:total",)),
        ({"price": None, "quantity": 3, "total": 5}, ()),
        ({"price": 12.5, "quantity": 3, "total": None}, ()),
        ({"price": 12.5, "quantity": 3, "total": "about forty"}, ()),
        ({"total": 119, "net": 100.0}, ()),
        ({"total": 119, "net": 100.01}, ("equals:net",)),
    ],
)
def test_a_field_must_be_what_its_rule_computes(output: dict[str, Any], wrong: tuple[str, ...]) -> None:
    """Exactly, without binary rounding; where a number is missing nothing is said."""
    assert failed_checks(priced(), output, "") == wrong


async def test_a_written_text_with_a_wrong_sum_has_failed_its_check() -> None:
    """The specialist says so in its signals, which makes the confidence 0."""
    pack = generate_pack(checks=("arithmetic",))
    given_ = {"text": "hm", "intent": "praise", "fields": None}
    for text, failed_ in (("That is 2 * 3 = 6.", ()), ("That is 2 * 3 = 7.", ("arithmetic:text",))):
        answer = answered(await Writer(pack, ScriptedModel(generate=text)).answer(ask(given_)))
        assert answer.signals.checks_failed == failed_


# --- what a tool requires ---------------------------------------------------------------------------------------

ADD = "def run(a, b):\n    open(__file__ + '.called', 'a').close()\n    return {'sum': a + b}\n"


@pytest.mark.parametrize(
    ("given_", "why"),
    [
        ({"a": 1, "b": 2}, None),
        ({"a": 9, "b": 2}, "requires 'a + b <= 10': it does not hold"),
        ({"a": 1, "b": None}, "requires 'a + b <= 10': b is no number"),
        ({"a": 1, "b": 0}, "requires 'b != 0': it does not hold"),
    ],
)
def test_a_tool_is_only_called_with_what_it_requires(tmp_path: Path, given_: dict[str, Any], why: str | None) -> None:
    """Else the attempt is declined, naming the first requirement that is not met, and nothing has run."""
    pack, path = tool_pack(tmp_path, ADD, requires=("a + b <= 10", "b != 0"))
    reply = asyncio.run(guarded(pack, Tool(pack, path)).answer(ask(given_)))
    if why is None:
        assert answered(reply).output == {"sum": 3}
    else:
        assert failed(reply).reason == "declined"
        assert why in failed(reply).detail
    assert Path(f"{path}.called").exists() == (why is None)
