"""Hostile swarm files and wire messages for the tests: good ones with damage where it hurts, and what becomes of them.

A swarm file is loaded and planned, as `swarm check` does; a message is decoded. Both end well or in their typed error;
whatever else happens is the finding.
"""

from __future__ import annotations

import copy
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "wire"))

from samples import BODIES, envelope

from protocols import codec
from swarm.errors import SwarmError, SwarmFileError
from swarm.runtime.launch import planned

HERE = Path(__file__).parent
GOOD = sorted(
    p for p in (*(HERE.parent / "configs").glob("*.yaml"), *(HERE / "unit" / "config" / "bad").glob("*.yaml"))
    if p.stat().st_size < 20_000
)  # fmt: skip


class _Plain(yaml.SafeDumper):
    """Writes everything out: anchors would be refused before anything else is looked at."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def written(doc: Any, flow: bool | None = None) -> str:
    """`doc` as YAML."""
    return str(yaml.dump(doc, Dumper=_Plain, default_flow_style=flow, allow_unicode=True, width=200, sort_keys=False))


def fan(width: int, levels: int) -> dict[str, Any]:
    """A schema whose every level refers to the next one several times: small to write, endless to walk."""
    defs = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * width} for i in range(levels)}
    last = {"required": ["x"]}
    return {"type": "object", "$defs": {**defs, f"d{levels}": last}, "allOf": [{"$ref": "#/$defs/d0"}]}


def nested(levels: int, value: Any = 1) -> Any:
    for _ in range(levels):
        value = {"a": [value]}
    return value


NASTY: list[Any] = [
    None, True, 0, -1, 10**30, -(2**63) - 1, 0.0, 1e308, float("inf"), float("nan"), "", " ", "~", "a" * 50_000,
    "${input.text}", "${" * 500, "${env:HOME}", "${said.label.x.y.z}", "../../etc/passwd", "/dev/zero", "/dev/stdin",
    "/proc/self/mem", ".", "a/" * 2000, "\x7f", "\u202e", "\U0001f642" * 50, "ß" * 500, "!!python/object:os.system",
    "(a+)+$", "(?P<value>" * 90 + ")" * 90, "(?P<value>a{1000}){1000}", "[" * 200, "{x|y}" * 500, "sk-" + "a" * 40,
    [], {}, [[]] * 500, ["x"] * 3000, {f"k{i}": i for i in range(2000)}, nested(14), nested(40),
    {"type": "object", "anyOf": [{"$ref": "#"}] * 5}, {"$ref": "#"}, {"type": "object", "$ref": "http://127.0.0.1:9/"},
    fan(2, 30), fan(5, 14), {"type": "object", "properties": {f"p{i}": {"enum": list(range(20))} for i in range(400)}},
    {"type": "object", "patternProperties": {"(a+)+$": {}}}, {"type": "object", "required": "x"},
    {"type": ["object"] * 500}, "classify", "extract", "generate", "tool", "remote", "person", "swarm/v1",
]  # fmt: skip
PIECES = (
    "\n", "  ", "\t", "- ", "? ", ": ", "&a ", "*a", "!!str ", "!x ", "<<: ", "[", "{", "]", "}", "|\n", ">", "'", '"',
    "#", "---\n", "...\n", "%TAG ! x\n", "\0", "\r", "\x85", "\ufeff", "\\", "0x1F", ".nan", "1e999", "[" * 3000,
    "{a: " * 3000, "- " * 3000, "a: &x [*x]\n", "b: [" + "1," * 3000 + "]\n", " " * 3000, "x" * 70_000,
)  # fmt: skip


RICH = """\
schema: swarm/v1
name: rich
models: {remote: {model: m, base_url: "http://127.0.0.1:9/v1", api_key: "${env:K}", price: {input: 1, output: 1}}}
specialists:
  said: {kind: classify, labels: {a: one, b: two}, examples: {a: [x, y], b: [z]}, tiers: [remote, person]}
  found:
    kind: extract
    output_schema:
      type: object
      properties: {name: {type: string}, parts: {type: array, items: {$ref: "#/$defs/part"}}}
      $defs: {part: {type: object, properties: {n: {type: integer}}}}
    patterns: {name: ["name is (?P<value>[a-z]+)"]}
    examples:
    - {input: {text: my name is x}, output: {name: x, parts: [{n: 1}]}}
    tiers: [code, remote]
  told:
    kind: generate
    input: [label, name]
    templates: {by: label, choose: {a: "Dear {name}"}, default: Hello}
    tiers: [code]
steps:
  said: {specialist: said, input: {text: "${input.text}"}, accept_at: 0.9}
  found: {specialist: found, input: {text: "${input.text}"}}
  told: {specialist: told, input: {label: "${said.label}", name: "${found.name}"}}
