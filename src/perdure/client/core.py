"""What a client knows of a room: pure, fed with frames, asked for frames.

It keeps the transcript, the offset to come back with, and the messages that were said but not
seen in the room yet. Whatever the connection does, each event is given out once and no text twice:
after a new ``init`` only what the client has not had becomes events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import msgspec

from ..wire.room import (
    AnswerStatus,
    CompleteFrame,
    DeltaFrame,
    ErrorFrame,
    InitFrame,
    MessageFrame,
    RemoveFrame,
    RoomMessage,
    UpdateFrame,
)
from ..wire.room_client import ServerFrame, parse_server_frame, send_frame


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the room as this client has it. ``timestamp`` is in milliseconds since 1970.

    Of answers only: ``status``, ``streaming`` while the text grows; ``error``, why it failed;
    ``answers``, the id of the message that it answers.
    """

    id: str
    role: Literal["system", "user", "assistant"]
    content: str
    timestamp: int
    user: str | None = None
    status: AnswerStatus | None = None
    error: str | None = None
    answers: str | None = None


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


RoomEvent: TypeAlias = Joined | Added | Grew | Replaced | Settled | Removed | Refused


class RoomCore:
    """One client's view of one room. ``new_id`` makes ids for messages."""

    def __init__(self, new_id: Callable[[], str], *, user: str | None = None, limit: int | None = None) -> None:
        self._new_id = new_id
        self._user = user
        self._limit = limit
        self._messages: dict[str, Message] = {}
        self._outbox: dict[str, bytes] = {}
        self._joined = False
        self.offset: str | None = None
        self.greeted = False
        """Whether this connection's first frame has come; before it nothing is sent."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The transcript, oldest first."""
        return tuple(self._messages.values())

    @property
    def streaming(self) -> Message | None:
        """The answer that is being made."""
        return next((item for item in reversed(self._messages.values()) if item.status == "streaming"), None)

    @property
    def unacknowledged(self) -> tuple[str, ...]:
        """Ids of the messages that were said and not seen in the room yet."""
        return tuple(self._outbox)

    # --- out

    def query(self) -> dict[str, str]:
        """The query of the next connection: where to go on."""
        self.greeted = False
        query = {"delta": "1"}
        if self.offset is not None:
            query["offset"] = self.offset
        if self._limit is not None:
            query["limit"] = str(self._limit)
        if self._user is not None:
            query["user"] = self._user
        return query

    def say(self, text: str) -> tuple[str, bytes]:
        """The id and the frame of a new message; it is kept until the room shows it."""
        message_id = self._new_id()
        frame = self._outbox[message_id] = send_frame(text, message_id, user=self._user)
        return message_id, frame

    def unsent(self) -> list[bytes]:
        """What to send after a greeting: everything that the room has not shown. Twice does no harm."""
        return list(self._outbox.values())

    # --- in

    def receive(self, data: str | bytes) -> list[RoomEvent]:
        """Take the server's next frame; return what it means.

        Raises:
            RemoteProtocolError: it is no frame of the protocol.
        """
        frame = parse_server_frame(data)
        events = list(self._events(frame))
        offset = getattr(frame, "offset", None)
        if offset is not None:
            self.offset = offset
            self.greeted = True
        return events

    def _events(self, frame: ServerFrame) -> Iterable[RoomEvent]:
        if isinstance(frame, DeltaFrame):
            yield from self._grow(frame.message_id, frame.delta)
        elif isinstance(frame, UpdateFrame):
            yield from self._become(frame.message_id, frame.content)
        elif isinstance(frame, MessageFrame):
            yield from self._take(frame.message)
        elif isinstance(frame, CompleteFrame):
            yield from self._settle(frame.message_id, frame.content, frame.status, frame.error)
        elif isinstance(frame, InitFrame):
            yield from self._init(frame)
        elif isinstance(frame, RemoveFrame):
            yield from self._remove(frame.message_ids)
        elif isinstance(frame, ErrorFrame):
            if frame.id is not None and not frame.retryable:
                self._outbox.pop(frame.id, None)
            yield Refused(frame.code, frame.message, frame.retryable, frame.id)

    def _init(self, frame: InitFrame) -> Iterable[RoomEvent]:
        sent = [item for item in frame.messages if isinstance(item, RoomMessage)]
        if not self._joined:
            self._joined = True
            for item in sent:
                self._outbox.pop(item.id, None)
                self._messages[item.id] = _message(item)
            yield Joined(self.messages, frame.more)
            return
        # What is not in a whole transcript was cut while we were away; of a part of one, we cannot tell.
        if not frame.more:
            here = {item.id for item in sent}
            yield from self._remove([known for known in self._messages if known not in here])
        for item in sent:
            yield from self._take(item)

    def _take(self, sent: RoomMessage) -> Iterable[RoomEvent]:
        self._outbox.pop(sent.id, None)
        known = self._messages.get(sent.id)
        if known is None:
            message = self._messages[sent.id] = _message(sent)
            yield Added(message)
        elif sent.role == "assistant" and sent.status not in (None, "streaming"):
            yield from self._settle(sent.id, sent.content, sent.status, sent.error)
        else:
            yield from self._become(sent.id, sent.content)

    def _grow(self, message_id: str, text: str) -> Iterable[RoomEvent]:
        known = self._messages.get(message_id)
        if known is not None and text:
            self._messages[message_id] = replace(known, content=known.content + text)
            yield Grew(message_id, text)

    def _become(self, message_id: str, content: str) -> Iterable[RoomEvent]:
        known = self._messages.get(message_id)
        if known is None or known.content == content:
            return
        if content.startswith(known.content):
            yield from self._grow(message_id, content[len(known.content) :])
        else:
            changed = self._messages[message_id] = replace(known, content=content)
            yield Replaced(changed)

    def _settle(self, message_id: str, content: str, status: Any, error: str | None) -> Iterable[RoomEvent]:
        yield from self._become(message_id, content)
        known = self._messages.get(message_id)
        if known is not None and known.status == "streaming":
            settled = self._messages[message_id] = replace(known, status=status, error=error)
            yield Settled(settled)

    def _remove(self, message_ids: Iterable[str]) -> Iterable[RoomEvent]:
        known = tuple(message_id for message_id in message_ids if self._messages.pop(message_id, None))
        if known:
            yield Removed(known)


def _message(sent: RoomMessage) -> Message:
    return Message(**msgspec.structs.asdict(sent))
