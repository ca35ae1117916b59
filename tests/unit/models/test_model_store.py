from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarm.errors import ModelDamaged, ModelError, ModelNotFound, SourceFailed
from swarm.models.cli import app
from swarm.models.files import Progress
from swarm.models.gguf import GgufHeader, read_header
from swarm.models.pull import PullSettings, requantized_name
from swarm.models.registry import Registry
from swarm.models.store import ModelStore, default_home

Make = Callable[..., Path]
Gguf = Callable[[int], bytes]


@pytest.fixture
def store(tmp_path: Path, registry: Make, gguf: Gguf) -> ModelStore:
    """A store whose model `m` has 3 MB and comes from a file beside the registry."""
    data = gguf(3_000_000)
    (tmp_path / "origin.gguf").write_bytes(data)
    return ModelStore(tmp_path / "home", Registry.load([registry("file:origin.gguf", data=data)]))


def reversed_copy(src: Path, dst: Path, format: str) -> None:
    """Stands for a requantizer: other bytes in the new file, derived from the old ones."""
    dst.write_bytes(src.read_bytes()[:24] + src.read_bytes()[:23:-1])


def refuses(src: Path, dst: Path, format: str) -> None:
    raise ModelError("it crashed")


def test_a_model_that_was_not_pulled_names_the_command(store: ModelStore) -> None:
    """Before a pull, `path` says what to run."""
    assert store.state("m") == "missing"
    with pytest.raises(ModelNotFound, match="swarm models pull m"):
        store.path("m")


def test_pull_puts_the_file_in_place_and_reports_progress(store: ModelStore, tmp_path: Path) -> None:
    """After a pull the file is there byte for byte, progress ended at its size, and the manifest says where from."""
    seen: list[Progress] = []
    files = store.pull("m", PullSettings(on_progress=seen.append))
    assert files.weights == tmp_path / "home/models/m/m.gguf"
    assert files.weights.read_bytes() == (tmp_path / "origin.gguf").read_bytes()
    assert seen[-1] == Progress("m.gguf", 3_000_000, 3_000_000)
    assert [p.done_bytes for p in seen] == sorted(p.done_bytes for p in seen)
    manifest = json.loads((files.weights.parent / "manifest.json").read_text())
    assert manifest["files"][0]["source"] == f"file:{tmp_path / 'origin.gguf'}"
    assert sorted(p.name for p in files.weights.parent.iterdir()) == [".lock", "m.gguf", "manifest.json"]


def test_a_present_model_needs_neither_source_nor_hashing(store: ModelStore, tmp_path: Path) -> None:
    """A second pull reads no file content: it works with the origin gone and the weights unreadable as content."""
    before = store.pull("m")
    (tmp_path / "origin.gguf").unlink()
    stat = before.weights.stat()
    before.weights.write_bytes(bytes(stat.st_size))
    os.utime(before.weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.pull_all(["m", "m"]) == {"m": before}


def test_verify_sets_a_damaged_file_aside_and_pull_heals_it(store: ModelStore, tmp_path: Path) -> None:
    """One changed byte is found by `verify`, the file is not used any more, and the next pull brings a good one."""
    weights = store.pull("m").weights
    stat = weights.stat()
    with weights.open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"\0\0\0\0")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(ModelDamaged, match=r"m\.gguf has sha256 .* `swarm models pull m`"):
        store.verify("m")
    assert store.state("m") == "missing"
    assert store.pull("m").weights.read_bytes() == (tmp_path / "origin.gguf").read_bytes()
    assert not list(weights.parent.glob("*.damaged"))


def test_a_touched_file_is_hashed_once_and_taken(store: ModelStore) -> None:
    """A file with another time but the same content is taken, and its time is remembered."""
    weights = store.pull("m").weights
    os.utime(weights, ns=(1, 1))
    assert store.path("m").weights == weights
    assert json.loads((weights.parent / "manifest.json").read_text())["files"][0]["mtime_ns"] == 1


@pytest.mark.parametrize("content", [b"short", bytes(3_000_000)])
def test_a_changed_file_is_never_handed_out(store: ModelStore, content: bytes) -> None:
    """A file of another size or content is refused when it is opened."""
    store.pull("m").weights.write_bytes(content)
    assert store.state("m") == "damaged"
    with pytest.raises(ModelDamaged, match="swarm models pull m"):
        store.path("m")


