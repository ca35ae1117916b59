from hypothesis import given
from hypothesis import strategies as st

from swarm.engine.llama.prefix import Node, PrefixTree
from swarm.engine.llama.seen import Seen, common

token_lists = st.lists(st.integers(0, 2), min_size=1, max_size=8)


def grow(tree: PrefixTree, prompt: list[int], numbers: list[int]) -> Node | None:
    """Put the whole of `prompt` into the tree."""
    node, at = tree.match(prompt)
    if node and at < node.end:
        node = tree.split(node, at, numbers.pop())
    return tree.add(node, tuple(prompt[at:]), numbers.pop()) if at < len(prompt) else node


@given(st.lists(token_lists, max_size=12), token_lists)
def test_a_tree_finds_the_longest_beginning_that_it_holds(prompts: list[list[int]], other: list[int]) -> None:
    """Whatever was added, a prompt is matched as far as any of the added ones goes along with it."""
    tree, numbers = PrefixTree(), list(range(99))
    for prompt in prompts:
        grow(tree, prompt, numbers)
    node, at = tree.match(other)
    assert at == max((common(prompt, other) for prompt in prompts), default=0)
    assert node is None if at == 0 else list(node.path[:at]) == other[:at]
    assert tree.cells == len({tuple(prompt[:i]) for prompt in prompts for i in range(1, len(prompt) + 1)})


def test_what_is_missing_is_named_from_the_top() -> None:
    """A node is decoded after its ancestors, and only when somebody needs more than they hold."""
    tree = PrefixTree()
    top = tree.add(None, (1, 2, 3), 0)
    below = tree.add(top, (4, 5), 1)
    assert below.lacking(5) is top
    top.decoded = 3
    assert below.lacking(5) is below and below.lacking(3) is None
    below.decoded = 1
    assert below.lacking(4) is None and below.lacking(5) is below
    assert below.holder(3) is top and below.holder(4) is below


def test_a_half_decoded_node_is_split_without_losing_what_is_there() -> None:
    """The upper part keeps what was decoded of it, the lower part the rest."""
    tree = PrefixTree()
    node = tree.add(None, (1, 2, 3, 4, 5, 6), 0)
    node.decoded = 4
    upper = tree.split(node, 2, 1)
    assert (upper.decoded, node.decoded, node.start, node.path) == (2, 2, 2, (1, 2, 3, 4, 5, 6))
    assert tree.match([1, 2, 3]) == (node, 3) and tree.match([1, 2]) == (upper, 2)


def test_the_least_valuable_leaf_is_offered_first() -> None:
    """Value is tokens times recent uses; nodes with users or children are never offered."""
    tree = PrefixTree()
    often, long, parent = tree.add(None, (1,) * 10, 0), tree.add(None, (2,) * 30, 1), tree.add(None, (3,) * 5, 2)
    child = tree.add(parent, (4,) * 5, 3)
    for _ in range(8):
        often.use(0)
        child.use(0)
    long.use(0)
    assert tree.least_valuable(0) is long
    long.users = 1
    assert tree.least_valuable(0) is child
    child.users = often.users = 1
    assert tree.least_valuable(0) is None


def test_old_uses_count_less() -> None:
    """A prefix that was used often an hour ago is worth less than one used once just now."""
    tree = PrefixTree()
    old, new = tree.add(None, (1,) * 10, 0), tree.add(None, (2,) * 10, 1)
    for _ in range(50):
        old.use(0)
    new.use(3600)
    assert tree.least_valuable(3600) is old


@given(st.lists(token_lists, min_size=1, max_size=12))
def test_a_prompt_with_one_other_is_shared_up_to_where_they_part(prompts: list[list[int]]) -> None:
    """Of two prompts the common beginning is named, and how many tokens it saves."""
    seen = Seen()
    for prompt in prompts[:2]:
        seen.add(prompt)
    if len(prompts) > 1:
        alike = common(prompts[0], prompts[1])
        assert seen.shared(prompts[0]) == (alike, alike)
        assert seen.shared(prompts[0], known=alike) == (alike, 0)


def test_what_many_share_is_worth_more_than_what_two_share() -> None:
    """A beginning of many prompts is chosen before a longer one of two, and that one when the first is there."""
    seen = Seen()
    for last in range(16):
        seen.add([1, 2, 3, 4, 5, 6, 10 + last])
    seen.add([1, 2, 3, 4, 5, 6, 7, 8])
    seen.add([1, 2, 3, 4, 5, 6, 7, 9])
    tokens, saved = seen.shared([1, 2, 3, 4, 5, 6, 7, 8])
    assert tokens == 6 and saved >= 6 * 16
    assert seen.shared([1, 2, 3, 4, 5, 6, 7, 8], known=6) == (7, 1)


def test_old_prompts_are_forgotten() -> None:
    """Only the last prompts count."""
    seen = Seen(kept=2)
    for prompt in ([1, 2, 3], [5], [6]):
        seen.add(prompt)
    assert seen.shared([1, 2, 9]) == (0, 0)
