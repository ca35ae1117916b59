"""*classify*: one label for a text. A head on embeddings, or a small model that scores the labels."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.answers import Answer, Ask, Earlier, Failed, Signals, Usage
from protocols.packs import Pack
from swarm.engine.base import Embedder, LanguageModel, Prompt, ScoreRequest, Turn
from swarm.engine.head import SoftmaxHead
from swarm.specialists.base import (
    Rehearsed,
    cut,
    gist,
    mean_bytes,
    n_bytes,
    notes_of,
    origin,
    over_allowance,
    text_allowance,
    text_of,
)
from swarm.specialists.examples import ExampleIndex

MOST_OPTIONS = 16  # up to this many labels all are scored; of more, the nearest `SHORTLIST`
SHORTLIST = 10
SHOTS = 6
SHOT_TOKENS = 120  # of an example
TURN_TOKENS = 8  # chat markup around a turn
TEXT_TOKENS = 600  # of a longer message the beginning and the end are read
REHEARSALS = 32
OWN_SHARE = 0.5  # weight of the model's own log-probabilities beside the head's, where there are both
PRIOR_SHARE = 0.5  # how much of the model's bias towards some labels is taken off; all of it measures worse


@dataclass(frozen=True, slots=True)
class HeadFit:
    """Softmax regression on embeddings: `weights` (labels x dimension), `bias` (labels).

    `held_out[i]` are the probabilities of example i by a fit that had not seen it, in the order of `labels`; all zero
    where a label has too few examples for such a fit.
    """

    labels: tuple[str, ...]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    held_out: NDArray[np.float32]

    def engine(self, embedder: Embedder) -> SoftmaxHead:
        """The head as an engine over the embedder whose vectors it was fitted on."""
        return SoftmaxHead(embedder, self.weights, self.bias)


def fit_head(index: ExampleIndex, inverse_regularisation: float = 10.0, folds: int = 5) -> HeadFit:
    """Multinomial logistic regression on the pack's examples, with cross-fitted probabilities beside it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    targets = np.array(index.keys)
    labels = tuple(sorted(set(index.keys)))
    column = {label: i for i, label in enumerate(labels)}

    def fitted(rows: NDArray[np.intp]) -> LogisticRegression:
        return LogisticRegression(C=inverse_regularisation, max_iter=300).fit(index.vectors[rows], targets[rows])

    held_out = np.zeros((len(targets), len(labels)), dtype=np.float32)
    rarest = min(int((targets == label).sum()) for label in labels)
    if rarest >= 2:
        splitter = StratifiedKFold(min(folds, rarest), shuffle=True, random_state=0)
        for train, test in splitter.split(index.vectors, targets):
            model = fitted(train)
            held_out[np.ix_(test, [column[c] for c in model.classes_])] = model.predict_proba(index.vectors[test])
    model = fitted(np.arange(len(targets)))
    weights, bias = model.coef_, model.intercept_
    if len(labels) == 2:  # the library keeps one row for two classes
        weights, bias = np.vstack([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
    return HeadFit(labels, weights.astype(np.float32), bias.astype(np.float32), held_out)


def allowance(pack: Pack, given: Mapping[str, Any]) -> int:
    """Language-model tokens that the small tier may use for this input: what its fullest prompt is likely to need."""
    shot = min(SHOT_TOKENS, mean_bytes(pack.examples, pack.input[0]) // 3) + 2 * TURN_TOKENS + 4
    labels = sum(n_bytes(label) // 3 + 3 for label in pack.labels) * 2
    text = text_allowance(text_of(pack, given), TEXT_TOKENS) + n_bytes(notes_of(pack, given)) // 2
    return 64 + n_bytes(pack.instructions) // 3 + labels + SHOTS * shot + text


class Head:
    """Tier *head*: embedding → softmax regression fitted on the pack's examples."""

    def __init__(self, pack: Pack, index: ExampleIndex, fit: HeadFit, embedder: Embedder) -> None:
        self._pack = pack
        self._index = index
        self._fit = fit
        self._engine = fit.engine(embedder)

    async def answer(self, ask: Ask) -> Answer | Failed:
        predicted = await self._engine.predict((gist(text_of(self._pack, ask.input)),))
        label, signals = self._judge(predicted.probabilities[0], self._index.cosines(predicted.vectors[0]))
        return Answer(id=ask.id, output={"label": label}, signals=signals)

    async def rehearse(self) -> list[Rehearsed]:
        rehearsed = []
        for i, key in enumerate(self._index.keys):
            if said := self.held_out(i):
                label, signals = said
                rehearsed.append(Rehearsed(signals, label == key))
        return rehearsed

    def held_out(self, i: int) -> tuple[str, Signals] | None:
        """What this head would have said of example `i` without having seen it, or None if nobody can say."""
        if not self._fit.held_out[i].any():
            return None
        return self._judge(self._fit.held_out[i], self._index.cosines(self._index.vectors[i], without=i))

    def _judge(self, p: NDArray[np.float32], cosines: NDArray[np.float32]) -> tuple[str, Signals]:
        signals = option_signals(dict(zip(self._fit.labels, p.tolist(), strict=True)), self._index.similarity(cosines))
        return next(iter(signals.options)), signals


@dataclass(frozen=True, slots=True)
class Choice:
    """What the model makes of the labels: log-probabilities (nats) that add up to one."""

    labels: tuple[str, ...]
    logprobs: NDArray[np.float32]
    similarity: float
    usage: Usage


class Chooser:
    """Tier *small*: every label scored by its log-probability after the nearest examples.

    Where a cheaper tier gave probabilities for the labels, the two log-probabilities are added: a product of experts.
    `adapter` is the path of a LoRA that `model` was opened with.
    """

    def __init__(
        self,
        pack: Pack,
        tier: str,
        model: LanguageModel,
        index: ExampleIndex,
        embedder: Embedder,
        head: Head | None,
        adapter: str | None = None,
    ) -> None:
        self._pack = pack
        self._tier = tier
        self._model = model
        self._adapter = adapter
        self._index = index
        self._embedder = embedder
        self._head = head
        self._label_tokens: dict[str, int] = {}
        self.prior: NDArray[np.float32] | None = None  # mean log-probability of each label, whatever the message

    async def answer(self, ask: Ask) -> Answer | Failed:
        text = text_of(self._pack, ask.input)
        (vector,) = await self._embedder.embed((gist(text),))
        choice = await self._scored(ask, self._index.cosines(vector))
        return choice if isinstance(choice, Failed) else self._judged(ask, choice)

    async def rehearse(self) -> list[Rehearsed]:
        """On the examples that the head is least sure of: those are the ones this tier will be asked about.

        Also learns `prior`, the model's bias over those examples (batch calibration, Zhou et al., ICLR 2024).
        """
        order = list(range(len(self._index.keys)))
        said = {i: self._head.held_out(i) if self._head is not None else None for i in order}
        if any(said.values()):
            order.sort(key=lambda i: s[1].p or 0.0 if (s := said[i]) else 0.0)
        else:
            order = order[:: max(1, len(order) // REHEARSALS)]
        asks = [(i, self._rehearsal(i, said[i])) for i in order[:REHEARSALS]]
        choices = await asyncio.gather(*(self._scored(ask, self._without(i)) for i, ask in asks))
        scored = [(i, ask, c) for (i, ask), c in zip(asks, choices, strict=True) if isinstance(c, Choice)]
        if scored and len(self._pack.labels) <= MOST_OPTIONS:
            self.prior = np.mean([c.logprobs for _, _, c in scored], axis=0, dtype=np.float32)
        answers = [(i, self._judged(ask, c)) for i, ask, c in scored]
        return [Rehearsed(a.signals, a.output["label"] == self._index.keys[i]) for i, a in answers]

    def _rehearsal(self, i: int, said: tuple[str, Signals] | None) -> Ask:
        earlier = (Earlier("head", {"label": said[0]}, said[1]),) if said else ()
        return Ask(
            id=f"rehearsal-{i}", task="", step="", specialist=self._pack.name, tier=self._tier,
            input=self._pack.examples[i].input, max_tokens=100_000, earlier=earlier,
        )  # fmt: skip

    def _without(self, i: int) -> NDArray[np.float32]:
        return self._index.cosines(self._index.vectors[i], without=i)

    async def _scored(self, ask: Ask, cosines: NDArray[np.float32]) -> Choice | Failed:
        labels = self._candidates(ask, cosines)
        prompt = self._prompt(ask, cosines, labels)
        if prompt is None:
            return over_allowance(ask)
        options = tuple(f" {spoken(label)}" for label in labels)
        scored = await self._model.score(ScoreRequest(prompt, options, adapter=self._adapter, origin=origin(ask)))
        own = np.log(softmax(np.array(scored.logprobs)) + 1e-9)
        return Choice(tuple(labels), own, self._index.similarity(cosines), Usage(tokens_in=scored.tokens_in))

    def _judged(self, ask: Ask, choice: Choice) -> Answer:
        labels, own = choice.labels, choice.logprobs
        if self.prior is not None and len(self.prior) == len(own):
            own = own - PRIOR_SHARE * self.prior
        mixed = dict(zip(labels, _mixed(own, labels, ask.earlier).tolist(), strict=True))
        signals = option_signals(mixed, choice.similarity, _agreement(labels, own, ask.earlier))
        return Answer(id=ask.id, output={"label": next(iter(signals.options))}, signals=signals, usage=choice.usage)

    def _candidates(self, ask: Ask, cosines: NDArray[np.float32]) -> list[str]:
        labels = list(self._pack.labels) or sorted(set(self._index.keys))
        if len(labels) <= MOST_OPTIONS:
            return labels
        named = [o for e in ask.earlier for o in e.signals.options if o in self._pack.labels]
        near = self._index.likely_labels(cosines, SHORTLIST)
        return list(dict.fromkeys(named + near))[:SHORTLIST]

    def _option_tokens(self, labels: list[str]) -> int:
        for label in labels:
            if label not in self._label_tokens:
                self._label_tokens[label] = self._model.count(f" {spoken(label)}")
        return sum(self._label_tokens[label] for label in labels)

    def _prompt(self, ask: Ask, cosines: NDArray[np.float32], labels: list[str]) -> Prompt | None:
        """The prompt with as many examples as the allowance takes, or None if not even a short message fits."""
        system = self._pack.instructions.strip()
        if len(labels) == len(self._pack.labels):
            system += "\nLabels: " + ", ".join(spoken(label) for label in labels)
        notes = notes_of(self._pack, ask.input)
        taken = self._option_tokens(labels) + self._model.count(system) + 24  # for chat markup and "Label:"
        room = ask.max_tokens - taken
        if room < 4 * TURN_TOKENS:
            return None
        left = room - 2 * TURN_TOKENS - (self._model.count(notes) if notes else 0)
        message = cut(text_of(self._pack, ask.input), self._model, min(TEXT_TOKENS, left))
        for shots in (SHOTS, SHOTS // 2, 1, 0):
            turns = [*self._shots(cosines, shots), Turn("user", f"{notes}Message: {message}")]
            if sum(self._model.count(turn.text) + TURN_TOKENS for turn in turns) <= room:
                return Prompt((Turn("system", system), *turns), answer_start="Label:", shared=1)
        return None

    def _shots(self, cosines: NDArray[np.float32], shots: int) -> list[Turn]:
        turns = []
        for example in self._index.nearest(cosines, shots, per_key=2):
            turns.append(Turn("user", f"Message: {cut(text_of(self._pack, example.input), self._model, SHOT_TOKENS)}"))
            turns.append(Turn("assistant", f"Label: {spoken(str(example.output['label']))}"))
        return turns


def option_signals(options: dict[str, float], similarity: float, agrees: float | None = None) -> Signals:
    """Signals of a choice among options with probabilities that add up to one."""
    ranked = sorted(options.items(), key=lambda item: -item[1])
    runner_up = ranked[1][1] if len(ranked) > 1 else 0.0
    entropy = -sum(p * math.log(p) for _, p in ranked if p > 0) / math.log(max(2, len(ranked)))
    return Signals(
        p=ranked[0][1],
        margin=ranked[0][1] - runner_up,
        entropy=entropy,
        similarity=similarity,
        agreement=agrees,
        options={label: round(p, 5) for label, p in ranked[:5]},
    )


def softmax(scores: NDArray[np.floating]) -> NDArray[np.float32]:
    shifted = np.exp(scores - scores.max())
    return np.asarray(shifted / shifted.sum(), np.float32)


def spoken(label: str) -> str:
    """A label as a model reads it best: words, not an identifier."""
    return label.replace("_", " ")


def _mixed(own: NDArray[np.float32], labels: Sequence[str], earlier: tuple[Earlier, ...]) -> NDArray[np.float32]:
    """The model's probabilities times the latest earlier ones; what those do not name gets a share of their rest."""
    known = next((e.signals.options for e in reversed(earlier) if e.signals.options), None)
    if known is None:
        return softmax(own)
    unnamed = max(1, sum(label not in known for label in labels))
    rest = max(1e-4, 1.0 - sum(known.values())) / unnamed
    before = np.array([max(1e-6, known.get(label, rest)) for label in labels])
    return softmax(OWN_SHARE * own + np.log(before))


def _agreement(labels: Sequence[str], own: NDArray[np.float32], earlier: tuple[Earlier, ...]) -> float | None:
    """Whether the model alone, before mixing, says what the tier before it said."""
    if not earlier:
        return None
    return float(labels[int(own.argmax())] == earlier[-1].output.get("label"))
