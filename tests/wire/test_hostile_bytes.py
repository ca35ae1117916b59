"""Whatever comes in is messages or a typed error, and nothing large or deep is looked into first."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hostile import decoded as fate
from hostile import wire_messages
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import BODIES, ENGINE, envelope

from protocols import codec, engine
from protocols.answers import Answer, Ask, Earlier, Failed, Signals, Usage
from protocols.envelope import Envelope
from protocols.values import more_than
from protocols.work import GenerateRequest, Prompt, Turn

GOOD = [codec.encode([envelope(name)]) for name in BODIES]
BATCH = codec.encode([envelope(name) for name in BODIES])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=8), json_values, max_size=4)
shares = st.none() | st.floats(0, 1)
signals = st.builds(Signals, p=shares, margin=shares, agreement=shares, checks_failed=st.just(("c",)) | st.just(()))
counts = st.integers(0, 2**40)
usage = st.builds(Usage, tokens_in=counts, tokens_out=counts, ms=counts, micro_usd=counts)
asks = st.builds(
    Ask, id=st.text(), task=st.text(), step=st.text(), specialist=st.text(), tier=st.text(), input=objects,
    max_tokens=counts, left_ms=st.none() | counts,
    earlier=st.lists(st.builds(Earlier, st.text(), objects, signals), max_size=2).map(tuple),
)  # fmt: skip
answers = st.builds(Answer, id=st.text(), output=objects, signals=signals, usage=usage, host=st.text())
failures = st.builds(
    Failed, id=st.text(), reason=st.sampled_from(["timeout", "error", "overloaded"]), detail=st.text(),
    retryable=st.booleans(), unknown=st.booleans(), signals=signals, usage=usage, host=st.text(),
)  # fmt: skip
envelopes = st.builds(
    Envelope, to=st.text(), sender=st.text(), body=asks | answers | failures, delivery=st.integers(1, 9)
)


def decoded(data: bytes) -> list[Envelope] | None:
    """The envelopes, or None for a `WireError`; anything else is a failure of the test."""
    try:
        batch = codec.decode(data)
    except codec.WireError:
        return None
    assert all(isinstance(envelope, Envelope) for envelope in batch)
    return batch


@given(st.lists(envelopes, max_size=4))
def test_what_is_sent_arrives(batch: list[Envelope]) -> None:
    """Any asks and answers come out as they went in."""
    assert codec.decode(codec.encode(batch)) == batch


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_understood(data: bytes) -> None:
    """Noise raises nothing but `WireError`."""
    decoded(data)


@given(json_values | st.lists(objects, max_size=3))
def test_any_other_messagepack_is_refused_or_understood(value: object) -> None:
    """Well-formed MessagePack that is no batch of envelopes raises nothing but `WireError`."""
    assert decoded(msgspec.msgpack.encode(value)) in (None, [])


@given(st.sampled_from([*GOOD, BATCH]), st.data())
def test_damaged_messages_are_refused_or_understood(good: bytes, data: st.DataObject) -> None:
    """Bytes flipped, cut out, doubled or put in raise nothing but `WireError`."""
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(damaged) - 1)))
        match data.draw(st.sampled_from(["flip", "cut", "double", "insert", "end"])):
            case "flip" if damaged:
                damaged[place] ^= data.draw(st.integers(1, 255))
            case "cut":
                del damaged[place : place + data.draw(st.integers(1, 20))]
            case "double":
                damaged[place:place] = damaged[place : place + 20]
            case "insert":
                damaged[place:place] = data.draw(st.binary(min_size=1, max_size=8))
            case _:
                del damaged[place:]
    decoded(bytes(damaged))


@given(wire_messages())
@settings(max_examples=60)
def test_messages_with_other_values_are_refused_or_understood(data: bytes) -> None:
    """Bulky, deep and wrong values in the fields of good messages raise nothing but a `WireError` of a few words."""
    assert fate(data) in ("fine", "refused")


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a"])
def test_deep_nesting_is_refused(opening: bytes) -> None:
    """A hundred thousand levels end in `WireError`, not in a crash, also where any value is allowed."""
    with pytest.raises(codec.WireError):
        codec.decode(opening * 100_000)
    plain = msgspec.msgpack.encode(BODIES["ask, bare"])
    deep = plain.replace(b"\xa5input\x80", b"\xa5input\x81\xa1x" + opening * 100_000 + b"\xc0")
    assert len(deep) > 100_000
    with pytest.raises(codec.WireError):
        codec.decode(b"\x91\x83\xa2to\xa1h\xa6sender\xa1d\xa4body" + deep)


def test_a_promise_of_many_elements_costs_no_memory() -> None:
    """A header that announces four thousand million elements is refused for what is not there."""
    for header in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"):
        with pytest.raises(codec.WireError):
            codec.decode(header)
        with pytest.raises(codec.WireError):
            codec.decode(b"\x91" + header)


def test_too_many_bytes_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is checked first: even bytes that are no MessagePack get the error about their size."""
    monkeypatch.setattr(codec, "MAX_BATCH_BYTES", 100)
    with pytest.raises(codec.WireError, match="101 bytes is over the limit of 100; it was not decoded"):
        codec.decode(b"\xc1" * 101)
    with pytest.raises(codec.WireError, match="not a batch"):
        codec.decode(b"\xc1" * 100)


