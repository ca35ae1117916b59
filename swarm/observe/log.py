"""Logs with structlog: readable lines on a terminal, JSON where a machine reads them; secrets never."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET_NAME = re.compile(r"(api[_-]?key|token|secret|password|authorization)$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\b(sk-[A-Za-z0-9_-]{8,}|Bearer\s+\S+)")
HIDDEN = "[redacted]"
LEVELS = ("debug", "info", "warning", "error")


def configure(*, json: bool = False, level: str = "warning") -> None:
    """Log to stderr from `level` on, as lines for people or, with `json`, as one JSON object a line."""
    renderer: Any
    if json:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide what is named like a secret, looks like one, or is the value of an environment variable named like one."""
    known = [v for k, v in os.environ.items() if _SECRET_NAME.search(k) and len(v) >= 8]
    return {k: HIDDEN if _SECRET_NAME.search(k) else _hidden(v, known) for k, v in event.items()}


def _hidden(value: Any, known: list[str]) -> Any:
    if isinstance(value, str):
        for secret in known:
            value = value.replace(secret, HIDDEN)
        return _SECRET_VALUE.sub(HIDDEN, value)
    if isinstance(value, dict):
        return {k: _hidden(v, known) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(v, known) for v in value]
    return value
