"""A good swarm file becomes a spec with positions."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from swarm import config
from swarm.config import EnvRef
from swarm.config.problems import MOST_PROBLEMS, did_you_mean
from swarm.config.scalars import NotFinite, resolve
from swarm.config.schema import LocalModel, RemoteModel
from swarm.errors import SwarmFileError, quote

CONFIGS = Path(__file__).parents[3] / "configs"
SHIPPED = [path for path in sorted(CONFIGS.glob("*.yaml")) if "schema: swarm/" in path.read_text(encoding="utf-8")]

GOOD = """\
schema: swarm/v1
name: no
description: "${not.a.reference} here"
models:
  on: {use: lm, context: 0x400, gpu_layers: 010}
  remote:
    model: gpt
    base_url: http://127.0.0.1:8080/v1
    api_key: ${env:SOME_KEY_THAT_IS_NOT_SET}
    price: {input: 0.15, output: 1}
    timeout: 2.5
specialists:
  yes: {kind: tool, tools: a.py, output_schema: {type: object}}
steps:
  one: {specialist: yes, input: {at: 12:30, n: 010, flag: true, nothing: ~}}
budget: {task: {usd: 0.01, seconds: 1.5}, run: {tokens: 0x10}}
runtime: {memory: 512MiB, store: out/state.db}
"""


@pytest.fixture
def good(tmp_path: Path) -> config.SwarmFile:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return config.load(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_swarm_that_is_shipped_loads_and_names_its_schema(path: Path) -> None:
    """A swarm in configs/ has no problems, and its first line tells editors where the schema is."""
    text = path.read_text(encoding="utf-8")
    assert config.load(path).problems == ()
    assert text.startswith("# yaml-language-server: $schema=swarm.schema.json\n")


def test_scalars_follow_yaml_1_2(good: config.SwarmFile) -> None:
    """`no`, `yes`, `on` and `12:30` are text, `010` is ten, `0x400` is a number."""
    assert good.spec.name == "no"
    assert good.spec.steps["one"].input == {"at": "12:30", "n": 10, "flag": True, "nothing": None}
    assert good.spec.models["on"] == LocalModel(use="lm", context=1024, gpu_layers=10)
    assert list(good.spec.specialists) == ["yes"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            (word, word)
            for word in ("no", "Yes", "on", "12:30", "1_000", "tRUE", "0b1", "2026-11-22", "<<", "1.2.3", ".")
        ),
        *((word, None) for word in ("", "~", "null", "NULL")),
        *((word, True) for word in ("true", "True", "TRUE")),
        *(("0o17", 15), ("0xFf", 255), ("010", 10), ("-3", -3), ("+3", 3)),
        *(("1e3", 1000.0), (".5", 0.5), ("1.", 1.0), ("-0.25", -0.25)),
    ],
)
def test_a_scalar_has_this_value(text: str, value: object) -> None:
    """The core schema of YAML 1.2, and nothing beyond it."""
    found = resolve(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", [".inf", "-.Inf", ".nan", "1e999", "9" * 5000, str(2**63), "0x" + "f" * 40])
def test_a_number_that_no_computer_word_holds_is_refused(text: str) -> None:
    """Infinite, not a number or beyond 64 bits: nothing that could not be sent or compared gets in."""
    with pytest.raises(NotFinite):
        resolve(text)


def test_a_secret_stays_a_name(good: config.SwarmFile) -> None:
    """`${env:NAME}` is kept as a name; the variable need not even be set."""
    remote = good.spec.models["remote"]
    assert isinstance(remote, RemoteModel)
    assert remote.api_key == EnvRef("SOME_KEY_THAT_IS_NOT_SET")


def test_units_become_exact_values(good: config.SwarmFile) -> None:
    """Dollars are decimals, sizes are bytes, seconds are seconds."""
    assert good.spec.budget.task.usd == Decimal("0.01")
    assert good.spec.budget.task.seconds == 1.5
    assert good.spec.budget.run.tokens == 16
    assert good.spec.runtime.memory == 512 * 1024 * 1024


def test_what_is_left_out_has_its_default(good: config.SwarmFile) -> None:
    """A swarm without a runtime or thresholds runs in this process and accepts at 0.8."""
    assert good.spec.runtime.kind == "in-process"
    assert good.spec.escalation.accept_at == 0.8
    assert good.spec.budget.on_exhausted == "stop"


def test_the_spec_cannot_be_changed(good: config.SwarmFile) -> None:
    """A spec is frozen all the way to its leaves."""
    with pytest.raises(ValueError, match="frozen"):
        good.spec.budget.task.usd = Decimal(5)  # type: ignore[misc]


def test_a_problem_points_at_its_key(good: config.SwarmFile) -> None:
    """Later layers place their own problems by key path, with a suggestion if they have one."""
    line = good.problem(("steps", "one", "specialist"), "no such thing", ("yess", ["yes", "no"]))
    assert line == f"{good.path}:15:21: steps.one.specialist: no such thing; did you mean 'yes'?"


def test_a_problem_of_a_missing_key_points_at_the_key_above(good: config.SwarmFile) -> None:
    """What is not in the file is placed where it should be added."""
    assert good.problem(("steps", "one", "accept_at"), "x").startswith(f"{good.path}:15:3: steps.one.accept_at: ")


def test_reading_keeps_what_is_sound(tmp_path: Path) -> None:
    """`read` gives the good parts of a bad file and says which parts it left out."""
    path = tmp_path / "half.yaml"
    path.write_text(GOOD.replace("context: 0x400", "context: lots") + "escalation: {accept_at: 0.5}\nnope: 1\n")
    file = config.read(path)
    assert file.broken == {("models", "on"), ("nope",)}
    assert list(file.spec.models) == ["remote"]
    assert file.names("models") == ("on", "remote")
    assert file.spec.escalation.accept_at == 0.5
    with pytest.raises(SwarmFileError):
        config.load(path)


def test_a_long_chain_of_steps_is_no_problem(tmp_path: Path) -> None:
    """2,000 steps in a row are checked for cycles without recursion."""
    path = tmp_path / "chain.yaml"
    steps = "".join(f"  s{i}: {{specialist: yes, input: {{a: '${{s{i + 1}}}'}}}}\n" for i in range(2000))
    head, tail = GOOD.split("steps:\n")
    path.write_text(head + "steps:\n" + steps + "  s2000: {specialist: yes}\n" + tail)
    assert len(config.load(path).spec.steps) == 2002


def test_suggestions_list_what_there_is_when_nothing_is_close() -> None:
    """A word like none of the known ones gets the list of them, and no guess."""
    assert did_you_mean("zzz", ["a", "b"]) == "; there is a, b"
    assert did_you_mean("dollars", ["usd", "tokens"]) == "; did you mean 'usd'?"
    assert did_you_mean("zzz", []) == ""


def test_quoted_text_stays_on_its_line() -> None:
    """Control characters are escaped and long texts are cut."""
    assert quote("a\nb\x1b") == "'a\\nb\\u001b'"
    assert len(quote("x" * 500)) == 62
    assert MOST_PROBLEMS <= 100
