"""A room's clients that speak durable-chat's frames, over PartySocket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from ..errors import PerdureError
from ..objects.connections import Connection
from ..wire.messages import user_message
from ..wire.parties import (
    ASSISTANT,
    GROWING,
    PartyMessage,
    Update,
    add_frame,
    all_frame,
    is_room_frame,
    parse_party_frame,
    update_frame,
)
from ..wire.plain_text import plain_text
from ..wire.room import Wait
from ..wire.room_parts import waits_of
from .listener import RoomListener
from .room_session import handle_frame
from .transcript import StoredMessage
from .turn import Outcome, Turn

if TYPE_CHECKING:
    from .room import ChatRoom

log = structlog.get_logger("perdure.chat")

PARTY = "party"
"""`Connection.protocol` of these clients."""

HISTORY_MESSAGES = 1_000
"""The newest messages, which a client is given as the conversation."""

UPDATE_MS = 50
"""A growing answer is sent this often at most: its bytes grow with the square of its length."""


class PartySurface(RoomListener):
    """One room's clients of this kind. A `Surface`, and a `RoomListener` that shows them what happens."""

    def __init__(self, room: ChatRoom) -> None:
        self._room = room
        self._members = {item: None for item in room.connections() if item.protocol == PARTY}
        self._timer: asyncio.TimerHandle | None = None
        self._sent_at = 0.0
        self._all_due = False
        room.add_listener(self)

    # --- clients

    def connect(self, connection: Connection) -> None:
        """A client has come: it gets the conversation, a growing answer as it is now."""
        self._members[connection] = None
        connection.send_frame(self._all())

    def gone(self, connection: Connection) -> None:
        """A client has left."""
        self._members.pop(connection, None)

    async def handle(self, connection: Connection, data: str | bytes) -> bool:
        """Take a message in, or another version of one. False: the frame is none of the protocol's."""
        command = parse_party_frame(data)
        if command is None:
            ours = is_room_frame(data)
            if ours:
                await handle_frame(self._room, connection, data)
            return ours
        user = connection.user or command.user or None
        message = user_message(command.id, command.content, user=user)
        try:
            known = self._room.transcript.find(message.id)
            if isinstance(command, Update):
                self._room.edit(message)
            elif known is None:
                self._room.submit_message(message)
            else:
                connection.send_frame(add_frame(self._shown(known)))  # sent again: its sender has not seen it
        except PerdureError as error:
            # There is no frame for that. The client shows its message already; so it is told what there is.
            log.info("message refused", room=self._room.name, error=str(error))
            connection.send_frame(self._all())
        return True

    # --- events

    def on_message(self, stored: StoredMessage) -> None:
        """A message is new, or takes the place of those that were removed."""
        if self._all_due:
            return  # it is among what is sent then
        self._send(add_frame(self._shown(stored)))

    def on_turn(self, turn: Turn, *, new: bool) -> None:
        """An answer begins."""
        self._send_all()
        if new:
            self._send(add_frame(_answer(turn.answer.id, GROWING)))

    def on_text(self, turn: Turn, text: str) -> None:
        """It has grown: told now or, when that was told just before, a little later."""
        if self._timer is None and self._members:
            loop = asyncio.get_running_loop()
            wait_s = self._sent_at + UPDATE_MS / 1000 - loop.time()
            if wait_s <= 0:
                self._update(turn)
            else:
                self._timer = loop.call_later(wait_s, self._update, turn)

    def on_settled(self, turn: Turn, outcome: Outcome, error: str | None) -> None:
        """It has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._send(update_frame(self._shown(turn.answer)))

    def on_updated(self, stored: StoredMessage) -> None:
        """What an answer waits for has changed."""
        self._send(update_frame(self._shown(stored)))

    def on_removed(self, removed: list[StoredMessage]) -> None:
        """Messages are gone; there is no frame for that, so all are sent again, with what comes in their place."""
        if not self._all_due:
            self._all_due = True
            asyncio.get_running_loop().call_soon(self._send_all)

    # --- frames

    def _send_all(self) -> None:
        if self._all_due:
            self._all_due = False
            self._send(self._all())

    def _update(self, turn: Turn) -> None:
        self._timer = None
        if turn is self._room.running:
            self._sent_at = asyncio.get_running_loop().time()
            self._send(update_frame(_growing(turn)))

    def _send(self, frame: bytes) -> None:
        if self._members:
            context = self._room.context
            context.after_durable(context.runtime.fan_out, tuple(self._members), frame, True)

    def _all(self) -> bytes:
        return all_frame([self._shown(item) for item in self._room.transcript.newest(HISTORY_MESSAGES)])

    def _shown(self, stored: StoredMessage) -> PartyMessage:
        if stored.role != "assistant":
            return PartyMessage(stored.id, stored.message.text, stored.message.user or "", "user")
        turn = self._room.running
        if turn is not None and turn.answer.id == stored.id and stored.status == "streaming":
            return _growing(turn)
        waits = waits_of(stored.message.parts) if stored.status == "waiting" else None
        text = plain_text(stored.message.parts, waiting=waits is not None, error=stored.error)
        return _answer(stored.id, text, waits)


def _growing(turn: Turn) -> PartyMessage:
    return _answer(turn.answer.id, plain_text(turn.fold.message().parts) + GROWING)


def _answer(answer_id: str, text: str, waits: list[Wait] | None = None) -> PartyMessage:
    return PartyMessage(answer_id, text, ASSISTANT, "assistant", waits)
