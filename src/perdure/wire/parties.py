"""The frames of durable-chat (Cloudflare's template) and of what is built after it, at ``/parties/{party}/{room}``.

JSON text frames, over PartySocket. The server's first frame is the conversation; then both sides add messages and
change them, each frame with the whole of one message::

    {"type":"all","messages":[{"id":"...","content":"...","user":"...","role":"user"}, ...]}
    {"type":"add","id":"...","content":"...","user":"...","role":"user"}
    {"type":"update","id":"...","content":"...","user":"...","role":"assistant"}

Everyone gets every frame, its sender too. An answer begins with the content ``...``, is then all its text so far
with ``...`` behind it, and at its end the bare text.

Beyond the template's frames, which have no such thing: an answer that waits for somebody says for what, in a field
that other pages pass over, and some frames of the room protocol are understood (room_commands.py has them)::

    {"type":"update", ..., "waits":[{"id":"call-1","tool":"refund","kind":"approval","input":{"order":17}}]}
    {"type":"approve", ...}   {"type":"result", ...}   {"type":"regenerate", ...}   {"type":"stop"}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from .json_text import encode_json
from .room import Wait

PartyRole = Literal["user", "assistant"]

GROWING = "..."
"""Ends the content of an answer that is being made."""

ASSISTANT = "AI"
"""The name under which answers are shown."""


ROOM_FRAMES = frozenset({"approve", "result", "regenerate", "stop"})
"""Types of the room protocol's frames that these clients may send, too."""


class PartyMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message as these clients know it; ``user`` is a name."""

    id: str
    content: str
    user: str
    role: PartyRole
    waits: Sequence[Wait] | None = None


class Add(PartyMessage, tag_field="type", tag="add", frozen=True):
    """A message is new."""


class Update(PartyMessage, tag_field="type", tag="update", frozen=True):
    """A message is another now."""


class _All(msgspec.Struct, tag_field="type", tag="all", frozen=True):
    messages: Sequence[PartyMessage]


def all_frame(messages: Sequence[PartyMessage]) -> bytes:
    """The whole conversation, oldest first."""
    return encode_json(_All(messages))


def add_frame(message: PartyMessage) -> bytes:
    """A new message."""
    return encode_json(Add(*msgspec.structs.astuple(message)))


def update_frame(message: PartyMessage) -> bytes:
    """A message as it is now."""
    return encode_json(Update(*msgspec.structs.astuple(message)))


PartyCommand: TypeAlias = Add | Update

_commands: msgspec.json.Decoder[PartyCommand] = msgspec.json.Decoder(PartyCommand)


def parse_party_frame(data: str | bytes) -> PartyCommand | None:
    """What a client says: a message, or another version of one. None: the frame is the application's.

    A client speaks for people only: frames in the name of the assistant are not of this protocol.
    """
    if not isinstance(data, str):
        return None
    try:
        command = _commands.decode(data)
    except (ValueError, RecursionError):
        return None
    return command if command.role == "user" and command.id else None


class _Typed(msgspec.Struct):
    type: str


_types = msgspec.json.Decoder(_Typed)


def is_room_frame(data: str | bytes) -> bool:
    """Whether a client's frame is one of `ROOM_FRAMES`, by its type."""
    if not isinstance(data, str):
        return False
    try:
        return _types.decode(data).type in ROOM_FRAMES
    except (ValueError, RecursionError):
        return False
