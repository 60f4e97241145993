"""Rooms' clients of Cloudflare's Agents SDK: `useAgentChat`, unmodified."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..wire.messages import ChatMessage

if TYPE_CHECKING:
    from .room import ChatRoom

HISTORY_MESSAGES = 1_000
"""The newest messages, which a client is given as the conversation."""


def room_history(room: ChatRoom) -> list[ChatMessage]:
    """The conversation for a client that opens: the newest messages as they are stored.

    An answer that is being made is replayed to it from its start; what an earlier leg said of it is here.
    """
    stored = room.transcript.newest(HISTORY_MESSAGES)
    return [item.message for item in stored if item.status != "streaming" or item.message.parts]
