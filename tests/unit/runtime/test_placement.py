"""Which host answers what: everything together here, or local tiers on the hosts and remote ones where the keys are."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from protocols.control import Adapter, ModelSpec
from protocols.money import Limit
from protocols.packs import Pack
from swarm.config.schema import Runtime
from swarm.plan.plan import Plan, PlannedStep, Tier
from swarm.runtime.placement import LOCAL, place, serves

HEAD = Tier("head", "head", ModelSpec(tier="head", kind="head", name="embedder"))
SMALL = Tier("small", "small", ModelSpec(tier="small", kind="small", name="lm"))
REMOTE = Tier("remote", "remote", ModelSpec(tier="remote", kind="remote", name="gpt"))
CODE, PERSON = Tier("code", "code"), Tier("person", "person")


def plan(ladders: dict[str, tuple[Tier, ...]], **runtime: Any) -> Plan:
    steps = tuple(
        PlannedStep(name, f"does_{name}", Pack(name=name, kind="extract"), ladder, {}, frozenset(), 0.8)
        for name, ladder in ladders.items()
    )
    models = {tier.name: tier.model for ladder in ladders.values() for tier in ladder if tier.model}
    limit = Limit()
    return Plan("p", "", steps, limit, limit, "stop", None, models, Runtime(**runtime), "h")


PLAN = {"a": (HEAD, SMALL, REMOTE, PERSON), "b": (CODE, REMOTE), "c": (CODE,)}


def test_together_means_one_host_with_everything() -> None:
    """All tiers but the person, who is no host's."""
    (spec,) = place(plan(PLAN, mailbox=7), frozenset(), together=True)
    assert (spec.host, spec.mailbox) == (LOCAL, 7)
    assert spec.tiers == {"does_a": ("head", "small", "remote"), "does_b": ("code", "remote"), "does_c": ("code",)}
    assert set(spec.models) == {"head", "small", "remote"}


def test_apart_the_remote_tiers_stay_with_the_keys() -> None:
    """Each host has all local tiers; the local one has the remote tiers and needs no model file."""
    first, second, local = place(plan(PLAN, hosts=2, kind="ray"), frozenset(), together=False)
    assert [first.host, second.host, local.host] == ["host-0", "host-1", LOCAL]
    assert first.tiers == second.tiers == {"does_a": ("head", "small"), "does_b": ("code",), "does_c": ("code",)}
    assert local.tiers == {"does_a": ("remote",), "does_b": ("remote",)}
    assert (set(first.models), set(local.models)) == ({"head", "small"}, {"remote"})
    assert set(local.packs) == {"does_a", "does_b"}


@pytest.mark.parametrize("together", [True, False])
def test_what_cannot_be_asked_is_placed_nowhere(together: bool) -> None:
    """A tier without its key opens no model."""
    specs = place(plan(PLAN), frozenset({"remote"}), together=together)
    assert all("remote" not in tiers for spec in specs for tiers in spec.tiers.values())
    assert all("remote" not in spec.models for spec in specs)


def test_a_host_without_work_is_not_started() -> None:
    """A swarm whose tiers are all out of reach needs no host at all."""
    assert place(plan({"a": (REMOTE, PERSON)}), frozenset({"remote"}), together=False) == []


def test_a_model_that_chooses_by_embedding_gets_the_embedder() -> None:
    """Examples are chosen with the head's model, also for a ladder without a head."""
    (spec,) = place(plan({"a": (HEAD,), "b": (SMALL,)}), frozenset(), together=True)
    assert set(spec.models) == {"head", "small"}
    ray = place(plan({"a": (HEAD,), "b": (SMALL,)}), frozenset(), together=False)
    assert set(ray[0].models) == {"head", "small"}


def test_adapters_go_where_their_tiers_go() -> None:
    """Each specialist's own, by specialist and tier; a host that does not answer the tier gets none."""
    adapter = Adapter(path="/a.gguf", sha256="ab" * 32)
    adapted = replace(SMALL, adapter=adapter)
    host, local = place(plan({"a": (adapted, REMOTE), "b": (SMALL,)}, kind="ray"), frozenset(), together=False)
    assert host.adapters == {"does_a/small": adapter}
    assert local.adapters == {}


@pytest.mark.parametrize(
    ("cpus", "hosts", "cores", "threads"), [(2, 1, 8, 2), (4, 1, 2, 2), (4, 2, 4, 2), (1, 8, 2, 1), (16, 1, 16, 16)]
)
def test_threads_never_exceed_the_cores(
    monkeypatch: pytest.MonkeyPatch, cpus: int, hosts: int, cores: int, threads: int
) -> None:
    """Neither those granted nor those that this machine has for each host."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    specs = place(plan(PLAN, cpus=cpus, hosts=hosts), frozenset(), together=False)
    assert {spec.threads for spec in specs if spec.host != LOCAL} == {threads}


def test_a_host_serves_what_it_was_given() -> None:
    """The bus sends by pairs of specialist and tier."""
    (spec,) = place(plan({"a": (HEAD, SMALL), "c": (CODE,)}), frozenset(), together=True)
    assert serves(spec) == {("does_a", "head"), ("does_a", "small"), ("does_c", "code")}
