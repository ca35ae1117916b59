"""One call to a paid model: what it costs, what goes wrong, and what never leaks. Against a real HTTP server."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import pickle
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai.resources.chat.completions  # noqa: F401 - takes most of a second, more than these tests wait
import pytest
from remote_provider import (
    Act,
    Handler,
    Provider,
    Seen,
    closed_port,
    completion,
    cuts,
    floods,
    hangs,
    provider,
    refuses,
    says,
    sends,
    slams,
    takes_only,
)
from structlog.testing import capture_logs

from protocols.control import ModelSpec
from swarm.engine.remote import MOST_BYTES, RemoteModel, Reply, unavailable
from swarm.errors import RemoteError

KEY = "sk-planted-0123456789abcdef"
SCHEMA = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}
CHAT = [{"role": "system", "content": "Sort."}, {"role": "user", "content": "Hello"}]


def spec(base_url: str, **changes: Any) -> ModelSpec:
    given: dict[str, Any] = {
        "tier": "remote", "kind": "remote", "name": "big-one", "base_url": base_url, "key_env": "TEST_MODEL_KEY",
        "input_micro_usd_per_mtok": 1_000_000, "output_micro_usd_per_mtok": 2_000_000, "timeout_s": 10.0,
    }  # fmt: skip
    return ModelSpec(**{**given, **changes})


@asynccontextmanager
async def opened(base_url: str, **changes: Any) -> AsyncIterator[RemoteModel]:
    model = RemoteModel(spec(base_url, **changes))
    try:
        yield model
    finally:
        await model.close()


async def ask(base_url: str, *, left_s: float | None = None, **spec: Any) -> Reply:
    async with opened(base_url, **spec) as model:
        return await model.complete(CHAT, SCHEMA, 50, left_s)


async def error_of(*acts: Act, **how: Any) -> tuple[RemoteError, Provider]:
    """What one call raises, and the server it was made to."""
    with provider(*acts) as server, pytest.raises(RemoteError) as caught:
        await ask(server.url, **how)
    return caught.value, server


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_MODEL_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# --- an answer


async def test_reply_has_the_reported_tokens_and_their_price() -> None:
    """Tokens are those that the provider reports, money is tokens × price, a part of a micro-dollar rounded up."""
    with provider(says('{"label": "a"}', tokens_in=101, tokens_out=7)) as server:
        reply = await ask(server.url, input_micro_usd_per_mtok=10_000, output_micro_usd_per_mtok=2_000_000)
    assert reply == Reply('{"label": "a"}', 101, 7, micro_usd=16)  # 1.01 + 14 millionths of a dollar


async def test_request_carries_key_model_limit_and_schema() -> None:
    """The server gets the key as a bearer token, and everything that bounds the answer."""
    with provider(says("{}")) as server:
        await ask(server.url)
    (seen,) = server.seen
    assert seen.path == "/v1/chat/completions" and seen.headers["authorization"] == f"Bearer {KEY}"
    assert (seen.body["model"], seen.body["max_tokens"], seen.body["messages"]) == ("big-one", 50, CHAT)
    assert seen.body["response_format"]["json_schema"]["schema"] == SCHEMA


async def test_what_the_environment_says_about_openai_is_told_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Organisation and project of an OpenAI account are not sent to another provider."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-private")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-private")
    with provider(says("{}")) as server:
        await ask(server.url)
    assert not [v for v in server.seen[0].headers.values() if "private" in v]


async def test_key_is_read_without_the_line_end_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was put into the environment from a file, with its line end, works."""
    monkeypatch.setenv("TEST_MODEL_KEY", f" {KEY}\n")
    with provider(says("{}")) as server:
        await ask(server.url)
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "choices",
    ["[]", "null", '"text"', "[null]", '[{"message": null}]', '[{"message": {"content": null}}]',
     '[{"message": {"content": [{"type": "text", "text": "x"}]}}]'],
)  # fmt: skip
async def test_answer_without_text_is_still_paid_for(choices: str) -> None:
    """Whatever stands where the text should be, the tokens are counted and the text is empty."""
    body = b'{"choices": %b, "usage": {"prompt_tokens": 5, "completion_tokens": 1}}' % choices.encode()
    with provider(sends(body)) as server:
        assert await ask(server.url) == Reply("", 5, 1, micro_usd=7)


