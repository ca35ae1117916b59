import numpy as np
import pytest

from swarm.engine.llama.sampling import Mask, Sampler

LOGITS = np.array([0.0, 2.0, 1.0], np.float32)


def mask_of(*tokens: int, size: int = 64) -> Mask:
    bits = np.zeros(size, np.uint8)
    bits[list(tokens)] = 1
    return Mask(np.packbits(bits, bitorder="little").tobytes())


def test_a_mask_knows_its_tokens() -> None:
    """A mask lists the tokens whose bits are set, wherever they stand, and knows whether there is a choice."""
    mask = mask_of(0, 31, 32, 63, 70, size=96)
    assert mask.tokens.tolist() == [0, 31, 32, 63, 70]
    assert [token in mask for token in (0, 1, 70, 71)] == [True, False, True, False]
    assert [mask_of(5).is_choice, mask_of(5, 6).is_choice, mask_of(5, 40).is_choice] == [False, True, True]


def test_greedy_takes_the_likeliest_allowed_token_and_its_unmasked_probability() -> None:
    """The mask decides what may be chosen; the log-probability is that of the unmasked softmax."""
    sampled = Sampler(0.0, seed=0).sample(LOGITS, 0, mask_of(0, 2))
    assert sampled.token == 2
    assert sampled.logprob == pytest.approx(1 - np.log(np.exp(LOGITS).sum()))


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    """Over many draws each allowed token comes as often as the tempered softmax of these says."""
    sampler = Sampler(2.0, seed=3)
    for mask, tokens in ((None, [0, 1, 2]), (mask_of(0, 2), [0, 2])):
        drawn = [sampler.sample(LOGITS, position, mask).token for position in range(10_000)]
        weights = np.where(np.isin([0, 1, 2], tokens), np.exp(LOGITS / 2), 0)
        assert np.allclose(np.bincount(drawn, minlength=3) / 10_000, weights / weights.sum(), atol=0.02)


def test_a_draw_depends_on_seed_and_position_alone() -> None:
    """The token at a position is the same whatever was drawn before it; another seed draws others."""
    forwards = [Sampler(1, 7).sample(LOGITS, position).token for position in range(50)]
    one = Sampler(1, 7)
    backwards = [one.sample(LOGITS, position).token for position in reversed(range(50))]
    assert backwards[::-1] == forwards
    assert [Sampler(1, -8).sample(LOGITS, position).token for position in range(50)] != forwards


def test_a_negative_temperature_is_refused() -> None:
    """A temperature below zero has no meaning."""
    with pytest.raises(ValueError, match="temperature"):
        Sampler(-0.1, 0)
