"""The prefix tree: what prompts have in common at their beginnings is decoded once.

    "You classify bank messages. …" ─┬─ "Message: card gone\nLabel: card lost\n…" ─┬─ request 1
      node, a sequence of its own    │    node, forked from its parent's sequence  └─ request 2
                                     └─ request 3

A node holds a piece of a prompt. Its sequence in the KV memory sees the whole way from the tree's root to the node's
end, so a request forks it, up to where the prompts part, and nothing is copied. Nodes with children or users are never
evicted; of the others the one goes first that saves least: tokens times how often it was used lately.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from swarm.engine.llama.seen import common

_HALF_LIFE_S = 300.0  # after which a use counts half


@dataclass(eq=False, slots=True)
class Node:
    """Tokens `start` to `end` of the prompts below it. `decoded` counts those of its own that are in memory."""

    tokens: tuple[int, ...]
    start: int
    parent: Node | None
    sequence: int
    decoded: int = 0
    users: int = 0  # requests that build on it
    forked: bool = False  # its sequence has the parent's tokens
    restorable: bool = False  # it is on disk and worth reading
    saved: bool = False
    children: dict[int, Node] = field(default_factory=dict)  # by first token
    _uses: float = 0.0
    _used_at: float = 0.0

    @property
    def end(self) -> int:
        """Position behind its last token: how many tokens its path has."""
        return self.start + len(self.tokens)

    @property
    def ready(self) -> bool:
        """All of its own tokens are in memory."""
        return self.decoded == len(self.tokens)

    @property
    def path(self) -> tuple[int, ...]:
        """All tokens from the root to the node's end."""
        return (*(self.parent.path if self.parent else ()), *self.tokens)

    @property
    def idle(self) -> bool:
        """Nobody builds on it."""
        return not self.users and not self.children

    @property
    def proved(self) -> bool:
        """It was of use to somebody."""
        return self._uses > 0

    def uses(self, now: float) -> float:
        """How often it was used up to `now` (seconds of a steady clock), each use counting half after five minutes."""
        return self._uses * float(0.5 ** ((now - self._used_at) / _HALF_LIFE_S))

    def use(self, now: float) -> None:
        """Somebody builds on it, at `now` (seconds of a steady clock)."""
        self._uses, self._used_at = self.uses(now) + 1, now

    def chain(self) -> Iterator[Node]:
        """The node and its ancestors."""
        here: Node | None = self
        while here is not None:
            yield here
            here = here.parent

    def holder(self, end: int) -> Node:
        """Of the node and its ancestors the one whose sequence is the first to see `end` tokens."""
        return next(node for node in self.chain() if node.start < end or node.parent is None)

    def lacking(self, end: int) -> Node | None:
        """What has to be decoded next before `end` tokens are there; `None` when they are."""
        missing = [node for node in self.chain() if node.start < end and node.start + node.decoded < min(end, node.end)]
        return missing[-1] if missing else None


class PrefixTree:
    """All nodes in memory."""

    def __init__(self) -> None:
        self._roots: dict[int, Node] = {}
        self._nodes: set[Node] = set()
        self.cells = 0  # KV cells that the nodes hold or have reserved

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    def __contains__(self, node: object) -> bool:
        return node in self._nodes

    def match(self, prompt: Sequence[int]) -> tuple[Node | None, int]:
        """The deepest node that `prompt` reaches into, and how many of the prompt's tokens are on the way there."""
        node, at = None, 0
        children = self._roots
        while at < len(prompt) and (child := children.get(prompt[at])) is not None:
            node = child
            at += common(tuple(prompt[at : at + len(child.tokens)]), child.tokens)
            if at < child.end:
                break
            children = child.children
        return node, at

    def add(self, parent: Node | None, tokens: tuple[int, ...], sequence: int) -> Node:
        """A new node behind the whole of `parent`; its tokens are still to be decoded."""
        siblings = parent.children if parent else self._roots
        assert tokens and tokens[0] not in siblings
        node = Node(tokens, parent.end if parent else 0, parent, sequence)
        siblings[tokens[0]] = node
        self._nodes.add(node)
        self.cells += len(tokens)
        return node

    def split(self, node: Node, at: int, sequence: int) -> Node:
        """Cut `node` in two at position `at`; returns the new upper part, whose sequence must fork the node's."""
        assert node.start < at < node.end
        size = at - node.start
        upper = Node(node.tokens[:size], node.start, node.parent, sequence, min(node.decoded, size), forked=node.forked)
        upper._uses, upper._used_at, upper.restorable = node._uses, node._used_at, False
        (node.parent.children if node.parent else self._roots)[node.tokens[0]] = upper
        node.tokens, node.start, node.parent = node.tokens[size:], at, upper
        node.decoded -= upper.decoded
        node.forked, node.restorable = node.decoded > 0, False
        upper.children[node.tokens[0]] = node
        self._nodes.add(upper)
        return upper

    @property
    def evictable(self) -> int:
        """Cells of all nodes that nobody builds on, directly or through their children."""
        pinned = {node for used in self._nodes if used.users for node in used.chain()}
        return self.cells - sum(len(node.tokens) for node in pinned)

    def least_valuable(self, now: float) -> Node | None:
        """The leaf that saves least and that nobody builds on."""
        idle = (node for node in self._nodes if node.idle)
        return min(idle, key=lambda node: len(node.tokens) * node.uses(now), default=None)

    def remove(self, node: Node) -> None:
        """Forget a node without children; the caller frees its sequence."""
        assert not node.children
        del (node.parent.children if node.parent else self._roots)[node.tokens[0]]
        self._nodes.remove(node)
        self.cells -= len(node.tokens)
