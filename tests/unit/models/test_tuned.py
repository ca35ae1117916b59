"""Choosing how a model runs best, and keeping the choice."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from protocols.work import Scored
from swarm.engine.llama.tune.bench import changes
from swarm.errors import ModelError, ModelNotFound
from swarm.models.cli import build
from swarm.models.cpu import Cpu, this_cpu
from swarm.models.registry import Registry
from swarm.models.store import PUBLISHED, ModelStore
from swarm.models.tuned import (
    Heard,
    Row,
    Setting,
    Tuned,
    TuneWishes,
    fastest,
    folder,
    foregone,
    keep,
    kept,
    opening,
    setting_for,
)

CPU = Cpu("A processor", "0123", 4)


def row(format: str, speed: float, changed: int | None = 0, checked: int = 200) -> Row:
    """A row with the same number for each rate."""
    setting = Setting(format=format)
    return Row(
        stage="format", setting=setting, generated=speed, messages=speed, rounds=3, changed=changed, checked=checked
    )


def tuned(setting: Setting, model_hash: str = "ab" * 32, cpu: Cpu | None = None) -> Tuned:
    rows = (row(PUBLISHED, 10), row("Q8_0", 20, changed=1))
    return Tuned(
        model="m", model_hash=model_hash, cpu=cpu or this_cpu(), chosen=setting, rows=rows, at="2026-01-01", took_s=1.0
    )


@pytest.fixture
def store(tmp_path: Path, registry: Callable[..., Path], gguf: Callable[[int], bytes]) -> ModelStore:
    """A store with the model `m`, pulled; the registry would like it in Q8_0."""
    (tmp_path / "origin.gguf").write_bytes(gguf(1000))
    path = registry("file:origin.gguf", data=gguf(1000), requantize="Q8_0")
    store = ModelStore(tmp_path / "home", Registry.load([path]))
    store.pull("m")
    return store


def make(store: ModelStore, format: str, content: bytes) -> None:
    """Let the store have `m` in another format."""
    made = store.folder("m") / "made"
    made.write_bytes(content)
    store.take_in("m", made, format)


# --- the choice


@pytest.mark.parametrize(
    ("others", "allow", "expected"),
    [
        ([row("Q8_0", 20), row("BF16", 30)], False, "BF16"),
        ([row("Q8_0", 20), row("IQ4_NL", 30, changed=3)], False, "Q8_0"),
        ([row("Q8_0", 20), row("IQ4_NL", 30, changed=3)], True, "IQ4_NL"),
        ([row("Q8_0", 20, changed=2)], False, "Q8_0"),
        ([row("Q8_0", 20, changed=None, checked=0)], False, PUBLISHED),
        ([row("Q8_0", 20, checked=64)], False, PUBLISHED),
        ([row("Q8_0", 10.2)], False, PUBLISHED),
        ([row("Q8_0", 10.5)], False, "Q8_0"),
        ([msgspec.structs.replace(row("Q8_0", 10.5), rounds=1)], False, PUBLISHED),
        ([msgspec.structs.replace(row("Q8_0", 20), problem="it crashed")], True, PUBLISHED),
        ([], False, PUBLISHED),
    ],
    ids=[
        "fastest",
        "changed",
        "allowed",
        "one-percent",
        "unchecked",
        "too-few",
        "no-gain",
        "gain",
        "gain-once",
        "crashed",
        "alone",
    ],
)
def test_the_fastest_format_that_keeps_the_answers_is_taken(others: list[Row], allow: bool, expected: str) -> None:
    """At most 1% of at least 100 answers may change; a lead below 3% counts as noise, or 30% if it was seen once."""
    published = row(PUBLISHED, 10)
    assert fastest([published, *others], published, allow).setting.format == expected


def test_the_format_used_untuned_is_trusted_until_answers_speak_against_it() -> None:
    """With no time to compare enough answers it is taken if it is faster; with too many changed ones it is not."""
    published = row(PUBLISHED, 10)
    for changed, checked, expected in ((None, 0, "Q8_0"), (1, 16, "Q8_0"), (2, 64, PUBLISHED), (3, 200, PUBLISHED)):
        rows = [row("Q8_0", 20, changed, checked), row("BF16", 30, changed, checked)]
        assert fastest(rows, published, trusted="Q8_0").setting.format == expected


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (row("IQ4_NL", 30, changed=20), "IQ4_NL would be 1.5 times as fast, but changes 10.0% of 200 answers"),
        (row("IQ4_NL", 30, changed=0, checked=32), "no time to compare its answers; give a larger --budget"),
        (row("IQ4_NL", 15, changed=20), None),
        (row("BF16", 20.1, changed=0), None),
    ],
)
def test_what_was_not_taken_for_its_answers_is_said(other: Row, said: str | None) -> None:
    """A faster format that changes answers is named with its gain, its price and the option that takes it."""
    chosen = row("Q8_0", 20)
    note = foregone([row(PUBLISHED, 10), chosen, other], chosen)
    assert said in note if said else note == ""


@pytest.mark.parametrize(
    ("other", "exact", "kind"),
    [
        ((-1.0, -2.0, -9.0), (), "same"),
        ((-2.0, -1.0, -9.0), (), "near tie"),
        ((-9.0, -9.0, -1.0), (), "clear"),
    ],
)
def test_an_answer_counts_as_changed_when_the_published_one_was_clear(
    other: Sequence[float], exact: tuple[bool, ...], kind: str
) -> None:
    """Another label is a change if the published file preferred its own at 2 to 1, or gave the other up early."""
    published = Scored((-1.0, -1.3, -3.0), (1, 1, 1), 1, 0, exact=exact)
    assert changes(published, Scored(tuple(other), (1, 1, 1), 1, 0)) == kind


def test_a_tuned_setting_is_used_within_the_granted_cores() -> None:
    """The kept choice opens the model, with no more threads than were granted now."""
    chosen = Setting(format="Q8_0", threads=4, batch=128, flash_attention=False, kv_format="f32")
    found = setting_for(tuned(chosen), {PUBLISHED, "Q8_0"}, None, cores=2)
    assert found == msgspec.structs.replace(chosen, threads=2)
    assert setting_for(tuned(chosen), {PUBLISHED, "Q8_0"}, None, cores=8).threads == 4


@pytest.mark.parametrize(
    ("here", "preferred", "format"),
    [
        ({PUBLISHED, "Q8_0"}, "Q8_0", "Q8_0"),
        ({PUBLISHED}, "Q8_0", PUBLISHED),
        ({PUBLISHED}, None, PUBLISHED),
    ],
)
def test_without_a_usable_choice_there_is_a_guess(here: set[str], preferred: str | None, format: str) -> None:
    """Untuned, or tuned to a format that is gone: the registry's format if it is here, and all cores."""
    guess = Setting(format=format, threads=2, batch=256, flash_attention=True, kv_format="f16")
    assert setting_for(None, here, preferred, cores=2) == guess
    assert setting_for(tuned(Setting(format="BF16", threads=1)), here, preferred, cores=2) == guess


