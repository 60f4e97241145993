"""What a chat room and a language model know of each other: `TurnContext` in, text and chunks out.

A model is stateless as far as the room can see: each call gets the whole conversation and what
was already said of the answer. That is what lets a turn be continued by another process after a
crash. The contract that every model here keeps:

- **Continue.** With `TurnContext.partial` non-empty, yield only what comes after it.
- **Stop.** When the iterator is closed or its task is cancelled, stop the work, not only the talk.
- **Never end politely by accident.** A normal end of the iterator means that the answer is whole.
  A lost connection, a crash or a timeout raises `ModelError` (or a subclass) instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ..wire.messages import ChatMessage
    from ..wire.ui_chunks import Chunk


@dataclass(frozen=True, slots=True)
class TurnContext:
    """What a model sees of one turn.

    Attributes:
        text: the newest user message's text.
        messages: the conversation, oldest first, the newest user message last; without the answer
            that is being made.
        partial: what was already said of the answer before a crash; empty on the first attempt.
        instructions: the room's system prompt; empty for the model's own default.
        attempt: 1 for the first run of the turn, 2 after one interruption, and so on.
        room: the room's name.
        turn_id: the turn's id, stable over all attempts.
    """

    text: str
    messages: Sequence[ChatMessage] = ()
    partial: str = ""
    instructions: str = ""
    attempt: int = 1
    room: str = ""
    turn_id: str = ""


@runtime_checkable
class Model(Protocol):
    """A language model. One instance serves any number of turns at once."""

    @property
    def name(self) -> str:
        """What people read about it, like ``anthropic:claude-opus-5-5``."""
        ...

    def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        """Answer ``turn``: pieces of text, and chunks where text is not enough.

        No ``start`` or ``finish`` chunk is needed; the room adds the envelope.

        Raises:
            ModelError: the model failed; `ModelOverloaded` and `ModelTimeout` may be tried again.
        """
        ...

    async def aclose(self) -> None:
        """Let go of processes and connections. May be called twice; `respond` may not be called after it."""
        ...
