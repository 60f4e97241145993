"""The journal: one append-only log that makes the commits of all objects durable.

`Journal` is the port; `perdure.testing.journal_contract` is the suite that every
implementation passes. `SqliteJournal` is the local one: a single SQLite file in WAL mode
with full sync. One writer thread takes everything that waits, inserts it, commits once and
says so. There is no timer: while one sync is in flight the next batch gathers.

The file (``journal.sqlite``)::

    journal   sequence INTEGER PRIMARY KEY   rows in order of arrival, no other index
              shard, epoch                   who owned the object when it committed
              object                         "Class/name"
              time_ms                        when, Unix time
              record                         see record.py
    objects   (class, name) created_ms, active_ms          \\  the node index, written in the
    alarms    object, at_ms                                /   same transaction as its cause
    meta      format, owner epoch

A row is dead once a checkpoint has put its writes into the object's own file; dead rows are
deleted from the front in batches, so what is left is always a whole suffix of the log.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import apsw

from ..errors import CorruptionError, FencedError, StorageError, StorageFull, SyncFailed

JOURNAL_BATCH_BYTES_MAX = 16 * 1024 * 1024
"""Most bytes in one commit of the journal: bounds the memory and the time of one sync."""

JOURNAL_WAL_FRAMES_MAX = 600
"""Frames (of 4 KiB) after which the journal's own write-ahead log is folded into its file."""

JOURNAL_WAL_BYTES = 2 * JOURNAL_WAL_FRAMES_MAX * 4_120
"""Size that the log's file is made with: it is overwritten in a circle and need not grow while in use."""

TRIM_ROWS_MAX = 2_000
"""Dead rows deleted in one commit: deleting never delays a batch by more than a few ms."""


class IndexChange(NamedTuple):
    """What a commit changes in the node index. ``alarm_ms`` None deletes the alarm, -1 leaves it."""

    created: bool = False
    alarm_ms: int | None = -1
    active: bool = False
    forget: bool = False


class JournalEntry(NamedTuple):
    """One row of the log."""

    sequence: int
    shard: int
    epoch: int
    object_key: str
    time_ms: int
    record: bytes
    change: IndexChange | None = None
    incarnation: int = 0


class JournalListener(Protocol):
    """Who is told what became of appended entries. Called through ``notify``, in order."""

    def on_durable(self, sequence: int) -> None:
        """Every entry up to ``sequence`` that did not fail is durable."""

    def on_failed(self, entries: Sequence[JournalEntry], error: StorageError) -> None:
        """These entries are not durable and never will be."""


class Journal(Protocol):
    """The port that a log must offer to carry perdure's commits."""

    epoch: int
    durable_sequence: int

    def append(
        self,
        object_key: str,
        shard: int,
        epoch: int,
        record: bytes,
        change: IndexChange | None = None,
        incarnation: int = 0,
    ) -> int:
        """Add one commit; return its sequence number. It is not durable yet.

        Once an entry has failed, later entries with the same ``incarnation`` fail too: they
        were built on what was lost.

        Raises:
            FencedError: ``epoch`` is older than the owner's.
            StorageFull: more than ``pending_bytes_max`` wait for the disk.
        """

    def replay(self, after: int = 0, object_key: str | None = None) -> Iterator[JournalEntry]:
        """The durable entries in order."""

    def trim(self, sequence: int) -> None:
        """Entries up to ``sequence`` are dead and may be deleted."""

    def close(self) -> None:
        """Finish what was appended, then let go of the log."""


