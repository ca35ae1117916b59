"""Logs are lines for people or JSON for machines, on stderr, and never a secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from swarm.observe import log as observed

KEY = "sk-proj-Abc123Def456Ghi789"
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _own_configuration(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SHOP_PASSWORD", PASSWORD)
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def logged(capsys: pytest.CaptureFixture[str], *, json: bool = True, **fields: Any) -> str:
    """What one event with these fields looks like on stderr."""
    observed.configure(json=json, level="debug")
    structlog.get_logger("test").info("it.happened", **fields)
    out, err = capsys.readouterr()
    assert out == ""
    return err


@dataclass
class Settings:
    """Something with a secret in its repr."""

    url: str
    key: str


PLANTED: dict[str, dict[str, Any]] = {
    "named like one": {"api_key": "abc"},
    "named like one, in capitals": {"OPENAI_API_KEY": "abc"},
    "named at the end": {"github_token": "abc", "client_secret": "abc", "db_password": "abc", "Authorization": "abc"},
    "cloud keys": {"aws_secret_access_key": "abc", "private_key": "abc", "credentials": {"a": "abc"}},
    "looks like one": {"detail": f"refused for {KEY}."},
    "in a header": {"sent": "Authorization: Bearer abc"},
    "in the environment": {"detail": f"login as shop with {PASSWORD} failed"},
    "in a dictionary": {"headers": {"x": {"authorization": "Basic abc"}}},
    "in a list": {"sent": ["ok", ("x", f"Bearer {KEY}")]},
    "in an object": {"settings": Settings("u", KEY)},
    "in an exception": {"cause": RuntimeError(f"bad key {KEY}")},
    "in a set": {"keys": {KEY}},
}


@pytest.mark.parametrize("json", [True, False])
@pytest.mark.parametrize("where", PLANTED)
def test_no_secret_reaches_the_log(capsys: pytest.CaptureFixture[str], where: str, json: bool) -> None:
    """Wherever it is planted, it is redacted and the rest stays."""
    line = logged(capsys, json=json, **PLANTED[where], step="intent")
    for secret in ("abc", KEY, PASSWORD):
        assert secret not in line
    assert "[redacted]" in line
    assert "it.happened" in line
    assert "intent" in line


@pytest.mark.parametrize("json", [True, False])
def test_no_secret_reaches_the_log_in_a_traceback(capsys: pytest.CaptureFixture[str], json: bool) -> None:
    """The message of an exception is redacted too, and the traceback is there."""
    observed.configure(json=json, level="debug")
    try:
        raise RuntimeError(f"{KEY} or {PASSWORD} was refused")
    except RuntimeError:
        structlog.get_logger("test").exception("it.failed")
    line = capsys.readouterr().err
    assert KEY not in line
    assert PASSWORD not in line
    assert "RuntimeError: [redacted] or [redacted] was refused" in line
    assert "test_log.py" in line


def test_no_secret_is_said_as_the_event_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Also the sentence that somebody logged instead of an event."""
    observed.configure(json=True, level="debug")
    structlog.get_logger("test").warning(f"using {KEY}")
    assert KEY not in capsys.readouterr().err


def test_what_is_no_secret_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers, nothing, and words that only sound like one."""
    fields: dict[str, Any] = {
        "tokens": 12,
        "tokens_in": 3,
        "p": 0.25,
        "ok": True,
        "none": None,
        "token_budget": 5,
        "task": "t-1",
    }
    assert fields.items() <= json.loads(logged(capsys, **fields)).items()


def test_a_short_value_of_a_secret_variable_hides_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token `x` must not turn every x into a hole."""
    monkeypatch.setenv("TEST_TOKEN", "x")
    assert json.loads(logged(capsys, detail="six boxes"))["detail"] == "six boxes"


def test_json_lines_hold_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, with level, time in UTC, and what was bound once."""
    observed.configure(json=True, level="info")
    bound = structlog.get_logger("test").bind(task_id="t-1")
    bound.debug("not.shown")
    bound.info("step.escalated", step="intent")
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["event"], said["level"], said["task_id"], said["step"]) == (
        "step.escalated", "info", "t-1", "intent",
    )  # fmt: skip
    assert said["timestamp"].endswith("Z")


@pytest.mark.parametrize("level", observed.LEVELS)
def test_events_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str], level: str) -> None:
    """From the level on, and not before."""
    observed.configure(json=True, level=level)
    for name in observed.LEVELS:
        getattr(structlog.get_logger("test"), name)("it.happened")
    shown = [json.loads(line)["level"] for line in capsys.readouterr().err.splitlines()]
    assert shown == list(observed.LEVELS[observed.LEVELS.index(level) :])


def test_a_program_that_has_set_up_its_logs_keeps_them(capsys: pytest.CaptureFixture[str]) -> None:
    """The library sets up its own only where nobody has; it is quiet below warnings then."""
    observed.configure(json=True, level="debug")
    observed.configure_if_nobody_has()
    structlog.get_logger("test").debug("it.happened")
    assert json.loads(capsys.readouterr().err)["event"] == "it.happened"
    structlog.reset_defaults()
    observed.configure_if_nobody_has()
    structlog.get_logger("test").info("not.shown")
    assert capsys.readouterr().err == ""
