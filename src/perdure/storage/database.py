"""One object's SQLite file, and the capture of what its commits write.

The file is in WAL mode with ``synchronous=OFF``: a commit costs microseconds and promises
nothing. What makes it durable is the journal. After each commit the new frames of the
``-wal`` file are read back as they are and become part of the commit's journal record::

    -wal file   32-byte header (magic, version, page size, checkpoint number, salts, checksum)
                frame 1: 24-byte header, page      commit A wrote frames 1..3
                frame 2 ...                        commit B wrote frames 4..5

SQLite starts over at frame 1 (with new salts) at the first write after everything was
checkpointed; then the capture starts over, too.

Two rules keep the file recoverable from the journal whatever a power cut leaves of it:

1. Log before data: pages move from the ``-wal`` into the file (`checkpoint`) only when the commits
   that wrote them are durable in the journal. SQLite moves no frame past the oldest reader's snapshot,
   so a reader of our own (`mark`) keeps later commits out while the marked ones become durable. Nor
   does it move a page that a later commit wrote again: that commit must be durable before the journal
   forgets the marked ones.
2. The ``-wal`` is never trusted after a crash: opening a file begins with removing it. The
   journal has every page since the file's last synced checkpoint.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from ..errors import CorruptionError, FormatError, StorageError
from .files import Files, disk_error
from .journal import translate
from .record import FRAME_HEADER_BYTES, pages_section
from .template import APPLICATION_ID, PAGE_BYTES

WAL_HEADER_BYTES = 32
CACHE_KIBIBYTES = 512
"""SQLite's page cache for one awake object."""

OBJECT_BYTES_MAX = 10 * 1024**3
"""Most bytes in one object's file; a write past it fails with `StorageFull`."""


