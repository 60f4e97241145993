"""The client's half of the plain room protocol (room.py): frames parsed, commands built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from .json_text import decode_json, encode_json
from .room import (
    ChunksFrame,
    CompleteFrame,
    DeltaFrame,
    ErrorFrame,
    InitFrame,
    MessageFrame,
    PresenceFrame,
    RemoveFrame,
    ResumeFrame,
    UpdateFrame,
)
from .room_commands import SentFile


class PongFrame(msgspec.Struct, tag_field="type", tag="pong", frozen=True):
    """The answer to a ping."""


class ReconnectFrame(msgspec.Struct, tag_field="type", tag="reconnect", frozen=True):
    """The server is about to close the connection on purpose."""


ServerFrame: TypeAlias = (
    InitFrame
    | ResumeFrame
    | MessageFrame
    | UpdateFrame
    | DeltaFrame
    | ChunksFrame
    | CompleteFrame
    | RemoveFrame
    | PresenceFrame
    | ErrorFrame
    | PongFrame
    | ReconnectFrame
)

_DECODER: msgspec.json.Decoder[ServerFrame] = msgspec.json.Decoder(ServerFrame)


class _Send(msgspec.Struct, tag_field="type", tag="message", omit_defaults=True, frozen=True):
    content: str
    id: str
    user: str | None = None
    files: Sequence[SentFile] = ()


class _Edit(msgspec.Struct, tag_field="type", tag="edit", omit_defaults=True, frozen=True):
    id: str
    content: str
    user: str | None = None


class _Regenerate(msgspec.Struct, tag_field="type", tag="regenerate", omit_defaults=True, frozen=True):
    id: str | None = None


class _Branch(msgspec.Struct, tag_field="type", tag="branch", frozen=True):
    id: str
    index: int


class _Approve(msgspec.Struct, tag_field="type", tag="approve", omit_defaults=True, frozen=True):
    id: str
    approved: bool
    reason: str | None = None


class _Result(msgspec.Struct, tag_field="type", tag="result", frozen=True):
    id: str
    output: Any


class _FailedResult(msgspec.Struct, tag_field="type", tag="result", frozen=True):
    id: str
    error: str


STOP = b'{"type":"stop"}'
"""Stop the answer that is being made."""

RETRY = b'{"type":"retry"}'
"""Make the last answer again."""

TYPING = b'{"type":"typing"}'
"""This person is writing; say it again every three seconds or so."""

NOT_TYPING = b'{"type":"typing","typing":false}'
"""And not any more."""


def parse_server_frame(data: str | bytes) -> ServerFrame:
    """What the server says.

    Raises:
        RemoteProtocolError: the frame is not one of the protocol.
    """
    return decode_json(data, "the server's frame", _DECODER)


def send_frame(content: str, id: str, *, user: str | None = None, files: Sequence[SentFile] = ()) -> bytes:
    """A person says something. Sending it twice with one id says it once."""
    return encode_json(_Send(content, id, user, files))


def edit_frame(id: str, content: str, *, user: str | None = None) -> bytes:
    """Another version of a message."""
    return encode_json(_Edit(id, content, user))


def regenerate_frame(id: str | None = None) -> bytes:
    """Another version of an answer (None: of the last)."""
    return encode_json(_Regenerate(id))


def branch_frame(id: str, index: int) -> bytes:
    """Show version ``index`` of a message."""
    return encode_json(_Branch(id, index))


def approve_frame(id: str, approved: bool, reason: str | None = None) -> bytes:
    """Agree to a tool call, or do not."""
    return encode_json(_Approve(id, approved, reason))


def result_frame(id: str, output: Any, *, error: str | None = None) -> bytes:
    """What a tool of the clients' gave, or why it failed."""
    return encode_json(_Result(id, output) if error is None else _FailedResult(id, error))
