"""The plain WebSocket protocol of a chat room: every frame that a server sends.

Server to client (``offset`` is opaque: hand it back as ``?offset=`` to miss nothing)::

    {"type":"init","messages":[Message...],"offset":"...","streaming":"<id>"?,"more":true?}
    {"type":"resume","offset":"..."}                        then only the missed frames
    {"type":"message","message":Message,"offset":"..."}     a new message, or one that changed: as it is now
    {"type":"update","messageId":"...","content":"<all so far>","offset":"..."}
    {"type":"delta","messageId":"...","delta":"<the new>","offset":"..."}     with ?delta=1
    {"type":"chunks","messageId":"...","chunks":[Chunk...],"offset":"..."}    with ?parts=1
    {"type":"complete","messageId":"...","content":"...","status":"...","error":"..."?,"waits":[Wait...]?,
     "offset":"..."}
    {"type":"remove","messageIds":["..."],"offset":"..."}   an edit or a retry cut the transcript
    {"type":"presence","people":[Person...],"guests":2?,"more":9?}            with ?presence=1
    {"type":"error","code":"...","message":"...","retryable":false,"id":"..."?}   to one client
    {"type":"pong"}   {"type":"reconnect"}

    Message = {"id","role","content","timestamp","user"?,"status"?,"error"?,"answers"?,"waits"?,"branches"?,
               "parts"?,"metadata"?}
    Branches = {"index","count"}
    Wait    = {"id","tool","kind":"approval" | "result","input"}
    Person  = {"user","tabs"?,"typing"?}

A Chunk is one of the AI SDK's UI message stream (ui_chunks.py), a part one of its `UIMessage` (messages.py).
What clients send is in room_commands.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from .json_text import encode_json
from .messages import Role

CLIENT_ID_BYTES_MAX = 256
"""Longest id that a client may give its message, in bytes of UTF-8: a UUID has 36."""

USER_NAME_BYTES_MAX = 256
"""Longest name of a person, in bytes of UTF-8."""

AnswerStatus = Literal["streaming", "waiting", "complete", "aborted", "failed"]
FinalStatus = Literal["waiting", "complete", "aborted", "failed"]


class Wait(msgspec.Struct, frozen=True):
    """Something that a waiting answer waits for. ``id`` is the tool call's: hand it back with the response.

    ``approval``: a person's yes or no before the call is carried out; ``result``: the call is the clients' to
    carry out.
    """

    id: str
    tool: str
    kind: Literal["approval", "result"]
    input: Any


class Branches(msgspec.Struct, frozen=True):
    """An edit or a regenerate left other versions: this message is version ``index`` (from 0) of ``count``."""

    index: int
    count: int


class Person(msgspec.Struct, omit_defaults=True, frozen=True):
    """Someone who is here, with that many connections; ``typing``: writes something just now."""

    user: str
    tabs: int = 1
    typing: bool = False


class RoomMessage(msgspec.Struct, omit_defaults=True, frozen=True):
    """A message as room clients see it. ``timestamp`` is in milliseconds since 1970.

    ``status``, ``error``, ``answers`` (the id of the message that it answers) and ``waits`` (what a waiting one
    waits for) are the assistant's alone; ``user`` is a person's name. With ``?parts=1`` a message that is more
    than its ``content`` has ``parts``.
    """

    id: str
    role: Role
    content: str
    timestamp: int
    user: str | None = None
    status: AnswerStatus | None = None
    error: str | None = None
    answers: str | None = None
    waits: list[Wait] | None = None
    branches: Branches | None = None
    parts: list[dict[str, Any]] | None = None
    metadata: dict[str, Any] | None = None


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
    """A message was added, or is not what it was."""

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


class ChunksFrame(_Frame, tag="chunks", frozen=True):
    """What an answer has gained: chunks, in order."""

    message_id: str
    chunks: Sequence[msgspec.Raw]
    offset: str


class CompleteFrame(_Frame, tag="complete", frozen=True):
    """An answer has ended, or waits for someone."""

    message_id: str
    content: str
    status: FinalStatus
    offset: str
    error: str | None = None
    waits: Sequence[Wait] | None = None


class RemoveFrame(_Frame, tag="remove", frozen=True):
    """Messages were cut from the transcript."""

    message_ids: Sequence[str]
    offset: str


class PresenceFrame(_Frame, tag="presence", frozen=True):
    """Who is here: by name; ``guests`` without a name; ``more`` beyond the list."""

    people: Sequence[Person]
    guests: int = 0
    more: int = 0


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
    """A user's message, the empty answer with which a turn starts, or a message that has changed."""
    return encode_json(MessageFrame(message, offset))


def update_frame(message_id: str, content: str, offset: str) -> bytes:
    """The whole text of an answer so far."""
    return encode_json(UpdateFrame(message_id, content, offset))


def delta_frame(message_id: str, delta: str, offset: str) -> bytes:
    """The text that an answer has gained."""
    return encode_json(DeltaFrame(message_id, delta, offset))


def chunks_frame(message_id: str, chunks: Sequence[bytes], offset: str) -> bytes:
    """Chunks of an answer, each encoded already."""
    return encode_json(ChunksFrame(message_id, [msgspec.Raw(chunk) for chunk in chunks], offset))


def complete_frame(
    message_id: str,
    content: str,
    status: FinalStatus,
    offset: str,
    *,
    error: str | None = None,
    waits: Sequence[Wait] | None = None,
) -> bytes:
    """The end of an answer with its text; ``error`` says why it failed, ``waits`` what it waits for."""
    return encode_json(CompleteFrame(message_id, content, status, offset, error, waits))


def remove_frame(message_ids: Sequence[str], offset: str) -> bytes:
    """These messages are no longer part of the conversation."""
    return encode_json(RemoveFrame(message_ids, offset))


def presence_frame(people: Sequence[Person], *, guests: int = 0, more: int = 0) -> bytes:
    """Who is here now, all of it."""
    return encode_json(PresenceFrame(people, guests, more))


def error_frame(code: str, message: str, retryable: bool, *, id: str | None = None) -> bytes:
    """What was wrong with this client's frame; the connection stays open. ``id``: of the message refused."""
    return encode_json(ErrorFrame(code, message, retryable, id))


PONG = b'{"type":"pong"}'
"""The answer to a ping."""

PING = b'{"type":"ping"}'
"""A client's ping exactly as our page sends it, for answers that need no parsing."""

RECONNECT = b'{"type":"reconnect"}'
"""The server is about to close the connection on purpose; come back at once."""