def test_wrong_bytes_are_thrown_away(tmp_path: Path, registry: Make, gguf: Gguf) -> None:
    """A source that delivers other bytes than the registry says raises `ModelDamaged` and leaves nothing usable."""
    (tmp_path / "origin.gguf").write_bytes(gguf(1000)[:-1] + b"!")
    store = ModelStore(tmp_path / "home", Registry.load([registry("file:origin.gguf", data=gguf(1000))]))
    with pytest.raises(ModelDamaged, match=r"file:origin\.gguf: 1,000 bytes with sha256 .* came, expected 1,000 bytes"):
        store.pull("m")
    assert store.state("m") == "missing"
    assert not [p for p in (tmp_path / "home").rglob("*") if p.is_file() and p.name != ".lock"]


def test_a_source_that_sends_too_much_is_cut_off(tmp_path: Path, registry: Make, gguf: Gguf) -> None:
    """Not more than the expected size is taken from a source."""
    (tmp_path / "origin.gguf").write_bytes(gguf(5_000_000))
    store = ModelStore(tmp_path / "home", Registry.load([registry("file:origin.gguf", data=gguf(1000))]))
    with pytest.raises(ModelDamaged, match="more than the expected 1,000 bytes"):
        store.pull("m")


def test_sources_are_tried_in_order(tmp_path: Path, registry: Make, gguf: Gguf) -> None:
    """A missing and a wrong source are passed over; the manifest names the one that delivered."""
    (tmp_path / "wrong.gguf").write_bytes(b"wrong")
    (tmp_path / "right.gguf").write_bytes(gguf(1000))
    sources = ("file:gone.gguf", "file:wrong.gguf", "file:right.gguf")
    store = ModelStore(tmp_path / "home", Registry.load([registry(*sources, data=gguf(1000))]))
    store.pull("m")
    assert store.verify("m")[0].source.endswith("right.gguf")


def test_when_all_sources_fail_each_is_named(tmp_path: Path, registry: Make, gguf: Gguf) -> None:
    """The error lists every source with its own reason."""
    (tmp_path / "wrong.gguf").write_bytes(b"wrong")
    store = ModelStore(
        tmp_path / "home", Registry.load([registry("file:gone.gguf", "file:wrong.gguf", data=gguf(1000))])
    )
    with pytest.raises(SourceFailed) as caught:
        store.pull("m")
    lines = str(caught.value).splitlines()
    assert lines[1].startswith("  file:gone.gguf: No such file") and lines[2].startswith("  file:wrong.gguf: 5 bytes")


def test_the_preferred_format_is_made_once_and_handed_out(tmp_path: Path, registry: Make, gguf: Gguf) -> None:
    """With a requantizer the derived file is chosen; both files are hashed in the manifest; it is made one time."""
    (tmp_path / "origin.gguf").write_bytes(gguf(1000))
    path = registry("file:origin.gguf", data=gguf(1000), requantize="Q8_0")
    store = ModelStore(tmp_path / "home", Registry.load([path]))
    assert store.pull("m").weights.name == "m.gguf"
    files = store.pull("m", PullSettings(requantize=reversed_copy))
    assert files.weights.name == "m.Q8_0.gguf"
    assert [record.name for record in store.verify("m")] == ["m.gguf", "m.Q8_0.gguf"]
    assert store.pull("m", PullSettings(requantize=refuses)) == files


def test_a_failed_requantization_costs_speed_only(tmp_path: Path, registry: Make, gguf: Gguf) -> None:
    """When the preferred format cannot be made, the original is handed out and a note says so."""
    (tmp_path / "origin.gguf").write_bytes(gguf(1000))
    path = registry("file:origin.gguf", data=gguf(1000), requantize="Q8_0")
    notes: list[str] = []
    files = ModelStore(tmp_path / "home", Registry.load([path])).pull(
        "m", PullSettings(on_note=notes.append, requantize=refuses)
    )
    assert files.weights.name == "m.gguf"
    assert notes == ["m stays in the format it came in, which is slower here: it crashed"]


