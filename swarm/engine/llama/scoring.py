"""Options as a tree: what has to be decoded to know how likely each of them is, and nothing more.

Options that begin alike share those tokens. An option's last token is never decoded: its probability is read from the
token before it, and that of every first token from the prompt's last one. A tree is decoded in a single batch: a
token is tagged with all sequences (*lanes*) whose path leads through it, so siblings do not see each other.

    prompt ─┬─ " card" ─┬─ "_lost"                     decoded: " card", "_arrival" (lane 0), " top" (lane 1)
            │           └─ "_arrival" ── "_late"       read:    an edge's probability from the node before it
            └─ " top" ──── "_up"

Where options are weighed as constrained decoding would draw them, a token without a sibling is certain. Then only nodes
at which options part are read, and nothing is decoded behind the last of them: of the tree above just " card".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from swarm.engine.llama.logits import Rows, log_normalisers
from swarm.errors import EngineError

ROOT = 0  # the node before the options: the prompt's last token


@dataclass(frozen=True, slots=True)
class Node:
    """A token to be decoded, `depth` tokens after the prompt's last, for the lanes `first` up to `last` (excluded).

    `read`: its logits are wanted.
    """

    id: int
    token: int
    depth: int
    first: int
    last: int
    read: bool


@dataclass(frozen=True, slots=True)
class Wave:
    """Nodes that are decoded together, parents before children; their lanes count from 0."""

    nodes: tuple[Node, ...]
    lanes: int

    @property
    def rows(self) -> int:
        """How many of its nodes are read."""
        return sum(node.read for node in self.nodes)


@dataclass(eq=False, slots=True)
class Branch:
    """A node while trees are built: `edges` by token to their places, `children` where an option goes on."""

    id: int
    token: int
    depth: int
    edges: dict[int, int] = field(default_factory=dict)
    children: dict[int, Branch] = field(default_factory=dict)


Lane = tuple[Branch, ...]  # the way to a node, the root left out


@dataclass(frozen=True, slots=True)
class OptionTree:
    """All options of a request. An edge leads from the node `sources[e]` to the token `tokens[e]`."""

    waves: tuple[Wave, ...]  # that read all of them
    sources: NDArray[np.intp]  # (edges,)
    tokens: NDArray[np.intp]  # (edges,)
    paths: tuple[NDArray[np.intp], ...]  # for each option its edges
    branches: tuple[Lane, ...]  # for each option the nodes that have to be decoded for it
    known: NDArray[np.float64]  # (edges,): log-probability where it is certain, else NaN
    constrained: bool
    max_lanes: int
    max_nodes: int

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each option."""
        return tuple(len(path) for path in self.paths)

    @property
    def room(self) -> int:
        """Most tokens that the tree holds in memory at a time."""
        n_nodes = len({branch.id for lane in self.branches for branch in lane})
        return max(min(n_nodes, self.max_nodes), *(len(wave.nodes) for wave in self.waves), 0)

    def lane(self, option: int, edges: NDArray[np.float64]) -> Lane:
        """The nodes to decode next for `option`, where `edges` are known.

        All of them; in a constrained tree those up to the first fork that was not read, as it may rule the option out.
        """
        lane = self.branches[option]
        if self.constrained:
            unread = (at for at, node in enumerate(lane, 1) if np.isnan(edges[list(node.edges.values())]).any())
            lane = lane[: next(unread, None)]
        return lane

    def waves_for(self, lanes: Iterable[Lane]) -> tuple[Wave, ...]:
        """Waves that decode just the nodes of these lanes."""
        lanes = sorted(lanes, key=_depth_first)
        ends = [lane for lane, after in pairwise([*lanes, ()]) if lane and after[: len(lane)] != lane]
        return _waves(ends, self.max_lanes, self.max_nodes, self.constrained)

    def read(self, nodes: Sequence[int], rows: Rows, edges: NDArray[np.float64]) -> None:
        """Fill in the log-probability (nats) of all edges that start at `nodes`, whose logits are `rows`.

        `rows`: shape (nodes, vocabulary); `edges`: shape (edges,), changed in place. Raises `EngineError` for
        logits that are no numbers.
        """
        row_of = np.full(int(max(self.sources.max(), *nodes)) + 1, len(rows))
        row_of[list(nodes)] = np.arange(len(rows))
        row = row_of[self.sources]
        found = np.flatnonzero(row < len(rows))
        row = row[found]
        logits = rows[row, self.tokens[found]].astype(np.float64)
        if self.constrained:  # the siblings share all of the probability
            normalisers = np.full(len(rows), -np.inf)
            np.logaddexp.at(normalisers, row, logits)
        else:
            normalisers = log_normalisers(rows)
        edges[found] = logits - normalisers[row]
        if np.isnan(edges[found]).any():
            raise EngineError("the model computes no numbers (NaN): its file or its adapter is damaged; pull it again")


