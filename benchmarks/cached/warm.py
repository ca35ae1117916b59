"""A swarm asked the same twice, with its store kept: model tokens of each run, and whether the answers are the same."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

import swarm
from protocols.tasks import Result
from swarm.observe.receipt import Receipt

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
COLUMNS = ("run", "messages", "model tokens", "answers from the cache", "tokens they had cost", "same answers")


def rows(messages: int | None = None) -> list[tuple[str, ...]]:
    """The triage swarm on its inbox (the first `messages`), once with nothing kept and once more."""
    lines = (CONFIGS / "triage" / "inbox.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines[:messages]]
    with tempfile.TemporaryDirectory() as folder:
        first, cold = _run(items, Path(folder))
        second, warm = _run(items, Path(folder))
    same = sum(_said(one) == _said(other) for one, other in zip(first, second, strict=True))
    return [
        ("cold", str(len(items)), f"{_tokens(cold):,}", *_saved(cold), ""),
        ("warm", str(len(items)), f"{_tokens(warm):,}", *_saved(warm), f"{same} of {len(items)}"),
    ]


def _run(items: list[dict[str, str]], folder: Path) -> tuple[list[Result], Receipt]:
    with swarm.launch(CONFIGS / "triage.yaml", runtime="in-process", store=folder / "store.db") as running:

        async def answered() -> list[Result]:
            return [result async for result in running.map(items)]

        results = asyncio.run(answered())
        return sorted(results, key=lambda r: r.position or 0), running.receipt()


def _said(result: Result) -> tuple[str, object]:
    return result.status, result.output


def _tokens(receipt: Receipt) -> int:
    return sum(line.tokens_in + line.tokens_out for line in receipt.tiers)


def _saved(receipt: Receipt) -> tuple[str, str]:
    saved = receipt.saved
    return ("0", "0") if saved is None else (f"{saved.answers:,}", f"{saved.tokens:,}")
