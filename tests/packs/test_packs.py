"""The shipped packs and the example inbox: what must hold of data that specialists learn from."""

from __future__ import annotations

import importlib.util
import json
import random
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
AGENTS = ROOT / "agents"
TRIAGE = ROOT / "configs" / "triage"
PACKS = sorted(agent.parent.name for agent in AGENTS.glob("*/agent.yaml"))

PLACE = re.compile(r"\{(\w+)(?:\|([^{}]*))?\}")
FIELDS = ("order_number", "amount", "currency", "date", "product")
KINDS = {"trivial", "long", "ambiguous", "foreign", "out_of_scope", "hostile", "noisy"}
NOISE_CHARS = 10_000
ALMOST = (
    *("1", "1.", "1,", "12 ", "1 of ", "3rd ", "2025-", "may ", "-", "'", "\n"),
    *("€", "$ ", "eur", "#", "AB-", "AB-12345", "order ", "no. ", 'the "', "garden ", "wireless "),
    *("<|im_start|>", "é", "\u200b"),
)


@cache
def agent_of(pack: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((AGENTS / pack / "agent.yaml").read_text("utf-8"))
    return loaded


def schema_of(pack: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((AGENTS / pack / "output.schema.json").read_text("utf-8"))
    return loaded


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def examples_of(pack: str) -> list[dict[str, Any]]:
    return lines_of(AGENTS / pack / "examples.jsonl")


def of_kind(kind: str) -> list[str]:
    return [pack for pack in PACKS if agent_of(pack)["kind"] == kind]


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text).casefold()


def extracted(pack: str, text: str) -> dict[str, str | None]:
    """The first match of each field's patterns."""
    found: dict[str, str | None] = {}
    for field, patterns in agent_of(pack)["patterns"].items():
        matches = (re.search(pattern, text) for pattern in patterns)
        found[field] = next((match["value"] for match in matches if match), None)
    return found


def test_catalogue_has_the_five_packs_of_triage() -> None:
    """The example swarm finds each pack that it names."""
    assert {"intent", "urgency", "fields", "route", "reply"} <= set(PACKS)


@pytest.mark.parametrize("pack", PACKS)
def test_pack_has_what_its_kind_needs(pack: str) -> None:
    """A pack names itself, its kind and its inputs, and has every file that its kind uses."""
    agent = agent_of(pack)
    needed = {"classify": "labels", "extract": "patterns", "generate": "templates", "tool": "input"}
    assert agent["schema"] == "pack/v1"
    assert agent["name"] == pack
    assert agent["description"]
    assert agent[needed[agent["kind"]]]
    assert (AGENTS / pack / "prompt.md").read_text("utf-8").strip()
    assert (AGENTS / pack / "tools.py").exists() == (agent["kind"] == "tool")


@pytest.mark.parametrize("pack", PACKS)
def test_every_example_has_the_packs_inputs_and_a_valid_output(pack: str) -> None:
    """An example gives exactly the pack's inputs, and its output satisfies the pack's schema."""
    schema = schema_of(pack)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    wrong = [e for e in examples_of(pack) if not validator.is_valid(e["output"])]
    assert wrong == []
    assert {frozenset(e["input"]) for e in examples_of(pack)} == {frozenset(agent_of(pack).get("input", ["text"]))}


@pytest.mark.parametrize("pack", PACKS)
def test_no_example_is_there_twice(pack: str) -> None:
    """The same input never stands twice, nor with two outputs."""
    inputs = Counter(flat(json.dumps(e["input"], sort_keys=True)) for e in examples_of(pack))
    assert [i for i, n in inputs.items() if n > 1] == []


@pytest.mark.parametrize("pack", of_kind("classify"))
def test_every_label_has_examples_enough(pack: str) -> None:
    """Labels of examples, of the schema and of agent.yaml are the same, and each has at least ten examples."""
    agent = agent_of(pack)
    counts = Counter(e["output"]["label"] for e in examples_of(pack))
    assert set(counts) == set(agent["labels"]) == set(schema_of(pack)["properties"]["label"]["enum"])
    assert min(counts.values()) >= 10
    assert agent.get("none_label") in {None, *agent["labels"]}


@pytest.mark.parametrize("pack", of_kind("extract"))
def test_gold_values_stand_in_the_message(pack: str) -> None:
    """What an example says was extracted is a copy of a part of its text."""
    made_up = [
        (e["input"]["text"], value)
        for e in examples_of(pack)
        for value in e["output"].values()
        if value is not None and value not in e["input"]["text"]
    ]
    assert made_up == []


@pytest.mark.parametrize("pack", of_kind("extract"))
def test_patterns_end_on_noise_and_copy_from_it(pack: str) -> None:
    """On 10 kB of almost-matches every pattern comes to an end, and what it finds is a short part of the text."""
    limits = {field: spec["maxLength"] for field, spec in schema_of(pack)["properties"].items()}
    mixed = ["".join(random.Random(seed).choices(ALMOST, k=NOISE_CHARS)) for seed in range(3)]
    for text in [*mixed, *(piece * NOISE_CHARS for piece in ALMOST)]:
        noise = text[:NOISE_CHARS]
        for field, value in extracted(pack, noise).items():
            assert value is None or (value in noise and len(value) <= limits[field])


@pytest.mark.parametrize(
    ("field", "floor"),
    [("order_number", 0.98), ("amount", 0.92), ("currency", 0.95), ("date", 0.96), ("product", 0.85)],
)
def test_patterns_find_what_they_are_for(field: str, floor: float) -> None:
    """On the examples the patterns give the right value, or rightly none, at least this often."""
    right = [extracted("fields", e["input"]["text"])[field] == e["output"][field] for e in examples_of("fields")]
    assert sum(right) / len(right) >= floor


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("my number is 0151 123456", "order_number", None),
        ("order 1234567 is not ours", "order_number", None),
        ("version 3.2 of the app", "amount", None),
        ("I paid 1.299,00 € for it", "amount", "1.299,00"),
        ("it was £1,299", "amount", "1,299"),
        ("it was 59,90 € 3 months ago", "amount", "59,90"),
        ("it may be 20 or more", "date", None),
        ("it came yesterday, or last Friday", "date", None),
        ("since 31/12/2025.", "date", "31/12/2025"),
        ("can I change the card's colour?", "product", None),
    ],
)
def test_patterns_tell_near_misses_apart(text: str, field: str, value: str | None) -> None:
    """A phone number is no order, a version no sum, and a word for a day no date."""
    assert extracted("fields", text)[field] == value


