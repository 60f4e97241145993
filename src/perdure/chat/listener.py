"""Who shows a room's events to clients, each kind in its own protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..wire.ui_chunks import Chunk
    from .transcript import StoredMessage
    from .turn import Outcome, Turn


class RoomListener:
    """Is told of everything that happens in a room, in order, before it is durable: what it sends waits for that.

    Derive from it and override what is of interest; nothing may raise.
    """

    def on_message(self, stored: StoredMessage) -> None:
        """A user's message was taken in; after an edit, its new version."""

    def on_turn(self, turn: Turn, *, new: bool) -> None:
        """A leg of an answer begins or, after an interruption, goes on. ``new``: the answer itself is new."""

    def on_chunk(self, turn: Turn, chunk: Chunk, data: bytes) -> None:
        """A chunk was appended to the leg's stream, as ``data``, at position ``turn.position - 1``."""

    def on_text(self, turn: Turn, text: str) -> None:
        """The answer grew by ``text``; comes after the `on_chunk` of its delta."""

    def on_settled(self, turn: Turn, outcome: Outcome, error: str | None) -> None:
        """The leg has ended and is stored. ``waiting``: the answer goes on when its results are in."""

    def on_updated(self, stored: StoredMessage) -> None:
        """A message changed outside of a leg: a result or an approval came in, or a leg waits to begin."""

    def on_removed(self, removed: list[StoredMessage]) -> None:
        """Messages were removed from the end. Others may take their place at once."""


class Listeners(RoomListener):
    """Tells all that are in it."""

    def __init__(self) -> None:
        self._all: tuple[RoomListener, ...] = ()

    def add(self, listener: RoomListener) -> None:
        self._all = (*self._all, listener)

    def remove(self, listener: RoomListener) -> None:
        self._all = tuple(item for item in self._all if item is not listener)

    def on_message(self, stored: StoredMessage) -> None:
        for listener in self._all:
            listener.on_message(stored)

    def on_turn(self, turn: Turn, *, new: bool) -> None:
        for listener in self._all:
            listener.on_turn(turn, new=new)

    def on_chunk(self, turn: Turn, chunk: Chunk, data: bytes) -> None:
        for listener in self._all:
            listener.on_chunk(turn, chunk, data)

    def on_text(self, turn: Turn, text: str) -> None:
        for listener in self._all:
            listener.on_text(turn, text)

    def on_settled(self, turn: Turn, outcome: Outcome, error: str | None) -> None:
        for listener in self._all:
            listener.on_settled(turn, outcome, error)

    def on_updated(self, stored: StoredMessage) -> None:
        for listener in self._all:
            listener.on_updated(stored)

    def on_removed(self, removed: list[StoredMessage]) -> None:
        for listener in self._all:
            listener.on_removed(removed)
