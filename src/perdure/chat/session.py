"""A room's session stream: the whole conversation as AG-UI events, for TanStack AI's durable sessions.

The stream ``session`` is made when a session client first comes, and begins with what was said
so far. From then on each message and each chunk of an answer is told there, too, in the same
commit as the message or the chunk itself: it never says more or less than the room.

A snapshot replaces all that was told: after messages were removed, and for a message with files, which
events cannot tell. It has an answer that is being given without its parts; they are told anew after it.
"""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from ..errors import LimitExceeded, PerdureError
from ..streams.stream import Stream
from ..streams.streams import Streams
from ..values import format_offset
from ..wire.agui import AguiEncoder
from ..wire.agui_messages import message_events, snapshot_event
from ..wire.messages import ChatMessage
from ..wire.ui_chunks import Chunk
from .listener import RoomListener
from .transcript import StoredMessage, Transcript
from .turn import Turn

SESSION_STREAM = "session"

SESSION_HISTORY_MAX = 1_000
"""Messages that a session begins with, and that a snapshot holds: the newest."""

log = structlog.get_logger("perdure.chat")


class SessionLog(RoomListener):
    """The session stream of one room, if it has one."""

    def __init__(self, streams: Streams, transcript: Transcript, room: str) -> None:
        self._streams = streams
        self._transcript = transcript
        self._room = room
        self._stream: Stream | None = streams.find(SESSION_STREAM)
        self._encoder: AguiEncoder | None = None

    def open(self, turn: Turn | None) -> Stream:
        """The session stream, made now if there was none. ``turn`` is the one that is running."""
        if self._stream is None:
            self._stream = self._streams.create(SESSION_STREAM)
            history = self._history([] if turn is None else [turn.answer])
            if not any(_has_files(stored.message) for stored in history) or not self._tell_snapshot(history):
                for stored in history:
                    if stored.status == "streaming":
                        self._tell_answer(stored)
                    else:
                        self._tell(message_events(stored.message))
        return self._stream

    def on_message(self, stored: StoredMessage) -> None:
        """A user's message was taken in."""
        if self._stream is None:
            return
        if not _has_files(stored.message) or not self._tell_snapshot(self._history(self._transcript.streaming())):
            self._tell(message_events(stored.message))

    def on_removed(self, removed: list[StoredMessage]) -> None:
        """Messages were removed: say what is left."""
        if self._stream is None:
            return
        history = self._history(self._transcript.streaming())
        while not self._tell_snapshot(history) and history:
            history = history[len(history) // 2 + 1 :]

    def on_chunk(self, turn: Turn, chunk: Chunk, data: bytes) -> None:
        """A chunk was appended to the turn's stream."""
        if self._stream is None:
            return
        encoder = self._encoder
        if encoder is None or encoder.run_id != turn.answer.id:
            encoder = self._encoder = AguiEncoder(self._room, turn.answer.id)
            for told in _chunks(turn.stream, turn.stream.position - 1):
                self._events_of(encoder, told)
        self._tell(self._events_of(encoder, chunk))

    # --- telling

    def _tell(self, events: list[bytes]) -> bool:
        """Append events, all or none; whether they could be."""
        assert self._stream is not None
        try:
            if events:
                self._stream.append(*events)
        except LimitExceeded as error:  # one kind of client sees less; the room goes on
            log.error("events left out of the session", room=self._room, error=str(error))
            return False
        return True

    def _tell_snapshot(self, history: list[StoredMessage]) -> bool:
        """Make this the whole conversation; False: it is too long."""
        shown = (
            ChatMessage(stored.id, "assistant", []) if stored.status == "streaming" else stored.message
            for stored in history
        )
        if not self._tell([snapshot_event(shown)]):
            return False
        for stored in history:
            if stored.status == "streaming":
                self._tell_answer(stored)
        return True

    def _tell_answer(self, answer: StoredMessage) -> None:
        """All that an answer has said until now."""
        encoder = self._encoder = AguiEncoder(self._room, answer.id)
        stream = self._streams.find(answer.stream_name)
        if stream is not None:
            chunks = _chunks(stream, stream.position)
            self._tell([event for chunk in chunks for event in self._events_of(encoder, chunk)])

    def _events_of(self, encoder: AguiEncoder, chunk: bytes | Chunk) -> list[bytes]:
        try:
            return encoder.encode(chunk)
        except PerdureError as error:
            log.error("chunk left out of the session", room=self._room, error=str(error))
            return []

    def _history(self, running: list[StoredMessage]) -> list[StoredMessage]:
        """The newest of the conversation, and the ``running`` answers, however many messages came after them."""
        newest = self._transcript.newest(SESSION_HISTORY_MAX)
        known = {stored.id for stored in newest}
        return [stored for stored in running if stored.id not in known] + newest


def _has_files(message: ChatMessage) -> bool:
    """Whether events cannot tell the message: a user's, with files."""
    return message.role == "user" and any(part.get("type") == "file" for part in message.parts)


def _chunks(stream: Stream, end: int) -> Iterator[bytes]:
    position = 0
    while position < end:
        entries = stream.read(format_offset(position)).entries[: end - position]
        position += len(entries)
        yield from entries
