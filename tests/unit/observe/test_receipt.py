"""The receipt adds up: worked out by hand for a few attempts, and shown in full."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from protocols.money import Amount, Limit
from protocols.records import Attempt, Balance, RunRecord
from protocols.tasks import Result, Status
from swarm.observe.receipt import Baseline, Dear, Missed, Receipt, TierLine, build
from swarm.observe.table import as_text

ABOUT: dict[str, Any] = {
    "unavailable": {"remote": "no key in KEY"},
    "ladders": [["intent", ["head", "small", "remote"]], ["route", ["code"]]],
    "baseline": {"model": "gpt-4o-mini", "source": "a price list", "input": 150_000, "output": 600_000},
}
RUN = RunRecord(id="r-1", swarm="triage", plan_hash="h", started=100.0, about=ABOUT, finished=103.25)
BALANCE = Balance(limit=Limit(micro_usd=10_000, tokens=5_000), settled=Amount(micro_usd=300, tokens=1_240))


def attempt(n: int, task: str, step: str, tier: str, outcome: str, **more: Any) -> Attempt:
    return Attempt(id=f"a-{n}", task=task, step=step, tier=tier, outcome=outcome, **more)


# Two tasks: the first is sure at once, the second climbs as far as it can.
ATTEMPTS = [
    attempt(1, "t-1", "route", "code", "accepted", host="host-1", ms=1),
    attempt(2, "t-1", "intent", "head", "accepted", host="host-0", ms=4, remote_tokens_in=400, remote_tokens_out=8),
    attempt(3, "t-2", "intent", "head", "escalated", host="host-0", ms=6, remote_tokens_in=600, remote_tokens_out=8),
    attempt(4, "t-2", "intent", "small", "failed", host="host-1", ms=50, tokens_in=300, remote_tokens_in=600,
            remote_tokens_out=64),
    attempt(5, "t-2", "intent", "small", "degraded", host="host-1", ms=70, tokens_in=900, tokens_out=40,
            micro_usd=300, remote_tokens_in=600, remote_tokens_out=10),
    attempt(6, "t-2", "intent", "remote", "unavailable", remote_tokens_in=600, remote_tokens_out=64),
    attempt(7, "t-2", "intent", "remote", "refused"),
    attempt(8, "t-3", "intent", "small", "cancelled", tokens_in=0),
]  # fmt: skip


def result(task: str, status: Status, micro_usd: int = 0, tokens: int = 0, ms: int = 0) -> Result:
    return Result(task=task, status=status, cost=Amount(micro_usd=micro_usd, tokens=tokens), ms=ms)


RESULTS = [
    result("t-1", "done", ms=5),
    result("t-2", "degraded", 300, 1_240, 130),
    result("t-3", "cancelled", ms=900),
    result("t-4", "done", tokens=7),
]


@pytest.fixture
def receipt() -> Receipt:
    return build(RUN, ATTEMPTS, RESULTS, BALANCE)


def test_tiers_are_counted_in_the_plan_s_order(receipt: Receipt) -> None:
    """What was only wanted (unavailable, refused) was not asked; the rest is counted by what became of it."""
    assert receipt.tiers == (
        TierLine(step="intent", tier="head", asked=2, accepted=1, escalated=1, ms=10),
        TierLine(
            step="intent", tier="small", asked=3, degraded=1, failed=1, cancelled=1, tokens_in=1_200, tokens_out=40,
            ms=120, micro_usd=300,
        ),
        TierLine(step="intent", tier="remote", refused=1, unavailable=1),
        TierLine(step="route", tier="code", asked=1, accepted=1, ms=1),
    )  # fmt: skip


def test_totals_come_from_the_ledger(receipt: Receipt) -> None:
    """Money and tokens as settled, time as the attempts took it, and what is left of the limit."""
    assert receipt.spent == Amount(micro_usd=300, tokens=1_240, ms=131)
    assert (receipt.held, receipt.limit) == (Amount(), Limit(micro_usd=10_000, tokens=5_000))
    assert receipt.tasks == {"cancelled": 1, "degraded": 1, "done": 2}
    assert receipt.hosts == {"host-0": 2, "host-1": 3}
    assert (receipt.finished, receipt.ms) == (True, 3250)


def test_an_overrun_is_part_of_what_was_spent(receipt: Receipt) -> None:
    """The bill is what was used, not what was held, and says so; without an overrun there is nothing to say."""
    over = build(RUN, ATTEMPTS, RESULTS, msgspec.structs.replace(BALANCE, overrun=Amount(micro_usd=9_900, tokens=60)))
    assert (over.spent, over.overrun) == (
        Amount(micro_usd=10_200, tokens=1_300, ms=131),
        Amount(micro_usd=9_900, tokens=60),
    )
    text = " ".join(as_text(over).split())
    assert "overrun $0.0099 and 60 tokens of that are more than was held" in text
    assert "left of the budget: $0.0000 of $0.0100, 3,700 of 5,000 tokens" in text
    assert "overrun" not in as_text(receipt)


def test_each_accomplished_task_cost(receipt: Receipt) -> None:
    """Three tasks have an answer for every step, so each cost a third."""
    assert receipt.per_accomplished_micro_usd == 100.0
    nothing = build(RUN, [], [result("t-1", "failed")], BALANCE)
    assert nothing.per_accomplished_micro_usd is None


def test_the_dearest_tasks_come_first(receipt: Receipt) -> None:
    """Three of them: by money, then by tokens, then by time."""
    assert receipt.dearest == (
        Dear(task="t-2", status="degraded", cost=Amount(micro_usd=300, tokens=1_240), ms=130),
        Dear(task="t-4", status="done", cost=Amount(tokens=7), ms=0),
        Dear(task="t-3", status="cancelled", cost=Amount(), ms=900),
    )


def test_the_always_strong_way_pays_each_step_once(receipt: Receipt) -> None:
    """400 + 600 tokens in and 8 + 10 out, whatever it took here; a tool needs no model; rounded up to a millionth."""
    assert receipt.baseline == Baseline(
        model="gpt-4o-mini", source="a price list", input_per_mtok=150_000, output_per_mtok=600_000, calls=2,
        tokens_in=1_000, tokens_out=18, micro_usd=161,
    )  # fmt: skip
    assert pytest.approx(160.8) == 1_000 * 0.15 + 18 * 0.60


def test_a_tier_out_of_reach_says_what_it_would_have_got(receipt: Receipt) -> None:
    """One ask of 600 tokens in and 64 out at the baseline's price: 128.4 millionths."""
    assert receipt.missed == (Missed(tier="remote", reason="no key in KEY", asks=1, micro_usd=129),)


