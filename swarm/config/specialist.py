"""What a specialist may hold, in a swarm file and in a pack's agent.yaml. `docs/packs.md` explains each key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from protocols.packs import Effects, Kind
from swarm.config.part import BY_SHAPE, BY_TYPE, Part
from swarm.config.values import Count, RelativePath, Samples, Several, Text


class ExamplePart(Part):
    """One known input with its right output."""

    input: dict[str, Any]
    output: dict[str, Any]


Examples = Annotated[
    Annotated[RelativePath, Tag("<text>")]
    | Annotated[Several[ExamplePart], Tag("<list>")]
    | Annotated[dict[str, Several[Text]], Tag("<mapping>")],
    BY_SHAPE,
]
OutputSchema = Annotated[Annotated[RelativePath, Tag("<text>")] | Annotated[dict[str, Any], Tag("<mapping>")], BY_SHAPE]
Adapters = Annotated[
    Annotated[RelativePath, Tag("<text>")] | Annotated[dict[Text, RelativePath], Field(min_length=1), Tag("<mapping>")],
    BY_TYPE,
]


class TemplatesPart(Part):
    """Texts of a `generate` specialist; see docs/packs.md."""

    by: Text
    choose: dict[str, Text]
    default: Text
    generate_for: Annotated[tuple[str, ...], Field(strict=False)] = ()


class PackParts(Part):
    """What a pack's agent.yaml and an inline specialist have in common."""

    description: Text | None = None
    input: Several[Text] | None = None
    labels: dict[str, Text] | None = None
    none_label: Text | None = None
    patterns: dict[str, Several[Text]] | None = None
    checks: Several[Text] | None = None
    equals: dict[str, Text] | None = None
    requires: Several[Text] | None = None
    templates: TemplatesPart | None = None
    max_tokens: Count | None = None
    effects: Effects | None = None
    idempotent: bool | None = None


class PackFile(PackParts):
    """A pack's agent.yaml."""

    version: Literal["pack/v1"] = Field(alias="schema")
    name: Text
    kind: Kind


class Specialist(PackParts):
    """A pack with overrides, or everything inline; and the tiers that may answer, cheapest first."""

    pack: RelativePath | None = None
    kind: Kind | None = None
    instructions: Text | None = None
    examples: Examples | None = None
    output_schema: OutputSchema | None = None
    tools: RelativePath | None = None
    tiers: Several[Text] | None = None
    model: Text | None = None
    adapter: Adapters | None = None
    samples: Samples | None = None
