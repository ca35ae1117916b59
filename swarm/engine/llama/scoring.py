"""Options as a tree: what has to be decoded to know how likely each of them is, and nothing more.

Options that begin alike share those tokens. An option's last token is never decoded: its probability is read from the
token before it, and that of every first token from the prompt's last one. A tree is decoded in a single batch: a
token is tagged with all sequences (*lanes*) whose path leads through it, so siblings do not see each other.

    prompt ─┬─ " card" ─┬─ "_lost"                     decoded: " card", "_arrival" (lane 0), " top" (lane 1)
            │           └─ "_arrival" ── "_late"       read:    an edge's probability from the node before it
            └─ " top" ──── "_up"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

ROOT = 0  # the node before the options: the prompt's last token


@dataclass(frozen=True, slots=True)
class Node:
    """A token to be decoded, `depth` tokens after the prompt's last, for the lanes `first` up to `last` (excluded)."""

    id: int
    token: int
    depth: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Wave:
    """Nodes that are decoded together, parents before children; their lanes count from 0."""

    nodes: tuple[Node, ...]
    lanes: int


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
    branches: tuple[Lane, ...]  # for each option its nodes: all tokens but the last
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

    def waves_for(self, options: Sequence[int]) -> tuple[Wave, ...]:
        """Waves that read these options only."""
        lanes = sorted((self.branches[option] for option in options), key=_depth_first)
        ends = [lane for lane, after in pairwise([*lanes, ()]) if lane and after[: len(lane)] != lane]
        return _waves(ends, self.max_lanes, self.max_nodes)


def option_tree(options: Sequence[Sequence[int]], max_lanes: int, max_nodes: int) -> OptionTree:
    """The tree of `options` (token lists, none empty), in waves of at most `max_lanes` lanes and `max_nodes` tokens.

    A single option longer than `max_nodes` still makes one wave.
    """
    builder = _Builder()
    added = [builder.add(option) for option in options]
    paths, branches = tuple(path for path, _ in added), tuple(lane for _, lane in added)
    sources, tokens = np.array(builder.sources, np.intp), np.array(builder.tokens, np.intp)
    everything = OptionTree((), sources, tokens, paths, branches, max_lanes, max_nodes)
    return replace(everything, waves=everything.waves_for(range(len(options))))


def log_normalisers(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """log Σ exp of each row: shape (rows, vocabulary) → (rows,). Row by row, so that one stays in the CPU's cache."""
    result = np.empty(len(rows), np.float64)
    scratch = np.empty(rows.shape[1:], np.float32)
    for index, row in enumerate(rows):
        top = row.max()
        np.subtract(row, top, out=scratch)
        np.exp(scratch, out=scratch)
        result[index] = float(top) + float(np.log(scratch.sum(dtype=np.float64)))
    return result


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


def _waves(lanes: Sequence[Lane], max_lanes: int, max_nodes: int) -> tuple[Wave, ...]:
    waves: list[Wave] = []
    group: list[Lane] = []
    for lane in lanes:
        size = len({branch.id for path in (*group, lane) for branch in path})
        if group and (len(group) == max_lanes or size > max_nodes):
            waves.append(_wave(group))
            group = []
        group.append(lane)
    return (*waves, _wave(group)) if group else ()


def _wave(group: Sequence[Lane]) -> Wave:
    """Depth first means that the lanes through a node stand side by side."""
    through: dict[int, list[int]] = {}
    branches: dict[int, Branch] = {}
    for index, path in enumerate(group):
        for branch in path:
            branches[branch.id] = branch
            through.setdefault(branch.id, []).append(index)
    nodes = (Node(b.id, b.token, b.depth, through[b.id][0], through[b.id][-1] + 1) for b in branches.values())
    return Wave(tuple(nodes), len(group))
