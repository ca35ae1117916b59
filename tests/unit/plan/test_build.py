"""A swarm file and its packs become an immutable plan."""

from __future__ import annotations

import hashlib
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from tiny_lora import write_lora

from protocols.control import Adapter
from protocols.money import Limit
from swarm import plan
from swarm.catalogue import Catalogue
from swarm.plan import Plan, Ref

ROOT = Path(__file__).parents[3]
PACKS = ROOT / "tests" / "unit" / "config" / "packs"
KINDS = {
    "embedder": "onnx-embedder",
    "lm": "gguf",
    "all-MiniLM-L6-v2": "onnx-embedder",
    "smollm2-135m-instruct": "gguf",
}

SWARM = """\
schema: swarm/v1
name: shop
models:
  head: embedder
  small: {use: lm, context: 2048}
  unused: lm
  remote: {model: gpt, base_url: https://a.example/v1, api_key: "${env:KEY}", price: {input: 0.15, output: 0.6}}
specialists:
  colour: {pack: colour, tiers: [head, small, remote, person], instructions: Say it., max_tokens: 9}
  order: {pack: order, model: code}
  add: {pack: add}
steps:
  last: {specialist: add, input: {a: "${second.order}", b: "${first.label}"}, accept_at: 0.5}
  second: {specialist: order, input: {text: "It is ${first.label}: ${input.text}"}}
  free: {specialist: order, input: {text: "#1"}}
  first: {specialist: colour, input: {text: "${input.text}"}}
escalation: {accept_at: 0.9, compare_with: gpt-4o}
budget: {task: {usd: 0.01, tokens: 10, seconds: 1.5}, run: {usd: 1}, on_exhausted: degrade}
"""


def build(folder: Path, text: str = SWARM) -> Plan:
    path = folder / "swarm.yaml"
    path.write_text(text)
    return plan.load(path, Catalogue([PACKS]), KINDS)


def test_steps_come_after_what_they_need_and_else_in_file_order(tmp_path: Path) -> None:
    """The order is topological, and the file decides where that leaves a choice."""
    assert [step.name for step in build(tmp_path).steps] == ["free", "first", "second", "last"]


def test_needs_and_dependents_are_each_others_mirror(tmp_path: Path) -> None:
    """A step needs the steps it reads; they know it as a dependent."""
    made = build(tmp_path)
    assert made.step("last").needs == {"first", "second"}
    assert made.dependents("first") == ("second", "last")
    assert made.dependents("free") == ()


def test_a_ladder_has_the_kinds_of_its_tiers(tmp_path: Path) -> None:
    """Registry and file together tell what kind of tier each name is."""
    ladder = build(tmp_path).step("first").ladder
    assert [(tier.name, tier.kind) for tier in ladder] == [
        ("head", "head"),
        ("small", "small"),
        ("remote", "remote"),
        ("person", "person"),
    ]
    assert ladder[3].model is None


def test_a_tool_needs_no_tiers(tmp_path: Path) -> None:
    """Plain code is the default of kind tool, and `model` the short form of one tier."""
    made = build(tmp_path)
    assert [tier.name for tier in made.step("last").ladder] == ["code"]
    assert [tier.name for tier in made.step("second").ladder] == ["code"]


def test_models_carry_names_and_prices_and_no_secrets(tmp_path: Path) -> None:
    """A model is described by what a host needs; a key only by the name of its variable; unused ones stay away."""
    models = build(tmp_path).models
    assert set(models) == {"head", "small", "remote"}
    remote = models["remote"]
    assert (remote.name, remote.base_url, remote.key_env) == ("gpt", "https://a.example/v1", "KEY")
    assert (remote.input_micro_usd_per_mtok, remote.output_micro_usd_per_mtok) == (150_000, 600_000)
    assert models["small"].context == 2048


def test_limits_are_integers_in_small_units(tmp_path: Path) -> None:
    """Dollars become millionths, seconds become milliseconds, what is left out has no limit."""
    made = build(tmp_path)
    assert made.task_limit == Limit(micro_usd=10_000, tokens=10, ms=1500)
    assert made.run_limit == Limit(micro_usd=1_000_000)
    assert (made.on_exhausted, made.compare_with) == ("degrade", "gpt-4o")


def test_a_step_can_have_its_own_threshold(tmp_path: Path) -> None:
    """`accept_at` of a step wins over that of the swarm."""
    made = build(tmp_path)
    assert (made.step("last").accept_at, made.step("first").accept_at) == (0.5, 0.9)


def test_overrides_are_laid_over_the_pack(tmp_path: Path) -> None:
    """What the swarm says about a pack replaces it, the rest stays."""
    pack = build(tmp_path).step("first").pack
    assert (pack.instructions, pack.max_tokens, pack.none_label) == ("Say it.", 9, "blue")
    assert len(pack.examples) == 2


def test_a_pack_beside_the_file_is_found(tmp_path: Path) -> None:
    """`./packs/mine` is a folder beside the swarm file."""
    import shutil

    shutil.copytree(PACKS / "order", tmp_path / "packs" / "order")
    made = build(tmp_path, SWARM.replace("pack: order", "pack: ./packs/order"))
    assert made.step("free").pack.kind == "extract"


