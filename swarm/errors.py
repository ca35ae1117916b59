"""Every error a user can meet, in one tree.

SwarmError
├── SwarmFileError      the swarm file is wrong: all problems at once, each with file:line:column
├── PackError           a pack in the catalogue is wrong or missing
├── ModelError          the model registry or a model file is at fault
│   ├── ModelNotFound       no such name in the registry, or its file has not been pulled
│   ├── ModelDamaged        the file is not what the registry says (hash, size) or cannot be loaded
│   └── SourceFailed        no source could deliver the file
├── EngineError         the engine could not do the work
│   ├── PromptTooLong       the prompt does not fit the context
│   ├── SchemaUnsupported   the JSON Schema cannot be used as a constraint
│   ├── OutOfTime           the request's time was up before its work was done
│   ├── EngineCrashed       the engine's process died; it was started again, asking again may help
│   └── EngineClosed        the engine was closed while work was waiting
├── RemoteError         a remote tier did not answer properly
├── CalibrationError    the file of what labels have taught cannot be read, written or used
├── StoreError          the store cannot be read or written
│   └── KeyConflict         an idempotency key came again with other content
├── Overloaded          too many callers wait; it says when to come back
└── LaunchError         the hosts could not be started

Three more stand beside what raises them: `HostLost` (swarm.bus.base), `MissingInput` (swarm.plan) and `RecordExists`
(swarm.state.records); `WireError` (protocols.codec) is a `ValueError`, as protocols know nothing of this package.

Errors cross process boundaries, so they survive pickling: every argument goes to `super().__init__`.
A failed attempt or a refused hold is no error but a value (`protocols.answers.Failed`).
"""

from __future__ import annotations

import json


class SwarmError(Exception):
    """Base of everything this package raises on purpose."""


class SwarmFileError(SwarmError):
    """The swarm file has problems; `problems` holds one line for each, as a person should read it."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class PackError(SwarmError):
    """A pack is missing or does not hold what it must."""


class ModelError(SwarmError):
    """Base of what can be wrong with a model."""


class ModelNotFound(ModelError):
    """The registry has no such model, or its file is not on this machine."""


class ModelDamaged(ModelError):
    """The file is not the one the registry names, or the library cannot load it."""


class SourceFailed(ModelError):
    """None of a model's sources could deliver its file."""


class EngineError(SwarmError):
    """Base of what an engine may answer instead of a result."""


class PromptTooLong(EngineError):
    """The prompt and the room for its answer do not fit the context."""


class SchemaUnsupported(EngineError):
    """The schema has a keyword or a size that cannot be enforced while decoding."""


class OutOfTime(EngineError):
    """The request's `left_s` had passed before its work was done."""


class EngineCrashed(EngineError):
    """The engine's process died while it had this work. Asking again may help: the engine was started anew."""


class EngineClosed(EngineError):
    """The engine was closed before this work was done."""


class RemoteError(SwarmError):
    """A remote tier failed. `unknown` is true when it may have been billed all the same.

    `retry_ms`: the pause that it asks for before it is asked again.
    """

    def __init__(
        self, message: str, retryable: bool = False, unknown: bool = False, retry_ms: int | None = None
    ) -> None:
        super().__init__(message, retryable, unknown, retry_ms)
        self.retryable = retryable
        self.unknown = unknown
        self.retry_ms = retry_ms

    def __str__(self) -> str:
        return str(self.args[0])


class CalibrationError(SwarmError):
    """The calibration file, or the labelled items it is made of, cannot be used."""


class StoreError(SwarmError):
    """The store cannot be opened, read or written. Nothing paid is started while this lasts."""


class KeyConflict(StoreError):
    """This key stood for something else before. Nothing was booked; a new attempt needs a new key."""


class Overloaded(SwarmError):
    """Too many tasks wait already, so this one was not taken: come back in `retry_s` seconds."""

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__(message, retry_s)
        self.retry_s = retry_s

    def __str__(self) -> str:
        return str(self.args[0])


class LaunchError(SwarmError):
    """The runtime could not start or reach its hosts."""


def quote(text: str) -> str:
    """`text` in single quotes on one line, cut at 60 characters, control characters escaped."""
    cut = text if len(text) <= 60 else text[:59] + "…"
    return "'" + json.dumps(cut, ensure_ascii=False)[1:-1].replace('\\"', '"') + "'"
