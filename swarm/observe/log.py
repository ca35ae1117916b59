"""Logs with structlog: readable lines on a terminal, JSON where a machine reads them; secrets never."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

import structlog

from swarm.observe import secrets
from swarm.observe.secrets import HIDDEN

LEVELS = ("debug", "info", "warning", "error")
_DEEPEST = 8  # levels of a field that are looked through one by one


def _bound(*names: str) -> list[ContextVar[Any]]:
    """structlog's own variables of these names."""
    tokens = structlog.contextvars.bind_contextvars(**dict.fromkeys(names, ""))
    structlog.contextvars.reset_contextvars(**tokens)
    return [tokens[name].var for name in names]


TASK_ID, STEP, TIER = _bound("task_id", "step", "tier")
"""What the work at hand is done for: `merge_contextvars` puts it into every line. To set them is five times cheaper
than `bind_contextvars`."""


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
    """Hide what is named like a secret, looks like one, or is held as one by the environment (`observe.secrets`)."""
    held = secrets.known()
    return {k: _hidden(k, v, held) for k, v in event.items()}


def _hidden(name: Any, value: Any, held: list[str], depth: int = 0) -> Any:
    match value:
        case None:
            return None
        case _ if isinstance(name, str) and secrets.NAME.search(name):
            return HIDDEN
        case bool() | int() | float():
            return value
        case str():
            return secrets.cleaned(value, held)
        case dict() if depth < _DEEPEST:
            return {_name(k, held): _hidden(k, v, held, depth + 1) for k, v in value.items()}
        case list() | tuple() if depth < _DEEPEST:
            return [_hidden(None, v, held, depth + 1) for v in value]
        case _:
            return _shown(value, held)


def _name(key: Any, held: list[str]) -> Any:
    return secrets.cleaned(key, held) if isinstance(key, str) else key


def _shown(value: Any, held: list[str]) -> Any:
    """`value` where its `repr` holds no secret, else that text without it. A log line fails for no value."""
    try:
        shown = repr(value)
    except Exception as e:
        return f"<{type(value).__name__}, whose repr raises {type(e).__name__}>"
    cleaned = secrets.cleaned(shown, held)
    return cleaned if cleaned != shown or isinstance(value, dict | list | tuple) else value
