"""The tables in which contestants stand side by side."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from itertools import combinations

from peers.contestant import Ask, Contestant, Reply
from peers.rounds import Series, alternated, one_by_one
from peers.setup import Setup

_GREEDY = (
    "Peers choose token by token under a grammar of the options; 'ours' names the option that such a grammar writes "
    "with the highest probability, 'whole texts' the one that is likeliest as a text."
)
_CLOSE_CALLS = (
    "With quantised weights llama.cpp's logits depend on how many tokens share a decode: close calls go either way."
)


def classify(setup: Setup) -> None:
    _choices(setup, "classify: 10 options, shared prefix of 340 tokens, {n} waiting", setup.cases.classify)


def tuned(setup: Setup) -> None:
    """Ours on its own format, peers on the file as it is published."""
    title = "classify, our format against the file as published, {n} waiting"
    _choices(setup, title, setup.cases.classify, peers_file=setup.published)


def options77(setup: Setup) -> None:
    _choices(setup, "classify: 77 options with shared beginnings, {n} waiting", setup.cases.options77)


def extract(setup: Setup) -> None:
    n = setup.size(32, 4)
    title = f"extract: JSON of 5 fields from a message of 60 tokens, {n} waiting"
    with setup.contestants() as contestants:
        series = asyncio.run(alternated(title, contestants, _rounds(setup, setup.cases.extract, n)))
    written = ", ".join(
        f"{s.name} {statistics.fmean(r.tokens for r in s.replies):.0f} tokens a message, "
        f"{_complete(s.replies):.0%} of them valid JSON"
        for s in series
    )
    notes = (f"Written: {written}.", f"{_agreement(series)} (values compared, not layout).", _CLOSE_CALLS)
    setup.report.compared(title, "messages", series, notes)


def candidates(setup: Setup) -> None:
    """Time a token written, since a text may end by itself before its 64 tokens."""
    n, length = setup.size(8, 3), setup.size(64, 12)
    title = f"{n} candidates of one answer of {length} tokens, temperature 0.8"

    async def act(contestant: Contestant, asks: Sequence[Ask]) -> list[Reply]:
        return [reply for ask in asks for reply in await contestant.candidates(ask, n)]

    def stories(count: int) -> list[Ask]:
        return [setup.cases.story(length, temperature=0.8) for _ in range(count)]

    with setup.contestants() as contestants:
        rounds = _rounds(setup, stories, setup.size(2, 1))
        series = asyncio.run(alternated(title, contestants, rounds, act=act, by_tokens=True))
    setup.report.compared(title, "tokens", series, [f"Tokens a text: {_lengths(series)}."])


def lone(setup: Setup) -> None:
    """One request at a time, nothing else waiting."""
    n, length = setup.size(12, 2), setup.size(32, 8)
    with setup.contestants(hosts=False) as contestants:
        title = "one lone request: classify, 10 options"
        asked = _rounds(setup, setup.cases.classify, n)
        setup.report.compared(title, "requests", asyncio.run(one_by_one(title, contestants, asked)))
        title = f"one lone request: {length} tokens of text"
        stories = _rounds(setup, lambda count: [setup.cases.story(length) for _ in range(count)], n)
        series = asyncio.run(one_by_one(title, contestants, stories))
        setup.report.compared(title, "requests", series, [f"Tokens a text: {_lengths(series)}."])


def _choices(setup: Setup, title: str, make: Callable[[int], list[Ask]], *, peers_file: str | None = None) -> None:
    n = setup.size(64, 6)
    title = title.format(n=n)
    with setup.contestants(peers_file=peers_file, all_ways=True) as contestants:
        series = asyncio.run(alternated(title, contestants, _rounds(setup, make, n)))
    setup.report.compared(title, "messages", series, (f"{_agreement(series)}.", _GREEDY, _CLOSE_CALLS))


def _rounds(setup: Setup, make: Callable[[int], list[Ask]], n: int) -> list[list[Ask]]:
    """New requests for every round and for warming up."""
    return [make(n) for _ in range(setup.rounds + 1)]


def _agreement(series: Sequence[Series]) -> str:
    """How often two contestants' answers are the same."""
    shares = (f"{a.name} and {b.name} {_same(a.replies, b.replies):.1%}" for a, b in combinations(series, 2))
    return "Same answers: " + "; ".join(shares)


def _same(left: Sequence[Reply], right: Sequence[Reply]) -> float:
    return statistics.fmean(_meaning(a) == _meaning(b) for a, b in zip(left, right, strict=True))


def _meaning(reply: Reply) -> object:
    value = reply.parsed()
    return reply.text.strip() if value is None else value


def _complete(replies: Sequence[Reply]) -> float:
    return statistics.fmean(reply.parsed() is not None for reply in replies)


def _lengths(series: Sequence[Series]) -> str:
    return ", ".join(f"{s.name} {statistics.fmean(r.tokens for r in s.replies):.1f}" for s in series)
