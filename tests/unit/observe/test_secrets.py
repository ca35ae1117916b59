"""Secrets are cut out of a text by their look, or because the environment holds them; the rest of it stays."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from swarm.observe import secrets

PASSWORD = 'p4ss "wörd"/77'


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", PASSWORD)
    monkeypatch.setattr(secrets, "_named", set())


@pytest.mark.parametrize(
    "written",
    [PASSWORD, json.dumps(PASSWORD)[1:-1], repr(PASSWORD)[1:-1], quote(PASSWORD, safe=""),
     base64.b64encode(PASSWORD.encode()).decode()],
)  # fmt: skip
def test_value_of_a_secret_variable_is_cut_out_in_every_spelling(written: str) -> None:
    """As it is, and as JSON, Python, an address or a header writes it."""
    assert secrets.cleaned(f"login {written} failed") == "login [redacted] failed"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("sent sk-abcdefgh12345678.", "sent [redacted]."),
        ("Authorization: Bearer abc, then", "Authorization: [redacted], then"),
        ("Basic dXNlcjpwYXNz was wrong", "[redacted] was wrong"),
        ("postgresql://shop:hunter2@db/x refused", "postgresql://shop:[redacted]@db/x refused"),
        ('{"api_key": "0123456789"}', '{"api_key": "[redacted]"}'),
        ("?token=0123456789&x=1", "?token=[redacted]&x=1"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_-1", "[redacted]"),
        ("ghp_0123456789abcdefABCD", "[redacted]"),
    ],
)
def test_what_looks_like_a_secret_is_cut_out(text: str, left: str) -> None:
    """Keys of known makes, what follows the name of one, and the password in an address."""
    assert secrets.cleaned(text) == left


@pytest.mark.parametrize(
    "text",
    ["the token count is missing", "max_tokens: 100000000", "https://a.example:8080/x@y", "write api_key: ${env:NAME}",
     "a basic question", "secret: [redacted]", "no key in the environment variable SHOP_PASSWORD", "token: 12"],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    """Words about secrets are none, and what is cleaned already stays as it is."""
    assert secrets.cleaned(text) == text


def test_variable_that_a_swarm_file_names_holds_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is called."""
    monkeypatch.setenv("OUR_MODEL_ACCESS", "planted-123")
    assert secrets.cleaned("planted-123") == "planted-123"
    secrets.name_secret("OUR_MODEL_ACCESS")
    assert secrets.cleaned("planted-123") == "[redacted]"


def test_secret_that_was_cut_off_is_found_too() -> None:
    """The first letters of a secret at the end of a text that was shortened give it away as well."""
    assert secrets.cleaned(f"failed: {PASSWORD[:10]}") == "failed: [redacted]"
    assert secrets.cleaned(f"failed: '{PASSWORD[:10]}…'").startswith("failed: '[redacted]")


def test_data_lose_only_what_the_environment_holds() -> None:
    """An answer may hold what looks like a secret, as it may be about one."""
    data = {"text": f"it is {PASSWORD}", "list": [PASSWORD, 1, None], PASSWORD: {"example": "sk-abcdefgh12345678"}}
    assert secrets.unheld(data) == {
        "text": "it is [redacted]", "list": ["[redacted]", 1, None], "[redacted]": {"example": "sk-abcdefgh12345678"},
    }  # fmt: skip
