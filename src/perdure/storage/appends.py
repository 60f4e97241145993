"""Streams inside an object's storage: the tail in memory, the rest in rows.

An append costs no SQL: its entries go into the tail and, with the commit, into the journal.
The tail moves into ``_perdure_segments`` in batches (`materialise`): when it is large, at a
checkpoint, on hibernation, when the stream closes.

    position 0 ........................ materialised ............ position (the tail's end)
             | rows in _perdure_segments |  entries in the tail  |

Reading stitches the two. Nothing here depends on how long a stream is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

from ..errors import StreamClosed, StreamNotFound
from .database import Database
from .record import Append

TAIL_BYTES_MAX = 256 * 1024
"""Bytes of one stream's tail past which it is materialised with the next commit."""

SEGMENT_BYTES_MAX = 64 * 1024
"""Bytes of entries in one row: small enough to read one for a few entries, large enough to be few."""


class StoredStream:
    """One stream of an object. Positions count entries from 0."""

    __slots__ = (
        "__weakref__",
        "bytes",
        "closed",
        "content_type",
        "created_ms",
        "first",
        "gone",
        "materialised",
        "name",
        "number",
        "position",
        "tail",
        "tail_bytes",
    )

    def __init__(
        self,
        number: int,
        name: str,
        content_type: str,
        position: int = 0,
        first: int = 0,
        size: int = 0,
        closed: bool = False,
        created_ms: int = 0,
    ) -> None:
        self.number = number
        self.name = name
        self.content_type = content_type
        self.materialised = position
        self.position = position
        self.first = first
        self.bytes = size
        self.closed = closed
        self.created_ms = created_ms
        self.tail: list[bytes] = []
        self.tail_bytes = 0
        self.gone = False
        """Whether the stream was deleted, or its creation undone: this handle is of no use any more."""


