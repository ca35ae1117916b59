"""The choice: what to ask next, and what would have changed it."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.dispatch.choice import Choice, Now, Offer, Value, choose, tipping_confidence, tipping_lambda

shares = st.floats(0.01, 0.99)


@st.composite
def ladders(draw: st.DrawFn) -> list[Offer]:
    """Up to five offers, each dearer and better than the one before."""
    n = draw(st.integers(1, 5))
    qualities = sorted(draw(st.lists(shares, min_size=n, max_size=n)))
    prices = sorted(draw(st.lists(st.integers(1, 20_000), min_size=n, max_size=n)))
    return [
        Offer(f"t{i}", "dearer", prices[i], 100.0, q, draw(st.floats(0, 1)), q + (1 - q) * draw(st.floats(0, 1)))
        for i, q in enumerate(qualities)
    ]


def dearer(tier: str, micro_usd: int, quality: float, accept: float = 1.0, sure: float | None = None) -> Offer:
    return Offer(tier, "dearer", micro_usd, 0.0, quality, accept, sure)


def test_a_sure_answer_is_accepted() -> None:
    """Nothing that is left to win pays for another attempt."""
    chosen = choose(Now("small", 0.97), [dearer("strong", 2_000, 0.99)], Value(0.05))
    assert (chosen.action, chosen.tier, chosen.gain) == ("accept", "small", 0.0)


def test_an_unsure_answer_goes_up_when_the_gain_is_worth_its_price() -> None:
    """0.5 more of 5 cents for 0.2 cents: a gain of 2.3 cents."""
    chosen = choose(Now("small", 0.4), [dearer("strong", 2_000, 0.9)], Value(0.05))
    assert (chosen.action, chosen.tier) == ("escalate", "strong")
    assert chosen.gain == pytest.approx(0.5 * 0.05 - 0.002)


def test_gain_counts_and_not_difficulty() -> None:
    """A hopeless answer is kept when the strong model would be no better."""
    assert choose(Now("small", 0.2), [dearer("strong", 100, 0.2)], Value(1.0)).action == "accept"


def test_a_cheap_tier_goes_first_where_it_is_often_accepted() -> None:
    """Most tasks never get to the dear one, and none is lost by it."""
    offers = [dearer("middle", 100, 0.7, accept=0.6, sure=0.97), dearer("strong", 3_000, 0.95)]
    chosen = choose(Now("small", 0.3), offers, Value(0.05))
    assert (chosen.tier, chosen.alternatives[0].path) == ("middle", ("middle", "strong"))
    assert chosen.alternatives[0].micro_usd == pytest.approx(100 + 0.4 * 3_000)


def test_a_tier_that_would_hardly_be_believed_is_skipped() -> None:
    """Where the middle tier's answer is as good as never accepted its price is a loss."""
    offers = [dearer("middle", 600, 0.35, accept=0.02, sure=0.9), dearer("strong", 3_000, 0.95)]
    assert choose(Now("small", 0.3), offers, Value(0.05)).tier == "strong"


def test_the_way_on_counts_before_the_first_answer_too() -> None:
    """Without an answer the start is chosen by what may follow, and giving up is what it is set against."""
    offers = [dearer("small", 10, 0.6, accept=0.5, sure=0.95), dearer("strong", 2_000, 0.9)]
    chosen = choose(None, offers, Value(0.05))
    assert chosen.alternatives[0].path == ("small", "strong")
    assert chosen.gain == chosen.alternatives[0].net


def test_nothing_is_asked_that_costs_more_than_a_right_answer_is_worth() -> None:
    """Then the task is given up."""
    assert choose(None, [dearer("strong", 2_000, 0.9)], Value(0.001)).action == "give_up"


def test_a_wrong_answer_that_costs_more_than_none_is_not_given() -> None:
    """Where a wrong answer costs as much as ten right ones bring, an unsure one is not accepted."""
    assert choose(Now("small", 0.8), [], Value(0.01, wrong_usd=0.1)).action == "give_up"


@given(ladders(), st.integers(0, 20_000))
def test_no_offer_is_chosen_whose_hold_exceeds_the_money_left(offers: list[Offer], left: int) -> None:
    """Not even as a later attempt."""
    held = {o.tier: 2 * o.micro_usd for o in offers}
    offers = [msgspec.structs.replace(o, hold_micro_usd=held[o.tier]) for o in offers]
    for alternative in choose(None, offers, Value(1.0), left).alternatives:
        assert all(held[tier] <= left for tier in alternative.path)


