"""One full and one bare sample of everything that crosses a process boundary or is kept on disk."""

from __future__ import annotations

from typing import Any

import msgspec

from protocols import engine, events
from protocols.answers import Answer, Ask, Earlier, Failed, Signals, Usage
from protocols.control import Adapter, Calibration, Cancel, Health, HostSpec, ModelSpec, Overloaded, Ready, Recording
from protocols.detached import Answered, Launch, Launched
from protocols.envelope import Envelope, Message
from protocols.money import Amount, Limit
from protocols.packs import Example, Pack, Templates
from protocols.records import Attempt, Balance, RunRecord
from protocols.tasks import Result, StepResult, Task, Why
from protocols.work import (
    EngineSpec,
    EngineStatistics,
    Generated,
    GenerateRequest,
    Origin,
    Prompt,
    Scored,
    ScoreRequest,
    Turn,
)

SIGNALS = Signals(
    p=0.75, margin=0.5, entropy=0.25, mean_logprob=-0.5, min_logprob=-2.0, similarity=0.625, agreement=1.0,
    checks_failed=("in_message",), options={"fees": 0.75, "none": 0.25},
)  # fmt: skip
USAGE = Usage(tokens_in=120, tokens_out=7, ms=35, micro_usd=19)
PACK = Pack(
    name="intent", kind="classify", description="What is wanted.", instructions="Choose.", input=("text", "lang"),
    output_schema={"type": "object"}, examples=(Example({"text": "Größe?"}, {"label": "fees"}),),
    labels={"fees": "asks for fees", "none": "other"}, none_label="none", patterns={"id": ("(?P<value>#\\d+)",)},
    checks=("in_message",), templates=Templates("label", {"fees": "Dear {name|you}"}, "Hello", ("none",)),
    max_tokens=16, tools="/packs/intent/tools.py", tools_sha256="ab" * 32,
)  # fmt: skip
MODEL = ModelSpec(
    tier="remote", kind="remote", name="gpt", base_url="https://a.example/v1", key_env="KEY",
    input_micro_usd_per_mtok=150_000, output_micro_usd_per_mtok=600_000, timeout_s=5.5, context=2048, gpu_layers=3,
)  # fmt: skip
RECORDED = ModelSpec(
    tier="small", kind="small", name="said.jsonl", input_micro_usd_per_mtok=0, output_micro_usd_per_mtok=0,
    recording=Recording(path="/said.jsonl", sha256="cd" * 32, most_micro_usd=400, most_tokens=90, timed=True),
)  # fmt: skip
WHY = Why(
    step="intent", decision="escalate", tier="small", confidence=0.5, accept_at=0.75, signals={"p": 0.5},
    hold=Amount(tokens=600), budget_left={"task.tokens": 40, "run.usd": None}, reason="not sure",
)  # fmt: skip
RESULT = Result(
    task="t-1", status="degraded", output={"intent": {"label": "fees"}},
    steps={"intent": StepResult(step="intent", status="degraded", output={"label": "fees"}, tier="small",
                                confidence=0.5, reason="not sure")},
    confidence=0.5, cost=Amount(micro_usd=19, tokens=127, ms=35), why=(WHY,), reason="step 'intent'", ms=80, position=3,
)  # fmt: skip