def test_without_a_price_there_is_no_comparison() -> None:
    """Asks are still counted."""
    plain = msgspec.structs.replace(RUN, about={"unavailable": {"remote": "no key"}})
    receipt = build(plain, ATTEMPTS, RESULTS, BALANCE)
    assert receipt.baseline is None
    assert receipt.missed == (Missed(tier="remote", reason="no key", asks=1, micro_usd=None),)
    assert "all remote" not in as_text(receipt)


def test_a_run_that_has_not_ended_has_a_receipt() -> None:
    """Also one that died: what it holds is shown, and that it did not finish."""
    died = msgspec.structs.replace(RUN, finished=None)
    held = Balance(limit=Limit(), settled=Amount(), held=Amount(tokens=700))
    receipt = build(died, [], [], held)
    assert (receipt.finished, receipt.ms, receipt.held.tokens, receipt.tasks) == (False, None, 700, {})
    text = as_text(receipt)
    assert "r-1 (triage, not finished)" in text
    assert "no limit was set" in text


def test_the_table_shows_every_figure(receipt: Receipt) -> None:
    """One line a tier with its counts, and the sums below."""
    text = as_text(receipt)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert rows[0] == "Receipt of run r-1 (triage)"
    assert "intent head 2 1 1 0 0 5 $0.0000" in rows
    assert "small 3 0 0 1 degraded, 1 failed, 1 cancelled 1,200 40 40 $0.0003" in rows
    assert any(row.startswith("remote 0 0 0 1 refused, 1 missed") for row in rows)
    assert "route code 1 1 0 0 0 1 $0.0000" in rows
    for figure in (
        "4: 1 cancelled, 1 degraded, 2 done",
        "host-0 2 answers, host-1 3 answers",
        "$0.0003 and 1,240 tokens; left of the budget: $0.0097 of $0.0100, 3,760 of 5,000 tokens",
        "$0.0001 for each one accomplished",
        "$0.0002 with gpt-4o-mini (2 calls, about 1,000 tokens in and 18 out; $0.1500 / $0.6000 a million tokens",
        "this run cost 186.3% of that",
        "would have got 1 asks, about $0.0001; no key in KEY",
        "t-2: $0.0003, 1,240 tokens, 130 ms (degraded)",
    ):
        assert figure in " ".join(text.split()), figure


def test_a_receipt_travels_as_json(receipt: Receipt) -> None:
    """What `--json` prints can be read back."""
    assert msgspec.json.decode(msgspec.json.encode(receipt), type=Receipt) == receipt
