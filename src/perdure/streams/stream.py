"""Streams: append-only sequences of entries with a durable end.

A stream lives in an object. The object itself sees what it appended at once; readers see
an entry when it is durable, at an offset that never changes. Reading from any offset costs
the same, however long the stream is; a reader that waits costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from ..errors import LimitExceeded, OffsetError, OffsetTrimmed, PerdureError
from ..storage.object_storage import Storage
from ..storage.stored_stream import StoredStream
from ..values import format_offset, parse_offset

READ_BYTES = 256 * 1024
"""Bytes of entries that one read returns, more or less (always at least one entry)."""

ENTRY_BYTES_MAX = 16 * 1024 * 1024
"""Largest entry."""

JSON = "application/json"


class Batch(NamedTuple):
    """Some entries of a stream, and where to go on.

    ``closed`` is true when the stream has ended and nothing follows; ``up_to_date`` when these
    were the newest durable entries.
    """

    entries: list[bytes]
    next_offset: str
    up_to_date: bool
    closed: bool


class Span(NamedTuple):
    """Some durable entries of a stream, not read yet: from ``position`` to ``end``, ``bytes`` in all."""

    position: int
    end: int
    bytes: int
    up_to_date: bool
    closed: bool


def check_entries(entries: Sequence[bytes]) -> None:
    """Raises LimitExceeded (``entry_bytes_max``) for entries that no stream may hold."""
    for entry in entries:
        if len(entry) > ENTRY_BYTES_MAX:
            raise LimitExceeded("entry_bytes_max", len(entry), ENTRY_BYTES_MAX)


class Follower(Protocol):
    """Someone who is told by a stream when more of it is durable."""

    def on_entries(self, stream: Stream) -> None:
        """More is durable, or the stream has ended."""

    def on_gone(self, error: PerdureError) -> None:
        """The stream was deleted, or its object's instance is gone (`ObjectReset`)."""