def option_tree(
    options: Sequence[Sequence[int]], max_lanes: int, max_nodes: int, *, constrained: bool = False
) -> OptionTree:
    """The tree of `options` (token lists, none empty), in waves of at most `max_lanes` lanes and `max_nodes` tokens.

    A single option longer than `max_nodes` still makes one wave. `constrained`: probabilities are shares among the
    tokens that some option allows; an option that ends where another goes on cannot be told from it there.
    """
    builder = _Builder()
    added = [builder.add(option) for option in options]
    paths, branches = tuple(path for path, _ in added), tuple(lane for _, lane in added)
    sources, tokens = np.array(builder.sources, np.intp), np.array(builder.tokens, np.intp)
    known = np.full(len(tokens), np.nan)
    if constrained:
        siblings = np.bincount(sources)[sources]
        known[siblings == 1] = 0.0
        branches = tuple(map(_up_to_the_last_fork, branches))
    everything = OptionTree((), sources, tokens, paths, branches, known, constrained, max_lanes, max_nodes)
    return replace(everything, waves=everything.waves_for(branches))


class _Builder:
    def __init__(self) -> None:
        self.root = Branch(ROOT, ROOT, 0)
        self.sources: list[int] = []
        self.tokens: list[int] = []
        self._branches = 1

    def add(self, option: Sequence[int]) -> tuple[NDArray[np.intp], Lane]:
        """The option's edges and nodes."""
        here, path, lane = self.root, [], []
        for index, token in enumerate(option):
            if index:
                here = self._child(here, option[index - 1])
                lane.append(here)
            if token not in here.edges:
                here.edges[token] = len(self.tokens)
                self.sources.append(here.id)
                self.tokens.append(token)
            path.append(here.edges[token])
        return np.array(path, np.intp), tuple(lane)

    def _child(self, branch: Branch, token: int) -> Branch:
        if token not in branch.children:
            branch.children[token] = Branch(self._branches, token, branch.depth + 1)
            self._branches += 1
        return branch.children[token]


def _depth_first(lane: Lane) -> tuple[int, ...]:
    """Numbers are given in the order in which branches are made, so siblings are told apart and kept in that order."""
    return tuple(branch.id for branch in lane)


def _up_to_the_last_fork(lane: Lane) -> Lane:
    forks = [place for place, branch in enumerate(lane, start=1) if len(branch.edges) > 1]
    return lane[: forks[-1]] if forks else ()


def _waves(lanes: Sequence[Lane], max_lanes: int, max_nodes: int, constrained: bool) -> tuple[Wave, ...]:
    waves: list[Wave] = []
    group: list[Lane] = []
    for lane in lanes:
        size = len({branch.id for path in (*group, lane) for branch in path})
        if group and (len(group) == max_lanes or size > max_nodes):
            waves.append(_wave(group, constrained))
            group = []
        group.append(lane)
    return (*waves, _wave(group, constrained)) if group else ()


def _wave(group: Sequence[Lane], constrained: bool) -> Wave:
    """Depth first means that the lanes through a node stand side by side."""
    through: dict[int, list[int]] = {}
    branches: dict[int, Branch] = {}
    for index, path in enumerate(group):
        for branch in path:
            branches[branch.id] = branch
            through.setdefault(branch.id, []).append(index)
    nodes = (
        Node(b.id, b.token, b.depth, through[b.id][0], through[b.id][-1] + 1, not constrained or len(b.edges) > 1)
        for b in branches.values()
    )
    return Wave(tuple(nodes), len(group))
