"""Sentence embeddings with onnxruntime: mean pooling over the tokens, unit length (all-MiniLM-L6-v2 and its like)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swarm.errors import EngineClosed, ModelDamaged

WINDOW = 256  # tokens that are read; what follows is cut
BATCH_TOKENS = 512  # padding included; larger batches are slower on a CPU, and take memory
REMEMBERED = 4096  # vectors kept, about 6 MB


class OnnxEmbedder:
    """All texts that wait go into batches of similar length, on one thread of its own."""

    def __init__(self, model: Path, tokenizer: Path, threads: int = 1) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # it would keep the largest batch's memory for ever
        try:
            self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as e:
            raise ModelDamaged(f"{model.name}: cannot be loaded: {str(e)[:300]}; run 'swarm models verify'") from e
        self._tokenizer.enable_truncation(WINDOW)
        self._tokenizer.no_padding()
        self._inputs = {i.name for i in self._session.get_inputs()}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()  # specialists ask for the same texts
        self._waiting: list[tuple[tuple[str, ...], asyncio.Future[NDArray[np.float32]]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def embed(self, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """Shape (len(texts), dimension), rows of length 1. Raises `EngineClosed`."""
        if self._closed:
            raise EngineClosed("the embedder was closed")
        if not texts:
            return np.zeros((0, 0), np.float32)
        future: asyncio.Future[NDArray[np.float32]] = asyncio.get_running_loop().create_future()
        self._waiting.append((texts, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._drain())
        return await future

    def count(self, text: str) -> int:
        """Tokens of `text`, the two around it included; at most `WINDOW`."""
        return len(self._tokenizer.encode(text).ids)

    def close(self) -> None:
        """Take no more texts: they end with `EngineClosed`. May be called twice."""
        self._closed = True
        self._thread.shutdown(wait=False)  # what it has begun it finishes, so that no caller waits for ever

    async def _drain(self) -> None:
        """Everything that has gathered while the last batch was computed is the next batch."""
        while self._waiting:
            jobs, self._waiting = self._waiting, []
            new = [text for text in dict.fromkeys(t for job, _ in jobs for t in job) if text not in self._known]
            try:
                vectors = await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, new)
                self._known.update(zip(new, vectors, strict=True))
                for job, future in jobs:
                    if not future.done():
                        future.set_result(np.stack([self._known[text] for text in job]))
            except Exception as e:
                for _, future in jobs:
                    if not future.done():
                        future.set_exception(EngineClosed("the embedder was closed") if self._closed else e)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)

    def _embed(self, texts: list[str]) -> list[NDArray[np.float32]]:
        # Half a surrogate pair would be refused, and with it all other texts of the batch.
        encodings = self._tokenizer.encode_batch([t.encode(errors="replace").decode() for t in texts])
        rows: list[NDArray[np.float32] | None] = [None] * len(texts)
        for chosen in _batches([len(e.ids) for e in encodings]):
            for i, vector in zip(chosen, self._run([encodings[i].ids for i in chosen]), strict=True):
                rows[i] = vector
        return [row for row in rows if row is not None]

    def _run(self, token_ids: list[list[int]]) -> NDArray[np.float32]:
        width = max(1, *map(len, token_ids))
        ids = np.zeros((len(token_ids), width), np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(token_ids):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, {k: v for k, v in feeds.items() if k in self._inputs})[0]
        weights = mask[:, :, None].astype(np.float32)
        pooled = (hidden * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)
        unit: NDArray[np.float32] = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
        return unit.astype(np.float32)


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Places of texts to compute together: of like length, so that little is padded, and few enough."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[i] * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