# --- the file


def test_a_choice_survives_in_its_file(store: ModelStore) -> None:
    """What is kept is read back as it was, and a second run replaces it."""
    for chosen in (Setting(threads=1), Setting(threads=2)):
        path = keep(store, tuned(chosen))
        assert kept(store, "ab" * 32) == tuned(chosen)
    assert list(folder(store).iterdir()) == [path]


def test_a_choice_is_of_one_processor_and_one_file(store: ModelStore) -> None:
    """Another processor, other cores or another published file know nothing of it."""
    keep(store, tuned(Setting(), cpu=CPU))
    assert kept(store, "ab" * 32, CPU) is not None
    assert kept(store, "ab" * 32, msgspec.structs.replace(CPU, cores=8)) is None
    assert kept(store, "ab" * 32, msgspec.structs.replace(CPU, flags="4567")) is None
    assert kept(store, "cd" * 32, CPU) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"model": ',
        b"[]",
        b"\xff\xfe",
        msgspec.json.encode(tuned(Setting())).replace(b"tuned/v1", b"tuned/v9"),
        msgspec.json.encode(tuned(Setting())).replace(b'"kv_format":"f16"', b'"kv_format":"q2"'),
        msgspec.json.encode(tuned(Setting(), cpu=CPU)),
        msgspec.json.encode(tuned(Setting(), model_hash="cd" * 32)),
    ],
    ids=["empty", "cut", "list", "binary", "version", "value", "processor", "model"],
)
def test_a_damaged_or_foreign_file_is_passed_over_and_said(store: ModelStore, content: bytes) -> None:
    """It is as if nothing had been tuned, and a warning names the file."""
    path = keep(store, tuned(Setting()))
    path.write_bytes(content)
    with capture_logs() as logs:
        assert kept(store, "ab" * 32) is None
    assert [(entry["event"], entry["log_level"], entry["path"]) for entry in logs] == [
        ("tuned.ignored", "warning", str(path))
    ]


