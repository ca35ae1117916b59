"""What a host and the process of one of its engines say to each other, and how it lies in the pipe.

A frame is 4 bytes that every frame begins with, the length of its body as 4 bytes (little-endian), and the body: one
message as MessagePack. A message says which work it is about by the number that the host gave to it.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

from protocols.work import EngineSpec, EngineStatistics, Generated, GenerateRequest, Scored, ScoreRequest

MAX_FRAME_BYTES = 32 * 1024 * 1024

_MARK = b"eng1"
_HEAD = struct.Struct("<4sI")

ErrorKind = Literal[
    "prompt_too_long",
    "schema_unsupported",
    "out_of_time",
    "closed",
    "engine",  # any other failure of an engine
    "model_not_found",
    "model_damaged",
    "model",
    "value",  # the request or the spec makes no sense
    "bug",
]


class OpenEngine(msgspec.Struct, frozen=True, tag="open"):
    """The first message: load this model. Answered by `Opened`, or by `Refused` and the end of the process."""

    spec: EngineSpec


class Score(msgspec.Struct, frozen=True, tag="score"):
    """Answered by `ScoreDone` or `Refused`."""

    id: int
    request: ScoreRequest


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """Answered by `GenerateDone` or `Refused`."""

    id: int
    request: GenerateRequest


class Candidates(msgspec.Struct, frozen=True, tag="candidates"):
    """`n` texts after one prompt. Answered by `CandidatesDone` or `Refused`."""

    id: int
    request: GenerateRequest
    n: int


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """Nobody waits for this work any longer. Not answered."""

    id: int


class CloseEngine(msgspec.Struct, frozen=True, tag="close"):
    """Free the model and end. Not answered."""


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The model is loaded and has decoded its first token."""


class ScoreDone(msgspec.Struct, frozen=True, tag="score_done"):
    id: int
    result: Scored


class GenerateDone(msgspec.Struct, frozen=True, tag="generate_done"):
    id: int
    result: Generated


class CandidatesDone(msgspec.Struct, frozen=True, tag="candidates_done"):
    id: int
    results: tuple[Generated, ...]


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The work failed with an error of this kind. Without `id`: the engine could not be opened."""

    kind: ErrorKind
    text: str
    id: int | None = None


class Statistics(msgspec.Struct, frozen=True, tag="statistics"):
    """Sent before the results of a step, and a few times a second while there is something new."""

    statistics: EngineStatistics


class Logged(msgspec.Struct, frozen=True, tag="logged"):
    """Something for the host's log. `fields` are shown as they are."""

    level: Literal["info", "warning", "error", "critical"]
    event: str
    fields: dict[str, str] = {}


ToEngine = OpenEngine | Score | Generate | Candidates | Drop | CloseEngine
FromEngine = Opened | ScoreDone | GenerateDone | CandidatesDone | Refused | Statistics | Logged


class FrameError(ValueError):
    """The bytes are no frames, a frame is no message, or a message cannot be put into one."""


class FrameTooLarge(FrameError):
    """The message has more than `MAX_FRAME_BYTES`."""


_encoder = msgspec.msgpack.Encoder()
_to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
_from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


def frame(message: ToEngine | FromEngine) -> bytes:
    """The message as a frame. Raises `FrameTooLarge`, and `FrameError` for what MessagePack cannot carry."""
    try:
        body = _encoder.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as e:
        raise FrameError(f"the message cannot be written as MessagePack: {e}") from e
    if len(body) > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"{len(body):,} bytes are over the limit of {MAX_FRAME_BYTES:,} for one message")
    return _HEAD.pack(_MARK, len(body)) + body


class Frames:
    """Cuts a stream of bytes into the bodies of its frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete now. Raises `FrameError` for what is no frame, as soon as its head is there."""
        self._bytes += data
        bodies = []
        start = 0
        while len(self._bytes) - start >= _HEAD.size:
            mark, size = _HEAD.unpack_from(self._bytes, start)
            if mark != _MARK:
                raise FrameError(f"a frame begins with {mark!r}")
            if size > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {size:,} bytes is over the limit of {MAX_FRAME_BYTES:,}")
            end = start + _HEAD.size + size
            if end > len(self._bytes):
                break
            bodies.append(bytes(self._bytes[start + _HEAD.size : end]))
            start = end
        del self._bytes[:start]
        return bodies


def read_to_engine(body: bytes) -> ToEngine:
    """Raises `FrameError`."""
    try:
        return _to_engine.decode(body)
    except (ValueError, TypeError, OverflowError, RecursionError) as e:
        raise FrameError(f"not a message to an engine: {e}") from e


def read_from_engine(body: bytes) -> FromEngine:
    """Raises `FrameError`."""
    try:
        return _from_engine.decode(body)
    except (ValueError, TypeError, OverflowError, RecursionError) as e:
        raise FrameError(f"not a message of an engine: {e}") from e
