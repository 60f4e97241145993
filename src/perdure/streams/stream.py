"""Streams: append-only sequences of entries with a durable end.

A stream lives in an object. The object itself sees what it appended at once; readers see
an entry when it is durable, at an offset that never changes. Reading from any offset costs
the same, however long the stream is; a reader that waits costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from ..errors import LimitExceeded, ObjectReset, OffsetError, PerdureError, StreamNotFound
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


class Stream:
    """One stream of an object, by its owner. Get it from ``self.streams``."""

    def __init__(self, stored: StoredStream, storage: Storage, touched: Callable[[Stream], None]) -> None:
        self._stored = stored
        self._storage = storage
        self._touched = touched
        self.durable_position = stored.position
        self.durable_closed = stored.closed
        self._waiter: asyncio.Future[None] | None = None
        self._error: PerdureError | None = None
        self.readers = 0

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
    def tail_offset(self) -> str:
        """The offset after the last entry."""
        return format_offset(self._stored.position)

    def append(self, *entries: bytes) -> str:
        """Add entries (JSON messages in a JSON stream); return the tail's offset.

        Raises:
            StreamClosed: the stream has ended.
            LimitExceeded: ``entry_bytes_max``.
        """
        for entry in entries:
            if len(entry) > ENTRY_BYTES_MAX:
                raise LimitExceeded("entry_bytes_max", len(entry), ENTRY_BYTES_MAX)
        position = self._storage.stream_table.append(self._stored, entries)
        self._storage.mark_dirty()
        self._touched(self)
        return format_offset(position)

    def close(self) -> None:
        """End the stream. Idempotent."""
        if not self._stored.closed:
            self._storage.mark_dirty()
            self._storage.stream_table.close(self._stored)
            self._touched(self)

    def read(self, offset: str = "-1", bytes_max: int = READ_BYTES) -> Batch:
        """Entries from ``offset`` on as the owner sees them, saved or not.

        Raises:
            OffsetError: the stream never gave this offset out.
        """
        return self._read(self._check(offset, self.position), self.position, self.closed, bytes_max)

    def read_durable(self, offset: str = "-1", bytes_max: int = READ_BYTES) -> Batch:
        """Entries from ``offset`` on that are durable. Raises OffsetError."""
        position = self._check(offset, self.position)
        return self._read(position, self.durable_position, self.durable_closed, bytes_max)

    def _check(self, offset: str, end: int) -> int:
        position = parse_offset(offset)
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
                if self._error is not None:  # first: the instance's file may be closed
                    raise self._error
                batch = self.read_durable(offset, bytes_max)
                if batch.entries or batch.closed:
                    return batch
                if self._waiter is None:
                    self._waiter = asyncio.get_running_loop().create_future()
                await asyncio.shield(self._waiter)
        finally:
            self.readers -= 1

    def publish(self, position: int, closed: bool) -> None:
        """What was appended up to ``position`` is durable: readers may have it."""
        self.durable_position = max(self.durable_position, position)
        self.durable_closed = self.durable_closed or closed
        self._wake()

    def fail(self, error: PerdureError) -> None:
        """The instance is gone: wake every reader with the error."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None


class Streams:
    """The streams of one object: ``self.streams``."""

    def __init__(self, storage: Storage, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._storage = storage
        self._clock_ms = clock_ms
        self._open: dict[str, Stream] = {}
        self._touched: dict[str, Stream] = {}

    def create(self, name: str, content_type: str = JSON) -> Stream:
        """The stream of that name, made if it is not there."""
        stream = self.find(name)
        if stream is None:
            self._storage.mark_dirty()
            stored = self._storage.stream_table.create(name, content_type, self._clock_ms())
            stream = self._open[name] = Stream(stored, self._storage, self._touch)
        return stream

    def find(self, name: str) -> Stream | None:
        """The stream of that name, or None."""
        stream = self._open.get(name)
        if stream is None or stream._stored.gone:  # gone: the transaction that made it was rolled back
            stored = self._storage.stream_table.get(name)
            if stored is None:
                self._open.pop(name, None)
                return None
            self._forget_quiet()
            stream = self._open[name] = Stream(stored, self._storage, self._touch)
        return stream

    def get(self, name: str) -> Stream:
        """The stream of that name.

        Raises:
            StreamNotFound: there is none.
        """
        stream = self.find(name)
        if stream is None:
            raise StreamNotFound(f"there is no stream {name!r}")
        return stream

    def delete(self, name: str) -> None:
        """Remove the stream; its readers end with StreamNotFound. Nothing happens when there is none."""
        stream = self.find(name)
        if stream is not None:
            self._storage.mark_dirty()
            self._storage.stream_table.delete(stream._stored)
            del self._open[name]
            self._touched.pop(name, None)
            stream.fail(StreamNotFound(f"stream {name!r} was deleted"))

    def names(self) -> list[str]:
        """The names of all streams, in order of creation."""
        return self._storage.stream_table.names()

    @property
    def has_readers(self) -> bool:
        """Whether anyone waits at a stream."""
        return any(stream.readers for stream in self._open.values())

    @property
    def has_parting_readers(self) -> bool:
        """Whether anyone still reads a stream that has ended, and will leave by itself when it has the end."""
        return any(stream.readers and stream.closed for stream in self._open.values())

    def take_touched(self) -> list[tuple[Stream, int, bool]]:
        """What the turn's commit makes durable: streams with their ends. For whoever commits."""
        if not self._touched:
            return []
        touched = [(stream, stream.position, stream.closed) for stream in self._touched.values()]
        self._touched.clear()
        return touched

    def fail(self, error: ObjectReset) -> None:
        """The instance is gone: wake all readers with the error."""
        for stream in self._open.values():
            stream.fail(error)

    def _touch(self, stream: Stream) -> None:
        self._touched[stream.name] = stream

    def _forget_quiet(self) -> None:
        """Let go of streams that nobody reads and that have ended."""
        if len(self._open) > 32:
            self._open = {
                name: stream
                for name, stream in self._open.items()
                if stream.readers or not stream.durable_closed or name in self._touched
            }
