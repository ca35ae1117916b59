"""Envelopes to bytes and back: MessagePack, many envelopes in one buffer, size checked before decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from protocols.envelope import WIRE_VERSION, Envelope
from protocols.values import more_than

MAX_BATCH_BYTES = 32 * 1024 * 1024
MAX_VALUES = 4_000_000  # of a batch: in memory, an empty list of one byte takes some seventy

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Envelope])


class WireError(ValueError):
    """The bytes are no batch of envelopes that this program understands, or the envelopes cannot become bytes."""


def encode(batch: Sequence[Envelope]) -> bytes:
    """A batch of envelopes as MessagePack. Raises `WireError` above `MAX_BATCH_BYTES`, and for what it cannot carry."""
    try:
        data = _encoder.encode(batch)
    except (TypeError, ValueError, OverflowError, RecursionError) as e:
        raise WireError(f"cannot be written as MessagePack: {_said(e)}") from e
    if len(data) > MAX_BATCH_BYTES:
        raise WireError(
            f"a batch of {len(data):,} bytes is over the limit of {MAX_BATCH_BYTES:,}; send fewer messages at once"
        )
    return data


def decode(data: bytes) -> list[Envelope]:
    """The envelopes in `data`. Raises `WireError` for too many bytes, damaged bytes, or a newer wire version."""
    if len(data) > MAX_BATCH_BYTES:
        raise WireError(f"a batch of {len(data):,} bytes is over the limit of {MAX_BATCH_BYTES:,}; it was not decoded")
    data = _few(data)
    try:
        batch = _decoder.decode(data)
    except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError) as e:
        raise WireError(f"not a batch of envelopes: {_said(e)}") from e
    for envelope in batch:
        if envelope.v > WIRE_VERSION:
            raise WireError(f"wire version {envelope.v} is newer than {WIRE_VERSION}; upgrade this side")
    return batch


def pack(value: object) -> bytes:
    """One struct of `protocols` as MessagePack, for a call whose other end knows what to expect. Raises `WireError`."""
    try:
        data = msgspec.msgpack.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as e:
        raise WireError(f"cannot be written as MessagePack: {_said(e)}") from e
    return _capped(data)


def unpack(data: bytes, kind: type[T]) -> T:
    """What `pack` made of a `kind`. Raises `WireError` for too many bytes or damaged ones."""
    data = _few(_capped(data))
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError) as e:
        raise WireError(f"not a {kind.__name__}: {_said(e)}") from e


def _capped(data: bytes) -> bytes:
    if len(data) > MAX_BATCH_BYTES:
        raise WireError(f"a message of {len(data):,} bytes is over the limit of {MAX_BATCH_BYTES:,}")
    return data


def _few(data: bytes) -> bytes:
    if len(data) > MAX_VALUES and more_than(MAX_VALUES, data):
        raise WireError(f"more than {MAX_VALUES:,} values in one batch; send fewer or smaller messages at once")
    return data


def _said(e: Exception) -> str:
    """What is wrong, without all of a message that it may repeat."""
    text = str(e)
    return text if len(text) <= 300 else text[:299] + "…"
