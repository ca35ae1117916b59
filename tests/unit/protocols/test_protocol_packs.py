"""A pack's hash changes with everything that its answers depend on, and with nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from protocols.packs import Example, Pack, Templates

PACK = Pack(
    name="p", kind="classify", labels={"a": "x", "b": "y"}, output_schema={"type": "object", "title": "t"},
    tools="/here/tools.py", tools_sha256="ab",
)  # fmt: skip

CHANGES: dict[str, Any] = {
    "name": "q", "kind": "extract", "description": "d", "instructions": "i", "input": ("message",),
    "output_schema": {"type": "array"}, "examples": (Example({"text": "hi"}, {"label": "a"}),),
    "labels": {"a": "x"}, "none_label": "a", "patterns": {"f": ("x",)}, "checks": ("in_message",),
    "templates": Templates("by", {}, "text"), "max_tokens": 9, "tools_sha256": "cd",
    "effects": "write", "idempotent": True, "equals": {"total": "a + b"}, "requires": ("a > 0",), "samples": 3,
}  # fmt: skip


@pytest.mark.parametrize("field", [field for field in Pack.__struct_fields__ if field != "tools"])
def test_the_hash_covers(field: str) -> None:
    """A changed field is another pack: its fits and answers are not reused."""
    assert msgspec.structs.replace(PACK, **{field: CHANGES[field]}).content_hash() != PACK.content_hash()


def test_the_hash_is_the_same_wherever_the_code_lies() -> None:
    """The path of tools.py is of this machine; its content is hashed."""
    assert msgspec.structs.replace(PACK, tools="/there/tools.py").content_hash() == PACK.content_hash()


@pytest.mark.parametrize(
    "turned", [{"labels": {"b": "y", "a": "x"}}, {"output_schema": {"title": "t", "type": "object"}}]
)
def test_the_hash_covers_the_order_of_keys(turned: dict[str, Any]) -> None:
    """Prompts list labels and fields in the pack's order, and a model may answer another order differently."""
    assert msgspec.structs.replace(PACK, **turned).content_hash() != PACK.content_hash()
