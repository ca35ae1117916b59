"""A provider that is slow, endless or wants a pause: the call ends in time and says when to come back."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import openai.resources.chat.completions  # noqa: F401 - takes most of a second, more than these tests wait
import pytest
from remote_provider import Act, Provider, bomb, completion, crumbles, drips, heads, provider, refuses, says, sends

from protocols.control import ModelSpec
from swarm.engine.http import asked_to_wait_s
from swarm.engine.remote import MOST_BYTES, RemoteModel, RemoteStatistics
from swarm.errors import RemoteError

CHAT = [{"role": "user", "content": "Hello"}]
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
KEY = "planted-9f3b2c1d"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("THE_SECRET_OF_OURS", KEY)


def model(url: str, **changes: Any) -> RemoteModel:
    given: dict[str, Any] = {"timeout_s": 10.0, "key_env": "THE_SECRET_OF_OURS", **changes}
    return RemoteModel(
        ModelSpec(tier="remote", kind="remote", name="big", base_url=url,
                  input_micro_usd_per_mtok=1, output_micro_usd_per_mtok=1, **given)
    )  # fmt: skip


async def error_of(act: Act, left_s: float | None = None, **changes: Any) -> tuple[RemoteError, Provider]:
    with provider(act) as server:
        asked = model(server.url, **changes)
        with pytest.raises(RemoteError) as caught:
            await asked.complete(CHAT, {}, 5, left_s)
        await asked.close()
    return caught.value, server


# --- slow and endless


@pytest.mark.parametrize("of", ["body", "head", "informed"])
async def test_a_byte_now_and_then_does_not_keep_a_call_alive(of: str) -> None:
    """The limit is of the whole call, however often something comes in, and what it cost stays open."""
    error, server = await error_of(drips(of), timeout_s=0.3)
    assert error.retryable and error.unknown and "no answer within 0.3 s" in str(error)
    assert len(server.seen) == 1


@pytest.mark.parametrize("act", [heads, crumbles(20_000_000)])
async def test_what_does_not_end_is_not_collected(act: Act) -> None:
    """Headers without end and millions of tiny pieces are given up before they are large."""
    error, server = await error_of(act)
    assert error.unknown
    assert server.sent_bytes < 20_000_000


async def test_an_answer_at_the_limit_is_read() -> None:
    """The largest answer that is allowed, made of as many objects as fit, is an answer like any other."""
    body = bomb(MOST_BYTES - 1000)
    with provider(sends(body)) as server:
        asked = model(server.url)
        reply = await asked.complete(CHAT, {}, 5, None)
        await asked.close()
    assert (reply.text, reply.tokens_in) == ("", 5)


# --- a pause


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:30 GMT", "date": "Sun, 01 Mar 2026 11:00:00 GMT"}, 30.0),
        ({"retry-after": "Sun, 01 Mar 2026 10:00:00 GMT"}, 0.0),
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Sun, 99 Mar 99999 12:00:30 GMT"}, None),
    ],
)
def test_pause_that_is_asked_for(headers: dict[str, str], seconds: float | None) -> None:
    """Milliseconds, seconds or a date by the server's own clock; what makes no sense is no pause."""
    assert asked_to_wait_s(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("status", "headers", "retry_ms"),
    [(429, {"retry_after": "2"}, 2000), (503, {"retry_after": "0.2"}, 200), (429, {}, 1000), (500, {}, None)],
)
async def test_refusal_says_when_to_come_back(status: int, headers: dict[str, str], retry_ms: int | None) -> None:
    """The server's pause is handed on; one that is too busy and names none gets a second."""
    error, server = await error_of(refuses(status, "busy", **headers), left_s=30.0)
    assert (error.retryable, error.unknown, error.retry_ms) == (True, False, retry_ms)
    assert len(server.seen) == 1, "nobody here waits and asks again"


@pytest.mark.parametrize(("left_s", "wait"), [(5.0, "20"), (None, "3600"), (0.8, None)])
async def test_pause_beyond_the_deadline_is_not_waited_for(left_s: float | None, wait: str | None) -> None:
    """A tier that wants to be left alone for longer than there is time is not asked again, and the reason says so."""
    error, _ = await error_of(refuses(429, "busy", **({"retry_after": wait} if wait else {})), left_s=left_s)
    assert not error.retryable and error.retry_ms is None
    assert "to be asked again in" in str(error) and "are left" in str(error) and "busy" in str(error)


async def test_pause_may_be_longer_than_one_call() -> None:
    """The time left for the task counts, not the limit of a single call."""
    error, _ = await error_of(refuses(429, "busy", retry_after="20"), left_s=60.0, timeout_s=2.0)
    assert error.retryable and error.retry_ms == 20_000


# --- what is known of it


async def test_unreadable_bills_are_counted() -> None:
    """How many calls were made, answered, and came without a usable bill, can be asked for."""
    with provider(says("{}"), sends(b"{}"), sends(completion("{}", tokens_in="5")), refuses(401)) as server:
        asked = model(server.url)
        for _ in range(4):
            with suppress(RemoteError):
                await asked.complete(CHAT, {}, 5, None)
        await asked.close()
    assert asked.statistics() == RemoteStatistics(calls=4, answered=1, unreadable=2)


async def test_key_in_another_spelling_is_in_no_answer() -> None:
    """A key that comes back with its letters written as JSON escapes is found all the same."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
    with provider(sends(completion("MARK").replace(b"MARK", f"key {escaped}".encode()))) as server:
        asked = model(server.url)
        reply = await asked.complete(CHAT, {}, 5, None)
        await asked.close()
    assert reply.text == "key [redacted]"
