"""What a host learns from its packs' examples (vectors, heads, calibrations), kept from one launch to the next."""

from __future__ import annotations

import structlog

from protocols.control import Calibration
from protocols.packs import Pack
from swarm.dispatch import calibrate
from swarm.engine.base import Embedder
from swarm.specialists import classify
from swarm.specialists.base import Answerer
from swarm.specialists.examples import ExampleIndex
from swarm.state.fits import FitCache

log = structlog.get_logger(__name__)


class Learnt:
    """Each is computed once for the same pack and models, and read from `fits` after that."""

    def __init__(self, fits: FitCache) -> None:
        self._fits = fits
        self._embedder: Embedder | None = None
        self._embedder_hash = ""

    def see_with(self, embedder: Embedder, sha256: str) -> None:
        """The embedder of what is learnt from now on."""
        self._embedder, self._embedder_hash = embedder, sha256

    async def index(self, pack: Pack) -> ExampleIndex:
        if self._embedder is None:
            import numpy as np

            return ExampleIndex(pack, np.zeros((len(pack.examples), 1), np.float32))
        key = FitCache.key("index", pack.content_hash(), self._embedder_hash)
        if kept := self._fits.arrays(key):
            return ExampleIndex(pack, kept["vectors"])
        index = await ExampleIndex.build(pack, self._embedder)
        self._fits.keep_arrays(key, {"vectors": index.vectors})
        return index

    def head_fit(self, pack: Pack, index: ExampleIndex) -> classify.HeadFit:
        key = FitCache.key("head", pack.content_hash(), self._embedder_hash)
        if kept := self._fits.arrays(key):
            labels = tuple(sorted(set(index.keys)))
            return classify.HeadFit(labels, kept["weights"], kept["bias"], kept["held_out"])
        fit = classify.fit_head(index)
        self._fits.keep_arrays(key, {"weights": fit.weights, "bias": fit.bias, "held_out": fit.held_out})
        return fit

    async def calibration(
        self, pack: Pack, tier: str, made_of: tuple[str, ...], answerer: Answerer
    ) -> Calibration | None:
        """Of a tier, `made_of` its kind, its models and the cheaper tiers; `None` where there are no examples."""
        key = FitCache.key("calibration", pack.content_hash(), *made_of)
        if (kept := self._fits.calibration(key)) is not None:
            if isinstance(answerer, classify.Chooser) and (prior := self._fits.arrays(f"{key}-prior")):
                answerer.prior = prior["prior"]
            return kept[0]
        rehearsed = await answerer.rehearse()
        if isinstance(answerer, classify.Chooser) and answerer.prior is not None:
            self._fits.keep_arrays(f"{key}-prior", {"prior": answerer.prior})
        fitted = calibrate.fit([r.signals for r in rehearsed], [r.correct for r in rehearsed]) if rehearsed else None
        if fitted is not None:
            log.info(
                "tier.calibrated", specialist=pack.name, tier=tier, examples=len(rehearsed), accuracy=fitted.accuracy
            )
        self._fits.keep_calibration(key, fitted)
        return fitted
