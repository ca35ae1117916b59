"""A paid model behind an OpenAI-compatible address. One call is one try; whoever holds the budget decides on more."""

from __future__ import annotations

import asyncio
import math
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

import structlog

from protocols.control import ModelSpec
from protocols.money import MicroUSD
from swarm.engine import completion
from swarm.engine.manner import Manner
from swarm.engine.prices import Price, listed
from swarm.errors import RemoteError

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

log = structlog.get_logger(__name__)

MOST_BYTES = 1024 * 1024  # of an answer, as hosts send no larger one; the rest is not read
PAUSE_S = 1.0  # before a second call, where a server that has too much to do does not say how long
MOST_WAIT_S = 60.0  # the longest pause of a task that has no deadline
HIDDEN = "[redacted]"
_LIBRARY = "openai.resources.chat.completions"
_REFUSED = frozenset({400, 422})  # llama.cpp's server says 500 for a format that it does not take
_TOO_MANY = 429
_PASSING = frozenset({408, 409, _TOO_MANY})  # and every 5xx
_UNCERTAIN = frozenset({408, 502, 504})  # said by something between us and the model, which may have done the work


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. Tokens as the provider reports them, money by the price in force."""

    text: str
    tokens_in: int
    tokens_out: int
    micro_usd: MicroUSD
    cut: bool = False  # by the limit of tokens


@dataclass(frozen=True, slots=True)
class RemoteStatistics:
    """A look at what has become of the calls so far. `unreadable`: no usable token count, so charged whole."""

    calls: int = 0
    answered: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class _Call:
    """What is asked, and until when: `limit_s` for this call, `until` (the loop's clock) for all that can follow it."""

    messages: list[dict[str, str]]
    schema: dict[str, Any]
    max_tokens: int
    limit_s: float
    until: float


def price_of(spec: ModelSpec) -> Price | None:
    """The price that holds for this model: the file's, else the list price, else None."""
    if spec.input_micro_usd_per_mtok is not None and spec.output_micro_usd_per_mtok is not None:
        return Price(spec.input_micro_usd_per_mtok, spec.output_micro_usd_per_mtok, "the swarm file")
    return listed(spec.name, spec.base_url)


def unavailable(spec: ModelSpec) -> str | None:
    """Why this model cannot be asked now, or None."""
    if spec.key_env:
        key = _key(spec)
        if not key:
            return f"no key in the environment variable {spec.key_env}"
        if not (key.isascii() and key.isprintable()):
            return f"the environment variable {spec.key_env} holds no key: it has characters that a header cannot carry"
    if price_of(spec) is None:
        return f"no price known for {spec.name!r}; add price: {{input: …, output: …}} to models.{spec.tier}"
    return None


class _Refused(Exception):
    """The server does not take this request; perhaps it takes it in another format."""


class RemoteModel:
    """Chat completions with JSON answers.

    The key is read from the environment when the first call is made, and nothing that leaves this class holds it.
    """

    def __init__(self, spec: ModelSpec) -> None:
        price = price_of(spec)
        if price is None:
            raise RemoteError(f"model {spec.name!r} has no price to hold a budget for; add price to models.{spec.tier}")
        self._spec = spec
        self._price = price
        self._client: AsyncOpenAI | None = None
        self._manner = Manner()
        self._calls = self._answered = self._unreadable = 0

    async def complete(
        self, messages: list[dict[str, str]], schema: dict[str, Any], max_tokens: int, timeout_s: float | None
    ) -> Reply:
        """One answer. Raises `RemoteError`, with `unknown` set when the call may have been billed unseen.

        `timeout_s`: the time left for the task, a second call and the pause before it included.
        """
        limit_s = self._spec.timeout_s if timeout_s is None else min(self._spec.timeout_s, timeout_s)
        until = asyncio.get_running_loop().time() + (limit_s + MOST_WAIT_S if timeout_s is None else timeout_s)
        if self._client is None:
            await asyncio.to_thread(import_module, _LIBRARY)  # takes most of a second, which is not the server's
        self._calls += 1
        try:
            async with asyncio.timeout(limit_s):  # of the whole call: the client could only limit each read
                body = await self._ask(_Call(messages, schema, max_tokens, limit_s, until))
        except TimeoutError:
            message = f"no answer within {limit_s:.1f} s; raise models.{self._spec.tier}.timeout"
            raise self._error(message, retryable=True, unknown=True) from None
        return self._read(body)

    def statistics(self) -> RemoteStatistics:
        """A frozen look at its calls and tokens so far, and at answers whose usage could not be read."""
        return RemoteStatistics(self._calls, self._answered, self._unreadable)

    async def close(self) -> None:
        """Close its connections. It answers nothing more."""
        if self._client is not None:
            await self._client.close()

    async def _ask(self, call: _Call) -> bytes:
        """The body of the answer, asked for in the first manner that the server takes. A refusal costs nothing."""
        manner: Manner | None = self._manner
        while manner is not None:
            try:
                body = await self._post(call, manner)
            except _Refused as e:
                refusal = str(e)
                manner = manner.after(refusal)
                continue
            if manner != self._manner:
                log.info("remote.manner_changed", model=self._spec.name, manner=asdict(manner))
                self._manner = manner  # only now is it known that the manner was what was wrong
            return body
        raise self._error(f"the request was refused: {refusal}")

    async def _post(self, call: _Call, manner: Manner) -> bytes:
        import openai

        from swarm.engine import http

        try:
            answer = await self._connected().chat.completions.with_raw_response.create(
                model=self._spec.name,
                messages=call.messages,  # type: ignore[arg-type]
                timeout=http.timeouts(call.limit_s),
                **manner.parameters(call.schema, call.max_tokens),
            )
            return answer.http_response.content
        except openai.APIStatusError as e:
            if e.status_code in _REFUSED or "response_format" in e.message:
                raise _Refused(e.message) from None
            raise self._refusal(e, call.until) from None
        except openai.APIConnectionError as e:  # a timeout is one too
            cause = e.__cause__
            if http.unsent(cause):
                message = f"{self._spec.base_url} cannot be reached: {cause or type(cause).__name__}"
                raise self._error(message, retryable=True) from None
            message = f"the connection failed before the answer was there: {cause or type(cause).__name__}"
            retryable = not isinstance(cause, http.Unreadable)
            raise self._error(message, retryable=retryable, unknown=True) from None
        except Exception as e:  # the library could not make sense of what came back
            raise self._error(f"answered with something unreadable ({type(e).__name__})", unknown=True) from None

    def _refusal(self, e: APIStatusError, until: float) -> RemoteError:
        """What a status means. It may be asked again after the pause that it wants, where there is time for that."""
        from swarm.engine import http

        unknown = e.status_code in _UNCERTAIN
        said = f"status {e.status_code}: {e.message}"
        if e.status_code not in _PASSING and e.status_code < 500:
            return self._error(said, unknown=unknown)
        wait_s = http.asked_to_wait_s(e.response.headers, datetime.now(UTC))
        if wait_s is None:
            wait_s = PAUSE_S if e.status_code == _TOO_MANY else 0.0
        left_s = until - asyncio.get_running_loop().time()
        if wait_s and wait_s >= left_s:
            few = f"status {e.status_code}, to be asked again in {wait_s:.1f} s, and {max(0.0, left_s):.1f} s are left"
            return self._error(f"{few}: {e.message}", unknown=unknown)
        return self._error(said, retryable=True, unknown=unknown, retry_ms=math.ceil(wait_s * 1000) or None)

    def _read(self, body: bytes) -> Reply:
        """What an answer says and costs."""
        key = _key(self._spec)
        try:
            done = completion.read(body.replace(key.encode(), HIDDEN.encode()) if key else body)
        except completion.Unusable as e:
            self._unreadable += 1
            log.warning("remote.unreadable", model=self._spec.name, cause=str(e), times=self._unreadable)
            raise self._error(str(e), unknown=True) from None
        self._answered += 1
        used = done.usage
        cost = self._price.cost(used.prompt_tokens, used.completion_tokens)
        said = done.text.replace(key, HIDDEN) if key else done.text  # JSON may have written it in another way
        return Reply(said, used.prompt_tokens, used.completion_tokens, cost, cut=done.cut)

    def _error(
        self, message: str, *, retryable: bool = False, unknown: bool = False, retry_ms: int | None = None
    ) -> RemoteError:
        """An error without the key, which a server may repeat. Raised `from None`: its cause may hold the key too."""
        key = _key(self._spec)
        said = message.replace(key, HIDDEN) if key else message
        return RemoteError(f"{self._spec.name}: {said}"[:500], retryable, unknown, retry_ms)

    def _connected(self) -> AsyncOpenAI:
        if self._client is None:
            import openai

            from swarm.engine import http

            self._client = openai.AsyncOpenAI(
                api_key=_key(self._spec) or "none",
                base_url=self._spec.base_url,
                max_retries=0,  # trying again is the dispatcher's business, which holds the budget
                http_client=http.client(MOST_BYTES),
            )
            if self._client.base_url.host != "api.openai.com":  # the library takes these from the environment
                self._client.organization = self._client.project = None
        return self._client


def _key(spec: ModelSpec) -> str:
    return os.environ.get(spec.key_env, "").strip() if spec.key_env else ""
