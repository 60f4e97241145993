"""The conversation as `useAgentChat` clients are given it: whole, whenever it is another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..wire.cloudflare_chat import messages_frame
from ..wire.messages import ChatMessage, encode_message
from .transcript import StoredMessage, Transcript

if TYPE_CHECKING:
    from .room import ChatRoom

HISTORY_MESSAGES = 1_000
"""The newest messages, which a client is given as the conversation."""


class Conversation:
    """The newest messages as JSON: read when a client first needs them, then kept up to date."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._encoded: dict[int, msgspec.Raw] | None = None
        self._frames: dict[bool, bytes] = {}

    def put(self, stored: StoredMessage) -> None:
        """A message is new, or has changed."""
        encoded = self._encoded
        if encoded is None or not _is_shown(stored):
            return
        self._frames.clear()
        newest = next(reversed(encoded), 0)
        known = stored.seq in encoded
        encoded[stored.seq] = _encode(stored)
        if stored.seq < newest and not known:
            # An answer is shown when it has ended; others may have spoken meanwhile.
            encoded = self._encoded = dict(sorted(encoded.items()))
        if len(encoded) > HISTORY_MESSAGES:
            del encoded[next(iter(encoded))]

    def remove(self, removed: list[StoredMessage]) -> None:
        """Messages are gone."""
        self._frames.clear()
        for stored in removed if self._encoded is not None else ():
            assert self._encoded is not None
            self._encoded.pop(stored.seq, None)

    def frame(self, *, connect: bool = False) -> bytes:
        """The messages; ``connect``: for a client that has just come."""
        frame = self._frames.get(connect)
        if frame is None:
            if self._encoded is None:
                newest = self._transcript.newest(HISTORY_MESSAGES)
                self._encoded = {stored.seq: _encode(stored) for stored in newest if _is_shown(stored)}
            frame = self._frames[connect] = messages_frame(list(self._encoded.values()), connect=connect)
        return frame


def room_history(room: ChatRoom) -> list[ChatMessage]:
    """The conversation for a client that opens: the newest messages as they are stored.

    An answer that is being made is replayed to it from its start; what an earlier leg said of it is here.
    """
    return [item.message for item in room.transcript.newest(HISTORY_MESSAGES) if _is_shown(item)]


def _encode(stored: StoredMessage) -> msgspec.Raw:
    return msgspec.Raw(encode_message(stored.message))


def _is_shown(stored: StoredMessage) -> bool:
    return stored.status != "streaming" or bool(stored.message.parts)
