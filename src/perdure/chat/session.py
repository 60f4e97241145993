"""A room's session stream: the whole conversation as AG-UI events, for TanStack AI's durable sessions.

The stream ``session`` is made when a session client first comes, and begins with what was said
so far. From then on each message and each chunk of an answer is told there, too, in the same
commit as the message or the chunk itself: it never says more or less than the room.

- Each leg of an answer is a run. All of them tell of one message.
- A *snapshot* replaces all that was told: after messages were removed, when some of an answer's results came in
  while it waits for others, and for a message with files, which events cannot tell. It has an answer that is
  being given without its parts; they are told anew after it.
- A client that comes later folds the stream by itself, and knows texts only. Where there is more (calls of tools,
  thoughts) it is told a snapshot, once, until there is more again.
- Each telling of a user's message carries its place in the stream, as metadata that a client keeps and posts
  again: so what it posts for a ``reload`` is not what it posted first (see `asking`).
"""

from __future__ import annotations

from itertools import islice

import structlog

from ..errors import LimitExceeded, PerdureError
from ..streams.stream import Stream
from ..streams.streams import Streams
from ..wire.agui import AguiEncoder
from ..wire.agui_delivery import Encode, leg_encoder, whole_encoder
from ..wire.agui_events import OWN_METADATA
from ..wire.agui_messages import message_events, snapshot_event
from ..wire.fold_tools import is_tool_part
from ..wire.messages import ChatMessage
from ..wire.ui_chunks import (
    Chunk,
    ReasoningStart,
    ToolInputAvailable,
    ToolInputError,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputDenied,
    ToolOutputError,
)
from .earlier import known_before
from .listener import RoomListener
from .transcript import StoredMessage, Transcript
from .turn import Turn

SESSION_STREAM = "session"

SESSION_HISTORY_MAX = 1_000
"""Messages that a session begins with, and that a snapshot holds: the newest."""

_RICH = "rich"
"""The stream's note of whether more than texts was told since the last snapshot."""

_RICH_CHUNKS = (
    *(ReasoningStart, ToolInputStart, ToolInputAvailable, ToolInputError),
    *(ToolOutputAvailable, ToolOutputError, ToolOutputDenied),
)

_OWED = ("input-available", "approval-requested")
"""States of calls that somebody must still settle, in an answer that waits."""

log = structlog.get_logger("perdure.chat")


