"""Nothing in a swarm file can crash, hang or run anything."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm import config
from swarm.config import SwarmFile, source, tree
from swarm.config.source import Unreadable
from swarm.errors import SwarmFileError

PARSERS = [yaml.SafeLoader] + ([yaml.CSafeLoader] if yaml.__with_libyaml__ else [])
MINIMAL = (Path(__file__).parents[3] / "configs" / "minimal.yaml").read_text(encoding="utf-8")
BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))

YAML_PIECES = (
    *("a: b", "- ", "[", "]", "{", "}", ",", "\n", "  ", "    ", "'", '"', "${input.text}", "${", "}", "&a ", "*a"),
    *("!!str ", "!x ", "? ", ": ", "#", "|", ">", "---", "...", "%YAML 1.2\n", "%TAG ! x\n", "<<", "~", ".nan", "0x1F"),
    *("1e999", "\t", "\\", "\\x", "\ud7ff", "🙂", "steps", "models", "specialists", "labels", "schema: swarm/v1\n"),
    *("\r", "\x85", "\u2028", "\ufeff", "\0"),
)
PLACES = (
    *("name", "models", "models.head", "specialists", "steps", "budget", "budget.task", "runtime", "escalation"),
    *(f"specialists.mood{key}" for key in ("", ".kind", ".labels", ".examples", ".tiers", ".output_schema", ".pack")),
    *(
        f"specialists.mood.{key}"
        for key in ("patterns", "templates", "tools", "input", "none_label", "checks", "model")
    ),
    *(f"steps.mood{key}" for key in ("", ".input", ".specialist", ".accept_at", ".input.text")),
)

NESTED = {
    "lists": "[" * 50_000,
    "mappings": "{a: " * 50_000,
    "block lists": "- " * 50_000,
    "complex keys": "? " * 50_000,
    "mixed": "[{a: " * 25_000,
    "one level a line": "".join(" " * i + "a:\n" for i in range(1000)),
}


def test_deep_nesting_does_not_crash_the_process(tmp_path: Path) -> None:
    """50,000 nested brackets, which kill PyYAML's composer, end as an ordinary error in a process of their own."""
    path = tmp_path / "deep.yaml"
    path.write_text("a: " + "[" * 50_000)
    code = "import sys; from swarm import config\ntry: config.load(sys.argv[1])\nexcept Exception as e: print(e)"
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, path], check=False, capture_output=True, text=True, timeout=60, cwd=root
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path}:1:36: nested deeper than 32 levels; make it flatter\n"


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("name", NESTED)
def test_nesting_is_refused_early(name: str, parser: type) -> None:
    """With either parser, depth is noticed long before the end of the text."""
    started = time.monotonic()
    with pytest.raises(Unreadable, match="nested deeper than 32 levels"):
        tree.parse(NESTED[name], "f", parser)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("parser", PARSERS)
def test_too_many_nodes_are_refused(parser: type) -> None:
    """A flat list of 100,000 items is cut off at the node limit."""
    with pytest.raises(Unreadable, match="more than 20,000 keys and values"):
        tree.parse("- a\n" * 100_000, "f", parser)


@pytest.mark.parametrize("parser", PARSERS)
def test_what_is_skipped_counts_too(parser: type) -> None:
    """A duplicate key or a complex key cannot smuggle nodes past the limit."""
    with pytest.raises(Unreadable, match="more than 20,000 keys and values"):
        tree.parse("a: 1\na: [" + "x, " * 30_000 + "]", "f", parser)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.name)
def test_both_parsers_agree(path: Path) -> None:
    """Without libyaml the same files are readable, with the same values and problems."""
    outcomes = []
    for parser in PARSERS:
        try:
            parsed = tree.parse(source.decode(path.read_bytes(), "f"), "f", parser)
            outcomes.append((parsed.value, parsed.problems))
        except Unreadable:
            outcomes.append(None)
    assert all(outcome == outcomes[0] for outcome in outcomes)


def _outcome(path: Path) -> SwarmFile | SwarmFileError:
    try:
        return config.load(path)
    except SwarmFileError as e:
        assert e.problems
        return e


fuzz = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
yamlish = st.lists(
    st.sampled_from(YAML_PIECES),
    max_size=60,
).map("".join)


@fuzz
@given(data=st.binary(max_size=400))
def test_any_bytes_give_a_file_or_an_error(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Random bytes never give anything but a swarm file or a `SwarmFileError`."""
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(data)
    assert isinstance(_outcome(path), SwarmFile | SwarmFileError)


@fuzz
@given(text=st.one_of(st.text(max_size=300), yamlish))
def test_any_text_gives_a_file_or_an_error(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither does random text, nor text made of what YAML finds special."""
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert isinstance(_outcome(path), SwarmFile | SwarmFileError)


@fuzz
@given(at=st.integers(0, len(MINIMAL)), cut=st.integers(0, 40), put=yamlish)
def test_a_damaged_file_gives_a_file_or_an_error(
    at: int, cut: int, put: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Neither does a good file with a piece cut out and something else put there."""
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(MINIMAL[:at] + put + MINIMAL[at + cut :], encoding="utf-8", newline="")
    assert isinstance(_outcome(path), SwarmFile | SwarmFileError)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
places = st.sampled_from(PLACES)


@fuzz
@given(place=places, value=json_values)
def test_any_value_anywhere_gives_a_plan_or_an_error(
    place: str, value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any value at any key of a good file ends as a plan or a `SwarmFileError`, through the packs and the plan too."""
    from swarm import plan
    from swarm.catalogue import Catalogue

    document = yaml.safe_load(MINIMAL)
    here = document
    *above, last = place.split(".")
    for key in above:
        here = here.setdefault(key, {})
    here[last] = value
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    try:
        made = plan.load(path, Catalogue([]), {"all-MiniLM-L6-v2": "onnx-embedder"})
        assert all(step.ladder for step in made.steps) and made.steps
    except SwarmFileError as e:
        assert e.problems
