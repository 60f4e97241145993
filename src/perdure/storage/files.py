"""The few file operations that the engine makes outside SQLite.

They stand behind one small class so that the crash simulator can record them, together
with SQLite's own writes, and replay any prefix of them as a disk that lost power would.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import StorageError, StorageFull

EXTEND_BYTES = 1024 * 1024


class Files:
    """File operations on the real file system.

    ``vfs`` is the name of the SQLite VFS that databases of the same disk are opened with
    (``""`` is SQLite's default).
    """

    vfs: str = ""

    sync_threads: int = 4
    """Object files synced at once in a recovery: a disk takes a few syncs together in the time of one."""

    def write_new(self, path: Path, data: bytes) -> None:
        """Make or replace the file with ``data``. Not durable before `sync`."""
        path.write_bytes(data)

    def replace(self, path: Path, data: bytes) -> None:
        """Make or replace the file, durably and in one step: a crash leaves the old bytes or the new ones."""
        temporary = path.with_name(f"{path.name}.new")
        self.write_new(temporary, data)
        self.sync(temporary)
        temporary.replace(path)
        self.sync_folder(path.parent)

    def write_at(self, path: Path, pieces: Iterable[tuple[int, bytes]], size: int) -> None:
        """Write ``(offset, data)`` pieces into the file and make it exactly ``size`` bytes long."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            for offset, data in pieces:
                os.pwrite(descriptor, data, offset)
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)

    def extend(self, path: Path, size: int) -> None:
        """Make the file at least ``size`` bytes long with zeros that are really written, and sync it.

        Overwriting such bytes later needs no new blocks: a sync takes half the time.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            at = os.fstat(descriptor).st_size
            while at < size:
                at += os.pwrite(descriptor, bytes(min(EXTEND_BYTES, size - at)), at)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync(self, path: Path) -> None:
        """Wait until the file's bytes are on the disk. Blocks: call it from a thread."""
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_folder(self, path: Path) -> None:
        """Wait until the folder's entries (names of new files) are on the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove the file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()

    def make_folder(self, path: Path) -> None:
        """Make the folder and its parents if they are not there."""
        path.mkdir(parents=True, exist_ok=True)

    def read(self, path: Path) -> bytes:
        """The file's bytes. Raises FileNotFoundError."""
        return path.read_bytes()


def disk_error(error: OSError, where: str) -> StorageError:
    """The error of ours that says what a failed file operation means for the caller."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"{where}: no room left on the disk")
    return StorageError(f"{where}: the disk failed ({error})")