class StreamTable:
    """All streams of one object.

    ``begin`` opens the storage's transaction before the first SQL write of a turn.
    """

    def __init__(self, database: Database, begin: Callable[[], None]) -> None:
        self._database = database
        self._begin = begin
        # Whoever uses a stream holds it; a tail holds it, too. So there is one of each, and none leaks.
        self._open: WeakValueDictionary[str, StoredStream] = WeakValueDictionary()
        self._pending: list[Append] = []
        self._with_tail: dict[int, StoredStream] = {}
        self.has_large_tail = False

    def get(self, name: str) -> StoredStream | None:
        """The stream of that name, or None."""
        stream = self._open.get(name)
        if stream is None:
            rows = self._database.execute(
                "SELECT id, name, content_type, position, first, bytes, closed, created_ms"
                " FROM _perdure_streams WHERE name = ?",
                (name,),
            )
            if not rows:
                return None
            number, name, content_type, position, first, size, closed, created_ms = rows[0]
            stream = StoredStream(number, name, content_type, position, first, size, bool(closed), created_ms)
            self._open[name] = stream
        return stream

    def create(self, name: str, content_type: str, created_ms: int) -> StoredStream:
        """Make an empty stream. The name must be free."""
        self._begin()
        ((number,),) = self._database.execute(
            "SELECT 1 + max(coalesce((SELECT max(id) FROM _perdure_streams), 0),"
            " coalesce((SELECT value FROM _perdure_meta WHERE key = 'stream_id'), 0))"
        )
        self._database.execute(
            "INSERT INTO _perdure_streams(id, name, content_type, created_ms) VALUES(?,?,?,?)",
            (number, name, content_type, created_ms),
        )
        stream = StoredStream(number, name, content_type, created_ms=created_ms)
        self._open[name] = stream
        return stream

    def append(self, stream: StoredStream, entries: Sequence[bytes]) -> int:
        """Add entries at the end; return the position after them.

        Raises:
            StreamClosed: the stream has ended.
            StreamNotFound: it was deleted, or the transaction that made it was rolled back.
        """
        if stream.gone:
            raise StreamNotFound(f"stream {stream.name!r} is gone")
        if stream.closed:
            raise StreamClosed(f"stream {stream.name!r} has ended at {stream.position}")
        size = sum(map(len, entries))
        self._pending.append(Append(stream.number, stream.position, entries))
        if not stream.tail:
            self._with_tail[stream.number] = stream
        stream.tail.extend(entries)
        stream.tail_bytes += size
        stream.bytes += size
        stream.position += len(entries)
        if stream.tail_bytes > TAIL_BYTES_MAX:
            self.has_large_tail = True
        return stream.position

    def close(self, stream: StoredStream) -> None:
        """End the stream for good. Idempotent."""
        if stream.gone:
            raise StreamNotFound(f"stream {stream.name!r} is gone")
        if stream.closed:
            return
        self._begin()
        self._materialise(stream)
        self._database.execute("UPDATE _perdure_streams SET closed = 1 WHERE id = ?", (stream.number,))
        stream.closed = True

    def delete(self, stream: StoredStream) -> None:
        """Remove the stream and all its entries."""
        self._begin()
        self._database.execute("DELETE FROM _perdure_segments WHERE stream = ?", (stream.number,))
        self._database.execute("DELETE FROM _perdure_streams WHERE id = ?", (stream.number,))
        # The number must not be given out again: the journal may hold appends to it.
        self._database.execute(
            "INSERT INTO _perdure_meta VALUES('stream_id', ?)"
            " ON CONFLICT(key) DO UPDATE SET value = max(value, excluded.value)",
            (stream.number,),
        )
        stream.gone = True
        self._open.pop(stream.name, None)
        self._with_tail.pop(stream.number, None)
        self._pending = [append for append in self._pending if append.stream != stream.number]

    def names(self) -> list[str]:
        """The names of all streams, in order of creation."""
        return [row[0] for row in self._database.execute("SELECT name FROM _perdure_streams ORDER BY id")]

    def closed_before(self, created_ms: int, limit: int) -> list[str]:
        """Names of ended streams that were made before a time, oldest first."""
        rows = self._database.execute(
            "SELECT name FROM _perdure_streams WHERE closed AND created_ms < ? ORDER BY id LIMIT ?",
            (created_ms, limit),
        )
        return [row[0] for row in rows]

    def read(self, stream: StoredStream, position: int, bytes_max: int) -> list[bytes]:
        """Entries from ``position`` on, until they are ``bytes_max`` or more bytes; at least one if there is one."""
        entries: list[bytes] = []
        size = 0
        if position < stream.materialised:
            for first, sizes, data in self._segments(stream.number, position):
                for start, end in _cuts(sizes, position - first):
                    entries.append(data[start:end])
                    size += end - start
                    if size >= bytes_max:
                        return entries
                position = first + len(sizes) // 4
        for entry in stream.tail[max(0, position - stream.materialised) :]:
            entries.append(entry)
            size += len(entry)
            if size >= bytes_max:
                break
        return entries

    def _segments(self, number: int, position: int) -> Iterable[tuple[int, bytes, bytes]]:
        cursor = self._database.connection.execute(
            "SELECT first, sizes, data FROM _perdure_segments WHERE stream = ?1 AND first >= coalesce("
            "(SELECT max(first) FROM _perdure_segments WHERE stream = ?1 AND first <= ?2), 0) ORDER BY first",
            (number, position),
        )
        try:
            yield from cursor
        finally:
            cursor.close()

    # --- commits

    def take_pending(self) -> list[Append]:
        """What was appended since the last commit; large tails are materialised on the way."""
        pending, self._pending = self._pending, []
        return pending

    @property
    def has_tail(self) -> bool:
        """Whether some entries are only in memory and in the journal."""
        return bool(self._with_tail)

    def materialise_large(self) -> None:
        """Move the tails that are over their limit into rows (before a commit)."""
        self.has_large_tail = False
        for append in self._pending:
            stream = self._with_tail.get(append.stream)
            if stream is not None and stream.tail_bytes > TAIL_BYTES_MAX:
                self._begin()
                self._materialise(stream)

    def materialise_all(self) -> None:
        """Move every tail into rows."""
        if self._with_tail:
            self._begin()
            for stream in list(self._with_tail.values()):
                self._materialise(stream)

    def _materialise(self, stream: StoredStream) -> None:
        if not stream.tail:
            return
        rows = []
        first = stream.materialised
        for batch in _batches(stream.tail):
            sizes = struct.pack(f"<{len(batch)}I", *map(len, batch))
            rows.append((stream.number, first, len(batch), sizes, b"".join(batch)))
            first += len(batch)
        for row in rows:
            self._database.execute("INSERT INTO _perdure_segments VALUES(?,?,?,?,?)", row)
        self._database.execute(
            "UPDATE _perdure_streams SET position = ?, bytes = ? WHERE id = ?",
            (stream.position, stream.bytes, stream.number),
        )
        stream.materialised = stream.position
        stream.tail = []
        stream.tail_bytes = 0
        self._with_tail.pop(stream.number, None)

    def restore(self, append: Append) -> None:
        """Put back an append that the journal has and the rows lack (recovery)."""
        rows = self._database.execute("SELECT name FROM _perdure_streams WHERE id = ?", (append.stream,))
        if not rows:
            return  # the stream was deleted by a later commit
        stream = self.get(rows[0][0])
        if stream is None:
            raise StreamNotFound(rows[0][0])
        skip = stream.position - append.position
        if skip < 0:
            raise ValueError(
                f"stream {stream.name!r} ends at {stream.position}, the journal goes on at {append.position}"
            )
        if skip < len(append.entries):
            self.append(stream, append.entries[skip:])
            self._pending.clear()

    # --- savepoints

    def mark(self) -> Mark:
        """Everything that `rewind` needs to come back to this moment."""
        streams = [
            (
                stream,
                stream.position,
                stream.materialised,
                stream.bytes,
                stream.tail[:],
                stream.tail_bytes,
                stream.closed,
            )
            for stream in self._open.values()
        ]
        return Mark(self._pending[:], streams, dict(self._with_tail))

    def rewind(self, mark: Mark) -> None:
        """Undo what was done to the streams since `mark`; the SQL was undone by its savepoint."""
        known = {stream.number for stream, *_ in mark.streams}
        for stream in list(self._open.values()):
            if stream.number not in known:
                self._reset(stream)
            if stream.number not in known and stream.gone:
                del self._open[stream.name]
        for stream, position, materialised, size, tail, tail_bytes, closed in mark.streams:
            stream.position, stream.materialised, stream.bytes = position, materialised, size
            stream.tail, stream.tail_bytes, stream.closed = tail, tail_bytes, closed
            stream.gone = False
            self._open[stream.name] = stream
        self._pending = mark.pending
        self._with_tail = mark.with_tail

    def _reset(self, stream: StoredStream) -> None:
        """Undo what was done to a stream that was first opened, or made, since the savepoint.

        Whoever holds it may go on using it: it had no tail then, so its row says all.
        """
        rows = self._database.execute(
            "SELECT position, bytes, closed FROM _perdure_streams WHERE id = ?", (stream.number,)
        )
        stream.tail, stream.tail_bytes = [], 0
        if rows:
            stream.position, stream.bytes, closed = rows[0]
            stream.materialised, stream.closed = stream.position, bool(closed)
        else:
            stream.gone = True


class Mark(NamedTuple):
    """The streams' state when a savepoint began."""

    pending: list[Append]
    streams: list[tuple[StoredStream, int, int, int, list[bytes], int, bool]]
    with_tail: dict[int, StoredStream]


def _cuts(sizes: bytes, skip: int) -> Iterable[tuple[int, int]]:
    at = 0
    for index, (size,) in enumerate(struct.iter_unpack("<I", sizes)):
        if index >= skip:
            yield at, at + size
        at += size


def _batches(entries: Sequence[bytes]) -> Iterable[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for entry in entries:
        if batch and size + len(entry) > SEGMENT_BYTES_MAX:
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += len(entry)
    if batch:
        yield batch
