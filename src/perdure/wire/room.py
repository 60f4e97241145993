"""The plain WebSocket protocol of a chat room: every frame, built and parsed.

Server to client (``offset`` is opaque: hand it back as ``?offset=`` to miss nothing)::

    {"type":"init","messages":[Message...],"offset":"...","streaming":"<id>"?,"more":true?}
    {"type":"resume","offset":"..."}                        then only the missed frames
    {"type":"message","message":Message,"offset":"..."}     a user's message, or an empty answer
    {"type":"update","messageId":"...","content":"<all so far>","offset":"..."}
    {"type":"delta","messageId":"...","delta":"<the new>","offset":"..."}     with ?delta=1
    {"type":"complete","messageId":"...","content":"...","status":"...","error":"..."?,"offset":"..."}
    {"type":"remove","messageIds":["..."],"offset":"..."}   an edit or a retry cut the transcript
    {"type":"error","code":"...","message":"...","retryable":false,"id":"..."?}   to one client
    {"type":"pong"}   {"type":"reconnect"}

    Message = {"id","role","content","timestamp","user"?,"status"?,"error"?,"answers"?}

Client to server::

    {"type":"message","content":"...","id":"..."?,"user":"..."?}
    {"type":"stop"}   {"type":"retry"}   {"type":"ping"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from ..errors import LimitExceeded, RemoteProtocolError
from .json_text import decode_json, encode_json
from .messages import Role

CLIENT_ID_BYTES_MAX = 256
"""Longest id that a client may give its message, in bytes of UTF-8: a UUID has 36."""

USER_NAME_BYTES_MAX = 256
"""Longest name of a person, in bytes of UTF-8."""

FRAME_OVERHEAD_BYTES_MAX = 4_096
"""Room in a frame beside its content: the id, the name, keys and braces."""

ESCAPED_BYTES_PER_BYTE_MAX = 6
r"""JSON may write one byte of content as six (``\u0001``)."""

AnswerStatus = Literal["streaming", "complete", "aborted", "failed"]
FinalStatus = Literal["complete", "aborted", "failed"]


class RoomMessage(msgspec.Struct, omit_defaults=True, frozen=True):
    """A message as room clients see it. ``timestamp`` is in milliseconds since 1970.

    ``status``, ``error`` and ``answers`` (the id of the message that it answers) are the assistant's
    alone; ``user`` is a person's name.
    """

    id: str
    role: Role
    content: str
    timestamp: int
    user: str | None = None
    status: AnswerStatus | None = None
    error: str | None = None
    answers: str | None = None


class _Frame(msgspec.Struct, rename="camel", tag_field="type", omit_defaults=True, frozen=True):
    """What all of the server's frames share."""


class InitFrame(_Frame, tag="init", frozen=True):
    """Everything: the first frame of a connection."""

    messages: Sequence[RoomMessage | msgspec.Raw]
    offset: str
    streaming: str | None = None
    more: bool = False


class ResumeFrame(_Frame, tag="resume", frozen=True):
    """The missed frames follow."""

    offset: str


class MessageFrame(_Frame, tag="message", frozen=True):
    """A message was added."""

    message: RoomMessage
    offset: str


class UpdateFrame(_Frame, tag="update", frozen=True):
    """All of an answer's text so far."""

    message_id: str
    content: str
    offset: str


class DeltaFrame(_Frame, tag="delta", frozen=True):
    """The text that an answer has gained."""

    message_id: str
    delta: str
    offset: str


class CompleteFrame(_Frame, tag="complete", frozen=True):
    """An answer has ended."""

    message_id: str
    content: str
    status: FinalStatus
    offset: str
    error: str | None = None


class RemoveFrame(_Frame, tag="remove", frozen=True):
    """Messages were cut from the transcript."""

    message_ids: Sequence[str]
    offset: str


class ErrorFrame(_Frame, tag="error", frozen=True):
    """This client's frame was refused (``id``: the message's), or the connection was."""

    code: str
    message: str
    retryable: bool
    id: str | None = None


def init_frame(
    messages: Sequence[RoomMessage | msgspec.Raw],
    offset: str,
    *,
    streaming: str | None = None,
    more: bool = False,
) -> bytes:
    """The first frame of a connection: the newest messages, oldest first.

    ``streaming`` is the id of the answer that is being made (its text so far is its content);
    ``more``: there are older messages. A message may be given as `msgspec.Raw` JSON.
    """
    return encode_json(InitFrame(messages, offset, streaming, more))


def resume_frame(offset: str) -> bytes:
    """The first frame of a connection that came back in time: the missed frames follow."""
    return encode_json(ResumeFrame(offset))


