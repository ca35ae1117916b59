"""The small types of a swarm file: each turns one YAML value into one Python value, or says what was expected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, PlainValidator, Strict, WithJsonSchema
from pydantic_core import PydanticCustomError

from swarm.config.problems import show
from swarm.errors import quote

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_PASSWORD = re.compile(r"//[^/?@]*:[^/?]*@|[?&]password=", re.IGNORECASE)  # in a server's address
_ENV = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_MEMORY = re.compile(r"([0-9]{1,9})(MiB|GiB)")
_TIMES = {"ms": 0.001, "s": 1, "sec": 1, "seconds": 1, "m": 60, "min": 60, "minutes": 60, "h": 3600, "hours": 3600}
_MONEY = {"cent": "0.01", "cents": "0.01", "c": "0.01", "usd": "1", "dollar": "1", "dollars": "1", "$": "1"}
_QUANTITY = re.compile(r"(\$?)\s*([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([A-Za-z]*)")

CODE, PERSON = "code", "person"
BUILT_IN_TIERS = (CODE, PERSON)
RESERVED_STEPS = ("input", "env")


@dataclass(frozen=True, slots=True)
class EnvRef:
    """A secret by the name of its environment variable. The value is read where it is used, never here."""

    name: str


def wrong(text: str) -> PydanticCustomError:
    """A validation error that says exactly `text`."""
    return PydanticCustomError("wrong", "{text}", {"text": text})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _usd(value: Any) -> Decimal:
    if not _is_number(value):
        raise wrong(f"expected US dollars as a plain number, got {show(value)}{_in_unit(value, _MONEY)}")
    if value < 0:
        raise wrong(f"must not be negative, got {value}")
    if value > 1e9:
        raise wrong(f"is more than a billion dollars, got {value}")
    return Decimal(str(value))


def _seconds(value: Any) -> float:
    if not _is_number(value):
        raise wrong(f"expected seconds as a plain number, got {show(value)}{_in_unit(value, _TIMES)}")
    if not 0.001 <= value <= 31_536_000:
        raise wrong(f"must be more than 0 and at most a year (in seconds), got {value}")
    return float(value)


def _in_unit(value: Any, units: dict[str, Any]) -> str:
    """`; write 600` for the text `10m`, when that can be told."""
    found = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    factor = units.get((found[1] or found[3]).lower(), "1" if not found[3] else None) if found else None
    return f"; write {float(Decimal(found[2]) * Decimal(str(factor))):g}" if found and factor else ""


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            plain = f"; write {value}" if isinstance(value, str) and value.isascii() and value.isdigit() else ""
            raise wrong(f"expected a whole number, got {show(value)}{plain}")
        if not least <= value <= most:
            raise wrong(f"must be {least:,} to {most:,}, got {value:,}")
        return value

    return check


def _share(value: Any) -> float:
    if not _is_number(value):
        raise wrong(f"expected a number from 0 to 1, got {show(value)}")
    if not (0 <= value <= 1 and math.isfinite(value)):
        raise wrong(f"must be from 0 to 1, got {value}")
    return float(value)


def _open_share(value: Any) -> float:
    share = _share(value)
    if share in (0.0, 1.0):
        raise wrong(f"must be more than 0 and less than 1, got {value}")
    return share


def _memory(value: Any) -> int:
    found = _MEMORY.fullmatch(value) if isinstance(value, str) else None
    if not found or int(found[1]) == 0:
        raise wrong(f"expected a size such as 512MiB or 2GiB, got {show(value)}")
    return int(found[1]) * 1024 ** (2 if found[2] == "MiB" else 3)


def _env_ref(value: Any) -> EnvRef:
    found = _ENV.fullmatch(value) if isinstance(value, str) else None
    if not found:  # the value may be a secret: it is never shown
        raise wrong("a key does not belong in a file; put it in the environment and write ${env:NAME}")
    return EnvRef(found[1])


def _url(value: Any) -> str:
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        usable = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)
        port_is_fine = parts is None or parts.port is None or parts.port > 0
    except ValueError:
        usable = port_is_fine = False
    if parts is not None and (parts.username or parts.password):
        raise wrong("must not hold a user or password; put the key in the environment and write api_key: ${env:NAME}")
    if not (usable and port_is_fine) or re.search(r"\s", value):
        raise wrong(f"expected an http:// or https:// address, got {show(value)}")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        quoted = f"; quote it: '{value}'" if isinstance(value, int | float) and not isinstance(value, bool) else ""
        raise wrong(f"expected text, got {show(value)}{quoted}")
    if not value.strip():
        raise wrong("must not be empty")
    return value


def _relative_path(value: Any) -> str:
    text = _text(value)
    if text.startswith(("/", "~")) or "\\" in text or "\0" in text or re.match(r"[A-Za-z]:", text):
        raise wrong(f"expected a relative path with '/', got {quote(text)}")
    if ".." in PurePosixPath(text).parts:
        raise wrong(f"must not lead out of its folder, got {quote(text)}; remove '..'")
    return text


def _store(value: Any) -> str | EnvRef:
    """A file, a PostgreSQL address, or the environment variable that holds either."""
    if isinstance(value, str) and (found := _ENV.fullmatch(value)):
        return EnvRef(found[1])
    if not isinstance(value, str) or not value.startswith(("postgresql://", "postgres://")):
        return _relative_path(value)
    if _PASSWORD.search(value):
        raise wrong("must not hold a password; put the whole address in the environment and write store: ${env:NAME}")
    return value


def _identifier(what: str, reserved: tuple[str, ...], why: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not IDENTIFIER.fullmatch(value):
            raise wrong(f"is no name for a {what}; use letters, digits, '_' and '-', at most 63, a letter first")
        if value in reserved:
            raise wrong(f"is no name for a {what}: {why}; choose another")
        return value

    return check


def _name(what: str, reserved: tuple[str, ...] = (), why: str = "") -> Any:
    schema = {"type": "string", "pattern": f"^{IDENTIFIER.pattern}$"}
    return PlainValidator(_identifier(what, reserved, why)), WithJsonSchema(schema)


def _whole_number(least: int, most: int) -> Any:
    schema = {"type": "integer", "minimum": least, "maximum": most}
    return PlainValidator(_whole(least, most)), WithJsonSchema(schema)


Usd = Annotated[Decimal, PlainValidator(_usd), WithJsonSchema({"type": "number", "minimum": 0})]
Seconds = Annotated[float, PlainValidator(_seconds), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
Share = Annotated[float, PlainValidator(_share), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]
_OPEN = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
OpenShare = Annotated[float, PlainValidator(_open_share), WithJsonSchema(_OPEN)]
Bytes = Annotated[int, PlainValidator(_memory), WithJsonSchema({"type": "string", "pattern": f"^{_MEMORY.pattern}$"})]
Env = Annotated[EnvRef, PlainValidator(_env_ref), WithJsonSchema({"type": "string", "pattern": f"^{_ENV.pattern}$"})]
Url = Annotated[str, PlainValidator(_url), WithJsonSchema({"type": "string", "pattern": "^https?://"})]
Text = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string", "minLength": 1})]
RelativePath = Annotated[str, PlainValidator(_relative_path), WithJsonSchema({"type": "string", "minLength": 1})]
StorePlace = Annotated[str | EnvRef, PlainValidator(_store), WithJsonSchema({"type": "string", "minLength": 1})]

_name_of_tier, _schema_of_tier = _name("tier", BUILT_IN_TIERS, "'code' and 'person' are built in")
_name_of_step, _schema_of_step = _name("step", RESERVED_STEPS, "it means the task's input or the environment")
_name_of_specialist, _schema_of_name = _name("specialist")
TierName = Annotated[str, _name_of_tier, _schema_of_tier]
StepName = Annotated[str, _name_of_step, _schema_of_step]
SpecialistName = Annotated[str, _name_of_specialist, _schema_of_name]

_tokens, _tokens_schema = _whole_number(1, 10**12)
_count, _count_schema = _whole_number(1, 1_000_000)
_samples, _samples_schema = _whole_number(2, 16)
_context, _context_schema = _whole_number(64, 1_048_576)
_layers, _layers_schema = _whole_number(0, 1_000)
Tokens = Annotated[int, _tokens, _tokens_schema]
Count = Annotated[int, _count, _count_schema]
Samples = Annotated[int, _samples, _samples_schema]
ContextTokens = Annotated[int, _context, _context_schema]
Layers = Annotated[int, _layers, _layers_schema]

T = TypeVar("T")
Several = Annotated[tuple[T, ...], Strict(False), Field(min_length=1)]  # a YAML list; strict mode would want a tuple
