"""What a client of the room protocol asks for: its frames, taken to the room's methods.

The greeting and all that is sent by itself is the audience's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..errors import (
    BadArguments,
    Busy,
    Forbidden,
    LimitExceeded,
    NoSuchFile,
    Overloaded,
    UnsupportedFile,
    WireError,
)
from ..objects.connections import Connection
from ..wire.messages import ChatMessage, user_message
from ..wire.room import PONG, error_frame
from ..wire.room_commands import (
    Approve,
    ChooseBranch,
    Edit,
    Ping,
    Regenerate,
    Result,
    Retry,
    RoomCommand,
    SendMessage,
    SentFile,
    Stop,
    Typing,
    parse_room_frame,
)

if TYPE_CHECKING:
    from .room import ChatRoom


_REFUSALS = (WireError, LimitExceeded, Overloaded, BadArguments, Busy, Forbidden, UnsupportedFile, NoSuchFile)


async def handle_frame(room: ChatRoom, connection: Connection, data: str | bytes) -> None:
    """Do what a client's frame asks for. A frame that is refused is answered with an ``error`` frame."""
    refused_id = None
    try:
        command = parse_room_frame(data, message_bytes_max=room.context.runtime.limits.message_bytes_max)
        refused_id = getattr(command, "id", None)
        await _obey(room, connection, command)
    except _REFUSALS as error:
        connection.send_frame(error_frame(error.code, str(error), error.retryable, id=refused_id))


async def _obey(room: ChatRoom, connection: Connection, command: RoomCommand) -> None:
    if isinstance(command, SendMessage):
        _take(room, connection, command)
    elif isinstance(command, Edit):
        _edit(room, connection, command)
    elif isinstance(command, Typing):
        room.presence.typing(connection, command.typing)
    elif isinstance(command, (Approve, Result)):
        _settle(room, connection, command)
    elif isinstance(command, Stop):
        await room.stop()
    elif isinstance(command, Retry):
        await room.answer_again()
    elif isinstance(command, Regenerate):
        room.regenerate(command.id)
    elif isinstance(command, ChooseBranch):
        await room.choose_branch(command.id, command.index)
    elif isinstance(command, Ping):
        connection.send_frame(PONG)


def _take(room: ChatRoom, connection: Connection, command: SendMessage) -> None:
    message_id = command.id or room.context.new_id()
    message = _message(message_id, command.content, command.files, _user(connection, command.user))
    submitted = room.submit_message(message)
    room.presence.typing(connection, False)
    if submitted.known:
        # The client sends again because it never saw its message come back.
        stored = room.transcript.find(submitted.message_id)
        if stored is not None:
            room.audience.show_again(connection, stored)


def _edit(room: ChatRoom, connection: Connection, command: Edit) -> None:
    known = room.transcript.find(command.id)
    if known is None or known.role != "user":
        raise BadArguments("there is no message of that id to edit")
    message = _message(command.id, command.content, command.files or (), _user(connection, command.user))
    if command.files is None:
        # An edit that says nothing of files leaves them as they are.
        message.parts = [*(part for part in known.message.parts if part.get("type") == "file"), *message.parts]
    room.edit(message)


def _settle(room: ChatRoom, connection: Connection, command: Approve | Result) -> None:
    """The first response counts; what comes after it is one that was sent twice, or lost a race."""
    user = _user(connection, None)
    if isinstance(command, Approve):
        room.answer_approval(command.id, command.approved, command.reason, user=user)
    else:
        room.tool_result(command.id, command.output, error=command.error, user=user)


def _user(connection: Connection, given: str | None) -> str | None:
    return connection.user or given or connection.query.get("user") or None


def _message(message_id: str, content: str, files: tuple[SentFile, ...], user: str | None) -> ChatMessage:
    message = user_message(message_id, content, user=user)
    if files:
        shown = [{"type": "file", **msgspec.to_builtins(file)} for file in files]
        message.parts = [*shown, *(message.parts if content.strip() else [])]
    return message
