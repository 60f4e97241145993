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

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from ..wire.messages import ChatMessage
    from ..wire.ui_chunks import Chunk


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a model is told of a tool: its name, what it is for, and the JSON Schema of its input (an object)."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool, as the function that carries it out may ask for it.

    Attributes:
        id: the call's id, the same on every wire.
        name: the tool's name.
        input: what the model wrote.
        idempotency_key: the same however often this call is tried: hand it to a service that knows such keys.
        attempt: 1, or more where the tool said that it may be tried again and a crash cut an earlier try off.
        turn_id: the answer that the call belongs to.
        room: the room's name.
    """

    id: str
    name: str
    input: Any
    idempotency_key: str
    attempt: int
    turn_id: str
    room: str


class ToolLedger(Protocol):
    """Remembers which calls were carried out, so that none is twice. The room's; for models that run tools."""

    async def run(
        self,
        call_id: str,
        name: str,
        input: Any,
        work: Callable[[ToolCall], Awaitable[Any]],
        *,
        idempotent: bool = False,
    ) -> Any:
        """Do ``work`` for this call, once: a call that has ended gives its result again.

        That the work begins is durable before it does. Where a crash cut it off, ``idempotent`` work is done
        again under the same key; other work may have had its effect, so it is not.

        Raises:
            ToolInterrupted: a crash cut the work off, and it is not idempotent.
            Exception: what the work raised; it is remembered and raised again, as `ToolError`.
        """
        ...


LoadFile: TypeAlias = Callable[[str], Awaitable[tuple[bytes, str]]]
"""From the address of a file that lies with this server to its bytes and media type.

It fetches nothing from elsewhere: it raises a `PerdureError` when the file is not (or no longer) here.
"""


@dataclass(frozen=True, slots=True)
class TurnContext:
    """What a model sees of one turn.

    Attributes:
        text: the newest user message's text.
        messages: the conversation, oldest first, the newest user message last; without the answer
            that is being made.
        answer: what the earlier steps of this answer said and did: their parts, with the results of tools.
            None in the first step.
        partial: what was already said in this step before a crash; empty on the first attempt.
        instructions: the room's system prompt; empty for the model's own default.
        attempt: 1 for the first run of the turn, 2 after one interruption, and so on.
        room: the room's name.
        turn_id: the turn's id, stable over all attempts.
        tools: what the model may call. A call is a `ToolInputAvailable` chunk; the room carries it out when
            the step has ended, and asks the model again, with the results in ``answer``.
        ledger: for models that run tools themselves: keeps a call from being carried out twice.
        model: under which name the room's class has the model that answers; empty for the class's ``model``.
        load_file: reads a file that lies with this server: no provider could. None where the room keeps none.
    """

    text: str
    messages: Sequence[ChatMessage] = ()
    answer: ChatMessage | None = None
    partial: str = ""
    instructions: str = ""
    attempt: int = 1
    room: str = ""
    turn_id: str = ""
    tools: Sequence[ToolSpec] = ()
    ledger: ToolLedger | None = None
    load_file: LoadFile | None = None
    model: str = ""


@runtime_checkable
class Model(Protocol):
    """A language model. One instance serves any number of turns at once."""

    @property
    def name(self) -> str:
        """What people read about it, like ``anthropic:claude-opus-5-5``."""
        ...

    def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        """Answer ``turn``: pieces of text, and chunks where text is not enough.

        No ``start`` chunk is needed; the room adds the envelope. A ``finish`` chunk tells why it ended where that
        is no plain stop: its ``finish_reason``. An empty text says that the model is at work and has nothing to
        say, which counts as a sign of life.

        Raises:
            ModelError: the model failed; `ModelOverloaded` and `ModelTimeout` may be tried again.
        """
        ...

    async def aclose(self) -> None:
        """Let go of processes and connections. May be called twice; `respond` may not be called after it."""
        ...
