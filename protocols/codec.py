"""Envelopes to bytes and back: MessagePack, many envelopes in one buffer, size checked before decoding."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from protocols.envelope import WIRE_VERSION, Envelope

MAX_BATCH_BYTES = 32 * 1024 * 1024

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Envelope])


class WireError(ValueError):
    """The bytes are no batch of envelopes that this program understands, or the envelopes cannot become bytes."""


def encode(batch: Sequence[Envelope]) -> bytes:
    """A batch of envelopes as MessagePack. Raises `WireError` above `MAX_BATCH_BYTES`, and for what it cannot carry."""
    try:
        data = _encoder.encode(batch)
    except (TypeError, ValueError, OverflowError, RecursionError) as e:
        raise WireError(f"cannot be written as MessagePack: {e}") from e
    if len(data) > MAX_BATCH_BYTES:
        raise WireError(
            f"a batch of {len(data):,} bytes is over the limit of {MAX_BATCH_BYTES:,}; send fewer messages at once"
        )
    return data


def decode(data: bytes) -> list[Envelope]:
    """The envelopes in `data`. Raises `WireError` for too many bytes, damaged bytes, or a newer wire version."""
    if len(data) > MAX_BATCH_BYTES:
        raise WireError(f"a batch of {len(data):,} bytes is over the limit of {MAX_BATCH_BYTES:,}; it was not decoded")
    try:
        batch = _decoder.decode(data)
    except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError) as e:
        raise WireError(f"not a batch of envelopes: {e}") from e
    for envelope in batch:
        if envelope.v > WIRE_VERSION:
            raise WireError(f"wire version {envelope.v} is newer than {WIRE_VERSION}; upgrade this side")
    return batch
