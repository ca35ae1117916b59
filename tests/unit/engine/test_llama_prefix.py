from swarm.engine.llama.prefix import PrefixCache


def test_the_prefix_used_longest_ago_goes_first() -> None:
    """Of the prefixes that nobody builds on, the least recently used is offered for eviction."""
    cache = PrefixCache()
    for tokens in ((1, 2), (3,), (4,)):
        cache.add(tokens, sequence=tokens[0]).users = 0
    again = cache.acquire((1, 2))
    assert again is not None
    again.users = 0
    idle = cache.idle()
    assert idle is not None and idle.tokens == (3,)


def test_a_prefix_in_use_is_never_idle() -> None:
    """A prefix with a user is not offered, and neither is the one that the caller wants to keep."""
    cache = PrefixCache()
    cache.add((1,), 0)
    cache.add((2,), 1).users = 0
    assert cache.idle(besides=(2,)) is None


def test_cells_follow_what_is_added_and_removed() -> None:
    """The cache counts the cells of its prefixes and gives them back."""
    cache = PrefixCache()
    prefix = cache.add((1, 2, 3), 0)
    cache.add((4,), 1)
    assert cache.cells == 4
    cache.remove(prefix)
    assert (cache.cells, len(cache), (1, 2, 3) in cache) == (1, 1, False)
