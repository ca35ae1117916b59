import numpy as np
import pytest

from swarm.backtest.chart import text_chart
from swarm.backtest.curve import Curve
from swarm.backtest.replay import NotRecorded, Replay, Row, Unreadable, quality, usd


def _rows():
    for i, (sure, right) in enumerate([(0.9, 1), (0.2, 0), (0.4, 1)]):
        yield Row(query=f"q{i}", tier="small", correct=right, confidence=sure, micro_usd=10, ms=5)
        yield Row(query=f"q{i}", tier="large", correct=1, micro_usd=1000, ms=100)


def _threshold(at):
    def policy(asked):
        if not asked:
            return "small"
        return "large" if len(asked) == 1 and asked[0].confidence < at else None

    return policy


def test_cascade_gets_the_recorded_outcomes():
    """What was asked is paid for, and the last answer is the one that counts."""
    played = Replay(_rows()).play(_threshold(0.3))
    assert quality(played).tolist() == [1, 1, 1]
    assert usd(played).tolist() == pytest.approx([10e-6, 1010e-6, 10e-6])
    assert [o.ms for o in played] == [5, 105, 5]


def test_policy_never_sees_whether_it_was_right():
    """Rows reach the policy without the truth."""
    seen = []
    Replay(_rows()).play(lambda asked: seen.extend(asked) or (None if asked else "small"))
    assert seen and all(np.isnan(row.correct) for row in seen)


def test_thresholds_make_a_curve():
    """Never up, sometimes, always: quality rises with the dollars."""
    curve = Replay(_rows()).curve(_threshold(at) for at in (0.0, 0.3, 1.0))
    assert curve.quality.tolist() == pytest.approx([2 / 3, 1, 1])
    assert curve.cost[0] == pytest.approx(10e-6)


def test_missing_row_is_named_with_what_there_is():
    """Asking for what was not recorded says which tiers were."""
    with pytest.raises(NotRecorded, match="'q0' has no row of tier 'huge'; recorded are: small, large"):
        Replay(_rows()).answer("q0", "huge")


def test_tier_asked_twice_is_refused():
    """A recording has one answer, so a second one would be invented."""
    with pytest.raises(ValueError, match="twice"):
        Replay(_rows()).play(lambda asked: "small")


def test_file_with_a_bad_line_says_which(tmp_path):
    """The line's number and what is wrong with it."""
    file = tmp_path / "rows.jsonl"
    file.write_text('{"query": "a", "tier": "t", "correct": 1}\n\n{"query": "b", "tier": "t"}\n')
    with pytest.raises(Unreadable, match=r"rows\.jsonl:3: .*correct"):
        Replay.read(file)


def test_same_row_twice_is_refused():
    """Which of the two would answer?"""
    row = Row(query="a", tier="t", correct=1)
    with pytest.raises(Unreadable, match="two rows"):
        Replay([row, row])


def test_chart_draws_every_curve_between_its_edges():
    """The lowest quality is at the bottom left, the highest at the top right, and each curve is named."""
    chart = text_chart({"ours": Curve.through([0, 1], [0.2, 0.9])}, width=20, height=5, cost="share sent")
    lines = chart.splitlines()
    assert lines[0].endswith("●") and lines[0].strip().startswith("0.900")
    assert lines[4].split("│")[1].startswith("●") and lines[4].strip().startswith("0.200")
    assert "share sent" in lines[6] and "● ours" in lines[7]
