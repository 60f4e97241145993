"""The client's half of the plain room protocol (room.py): frames parsed, commands built."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from .json_text import decode_json, encode_json
from .room import (
    CompleteFrame,
    DeltaFrame,
    ErrorFrame,
    InitFrame,
    MessageFrame,
    RemoveFrame,
    ResumeFrame,
    UpdateFrame,
)


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
    | CompleteFrame
    | RemoveFrame
    | ErrorFrame
    | PongFrame
    | ReconnectFrame
)

_DECODER: msgspec.json.Decoder[ServerFrame] = msgspec.json.Decoder(ServerFrame)


class _Send(msgspec.Struct, tag_field="type", tag="message", omit_defaults=True, frozen=True):
    content: str
    id: str
    user: str | None = None


STOP = b'{"type":"stop"}'
"""Stop the answer that is being made."""

RETRY = b'{"type":"retry"}'
"""Make the last answer again."""


def parse_server_frame(data: str | bytes) -> ServerFrame:
    """What the server says.

    Raises:
        RemoteProtocolError: the frame is not one of the protocol.
    """
    return decode_json(data, "the server's frame", _DECODER)


def send_frame(content: str, id: str, *, user: str | None = None) -> bytes:
    """A person says something. Sending it twice with one id says it once."""
    return encode_json(_Send(content, id, user))
