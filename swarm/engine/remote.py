"""A paid model behind an OpenAI-compatible address. One call is one try; whoever holds the budget decides on more."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import structlog

from protocols.control import ModelSpec
from protocols.money import MicroUSD
from swarm.engine.prices import Price, listed
from swarm.errors import RemoteError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = structlog.get_logger(__name__)

MOST_BYTES = 4 * 1024 * 1024  # of an answer; the rest is not read
HIDDEN = "[redacted]"
_LIBRARY = "openai.resources.chat.completions"
_FORMATS = ("json_schema", "json_object with schema", "json_object", "none")  # ways to ask for JSON, the best first
_REFUSED = frozenset({400, 422})  # llama.cpp's server says 500 for a format that it does not take
_PASSING = frozenset({408, 409, 429})  # and every 5xx
_UNCERTAIN = frozenset({408, 502, 504})  # said by something between us and the model, which may have done the work
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. Tokens as the provider reports them, money by the price in force."""

    text: str
    tokens_in: int
    tokens_out: int
    micro_usd: MicroUSD
    cut: bool = False  # by the limit of tokens


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a server wants to be asked. What it refuses says what to change; the formats are tried from the best down."""

    format: int = 0  # in _FORMATS
    limit: str = "max_tokens"
    temperature: bool = True

    def after(self, refusal: str) -> _Manner | None:
        """How to ask next, or None when there is no other way."""
        if "max_completion_tokens" in refusal and self.limit == "max_tokens":
            return replace(self, limit="max_completion_tokens")
        if "temperature" in refusal and self.temperature:
            return replace(self, temperature=False)
        return replace(self, format=self.format + 1) if self.format + 1 < len(_FORMATS) else None

    def parameters(self, schema: dict[str, Any], max_tokens: int) -> dict[str, Any]:
        chosen: dict[str, Any] = {self.limit: max_tokens, **_response_format(_FORMATS[self.format], schema)}
        return {**chosen, "temperature": 0.0} if self.temperature else chosen


class _Usage(msgspec.Struct):
    prompt_tokens: _Tokens
    completion_tokens: _Tokens


class _Completion(msgspec.Struct):
    """The parts of a completion that are used. What it was billed must be right; a wrong text can be judged later."""

    usage: _Usage
    choices: Any = None


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
        self._manner = _Manner()

    async def complete(
        self, messages: list[dict[str, str]], schema: dict[str, Any], max_tokens: int, timeout_s: float | None
    ) -> Reply:
        """One answer. Raises `RemoteError`, with `unknown` set when the call may have been billed unseen."""
        limit_s = self._spec.timeout_s if timeout_s is None else min(self._spec.timeout_s, timeout_s)
        if self._client is None:
            await asyncio.to_thread(import_module, _LIBRARY)  # takes most of a second, which is not the server's
        try:
            async with asyncio.timeout(limit_s):  # of the whole call: the client could only limit each read
                body = await self._ask(messages, schema, max_tokens, limit_s)
        except TimeoutError:
            message = f"no answer within {limit_s:.1f} s; raise models.{self._spec.tier}.timeout"
            raise self._error(message, retryable=True, unknown=True) from None
        key = _key(self._spec)
        if key:
            body = body.replace(key.encode(), HIDDEN.encode())
        try:
            completion = msgspec.json.decode(body, type=_Completion)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise self._error(f"answered without a usable token count: {e}", unknown=True) from None
        used = completion.usage
        cost = self._price.cost(used.prompt_tokens, used.completion_tokens)
        text, finish = _said(completion.choices)
        return Reply(text, used.prompt_tokens, used.completion_tokens, cost, cut=finish == "length")

    async def close(self) -> None:
        """Close its connections. It answers nothing more."""
        if self._client is not None:
            await self._client.close()

    async def _ask(
        self, messages: list[dict[str, str]], schema: dict[str, Any], max_tokens: int, limit_s: float
    ) -> bytes:
        """The body of the answer, asked for in the first manner that the server takes. A refusal costs nothing."""
        manner: _Manner | None = self._manner
        while manner is not None:
            try:
                body = await self._post(messages, manner.parameters(schema, max_tokens), limit_s)
            except _Refused as e:
                refusal = str(e)
                manner = manner.after(refusal)
                continue
            if manner != self._manner:
                log.info("remote.manner_changed", model=self._spec.name, manner=asdict(manner))
                self._manner = manner  # only now is it known that the manner was what was wrong
            return body
        raise self._error(f"the request was refused: {refusal}")

    async def _post(self, messages: list[dict[str, str]], parameters: dict[str, Any], limit_s: float) -> bytes:
        import openai

        from swarm.engine import http

        try:
            answer = await self._connected().chat.completions.with_raw_response.create(
                model=self._spec.name,
                messages=messages,  # type: ignore[arg-type]
                timeout=http.timeouts(limit_s),
                **parameters,
            )
            return answer.http_response.content
        except openai.APIStatusError as e:
            if e.status_code in _REFUSED or "response_format" in e.message:
                raise _Refused(e.message) from None
            retryable = e.status_code in _PASSING or e.status_code >= 500
            unknown = e.status_code in _UNCERTAIN
            raise self._error(f"status {e.status_code}: {e.message}", retryable=retryable, unknown=unknown) from None
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

    def _error(self, message: str, *, retryable: bool = False, unknown: bool = False) -> RemoteError:
        """An error without the key, which a server may repeat. Raised `from None`: its cause may hold the key too."""
        key = _key(self._spec)
        said = message.replace(key, HIDDEN) if key else message
        return RemoteError(f"{self._spec.name}: {said}"[:500], retryable, unknown)

    def _connected(self) -> AsyncOpenAI:
        if self._client is None:
            import openai

            from swarm.engine import http

            self._client = openai.AsyncOpenAI(
                api_key=_key(self._spec) or "none",
                base_url=self._spec.base_url,
                max_retries=0,
                http_client=http.client(MOST_BYTES),
            )
            if self._client.base_url.host != "api.openai.com":  # the library takes these from the environment
                self._client.organization = self._client.project = None
        return self._client


def _key(spec: ModelSpec) -> str:
    return os.environ.get(spec.key_env, "").strip() if spec.key_env else ""


def _said(choices: Any) -> tuple[str, Any]:
    """The text of the first choice, empty where there is none, and why it ended."""
    match choices:
        case [{"message": {"content": str(text)}, **rest}, *_]:
            return text, rest.get("finish_reason")
        case [{"finish_reason": finish}, *_]:
            return "", finish
        case _:
            return "", None


def _response_format(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    match kind:
        case "json_schema":
            wrapped = {"name": "answer", "schema": schema}
            return {"response_format": {"type": "json_schema", "json_schema": wrapped}}
        case "json_object with schema":  # llama.cpp, Together, Fireworks
            return {"response_format": {"type": "json_object", "schema": schema}}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case _:
            return {}
