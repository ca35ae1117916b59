"""Which steps use answers again, as the swarm file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm import plan
from swarm.catalogue import Catalogue
from swarm.errors import SwarmFileError
from swarm.plan import Plan
from swarm.plan.plan import Caching

PACKS = Path(__file__).parents[1] / "config" / "packs"
SWARM = """\
schema: swarm/v1
name: shop
models: {head: embedder}
specialists:
  order: {pack: order, model: code}
  add: {pack: add}
steps:
  second: {specialist: order, input: {text: "${input.text}"}}
  sum: {specialist: add, input: {a: 1, b: 2}}
"""


def build(folder: Path, order: str = "", add: str = "", text: str = SWARM) -> Plan:
    """The plan of the file with so much more in its two steps."""
    text = text.replace('"${input.text}"}', '"${input.text}"}' + order).replace("b: 2}", "b: 2}" + add)
    (folder / "swarm.yaml").write_text(text)
    return plan.load(folder / "swarm.yaml", Catalogue([PACKS]), {"embedder": "onnx-embedder"})


def caching(built: Plan) -> list[Caching]:
    return [built.step(name).cache for name in ("second", "sum")]


def test_every_step_but_a_tool_has_an_exact_cache_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    """For all steps at once, or for each."""
    exact, off = Caching("exact"), Caching("off")
    assert caching(build(tmp_path)) == [exact, off]
    assert caching(build(tmp_path, text=SWARM + "cache: off\n")) == [off, off]
    assert caching(build(tmp_path, order=", cache: exact", text=SWARM + "cache: off\n")) == [exact, off]
    assert caching(build(tmp_path, order=", cache: off", add=", cache: exact")) == [off, exact]


def test_a_semantic_cache_has_its_error_and_time(tmp_path: Path) -> None:
    """What is not said is two of a hundred, with 95%, for ever."""
    said = ", cache: {semantic: {error: 0.05, confidence: 0.9}, ttl: 3600}"
    assert caching(build(tmp_path, order=said))[0] == Caching("semantic", 0.05, 0.9, 3600.0)
    assert caching(build(tmp_path, order=", cache: {semantic: {}}"))[0] == Caching("semantic", 0.02, 0.95, None)
    assert caching(build(tmp_path, order=", cache: {ttl: 60}"))[0] == Caching("exact", ttl_s=60.0)


def test_only_a_semantic_cache_changes_the_plan(tmp_path: Path) -> None:
    """What answers depend on is in its hash; an exact cache changes none."""
    hashes = {build(tmp_path, order=said).hash for said in ("", ", cache: off", ", cache: {ttl: 60}")}
    assert len(hashes) == 1
    assert build(tmp_path, order=", cache: {semantic: {}}").hash not in hashes


@pytest.mark.parametrize(
    ("order", "add", "said"),
    [
        (", cache: fuzzy", "", "steps.second.cache: expected 'off' or 'exact', got the text 'fuzzy'"),
        (", cache: {semantic: {error: 0}}", "", "steps.second.cache.semantic.error: must be more than 0"),
        (", cache: {semantics: {}}", "", "is not a key here; did you mean 'semantic'?"),
        ("", ", cache: {semantic: {}}", "steps.sum.cache.semantic: a tool's answer is not used again"),
    ],
)
def test_what_cannot_be_meant_is_an_error_with_its_place(tmp_path: Path, order: str, add: str, said: str) -> None:
    """Misspelt, out of range, or for a step that cannot have it."""
    with pytest.raises(SwarmFileError) as e:
        build(tmp_path, order, add)
    assert said in str(e.value)


def test_a_semantic_cache_needs_an_embedder(tmp_path: Path) -> None:
    """The remedy is named."""
    with pytest.raises(SwarmFileError, match=r"models has none for it; add head: all-MiniLM-L6-v2"):
        build(tmp_path, order=", cache: {semantic: {}}", text=SWARM.replace("{head: embedder}", "{}"))


def test_what_is_written_is_never_answered_from_a_cache(tmp_path: Path) -> None:
    """A call that is not made changes nothing."""
    tool = tmp_path / "packs" / "pay"
    tool.mkdir(parents=True)
    (tool / "agent.yaml").write_text("schema: pack/v1\nname: pay\nkind: tool\ninput: [a, b]\neffects: write\n")
    (tool / "output.schema.json").write_text((PACKS / "add" / "output.schema.json").read_text())
    (tool / "tools.py").write_text("def run(a, b):\n    return {'sum': a + b}\n")
    text = SWARM.replace("add: {pack: add}", "add: {pack: ./packs/pay}")
    assert caching(build(tmp_path, text=text))[1] == Caching("off")
    with pytest.raises(SwarmFileError, match="write cache: off"):
        build(tmp_path, add=", cache: exact", text=text)