# --- failures


@pytest.mark.parametrize(
    ("status", "retryable", "unknown"),
    [(429, True, False), (500, True, False), (503, True, False), (409, True, False), (408, True, True),
     (502, True, True), (504, True, True), (401, False, False), (403, False, False), (404, False, False)],
)  # fmt: skip
async def test_status_says_whether_to_try_again_and_what_it_may_have_cost(
    status: int, retryable: bool, unknown: bool
) -> None:
    """A refusal is asked once and says its status; only a gateway's may hide work that was done."""
    error, server = await error_of(refuses(status, "because"))
    assert (error.retryable, error.unknown) == (retryable, unknown)
    assert f"status {status}" in str(error) and "because" in str(error)
    assert len(server.seen) == 1, "trying again is not this class's business"


async def test_redirect_is_not_followed() -> None:
    """A message is not sent on to wherever the server points."""
    with provider(says("{}")) as elsewhere:
        error, _ = await error_of(refuses(307, location=elsewhere.url))
    assert not elsewhere.seen
    assert "status 307" in str(error) and not error.retryable


async def test_hanging_server_is_given_up_and_may_have_billed() -> None:
    """After the model's timeout the call ends: it may be tried again, and may have cost something."""
    error, _ = await error_of(hangs, timeout_s=0.2, left_s=60.0)
    assert error.retryable and error.unknown
    assert "models.remote.timeout" in str(error)


async def test_shorter_of_both_timeouts_counts() -> None:
    """What is left of the task's time ends a call before the model's own timeout does."""
    error, _ = await error_of(hangs, timeout_s=3600.0, left_s=0.2)
    assert "no answer within 0.2 s" in str(error)


async def test_cancelled_call_hangs_up() -> None:
    """Cancelling closes the connection, so that the provider can stop working."""
    with provider(hangs) as server:
        async with opened(server.url) as model:
            call = asyncio.create_task(model.complete(CHAT, SCHEMA, 50, None))
            assert await asyncio.to_thread(server.asked.wait, 10)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert await asyncio.to_thread(server.hung_up.wait, 10)


async def test_nobody_at_the_address_costs_nothing() -> None:
    """A connection that cannot be made is known to be unbilled, and may be tried again."""
    with pytest.raises(RemoteError, match="cannot be reached") as caught:
        await ask(f"http://127.0.0.1:{closed_port()}/v1")
    assert caught.value.retryable and not caught.value.unknown


@pytest.mark.parametrize("act", [cuts, slams])
async def test_cut_connection_may_have_been_billed(act: Act) -> None:
    """A connection that breaks after the request was sent leaves open what it cost."""
    error, server = await error_of(act)
    assert error.retryable and error.unknown
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "usage",
    ["null", "{}", '{"prompt_tokens": -1, "completion_tokens": 5}', '{"prompt_tokens": 5, "completion_tokens": -1}',
     '{"prompt_tokens": "5", "completion_tokens": 5}', '{"prompt_tokens": true, "completion_tokens": 5}',
     '{"prompt_tokens": 5, "completion_tokens": 1e99}', '{"prompt_tokens": 5}', "[1, 2]",
     '{"prompt_tokens": 9223372036854775808, "completion_tokens": 5}'],
)  # fmt: skip
async def test_unusable_token_counts_leave_the_cost_open(usage: str) -> None:
    """Counts that are missing, negative, no numbers or beyond reason are not believed."""
    body = b'{"choices": [{"message": {"content": "{}"}}], "usage": %b}' % usage.encode()
    error, _ = await error_of(sends(body))
    assert error.unknown and "token count" in str(error)


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"\xff\xfe\x00", completion("x").replace(b"x", b"\xc3\x28"), b"[" * 200_000, b"[]", b"12",
     completion("x")[:-30]],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["application/json", "text/html", "application/json; charset=base64"])