def test_a_new_hash_in_the_registry_makes_a_model_missing(tmp_path: Path, registry: Make, gguf: Gguf) -> None:
    """When the registry moves to another file, the old one is not handed out under its name."""
    for size in (1000, 2000):
        (tmp_path / "origin.gguf").write_bytes(gguf(size))
        store = ModelStore(tmp_path / "home", Registry.load([registry("file:origin.gguf", data=gguf(size))]))
        assert store.state("m") == "missing"
        assert store.pull("m").weights.stat().st_size == size


def test_a_broken_manifest_is_named_and_pull_writes_a_new_one(store: ModelStore) -> None:
    """A manifest that cannot be read is `ModelDamaged`, and the next pull repairs it from the files in place."""
    manifest = store.pull("m").weights.parent / "manifest.json"
    manifest.write_text('{"model": 3')
    with pytest.raises(ModelDamaged, match=r"manifest\.json cannot be read"):
        store.path("m")
    assert store.pull("m").weights.is_file()


def test_names_cannot_leave_the_store(store: ModelStore) -> None:
    """A name with a path in it is no model."""
    for name in ("../m", "m/../../m", "/etc/passwd", ""):
        with pytest.raises(ModelNotFound):
            store.pull(name)


def test_home_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SWARMLET_HOME moves the store; without it, it is in the user's cache."""
    monkeypatch.setenv("SWARMLET_HOME", str(tmp_path))
    assert ModelStore().root == tmp_path / "models"
    monkeypatch.delenv("SWARMLET_HOME")
    assert default_home() == Path.home() / ".cache" / "swarmlet"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("M.Q4_1.gguf", "M.Q8_0.gguf"),
        ("M-1.5.gguf", "M-1.5.Q8_0.gguf"),
        ("model.gguf", "model.Q8_0.gguf"),
        ("M.IQ4_XS.gguf", "M.Q8_0.gguf"),
    ],
)
def test_requantized_files_are_named_after_their_format(name: str, expected: str) -> None:
    """The format in a file's name is replaced; other dots stay."""
    assert requantized_name(name, "Q8_0") == expected


def test_a_sound_header_is_read(tmp_path: Path, gguf: Gguf) -> None:
    """Version and counts of a GGUF file are told."""
    (tmp_path / "m").write_bytes(gguf(1000))
    assert read_header(tmp_path / "m") == GgufHeader(version=3, tensors=1, keys=1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too few"),
        (b"GGUF" + bytes(10), "too few"),
        (b"PK\3\4" + bytes(100), "no GGUF file"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 1, 1) + bytes(100), "little-endian"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + bytes(100), "no real model"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 1, 2**60) + bytes(100), "no real model"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 290, 30) + bytes(4000), "was cut"),
    ],
)
def test_a_foreign_or_cut_file_is_damaged(tmp_path: Path, data: bytes, reason: str) -> None:
    """What is no GGUF file, or too short for its own counts, is refused with the reason."""
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(ModelDamaged, match=reason):
        read_header(tmp_path / "m")


def test_the_command_line_pulls_lists_and_verifies(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pull, list and verify answer in JSON; verify exits with 1 when a file is damaged."""
    monkeypatch.setenv("SWARMLET_HOME", str(tmp_path / "home"))
    own = ["--registry", str(tmp_path / "models.yaml"), "--json"]
    run = CliRunner().invoke
    pulled = json.loads(run(app, ["pull", "m", *own]).stdout)
    assert pulled[0]["weights"] == str(store.path("m").weights)
    listed = {row["name"]: row["state"] for row in json.loads(run(app, ["list", *own]).stdout)}
    assert listed["m"] == "here" and listed["gemma-3-270m"] == "missing"
    assert json.loads(run(app, ["verify", *own]).stdout) == [{"name": "m", "ok": True, "problem": None}]
    store.path("m").weights.write_bytes(b"x")
    bad = run(app, ["verify", "m", *own])
    assert bad.exit_code == 1 and not json.loads(bad.stdout)[0]["ok"]


def test_the_command_line_says_errors_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown model ends with exit code 1 and one line, no traceback."""
    monkeypatch.setenv("SWARMLET_HOME", str(tmp_path))
    result = CliRunner().invoke(app, ["pull", "nobody"])
    assert result.exit_code == 1
    assert "the registry has no model 'nobody'" in result.stderr and "Traceback" not in result.output
