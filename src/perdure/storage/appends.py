"""Streams inside an object's storage: the tail in memory, the rest in rows.

An append costs no SQL: its entries go into the tail and, with the commit, into the journal.
So do notes, small values that a stream keeps by key. The tail moves into ``_perdure_segments``
(and notes into ``_perdure_notes``) in batches (`materialise`): when it is large, at a
checkpoint, on hibernation, when the stream closes.

    position 0 ........................ materialised ............ position (the tail's end)
             | rows in _perdure_segments |  entries in the tail  |

Reading stitches the two, and what a fork shares with its base. Nothing here depends on how long
a stream is.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from ..errors import StreamClosed, StreamNotFound
from .database import Database
from .record import Append, Note
from .stored_stream import COLUMNS, StoredStream

TAIL_BYTES_MAX = 256 * 1024
"""Bytes of one stream's tail past which it is materialised with the next commit."""

SEGMENT_BYTES_MAX = 64 * 1024
"""Bytes of entries in one row: small enough to read one for a few entries, large enough to be few."""

NOTE_OVERHEAD_BYTES = 32
"""What a note counts in a tail beside its key and value."""


class StreamTable:
    """All streams of one object.

    ``begin`` opens the storage's transaction before the first SQL write of a turn.
    """

    def __init__(
        self,
        database: Database,
        begin: Callable[[], None],
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._database = database
        self._begin = begin
        self._clock_ms = clock_ms
        # Whoever uses a stream holds it; a tail holds it, too. So there is one of each, and none leaks.
        self._open: WeakValueDictionary[str, StoredStream] = WeakValueDictionary()
        self._pending: list[Append | Note] = []
        self._with_tail: dict[int, StoredStream] = {}
        self.has_large_tail = False

    # --- which there are

    def get(self, name: str) -> StoredStream | None:
        """The stream of that name, or None. It may be hidden."""
        stream = self._open.get(name)
        if stream is None:
            rows = self._database.execute(f"SELECT {COLUMNS} FROM _perdure_streams WHERE name = ?", (name,))
            stream = self._load(rows[0]) if rows else None
        return stream

    def _load(self, row: tuple[Any, ...]) -> StoredStream:
        fields = list(row)
        if fields[9] is not None:
            fields[9] = self._by_number(fields[9])
        stream = self._open[fields[1]] = StoredStream(*fields)
        return stream

    def _by_number(self, number: int) -> StoredStream | None:
        rows = self._database.execute("SELECT name FROM _perdure_streams WHERE id = ?", (number,))
        return self.get(rows[0][0]) if rows else None

    def create(
        self,
        name: str,
        content_type: str,
        created_ms: int,
        *,
        options: bytes | None = None,
        base: StoredStream | None = None,
        base_end: int = 0,
    ) -> StoredStream:
        """Make an empty stream, or one that shares a base's entries before ``base_end``. The name must be free."""
        self._begin()
        ((number,),) = self._database.execute(
            "SELECT 1 + max(coalesce((SELECT max(id) FROM _perdure_streams), 0),"
            " coalesce((SELECT value FROM _perdure_meta WHERE key = 'stream_id'), 0))"
        )
        first = 0 if base is None else base.first
        row = (number, name, content_type, base_end, first, 0, 0, created_ms, options)
        self._database.execute(
            f"INSERT INTO _perdure_streams({COLUMNS}) VALUES(?,?,?,?,?,?,?,?,?,?,?,0,0)",
            (*row, None if base is None else base.number, base_end),
        )
        if base is not None:
            base.forks += 1
            self._update(base, "forks", base.forks)
        stream = self._open[name] = StoredStream(*row, base, base_end)
        return stream

    def names(self) -> list[str]:
        """The names of all streams that are not hidden, in order of creation."""
        return [
            row[0] for row in self._database.execute("SELECT name FROM _perdure_streams WHERE NOT hidden ORDER BY id")
        ]

    def names_after(self, name: str, prefix: str, limit: int) -> list[str]:
        """Names that begin with ``prefix`` and come after ``name``, in text order; without the hidden ones."""
        rows = self._database.execute(
            "SELECT name FROM _perdure_streams WHERE name > ? AND name >= ? AND substr(name, 1, ?) = ?"
            " AND NOT hidden ORDER BY name LIMIT ?",
            (name, prefix, len(prefix), prefix, limit),
        )
        return [row[0] for row in rows]

    def count(self) -> int:
        """How many streams there are, the hidden ones too."""
        return int(self._database.execute("SELECT count(*) FROM _perdure_streams")[0][0])

    def closed_before(self, created_ms: int, limit: int) -> list[str]:
        """Names of ended streams that were made before a time, oldest first."""
        rows = self._database.execute(
            "SELECT name FROM _perdure_streams WHERE closed AND created_ms < ? AND NOT hidden ORDER BY id LIMIT ?",
            (created_ms, limit),
        )
        return [row[0] for row in rows]

    # --- writes

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

    def set_note(self, stream: StoredStream, key: str, value: bytes) -> None:
        """Keep a value with the stream. Costs no SQL, like an append.

        Raises:
            StreamNotFound: it was deleted, or the transaction that made it was rolled back.
        """
        if stream.gone:
            raise StreamNotFound(f"stream {stream.name!r} is gone")
        self._pending.append(Note(stream.number, key, value))
        if key not in stream.notes:
            self._with_tail[stream.number] = stream
            stream.tail_bytes += len(key) + len(value) + NOTE_OVERHEAD_BYTES
            if stream.tail_bytes > TAIL_BYTES_MAX:
                self.has_large_tail = True
        stream.notes[key] = value

    def note(self, stream: StoredStream, key: str) -> bytes | None:
        """What was kept under the key; None when nothing was."""
        value = stream.notes.get(key)
        if value is None:
            rows = self._database.execute(
                "SELECT value FROM _perdure_notes WHERE stream = ? AND key = ?", (stream.number, key)
            )
            value = rows[0][0] if rows else None
        return value

    def set_options(self, stream: StoredStream, options: bytes | None) -> None:
        """Replace the stream's options."""
        self._begin()
        self._update(stream, "options", options)
        stream.options = options

    def close(self, stream: StoredStream) -> None:
        """End the stream for good. Idempotent."""
        if stream.gone:
            raise StreamNotFound(f"stream {stream.name!r} is gone")
        if stream.closed:
            return
        self._begin()
        self._materialise(stream)
        self._update(stream, "closed", 1)
        stream.closed = True

    def trim(self, stream: StoredStream, position: int) -> int:
        """Forget entries before ``position`` in whole rows; return where the stream begins now.

        A stream that has forks, or is one, keeps everything.
        """
        if stream.forks or stream.base is not None:
            return stream.first
        rows = self._database.execute(
            "SELECT max(first + count), sum(length(data)) FROM _perdure_segments"
            " WHERE stream = ? AND first + count <= ?",
            (stream.number, position),
        )
        first, size = rows[0]
        if first is None:
            return stream.first
        self._begin()
        self._database.execute(
            "DELETE FROM _perdure_segments WHERE stream = ? AND first + count <= ?", (stream.number, first)
        )
        stream.first, stream.bytes = first, stream.bytes - size
        self._database.execute(
            "UPDATE _perdure_streams SET first = ?, bytes = ? WHERE id = ?",
            (first, stream.bytes - sum(map(len, stream.tail)), stream.number),
        )
        return stream.first

    def segments(self, stream: StoredStream) -> list[tuple[int, int, int]]:
        """The stream's own rows, oldest first: where each ends, its bytes, when it was written (Unix ms)."""
        return [
            (end, size, written_ms)
            for end, size, written_ms in self._database.execute(
                "SELECT first + count, length(data), written_ms FROM _perdure_segments"
                " WHERE stream = ? ORDER BY first",
                (stream.number,),
            )
        ]

    def delete(self, stream: StoredStream) -> None:
        """Remove the stream, or hide it while it has forks; hidden bases that have lost their last fork go, too."""
        self._begin()
        if stream.forks:
            self._update(stream, "hidden", 1)
            stream.hidden = True
            return
        gone: StoredStream | None = stream
        while gone is not None:
            self._remove(gone)
            base = gone.base
            if base is None:
                return
            base.forks -= 1
            self._update(base, "forks", base.forks)
            gone = base if base.hidden and not base.forks else None

    def delete_everything(self) -> None:
        """Remove all streams."""
        names = [row[0] for row in self._database.execute("SELECT name FROM _perdure_streams ORDER BY id DESC")]
        for name in names:  # forks come before their bases
            stream = self.get(name)
            if stream is not None:
                self.delete(stream)

    def _remove(self, stream: StoredStream) -> None:
        for table in ("_perdure_segments", "_perdure_notes"):
            self._database.execute(f"DELETE FROM {table} WHERE stream = ?", (stream.number,))
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
        self._pending = [item for item in self._pending if item.stream != stream.number]

    def _update(self, stream: StoredStream, column: str, value: int | bytes | None) -> None:
        self._database.execute(f"UPDATE _perdure_streams SET {column} = ? WHERE id = ?", (value, stream.number))

    # --- reads

    def read(self, stream: StoredStream, position: int, bytes_max: int) -> list[bytes]:
        """Entries from ``position`` on, until they are ``bytes_max`` or more bytes; at least one if there is one."""
        if stream.base is None:
            return self._read_own(stream, position, bytes_max)
        entries: list[bytes] = []
        while position < stream.position:
            owner, end = stream.owner_of(position)
            part = self._read_own(owner, position, bytes_max)[: end - position]
            entries += part
            position += len(part)
            bytes_max -= sum(map(len, part))
            if bytes_max <= 0 or not part:
                break
        return entries

    def _read_own(self, stream: StoredStream, position: int, bytes_max: int) -> list[bytes]:
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

    def measure(self, stream: StoredStream, position: int, end: int, bytes_max: int) -> tuple[int, int]:
        """Where entries from ``position`` on reach ``bytes_max`` bytes, or ``end``, and their bytes.

        At least one entry, if there is one. None of them is read.
        """
        size = 0
        while position < end and size < bytes_max:
            owner, owner_end = stream.owner_of(position)
            at = position
            for length in self._lengths(owner, position, min(owner_end, end)):
                size += length
                position += 1
                if size >= bytes_max:
                    return position, size
            if position == at:
                break
        return position, size

    def _lengths(self, stream: StoredStream, position: int, end: int) -> Iterable[int]:
        """The lengths of a stream's own entries from ``position`` to ``end``."""
        if position < min(end, stream.materialised):
            cursor = self._database.connection.execute(
                "SELECT first, sizes FROM _perdure_segments WHERE stream = ?1 AND first >= coalesce("
                "(SELECT max(first) FROM _perdure_segments WHERE stream = ?1 AND first <= ?2), 0)"
                " AND first < ?3 ORDER BY first",
                (stream.number, position, end),
            )
            try:
                for first, sizes in cursor:
                    lengths = struct.unpack(f"<{len(sizes) // 4}I", sizes)[position - first : end - first]
                    yield from lengths
                    position += len(lengths)
            finally:
                cursor.close()
        start = position - stream.materialised
        yield from map(len, stream.tail[start : start + end - position])

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

    def take_pending(self) -> list[Append | Note]:
        """What was appended and noted since the last commit."""
        pending, self._pending = self._pending, []
        return pending

    @property
    def has_tail(self) -> bool:
        """Whether something is only in memory and in the journal."""
        return bool(self._with_tail)

    def materialise_large(self) -> None:
        """Move the tails that are over their limit into rows (before a commit)."""
        self.has_large_tail = False
        for item in self._pending:
            stream = self._with_tail.get(item.stream)
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
        if stream.notes:
            for key, value in stream.notes.items():
                self._database.execute(
                    "INSERT INTO _perdure_notes VALUES(?,?,?) ON CONFLICT DO UPDATE SET value = excluded.value",
                    (stream.number, key, value),
                )
            stream.notes = {}
        if stream.tail:
            first, now_ms = stream.materialised, self._clock_ms()
            for batch in _batches(stream.tail):
                sizes = struct.pack(f"<{len(batch)}I", *map(len, batch))
                self._database.execute(
                    "INSERT INTO _perdure_segments VALUES(?,?,?,?,?,?)",
                    (stream.number, first, len(batch), sizes, b"".join(batch), now_ms),
                )
                first += len(batch)
            self._database.execute(
                "UPDATE _perdure_streams SET position = ?, bytes = ? WHERE id = ?",
                (stream.position, stream.bytes, stream.number),
            )
            stream.materialised = stream.position
            stream.tail = []
        stream.tail_bytes = 0
        self._with_tail.pop(stream.number, None)

    def restore(self, item: Append | Note) -> None:
        """Put back what the journal has and the rows lack (recovery)."""
        stream = self._by_number(item.stream)
        if stream is None:
            return  # the stream was deleted by a later commit
        if isinstance(item, Note):
            self.set_note(stream, item.key, item.value)
            self._pending.clear()
            return
        skip = stream.position - item.position
        if skip < 0:
            raise ValueError(
                f"stream {stream.name!r} ends at {stream.position}, the journal goes on at {item.position}"
            )
        if skip < len(item.entries):
            self.append(stream, item.entries[skip:])
            self._pending.clear()

    # --- savepoints

    def mark(self) -> Mark:
        """Everything that `rewind` needs to come back to this moment."""
        streams = [(stream, stream.saved()) for stream in self._open.values()]
        return Mark(self._pending[:], streams, dict(self._with_tail))

    def rewind(self, mark: Mark) -> None:
        """Undo what was done to the streams since `mark`; the SQL was undone by its savepoint."""
        known = {stream.number for stream, _ in mark.streams}
        for stream in list(self._open.values()):
            if stream.number not in known:
                self._reset(stream)
                if stream.gone:
                    del self._open[stream.name]
        for stream, saved in mark.streams:
            stream.restore_saved(saved)
            self._open[stream.name] = stream
        self._pending = mark.pending
        self._with_tail = mark.with_tail

    def _reset(self, stream: StoredStream) -> None:
        """Undo what was done to a stream that was first opened, or made, since the savepoint.

        Whoever holds it may go on using it: it had no tail then, so its row says all.
        """
        rows = self._database.execute(
            "SELECT position, bytes, closed, first, options, forks, hidden FROM _perdure_streams WHERE id = ?",
            (stream.number,),
        )
        stream.tail, stream.tail_bytes, stream.notes = [], 0, {}
        if rows:
            stream.position, stream.bytes, closed, stream.first, stream.options, stream.forks, hidden = rows[0]
            stream.materialised, stream.closed, stream.hidden = stream.position, bool(closed), bool(hidden)
        else:
            stream.gone = True


class Mark(NamedTuple):
    """The streams' state when a savepoint began."""

    pending: list[Append | Note]
    streams: list[tuple[StoredStream, tuple[Any, ...]]]
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
