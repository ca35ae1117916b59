from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.errors import ModelError, ModelNotFound
from swarm.models.registry import Registry, shipped_registry
from swarm.models.source import HubFile, LocalFile, WheelFile, parse_source

ENTRY = """
    description: d
    kind: gguf
    family: f
    licence: { name: MIT }
    chat_format: plain
    context: 2048
    files:
      - name: m.gguf
        sources: ["hf:o/r/m.gguf"]
"""


def load(tmp_path: Path, text: str) -> Registry:
    path = tmp_path / "models.yaml"
    path.write_text(text)
    return Registry.load([path])


def test_shipped_registry_loads_and_says_what_is_untested() -> None:
    """The shipped registry is valid, and every model without a known hash is marked as not fetched in our tests."""
    models = {model.name: model.entry for model in Registry.load([shipped_registry()])}
    assert {"smollm2-135m-instruct", "gemma-3-270m", "all-MiniLM-L6-v2"} <= models.keys()
    for name, entry in models.items():
        assert entry.tested == all(file.sha256 is not None for file in entry.files), name


def test_a_later_registry_replaces_an_entry_as_a_whole(tmp_path: Path) -> None:
    """Of two files that name the same model the later one counts; models of the first alone stay."""
    own = tmp_path / "models.yaml"
    own.write_text(f"schema: models/v1\nmodels:\n  gemma-3-270m:{ENTRY}")
    registry = Registry.shipped(own)
    assert registry.get("gemma-3-270m").entry.context == 2048
    assert registry.get("smollm2-135m-instruct").entry.context == 8192


def test_unknown_name_suggests_the_nearest() -> None:
    """A misspelt model name is answered with the one that was meant."""
    with pytest.raises(ModelNotFound, match="did you mean 'smollm2-135m-instruct'"):
        Registry.shipped().get("smollm2-135m-instuct")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("context: 2048", "context: 0"), r"models\.yaml:10:14: models\.m\.context: .*greater than 0"),
        (("family: f", "familly: f"), r":7:5: models\.m\.familly: unknown key"),
        (("family: f", "familly: f"), r"models\.m: the key 'family' is missing"),
        (("kind: gguf", "kind: exe"), r":6:11: models\.m\.kind: .*'gguf'"),
        (("name: m.gguf", "name: ../m.gguf"), r":12:15: models\.m\.files\[0\]\.name: .*pattern"),
        (("  m:", "  ../m:"), r"models\..*pattern"),
        (("hf:o/r/m.gguf", "file:m.gguf"), r"needs `size` and `sha256`; only hf: sources"),
        (("hf:o/r/m.gguf", "hf:o/r"), r":13:19: models\.m\.files\[0\]\.sources\[0\]: .*none of the forms"),
        (("chat_format: plain", "chat_format: null"), r"`chat_format` is for gguf models"),
        (("kind: gguf", "kind: onnx-embedder"), r"needs files with the roles \['tokenizer', 'weights'\]"),
        (("name: m.gguf", "name: manifest.json"), r"used by the store itself"),
        (('["hf:o/r/m.gguf"]', "[]"), r"file 'm\.gguf' needs a source"),
        (("models/v1", "models/v2"), r":1:9: schema: .*'models/v1'"),
        (("family: f", "family: &a f"), r"anchors are not allowed"),
        (("family: f", "family: f\n    family: g"), r":8:5: models\.m\.family: .*line 7"),
    ],
)
def test_a_wrong_registry_names_place_and_cause(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    """Each mistake in a registry is reported with file, line, column, key path and what is wanted."""
    text = f"schema: models/v1\n\nmodels:\n  m:{ENTRY}"
    assert change[0] in text
    with pytest.raises(ModelError, match=expected):
        load(tmp_path, text.replace(*change, 1))


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    """Two mistakes give two lines."""
    text = f"schema: models/v1\nmodels:\n  m:{ENTRY}".replace("2048", "-1").replace("gguf\n    fam", "exe\n    fam")
    with pytest.raises(ModelError) as caught:
        load(tmp_path, text)
    assert len(str(caught.value).splitlines()) == 2


def test_a_huge_registry_is_not_read(tmp_path: Path) -> None:
    """A file above the limit is refused with the limit."""
    with pytest.raises(ModelError, match="262,144"):
        load(tmp_path, "#" * 300_000)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:o/r/f.gguf", HubFile("o/r", "f.gguf", "main")),
        ("hf:o/r@v1.0/sub/f.gguf", HubFile("o/r", "sub/f.gguf", "v1.0")),
        ("pypi:a-b==1.0!p/f.bin", WheelFile("a-b", "1.0", "p/f.bin")),
        ("file:f.gguf", LocalFile(Path("/base/f.gguf"))),
        ("file:/abs/f.gguf", LocalFile(Path("/abs/f.gguf"))),
    ],
)
def test_sources_are_read(text: str, source: object) -> None:
    """Each form of a source gives its parts; a relative path counts from the registry's folder."""
    assert parse_source(text, Path("/base")) == source


@pytest.mark.parametrize(
    "text",
    [
        "hf:o/r",
        "hf:o/r/../x",
        "hf:o/r//etc/x",
        "pypi:a!f",
        "pypi:a==1",
        "pypi:a==1!../f",
        "pypi:a==1!/f",
        "pypi:-a==1!f",
        "x",
    ],
)
def test_bad_sources_are_refused(text: str) -> None:
    """A source that is incomplete, leaves its repository, or would be an option of pip is refused."""
    with pytest.raises(ValueError, match="none of the forms"):
        parse_source(text, Path("/base"))


def test_registry_fixture_is_valid(registry: Callable[..., Path]) -> None:
    """The registries that the other tests write are valid ones."""
    assert Registry.load([registry("hf:o/r/m.gguf")]).get("m").entry.context == 2048
