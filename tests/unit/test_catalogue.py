"""The catalogue opens packs and says what is wrong with them, file by file."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from swarm.catalogue import Catalogue, shipped
from swarm.errors import PackError

PACKS = Path(__file__).parent / "config" / "packs"


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """A copy of the test packs that a test may damage."""
    return Path(shutil.copytree(PACKS, tmp_path / "packs"))


def refusal(root: Path, name: str) -> str:
    with pytest.raises(PackError) as caught:
        Catalogue([root]).open(name)
    return str(caught.value).replace(str(root), "packs")


def test_a_pack_holds_its_folder() -> None:
    """Everything in the folder arrives: instructions, schema, examples, patterns, checks."""
    pack = Catalogue([PACKS]).open("order")
    assert (pack.name, pack.kind, pack.checks) == ("order", "extract", ("in_message",))
    assert pack.instructions == "Copy the order's number."
    assert pack.patterns == {"order": ("(?P<value>#[0-9]+)",)}
    assert [example.output for example in pack.examples] == [{"order": "#12"}]
    assert list(pack.output_schema["properties"]) == ["order"]


def test_a_tool_is_known_by_its_place_and_its_content() -> None:
    """The code stays where it is; its sha256 is part of the pack's identity, its path is not."""
    pack = Catalogue([PACKS]).open("add")
    code = PACKS / "add" / "tools.py"
    assert pack.tools == str(code.resolve())
    assert pack.tools_sha256 == hashlib.sha256(code.read_bytes()).hexdigest()


def test_the_same_pack_elsewhere_is_the_same(packs: Path) -> None:
    """A pack's content hash does not depend on where it lies, but on every answer-giving byte."""
    here, there = Catalogue([PACKS]).open("add"), Catalogue([packs]).open("add")
    assert here.content_hash() == there.content_hash()
    (packs / "add" / "tools.py").write_text("def run(a, b):\n    return {'sum': a - b}\n")
    assert Catalogue([packs]).open("add").content_hash() != here.content_hash()


def test_the_first_root_wins(packs: Path, tmp_path: Path) -> None:
    """A user's own folder of packs can come before the shipped one."""
    shutil.copytree(packs / "order", tmp_path / "mine" / "order")
    (tmp_path / "mine" / "order" / "prompt.md").write_text("Mine.")
    assert Catalogue([tmp_path / "mine", packs]).open("order").instructions == "Mine."
    assert Catalogue([tmp_path / "mine", packs]).names() == ("add", "colour", "order")


@pytest.mark.parametrize("name", Catalogue().names())
def test_every_shipped_pack_is_sound(name: str) -> None:
    """The packs that come with the package open without problems."""
    assert Catalogue().open(name).name == name


def test_the_shipped_packs_are_found() -> None:
    """The default root is the folder of agents, from a checkout as from a wheel."""
    assert shipped().is_dir()
    assert "intent" in Catalogue().names()


@pytest.mark.parametrize("name", ["ordr", "../order", "/etc", "", "a/b", "."])
def test_a_name_that_is_no_pack_is_refused(name: str) -> None:
    """A catalogue name is a name and never a path."""
    assert refusal(PACKS, name).startswith(f"no pack '{name}' in the catalogue; ")