async def test_unreadable_answer_leaves_the_cost_open(body: bytes, kind: str) -> None:
    """Whatever cannot be read was perhaps paid for, and the error is a short sentence."""
    error, _ = await error_of(sends(body, content_type=kind))
    assert error.unknown and not error.retryable
    assert len(str(error)) < 600


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("chunked", [True, False])
async def test_flood_is_not_read(status: int, chunked: bool) -> None:
    """Of an answer of 50 MB, or an error with such a body, no more is taken than the limit and what is on its way."""
    error, server = await error_of(floods(50_000_000, status, chunked))
    assert error.unknown and not error.retryable and f"larger than {MOST_BYTES:,} bytes" in str(error)
    assert server.sent_bytes < 25_000_000


async def test_packed_answer_is_not_unpacked() -> None:
    """An answer is asked for plain; a compressed one, which may be a bomb, is refused."""
    error, server = await error_of(sends(gzip.compress(b" " * 50_000_000), content_encoding="gzip"))
    assert "packed" in str(error) and error.unknown
    assert server.seen[0].headers["accept-encoding"] == "identity"


# --- formats


@pytest.mark.parametrize(
    ("takes", "asked"),
    [
        ("json_schema", ["json_schema"]),
        ("json_object+schema", ["json_schema", "json_object+schema"]),
        ("json_object", ["json_schema", "json_object+schema", "json_object"]),
        ("none", ["json_schema", "json_object+schema", "json_object", "none"]),
    ],
)
@pytest.mark.parametrize("status", [400, 422, 500])
async def test_format_that_is_refused_is_not_asked_for_again(takes: str, asked: list[str], status: int) -> None:
    """The best format that the server takes is found in the first call and used in the next."""

    with provider(takes_only(takes, says("{}"), status)) as server:
        async with opened(server.url) as model:
            await model.complete(CHAT, SCHEMA, 50, None)
            await model.complete(CHAT, SCHEMA, 50, None)
    assert [s.format for s in server.seen] == [*asked, takes]