def test_a_batch_of_too_many_values_is_refused_before_it_is_decoded() -> None:
    """A byte may become seventy in memory: values are counted without making them; text in any script is one."""
    plain = msgspec.msgpack.encode([[], {}, None, 1, -1, 300, 2**40, 1.5, "ж" * 40, "long" * 100, b"x" * 70_000])
    assert more_than(11, plain) and not more_than(12, plain)
    with pytest.raises(codec.WireError, match="more than 4,000,000 values"):
        codec.decode(b"\xdd\x00\x50\x00\x00" + b"\x90" * 0x500000)
    text = Answer(id="a", output={"x": "ж" * 3_000_000})
    (read,) = codec.decode(codec.encode([Envelope(to="d", sender="h", body=text)]))
    assert read.body == text


def test_too_large_a_batch_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender learns what is wrong and what to do."""
    monkeypatch.setattr(codec, "MAX_BATCH_BYTES", 100)
    with pytest.raises(codec.WireError, match="send fewer messages at once"):
        codec.encode([envelope("cancel")] * 10)


@pytest.mark.parametrize("value", ["\ud800", 2**64, object(), {1: object()}])
def test_what_messagepack_cannot_carry_is_a_wire_error(value: object) -> None:
    """Half a surrogate pair, too large a number or a foreign object is refused when it is sent."""
    with pytest.raises(codec.WireError):
        codec.encode([Envelope(to="h", sender="d", body=Answer(id="a", output={"x": value}))])


def test_a_message_with_a_wrong_type_inside_is_refused() -> None:
    """Decoding validates: a number where a text belongs does not get in."""
    (plain,) = msgspec.msgpack.decode(codec.encode([envelope("cancel")]))
    plain["body"]["id"] = 7
    with pytest.raises(codec.WireError, match=r"Expected `str`, got `int`.*body\.id"):
        codec.decode(msgspec.msgpack.encode([plain]))


STREAM = b"".join(map(engine.frame, ENGINE.values()))


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_frames_may_come_in_any_pieces(cuts: list[int]) -> None:
    """However the pipe cuts the stream, the same messages come out, in order."""
    frames, bodies = engine.Frames(), []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(STREAM)], strict=True):
        bodies += frames.feed(STREAM[start:end])
    assert bodies == [engine.frame(message)[8:] for message in ENGINE.values()]


@given(st.binary(min_size=4, max_size=300))
def test_what_is_no_frame_is_refused_at_its_head(noise: bytes) -> None:
    """Noise in the pipe is found by its first bytes; nobody waits for a length that it happens to name."""
    if not noise.startswith(b"eng1"):
        with pytest.raises(engine.FrameError, match="a frame begins with"):
            engine.Frames().feed(noise + bytes(4))


def test_a_frame_that_is_too_large_is_refused_before_it_has_come() -> None:
    """The length is checked when it is read, and when a message is written."""
    with pytest.raises(engine.FrameError, match="4,294,967,295 bytes is over the limit"):
        engine.Frames().feed(b"eng1" + b"\xff" * 4)
    with pytest.raises(engine.FrameTooLarge):
        engine.frame(engine.Refused("engine", "x" * engine.MAX_FRAME_BYTES))


@given(st.sampled_from([*ENGINE.values()]), st.integers(0, 10_000), st.integers(1, 255))
def test_damaged_frames_are_refused_or_understood(message: engine.FromEngine, place: int, flip: int) -> None:
    """A body with a flipped byte raises nothing but `FrameError`, on either side."""
    body = bytearray(engine.frame(message)[8:])
    body[place % len(body)] ^= flip
    for read in (engine.read_to_engine, engine.read_from_engine):
        with suppress(engine.FrameError):
            read(bytes(body))


@pytest.mark.parametrize("value", ["\ud800", 2**64, object()])
def test_a_request_that_messagepack_cannot_carry_is_a_frame_error(value: object) -> None:
    """Half a surrogate pair, too large a number or a foreign object in a schema is refused when it is sent."""
    request = GenerateRequest(Prompt((Turn("user", "?"),)), 1, schema={"const": value})
    with pytest.raises(engine.FrameError, match="cannot be written"):
        engine.frame(engine.Generate(1, request))
