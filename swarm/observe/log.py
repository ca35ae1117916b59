"""Logs with structlog: readable lines on a terminal, JSON where a machine reads them; secrets never."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET_NAME = re.compile(
    r"((api|access|private|secret)[_-]?key|token|secret|passw(or)?d|credentials?|authorization)$", re.IGNORECASE
)
_SECRET_VALUE = re.compile(r"\b(sk-[A-Za-z0-9_-]{8,}|Bearer\s+\S+)")
HIDDEN = "[redacted]"
LEVELS = ("debug", "info", "warning", "error")


def configure(*, json: bool = False, level: str = "warning") -> None:
    """Log to stderr from `level` on, as lines for people or, with `json`, as one JSON object a line."""
    renderer: Any
    if json:
        renderer = structlog.processors.JSONRenderer()
    else:
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,  # before redaction: messages of errors hold secrets too
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def configure_if_nobody_has() -> None:
    """Warnings only, unless the program that uses this library has set up structlog itself."""
    if not structlog.is_configured():
        configure()


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide what is named like a secret, looks like one, or is the value of an environment variable named like one."""
    known = [v for k, v in os.environ.items() if _SECRET_NAME.search(k) and len(v) >= 8]
    return {k: _hidden(k, v, known) for k, v in event.items()}


def _hidden(name: Any, value: Any, known: list[str]) -> Any:
    match value:
        case None:
            return None
        case _ if isinstance(name, str) and _SECRET_NAME.search(name):
            return HIDDEN
        case bool() | int() | float():
            return value
        case str():
            return _cleaned(value, known)
        case dict():
            return {k: _hidden(k, v, known) for k, v in value.items()}
        case list() | tuple():
            return [_hidden(None, v, known) for v in value]
        case _:
            shown = repr(value)
            cleaned = _cleaned(shown, known)
            return cleaned if cleaned != shown else value


def _cleaned(text: str, known: list[str]) -> str:
    for secret in known:
        text = text.replace(secret, HIDDEN)
    return _SECRET_VALUE.sub(HIDDEN, text)
