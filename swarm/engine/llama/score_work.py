"""Options to be scored after a prompt, on their way through the engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swarm.engine.base import Scored, ScoreRequest
from swarm.engine.llama.scoring import ROOT, OptionTree, Wave
from swarm.engine.llama.search import Bounds
from swarm.engine.llama.work import Result, Rows, Work


class ScoreWork(Work):
    """Reads all options together with the prompt's end or, where only the best matters, the promising ones after it."""

    def __init__(
        self,
        prompt: Sequence[int],
        tree: OptionTree,
        request: ScoreRequest,
        offsets: Sequence[float] = (),
        *,
        shared: int = 0,
    ) -> None:
        super().__init__(prompt, tree.room, shared=shared, origin=request.origin)
        self._tree = tree
        self._searching = request.need == "best"
        lengths = np.array(tree.lengths, np.float64)
        weights = 1 / lengths if request.by_length else np.ones_like(lengths)
        self._bounds = Bounds(tree, weights, np.array(offsets or np.zeros_like(lengths), np.float64))
        self._edges = tree.known.copy()
        self._waves = () if self._searching else tree.waves
        self._waves_done = 0
        self._root_read = False

    @property
    def wave(self) -> Wave | None:
        return self._waves[self._waves_done] if self._waves_done < len(self._waves) else None

    @property
    def writing(self) -> bool:
        return self._root_read

    def restart(self) -> None:
        self._waves, self._waves_done = () if self._searching else self._tree.waves, 0
        self._root_read = False

    def absorb(self, heads: Rows, wave: Wave | None, rows: Rows) -> Result | None:
        if len(heads):
            self._tree.read([ROOT], heads, self._edges)
            self._root_read = True
        if wave is not None:
            self._tree.read([node.id for node in wave.nodes if node.read], rows, self._edges)
            self._waves_done += 1
            self.tokens_in += len(wave.nodes)
        if self.pending or self.wave:
            return None
        self._bounds.learn(self._edges)
        if self._searching and (options := self._bounds.open()):
            self._waves, self._waves_done = self._tree.waves_for(options), 0
            return None
        return self._result()

    def _result(self) -> Scored:
        bounds = self._bounds
        return Scored(
            logprobs=tuple(bounds.logprobs.tolist()),
            lengths=self._tree.lengths,
            tokens_in=self.tokens_in,
            tokens_cached=self.tokens_cached,
            scores=tuple(bounds.scores.tolist()),
            exact=tuple(bounds.exact.tolist()),
        )