class SqliteJournal:
    """The local journal. Methods are for one thread; the writer thread is its own.

    ``notify(callback)`` must run the callback on the caller's thread
    (``loop.call_soon_threadsafe``). Before `start` nothing is written but by `pump`: recovery
    and the crash simulator decide when.
    """

    def __init__(
        self,
        path: Path,
        listener: JournalListener,
        *,
        notify: Callable[[Callable[[], None]], object],
        vfs: str = "",
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        pending_bytes_max: int = 64 * 1024 * 1024,
    ) -> None:
        self.path = path
        self.pending_bytes_max = pending_bytes_max
        self._listener = listener
        self._notify = notify
        self._clock_ms = clock_ms
        self._vfs = vfs
        self._writer = _Writer(path, vfs)
        try:
            self.epoch = self._writer.take_ownership()
            self.durable_sequence = self._writer.last_sequence
            self._live: deque[tuple[int, int]] = deque(self._writer.measure())
        except apsw.Error as error:
            raise translate(error, str(path)) from error
        self._next_sequence = self.durable_sequence + 1
        self.live_bytes = sum(size for _, size in self._live)
        self.pending_bytes = 0
        self.commits = 0
        self.sync_seconds: deque[float] = deque(maxlen=512)
        self._failed_incarnations: set[int] = set()
        self._trim_to = 0
        self._queue: queue.SimpleQueue[list[JournalEntry] | None] = queue.SimpleQueue()
        self._together: list[JournalEntry] | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    # --- the caller's thread

    def start(self) -> None:
        """Start the writer thread."""
        self._thread = threading.Thread(target=self._run, name="perdure-journal", daemon=True)
        self._thread.start()
        self._writer.threaded = True

    def append(
        self,
        object_key: str,
        shard: int,
        epoch: int,
        record: bytes,
        change: IndexChange | None = None,
        incarnation: int = 0,
    ) -> int:
        if epoch < self.epoch:
            raise FencedError(self.epoch, epoch)
        if self.pending_bytes > self.pending_bytes_max:
            raise StorageFull(f"{self.pending_bytes:,} bytes wait for the disk (journal_pending_bytes_max)")
        if self._closed:
            raise StorageError("the journal is closed")
        sequence = self._next_sequence
        self._next_sequence = sequence + 1
        self.pending_bytes += len(record)
        entry = JournalEntry(sequence, shard, epoch, object_key, self._clock_ms(), record, change, incarnation)
        if self._together is None:
            self._queue.put([entry])
        else:
            self._together.append(entry)
        return sequence

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is appended inside goes to the writer at once, with one wake-up. Does not nest."""
        entries: list[JournalEntry] = []
        self._together = entries
        try:
            yield
        finally:
            self._together = None
            if entries:
                self._queue.put(entries)

    def trim(self, sequence: int) -> None:
        self._trim_to = max(self._trim_to, min(sequence, self.durable_sequence))
        while self._live and self._live[0][0] <= self._trim_to:
            self.live_bytes -= self._live.popleft()[1]
        if self._queue.empty():
            self._queue.put([])  # wakes the writer

    def replay(self, after: int = 0, object_key: str | None = None) -> Iterator[JournalEntry]:
        connection = _open(self.path, self._vfs)
        try:
            query = "SELECT sequence, shard, epoch, object, time_ms, record FROM journal WHERE sequence > ?"
            bindings: tuple[int | str, ...] = (after,)
            if object_key is not None:
                query, bindings = query + " AND object = ?", (after, object_key)
            for row in connection.execute(query + " ORDER BY sequence", bindings):
                yield JournalEntry(*row)
        except (apsw.CorruptError, UnicodeDecodeError) as error:
            raise CorruptionError(str(error), str(self.path)) from error
        finally:
            connection.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        else:
            self.pump()
        self._writer.close()

    def abandon(self) -> None:
        """Let go of the log without writing what waits: a start has failed."""
        self._closed = True
        self._writer.close()

    def pump(self) -> None:
        """Write everything that waits, on this thread (only before `start`)."""
        while not self._queue.empty():
            batch, _ = self._take_batch(self._queue.get())
            self._write(batch)

    # --- the writer's thread

    def _run(self) -> None:
        stop = False
        while not stop:
            batch, stop = self._take_batch(self._queue.get())
            self._write(batch)

    def _take_batch(self, first: list[JournalEntry] | None) -> tuple[list[JournalEntry], bool]:
        batch: list[JournalEntry] = []
        size = 0
        entries = first
        while True:
            if entries is None:
                return batch, True
            batch += entries
            size += sum(len(entry.record) for entry in entries)
            if size >= JOURNAL_BATCH_BYTES_MAX:
                return batch, False
            try:
                entries = self._queue.get_nowait()
            except queue.Empty:
                return batch, False

    def _write(self, batch: list[JournalEntry]) -> None:
        orphans = [entry for entry in batch if entry.incarnation in self._failed_incarnations]
        if orphans:
            batch = [entry for entry in batch if entry.incarnation not in self._failed_incarnations]
            self._fail(orphans, StorageError("an earlier commit of the object failed"))
        started = time.perf_counter()
        try:
            self._writer.write(batch, self._trim_to)
        except StorageError as error:
            self._failed_incarnations.update(entry.incarnation for entry in batch if entry.incarnation)
            self._fail(batch, error)
            return
        elapsed = time.perf_counter() - started
        if batch:
            self._deliver(lambda: self._on_written(batch, elapsed))

    def _on_written(self, batch: list[JournalEntry], elapsed: float) -> None:
        size = sum(len(entry.record) for entry in batch)
        last = batch[-1].sequence
        self.pending_bytes -= size
        self.live_bytes += size
        self._live.append((last, size))
        self.commits += len(batch)
        self.sync_seconds.append(elapsed)
        self.durable_sequence = last
        self._listener.on_durable(last)

    def _fail(self, entries: list[JournalEntry], error: StorageError) -> None:
        def tell() -> None:
            self.pending_bytes -= sum(len(entry.record) for entry in entries)
            self._listener.on_failed(entries, error)

        self._deliver(tell)

    def _deliver(self, callback: Callable[[], None]) -> None:
        if self._thread is None:
            callback()
        else:
            self._notify(callback)


_INSERTS = tuple(
    (count, "INSERT INTO journal VALUES" + ",".join(["(?,?,?,?,?,?)"] * count)) for count in (128, 32, 8, 2, 1)
)
"""Statements that insert so many entries, largest first."""


class _Folder:
    """Folds the journal's write-ahead log into its file on a thread and a connection of its own."""

    def __init__(self, path: Path, vfs: str) -> None:
        self._path = path
        self._vfs = vfs
        self._thread: threading.Thread | None = None

    def ready(self) -> bool:
        """Start folding if nothing runs; True once a fold that was started has finished."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="perdure-journal-fold", daemon=True)
            self._thread.start()
            return False
        if self._thread.is_alive():
            return False
        self._thread = None
        return True

    def _run(self) -> None:
        try:
            connection = _open(self._path, self._vfs)
        except StorageError:
            return
        try:
            self.fold(connection)
        finally:
            connection.close()

    def fold(self, connection: apsw.Connection) -> None:
        """Fold what can be folded without waiting for anyone."""
        with contextlib.suppress(apsw.Error):
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def close(self) -> None:
        """Wait for a fold that runs."""
        if self._thread is not None:
            self._thread.join()


class _Writer:
    """The connection that writes. Only one thread uses it at a time."""

    threaded = False

    def __init__(self, path: Path, vfs: str) -> None:
        self.path = path
        self._connection = _open(path, vfs)
        self._frames = 0
        self._trimmed = 0
        self._folder = _Folder(path, vfs)
        try:
            _create(self._connection)
        except apsw.Error as error:
            raise translate(error, str(path)) from error
        self._connection.set_wal_hook(self._on_commit)

    def _on_commit(self, _connection: apsw.Connection, _name: str, frames: int) -> int:
        self._frames = frames
        return apsw.SQLITE_OK

    @property
    def last_sequence(self) -> int:
        row = self._connection.execute("SELECT coalesce(max(sequence), 0) FROM journal").get
        held = self._connection.execute("SELECT value FROM meta WHERE key = 'sequence'").get
        return max(int(row), int(held or 0))

    def take_ownership(self) -> int:
        """Raise the owner epoch: whoever held the log before can append no more."""
        with self._connection:
            self._connection.execute(
                "INSERT INTO meta VALUES('epoch', 1) ON CONFLICT(key) DO UPDATE SET value = value + 1"
            )
        return int(self._connection.execute("SELECT value FROM meta WHERE key = 'epoch'").get)

    def measure(self) -> Iterator[tuple[int, int]]:
        yield from self._connection.execute("SELECT sequence, length(record) FROM journal ORDER BY sequence")

    def write(self, batch: list[JournalEntry], trim_to: int) -> None:
        """Write the batch and delete some dead rows in one synced transaction.

        Raises:
            StorageError: nothing of the batch was written.
        """
        if not batch and trim_to <= self._trimmed:
            return
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._insert(batch)
            for entry in batch:
                if entry.change is not None:
                    self._write_index(entry, entry.change)
            trimmed = self._delete_dead(trim_to) if trim_to > self._trimmed else self._trimmed
            connection.execute("COMMIT")
            self._trimmed = trimmed
        except apsw.Error as error:
            self._undo()
            raise translate(error, "journal") from error
        if self._frames >= JOURNAL_WAL_FRAMES_MAX:
            self._fold()

    def _insert(self, batch: list[JournalEntry]) -> None:
        # Many rows a statement: around each step the interpreter's lock is given away, and under load it takes
        # milliseconds to get it back.
        at = 0
        for count, statement in _INSERTS:
            while len(batch) - at >= count:
                rows = batch[at : at + count]
                self._connection.execute(statement, [value for entry in rows for value in entry[:6]])
                at += count

    def _undo(self) -> None:
        """Forget a failed batch, also for a process that starts after a crash.

        When only the sync failed, the log holds the batch whole, and SQLite would find it there.
        Any commit that changes something writes over it from its first frame on.
        """
        connection = self._connection
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        with contextlib.suppress(apsw.Error):
            connection.execute(
                "INSERT INTO meta VALUES('failures', 1) ON CONFLICT(key) DO UPDATE SET value = value + 1"
            )

    def _fold(self) -> None:
        """Bring the log's frames into the file, nearly all of them beside the writer.

        The batch is durable already: folding is housekeeping, and its failure is no failure of the
        batch. SQLite keeps the frames, and the next fold tries again.
        """
        if not self.threaded:
            self._folder.fold(self._connection)
        elif self._folder.ready():
            # What was written while the thread folded is little; with it folded, too, the log starts over.
            self._folder.fold(self._connection)

    def _delete_dead(self, trim_to: int) -> int:
        connection = self._connection
        oldest = connection.execute("SELECT min(sequence) FROM journal").get
        if oldest is None or oldest > trim_to:
            return trim_to
        until = min(trim_to, oldest + TRIM_ROWS_MAX - 1)
        connection.execute("DELETE FROM journal WHERE sequence <= ?", (until,))
        # An emptied log must not hand out a sequence number again.
        connection.execute(
            "INSERT INTO meta VALUES('sequence', ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
            (until,),
        )
        return int(until)

    def _write_index(self, entry: JournalEntry, change: IndexChange) -> None:
        connection = self._connection
        class_name, _, name = entry.object_key.partition("/")
        if change.forget:
            connection.execute("DELETE FROM objects WHERE class = ? AND name = ?", (class_name, name))
        elif change.created:
            connection.execute(
                "INSERT INTO objects VALUES(?,?,?,?) ON CONFLICT DO UPDATE SET active_ms = excluded.active_ms",
                (class_name, name, entry.time_ms, entry.time_ms),
            )
        elif change.active:
            connection.execute(
                "UPDATE objects SET active_ms = ? WHERE class = ? AND name = ?",
                (entry.time_ms, class_name, name),
            )
        if change.alarm_ms is None:
            connection.execute("DELETE FROM alarms WHERE object = ?", (entry.object_key,))
        elif change.alarm_ms >= 0:
            connection.execute("INSERT OR REPLACE INTO alarms VALUES(?,?)", (entry.object_key, change.alarm_ms))

    def close(self) -> None:
        self._folder.close()
        try:
            self._connection.close()
        except apsw.Error:  # the disk may be gone; what was acknowledged is in the log
            self._connection.close(True)


def _open(path: Path, vfs: str) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    try:
        connection = apsw.Connection(str(path), flags=flags, vfs=vfs or None)
        connection.set_busy_timeout(5_000)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=0", "cache_size=-8192"):
            for _ in connection.execute(f"PRAGMA {pragma}"):
                pass
    except apsw.Error as error:
        raise translate(error, str(path)) from error
    return connection


def _create(connection: apsw.Connection) -> None:
    with connection:
        connection.execute(
            """
            CREATE TABLE IF NOT EXISTS journal(
              sequence INTEGER PRIMARY KEY, shard INTEGER NOT NULL, epoch INTEGER NOT NULL,
              object TEXT NOT NULL, time_ms INTEGER NOT NULL, record BLOB NOT NULL);
            CREATE TABLE IF NOT EXISTS objects(
              class TEXT NOT NULL, name TEXT NOT NULL, created_ms INTEGER NOT NULL,
              active_ms INTEGER NOT NULL, PRIMARY KEY(class, name)) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS alarms(
              object TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
            """
        )


def translate(error: apsw.Error, where: str) -> StorageError:
    """The error of ours that says what an SQLite error means for the caller."""
    if isinstance(error, apsw.FullError):
        return StorageFull(f"{where}: no room left on the disk")
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return CorruptionError(str(error), where)
    if isinstance(error, apsw.IOError):
        if getattr(error, "extendedresult", 0) in (apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC):
            return SyncFailed(f"{where}: the disk refused a sync ({error})")
        return StorageError(f"{where}: the disk failed ({error})")
    return StorageError(f"{where}: {error}")


__all__ = [
    "IndexChange",
    "Journal",
    "JournalEntry",
    "JournalListener",
    "SqliteJournal",
    "translate",
]
