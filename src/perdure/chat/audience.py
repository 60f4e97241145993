"""The room's WebSocket clients: what each is sent, encoded once per protocol and shared.

Two protocols here, told apart by a tag on the connection: ``delta`` clients get what is new,
``update`` clients (the plain ones) get the accumulated text, joined per `UPDATE_MS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from ..objects.connections import Connection
from ..wire.room import (
    RoomMessage,
    complete_frame,
    delta_frame,
    init_frame,
    message_frame,
    remove_frame,
    resume_frame,
    update_frame,
)
from .offsets import RoomOffset, parse_room_offset
from .transcript import StoredMessage, Transcript
from .turn import Outcome, Turn

INIT_MESSAGES = 1_000
"""Messages in an ``init`` frame unless the client asks for fewer with ``?limit=``."""

UPDATE_MS = 50
"""Accumulated text is sent this often at most: its bytes grow with the square of the answer."""

DELTA, UPDATE = "delta", "update"

_encode = msgspec.json.Encoder().encode


def as_room_message(stored: StoredMessage, content: str | None = None) -> RoomMessage:
    """A message as room clients see it."""
    assistant = stored.role == "assistant"
    return RoomMessage(
        id=stored.id,
        role="assistant" if assistant else "user" if stored.role == "user" else "system",
        content=stored.message.text if content is None else content,
        timestamp=stored.created_ms,
        user=stored.message.user,
        status=stored.status if assistant else None,  # type: ignore[arg-type]
        error=stored.error,
        answers=stored.answers,
    )


class Audience:
    """Sends a room's events to its connections.

    ``broadcast(frame, text, tag, without)`` is the instance's; everything sent waits at its gate.
    """

    def __init__(
        self,
        transcript: Transcript,
        connections: Callable[[str | None], tuple[Connection, ...]],
        broadcast: Callable[[bytes, bool, str | None, Connection | None], None],
    ) -> None:
        self._transcript = transcript
        self._connections = connections
        self._broadcast = broadcast
        self._last_seq = transcript.last_seq
        self._cuts = transcript.cuts
        self._turn: Turn | None = None
        self._text_offset = ""
        self._update_timer: asyncio.TimerHandle | None = None
        self._updated_at = 0.0
        # The newest messages, encoded: made at the first init, then kept up to date.
        self._encoded: dict[int, msgspec.Raw] | None = None
        self._complete_history = False

    @property
    def offset(self) -> RoomOffset:
        """Where a client stands that has everything."""
        turn = self._turn
        if turn is None:
            return RoomOffset(self._last_seq, 0, 0, self._cuts)
        return RoomOffset(self._last_seq, turn.answer.seq, turn.characters, self._cuts)

    def _offset(self) -> str:
        return str(self.offset)

    # --- events

    def on_message(self, stored: StoredMessage) -> None:
        """A message was added."""
        self._last_seq = stored.seq
        if self._turn is not None:
            self._text_offset = self._before_characters(self._turn)
        self._cache(stored)
        if self._connections(None):
            self._broadcast(message_frame(as_room_message(stored), self._offset()), True, None, None)

    def on_turn(self, turn: Turn, *, new: bool) -> None:
        """A turn began (``new``), or goes on after an interruption."""
        self._turn = turn
        if new:
            self.on_message(turn.answer)
        self._text_offset = self._before_characters(turn)

    def _before_characters(self, turn: Turn) -> str:
        return str(RoomOffset(self._last_seq, turn.answer.seq, 0, self._cuts))[:-8]

    def on_text(self, turn: Turn, text: str) -> None:
        """The answer grew."""
        if self._connections(DELTA):
            offset = f"{self._text_offset}{turn.characters:08d}"
            self._broadcast(delta_frame(turn.answer.id, text, offset), True, DELTA, None)
        if self._update_timer is None and self._connections(UPDATE):
            loop = asyncio.get_running_loop()
            wait = self._updated_at + UPDATE_MS / 1000 - loop.time()
            if wait <= 0:
                self._send_update(turn)
            else:
                self._update_timer = loop.call_later(wait, self._send_update, turn)

    def _send_update(self, turn: Turn) -> None:
        self._update_timer = None
        if turn is not self._turn:
            return
        self._updated_at = asyncio.get_running_loop().time()
        frame = update_frame(turn.answer.id, turn.fold.text, self._offset())
        self._broadcast(frame, True, UPDATE, None)

    def on_settled(self, turn: Turn, outcome: Outcome, error: str | None) -> None:
        """The answer has ended and is stored."""
        if self._update_timer is not None:
            self._update_timer.cancel()
            self._update_timer = None
        self._turn = None
        self._cache(turn.answer)
        if self._connections(None):
            frame = complete_frame(turn.answer.id, turn.answer.message.text, outcome, self._offset(), error=error)
            self._broadcast(frame, True, None, None)

    def on_removed(self, removed: list[StoredMessage]) -> None:
        """Messages were cut from the end."""
        self._cuts = self._transcript.cuts
        self._last_seq = self._transcript.last_seq
        if self._encoded is not None:
            for stored in removed:
                self._encoded.pop(stored.seq, None)
        if self._connections(None):
            frame = remove_frame([stored.id for stored in removed], self._offset())
            self._broadcast(frame, True, None, None)

    def show_again(self, connection: Connection, stored: StoredMessage) -> None:
        """Send one client a message that the room has already."""
        content = self._content(stored)
        connection.send_frame(message_frame(as_room_message(stored, content), self._offset()))

    # --- a client arrives

    def greet(self, connection: Connection) -> None:
        """Send the first frames: what the client missed since its offset, or everything."""
        given = connection.query.get("offset")
        offset = parse_room_offset(given) if given else None
        if offset is None or not self._resume(connection, offset):
            connection.send_frame(self._init(_limit(connection.query.get("limit"))))

    def _resume(self, connection: Connection, offset: RoomOffset) -> bool:
        if offset.cuts != self._cuts or offset.last_seq > self._last_seq:
            return False
        missed = (
            self._transcript.after(offset.last_seq, INIT_MESSAGES + 1) if offset.last_seq < self._last_seq else []
        )
        if len(missed) > INIT_MESSAGES:
            return False
        # Each frame says where its reader stands: the next cut may come between any two of them.
        at = offset
        frames: list[bytes] = [resume_frame(str(at))]
        if at.answer_seq:
            answer = self._transcript.at(at.answer_seq)
            if answer is None or answer.role != "assistant":
                return False
            rest, at = self._rest_of(answer, at, DELTA in connection.tags)
            frames += rest
        for stored in missed:
            content = self._content(stored)
            at = at._replace(last_seq=stored.seq)
            if stored.status == "streaming":
                at = at._replace(answer_seq=stored.seq, characters=len(content))
            frames.append(message_frame(as_room_message(stored, content), str(at)))
        for frame in frames:
            connection.send_frame(frame)
        return True

    def _rest_of(self, answer: StoredMessage, offset: RoomOffset, delta: bool) -> tuple[list[bytes], RoomOffset]:
        """What an answer gained since ``offset``, and where its reader stands after it."""
        content = self._content(answer)
        frames = []
        at = offset._replace(characters=max(len(content), offset.characters))
        if len(content) > offset.characters:
            if delta:
                frames.append(delta_frame(answer.id, content[offset.characters :], str(at)))
            else:
                frames.append(update_frame(answer.id, content, str(at)))
        if answer.status in ("complete", "aborted", "failed"):
            status: Outcome = answer.status  # type: ignore[assignment]
            at = at._replace(answer_seq=0, characters=0)
            frames.append(complete_frame(answer.id, content, status, str(at), error=answer.error))
        return frames, at

    def _content(self, stored: StoredMessage) -> str:
        turn = self._turn
        return turn.fold.text if turn is not None and turn.answer.seq == stored.seq else stored.message.text

    def _init(self, limit: int) -> bytes:
        if self._encoded is None:
            newest = self._transcript.newest(INIT_MESSAGES)
            self._complete_history = len(newest) < INIT_MESSAGES
            self._encoded = {stored.seq: msgspec.Raw(_encode(as_room_message(stored))) for stored in newest}
        messages: list[RoomMessage | msgspec.Raw] = list(self._encoded.values())
        streaming = None
        if self._turn is not None:
            streaming = self._turn.answer.id
            at = list(self._encoded).index(self._turn.answer.seq)
            messages[at] = as_room_message(self._turn.answer, self._turn.fold.text)
        more = len(messages) > limit or not self._complete_history
        return init_frame(messages[-limit:] if limit else [], self._offset(), streaming=streaming, more=more)

    def _cache(self, stored: StoredMessage) -> None:
        if self._encoded is None:
            return
        self._encoded[stored.seq] = msgspec.Raw(_encode(as_room_message(stored)))
        if len(self._encoded) > INIT_MESSAGES:
            del self._encoded[next(iter(self._encoded))]
            self._complete_history = False


def _limit(text: str | None) -> int:
    if text is None or not (text.isascii() and text.isdigit()):
        return INIT_MESSAGES
    return min(int(text[:6]), INIT_MESSAGES)