BODIES: dict[str, Message] = {
    "ask": Ask(
        id="a-1", task="t-1", step="intent", specialist="s", tier="small",
        input={"text": "Größe?", "n": [1, 2.5, None]}, max_tokens=600, left_ms=1500,
        earlier=(Earlier("head", {"label": "none"}, Signals(p=0.5)),),
    ),
    "ask, for candidates": Ask(
        id="a-1", task="t-1", step="fields", specialist="s", tier="small", input={}, max_tokens=900, samples=5
    ),
    "ask, bare": Ask(id="a-1", task="t-1", step="intent", specialist="s", tier="small", input={}, max_tokens=0),
    "ask, of a write": Ask(
        id="a-1", task="t-1", step="pay", specialist="pay", tier="code", input={}, max_tokens=0,
        key="ab" * 32, once=True
    ),
    "answer": Answer(id="a-1", output={"label": "fees"}, signals=SIGNALS, usage=USAGE, host="host-0"),
    "answer, bare": Answer(id="a-1", output={}),
    "failed": Failed(
        id="a-1", reason="timeout", detail="no time left", retryable=True, unknown=True, signals=SIGNALS, usage=USAGE,
        host="host-0", retry_ms=1500,
    ),
    "failed, nobody knows whether it was done": Failed(id="a-1", reason="unknown_effect"),
    "failed, bare": Failed(id="a-1", reason="error"),
    "cancel": Cancel(id="a-1"),
    "overloaded": Overloaded(id="a-1", host="host-0", retry_ms=75),
    "overloaded, bare": Overloaded(id="a-1", host="host-0"),
    "host_spec": HostSpec(
        host="host-0", packs={"s": PACK}, tiers={"s": ("head", "remote")}, models={"remote": MODEL}, threads=2,
        mailbox=9, registry="models.yaml", adapters={"s/small": Adapter(path="/a.gguf", sha256="ef" * 32)},
    ),
    "host_spec, with a tool that writes": HostSpec(
        host="host-0", packs={"pay": Pack(name="pay", kind="tool", effects="write", idempotent=True)},
        tiers={}, models={}
    ),
    "host_spec, with what was recorded": HostSpec(
        host="host-0", tiers={"s": ("small",)}, models={"small": RECORDED},
        packs={"s": Pack(name="s", kind="extract", equals={"total": "price * quantity"}),
               "pay": Pack(name="pay", kind="tool", requires=("amount <= 500",))},
    ),
    "host_spec, bare": HostSpec(host="host-0", packs={}, tiers={}, models={}),
    "ready": Ready(
        host="host-0", node="n", pid=7, models={"small": "cd" * 32},
        calibrations={"s/small": Calibration(intercept=0.5, weights={"p": 1.5}, n_labels=80, accuracy=0.75)},
    ),
    "ready, bare": Ready(host="host-0", node="n", pid=7),
    "health": Health(host="host-0", waiting=1, running=2, answered=3, rss_bytes=4096),
}  # fmt: skip

RECORDS: dict[str, Any] = {
    "task": Task(id="t-1", run="r-1", input={"text": "Größe?"}, left_ms=60_000),
    "task, short of the run's time": Task(id="t-1", run="r-1", input={}, left_ms=5, left_of="run"),
    "result": RESULT,
    "result, bare": Result(task="t-1", status="failed"),
    "attempt": Attempt(
        id="a-1", task="t-1", step="intent", tier="small", outcome="escalated", host="host-0", tokens_in=120,
        tokens_out=7, ms=35, micro_usd=19, confidence=0.5, reason="r", remote_tokens_in=200, remote_tokens_out=6,
    ),
    "attempt, bare": Attempt(id="a-1", task="t-1", step="intent", tier="small", outcome="failed"),
    "balance": Balance(limit=Limit(micro_usd=10, tokens=20, ms=30), settled=Amount(tokens=5), held=Amount(tokens=6)),
    "balance, overrun": Balance(limit=Limit(), settled=Amount(tokens=5), overrun=Amount(micro_usd=7, tokens=8)),
    "run": RunRecord(id="r-1", swarm="s", plan_hash="ef", started=1.5, about={"unavailable": {}}, finished=2.5),
    "task.accepted": events.TaskAccepted(task="t-1"),
    "step.asked": events.StepAsked(task="t-1", step="intent", tier="small"),
    "step.accepted": events.StepAccepted(task="t-1", step="intent", tier="small", confidence=0.75, output={"a": 1}),
    "step.escalated": events.StepEscalated(
        task="t-1", step="intent", from_tier="head", to_tier=None, reason="r", confidence=0.5
    ),
    "step.ended": events.StepEnded(task="t-1", step="intent", status="failed", reason="r"),
    "task.finished": events.TaskFinished(task="t-1", result=Result(task="t-1", status="done")),
    "launch": Launch(file="/s.yaml", plan_hash="ef", store="/s.db", hosts_kind="in-process"),
    "launched": Launched(file="/s.yaml", plan_hash="ef", run="r-1"),
    "answered": Answered(result=RESULT, untold=[events.TaskAccepted(task="t-1")]),
    "answered, bare": Answered(result=Result(task="t-1", status="done")),
}  # fmt: skip