@pytest.mark.parametrize(("kind", "action"), [("verify", "verify"), ("best_of", "best_of"), ("family", "family")])
def test_asking_again_here_is_an_action_of_its_own(kind: str, action: str) -> None:
    """A check, more samples or another family are offers like any other."""
    offer = msgspec.convert({"tier": "x", "kind": kind, "micro_usd": 1.0, "ms": 0.0, "quality": 0.9}, Offer)
    assert choose(Now("small", 0.5), [offer], Value(0.05)).action == action


def test_local_time_has_a_price() -> None:
    """A tier that costs no money is not asked where its seconds cost more than it brings."""
    offer = Offer("large", "dearer", 0.0, 5_000.0, 0.8)
    assert choose(Now("small", 0.5), [offer], Value(0.01)).action == "escalate"
    assert choose(Now("small", 0.5), [offer], Value(0.01, usd_per_second=0.001)).action == "accept"


@given(ladders(), st.floats(0.001, 1.0), st.floats(0.0, 5.0), st.none() | shares)
def test_an_alternative_is_worth_what_its_quality_and_price_say(
    offers: list[Offer], usd: float, price: float, p: float | None
) -> None:
    """value · quality − (1 + λ) · dollars − latency, whatever the way."""
    value = Value(usd, price, 0.0001)
    for a in choose(None if p is None else Now("small", p), offers, value).alternatives:
        worth = usd * a.quality - (1 + price) * a.micro_usd / 1e6 - 0.0001 * a.ms / 1e3
        assert a.net == pytest.approx(worth, abs=1e-9)


@given(ladders(), st.floats(0.001, 1.0))
def test_no_way_straight_up_is_better_than_the_chosen(offers: list[Offer], usd: float) -> None:
    """Asking one tier and keeping its answer is among what is weighed."""
    chosen = choose(None, offers, Value(usd)).alternatives[0]
    assert all(chosen.net >= usd * o.quality - o.micro_usd / 1e6 - 1e-12 for o in offers)


@given(ladders(), st.floats(0.001, 1.0), st.floats(0.0, 3.0))
def test_a_higher_shadow_price_never_buys_more(offers: list[Offer], usd: float, more: float) -> None:
    """Expected spending of the chosen way falls with λ."""
    cheap, dear = (choose(Now("small", 0.3), offers[:1], Value(usd, price)) for price in (0.0, more))
    assert dear.alternatives[0].micro_usd <= cheap.alternatives[0].micro_usd


def test_the_tipping_confidence_is_where_the_answer_would_have_been_accepted() -> None:
    """Just below it the strong model is asked, just above it is not."""
    repaired, value = 0.8, Value(0.02)  # of what is wrong, whatever the confidence

    def at(p: float) -> Choice:
        return choose(Now("small", p), [dearer("strong", 2_000, p + (1 - p) * repaired)], value)

    tips = tipping_confidence(at(0.4))
    assert tips == pytest.approx(1 - 0.1 / 0.8)
    assert (at(tips - 0.01).action, at(tips + 0.01).action) == ("escalate", "accept")


def test_the_tipping_price_is_where_another_choice_would_have_been_made() -> None:
    """Just below it the strong model is asked, just above it is not; the same seen from either side."""
    now, offers = Now("small", 0.4), [dearer("strong", 2_000, 0.9)]
    tips = tipping_lambda(choose(now, offers, Value(0.02, 1.0)))
    assert tips is not None
    below, above = (choose(now, offers, Value(0.02, tips + by)) for by in (-0.01, 0.01))
    assert (below.action, above.action) == ("escalate", "accept")
    assert tipping_lambda(above) == pytest.approx(tips)


def test_the_ways_up_agree_with_trying_every_one() -> None:
    """Of three offers all seven ways are played out by hand; none is better than the chosen one."""
    offers = [dearer("a", 50, 0.5, 0.4, 0.9), dearer("b", 400, 0.7, 0.5, 0.95), dearer("c", 3_000, 0.9)]
    value = Value(0.03)
    ways = [w for n in (1, 2, 3) for w in itertools.combinations(offers, n)]
    assert choose(None, offers, value).alternatives[0].net == pytest.approx(max(played(w, value) for w in ways))


def played(way: tuple[Offer, ...], value: Value) -> float:
    """Dollars that a way brings, attempt by attempt."""
    net, reach, quality = 0.0, 1.0, way[0].quality
    for offer, then in itertools.zip_longest(way, way[1:]):
        net -= reach * offer.micro_usd / 1e6
        if then is None:
            return net + reach * value.usd * quality
        accept = offer.accept * quality / offer.quality
        net += reach * accept * value.usd * offer.sure
        unsure = (quality - accept * offer.sure) / (1 - accept)
        quality = unsure + (1 - unsure) * (then.quality - offer.quality) / (1 - offer.quality)
        reach *= 1 - accept
    raise AssertionError("a way has an end")
