"""A paid model behind an OpenAI-compatible address. One call is one try; whoever holds the budget decides on another."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from protocols.control import ModelSpec
from protocols.money import MicroUSD
from swarm.engine.prices import Price, listed
from swarm.errors import RemoteError

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. Tokens as the provider reports them, money by the price in force."""

    text: str
    tokens_in: int
    tokens_out: int
    micro_usd: MicroUSD


def price_of(spec: ModelSpec) -> Price | None:
    """The price that holds for this model: the file's, else the list price, else None."""
    if spec.input_micro_usd_per_mtok is not None and spec.output_micro_usd_per_mtok is not None:
        return Price(spec.input_micro_usd_per_mtok, spec.output_micro_usd_per_mtok, "the swarm file")
    return listed(spec.name)


def unavailable(spec: ModelSpec) -> str | None:
    """Why this model cannot be asked now, or None."""
    if spec.key_env and not os.environ.get(spec.key_env):
        return f"no key in the environment variable {spec.key_env}"
    if price_of(spec) is None:
        return f"no price known for {spec.name!r}; add price: {{input: …, output: …}} to models.{spec.tier}"
    return None


class RemoteModel:
    """Chat completions with JSON answers. The key is read from the environment at each start, and kept nowhere else."""

    def __init__(self, spec: ModelSpec) -> None:
        price = price_of(spec)
        if price is None:
            raise RemoteError(
                f"model {spec.name!r} has no price, so no budget could hold it; add price to models.{spec.tier}"
            )
        self._spec = spec
        self._price = price
        self._client: AsyncOpenAI | None = None
        self._formats = ["json_schema", "json_object", "none"]  # what the server takes, the best first

    async def complete(
        self, messages: list[dict[str, str]], schema: dict[str, Any], max_tokens: int, timeout_s: float | None
    ) -> Reply:
        """One answer. Raises `RemoteError`, with `unknown` set when the call may have been billed unseen."""
        timeout = min(self._spec.timeout_s, timeout_s if timeout_s is not None else self._spec.timeout_s)
        completion = await self._ask(messages, schema, max_tokens, timeout)
        if completion.usage is None or completion.usage.prompt_tokens < 0 or completion.usage.completion_tokens < 0:
            raise RemoteError(f"{self._spec.name}: answered without a usable token count", unknown=True)
        used = completion.usage
        text = (completion.choices[0].message.content if completion.choices else None) or ""
        cost = self._price.cost(used.prompt_tokens, used.completion_tokens)
        return Reply(text, used.prompt_tokens, used.completion_tokens, cost)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _ask(
        self, messages: list[dict[str, str]], schema: dict[str, Any], max_tokens: int, timeout_s: float
    ) -> ChatCompletion:
        import openai

        while True:
            try:
                async with asyncio.timeout(timeout_s):  # the whole call; the client's own limit is per read
                    return await self._connected().chat.completions.create(
                        model=self._spec.name,
                        messages=messages,  # type: ignore[arg-type]
                        max_tokens=max_tokens,
                        temperature=0.0,
                        timeout=timeout_s,
                        **_response_format(self._formats[0], schema),
                    )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as e:
                if len(self._formats) == 1:
                    raise RemoteError(f"{self._spec.name}: the request was refused: {e.message}"[:500]) from e
                log.info("remote.format_refused", model=self._spec.name, format=self._formats.pop(0))
            except (openai.APITimeoutError, TimeoutError) as e:
                message = (
                    f"{self._spec.name}: no answer within {timeout_s:.1f} s; raise models.{self._spec.tier}.timeout"
                )
                raise RemoteError(message, retryable=True, unknown=True) from e
            except openai.APIConnectionError as e:
                raise RemoteError(
                    f"{self._spec.name}: {self._spec.base_url} cannot be reached: {e}", retryable=True
                ) from e
            except openai.APIStatusError as e:
                retryable = e.status_code in (408, 409, 429) or e.status_code >= 500
                raise RemoteError(f"{self._spec.name}: status {e.status_code}: {e.message}"[:500], retryable) from e

    def _connected(self) -> AsyncOpenAI:
        if self._client is None:
            import openai

            key = os.environ.get(self._spec.key_env or "", "") or "none"
            self._client = openai.AsyncOpenAI(api_key=key, base_url=self._spec.base_url, max_retries=0)
        return self._client


def _response_format(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    match kind:
        case "json_schema":
            wrapped = {"name": "answer", "schema": schema}
            return {"response_format": {"type": "json_schema", "json_schema": wrapped}}
        case "json_object":
            return {"response_format": {"type": "json_object", "schema": schema}}
        case _:
            return {}
