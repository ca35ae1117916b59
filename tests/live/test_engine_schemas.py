"""Whatever the schema and whatever the model would rather say: the text is JSON that satisfies the schema."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schema_strategy import schemas

from swarm.engine.base import EngineSpec, Generated, GenerateRequest, Prompt, Turn
from swarm.engine.llama.drafting import Acceptance
from swarm.engine.llama.engine import LlamaEngine
from swarm.engine.llama.generate_work import GenerateWork
from swarm.engine.llama.grammar.structured import Grammars, check_schema
from swarm.engine.llama.model import Model
from swarm.errors import SchemaUnsupported

N_SCHEMAS = int(os.environ.get("SWARM_SCHEMAS", "250"))  # `make faults` asks for 2,000
N_ROWS = 32
QUIET = settings(
    max_examples=N_SCHEMAS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
    print_blob=True,
)

seen: Counter[str] = Counter()


class Babbler:
    """Random logits for a real vocabulary; what ends strings, lists and objects is now and then much likelier."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.grammars = Grammars(model)
        random = np.random.default_rng(0)
        self._rows = random.standard_normal((N_ROWS, model.n_vocabulary), np.float32)
        marks = [t for t in range(model.n_vocabulary) if not model.piece(t).strip(b' "]},:0123456789')]
        self._rows[::2, marks] += 4

    def write(self, request: GenerateRequest) -> Generated:
        """What a model with such logits writes; its text repeats itself, so that drafts are made."""
        matcher = self.grammars.matcher(request)
        work = GenerateWork(self.model, (1, 2, 3), request, matcher, acceptance=Acceptance())
        random = np.random.default_rng(request.seed)
        result = work.finished()
        while result is None:
            if work.writing:
                work.prepare(0, 8)
            heads = self._rows[random.integers(0, N_ROWS, work.wanted)]
            work.pending.clear()
            outcome = work.absorb(heads, None, self._rows[:0])
            assert outcome is None or isinstance(outcome, Generated)
            result = outcome
        return result


@pytest.fixture(scope="module")
def babbler(smollm2_path: str) -> Iterator[Babbler]:
    model = Model.load(EngineSpec(smollm2_path, "chatml"))
    yield Babbler(model)
    model.close()


def request(schema: dict[str, Any], max_tokens: int, temperature: float = 0.0, seed: int = 0) -> GenerateRequest:
    turns = (Turn("user", "Say something."),)
    return GenerateRequest(Prompt(turns), max_tokens, schema, temperature=temperature, seed=seed)


def check(schema: dict[str, Any], text: str) -> None:
    error = next(Draft202012Validator(schema).iter_errors(json.loads(text)), None)
    assert error is None, f"{text} is not what {json.dumps(schema)} asks for: {error and error.message}"


@QUIET
@given(
    schema=schemas,
    max_tokens=st.integers(1, 100),
    temperature=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_text_satisfies_its_schema(
    babbler: Babbler, schema: dict[str, Any], max_tokens: int, temperature: float, seed: int
) -> None:
    """Random schemas, random choices, any limit: the text validates, or the schema is refused before it is begun."""
    try:
        check_schema(schema)
    except SchemaUnsupported:
        seen["refused"] += 1
        assume(False)
    try:
        result = babbler.write(request(schema, max_tokens, temperature, seed))
    except SchemaUnsupported as error:
        assert "max_tokens" in str(error), error
        seen["does not fit"] += 1
        return
    check(schema, result.text)
    assert result.tokens_out <= max_tokens
    seen[result.finish] += 1


def test_the_random_schemas_were_no_easy_ones() -> None:
    """Enough of them were accepted, ended by themselves, and had to be cut."""
    accepted = seen.total() - seen["refused"]
    print(seen)
    assert min(accepted, seen["stop"], seen["length"]) > N_SCHEMAS // 10, seen


def some_schemas(n: int) -> list[dict[str, Any]]:
    """The first `n` random schemas that are accepted and have something to choose."""
    found: list[dict[str, Any]] = []

    @settings(QUIET, max_examples=20 * n, phases=[Phase.generate])
    @given(schemas)
    def collect(schema: dict[str, Any]) -> None:
        if len(found) < n and "const" not in schema:
            with suppress(SchemaUnsupported):
                check_schema(schema)
                found.append(schema)

    collect()
    return found


async def test_a_real_model_satisfies_every_schema(smollm2_path: str) -> None:
    """Twenty random schemas at once, with little room and with much: what the model writes validates."""
    engine = LlamaEngine.open(EngineSpec(smollm2_path, "chatml", threads=1, context=2048))
    asked = [request(schema, 24 + 3 * i) for i, schema in enumerate(some_schemas(20))]
    try:
        results = await asyncio.gather(*map(engine.generate, asked), return_exceptions=True)
    finally:
        engine.close()
    written = [result for result in results if isinstance(result, Generated)]
    for one, result in zip(asked, results, strict=True):
        if isinstance(result, Generated):
            check(one.schema or {}, result.text)
        else:
            assert isinstance(result, SchemaUnsupported) and "max_tokens" in str(result)
    assert len(written) >= 10
