"""A refused hold says its subject, its limit and its remedy."""

from __future__ import annotations

import pytest

from swarm.dispatch.accounts import explain
from swarm.state.base import Refusal


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        (
            Refusal("task:t-1", "tokens", 1_200, 300, passing=False),
            "step 's' at tier 'small' needs 1,200 tokens, 300 tokens left in this task; raise budget.task.tokens",
        ),
        (
            Refusal("run:r-1", "usd", 12_345, 99, passing=False),
            "step 's' at tier 'small' needs $0.0123, $0.000099 left in this run; raise budget.run.usd",
        ),
    ],
)
def test_a_refusal_names_step_tier_need_rest_and_remedy(refusal: Refusal, sentence: str) -> None:
    """In the unit of the limit that was reached, with the key of the file that holds it."""
    assert explain(refusal, "s", "small") == sentence
