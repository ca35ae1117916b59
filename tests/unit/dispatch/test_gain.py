import numpy as np
import pytest

from swarm.dispatch.gain import Queries, fit_gain
from swarm.dispatch.traits import question_traits
from swarm.dispatch.working import compute, last_number, sums, working_traits


def _made(n, seed=0):
    """Three kinds: easy for both, only for the strong one, and for nobody. Traits tell the kind, others are noise."""
    random = np.random.default_rng(seed)
    kind = random.integers(0, 3, n)
    weak = (kind == 0).astype(float)
    strong = (kind <= 1).astype(float)
    traits = np.column_stack([kind == 0, kind == 1, random.normal(size=(n, 3))]).astype(float)
    embeddings = np.eye(4, dtype=np.float32)[kind]
    return Queries(traits, embeddings), weak, strong, kind


@pytest.mark.parametrize("members", [("plain",), ("linear",), ("near",), ("trees",), ("boosted",)])
def test_every_regressor_ranks_gain_above_difficulty(members):
    """What only the strong model can do comes first; what nobody can do, though hardest, does not."""
    queries, weak, strong, _ = _made(300)
    model = fit_gain(queries, weak, strong, members=members)
    new, _, _, kind = _made(200, seed=1)
    gain = model.expected(new).gain
    assert gain[kind == 1].min() > max(gain[kind == 0].max(), gain[kind == 2].max())


def test_probabilities_are_those_of_the_kinds():
    """P(weak right) and P(strong right) come out near 0 and 1 where the rows say so, and within 0..1 always."""
    queries, weak, strong, _ = _made(300)
    new, _, _, kind = _made(200, seed=1)
    expected = fit_gain(queries, weak, strong).expected(new)
    assert expected.p_weak[kind == 0].min() > 0.7 and expected.p_weak[kind == 2].max() < 0.3
    assert expected.p_strong[kind == 1].min() > 0.7 and expected.p_strong[kind == 2].max() < 0.3
    for p in (expected.p_weak, expected.p_strong):
        assert p.min() >= 0 and p.max() <= 1


def test_a_regressor_that_only_harms_is_dropped():
    """Neighbours in an embedding that says nothing do not stay beside traits that say everything."""
    queries, weak, strong, _ = _made(400)
    noise = np.random.default_rng(5).normal(size=(400, 8)).astype(np.float32)
    model = fit_gain(Queries(queries.traits, noise), weak, strong, members=("plain", "near"))
    assert "plain" in model.names()
    held = model.held_out.gain
    assert held[strong > weak].min() > held[strong == weak].max()


def test_held_out_predictions_have_not_seen_their_row():
    """On labels of pure chance what is held out predicts nothing, though the fit itself could learn them by heart."""
    random = np.random.default_rng(2)
    queries = Queries(random.normal(size=(400, 5)))
    weak, strong = (random.integers(0, 2, 400).astype(float) for _ in range(2))
    model = fit_gain(queries, weak, strong, members=("trees",))
    assert abs(np.corrcoef(model.held_out.gain, strong - weak)[0, 1]) < 0.2
    assert np.corrcoef(model.expected(queries).gain, strong - weak)[0, 1] > 0.5


def test_too_few_rows_are_refused():
    """Fewer rows than can teach anything are an error that says how many are needed."""
    queries, weak, strong, _ = _made(20)
    with pytest.raises(ValueError, match="60 rows"):
        fit_gain(queries, weak, strong)


def test_constant_traits_do_no_harm():
    """A trait that is the same everywhere on the rows that teach is worth nothing when it differs later."""
    queries, weak, strong, _ = _made(300)
    constant = Queries(np.column_stack([queries.traits, np.ones(300)]))
    model = fit_gain(constant, weak, strong, members=("plain",))
    moved = Queries(np.column_stack([queries.traits, np.full(300, 1e6)]))
    assert model.expected(moved).gain == pytest.approx(model.expected(constant).gain)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("3*60", 180),
        ("(1 + 2) x 4", 12),
        ("$1,200 / 4", 300),
        ("50% * 80", 40),
        ("2**9", None),
        ("1/0", None),
        ("a+1", None),
    ],
)
def test_only_plain_arithmetic_is_computed(expression, value):
    """The four operations on numbers; powers, names and divisions by nothing have no value."""
    assert compute(expression) == (None if value is None else pytest.approx(value))


def test_wrong_sums_are_found():
    """An equation whose right side is not its left side's value counts as wrong, one that was rounded does not."""
    assert sums("He has 3 * 4 = 12 and 10 / 3 = 3.33, so 12 + 3 = 16.").right == (True, True, False)
    assert sums("so <<2*9=18>>18 in all").results == (18.0,)


def test_last_number_is_what_a_grader_takes():
    """Commas belong to a number, a full stop after it does not."""
    assert last_number("First 3, then $1,250.") == 1250
    assert last_number("none") is None


def test_traits_have_one_row_each_and_are_finite():
    """Strange texts give rows as long as any other's: empty, without options, without numbers."""
    prompts = ["", "Which is NOT so?\nA. 1\nB. 2\nAnswer:", "x" * 5000]
    for rows in (question_traits(prompts), working_traits(prompts, ["", "#### 4", "5 + 5 = 11\n#### 11 no"])):
        assert rows.shape[0] == 3 and np.isfinite(rows).all()
    assert question_traits([], []).shape[0] == 0


def test_options_in_the_prompt_count_as_options():
    """Lettered lines and options that are given apart say the same."""
    inside = question_traits(["Which?\nA. one\nB. two\nAnswer:"])
    apart = question_traits(["Which?\n"], [["one", "two"]])
    assert inside == pytest.approx(apart)