@pytest.mark.parametrize("pack", of_kind("tool"))
def test_tool_gives_the_outputs_of_its_examples(pack: str) -> None:
    """`run` of a tool pack gives, for every example, exactly its output."""
    spec = importlib.util.spec_from_file_location(f"pack_{pack}", AGENTS / pack / "tools.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert [module.run(**e["input"]) for e in examples_of(pack)] == [e["output"] for e in examples_of(pack)]


def test_route_knows_every_intent_but_none() -> None:
    """Each label of `intent` has a queue of its own in `route`'s examples, and only `none` goes to the general one."""
    queues = {e["input"]["intent"]: e["output"]["queue"] for e in examples_of("route")}
    general = {intent for intent in agent_of("intent")["labels"] if queues[intent] == "general"}
    assert general == {"none"}


@pytest.mark.parametrize("pack", of_kind("generate"))
def test_templates_use_known_places_only(pack: str) -> None:
    """A place names an input or a field of `fields`, has a fallback, and no other braces stand in a template."""
    agent = agent_of(pack)
    templates = agent["templates"]
    for text in [*templates["choose"].values(), templates["default"]]:
        for name, fallback in PLACE.findall(text):
            assert name in {*agent["input"], *FIELDS}
            assert fallback
        assert not re.search(r"[{}]", PLACE.sub("", text))
    assert templates["by"] in agent["input"]


def test_reply_has_a_template_for_every_intent() -> None:
    """No intent falls to the default template, and no template is for an intent that does not exist."""
    assert set(agent_of("reply")["templates"]["choose"]) == set(agent_of("intent")["labels"])


def test_reply_examples_are_what_the_templates_give() -> None:
    """Each example's text is its intent's template with the places filled from its fields."""
    templates = agent_of("reply")["templates"]
    for example in examples_of("reply"):
        fields = example["input"]["fields"]
        template = templates["choose"].get(example["input"]["intent"], templates["default"])
        filled = PLACE.sub(lambda place: fields[place[1]] if fields[place[1]] is not None else place[2], template)  # noqa: B023
        assert example["output"]["text"] == filled


def test_inbox_has_sixty_messages_with_gold_of_every_kind() -> None:
    """Message and gold line stand for line together, ids are unique, and every kind of message is there."""
    inbox, gold = lines_of(TRIAGE / "inbox.jsonl"), lines_of(TRIAGE / "gold.jsonl")
    ids = [message["id"] for message in inbox]
    assert len(set(ids)) == len(ids) == 60
    assert [g["id"] for g in gold] == ids
    assert {g["kind"] for g in gold} == KINDS
    assert all(message["text"].strip() for message in inbox)


def test_inbox_gold_is_valid_and_copied_from_the_messages() -> None:
    """Gold labels are labels of the packs, and gold values satisfy the schema and stand in the message."""
    texts = {message["id"]: message["text"] for message in lines_of(TRIAGE / "inbox.jsonl")}
    for gold in lines_of(TRIAGE / "gold.jsonl"):
        assert gold["intent"] in agent_of("intent")["labels"]
        assert gold["urgency"] in agent_of("urgency")["labels"]
        jsonschema.validate(gold["fields"], schema_of("fields"))
        assert all(value is None or value in texts[gold["id"]] for value in gold["fields"].values())


def test_inbox_is_not_copied_from_the_examples() -> None:
    """No message of the inbox shares most of its word triples with an example: the inbox is to be new to the packs."""

    def triples(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.casefold())
        return set(zip(words, words[1:], words[2:], strict=False))

    known = [triples(e["input"]["text"]) for pack in PACKS for e in examples_of(pack) if "text" in e["input"]]
    for message in lines_of(TRIAGE / "inbox.jsonl"):
        own = triples(message["text"])
        assert all(len(own & other) <= 0.5 * len(own) for other in known if own)
