"""The room's own WebSocket clients: what each is sent, encoded once per kind and shared.

Three kinds, told apart by a tag on the connection: ``parts`` clients get every chunk, ``delta`` clients the new
text, ``update`` clients (the plain ones) the accumulated text, joined per `UPDATE_MS`. Connections of other
protocols have none of these tags and get nothing from here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..objects.connections import Connection
from ..storage.object_storage import Storage
from ..wire.room import (
    RoomMessage,
    chunks_frame,
    complete_frame,
    delta_frame,
    init_frame,
    message_frame,
    remove_frame,
    resume_frame,
    update_frame,
)
from ..wire.room_parts import waits_of
from ..wire.ui_chunks import Chunk, TextDelta
from .branches import Alternatives, Branches
from .changes import Changes
from .listener import RoomListener
from .missed import missed_frames
from .offsets import RoomOffset, parse_room_offset
from .presence import PRESENCE
from .room_view import INIT_MESSAGES, RecentMessages, as_room_message, with_parts
from .transcript import StoredMessage, Transcript
from .turn import Outcome, Turn

UPDATE_MS = 50
"""Accumulated text is sent this often at most: its bytes grow with the square of the answer."""

DELTA, UPDATE, PARTS = "delta", "update", "parts"
TEXT = "text"
"""The tag of ``delta`` and ``update`` clients alike."""


class Audience(RoomListener):
    """Sends a room's events to its connections.

    ``broadcast(frame, text, tag, without)`` is the instance's; everything sent waits at its gate.
    """

    def __init__(
        self,
        transcript: Transcript,
        storage: Storage,
        connections: Callable[[str | None], tuple[Connection, ...]],
        broadcast: Callable[[bytes, bool, str | None, Connection | None], None],
    ) -> None:
        self._transcript = transcript
        self._connections = connections
        self._broadcast = broadcast
        self._last_seq = transcript.last_seq
        self._cuts = transcript.cuts
        self._changes = Changes(storage)
        self._turn: Turn | None = None
        self._before_growth = ""
        self._update_timer: asyncio.TimerHandle | None = None
        self._updated_at = 0.0
        self._branches = Branches(storage, transcript)
        self._alternatives: dict[str, Alternatives] | None = None
        self._plain = RecentMessages(transcript, as_room_message)
        self._rich = RecentMessages(transcript, self._with_parts)

    @property
    def offset(self) -> RoomOffset:
        """Where a client stands that has everything."""
        turn = self._turn
        at = RoomOffset(self._last_seq, cuts=self._cuts, changes=self._changes.count)
        if turn is None:
            return at
        return at._replace(
            answer_seq=turn.answer.seq, characters=turn.characters, leg=turn.leg, position=turn.position
        )

    def shown(self, limit: int, before_seq: int | None = None) -> list[RoomMessage]:
        """The newest messages with their parts, oldest first, the growing one as it is now."""
        return [self._with_parts(stored) for stored in self._transcript.newest(limit, before_seq)]

    def shown_message(self, message_id: str) -> RoomMessage | None:
        """One message with its parts."""
        stored = self._transcript.find(message_id)
        return None if stored is None else self._with_parts(stored)

    # --- events

    def on_message(self, stored: StoredMessage) -> None:
        """A message was added."""
        self._last_seq = max(self._last_seq, stored.seq)
        self._alternatives = None
        self._note_growth()
        self._send_message(stored)

    def on_turn(self, turn: Turn, *, new: bool) -> None:
        """A leg begins (of a ``new`` answer, or of one that waited), or goes on after an interruption."""
        self._turn = turn
        if new:
            self.on_message(turn.answer)
            return
        if turn.position == 0:
            self._changes.add(turn.answer.seq)
            self._send_message(turn.answer)
        self._note_growth()

    def on_chunk(self, turn: Turn, chunk: Chunk, data: bytes) -> None:
        """A chunk was appended to the leg's stream."""
        if self._connections(PARTS):
            # The turn counts a delta's characters after this.
            characters = turn.characters + (len(chunk.delta) if type(chunk) is TextDelta else 0)
            self._broadcast(chunks_frame(turn.answer.id, (data,), self._growth(turn, characters)), True, PARTS, None)

    def on_text(self, turn: Turn, text: str) -> None:
        """The answer grew."""
        if self._connections(DELTA):
            frame = delta_frame(turn.answer.id, text, self._growth(turn, turn.characters))
            self._broadcast(frame, True, DELTA, None)
        if self._update_timer is None and self._connections(UPDATE):
            loop = asyncio.get_running_loop()
            wait = self._updated_at + UPDATE_MS / 1000 - loop.time()
            if wait <= 0:
                self._send_update(turn)
            else:
                self._update_timer = loop.call_later(wait, self._send_update, turn)

    def on_settled(self, turn: Turn, outcome: Outcome, error: str | None) -> None:
        """The leg has ended and is stored."""
        if self._update_timer is not None:
            self._update_timer.cancel()
            self._update_timer = None
        self._turn = None
        self._keep(turn.answer)
        if self._connections(TEXT) or self._connections(PARTS):
            message = turn.answer.message
            waits = waits_of(message.parts) if outcome == "waiting" else None
            self._to_all(
                complete_frame(turn.answer.id, message.text, outcome, str(self.offset), error=error, waits=waits)
            )

    def on_updated(self, stored: StoredMessage) -> None:
        """A message changed outside of a leg."""
        self._changes.add(stored.seq)
        self._note_growth()
        self._send_message(stored)

    def on_removed(self, removed: list[StoredMessage]) -> None:
        """Messages were removed."""
        self._cuts = self._transcript.cuts
        # Others may be in their place already, and are told of in a moment: until then a client has not seen them.
        self._last_seq = min((stored.seq for stored in removed), default=self._last_seq + 1) - 1
        self._alternatives = None
        self._plain.remove(removed)
        self._rich.remove(removed)
        if self._connections(TEXT) or self._connections(PARTS):
            self._to_all(remove_frame([stored.id for stored in removed], str(self.offset)))

    # --- frames

    def _note_growth(self) -> None:
        if self._turn is not None:
            self._before_growth = self.offset.before_growth

    def _growth(self, turn: Turn, characters: int) -> str:
        return f"{self._before_growth}{characters:08d}.{turn.leg:03d}.{turn.position:07d}"

    def _to_all(self, frame: bytes) -> None:
        for tag in (TEXT, PARTS):
            if self._connections(tag):
                self._broadcast(frame, True, tag, None)

    def _keep(self, stored: StoredMessage) -> None:
        self._plain.put(stored)
        self._rich.put(stored)

    def _send_message(self, stored: StoredMessage) -> None:
        self._keep(stored)
        for tag, view in ((TEXT, self._with_text), (PARTS, self._with_parts)):
            if self._connections(tag):
                self._broadcast(message_frame(view(stored), str(self.offset)), True, tag, None)

    def _send_update(self, turn: Turn) -> None:
        self._update_timer = None
        if turn is not self._turn:
            return
        self._updated_at = asyncio.get_running_loop().time()
        frame = update_frame(turn.answer.id, turn.fold.text, str(self.offset))
        self._broadcast(frame, True, UPDATE, None)

    def show_again(self, connection: Connection, stored: StoredMessage) -> None:
        """Send one client a message that the room has already."""
        view = self._with_parts if PARTS in connection.tags else self._with_text
        connection.send_frame(message_frame(view(stored), str(self.offset)))

    def _with_text(self, stored: StoredMessage) -> RoomMessage:
        turn = self._turn_of(stored)
        return as_room_message(stored, None if turn is None else turn.fold.text)

    def _with_parts(self, stored: StoredMessage) -> RoomMessage:
        if self._alternatives is None:
            # No branch without a cut: most rooms need not look.
            self._alternatives = self._branches.all() if self._cuts else {}
        return with_parts(stored, self._turn_of(stored), self._alternatives.get(stored.id))

    def _turn_of(self, stored: StoredMessage) -> Turn | None:
        turn = self._turn
        return turn if turn is not None and turn.answer.seq == stored.seq else None

    # --- a client arrives

    def greet(self, connection: Connection) -> None:
        """Say which kind of client it is; send the first frames: what it missed since its offset, or everything."""
        query = connection.query
        kind = (PARTS,) if query.get("parts") == "1" else (DELTA if query.get("delta") == "1" else UPDATE, TEXT)
        connection.tag(*kind, *((PRESENCE,) if query.get("presence") == "1" else ()))
        given = parse_room_offset(query.get("offset", ""))
        frames = None if given is None else self._missed(connection, given)
        for frame in frames if frames is not None else [self._init(connection)]:
            connection.send_frame(frame)

    def _missed(self, connection: Connection, given: RoomOffset) -> list[bytes] | None:
        now = self.offset
        changed = self._changes.since(given.changes)
        if given.cuts != now.cuts or given.last_seq > now.last_seq or changed is None:
            return None
        added = self._transcript.after(given.last_seq, INIT_MESSAGES + 1) if given.last_seq < now.last_seq else []
        if len(added) > INIT_MESSAGES:
            return None
        older = [stored for seq in changed if seq <= given.last_seq and (stored := self._transcript.at(seq))]
        parts = PARTS in connection.tags
        growing = None
        if given.answer_seq and given.answer_seq not in changed:
            growing = self._transcript.at(given.answer_seq)
            if growing is None or growing.role != "assistant":
                return None
        missed = missed_frames(
            given,
            now,
            growing=growing,
            messages=[*older, *added],
            turn=self._turn,
            view=self._with_parts if parts else self._with_text,
            kind=PARTS if parts else DELTA if DELTA in connection.tags else UPDATE,
        )
        return None if missed is None else [resume_frame(str(given)), *missed]

    def _init(self, connection: Connection) -> bytes:
        parts = PARTS in connection.tags
        recent, view = (self._rich, self._with_parts) if parts else (self._plain, self._with_text)
        growing = {} if self._turn is None else {self._turn.answer.seq: view(self._turn.answer)}
        messages, more = recent.newest(_limit(connection.query.get("limit")), growing)
        streaming = self._turn.answer.id if self._turn is not None else None
        return init_frame(messages, str(self.offset), streaming=streaming, more=more)


def _limit(text: str | None) -> int:
    if text is None or not (text.isascii() and text.isdigit()):
        return INIT_MESSAGES
    return min(int(text[:6]), INIT_MESSAGES)
