"""What a client of the room protocol asks for: its frames, taken to the room's methods.

The greeting and all that is sent by itself is the audience's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import BadArguments, LimitExceeded, Overloaded, WireError
from ..objects.connections import Connection
from ..wire.messages import user_message
from ..wire.room import PONG, Ping, Retry, RoomCommand, SendMessage, Stop, error_frame, parse_room_frame

if TYPE_CHECKING:
    from .room import ChatRoom


async def handle_frame(room: ChatRoom, connection: Connection, data: str | bytes) -> None:
    """Do what a client's frame asks for. A frame that is refused is answered with an ``error`` frame."""
    message_id = None
    try:
        command = parse_room_frame(data, message_bytes_max=room.context.runtime.limits.message_bytes_max)
        if isinstance(command, SendMessage):
            message_id = command.id
        await _obey(room, connection, command)
    except (WireError, LimitExceeded, Overloaded, BadArguments) as error:
        connection.send_frame(error_frame(error.code, str(error), error.retryable, id=message_id))


async def _obey(room: ChatRoom, connection: Connection, command: RoomCommand) -> None:
    if isinstance(command, SendMessage):
        _take(room, connection, command)
    elif isinstance(command, Stop):
        await room.stop()
    elif isinstance(command, Retry):
        await room.retry()
    elif isinstance(command, Ping):
        connection.send_frame(PONG)


def _take(room: ChatRoom, connection: Connection, command: SendMessage) -> None:
    user = connection.user or command.user or connection.query.get("user") or None
    message = user_message(command.id or room.context.new_id(), command.content, user=user)
    submitted = room.submit_message(message)
    if submitted.known:
        # The client sends again because it never saw its message come back.
        stored = room.transcript.find(submitted.message_id)
        if stored is not None:
            room.audience.show_again(connection, stored)