class Database:
    """An open object file. All methods are synchronous and take microseconds."""

    def __init__(self, path: Path, files: Files, *, bytes_max: int = OBJECT_BYTES_MAX) -> None:
        self.path = path
        self._files = files
        self._wal_path = Path(f"{path}-wal")
        remove_log(path, files)
        self._frames = 0
        self._frames_moved = 0
        self._frames_marked: int | None = None
        self._marking_reader: apsw.Connection | None = None
        self._salts = b""
        self._log_may_restart = True
        self._captured: list[bytes] = []
        self._wal_descriptor = -1
        self.in_transaction = False
        try:
            self.connection = self._open(bytes_max)
        except apsw.Error as error:
            raise translate(error, str(path)) from error

    def _open(self, bytes_max: int) -> apsw.Connection:
        connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=self._files.vfs or None)
        connection.wal_autocheckpoint(0)
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1)
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.pragma("synchronous", "OFF")
        connection.pragma("cache_size", -CACHE_KIBIBYTES)
        connection.pragma("temp_store", "MEMORY")
        connection.pragma("max_page_count", bytes_max // PAGE_BYTES)
        if connection.pragma("application_id") != APPLICATION_ID:
            connection.close()
            raise CorruptionError("the file is not an object of perdure", str(self.path))
        connection.set_wal_hook(self._on_commit)
        return connection

    # --- transactions

    def begin(self) -> None:
        """Open the transaction that all writes until `commit` belong to (if it is not open)."""
        if not self.in_transaction:
            if self._frames_marked is not None and self._marking_reader is None:
                try:
                    self._hold_mark()
                except apsw.Error as error:
                    raise translate(error, str(self.path)) from error
            self.execute("BEGIN IMMEDIATE")
            self.in_transaction = True

    def commit(self) -> bytes:
        """End the transaction; return the journal section with the pages that it wrote (or ``b""``)."""
        if not self.in_transaction:
            return b""
        self.execute("COMMIT")
        self.in_transaction = False
        if not self._captured:
            return b""
        frames = b"".join(self._captured)
        self._captured.clear()
        return pages_section(PAGE_BYTES, frames)

    def execute(self, statement: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run one of the engine's own statements and return all rows.

        Raises:
            StorageError: the statement failed; the caller must discard the instance.
        """
        try:
            return self.connection.execute(statement, bindings).fetchall()
        except apsw.Error as error:
            raise translate(error, str(self.path)) from error

    def map_file(self, bytes_max: int) -> None:
        """Read up to so many bytes of the file through memory: a system call for each page costs more than the page.

        What is mapped is the page cache's and can be taken back at any time. A disk that cannot read ends
        the process (SIGBUS) where it would have been an error of this object.
        """
        self.connection.pragma("mmap_size", bytes_max)

    # --- capture

    def _on_commit(self, _connection: apsw.Connection, _name: str, frames: int) -> int:
        try:
            self._capture(frames)
        except OSError as error:
            raise disk_error(error, str(self._wal_path)) from error
        return apsw.SQLITE_OK

    def _capture(self, frames: int) -> None:
        if self._wal_descriptor < 0:
            self._wal_descriptor = os.open(self._wal_path, os.O_RDONLY)
        if self._log_may_restart:
            salts = os.pread(self._wal_descriptor, 8, 16)
            if salts != self._salts:
                self._salts, self._frames, self._frames_moved = salts, 0, 0
                self._log_may_restart = False
        step = FRAME_HEADER_BYTES + PAGE_BYTES
        size = (frames - self._frames) * step
        data = os.pread(self._wal_descriptor, size, WAL_HEADER_BYTES + self._frames * step)
        if len(data) != size:
            raise StorageError(f"{self._wal_path}: {len(data)} of {size} bytes could be read back")
        self._captured.append(data)
        self._frames = frames

    @property
    def log_frames(self) -> int:
        """Frames in the ``-wal`` file that are not in the file yet."""
        return self._frames - self._frames_moved

    # --- moving pages into the file

    def mark(self) -> None:
        """Let the next `checkpoint` move the pages of the commits until now, and no later ones."""
        assert not self.in_transaction
        self.unmark()
        self._frames_marked = self._frames

    def unmark(self) -> None:
        """Forget the mark."""
        self._frames_marked = None
        if self._marking_reader is not None:
            self._marking_reader.close(True)
            self._marking_reader = None

    def _hold_mark(self) -> None:
        # Only now that something is to be written after the mark: most checkpoints are of objects at rest.
        assert self._marking_reader is None
        reader = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=self._files.vfs or None)
        self._marking_reader = reader
        reader.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        reader.execute("BEGIN; SELECT 1 FROM sqlite_schema").fetchall()

    def checkpoint(self) -> bool:
        """Copy the pages up to the mark (without one: all) from the ``-wal`` into the file; forget the mark.

        Nothing is synced. A page that was written again after the mark is left for the next time. False: a
        reader from outside is in the way. Only when the marked commits are durable in the journal (rule 1
        above).
        """
        assert not self.in_transaction
        marked = self._frames if self._frames_marked is None else self._frames_marked
        try:
            if marked <= self._frames_moved:
                return True
            _, self._frames_moved = self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            return False
        except apsw.Error as error:
            raise translate(error, str(self.path)) from error
        finally:
            self.unmark()
        # SQLite starts the log over with the next write after all of it was moved.
        self._log_may_restart = True
        return self._frames_moved >= marked

    def close(self) -> None:
        """Close without moving any page: what was not checkpointed is forgotten (the journal has it)."""
        self.unmark()
        if self._wal_descriptor >= 0:
            os.close(self._wal_descriptor)
            self._wal_descriptor = -1
        self.connection.close(True)
        with contextlib.suppress(OSError):  # opening removes it, too
            remove_log(self.path, self._files)

    # --- schema of the object's class

    def migrate(self, migrations: tuple[str, ...]) -> bool:
        """Run the class's migrations that this file has not had; True when there were any.

        Raises:
            FormatError: the file was written by a newer version of the class.
        """
        rows = self.execute("SELECT value FROM _perdure_meta WHERE key = 'schema'")
        have = int(rows[0][0]) if rows else 0
        if have > len(migrations):
            raise FormatError(
                f"{self.path.name} was written by a newer version of its class "
                f"(schema {have}, this code knows {len(migrations)})"
            )
        if have == len(migrations):
            return False
        self.begin()
        for statement in migrations[have:]:
            self.execute(statement)
        self.execute("UPDATE _perdure_meta SET value = ? WHERE key = 'schema'", (len(migrations),))
        return True

    def watch(self, authorizer: Callable[..., int] | None) -> None:
        """Let ``authorizer`` (SQLite's) judge the statements that are prepared from now on."""
        self.connection.authorizer = authorizer


def remove_log(path: Path, files: Files) -> None:
    """Remove what a crash left of the file's write-ahead log (rule 2 above)."""
    for suffix in ("-wal", "-shm"):
        files.remove(Path(f"{path}{suffix}"))
