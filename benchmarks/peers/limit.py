"""Our engine against what the arithmetic allows: llama.cpp's own rate of reading a prompt on this machine."""

from __future__ import annotations

import asyncio
import ctypes
import statistics
import time
from contextlib import closing
from typing import Any

import llama_cpp

from peers.ours import WAYS, Ours
from peers.rounds import progress
from peers.setup import Setup

PROMPT = 512


class PlainPrompt:
    """One prompt of `PROMPT` tokens in one batch of a fresh context, through llama.cpp's own functions."""

    def __init__(self, path: str, threads: int, tokens: list[int]) -> None:
        assert len(tokens) == PROMPT
        self._tokens = (ctypes.c_int32 * PROMPT)(*tokens)
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = PROMPT
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self._context: Any = llama_cpp.llama_init_from_model(self._model, parameters)

    def rate(self) -> float:
        """Tokens a second."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        started = time.perf_counter()
        code = llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(self._tokens, PROMPT))
        llama_cpp.llama_synchronize(self._context)
        assert code == 0, f"llama_decode failed with {code}"
        return PROMPT / (time.perf_counter() - started)

    def close(self) -> None:
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)


def limit(setup: Setup) -> None:
    """Seconds of a classify round, over the seconds that its decoded tokens take at the prompt rate."""
    ratios: dict[str, list[float]] = {way: [] for way in WAYS}
    tokens: dict[str, list[int]] = {way: [] for way in WAYS}
    rates: list[float] = []
    plain = PlainPrompt(setup.file, setup.threads, setup.cases.plain(PROMPT))
    with closing(plain), setup.engine() as engine, asyncio.Runner() as runner:
        for number in range(setup.rounds + 1):
            progress(f"limit: {f'round {number} of {setup.rounds}' if number else 'warming up'}")
            for way in WAYS:
                asked = setup.cases.classify(setup.size(64, 6))
                rate = plain.rate()
                before, started = engine.statistics().tokens_decoded, time.perf_counter()
                runner.run(Ours(engine, way).answer(asked))
                seconds = time.perf_counter() - started
                decoded = engine.statistics().tokens_decoded - before
                rate = (rate + plain.rate()) / 2  # before and after: the machine may change its pace
                if number:
                    ratios[way].append(seconds / (decoded / rate))
                    tokens[way].append(decoded)
                    rates.append(rate)
    n = setup.size(64, 6)
    rows = [
        [way, f"{statistics.median(tokens[way]) / n:.1f}", f"{statistics.median(ratios[way]):.2f}",
         f"{min(ratios[way]):.2f} to {max(ratios[way]):.2f}"]
        for way in WAYS
    ]  # fmt: skip
    note = f"Prompt rate of llama.cpp, one prompt of {PROMPT} tokens: {statistics.median(rates):.0f} tokens/s."
    columns = ("", "tokens decoded a message", "time ÷ limit (median)", "smallest to largest")
    setup.report.table(f"classify against the limit, {n} waiting", columns, rows, [note])
