import numpy as np
import pytest

from swarm.backtest.curve import Curve, prefixes, router, router_usd


def test_every_prefix_of_the_sorted_list_is_a_point():
    """The highest scores go first, and each prefix has the quality it really has."""
    curve = router(scores=[0.1, 0.9, 0.5], weak=[1, 0, 0], strong=[1, 1, 0])
    assert curve.cost.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert curve.quality.tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3, 2 / 3])


def test_equal_scores_count_with_their_mean():
    """Within a tie each query is worth the tie's mean, whatever their order."""
    assert prefixes([1, 1, 0], [1, 0, -1]).tolist() == pytest.approx([0, 0.5, 1, 0])
    assert prefixes([1, 1, 0], [0, 1, -1]).tolist() == pytest.approx([0, 0.5, 1, 0])


@pytest.mark.parametrize("scores", [[0.5, float("nan")], [0.5]])
def test_scores_that_are_none_are_refused(scores):
    """A score that is no number, or one too few, is an error and not a place in the order."""
    with pytest.raises(ValueError, match="score"):
        prefixes(scores, [1, 0])


def test_cascade_pays_for_the_weak_answer_too():
    """A cascade that sends everything up has paid both; a router only the strong one."""
    costs = {"weak_usd": [1.0, 1.0], "strong_usd": [10.0, 10.0]}
    assert router_usd([1, 0], [0, 0], [1, 1], **costs, cascade=True).cost[-1] == pytest.approx(11)
    assert router_usd([1, 0], [0, 0], [1, 1], **costs, cascade=False).cost[-1] == pytest.approx(10)


def test_hull_leaves_out_what_a_coin_beats():
    """A point below the line between two others, and a dearer one that is no better, are not on the hull."""
    hull = Curve.through([0, 1, 2, 3], [0.0, 0.1, 0.8, 0.7]).hull()
    assert hull.cost.tolist() == [0, 2]
    assert hull.quality.tolist() == [0.0, 0.8]


def test_area_is_the_mean_height():
    """From 0 to 1 the line from 0 to 1 has mean 0.5; beyond its last point a curve stays level."""
    line = Curve.through([0, 1], [0, 1])
    assert line.area(0, 1) == pytest.approx(0.5)
    assert line.area(0, 2) == pytest.approx(0.75)


def test_cost_of_a_quality_is_the_first_place_that_reaches_it():
    """Between two points the line counts; a quality that is never reached has no cost."""
    curve = Curve.through([0, 1, 2], [0.2, 0.6, 0.6])
    assert curve.cost_of(0.4) == pytest.approx(0.5)
    assert curve.cost_of(0.1) == 0
    assert np.isnan(curve.cost_of(0.7))


def test_best_of_several_points_at_one_cost_counts():
    """Two settings at the same price: nobody takes the worse one."""
    assert float(Curve.through([1, 1, 0], [0.9, 0.5, 0.1]).at(1)) == pytest.approx(0.9)
