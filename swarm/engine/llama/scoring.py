"""Options as a tree: what has to be decoded to know how likely each of them is, and nothing more.

Options that begin alike share those tokens. An option's last token is never decoded: its probability is read from the
token before it, and that of every first token from the prompt's last one. A tree is decoded in a single batch: a
token is tagged with all sequences (*lanes*) whose path leads through it, so siblings do not see each other.

    prompt ─┬─ " card" ─┬─ "_lost"                     decoded: " card", "_arrival" (lane 0), " top" (lane 1)
            │           └─ "_arrival" ── "_late"       read:    an edge's probability from the node before it
            └─ " top" ──── "_up"
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True)
class OptionTree:
    """All options of a request. An edge leads from the node `sources[e]` to the token `tokens[e]`."""

    waves: tuple[Wave, ...]
    sources: NDArray[np.intp]  # (edges,)
    tokens: NDArray[np.intp]  # (edges,)
    paths: tuple[NDArray[np.intp], ...]  # for each option its edges

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each option."""
        return tuple(len(path) for path in self.paths)

    @property
    def room(self) -> int:
        """Most tokens that the tree holds in memory at a time."""
        return max((len(wave.nodes) for wave in self.waves), default=0)

    def scores(self, edges: NDArray[np.float64]) -> tuple[float, ...]:
        """Summed log-probability of each option from the log-probability of each edge."""
        return tuple(float(edges[path].sum()) for path in self.paths)


def option_tree(options: Sequence[Sequence[int]], max_lanes: int, max_nodes: int) -> OptionTree:
    """The tree of `options` (token lists, none empty), in waves of at most `max_lanes` lanes and `max_nodes` tokens.

    A single option longer than `max_nodes` still makes one wave.
    """
    builder = _Builder()
    paths = tuple(builder.add(option) for option in options)
    waves = _waves(list(_lanes(builder.root, ())), max_lanes, max_nodes)
    return OptionTree(waves, np.array(builder.sources, np.intp), np.array(builder.tokens, np.intp), paths)


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


@dataclass(slots=True)
class _Branch:
    """A node while the tree grows; it exists only when an option goes on after its token."""

    id: int
    token: int
    depth: int
    edges: dict[int, int] = field(default_factory=dict)  # token → edge
    children: dict[int, _Branch] = field(default_factory=dict)  # token → branch


class _Builder:
    def __init__(self) -> None:
        self.root = _Branch(ROOT, ROOT, 0)
        self.sources: list[int] = []
        self.tokens: list[int] = []
        self._branches = 1

    def add(self, option: Sequence[int]) -> NDArray[np.intp]:
        """The option's edges."""
        here, path = self.root, []
        for index, token in enumerate(option):
            if index:
                here = self._child(here, option[index - 1])
            if token not in here.edges:
                here.edges[token] = len(self.tokens)
                self.sources.append(here.id)
                self.tokens.append(token)
            path.append(here.edges[token])
        return np.array(path, np.intp)

    def _child(self, branch: _Branch, token: int) -> _Branch:
        if token not in branch.children:
            branch.children[token] = _Branch(self._branches, token, branch.depth + 1)
            self._branches += 1
        return branch.children[token]


def _lanes(branch: _Branch, path: tuple[_Branch, ...]) -> Iterator[tuple[_Branch, ...]]:
    """Every way from the root to a branch without children, depth first; the root is left out."""
    if not branch.children and path:
        yield path
    for child in branch.children.values():
        yield from _lanes(child, (*path, child))


def _waves(lanes: Sequence[tuple[_Branch, ...]], max_lanes: int, max_nodes: int) -> tuple[Wave, ...]:
    waves: list[Wave] = []
    group: list[tuple[_Branch, ...]] = []
    for lane in lanes:
        size = len({branch.id for path in (*group, lane) for branch in path})
        if group and (len(group) == max_lanes or size > max_nodes):
            waves.append(_wave(group))
            group = []
        group.append(lane)
    return (*waves, _wave(group)) if group else ()


def _wave(group: Sequence[tuple[_Branch, ...]]) -> Wave:
    """Depth first means that the lanes through a node stand side by side."""
    through: dict[int, list[int]] = {}
    branches: dict[int, _Branch] = {}
    for index, path in enumerate(group):
        for branch in path:
            branches[branch.id] = branch
            through.setdefault(branch.id, []).append(index)
    nodes = (Node(b.id, b.token, b.depth, through[b.id][0], through[b.id][-1] + 1) for b in branches.values())
    return Wave(tuple(nodes), len(group))
