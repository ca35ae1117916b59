"""What a remote model sent back, read as strictly as it matters: the bill must be right, the text is judged later."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

_Tokens = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]


class Unusable(ValueError):
    """The body holds no token counts that can be believed."""


class Used(msgspec.Struct, frozen=True):
    """Tokens as the provider counts them."""

    prompt_tokens: _Tokens
    completion_tokens: _Tokens


class Completion(msgspec.Struct, frozen=True):
    """The parts of an answer that are used."""

    usage: Used
    choices: Any = None

    @property
    def text(self) -> str:
        """Of the first choice; empty where there is none."""
        match self.choices:
            case [{"message": {"content": str(text)}}, *_]:
                return text
            case _:
                return ""

    @property
    def cut(self) -> bool:
        """Whether it ended at the limit of tokens."""
        match self.choices:
            case [{"finish_reason": "length"}, *_]:
                return True
            case _:
                return False


def read(body: bytes) -> Completion:
    """Raises `Unusable`."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Unusable(f"answered without a usable token count: {e}") from None


_decode = msgspec.json.Decoder(Completion).decode
