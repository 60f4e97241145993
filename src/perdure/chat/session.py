"""A room's session stream: the whole conversation as AG-UI events, for TanStack AI's durable sessions.

The stream ``session`` is made when a session client first comes, and begins with what was said
so far. From then on each message and each chunk of an answer is told there, too, in the same
commit as the message or the chunk itself: it never says more or less than the room.
"""

from __future__ import annotations

import structlog

from ..errors import LimitExceeded, PerdureError
from ..streams.stream import Stream
from ..streams.streams import Streams
from ..values import format_offset
from ..wire.agui import AguiEncoder
from ..wire.agui_messages import message_events, snapshot_event
from ..wire.messages import ChatMessage
from ..wire.ui_chunks import Chunk
from .transcript import StoredMessage, Transcript
from .turn import Turn

SESSION_STREAM = "session"

SESSION_HISTORY_MAX = 1_000
"""Messages that a session begins with, and that a snapshot holds: the newest."""

log = structlog.get_logger("perdure.chat")


class SessionLog:
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
            stream = self._stream = self._streams.create(SESSION_STREAM)
            for message in self._settled():
                self._tell_message(message)
            if turn is not None:
                self._encoder = AguiEncoder(self._room, turn.answer.id)
                for chunk in _chunks(turn.stream, turn.stream.position):
                    stream.append(*self._encoder.encode(chunk))
        return self._stream

    def on_message(self, stored: StoredMessage) -> None:
        """A user's message was taken in."""
        if self._stream is not None:
            self._tell_message(stored.message)

    def on_removed(self) -> None:
        """Messages were removed: say what is left."""
        if self._stream is not None:
            self._tell_all()

    def on_chunk(self, turn: Turn, chunk: Chunk) -> None:
        """A chunk was appended to the turn's stream."""
        if self._stream is None:
            return
        encoder = self._encoder
        if encoder is None or encoder.run_id != turn.answer.id:
            encoder = self._encoder = AguiEncoder(self._room, turn.answer.id)
            encoder.restore(_chunks(turn.stream, turn.stream.position - 1))
        try:
            events = encoder.encode(chunk)
            if events:
                self._stream.append(*events)
        except PerdureError as error:  # one kind of client sees less; the answer goes on
            log.error("chunk left out of the session", room=self._room, error=str(error))

    def _tell_message(self, message: ChatMessage) -> None:
        assert self._stream is not None
        if message.role == "user" and any(part.get("type") == "file" for part in message.parts):
            self._tell_all()
        else:
            self._stream.append(*message_events(message))

    def _tell_all(self) -> None:
        assert self._stream is not None
        try:
            self._stream.append(snapshot_event(self._settled()))
        except LimitExceeded as error:
            log.error("session snapshot left out", room=self._room, error=str(error))

    def _settled(self) -> list[ChatMessage]:
        """The conversation without an answer that is being given."""
        newest = self._transcript.newest(SESSION_HISTORY_MAX)
        return [stored.message for stored in newest if stored.status != "streaming"]


def _chunks(stream: Stream, end: int) -> list[bytes]:
    entries: list[bytes] = []
    while len(entries) < end:
        entries += stream.read(format_offset(len(entries))).entries
    return entries[:end]
