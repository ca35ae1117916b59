"""What is on the wire and on disk today can be read by every later version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from samples import BODIES, ENGINE, RECORDS, envelope, record_bytes

from protocols import codec, engine, events
from protocols.envelope import WIRE_VERSION, Message

GOLDEN: dict[str, str] = json.loads(Path(__file__).with_name("golden.json").read_text())


def golden(name: str) -> bytes:
    return bytes.fromhex(GOLDEN[name])


def test_every_type_has_a_sample() -> None:
    """No message, record or event can be added without golden bytes."""
    assert {type(body) for body in BODIES.values()} == set(get_args(Message))
    assert set(get_args(events.Event)) <= {type(record) for record in RECORDS.values()}
    assert {type(message) for message in ENGINE.values()} == {*get_args(engine.ToEngine), *get_args(engine.FromEngine)}
    samples = {"message": BODIES, "record": RECORDS, "engine": ENGINE}
    assert set(GOLDEN) == {f"{kind} {name}" for kind, named in samples.items() for name in named}


@pytest.mark.parametrize("name", BODIES)
def test_a_message_is_these_bytes(name: str) -> None:
    """Encoding gives the golden bytes, and decoding them the message."""
    assert codec.encode([envelope(name)]) == golden(f"message {name}")
    assert codec.decode(golden(f"message {name}")) == [envelope(name)]


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_these_bytes(name: str) -> None:
    """What a store or a watcher keeps has the golden bytes, and is read from them."""
    record = RECORDS[name]
    assert record_bytes(name) == golden(f"record {name}")
    assert msgspec.msgpack.decode(golden(f"record {name}"), type=type(record)) == record


@pytest.mark.parametrize("name", ENGINE)
def test_a_frame_to_or_from_an_engine_is_these_bytes(name: str) -> None:
    """Encoding gives the golden frame, and reading it the message."""
    assert engine.frame(ENGINE[name]) == golden(f"engine {name}")
    (body,) = engine.Frames().feed(golden(f"engine {name}"))
    assert _read(name, body) == ENGINE[name]


@pytest.mark.parametrize("name", ENGINE)
def test_unknown_fields_of_frames_are_ignored(name: str) -> None:
    """A host and an engine's process may differ by what they know to say."""
    (body,) = engine.Frames().feed(golden(f"engine {name}"))
    more = msgspec.msgpack.encode(_with_more(msgspec.msgpack.decode(body)))
    assert _read(name, more) == ENGINE[name]


@pytest.mark.parametrize("name", BODIES)
def test_unknown_fields_are_ignored(name: str) -> None:
    """A newer sender may say more than this program knows, at any depth."""
    (plain,) = msgspec.msgpack.decode(golden(f"message {name}"))
    more = msgspec.msgpack.encode([_with_more(plain)])
    assert codec.decode(more) == [envelope(name)]


@pytest.mark.parametrize("name", RECORDS)
def test_unknown_fields_of_records_are_ignored(name: str) -> None:
    """A store that a newer program has written to stays readable."""
    record = RECORDS[name]
    more = msgspec.msgpack.encode(_with_more(msgspec.msgpack.decode(golden(f"record {name}"))))
    assert msgspec.msgpack.decode(more, type=type(record)) == record


def test_a_newer_wire_version_is_refused() -> None:
    """What this program cannot understand is not guessed at."""
    (plain,) = msgspec.msgpack.decode(golden("message cancel"))
    newer = msgspec.msgpack.encode([plain | {"v": WIRE_VERSION + 1}])
    with pytest.raises(codec.WireError, match=f"wire version {WIRE_VERSION + 1} is newer than {WIRE_VERSION}"):
        codec.decode(newer)


def test_one_newer_envelope_refuses_the_whole_batch() -> None:
    """A batch is taken whole or not at all."""
    (plain,) = msgspec.msgpack.decode(golden("message cancel"))
    with pytest.raises(codec.WireError, match="newer"):
        codec.decode(msgspec.msgpack.encode([plain, plain | {"v": WIRE_VERSION + 1}]))


def _read(name: str, body: bytes) -> engine.ToEngine | engine.FromEngine:
    to_engine = isinstance(ENGINE[name], engine.ToEngine)
    return engine.read_to_engine(body) if to_engine else engine.read_from_engine(body)


# Dictionaries that hold what users named: more keys in them would be more data, not unknown fields.
FREE = {"input", "output", "options", "packs", "tiers", "models", "calibrations", "weights", "labels", "patterns"}
FREE |= {"schema", "fields", "output_schema", "choose", "steps", "signals", "budget_left", "about", "adapters"}
FREE |= {"equals"}


def _with_more(value: Any, key: str = "") -> Any:
    match value:
        case dict() if key in FREE:
            return {k: _with_more(v) if isinstance(v, dict) and _is_struct(key) else v for k, v in value.items()}
        case dict():
            return {**{k: _with_more(v, k) for k, v in value.items()}, "a field from the future": {"x": [1]}}
        case list():
            return [_with_more(v, key) for v in value]
        case _:
            return value


def _is_struct(key: str) -> bool:
    return key in {"packs", "models", "calibrations", "steps", "adapters"}