SAME = [
    ("name: shop", "name: other\ndescription: something else"),
    ("price: {input: 0.15", "timeout: 5, price: {input: 0.3"),
    ("${env:KEY}", "${env:OTHER_KEY}"),
    ("usd: 0.01", "usd: 5"),
    ("schema: swarm/v1\n", "# a comment\n\nschema: swarm/v1\n"),
    ("  unused: lm\n", ""),
]
DIFFERENT = [
    ("accept_at: 0.5", "accept_at: 0.6"),
    ("accept_at: 0.9", "accept_at: 0.91"),
    ("Say it.", "Say it!"),
    ("use: lm, context: 2048", "use: lm, context: 1024"),
    ("[head, small, remote, person]", "[head, remote, person]"),
    ("It is ${first.label}", "It was ${first.label}"),
    ("model: gpt,", "model: gpt-5,"),
    ("https://a.example/v1", "https://b.example/v1"),
    ('"#1"', '"#2"'),
]


@pytest.mark.parametrize(("old", "new"), SAME)
def test_the_hash_ignores_what_answers_do_not_depend_on(tmp_path: Path, old: str, new: str) -> None:
    """Names, places, prices, keys and budgets do not make paid answers worthless."""
    assert build(tmp_path, SWARM.replace(old, new)).hash == build(tmp_path).hash


@pytest.mark.parametrize(("old", "new"), DIFFERENT)
def test_the_hash_changes_with_what_answers_depend_on(tmp_path: Path, old: str, new: str) -> None:
    """Another threshold, text, model or ladder is another plan."""
    assert old in SWARM
    assert build(tmp_path, SWARM.replace(old, new)).hash != build(tmp_path).hash


def adapted(folder: Path, adapter: str, tiers: str = "[head, small, remote, person]") -> Plan:
    text = SWARM.replace("[head, small, remote, person]", f"{tiers}, adapter: {adapter}")
    return build(folder, text.replace("unused: lm", "large: lm"))


def test_an_adapter_is_on_the_local_model_of_its_specialist(tmp_path: Path) -> None:
    """The tier carries its place and its hash; other tiers and specialists have none."""
    file = write_lora(tmp_path / "a.gguf")
    made = adapted(tmp_path, "a.gguf")
    tiers = {tier.name: tier.adapter for tier in made.step("first").ladder}
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert tiers == {"head": None, "small": Adapter(path=str(file), sha256=sha256), "remote": None, "person": None}
    assert not any(tier.adapter for tier in made.step("free").ladder)


def test_each_of_several_local_models_can_have_an_adapter(tmp_path: Path) -> None:
    """Files by tier: one may be left out."""
    for name in ("a", "b"):
        write_lora(tmp_path / f"{name}.gguf")
    both = adapted(tmp_path, "{small: a.gguf, large: b.gguf}", "[small, large]").step("first").ladder
    assert [Path(tier.adapter.path).name for tier in both if tier.adapter] == ["a.gguf", "b.gguf"]
    second = adapted(tmp_path, "{large: b.gguf}", "[small, large]").step("first").ladder
    assert [tier.adapter is None for tier in second] == [True, False]


def test_the_hash_changes_with_what_is_in_an_adapter(tmp_path: Path) -> None:
    """Trained again it is another plan, under another name it is not."""
    write_lora(tmp_path / "a.gguf", seed=1)
    write_lora(tmp_path / "b.gguf", seed=1)
    first = adapted(tmp_path, "a.gguf").hash
    assert adapted(tmp_path, "b.gguf").hash == first
    write_lora(tmp_path / "a.gguf", seed=2)
    assert adapted(tmp_path, "a.gguf").hash not in (first, build(tmp_path).hash)


def test_a_plan_cannot_be_changed(tmp_path: Path) -> None:
    """Neither its fields nor its mappings."""
    made = build(tmp_path)
    with pytest.raises(FrozenInstanceError):
        made.name = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        made.step("free").inputs["text"] = Ref("input", ())  # type: ignore[index]


@pytest.mark.parametrize("name", ["minimal.yaml", "triage.yaml"])
def test_the_shipped_swarms_have_a_plan(name: str) -> None:
    """The swarms in configs/ build with the shipped packs."""
    made = plan.load(ROOT / "configs" / name, Catalogue(), KINDS)
    assert len(made.hash) == 64
    assert made.steps


def test_several_candidates_are_part_of_what_answers_depend_on(tmp_path: Path) -> None:
    """They change the plan and what was learnt about the step; without the key everything stays as it was."""
    one = SWARM.replace("{pack: order, model: code}", "{pack: order, tiers: [code, small]}")
    several = SWARM.replace("{pack: order, model: code}", "{pack: order, tiers: [code, small], samples: 5}")
    first, second = build(tmp_path, one), build(tmp_path, several)
    assert (first.step("free").samples, second.step("free").samples) == (1, 5)
    assert first.hash != second.hash
    assert first.step("free").answers_hash != second.step("free").answers_hash
    assert first.step("first").answers_hash == second.step("first").answers_hash