PROMPT = Prompt((Turn("system", "Choose."), Turn("assistant", "Yes?"), Turn("user", "Größe?")), "Label:", 2)
ORIGIN = Origin("t-1", "intent", 1.5)
SCORE = ScoreRequest(
    PROMPT,
    (" fees", " none"),
    need="best",
    by_length=True,
    prior=Prompt((Turn("user", ""),)),
    prior_share=0.25,
    offsets=(0.5, -0.5),
    adapter="/a.gguf",
    origin=ORIGIN,
)
WRITE = GenerateRequest(
    PROMPT,
    40,
    schema={"type": "object", "maxProperties": 2},
    regex="a+",
    stop=("\n",),
    temperature=0.5,
    seed=7,
    draft=False,
    adapter="/a.gguf",
    origin=ORIGIN,
)
WRITTEN = Generated("é", "length", 9, 2, 7, (-0.5, -1.25), {"label": -0.5}, 4, 3)

ENGINE: dict[str, engine.ToEngine | engine.FromEngine] = {
    "open": engine.OpenEngine(
        EngineSpec(
            "/m.gguf", "chatml", threads=2, context=2048, sequences=16, batch=128, gpu_layers=3, flash_attention=False,
            kv_format="q8_0", model_hash="ab" * 32, prefix_folder="/p", adapters=("/a.gguf",),
        )
    ),
    "open, bare": engine.OpenEngine(EngineSpec("/m.gguf")),
    "score": engine.Score(1, SCORE),
    "score, bare": engine.Score(1, ScoreRequest(Prompt((Turn("user", "?"),)), (" a",))),
    "generate": engine.Generate(2, WRITE),
    "generate, bare": engine.Generate(2, GenerateRequest(Prompt((Turn("user", "?"),)), 1)),
    "candidates": engine.Candidates(3, WRITE, 8),
    "drop": engine.Drop(3),
    "close": engine.CloseEngine(),
    "opened": engine.Opened(),
    "score_done": engine.ScoreDone(1, Scored((-0.5, -2.0), (1, 3), 9, 7, (-0.5, -1.0), (True, False))),
    "score_done, bare": engine.ScoreDone(1, Scored((-0.5,), (1,), 9, 7)),
    "generate_done": engine.GenerateDone(2, WRITTEN),
    "generate_done, bare": engine.GenerateDone(2, Generated("", "stop", 1, 1, 0, ())),
    "candidates_done": engine.CandidatesDone(3, (WRITTEN, WRITTEN)),
    "refused": engine.Refused("prompt_too_long", "shorten it", 1),
    "refused, bare": engine.Refused("model_damaged", "pull it again"),
    "statistics": engine.Statistics(EngineStatistics(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)),
    "logged": engine.Logged("warning", "engine.slow", {"cells": "7"}),
    "logged, bare": engine.Logged("error", "engine.step.broken"),
}  # fmt: skip


def envelope(name: str) -> Envelope:
    """The sample of that name on its way; the bare ones with as little as an envelope can have."""
    body = BODIES[name]
    return Envelope(to="host-0", sender="dispatcher", body=body, delivery=1 if name.endswith("bare") else 2)


def record_bytes(name: str) -> bytes:
    return msgspec.msgpack.encode(RECORDS[name])