async def test_model_that_wants_other_parameters_gets_them() -> None:
    """A model that refuses `max_tokens` and a temperature, as reasoning models do, is asked as it wants to be."""

    def reasons(handler: Handler, seen: Seen) -> None:
        if "max_tokens" in seen.body:
            refuses(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")(handler, seen)
        elif "temperature" in seen.body:
            refuses(400, "Unsupported value: 'temperature' does not support 0 with this model.")(handler, seen)
        else:
            says("{}")(handler, seen)

    with provider(reasons) as server:
        async with opened(server.url) as model:
            await model.complete(CHAT, SCHEMA, 50, None)
            await model.complete(CHAT, SCHEMA, 50, None)
    assert len(server.seen) == 4, "what is learnt in the first call is known in the second"
    last = server.seen[-1]
    assert last.body["max_completion_tokens"] == 50 and last.format == "json_schema"


@pytest.mark.parametrize(("finish", "cut"), [("length", True), ("stop", False), (None, False), (5, False)])
async def test_reply_says_whether_it_was_cut(finish: Any, cut: bool) -> None:
    """An answer that ended at the limit of tokens is marked, with a text or without one."""
    for content in ('{"lab', None):
        choices = [{"finish_reason": finish, "message": {"content": content}}]
        body = {"choices": choices, "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        with provider(sends(json.dumps(body).encode())) as server:
            assert (await ask(server.url)).cut is cut


async def test_refused_request_says_nothing_about_formats() -> None:
    """A request that is refused in every format is an error, and the next one is asked in the best format again."""
    with provider(*[refuses(400, "the prompt is too long")] * 4, says("{}")) as server:
        async with opened(server.url) as model:
            with pytest.raises(RemoteError, match="the prompt is too long") as caught:
                await model.complete(CHAT, SCHEMA, 50, None)
            await model.complete(CHAT, SCHEMA, 50, None)
    assert not caught.value.retryable and not caught.value.unknown
    assert server.seen[-1].format == "json_schema"


async def test_calls_at_the_same_time_settle_on_one_format() -> None:
    """Many first calls at once, all refused, do not fall below the format that the server takes."""
    with provider(takes_only("json_object+schema", says("{}"))) as server:
        async with opened(server.url) as model:
            await asyncio.gather(*(model.complete(CHAT, SCHEMA, 50, None) for _ in range(8)))
    assert {s.format for s in server.seen} == {"json_schema", "json_object+schema"}


async def test_looking_for_a_format_takes_no_longer_than_one_call() -> None:
    """The timeout is that of the whole call, however many refusals are part of it."""
    with provider(refuses(400), hangs) as server:
        async with opened(server.url, timeout_s=0.5) as model:
            with pytest.raises(RemoteError, match="no answer within"):
                await model.complete(CHAT, SCHEMA, 50, None)
    assert len(server.seen) == 2


# --- secrets


ECHO = f"Incorrect key {KEY}; Authorization: Bearer {KEY}"


@pytest.mark.parametrize(
    "act",
    [refuses(401, ECHO), refuses(400, ECHO), refuses(500, ECHO), refuses(302, ECHO, location="http://x/"),
     sends(ECHO.encode()), sends(ECHO.encode(), 403, content_type="text/plain"),
     sends(b'{"usage": {"prompt_tokens": "%b"}}' % KEY.encode())],
)  # fmt: skip
async def test_key_is_in_no_error_and_no_log(act: Act, caplog: pytest.LogCaptureFixture) -> None:
    """A server may repeat the key in its refusals: it is in no message, cause, traceback, pickle or log line."""
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logs:
        error, _ = await error_of(act)
    told = "".join(traceback.format_exception(error)) + repr(error) + str(logs) + caplog.text
    assert KEY not in told
    assert KEY.encode() not in pickle.dumps(error)


async def test_key_is_in_no_answer() -> None:
    """A model that repeats the key does not put it into a result."""
    with provider(says(json.dumps({"label": KEY}))) as server:
        reply = await ask(server.url)
    assert reply.text == '{"label": "[redacted]"}'


@pytest.mark.parametrize(
    ("value", "why"),
    [(None, "no key in"), ("", "no key in"), ("  \n", "no key in"), ("sk-ä", "no key:"), ("a\nb", "no key:")],
)
def test_model_without_a_usable_key_is_unavailable(
    value: str | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is missing, blank or impossible makes the tier unavailable; the reason names the variable only."""
    if value is None:
        monkeypatch.delenv("TEST_MODEL_KEY")
    else:
        monkeypatch.setenv("TEST_MODEL_KEY", value)
    reason = unavailable(spec("http://127.0.0.1:1/v1"))
    assert reason is not None and why in reason and "TEST_MODEL_KEY" in reason
    assert "sk-" not in reason


def test_model_without_a_price_is_unavailable() -> None:
    """What has no price cannot be held: the reason says how to give it one, and opening it all the same is an error."""
    free = spec("http://127.0.0.1:1/v1", input_micro_usd_per_mtok=None, output_micro_usd_per_mtok=None)
    reason = unavailable(free)
    assert reason is not None and "price:" in reason and "models.remote" in reason
    with pytest.raises(RemoteError, match="no price"):
        RemoteModel(free)


def test_model_without_key_and_with_price_is_available() -> None:
    """A server that wants no key is asked without one."""
    assert unavailable(spec("http://127.0.0.1:1/v1", key_env=None)) is None
