"""What a client of a room gives out: messages as it has them, and what happens to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..wire.room import AnswerStatus, Branches, Person, Wait

Part: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the room as this client has it. ``timestamp`` is in milliseconds since 1970.

    Of answers only: ``status``, ``streaming`` while it grows, ``waiting`` while it needs someone; ``waits``, what
    for; ``error``, why it failed; ``answers``, the id of the message that it answers. Of clients of parts only:
    ``parts``, those of the AI SDK's `UIMessage`, where they say more than the text; ``metadata``; ``branches``,
    which version of the message this is.
    """

    id: str
    role: Literal["system", "user", "assistant"]
    content: str
    timestamp: int
    user: str | None = None
    status: AnswerStatus | None = None
    error: str | None = None
    answers: str | None = None
    waits: tuple[Wait, ...] = ()
    branches: Branches | None = None
    parts: tuple[Part, ...] = ()
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """The first greeting: the newest messages, oldest first. ``more``: there are older ones."""

    messages: tuple[Message, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Added:
    """A message came; an answer may have text already."""

    message: Message


@dataclass(frozen=True, slots=True)
class Grew:
    """An answer gained ``text``."""

    message_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Replaced:
    """A message's text is not what it was; here is all of it."""

    message: Message


@dataclass(frozen=True, slots=True)
class Settled:
    """An answer has ended, as its ``status`` says."""

    message: Message


@dataclass(frozen=True, slots=True)
class PartChanged:
    """A part of an answer that is no text came, or is not what it was; ``index`` is its place in ``parts``."""

    message_id: str
    index: int
    part: Part


@dataclass(frozen=True, slots=True)
class Waiting:
    """An answer waits for someone: `Message.waits` says what for. It goes on when all of it is there."""

    message: Message


@dataclass(frozen=True, slots=True)
class Here:
    """Who is in the room: by name; ``guests`` have none, ``more`` are beyond the list."""

    people: tuple[Person, ...]
    guests: int
    more: int


@dataclass(frozen=True, slots=True)
class Removed:
    """Messages were cut from the transcript."""

    message_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """The room refused something of ours; ``message_id`` names the message if it was one."""

    code: str
    message: str
    retryable: bool
    message_id: str | None = None


RoomEvent: TypeAlias = Joined | Added | Grew | PartChanged | Replaced | Waiting | Settled | Removed | Refused | Here
