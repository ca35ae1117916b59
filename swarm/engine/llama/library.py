"""llama.cpp as a library: started once a process, its chatter turned into debug events."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import llama_cpp
import structlog

log = structlog.get_logger(__name__)

_WARNING = 3  # GGML_LOG_LEVEL_WARN; DEBUG is 1, INFO 2, ERROR 4, CONT 5
_ERROR = 4

_started = threading.Lock()
_callback: Any = None  # ctypes keeps no reference to a callback: without this one it would be freed while in use
_last_errors: deque[str] = deque(maxlen=4)


def start() -> None:
    """Initialise llama.cpp and take over its log. Later calls do nothing."""
    global _callback
    with _started:
        if _callback is not None:
            return
        _callback = llama_cpp.llama_log_callback(_on_log)
        llama_cpp.llama_log_set(_callback, None)
        llama_cpp.llama_backend_init()


def last_errors() -> str:
    """The last error lines of llama.cpp, joined, and forget them. Empty when it has not complained."""
    lines = "; ".join(_last_errors)
    _last_errors.clear()
    return lines


def _on_log(level: int, text: bytes, _user_data: object) -> None:
    """Loading a model writes a thousand lines of information: only warnings and errors are worth an event."""
    if level not in (_WARNING, _ERROR):
        return
    line = text.decode("utf-8", "replace").strip()
    if level == _ERROR:
        _last_errors.append(line)
    log.debug("llama.log", error=level == _ERROR, line=line)
