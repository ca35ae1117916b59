"""Which tiers can answer which kind of specialist; docs/packs.md has the table."""

from __future__ import annotations

from collections.abc import Sequence

from protocols.control import TierKind
from protocols.packs import Kind, Pack
from swarm.plan.plan import Tier

CAN_USE: dict[Kind, tuple[TierKind, ...]] = {
    "classify": ("head", "small", "remote", "person"),
    "extract": ("code", "small", "remote", "person"),
    "generate": ("code", "small", "remote", "person"),
    "tool": ("code", "person"),
}
SAMPLED: tuple[Kind, ...] = ("extract", "generate")  # whose answers can be chosen from several candidates


def why_not(pack: Pack, kind: TierKind, *, recorded: bool = False) -> str | None:
    """Why a tier of this kind cannot answer for this pack; `None` if it can. What is `recorded` needs nothing of it."""
    if kind not in CAN_USE[pack.kind]:
        return f"cannot answer for kind {pack.kind}, which can use {', '.join(CAN_USE[pack.kind])}"
    if recorded:
        return None
    match pack.kind, kind:
        case "extract", "code" if not pack.patterns:
            return "needs patterns, and there are none; add patterns or leave 'code' out"
        case "generate", "code" if pack.templates is None:
            return "needs templates, and there are none; add templates or leave 'code' out"
        case "classify", "head" if len(_labels_with_examples(pack)) < 2:
            return "learns from examples, and fewer than two labels have any; add examples or leave it out"
    return None


def samples_problem(pack: Pack, ladder: Sequence[Tier]) -> str | None:
    """Why none of these tiers can be asked for several candidates; `None` if one can."""
    if pack.kind not in SAMPLED:
        return f"is for kinds {' and '.join(SAMPLED)}: a {pack.kind} specialist has nothing to draw from; delete it"
    if not any(tier.kind == "small" and not tier.recorded for tier in ladder):
        return "is for a local language model, and no tier here is one; add one to tiers, or delete this"
    return None


def _labels_with_examples(pack: Pack) -> set[str]:
    return {str(example.output.get("label")) for example in pack.examples}