budget: {task: {usd: 0.01, seconds: 20}, run: {usd: 1}, on_exhausted: degrade}
"""


@cache
def good_files() -> tuple[Any, ...]:
    """Every swarm file of the project that is YAML at all, the wrong ones of the tests too."""
    found = [yaml.safe_load(RICH)] * 40
    for path in GOOD:
        try:
            text = path.read_text(encoding="utf-8")
            text = text.replace("head: embedder", "head: all-MiniLM-L6-v2").replace("small: lm", "small: gemma-3-270m")
            found.append(yaml.safe_load(text))
        except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
            continue
    return tuple(doc for doc in found if isinstance(doc, dict) and len(doc) > 2)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in plain data, the inner ones after the outer ones."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner if len(path) < 12 for place in _places(item, (*path, key)))]


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _damage(data: st.DataObject, doc: Any) -> Any:
    """`doc` with one place replaced, removed, renamed, wrapped, or filled from another place."""
    *above, key = data.draw(st.sampled_from(_places(doc)[1:] or [("schema",)]))
    parent = _at(doc, tuple(above))
    here = parent.get(key) if isinstance(parent, dict) else parent[key]
    match data.draw(st.sampled_from(["replace", "replace", "remove", "rename", "wrap", "graft", "schema"])):
        case "replace":
            parent[key] = copy.deepcopy(data.draw(st.sampled_from(NASTY)))
        case "remove":
            del parent[key]
        case "rename" if isinstance(parent, dict):
            parent[data.draw(st.sampled_from(["", "x" * 300, "input", "${a.b}", "code", "1", "ü", "__proto__"]))] = here
        case "wrap":
            parent[key] = data.draw(st.sampled_from([[here], {"x": here}, [here] * 200]))
        case "graft":
            parent[key] = copy.deepcopy(_at(doc, data.draw(st.sampled_from(_places(doc)))))
        case _:
            specialists = doc.get("specialists")
            for found in specialists.values() if isinstance(specialists, dict) else ():
                if isinstance(found, dict):
                    found["output_schema"] = copy.deepcopy(data.draw(st.sampled_from(NASTY)))
    return doc


@st.composite
def swarm_files(draw: st.DrawFn) -> bytes:
    """The bytes of a swarm file that was good, or nearly."""
    data = draw(st.data())
    doc: Any = copy.deepcopy(draw(st.sampled_from(good_files())))
    for _ in range(draw(st.integers(0, 4))):
        if isinstance(doc, dict) and len(_places(doc)) > 1:
            doc = _damage(data, doc)
    flow = draw(st.sampled_from([None, True, False]))
    text = written(doc, flow)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(PIECES)) + text[place + draw(st.sampled_from([0, 0, 1, 30])) :]
    raw = bytearray(text.encode(errors="surrogatepass"))
    if draw(st.integers(0, 9)) == 0 and raw:
        raw[draw(st.integers(0, len(raw) - 1))] ^= draw(st.integers(1, 255))
    return bytes(raw)


MESSAGES = tuple(codec.encode([envelope(name)]) for name in BODIES)
HEADERS = (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff")
BULKS: list[Any] = [
    [[]] * 200_000, [""] * 200_000, {str(i): i for i in range(50_000)}, "x" * 1_000_000, b"x" * 1_000_000, nested(150),
    [{}] * 100_000, 2**64 - 1, -(2**63), float("nan"), None, {"type": "ask"}, ["ask"] * 10,
]  # fmt: skip


@st.composite
def wire_messages(draw: st.DrawFn) -> bytes:
    """The bytes of a batch that was good: other values in its fields, then bytes flipped, cut, doubled or put in."""
    batch = msgspec.msgpack.decode(draw(st.sampled_from(MESSAGES)))
    for *above, key in draw(st.lists(st.sampled_from(_places(batch)[1:]), max_size=3)):
        with suppress(LookupError, TypeError):  # an earlier change may have taken the place away
            _at(batch, tuple(above))[key] = copy.copy(draw(st.sampled_from(BULKS)))
    raw = bytearray(msgspec.msgpack.encode(batch))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(raw)))
        match draw(st.sampled_from(["flip", "cut", "double", "header", "insert", "end"])):
            case "flip" if place < len(raw):
                raw[place] ^= draw(st.integers(1, 255))
            case "cut":
                del raw[place : place + draw(st.integers(1, 40))]
            case "double":
                raw[place:place] = raw[place : place + draw(st.integers(1, 2000))]
            case "header":
                raw[place:place] = draw(st.sampled_from(HEADERS))
            case "insert":
                raw[place:place] = draw(st.sampled_from([b"\x91" * 5000, b"\x81\xa1a" * 5000, b"\xc1", b"\xff" * 100]))
            case _:
                del raw[place:]
    return bytes(raw)


def checked(data: bytes, folder: Path) -> str:
    """What `swarm check` makes of these bytes: `fine` or `refused`."""
    path = folder / "hostile.yaml"
    path.write_bytes(data)
    try:
        planned(path)
    except SwarmFileError as e:
        assert e.problems and all(len(problem) < 2000 for problem in e.problems)
        return "refused"
    except SwarmError:
        return "refused"
    return "fine"


def decoded(data: bytes) -> str:
    """What the codec makes of these bytes: `fine` or `refused`."""
    try:
        codec.decode(data)
    except codec.WireError as e:
        assert len(str(e)) < 2000
        return "refused"
    return "fine"
