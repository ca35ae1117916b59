import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from swarm.engine.llama.logits import log_normalisers
from swarm.engine.llama.scoring import ROOT, OptionTree, option_tree
from swarm.engine.llama.search import Bounds

VOCABULARY = 4
options_strategy = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=5), min_size=1, max_size=12)


def row(path: tuple[int, ...]) -> np.ndarray:
    """Logits that depend on everything read so far, as a model's do."""
    return np.random.default_rng([7, *path]).normal(size=VOCABULARY).astype(np.float32)


def logprob(path: tuple[int, ...], token: int) -> float:
    logits = row(path).astype(np.float64)
    return float(logits[token] - np.log(np.exp(logits).sum()))


def constrained_logprob(path: tuple[int, ...], token: int, options: list[list[int]]) -> float:
    """Of the tokens that some option allows after `path`, the share of `token`."""
    allowed = {
        option[len(path)] for option in options if len(option) > len(path) and tuple(option[: len(path)]) == path
    }
    logits = row(path).astype(np.float64)
    return float(logits[token] - np.log(np.exp(logits[sorted(allowed)]).sum()))


def read(tree: OptionTree) -> np.ndarray:
    """The edges' log-probabilities as an engine reads them: from the prompt's row and from each decoded node's."""
    edges = tree.known.copy()
    tree.read([ROOT], row(())[None], edges)
    for wave in tree.waves:
        lanes: list[tuple[int, ...]] = [()] * wave.lanes
        seen: dict[int, tuple[int, ...]] = {}
        for node in wave.nodes:
            for lane in range(node.first, node.last):
                assert len(lanes[lane]) == node.depth - 1  # parents come first, positions have no holes
                lanes[lane] = (*lanes[lane], node.token)
            assert len({lanes[lane] for lane in range(node.first, node.last)}) == 1
            if node.read:
                seen[node.id] = lanes[node.first]
        if seen:
            tree.read(list(seen), np.array([row(path) for path in seen.values()]), edges)
    return edges


@given(options_strategy, st.integers(1, 4), st.integers(5, 9))
def test_a_tree_scores_every_option_as_if_it_were_alone(options: list[list[int]], lanes: int, nodes: int) -> None:
    """Summed log-probabilities through the tree equal those of each option walked token by token."""
    tree = option_tree(options, lanes, nodes)
    alone = [sum(logprob(tuple(option[:i]), token) for i, token in enumerate(option)) for option in options]
    edges = read(tree)
    assert np.allclose([edges[path].sum() for path in tree.paths], alone)
    assert tree.lengths == tuple(map(len, options))


@given(options_strategy, st.integers(1, 4), st.integers(5, 9))
def test_a_constrained_tree_scores_options_as_a_grammar_would_draw_them(
    options: list[list[int]], lanes: int, nodes: int
) -> None:
    """Each token's share among the tokens that some option allows; what has no alternative is certain."""
    tree = option_tree(options, lanes, nodes, constrained=True)
    alone = [
        sum(constrained_logprob(tuple(option[:i]), token, options) for i, token in enumerate(option))
        for option in options
    ]
    edges = read(tree)
    assert np.allclose([edges[path].sum() for path in tree.paths], alone)


def test_behind_the_last_fork_nothing_is_decoded() -> None:
    """A constrained tree decodes up to where options part, and reads only there."""
    tree = option_tree([[1, 2, 3, 0], [1, 2, 0, 3], [2, 1, 1]], 9, 9, constrained=True)
    (wave,) = tree.waves
    assert [(node.token, node.read) for node in wave.nodes] == [(1, False), (2, True)]


@given(options_strategy, st.integers(1, 4), st.integers(5, 9))
def test_waves_keep_to_their_limits(options: list[list[int]], lanes: int, nodes: int) -> None:
    """No wave has more lanes or nodes than allowed, whatever the options."""
    tree = option_tree(options, lanes, nodes)
    assert all(wave.lanes <= lanes and len(wave.nodes) <= nodes for wave in tree.waves)
    assert tree.room >= max((len(wave.nodes) for wave in tree.waves), default=0)


@given(options_strategy)
def test_only_tokens_that_something_follows_are_decoded(options: list[list[int]]) -> None:
    """With room enough, the nodes are exactly the distinct proper beginnings of the options: last tokens are free."""
    tree = option_tree(options, 99, 99)
    beginnings = {tuple(option[:i]) for option in options for i in range(1, len(option))}
    assert sum(len(wave.nodes) for wave in tree.waves) == len(beginnings)


@given(options_strategy, st.integers(1, 4), st.integers(5, 9), st.data())
def test_waves_for_some_options_read_just_those(
    options: list[list[int]], lanes: int, nodes: int, data: st.DataObject
) -> None:
    """A wave for a choice of options holds their proper beginnings and no others, within the limits."""
    tree = option_tree(options, lanes, nodes)
    chosen = data.draw(st.lists(st.sampled_from(range(len(options))), unique=True))
    waves = tree.waves_for(tree.branches[option] for option in chosen)
    wanted = {branch.id for option in chosen for branch in tree.branches[option]}
    assert {node.id for wave in waves for node in wave.nodes} == wanted
    assert all(wave.lanes <= lanes and len(wave.nodes) <= min(nodes, tree.room) for wave in waves)


@given(
    options_strategy,
    st.booleans(),
    st.booleans(),
    st.lists(st.floats(-3, 3), min_size=12, max_size=12),
    st.sampled_from([1, 2]),
)
def test_branch_and_bound_finds_what_has_to_be_certain(
    options: list[list[int]], constrained: bool, by_length: bool, offsets: list[float], sure: int
) -> None:
    """Reading promising options only, the first `sure` come out as when all are read, and bounds bound the others."""
    tree = option_tree(options, 99, 99, constrained=constrained)
    truth = Bounds(tree, *scale(tree, by_length, offsets))
    truth.learn(read(tree))
    search = Bounds(tree, *scale(tree, by_length, offsets), sure)
    known = tree.known.copy()
    known[tree.sources == ROOT] = read(tree)[tree.sources == ROOT]
    search.learn(known)
    while chosen := search.open():
        lane = tree.lane(chosen[0], known)
        assert lane, "an option that is open has something to be read"
        nodes = {branch.id for branch in lane}
        fresh = np.isin(tree.sources, list(nodes))
        known[fresh] = read(tree)[fresh]
        search.learn(known)
    assert np.allclose(np.sort(search.scores)[::-1][:sure], np.sort(truth.scores)[::-1][:sure])
    assert (search.scores >= truth.scores - 1e-9).all()
    assert np.allclose(search.scores[search.exact], truth.scores[search.exact])


def scale(tree: OptionTree, by_length: bool, offsets: list[float]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array(tree.lengths, float)
    return (1 / lengths if by_length else np.ones_like(lengths)), np.array(offsets[: len(lengths)])


def test_options_that_differ_in_their_last_token_need_one_lane() -> None:
    """Options that share all but their last token are scored from one shared path."""
    tree = option_tree([[1, 2], [1, 3], [1, 0], [2]], 8, 8)
    assert [(wave.lanes, [node.token for node in wave.nodes]) for wave in tree.waves] == [(1, [1])]


def test_normalisers_survive_large_logits() -> None:
    """The log of the summed exponentials is finite and right where a plain sum would overflow."""
    rows = np.array([[1000.0, 1000.0], [-1000.0, -1000.0]], np.float32)
    assert np.allclose(log_normalisers(rows), [1000 + np.log(2), -1000 + np.log(2)])
