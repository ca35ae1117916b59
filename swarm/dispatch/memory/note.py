"""One note: what came in and what went out, a line each at most."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from protocols.ids import TaskId

LONGEST = 240  # characters of either side of a note
BYTES_PER_TOKEN = 3  # how a token is counted here, where no model is at hand; of English it is nearer four


class Note(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one step of one task, or a summary of the notes before: then `task` and `step` are of the last among them."""

    task: TaskId
    step: str
    asked: str
    answered: str
    summary: bool = False

    @property
    def line(self) -> str:
        """As it is recalled."""
        return self.answered if self.summary else f"{self.asked} → {self.answered}"

    @property
    def tokens(self) -> int:
        return tokens_of(self.line)


def tokens_of(text: str) -> int:
    """About how many tokens a language model reads `text` as; rather too many than too few."""
    return len(text.encode(errors="surrogatepass")) // BYTES_PER_TOKEN + 1


def one_line(values: Mapping[str, Any], longest: int = LONGEST) -> str:
    """`values` on one line: a lone one as it is, several with their names; what is empty is left out."""
    said = {name: _plain(value) for name, value in values.items() if value not in (None, "", [], {})}
    whole = " ".join(
        ("; ".join(f"{k}: {v}" for k, v in said.items()) if len(said) > 1 else "".join(said.values())).split()
    )
    return whole if len(whole) <= longest else whole[: longest - 1] + "…"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
