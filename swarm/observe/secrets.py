"""What must not be shown or kept: it is cut out of a text by its look, or because the environment holds it."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

HIDDEN = "[redacted]"

NAME = re.compile(
    r"((api|access|private|secret)[_-]?key|token|secret|passw(or)?d|credentials?|authorization)$", re.IGNORECASE
)
_VARIABLE = re.compile(r"((^|[_-])(api)?key|pass(phrase)?|pwd|dsn|cookie)$", re.IGNORECASE)  # too common for a field
_SHORTEST = 8  # characters of a secret; what is shorter would make holes in everything
_LOOKS = re.compile(
    r"\b(sk-[A-Za-z0-9_-]{8,}"  # OpenAI, Anthropic, OpenRouter
    r"|(?:ghp|gho|ghs|hf|glpat|xox[a-z]|AKIA|AIza)[A-Za-z0-9_-]{16,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # a JSON web token
    r"|Bearer\s+[^\s\"',}\]]+|Basic\s+(?=\S*[A-Z0-9=+/])[^\s\"',}\]]{6,})"
)
_IN_ADDRESS = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_AFTER_NAME = re.compile(
    r"((?:api|access|private|secret)[_-]?key|passw(?:or)?d|secret|token)(\\?[\"']?\s*[:=]\s*\\?[\"']?)"
    r"(?!\$\{|\[)([^\s\"'\\,;&}\])]{8,})",
    re.IGNORECASE,
)

_named: set[str] = set()


def name_secret(variable: str) -> None:
    """From now on the value of this environment variable is a secret, whatever the variable is called."""
    _named.add(variable)


def known() -> list[str]:
    """What this process's environment holds of secrets, as they may stand in a text, the longest first."""
    held = {v for k, v in os.environ.items() if k in _named or NAME.search(k) or _VARIABLE.search(k)}
    forms = {form for value in held if len(value.strip()) >= _SHORTEST for form in _forms(value.strip())}
    return sorted(forms, key=len, reverse=True)


def cleaned(text: str, secrets: list[str] | None = None) -> str:
    """`text` without secrets. `secrets`: what `known()` has said, for who cleans much at once."""
    for secret in known() if secrets is None else secrets:
        text = text.replace(secret, HIDDEN) if secret in text else _without_start(text, secret)
    text = _LOOKS.sub(HIDDEN, text)
    text = _IN_ADDRESS.sub(rf"\1{HIDDEN}@", text)
    return _AFTER_NAME.sub(rf"\1\2{HIDDEN}", text) if ":" in text or "=" in text else text


def unheld(value: Any, secrets: list[str] | None = None) -> Any:
    """`value`, plain data, without what the environment holds; what only looks like a secret may be data, and stays."""
    held = known() if secrets is None else secrets
    match value:
        case str():
            for secret in held:
                value = value.replace(secret, HIDDEN)
            return value
        case dict():
            return {unheld(k, held): unheld(v, held) for k, v in value.items()}
        case list():
            return [unheld(v, held) for v in value]
        case _:
            return value


def _forms(secret: str) -> Iterator[str]:
    """As it is, and as JSON, Python, an address or a header would write it."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    yield quote(secret, safe="")
    yield base64.b64encode(secret.encode(errors="surrogateescape")).decode()


def _without_start(text: str, secret: str) -> str:
    """Without the first part of `secret`, where `text` was cut off in it."""
    shown = text.rstrip("….'\"")
    start = shown.rfind(secret[:_SHORTEST])
    return shown[:start] + HIDDEN if start >= 0 and secret.startswith(shown[start:]) else text