class SessionLog(RoomListener):
    """The session stream of one room, if it has one."""

    def __init__(self, streams: Streams, transcript: Transcript, room: str) -> None:
        self._streams = streams
        self._transcript = transcript
        self._room = room
        self._stream: Stream | None = streams.find(SESSION_STREAM)
        self._is_rich = self._stream is not None and self._stream.note(_RICH) == b"1"
        self._in_snapshot: frozenset[str] = frozenset()
        self._run_id: str | None = None
        self._encode: Encode = _no_run

    def open(self, *, fresh: bool = False) -> Stream:
        """The session stream, made now if there was none. ``fresh``: for a client that has nothing of it yet."""
        if self._stream is None:
            self._stream = self._streams.create(SESSION_STREAM)
            self._begin(self._history())
        elif fresh and self._is_rich:
            self._tell_snapshot(self._history())
        return self._stream

    def on_message(self, stored: StoredMessage) -> None:
        """A user's message was taken in, or one of any kind came back."""
        if self._stream is None or stored.id in self._in_snapshot:
            return
        if not _has_files(stored.message) or not self._tell_snapshot(self._history()):
            self._tell_message(stored)

    def on_updated(self, stored: StoredMessage) -> None:
        """A result came in: if it was the last, the answer's next leg tells it at its start; else nothing would."""
        if self._stream is None or stored.status != "waiting":
            return
        if any(is_tool_part(part) and part.get("state") in _OWED for part in stored.message.parts):
            self._tell_snapshot(self._history())

    def on_removed(self, removed: list[StoredMessage]) -> None:
        """Messages were removed: say what is left."""
        if self._stream is None:
            return
        history = self._history()
        while not self._tell_snapshot(history) and history:
            history = history[len(history) // 2 + 1 :]

    def on_chunk(self, turn: Turn, chunk: Chunk, data: bytes) -> None:
        """A chunk was appended to the leg's stream."""
        if self._stream is None:
            return
        if isinstance(chunk, _RICH_CHUNKS):
            self._set_rich(True)
        if self._run_id != _run_id(turn.answer):
            self._take_up(turn)
        self._tell(self._events_of(chunk))

    # --- telling

    def _begin(self, history: list[StoredMessage]) -> None:
        """Tell what was said before there was a session."""
        if any(_is_rich(stored.message) for stored in history) and self._tell_snapshot(history):
            return
        for stored in history:
            if stored.status == "streaming":
                self._tell_answer(stored)
            else:
                self._tell_message(stored)

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

    def _tell_message(self, stored: StoredMessage) -> None:
        if _is_rich(stored.message):
            self._set_rich(True)
        self._tell(message_events(self._marked(stored.message)))

    def _tell_snapshot(self, history: list[StoredMessage]) -> bool:
        """Make this the whole conversation; False: it is too long."""
        shown = (
            ChatMessage(stored.id, "assistant", []) if stored.status == "streaming" else self._marked(stored.message)
            for stored in history
        )
        if not self._tell([snapshot_event(shown)]):
            return False
        self._in_snapshot = frozenset(stored.id for stored in history)
        self._set_rich(False)
        for stored in history:
            if stored.status == "streaming":
                self._tell_answer(stored)
        return True

    def _tell_answer(self, answer: StoredMessage) -> None:
        """All that an answer has said until now, as one run."""
        stream = self._streams.find(answer.stream_name)
        if stream is None:
            return
        earlier = known_before(self._streams, answer, answer.leg)
        self._run_id = _run_id(answer)
        self._encode = whole_encoder(AguiEncoder(self._room, self._run_id), len(earlier), answer.message.parts)
        chunks = [*earlier, *stream.entries()]
        if earlier:
            self._set_rich(True)
        self._tell([event for chunk in chunks for event in self._events_of(chunk)])

    def _take_up(self, turn: Turn) -> None:
        """Go on from what was told of an answer, by this instance of the room or the one before."""
        earlier = known_before(self._streams, turn.answer, turn.leg)
        self._run_id = _run_id(turn.answer)
        encoder = AguiEncoder(self._room, self._run_id)
        for chunk in earlier:
            encoder.encode_earlier(chunk)
        self._encode = leg_encoder(encoder, turn.answer.message.parts)
        for told in islice(turn.stream.entries(), turn.position - 1):
            self._events_of(told)

    def _events_of(self, chunk: bytes | Chunk) -> list[bytes]:
        try:
            return self._encode(chunk)
        except PerdureError as error:
            log.error("chunk left out of the session", room=self._room, error=str(error))
            return []

    def _marked(self, message: ChatMessage) -> ChatMessage:
        """A user's message with its place in the stream, which its client posts again with it."""
        if message.role != "user":
            return message
        assert self._stream is not None
        place = {OWN_METADATA: {"at": self._stream.position}}
        return ChatMessage(message.id, message.role, message.parts, {**(message.metadata or {}), **place})

    def _set_rich(self, is_rich: bool) -> None:
        if self._is_rich is not is_rich:
            assert self._stream is not None
            self._is_rich = is_rich
            self._stream.set_note(_RICH, b"1" if is_rich else b"")

    def _history(self) -> list[StoredMessage]:
        """The newest of the conversation, and the running answers, however many messages came after them."""
        newest = self._transcript.newest(SESSION_HISTORY_MAX)
        known = {stored.id for stored in newest}
        return [stored for stored in self._transcript.streaming() if stored.id not in known] + newest


def _run_id(answer: StoredMessage) -> str:
    """The name of the run that an answer's newest leg is."""
    return answer.id if answer.leg == 1 else f"{answer.id}.{answer.leg}"


def _no_run(_chunk: bytes | str | Chunk) -> list[bytes]:
    return []


def _has_files(message: ChatMessage) -> bool:
    """Whether events cannot tell the message: a user's, with files."""
    return message.role == "user" and any(part.get("type") == "file" for part in message.parts)


def _is_rich(message: ChatMessage) -> bool:
    """Whether there is more to the message than the texts that a client that comes later finds in events."""
    return _has_files(message) or any(part.get("type") == "reasoning" or is_tool_part(part) for part in message.parts)