def message_frame(message: RoomMessage, offset: str) -> bytes:
    """A user's message, or the empty answer with which a turn starts."""
    return encode_json(MessageFrame(message, offset))


def update_frame(message_id: str, content: str, offset: str) -> bytes:
    """The whole text of an answer so far."""
    return encode_json(UpdateFrame(message_id, content, offset))


def delta_frame(message_id: str, delta: str, offset: str) -> bytes:
    """The text that an answer has gained."""
    return encode_json(DeltaFrame(message_id, delta, offset))


def complete_frame(
    message_id: str, content: str, status: FinalStatus, offset: str, *, error: str | None = None
) -> bytes:
    """The end of an answer with its final text; ``error`` says why it failed."""
    return encode_json(CompleteFrame(message_id, content, status, offset, error))


def remove_frame(message_ids: Sequence[str], offset: str) -> bytes:
    """These messages are no longer part of the conversation."""
    return encode_json(RemoveFrame(message_ids, offset))


def error_frame(code: str, message: str, retryable: bool, *, id: str | None = None) -> bytes:
    """What was wrong with this client's frame; the connection stays open. ``id``: of the message refused."""
    return encode_json(ErrorFrame(code, message, retryable, id))


PONG = b'{"type":"pong"}'
"""The answer to a ping."""

PING = b'{"type":"ping"}'
"""A client's ping exactly as our page sends it, for answers that need no parsing."""

RECONNECT = b'{"type":"reconnect"}'
"""The server is about to close the connection on purpose; come back at once."""


class SendMessage(msgspec.Struct, frozen=True):
    """A person says something. ``id`` is the client's own: the same id again is the same message."""

    content: str
    id: str | None = None
    user: str | None = None


class Stop(msgspec.Struct, frozen=True):
    """Stop the answer that is being made."""


class Retry(msgspec.Struct, frozen=True):
    """Make the last answer again."""


class Ping(msgspec.Struct, frozen=True):
    """Is anyone there? Answered with `PONG`."""


RoomCommand: TypeAlias = SendMessage | Stop | Retry | Ping

_PLAIN_COMMANDS: dict[str, RoomCommand] = {"stop": Stop(), "retry": Retry(), "ping": Ping()}


def parse_room_frame(data: str | bytes, *, message_bytes_max: int) -> RoomCommand:
    """What a client asks for. Fields that are not part of the protocol are ignored.

    Raises:
        RemoteProtocolError: the frame is not one of the protocol; the text says why.
        LimitExceeded: the content is longer than ``message_bytes_max`` bytes of UTF-8, or an id
            or a name is too long.
    """
    # Before any parsing: a frame that no encoding of a legal message can be as long as.
    frame_bytes_max = message_bytes_max * ESCAPED_BYTES_PER_BYTE_MAX + FRAME_OVERHEAD_BYTES_MAX
    if len(data) > frame_bytes_max:
        raise LimitExceeded("message_bytes_max", len(data), message_bytes_max)
    fields = decode_json(data, "the frame")
    if not isinstance(fields, dict):
        raise RemoteProtocolError(f"a frame is a JSON object, not {_json_kind(fields)}")
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise RemoteProtocolError("a frame has a `type`, and it is text")
    if kind == "message":
        return _parse_message(fields, message_bytes_max)
    command = _PLAIN_COMMANDS.get(kind)
    if command is None:
        raise RemoteProtocolError(
            f"there is no frame of type {kind[:80]!r}; a client sends message, stop, retry or ping"
        )
    return command


def _parse_message(fields: Mapping[str, Any], message_bytes_max: int) -> SendMessage:
    content = fields.get("content")
    if not isinstance(content, str):
        raise RemoteProtocolError("a message has `content`, and it is text")
    size = len(content.encode())
    if size > message_bytes_max:
        raise LimitExceeded("message_bytes_max", size, message_bytes_max)
    if not content.strip():
        raise RemoteProtocolError("a message must not be empty")
    return SendMessage(
        content,
        _optional_text(fields, "id", "client_id_bytes_max", CLIENT_ID_BYTES_MAX),
        _optional_text(fields, "user", "user_name_bytes_max", USER_NAME_BYTES_MAX),
    )


def _optional_text(fields: Mapping[str, Any], name: str, limit: str, bytes_max: int) -> str | None:
    """A field that may be absent (or null: clients in many languages send that for "none")."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise RemoteProtocolError(f"a message's `{name}`, where there is one, is text that is not empty")
    size = len(value.encode())
    if size > bytes_max:
        raise LimitExceeded(limit, size, bytes_max)
    return value


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return "text"
    return "true or false" if isinstance(value, bool) else "a number"