# --- the store


def test_a_made_format_is_taken_in_beside_the_published_file(store: ModelStore) -> None:
    """It is moved, hashed and listed; `path` gives either by name, and its own guess otherwise."""
    published = store.path("m")
    make(store, "BF16", b"bf")
    assert store.formats("m") == {PUBLISHED, "BF16"}
    assert store.path("m", "BF16").weights.read_bytes() == b"bf"
    assert [record.format for record in store.verify("m")] == [None, "BF16"]
    assert store.path("m") == store.path("m", PUBLISHED) == published
    assert not (store.folder("m") / "made").exists()
    with pytest.raises(ModelNotFound, match=r"not here in Q4_0; run `swarm models tune m`"):
        store.path("m", "Q4_0")


def test_the_tuned_file_is_the_one_that_is_opened(store: ModelStore) -> None:
    """Before tuning the registry's format is opened, afterwards the chosen one, after its loss the guess again."""
    make(store, "Q8_0", b"q8")
    assert opening(store, "m", 3) == (store.path("m", "Q8_0"), Setting(format="Q8_0", threads=3))
    make(store, "BF16", b"bf")
    chosen = Setting(format="BF16", threads=1, kv_format="bf16")
    keep(store, tuned(chosen, store.path("m", PUBLISHED).sha256))
    assert opening(store, "m", 3) == (store.path("m", "BF16"), chosen)
    (store.folder("m") / "manifest.json").unlink()
    store.pull("m")
    assert opening(store, "m", 3)[1].format == PUBLISHED


# --- the commands


def test_tune_keeps_what_it_found_and_tuned_shows_it_again(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wishes reach the tuner; its table is printed, kept, and printed again."""
    seen: list[TuneWishes] = []

    def tune(store: ModelStore, name: str, wishes: TuneWishes, heard: Heard) -> Tuned:
        seen.append(wishes)
        heard("measuring")
        return tuned(Setting(format="Q8_0", threads=2), store.path(name, PUBLISHED).sha256)

    monkeypatch.setenv("SWARMLET_HOME", str(store.root.parent))
    own = ["--registry", str(store.root.parent.parent / "models.yaml")]
    runner, app = CliRunner(), build(tune=tune)
    missing = runner.invoke(app, ["tuned", "m", *own])
    assert missing.exit_code == 1 and "swarm models tune m" in missing.stderr
    first = runner.invoke(app, ["tune", "m", "--threads", "2", "--budget", "9", "--format", "Q8_0", *own])
    assert first.exit_code == 0, first.output
    assert seen == [TuneWishes(threads=2, budget_s=9, formats=("Q8_0",))]
    again = runner.invoke(app, ["tuned", "m", *own])
    assert "0.5% of 200" in again.stdout and "chosen: Q8_0, 2 threads" in again.stdout
    assert again.stdout in first.stdout + os.linesep


def test_an_unknown_format_is_refused_by_name(store: ModelStore) -> None:
    """`--format Q9` names the formats there are, and nothing is measured."""

    def tune(*_: object) -> Tuned:
        raise ModelError("it was measured")

    result = CliRunner().invoke(build(tune=tune), ["tune", "m", "--format", "Q9"])
    assert result.exit_code == 1 and "--format Q9" in result.stderr and "IQ4_NL" in result.stderr