DAMAGE = [
    (
        "agent.yaml",
        "schema: pack/v1\n",
        "schema: pack/v9\n",
        "agent.yaml:1:9: schema: expected 'pack/v1', got the text 'pack/v9'; did you mean 'pack/v1'?",
    ),
    ("agent.yaml", "name: order", "name: other", "agent.yaml:2:7: name: a pack has the name of its folder: 'order'"),
    (
        "agent.yaml",
        "kind: extract",
        "kind: extrct",
        "agent.yaml:4:7: kind: expected 'classify', 'extract', 'generate' or 'tool', "
        "got the text 'extrct'; did you mean 'extract'?",
    ),
    ("agent.yaml", "checks:", "check:", "agent.yaml:7:1: check: is not a key here; did you mean 'checks'?"),
    (
        "agent.yaml",
        "(?P<value>#[0-9]+)",
        "(?P<value>[",
        "agent.yaml:6:11: patterns.order[0]: is no regular expression: unterminated character set at position 10",
    ),
    (
        "agent.yaml",
        "(?P<value>#[0-9]+)",
        "#[0-9]+",
        "agent.yaml:6:11: patterns.order[0]: has no group named value; put what is wanted into (?P<value>…)",
    ),
    (
        "output.schema.json",
        '"object"',
        '"objct"',
        "output.schema.json:1:1: is no JSON Schema (draft 2020-12): "
        "type: 'objct' is not valid under any of the given schemas",
    ),
    ("output.schema.json", '{"type": "object",', "{", None),
    (
        "examples.jsonl",
        '"#12"}',
        "12}",
        "examples.jsonl:1:1: output.order does not satisfy the schema: 12 is not of type 'string', 'null'",
    ),
    ("examples.jsonl", '"text"', '"txt"', "examples.jsonl:1:1: no input 'txt'; did you mean 'text'?"),
    ("examples.jsonl", "{", "[", "examples.jsonl:1:1: is not valid JSON: Expecting ',' delimiter at column 9"),
]


@pytest.mark.parametrize(("file", "good", "bad", "line"), DAMAGE)
def test_a_damaged_pack_is_refused_with_its_place(
    packs: Path, file: str, good: str, bad: str, line: str | None
) -> None:
    """Each fault is named with the file and line that hold it."""
    path = packs / "order" / file
    path.write_text(path.read_text().replace(good, bad, 1))
    if line is None:
        assert "say type: object at the top" in refusal(packs, "order")
    else:
        assert refusal(packs, "order") == f"packs/order/{line}"


@pytest.mark.parametrize("file", ["prompt.md", "output.schema.json", "examples.jsonl"])
def test_a_missing_file_is_named(packs: Path, file: str) -> None:
    """A pack without one of its files says which."""
    (packs / "order" / file).unlink()
    assert f"packs/order/{file}: is missing; a pack of kind extract needs it" in refusal(packs, "order")


def test_a_file_that_leads_out_of_the_pack_is_refused(packs: Path, tmp_path: Path) -> None:
    """A symbolic link cannot bring a file from elsewhere into a pack."""
    (tmp_path / "secret").write_text("secret")
    (packs / "order" / "prompt.md").unlink()
    (packs / "order" / "prompt.md").symlink_to(tmp_path / "secret")
    assert refusal(packs, "order").startswith("packs/order/prompt.md: 'prompt.md' leads out of the folder of the file")


def test_all_problems_of_a_pack_come_at_once() -> None:
    """A pack with faults in four files gives them all, file by file."""
    broken = PACKS.parent / "bad" / "files"
    assert [line.split(":")[0].rsplit("/", 1)[1] for line in refusal(broken, "broken").split("\n")] == [
        *["agent.yaml"] * 5,
        "examples.jsonl",
        "prompt.md",
    ]


def test_a_schema_cannot_reach_the_network(packs: Path) -> None:
    """A `$ref` to an address is refused and not fetched."""
    path = packs / "order" / "output.schema.json"
    path.write_text('{"type": "object", "properties": {"order": {"$ref": "http://127.0.0.1:9/x.json"}}}')
    assert "$ref 'http://127.0.0.1:9/x.json' leads to nothing" in refusal(packs, "order")


def test_a_schema_that_refers_to_itself_without_end_is_refused(packs: Path) -> None:
    """A circle of `$ref` is an error line and no crash."""
    path = packs / "order" / "output.schema.json"
    path.write_text(
        '{"type": "object", "properties": {"order": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}'
    )
    assert refusal(packs, "order") == "packs/order/output.schema.json:1:1: $ref '#/$defs/a' goes round in a circle"