class Stream:
    """One stream of an object, by its owner. Get it from ``self.streams``."""

    __slots__ = (
        "__weakref__",
        "_error",
        "_followers",
        "_storage",
        "_stored",
        "_touched",
        "_waiter",
        "durable_closed",
        "durable_position",
        "readers",
    )

    def __init__(self, stored: StoredStream, storage: Storage, touched: Callable[[Stream], None]) -> None:
        self._stored = stored
        self._storage = storage
        self._touched = touched
        self.durable_position = stored.position
        self.durable_closed = stored.closed
        self._waiter: asyncio.Future[None] | None = None
        self._error: PerdureError | None = None
        self._followers: list[Follower] = []
        self.readers = 0

    @property
    def stored(self) -> StoredStream:
        """The storage's side of it."""
        return self._stored

    @property
    def name(self) -> str:
        return self._stored.name

    @property
    def content_type(self) -> str:
        return self._stored.content_type

    @property
    def closed(self) -> bool:
        """Whether the stream has ended."""
        return self._stored.closed

    @property
    def position(self) -> int:
        """Entries so far."""
        return self._stored.position

    @property
    def first_offset(self) -> str:
        """The offset of the oldest entry that is kept."""
        return format_offset(self._stored.first)

    @property
    def tail_offset(self) -> str:
        """The offset after the last entry."""
        return format_offset(self._stored.position)

    def append(self, *entries: bytes) -> str:
        """Add entries (JSON messages in a JSON stream); return the tail's offset.

        Raises:
            StreamClosed: the stream has ended.
            LimitExceeded: ``entry_bytes_max``.
        """
        return format_offset(self.extend(entries))

    def extend(self, entries: Sequence[bytes]) -> int:
        """Like `append`; return the tail's position."""
        check_entries(entries)
        position = self._storage.stream_table.append(self._stored, entries)
        self._storage.mark_dirty()
        self._touched(self)
        return position

    def close(self) -> None:
        """End the stream. Idempotent."""
        if not self._stored.closed:
            self._storage.mark_dirty()
            self._storage.stream_table.close(self._stored)
            self._touched(self)

    def note(self, key: str) -> bytes | None:
        """What was kept with `set_note`; None when nothing was."""
        return self._storage.stream_table.note(self._stored, key)

    def set_note(self, key: str, value: bytes) -> None:
        """Keep a small value with the stream, in the same commit as what is appended in this turn."""
        self._storage.stream_table.set_note(self._stored, key, value)
        self._storage.mark_dirty()

    def set_options(self, options: bytes | None) -> None:
        """Replace the options that the stream was made with."""
        self._storage.mark_dirty()
        self._storage.stream_table.set_options(self._stored, options)

    def blocks(self) -> list[tuple[int, int, int]]:
        """What `trim` can drop, oldest first: where each block ends, its bytes, when it was written (Unix ms)."""
        return self._storage.stream_table.segments(self._stored)

    def trim(self, offset: str) -> str:
        """Forget entries before ``offset``, as far as whole blocks of them allow; return where it begins now.

        Streams that share entries with others (forks and their sources) keep theirs. Raises OffsetError.
        """
        position = min(self._check(offset, self.position), self.durable_position)
        self._storage.mark_dirty()
        return format_offset(self._storage.stream_table.trim(self._stored, position))

    def read(self, offset: str = "-1", bytes_max: int = READ_BYTES) -> Batch:
        """Entries from ``offset`` on as the owner sees them, saved or not.

        Raises:
            OffsetError: the stream never gave this offset out.
            OffsetTrimmed: what was there is not kept any more.
        """
        return self._read(self._check(offset, self.position), self.position, self.closed, bytes_max)

    def entries(self) -> Iterator[bytes]:
        """All that was appended so far, in order; read piece by piece."""
        offset, up_to_date = "-1", False
        while not up_to_date:
            batch = self.read(offset)
            yield from batch.entries
            offset, up_to_date = batch.next_offset, batch.up_to_date

    def read_durable(self, offset: str = "-1", bytes_max: int = READ_BYTES) -> Batch:
        """Entries from ``offset`` on that are durable.

        Raises:
            OffsetError: the stream never gave this offset out.
            OffsetTrimmed: what was there is not kept any more.
            StreamNotFound, ObjectReset: the stream was deleted, or its object's instance is gone.
        """
        if self._error is not None:
            raise self._error
        position = self._check(offset, self.position)
        return self._read(position, self.durable_position, self.durable_closed, bytes_max)

    def measure_durable(self, offset: str, bytes_max: int) -> Span:
        """What `read_durable` would return, without reading it. Raises OffsetError, OffsetTrimmed."""
        position = self._check(offset, self.position)
        durable = self.durable_position
        end, size = self._storage.stream_table.measure(self._stored, position, durable, bytes_max)
        return Span(position, end, size, end >= durable, self.durable_closed and end >= durable)

    def _check(self, offset: str, end: int) -> int:
        if offset == "-1":
            return self._stored.first
        position = parse_offset(offset)
        if position < self._stored.first:
            raise OffsetTrimmed(
                f"stream {self.name!r} begins at {self.first_offset} now; what was before is not kept any more"
            )
        if position > end:
            raise OffsetError(f"offset {offset} is past the end of stream {self.name!r} ({self.tail_offset})")
        return position

    def _read(self, position: int, end: int, closed: bool, bytes_max: int) -> Batch:
        entries: list[bytes] = []
        if position < end:
            entries = self._storage.stream_table.read(self._stored, position, bytes_max)[: end - position]
        position += len(entries)
        at_end = position >= end
        return Batch(entries, format_offset(position), at_end, closed and at_end)

    @property
    def tail_batch(self) -> Batch:
        """Nothing, read at the durable end."""
        return Batch([], format_offset(self.durable_position), True, self.durable_closed)

    # --- readers

    async def follow(self, offset: str = "-1", bytes_max: int = READ_BYTES) -> Batch:
        """Durable entries from ``offset`` on; waits when there are none and the stream is open.

        Cancelling it loses nothing: call it again with the same offset.

        Raises:
            OffsetError: the stream never gave this offset out.
            ObjectReset: the instance was discarded; open the stream anew and go on from the same offset.
        """
        self.readers += 1
        try:
            while True:
                batch = self.read_durable(offset, bytes_max)
                if batch.entries or batch.closed:
                    return batch
                if self._waiter is None:
                    self._waiter = asyncio.get_running_loop().create_future()
                await asyncio.shield(self._waiter)
        finally:
            self.readers -= 1

    def follow_with(self, follower: Follower) -> None:
        """Tell ``follower`` whenever more is durable, from now on; until `unfollow`.

        Where the stream is gone already, it is told that in the loop's next turn.
        """
        if self._error is not None:
            asyncio.get_running_loop().call_soon(follower.on_gone, self._error)
            return
        self._followers.append(follower)

    def unfollow(self, follower: Follower) -> None:
        """Tell it no more. Nothing happens when it was not told."""
        if follower in self._followers:
            self._followers.remove(follower)

    def publish(self, position: int, closed: bool) -> None:
        """What was appended up to ``position`` is durable: readers may have it."""
        self.durable_position = max(self.durable_position, position)
        self.durable_closed = self.durable_closed or closed
        self._wake()
        if self._followers:
            for follower in tuple(self._followers):
                follower.on_entries(self)

    def fail(self, error: PerdureError) -> None:
        """The stream or its instance is gone: wake every reader with the error."""
        self._error = error
        self._wake()
        for follower in tuple(self._followers):
            self.unfollow(follower)
            follower.on_gone(error)

    def _wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None
