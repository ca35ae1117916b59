"""A specialist's definition as data. It travels to the hosts; code never does (a tool is found there by name)."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

Kind = Literal["classify", "extract", "generate", "tool"]
Effects = Literal["read", "write"]


class Example(msgspec.Struct, frozen=True):
    """One known input with its right output."""

    input: dict[str, Any]
    output: dict[str, Any]


class Templates(msgspec.Struct, frozen=True, omit_defaults=True):
    """Texts with `{name|fallback}` places; the value of input `by` picks one, else `default` is used."""

    by: str
    choose: dict[str, str]
    default: str
    generate_for: tuple[str, ...] = ()  # values of `by` for which a model writes the text instead


class Pack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything a host needs to be this specialist. `docs/packs.md` explains each field."""

    name: str
    kind: Kind
    description: str = ""
    instructions: str = ""
    input: tuple[str, ...] = ("text",)
    output_schema: dict[str, Any] = {}
    examples: tuple[Example, ...] = ()
    labels: dict[str, str] = {}  # classify: label -> what it means, in a few words
    none_label: str | None = None  # classify: the label that says "none of these"
    patterns: dict[str, tuple[str, ...]] = {}  # extract: field -> regular expressions with a group `value`
    checks: tuple[str, ...] = ()  # names of free checks: "in_message", "arithmetic"
    templates: Templates | None = None
    max_tokens: int = 128
    tools: str | None = None  # path of the pack's tools.py where the swarm was loaded
    tools_sha256: str | None = None
    effects: Effects = "read"  # tool: what a call does to the world outside; a read may be repeated at will
    idempotent: bool = False  # tool: a write may be repeated too, as long as it is given the same key
    equals: dict[str, str] = {}  # field of the output -> what it must be, computed from other fields
    requires: tuple[str, ...] = ()  # tool: what must hold of the inputs before it is called

    def content_hash(self) -> str:
        """sha256 over everything the answers depend on: also the order of labels and fields, as prompts show it.

        The place of tools.py is not part of it.
        """
        moved = msgspec.structs.replace(self, tools=None)
        return hashlib.sha256(msgspec.json.encode(moved)).hexdigest()
