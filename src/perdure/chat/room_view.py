"""Messages as clients of the room protocol see them, and the newest of them ready to be sent."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..wire.room import Branches, RoomMessage
from ..wire.room_parts import growing_parts, parts_beside_text, waits_of
from .branches import Alternatives
from .mentions import speaker_of
from .transcript import StoredMessage, Transcript
from .turn import Turn

INIT_MESSAGES = 1_000
"""Messages in an ``init`` frame unless the client asks for fewer with ``?limit=``."""

_encode = msgspec.json.Encoder().encode


def as_room_message(stored: StoredMessage, content: str | None = None) -> RoomMessage:
    """A message as plain clients see it."""
    assistant = stored.role == "assistant"
    waits = waits_of(stored.message.parts) if stored.status == "waiting" and assistant else None
    return RoomMessage(
        id=stored.id,
        role="assistant" if assistant else "user" if stored.role == "user" else "system",
        content=stored.message.text if content is None else content,
        timestamp=stored.created_ms,
        user=stored.message.user or (speaker_of(stored.message) if assistant else "") or None,
        status=stored.status if assistant else None,  # type: ignore[arg-type]
        error=stored.error,
        answers=stored.answers,
        waits=waits,
    )


def with_parts(
    stored: StoredMessage, turn: Turn | None = None, alternatives: Alternatives | None = None
) -> RoomMessage:
    """A message as clients of parts see it; ``turn``: the running one, where it is this message's."""
    if turn is None:
        plain = as_room_message(stored)
        parts = parts_beside_text(stored.message.parts)
        metadata = stored.message.metadata
    else:
        plain = as_room_message(stored, turn.fold.text)
        # Also where there is nothing but text: the next chunk names the part that it continues.
        parts = growing_parts(turn.fold)
        metadata = turn.fold.message().metadata
    if metadata is not None and plain.user is not None:
        metadata = {name: value for name, value in metadata.items() if name != "user"}
    branches = None if alternatives is None else Branches(alternatives.index, alternatives.count)
    return msgspec.structs.replace(plain, branches=branches, parts=parts or None, metadata=metadata or None)


class RecentMessages:
    """The newest messages as JSON: made at the first greeting, then kept up to date."""

    def __init__(self, transcript: Transcript, view: Callable[[StoredMessage], RoomMessage]) -> None:
        self._transcript = transcript
        self._view = view
        self._encoded: dict[int, msgspec.Raw] | None = None
        self._complete_history = False

    def put(self, stored: StoredMessage) -> None:
        """A message was added, or has changed."""
        if self._encoded is None:
            return
        if stored.seq not in self._encoded and self._encoded and stored.seq < next(iter(self._encoded)):
            return  # older than what is kept
        self._encoded[stored.seq] = msgspec.Raw(_encode(self._view(stored)))
        if len(self._encoded) > INIT_MESSAGES:
            del self._encoded[next(iter(self._encoded))]
            self._complete_history = False

    def remove(self, removed: list[StoredMessage]) -> None:
        """Messages were cut from the end."""
        for stored in removed if self._encoded is not None else ():
            assert self._encoded is not None
            self._encoded.pop(stored.seq, None)

    def newest(self, limit: int, growing: dict[int, RoomMessage]) -> tuple[list[RoomMessage | msgspec.Raw], bool]:
        """The newest ``limit`` messages, oldest first, and whether there are older ones.

        ``growing``: by sequence number, those that are not as they are stored.
        """
        if self._encoded is None:
            stored = self._transcript.newest(INIT_MESSAGES)
            self._complete_history = len(stored) < INIT_MESSAGES
            self._encoded = {item.seq: msgspec.Raw(_encode(self._view(item))) for item in stored}
        messages: list[RoomMessage | msgspec.Raw]
        if growing:
            messages = [growing.get(seq, encoded) for seq, encoded in self._encoded.items()]
        else:
            messages = list(self._encoded.values())
        more = len(messages) > limit or not self._complete_history
        return (messages[-limit:] if limit else []), more
