"""What a client knows of a room: pure, fed with frames, asked for frames.

It keeps the transcript, the offset to come back with, and what was said but not seen in the room yet. Whatever
the connection does, each event is given out once and no text twice: after a new ``init`` only what the client has
not had becomes events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..wire.room import (
    ChunksFrame,
    CompleteFrame,
    DeltaFrame,
    ErrorFrame,
    InitFrame,
    MessageFrame,
    PresenceFrame,
    RemoveFrame,
    RoomMessage,
    UpdateFrame,
    Wait,
)
from ..wire.room_client import ServerFrame, approve_frame, parse_server_frame, result_frame, send_frame
from ..wire.room_commands import SentFile
from .events import (
    Added,
    Grew,
    Here,
    Joined,
    Message,
    Refused,
    Removed,
    Replaced,
    RoomEvent,
    Settled,
    Waiting,
)
from .parts import GrowingAnswer, changed_parts


class RoomCore:
    """One client's view of one room. ``new_id`` makes ids for messages."""

    def __init__(
        self,
        new_id: Callable[[], str],
        *,
        user: str | None = None,
        limit: int | None = None,
        parts: bool = False,
        presence: bool = False,
    ) -> None:
        self._new_id = new_id
        self._user = user
        self._asked = {"parts": "1"} if parts else {"delta": "1"}
        if presence:
            self._asked["presence"] = "1"
        self._limit = limit
        self._messages: dict[str, Message] = {}
        self._growing: dict[str, GrowingAnswer] = {}
        self._outbox: dict[str, bytes] = {}
        self._responses: dict[str, bytes] = {}
        self._joined = False
        self.here = Here((), 0, 0)
        """Who is in the room, as far as was told."""
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
    def waits(self) -> tuple[Wait, ...]:
        """All that the room's answers wait for, oldest first."""
        return tuple(wait for item in self._messages.values() for wait in item.waits)

    @property
    def unacknowledged(self) -> tuple[str, ...]:
        """Ids of the messages that were said and not seen in the room yet."""
        return tuple(self._outbox)

    # --- out

    def query(self) -> dict[str, str]:
        """The query of the next connection: where to go on."""
        self.greeted = False
        query = dict(self._asked)
        if self.offset is not None:
            query["offset"] = self.offset
        if self._limit is not None:
            query["limit"] = str(self._limit)
        if self._user is not None:
            query["user"] = self._user
        return query

    def say(self, text: str, files: Sequence[SentFile] = ()) -> tuple[str, bytes]:
        """The id and the frame of a new message; it is kept until the room shows it."""
        message_id = self._new_id()
        frame = self._outbox[message_id] = send_frame(text, message_id, user=self._user, files=files)
        return message_id, frame

    def approve(self, id: str, approved: bool, reason: str | None) -> bytes:
        """The frame of a yes or no; it is kept until the room does not wait for it any more."""
        frame = self._responses[id] = approve_frame(id, approved, reason)
        return frame

    def give_result(self, id: str, output: Any, error: str | None) -> bytes:
        """The frame of a tool's result; it is kept until the room does not wait for it any more."""
        frame = self._responses[id] = result_frame(id, output, error=error)
        return frame

    def unsent(self) -> list[bytes]:
        """What to send after a greeting: everything that the room has not shown. Twice does no harm."""
        return [*self._outbox.values(), *self._responses.values()]

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
        if self._responses and isinstance(frame, (InitFrame, MessageFrame, CompleteFrame, RemoveFrame)):
            awaited = {wait.id for wait in self.waits}
            self._responses = {id: sent for id, sent in self._responses.items() if id in awaited}
        return events

    def _events(self, frame: ServerFrame) -> Iterable[RoomEvent]:
        if isinstance(frame, ChunksFrame):
            yield from self._add_chunks(frame)
        elif isinstance(frame, DeltaFrame):
            yield from self._grow(frame.message_id, frame.delta)
        elif isinstance(frame, UpdateFrame):
            yield from self._become(frame.message_id, frame.content)
        elif isinstance(frame, MessageFrame):
            yield from self._take(frame.message)
        elif isinstance(frame, CompleteFrame):
            yield from self._complete(frame)
        elif isinstance(frame, InitFrame):
            yield from self._init(frame)
        elif isinstance(frame, RemoveFrame):
            yield from self._remove(frame.message_ids)
        elif isinstance(frame, PresenceFrame):
            self.here = Here(tuple(frame.people), frame.guests, frame.more)
            yield self.here
        elif isinstance(frame, ErrorFrame):
            if frame.id is not None and not frame.retryable:
                self._outbox.pop(frame.id, None)
                self._responses.pop(frame.id, None)
            yield Refused(frame.code, frame.message, frame.retryable, frame.id)

    def _init(self, frame: InitFrame) -> Iterable[RoomEvent]:
        sent = [item for item in frame.messages if isinstance(item, RoomMessage)]
        if not self._joined:
            self._joined = True
            for item in sent:
                self._outbox.pop(item.id, None)
                self._messages[item.id] = _message(item)
                self._follow(item)
            yield Joined(self.messages, frame.more)
            return
        # What is not in a whole transcript was cut while we were away; of a part of one, we cannot tell.
        if not frame.more:
            here = {item.id for item in sent}
            yield from self._remove([known for known in self._messages if known not in here])
        for item in sent:
            yield from self._take(item)

    def _follow(self, sent: RoomMessage) -> None:
        """An answer that grows by chunks goes on from what it is now."""
        self._growing.pop(sent.id, None)
        if sent.status == "streaming" and "parts" in self._asked:
            self._growing[sent.id] = GrowingAnswer(sent)

    def _take(self, sent: RoomMessage) -> Iterable[RoomEvent]:
        self._outbox.pop(sent.id, None)
        self._follow(sent)
        known, message = self._messages.get(sent.id), _message(sent)
        if known is None:
            self._messages[sent.id] = message
            yield Added(message)
            return
        yield from self._become(sent.id, sent.content)
        self._messages[sent.id] = message
        yield from changed_parts(known, message)
        yield from _ended(known, message)

    def _add_chunks(self, frame: ChunksFrame) -> Iterable[RoomEvent]:
        known, growing = self._messages.get(frame.message_id), self._growing.get(frame.message_id)
        if known is None or growing is None:
            return
        text, nothing_else = growing.push(frame.chunks)
        if text:
            yield from self._grow(known.id, text)
        if not nothing_else or known.parts:
            changed = replace(self._messages[known.id], parts=growing.parts, metadata=growing.metadata)
            self._messages[known.id] = changed
            yield from changed_parts(known, changed)

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

    def _complete(self, frame: CompleteFrame) -> Iterable[RoomEvent]:
        yield from self._become(frame.message_id, frame.content)
        self._growing.pop(frame.message_id, None)
        known = self._messages.get(frame.message_id)
        if known is None:
            return
        waits = tuple(frame.waits or ())
        ended = replace(known, status=frame.status, error=frame.error, waits=waits)
        self._messages[frame.message_id] = ended
        yield from _ended(known, ended)

    def _remove(self, message_ids: Iterable[str]) -> Iterable[RoomEvent]:
        known = tuple(message_id for message_id in message_ids if self._messages.pop(message_id, None))
        for message_id in known:
            self._growing.pop(message_id, None)
        if known:
            yield Removed(known)


def _ended(known: Message, now: Message) -> Iterable[RoomEvent]:
    if now.status == "waiting" and (known.status != "waiting" or known.waits != now.waits):
        yield Waiting(now)
    elif now.status in ("complete", "aborted", "failed") and known.status in ("streaming", "waiting"):
        yield Settled(now)


def _message(sent: RoomMessage) -> Message:
    return Message(
        sent.id,
        sent.role,
        sent.content,
        sent.timestamp,
        user=sent.user,
        status=sent.status,
        error=sent.error,
        answers=sent.answers,
        waits=tuple(sent.waits or ()),
        branches=sent.branches,
        parts=tuple(sent.parts or ()),
        metadata=sent.metadata,
    )
