"""An HTTP client for answers from outside: it reads no more than it may, unpacks nothing, and is sent nowhere else."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

CONNECT_S = 5.0  # longest wait for a connection: a server that does not take one has billed nothing
_PIECE_BYTES = 64  # that a piece of an answer counts as at least: a million tiny ones are large too


class Unreadable(httpx2.RequestError):
    """The answer is larger than allowed, or packed although it was asked for plain."""


def client(most_bytes: int) -> httpx2.AsyncClient:
    """A client whose answers hold at most `most_bytes`; more raises `Unreadable`, with the rest unread."""

    async def bound(response: httpx2.Response) -> None:
        packed = response.headers.get("content-encoding", "identity")
        if packed.lower() != "identity":  # a small packed body may be a very large one
            raise Unreadable(f"the answer is packed ({packed[:20]}), and plain was asked for")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(response.stream, most_bytes)

    return httpx2.AsyncClient(
        headers={"Accept-Encoding": "identity"}, follow_redirects=False, event_hooks={"response": [bound]}
    )


def timeouts(limit_s: float) -> httpx2.Timeout:
    """Limits for a call that its caller ends after `limit_s`: only the wait for a connection ends before that."""
    connect_s = min(CONNECT_S, limit_s / 2)
    return httpx2.Timeout(None, connect=connect_s, pool=connect_s)


def unsent(error: BaseException | None) -> bool:
    """Whether a call failed before the server had seen it."""
    return isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.ProxyError)


def asked_to_wait_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a refusal asks to wait, or None where it names none that can be understood.

    From `retry-after-ms` (OpenAI, Azure), else `retry-after` as seconds or as a date (RFC 9110, section 10.2.3). A date
    is set against the server's own `date` where it sends one, as its clock may differ from ours, which says `now`.
    """
    if (ms := _number(headers.get("retry-after-ms"))) is not None:
        return ms / 1000
    if (seconds := _number(headers.get("retry-after"))) is not None:
        return seconds
    until = _date(headers.get("retry-after"))
    return None if until is None else max(0.0, (until - (_date(headers.get("date")) or now)).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text or "")
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


class _Bounded(httpx2.AsyncByteStream):
    """A stream that ends with `Unreadable` after `most` bytes."""

    def __init__(self, stream: httpx2.AsyncByteStream, most: int) -> None:
        self._stream = stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        n_bytes = 0
        async for chunk in self._stream:
            n_bytes += max(len(chunk), _PIECE_BYTES)
            if n_bytes > self._most:
                raise Unreadable(f"the answer is larger than {self._most:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
