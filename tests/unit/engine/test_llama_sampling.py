import numpy as np
import pytest

from swarm.engine.llama.sampling import Sampler

LOGITS = np.array([0.0, 2.0, 1.0], np.float32)


def test_greedy_takes_the_likeliest_allowed_token_and_its_unmasked_probability() -> None:
    """The mask decides what may be chosen; the log-probability is that of the unmasked softmax."""
    sampled = Sampler(0.0, seed=0).sample(LOGITS, np.array([0, 2]))
    assert sampled.token == 2
    assert sampled.logprob == pytest.approx(1 - np.log(np.exp(LOGITS).sum()))


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    """Over many draws each token comes as often as the tempered softmax says."""
    sampler = Sampler(2.0, seed=3)
    counts = np.bincount([sampler.sample(LOGITS).token for _ in range(20_000)], minlength=3)
    expected = np.exp(LOGITS / 2) / np.exp(LOGITS / 2).sum()
    assert np.allclose(counts / 20_000, expected, atol=0.015)


def test_the_same_seed_draws_the_same_tokens() -> None:
    """Two samplers with one seed agree; another seed does not."""
    draws = [[s.sample(LOGITS).token for _ in range(50)] for s in (Sampler(1, 1), Sampler(1, 1), Sampler(1, 2))]
    assert draws[0] == draws[1] != draws[2]


def test_a_negative_temperature_is_refused() -> None:
    """A temperature below zero has no meaning."""
    with pytest.raises(ValueError, match="temperature"):
        Sampler(-0.1, 0)
