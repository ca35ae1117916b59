"""What the values of a step's input mean."""

from __future__ import annotations

import pytest

from swarm.config.references import BadReference, Literal, Ref, Text, parse_binding, references


@pytest.mark.parametrize(
    ("value", "binding"),
    [
        ("${input.text}", Ref("input", ("text",))),
        ("${fields}", Ref("fields", ())),
        ("${a.b-c.d_e}", Ref("a", ("b-c", "d_e"))),
        ("Order ${input.id} of ${who.name}", Text(("Order ", Ref("input", ("id",)), " of ", Ref("who", ("name",))))),
        ("${a}${b}", Text((Ref("a", ()), Ref("b", ())))),
        (" ${a}", Text((" ", Ref("a", ())))),
        ("costs $${5} for ${a}", Text(("costs ${5} for ", Ref("a", ())))),
        ("$${a}", Literal("${a}")),
        ("$5 {x}", Literal("$5 {x}")),
        ("", Literal("")),
        (None, Literal(None)),
        ([1, "x"], Literal([1, "x"])),
    ],
)
def test_a_value_means_this(value: object, binding: object) -> None:
    """A reference alone is a value, in a text it is a part, everything else stands for itself."""
    assert parse_binding(value) == binding


@pytest.mark.parametrize(
    "value", ["${a", "x ${", "${}", "${a.}", "${.a}", "${a b}", "${1}", "${env.X}", {"k": ["${a}"]}]
)
def test_what_is_nearly_a_reference_is_refused(value: object) -> None:
    """A `${` that is no reference is an error and never passes as text."""
    with pytest.raises(BadReference):
        parse_binding(value)


def test_references_are_found_in_order() -> None:
    """A text's references come in the order in which they stand."""
    assert [str(ref) for ref in references(parse_binding("${b.x} ${a}"))] == ["${b.x}", "${a}"]
