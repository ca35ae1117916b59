"""The routing benchmark's own logic, on rows made up here."""

import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from peers.report import Report
from recorded.data import DataMissing, Recorded, folder
from recorded.pairs import routers_of_mmlu
from recorded.scoring import Routers, split, unseen
from recorded.small_gsm import routers_of_three

from swarm.backtest.metrics import apgr
from swarm.dispatch.gain import Queries
from swarm.dispatch.traits import question_traits


@pytest.fixture
def report(tmp_path):
    with (tmp_path / "out.txt").open("w") as file:
        yield Report(Console(file=file, width=200))


def _plain(report):
    return "\n".join(report._plain)


def test_learnt_router_is_in_the_table_beside_its_bounds(report):
    """The router finds the trait that tells the gain; random stands at 0.5 and the oracle above all."""
    random = np.random.default_rng(0)
    easy = random.random(160) < 0.5
    correct = np.column_stack([easy, np.ones(160, bool)])
    data = Recorded(
        "made", tuple("easy" if e else "hard" for e in easy), ("a", "b", "c", "d") * 40, ("w", "s"), correct
    )
    routers_of_mmlu(data, Queries(np.column_stack([easy, random.normal(size=160)])), report, seeds=1)
    rows = {
        line.split(" | ")[0].strip("| "): line.split(" | ")[1] for line in _plain(report).splitlines() if " | " in line
    }
    areas = {name: float(rows[name].split()[0]) for name in ("gain", "prompt length", "random", "oracle")}
    assert areas["random"] == pytest.approx(0.5, abs=0.001)
    assert areas["gain"] == pytest.approx(areas["oracle"], abs=0.01)


def test_three_small_models_are_of_three_families(report):
    """The vote of the three is chosen on the rows that are learnt from, one model a family."""
    random = np.random.default_rng(1)
    models = ("gemma-2-2b-it", "gemma-2-9b-it", "Phi-3.5-mini-instruct", "Qwen2-7B-Instruct", "strongest")
    correct = random.random((200, 5)) < np.array([0.5, 0.8, 0.6, 0.6, 1.0])
    answers = tuple(tuple("7" if ok else str(random.integers(10, 99)) for ok in row) for row in correct)
    prompts = tuple(f"What is {i} + 1?" for i in range(200))
    data = Recorded("made", prompts, ("",) * 200, models, correct, answers, tok_out=np.ones((200, 5)))
    routers_of_three(data, question_traits(prompts), report, seeds=1)
    assert "gemma-2-9b-it + " in _plain(report) and "gemma-2-2b-it" not in _plain(report)


def test_no_row_and_no_group_is_on_both_sides():
    """Splits share no rows, and sets of unseen groups share no group and leave none out."""
    learn, test = split(100, seed=3)
    assert sorted([*learn, *test]) == list(range(100)) and len(test) == 30
    groups = [f"g{i % 11}" for i in range(110)]
    tested = []
    for learn, test in unseen(groups, seed=0):
        assert not {groups[i] for i in learn} & {groups[i] for i in test}
        tested += list(test)
    assert sorted(tested) == list(range(110))


def test_gains_from_another_anchor_start_above_nothing():
    """Kept answers that are better than the weak side have won a part of the gap before any call is made."""
    kept, strong, weak = np.array([1.0, 1, 0, 0]), np.ones(4), np.array([1.0, 0, 0, 0])
    scores = np.array([0.0, 0, 1, 1])
    routers = Routers()
    routers.add("own", scores, kept, strong)
    routers.add("anchored", scores, kept, strong, anchor=weak)
    own, anchored = (float(row[1].split()[0]) for row in routers.rows())
    assert own == pytest.approx(apgr(scores, kept, strong), abs=0.001)
    assert anchored == pytest.approx(1 / 3 + 2 / 3 * own, abs=0.001)


def test_missing_data_is_said_with_its_remedy(tmp_path):
    """The sentence names the folder and the option."""
    with pytest.raises(DataMissing, match="--data FOLDER"):
        folder(tmp_path)
