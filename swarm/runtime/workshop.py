"""What a host works with: its models, its packs' fitted heads, and one answerer for each (specialist, tier)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from protocols.answers import Answer, Ask, Failed
from protocols.control import Adapter, Calibration, HostSpec, ModelSpec
from protocols.packs import Pack
from swarm.catalogue import Catalogue
from swarm.engine.base import Embedder, EngineSpec, LanguageModel
from swarm.engine.replay import Replay
from swarm.errors import ModelDamaged, ModelNotFound, PackError
from swarm.models.files import sha256_of
from swarm.models.registry import Registry
from swarm.models.store import ModelFiles, ModelStore, default_home
from swarm.models.tuned import Setting, opening
from swarm.observe.secrets import name_secret
from swarm.runtime.learnt import Learnt
from swarm.runtime.placement import cores
from swarm.specialists import classify, extract, generate, remote, replay, tool
from swarm.specialists.base import Answerer
from swarm.specialists.examples import ExampleIndex
from swarm.specialists.guarded import guarded
from swarm.state.fits import FitCache

if TYPE_CHECKING:
    from swarm.engine.remote import RemoteModel

SEQUENCES = 48  # requests that one engine decodes side by side


class Workshop:
    """Opened once a host; answers until it is closed."""

    def __init__(self, spec: HostSpec, models: ModelStore, fits: FitCache) -> None:
        self.calibrations: dict[str, Calibration] = {}
        self.model_hashes: dict[str, str] = {}
        self._spec = spec
        self._threads = min(spec.threads, cores())
        self._models = models
        self._learnt = Learnt(fits)
        self._embedder: Embedder | None = None
        self._embedder_hash = ""
        self._language: dict[str, LanguageModel] = {}  # weights path -> engine, one for each model
        self._tiers: dict[str, LanguageModel] = {}
        self._replays: dict[str, Replay] = {}
        self._answerers: dict[tuple[str, str], Answerer] = {}
        self._remote: list[RemoteModel] = []
        self._closing: list[asyncio.Future[None]] = []

    @classmethod
    async def open(cls, spec: HostSpec, models: ModelStore | None = None) -> Workshop:
        """Load the models, fit the heads, calibrate. Raises `ModelError`, `PackError`, `RemoteError`."""
        workshop = cls(spec, models or _models(spec), FitCache(default_home() / "fits"))
        try:
            await workshop._open_models()
            for name, pack in spec.packs.items():
                await workshop._open_specialist(name, pack, spec.tiers[name])
        except BaseException:
            workshop.close()
            raise
        return workshop

    async def answer(self, ask: Ask) -> Answer | Failed:
        answerer = self._answerers.get((ask.specialist, ask.tier))
        if answerer is None:
            detail = f"host {self._spec.host!r} has no tier {ask.tier!r} of {ask.specialist!r}"
            return Failed(id=ask.id, reason="unavailable", detail=detail)
        return await answerer.answer(ask)

    def close(self) -> None:
        """Free the models. The connections to remote ones are closed a moment later, on the event loop."""
        self._closing = [asyncio.ensure_future(model.close()) for model in self._remote]
        self._remote = []
        for engine in self._language.values():
            engine.close()
        if self._embedder is not None:
            self._embedder.close()

    # --- models

    async def _open_models(self) -> None:
        """Embedders beside language models; of one kind one after the other, as tiers may share a model."""
        models = self._spec.models.values()
        kinds = dict.fromkeys(model.kind for model in models)
        opening = (self._open_each([m for m in models if m.kind == kind]) for kind in kinds)
        for problem in await asyncio.gather(*opening, return_exceptions=True):
            if isinstance(problem, BaseException):
                raise problem

    async def _open_each(self, models: Collection[ModelSpec]) -> None:
        for model in models:
            await self._open_model(model)

    async def _open_model(self, model: ModelSpec) -> None:
        if model.recording is not None:
            self._replays[model.tier] = said = await asyncio.to_thread(Replay, model)
            self.model_hashes[model.tier] = said.sha256
            return
        match model.kind:
            case "head":
                files = self._models.path(model.name)
                self._embedder = await asyncio.to_thread(_embedder, files, self._threads)
                self._embedder_hash = files.sha256
                self._learnt.see_with(self._embedder, files.sha256)
                self.model_hashes[model.tier] = files.sha256
            case "small":
                files, setting = opening(self._models, model.name, self._threads)
                if str(files.weights) not in self._language:
                    adapters = await asyncio.to_thread(_checked, self._adapters_of(model.name))
                    engine = await asyncio.to_thread(_language_model, files, model, setting, adapters)
                    self._language[str(files.weights)] = engine
                self._tiers[model.tier] = self._language[str(files.weights)]
                self.model_hashes[model.tier] = files.sha256
            case _:
                pass  # remote models are opened with their specialists; code and person have none

    def _adapter(self, name: str, tier: str) -> Adapter | None:
        return self._spec.adapters.get(f"{name}/{tier}")

    def _adapters_of(self, model: str) -> set[Adapter]:
        """Those of all specialists for the model of this name, whatever its tier is called."""
        tiers = (
            (name, tier) for name, tiers in self._spec.tiers.items() for tier in tiers if tier in self._spec.models
        )
        own = (self._adapter(name, tier) for name, tier in tiers if self._spec.models[tier].name == model)
        return {adapter for adapter in own if adapter is not None}

    # --- specialists

    async def _open_specialist(self, name: str, pack: Pack, tiers: tuple[str, ...]) -> None:
        index = await self._learnt.index(pack) if self._needs_examples(pack, tiers) else None
        for tier in tiers:
            answerer = self._answerer(name, pack, tier, index)
            self._answerers[name, tier] = answerer
            if (calibration := await self._calibration(name, pack, tier, answerer)) is not None:
                self.calibrations[f"{name}/{tier}"] = calibration

    def _kind(self, tier: str) -> str:
        return self._spec.models[tier].kind if tier in self._spec.models else tier

    def _needs_examples(self, pack: Pack, tiers: tuple[str, ...]) -> bool:
        asked = [tier for tier in tiers if tier not in self._replays]
        return pack.kind in ("classify", "extract") and any(self._kind(t) in ("head", "small") for t in asked)

    def _answerer(self, name: str, pack: Pack, tier: str, index: ExampleIndex | None) -> Answerer:
        if tier in self._replays:
            return replay.Recorded(pack, self._replays[tier])
        lora = adapter.path if (adapter := self._adapter(name, tier)) else None
        match pack.kind, self._kind(tier):
            case _, "remote":
                from swarm.engine.remote import RemoteModel

                spec = self._spec.models[tier]
                if spec.key_env:
                    name_secret(spec.key_env)
                self._remote.append(model := RemoteModel(spec))
                return remote.Remote(pack, model)
            case "classify", "head":
                assert index is not None and self._embedder is not None
                return classify.Head(pack, index, self._learnt.head_fit(pack, index), self._embedder)
            case "classify", "small":
                assert index is not None
                if self._embedder is None:
                    raise PackError(
                        f"specialist {name!r}: tier {tier!r} chooses examples by embedding; add an embedding model"
                    )
                heads = [a for (n, _), a in self._answerers.items() if n == name and isinstance(a, classify.Head)]
                return classify.Chooser(
                    pack, tier, self._tiers[tier], index, self._embedder, heads[0] if heads else None, lora
                )
            case "extract", "code":
                return extract.Patterns(pack)
            case "extract", "small":
                assert index is not None
                return extract.Filler(pack, tier, self._tiers[tier], index, self._embedder, lora)
            case "generate", "code":
                return generate.Templates(pack)
            case "generate", "small":
                return generate.Writer(pack, self._tiers[tier], lora)
            case "tool", "code":
                return guarded(pack, tool.Tool(pack, _tools_of(pack)))
            case kind, other:
                raise PackError(f"specialist {name!r}: a {kind} specialist has no tier of kind {other!r}")

    async def _calibration(self, name: str, pack: Pack, tier: str, answerer: Answerer) -> Calibration | None:
        tiers = self._spec.tiers[name]
        model = self.model_hashes.get(tier, "")
        if (adapter := self._adapter(name, tier)) is not None:
            model += f"+{adapter.sha256}"
        made_of = (self._kind(tier), model, self._embedder_hash, *tiers[: tiers.index(tier)])
        return await self._learnt.calibration(pack, tier, made_of, answerer)


def _models(spec: HostSpec) -> ModelStore:
    own = Path(spec.registry) if spec.registry is not None else None
    return ModelStore(registry=Registry.shipped(*([own] if own is not None and own.is_file() else [])))


def open_embedder(model: str, registry: str | None, threads: int = 1) -> Embedder:
    """An embedder of the model registry, outside of any host. Raises `ModelNotFound`, `ModelDamaged`."""
    own = Path(registry) if registry is not None else None
    models = ModelStore(registry=Registry.shipped(*([own] if own is not None and own.is_file() else [])))
    return _embedder(models.path(model), threads)


def _embedder(files: ModelFiles, threads: int) -> Embedder:
    from swarm.engine.embed import OnnxEmbedder

    assert files.tokenizer is not None
    return OnnxEmbedder(files.weights, files.tokenizer, threads)


def _checked(adapters: Collection[Adapter]) -> tuple[str, ...]:
    """Their paths. Raises `ModelNotFound`, `ModelDamaged` when one is not here as the swarm was loaded with it."""
    for adapter in adapters:
        try:
            here = sha256_of(Path(adapter.path))
        except OSError as e:
            raise ModelNotFound(f"adapter {adapter.path} cannot be read here ({e.strerror}); put it there") from None
        if here != adapter.sha256:
            raise ModelDamaged(
                f"adapter {adapter.path} is not the file that the swarm was loaded with; put the same one on every "
                "machine, or load the swarm again"
            )
    return tuple(sorted(adapter.path for adapter in adapters))


def _language_model(files: ModelFiles, model: ModelSpec, setting: Setting, adapters: tuple[str, ...]) -> LanguageModel:
    from swarm.engine.llama.process.process import LlamaProcess

    context = max(model.context, 16_384)  # tokens of KV memory, shared by all requests in flight
    return LlamaProcess.open(
        EngineSpec(
            path=str(files.weights),
            chat_format=files.chat_format or "plain",
            threads=setting.threads,
            context=context,
            sequences=SEQUENCES,
            batch=setting.batch,
            gpu_layers=model.gpu_layers or setting.gpu_layers,
            flash_attention=setting.flash_attention,
            kv_format=setting.kv_format,
            model_hash=files.sha256,
            prefix_folder=str(default_home() / "prefixes"),
            adapters=adapters,
        )
    )


def _tools_of(pack: Pack) -> Path:
    """The pack's code on this machine: where the swarm was loaded, else the catalogue's pack of that name."""
    if pack.tools is not None and Path(pack.tools).is_file():
        return Path(pack.tools)
    here = Catalogue().open(pack.name).tools
    if here is None:
        raise PackError(f"pack {pack.name!r}: its tools.py is not on this machine; install the pack here too")
    return Path(here)
