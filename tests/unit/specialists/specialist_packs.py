"""Small packs made by hand, and what the tests of specialists say again and again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from protocols.answers import Answer, Ask, Earlier, Failed, Signals
from protocols.packs import Example, Pack, Templates
from swarm.config.packs import check_pack, default_schema

MESSAGES = {
    "parcel": ["my parcel is late", "parcel lost by the courier", "where is the parcel", "the parcel never came",
               "courier left no parcel", "parcel tracking stuck"],
    "money": ["I was charged twice", "refund the charged money", "money missing after refund", "charged a wrong fee",
              "please refund my fee", "money taken, fee too high"],
    "login": ["cannot log into account", "account password forgotten", "reset the account password", "account locked",
              "locked out, password wrong", "new password for account"],
}  # fmt: skip
FIELDS = {
    "type": "object",
    "properties": {"order": {"type": ["string", "null"], "maxLength": 8}, "amount": {"type": ["string", "null"]}},
    "required": ["order", "amount"],
    "additionalProperties": False,
}

any_text = st.one_of(
    st.text(max_size=200),
    st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), max_size=400),
    st.text(st.characters(min_codepoint=0x1F300, max_codepoint=0x1F6FF), max_size=100),
    st.builds(lambda word, n: f"{word} " * n, st.text(min_size=1, max_size=12), st.integers(0, 800)),
)  # of any script, up to about 10 kB


def classify_pack(messages: dict[str, list[str]] | None = None, **changes: Any) -> Pack:
    by_label = MESSAGES if messages is None else messages
    labels = {label: f"about {label}" for label in by_label}
    examples = tuple(Example({"text": t}, {"label": label}) for label, texts in by_label.items() for t in texts)
    return checked(
        "classify", labels=labels, examples=examples, output_schema=default_schema("classify", labels), **changes
    )


def extract_pack(**changes: Any) -> Pack:
    examples = (
        Example({"text": "Where is order A-1?"}, {"order": "A-1", "amount": None}),
        Example({"text": "I paid 20 EUR for B-22."}, {"order": "B-22", "amount": "20"}),
        Example({"text": "Refund 7 EUR, please."}, {"order": None, "amount": "7"}),
        Example({"text": "Hello"}, {"order": None, "amount": None}),
    )
    patterns = {"order": (r"(?P<value>[A-Z]-\d+)",), "amount": (r"(?P<value>\d+) EUR", r"EUR (?P<value>\d+)")}
    given = {"patterns": patterns, "examples": examples, "output_schema": FIELDS, "checks": ("in_message",)}
    return checked("extract", **{**given, "max_tokens": 40, **changes})


def generate_pack(**changes: Any) -> Pack:
    templates = Templates(
        by="intent",
        choose={"parcel": "Order {order|unknown} of {name|you} is on its way. {{Sic}}"},
        default="Thank you, {name|dear customer}.",
        generate_for=("praise",),
    )
    given = {"input": ("text", "intent", "fields"), "templates": templates, "max_tokens": 40}
    return checked("generate", **{**given, "output_schema": default_schema("generate", {}), **changes})


def tool_pack(folder: Path, code: str, **changes: Any) -> tuple[Pack, Path]:
    """The pack, and its code in a file."""
    path = folder / "tools.py"
    path.write_text(code)
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    given = {"input": ("a", "b"), "tools": str(path), "tools_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return checked("tool", **{**given, "output_schema": schema, **changes}), path


def checked(kind: Any, **parts: Any) -> Pack:
    """A pack that the catalogue would take too."""
    pack = Pack(name="desk", kind=kind, **{"instructions": "Read the message of a customer.", **parts})
    assert not list(check_pack(pack))
    return pack


def ask(given: dict[str, Any] | str, max_tokens: int = 100_000, earlier: tuple[Earlier, ...] = ()) -> Ask:
    return Ask(
        id="a-1", task="t-1", step="sort", specialist="desk", tier="small", max_tokens=max_tokens, earlier=earlier,
        input={"text": given} if isinstance(given, str) else given,
    )  # fmt: skip


def said_before(label: str, **options: float) -> Earlier:
    return Earlier("head", {"label": label}, Signals(p=options.get(label), options=options))


def answered(reply: Answer | Failed) -> Answer:
    assert isinstance(reply, Answer), reply
    return reply


def failed(reply: Answer | Failed) -> Failed:
    assert isinstance(reply, Failed), reply
    return reply
