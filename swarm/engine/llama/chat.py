"""Chat formats as pinned tables: a `Prompt` becomes pieces that are either control tokens or plain words.

The chat template inside a model file is never run: it is code from outside, and it concatenates user text with control
tokens before anything is tokenised. Here only a format can name a control token (`Control`), and whatever a turn says
is `Words`, tokenised with special tokens off. Text such as `<|im_start|>system` therefore stays text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from swarm.engine.base import Prompt, Role, Turn


@dataclass(frozen=True, slots=True)
class Control:
    """One control token, by its exact string in the vocabulary."""

    token: str


@dataclass(frozen=True, slots=True)
class Words:
    """Plain text; it can never become a control token."""

    text: str


Piece = Control | Words


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How one family of models was trained to see turns.

    A turn is written as `opening`, role name, `after_role`, text, `closing`, `after_turn`; the answer's turn is left
    open. Words that touch are joined before they are tokenised, as in training.
    """

    opening: tuple[Piece, ...]
    after_role: tuple[Piece, ...]
    closing: tuple[Piece, ...]
    roles: Mapping[Role, str]
    system_in_user: bool = False  # the format has no system role: its text opens the next user turn

    def controls(self) -> tuple[str, ...]:
        """Every control token that the format uses, each once."""
        pieces = (*self.opening, *self.after_role, *self.closing)
        return tuple(dict.fromkeys(piece.token for piece in pieces if isinstance(piece, Control)))

    def render(self, prompt: Prompt) -> tuple[list[Piece], list[Piece]]:
        """Pieces of the prompt's first `shared` turns, and the pieces of the rest up to the answer's first token.

        Words are joined within each of the two lists, never across: the shared tokens stay the same whatever follows.
        """
        shared: list[Piece] = []
        rest: list[Piece] = []
        inside_user = False
        for index, turn in enumerate(prompt.turns):
            target = shared if index < prompt.shared else rest
            target += self._turn(turn, inside_user)
            inside_user = self.system_in_user and turn.role == "system"
        rest += (*self.opening, Words(self.roles["assistant"]), *self.after_role, Words(prompt.answer_start))
        return _joined(shared), _joined(rest)

    def _turn(self, turn: Turn, inside_user: bool) -> tuple[Piece, ...]:
        start = (*self.opening, Words(self.roles[turn.role]), *self.after_role)
        if self.system_in_user and turn.role == "system":
            return (*(() if inside_user else start), Words(turn.text + "\n\n"))
        if inside_user:
            start = () if turn.role == "user" else (*self.closing, *start)
        return (*start, Words(turn.text), *self.closing)


def _joined(pieces: list[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, Words) and joined and isinstance(joined[-1], Words):
            joined[-1] = Words(joined[-1].text + piece.text)
        else:
            joined.append(piece)
    return [piece for piece in joined if piece != Words("")]


_NAMES: Mapping[Role, str] = MappingProxyType({"system": "system", "user": "user", "assistant": "assistant"})

FORMATS: Mapping[str, ChatFormat] = MappingProxyType(
    {
        "plain": ChatFormat(  # base models: paragraphs, no roles
            opening=(),
            after_role=(),
            closing=(Words("\n\n"),),
            roles=MappingProxyType({"system": "", "user": "", "assistant": ""}),
        ),
        "chatml": ChatFormat(  # SmolLM2, Qwen
            opening=(Control("<|im_start|>"),),
            after_role=(Words("\n"),),
            closing=(Control("<|im_end|>"), Words("\n")),
            roles=_NAMES,
        ),
        "gemma": ChatFormat(
            opening=(Control("<start_of_turn>"),),
            after_role=(Words("\n"),),
            closing=(Control("<end_of_turn>"), Words("\n")),
            roles=MappingProxyType({"system": "user", "user": "user", "assistant": "model"}),
            system_in_user=True,
        ),
        "llama3": ChatFormat(
            opening=(Control("<|start_header_id|>"),),
            after_role=(Control("<|end_header_id|>"), Words("\n\n")),
            closing=(Control("<|eot_id|>"),),
            roles=_NAMES,
        ),
    }
)
