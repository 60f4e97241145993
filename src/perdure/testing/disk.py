"""A disk that remembers: every file operation of a store in order, and what a crash leaves of it.

`RecordingFiles` carries out the operations of the engine and (through an SQLite VFS) of
SQLite on a real folder and logs them. `Disk` replays a prefix of such a log in memory and
says which files a crash at that point leaves behind:

- *kill*: the process is gone, the machine lives on. Every operation up to the cut happened.
- *power loss*: a file is sure to hold what was written before its last sync. Each later
  write is kept, lost, or torn at 512-byte sectors, whatever became of the others. A file
  made, renamed or removed since its folder's last sync may or may not have been.

SQLite's shared-memory index (``-shm``) is no file of interest: it is rebuilt from the log.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

import apsw

from ..storage.files import Files

SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""

Kind = Literal["create", "write", "truncate", "sync", "remove", "rename", "folder", "sync_folder", "mark"]


class Operation(NamedTuple):
    """One logged operation. ``number`` is a write's offset, a truncation's size, a mark's value."""

    kind: Kind
    path: str
    number: int = 0
    data: bytes = b""


class RecordingFiles(Files):
    """File operations below ``root``, carried out and logged in ``log``.

    ``fault(kind, path)`` is asked before each; an ``OSError`` that it raises is what the
    caller gets (SQLite as its own kind of error). Syncs are logged, not carried out: nothing
    here survives a power cut, which is simulated. Close it when its databases are closed.
    """

    _serial = itertools.count(1)
    sync_threads = 1

    def __init__(self, root: Path, *, fault: Callable[[Kind, str], None] | None = None) -> None:
        self.root = root.resolve()
        self._prefix = f"{self.root}/"
        self.log: list[Operation] = []
        self.fault = fault
        self.vfs = f"perdure-recording-{next(self._serial)}"
        self._mutex = threading.Lock()
        self._vfs = _RecordingVfs(self)

    def close(self) -> None:
        """Take the VFS away."""
        self._vfs.unregister()

    def note(self, kind: Kind, path: Path | str, number: int = 0, data: bytes = b"") -> None:
        """Log an operation that is about to happen (faults first)."""
        name = self.name_of(path)
        if self.fault is not None:
            self.fault(kind, name)
        with self._mutex:
            self.log.append(Operation(kind, name, number, data))

    def mark(self, number: int) -> None:
        """Log that something happened in the program; ``number`` says what."""
        self.log.append(Operation("mark", "", number))

    def name_of(self, path: Path | str) -> str:
        """The path below the root, ``""`` for the root itself."""
        name = str(path)
        assert name.startswith(self._prefix) or f"{name}/" == self._prefix, f"{name} is not below {self.root}"
        return name[len(self._prefix) :]

    # --- the engine's operations

    def write_new(self, path: Path, data: bytes) -> None:
        self._create(path)
        self.note("truncate", path, 0)
        os.truncate(path, 0)
        self.note("write", path, 0, data)
        path.write_bytes(data)

    def write_at(self, path: Path, pieces: Iterable[tuple[int, bytes]], size: int) -> None:
        self._create(path)
        with open(path, "r+b") as file:
            for offset, data in pieces:
                self.note("write", path, offset, data)
                file.seek(offset)
                file.write(data)
            self.note("truncate", path, size)
            file.truncate(size)

    def sync(self, path: Path) -> None:
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        self.note("sync", path)

    def sync_folder(self, path: Path) -> None:
        self.note("sync_folder", path)

    def replace(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f"{path.name}.new")
        self.write_new(temporary, data)
        self.sync(temporary)
        self.note("rename", temporary, 0, self.name_of(path).encode())
        temporary.replace(path)
        self.sync_folder(path.parent)

    def remove(self, path: Path) -> None:
        if path.exists():
            self.note("remove", path)
            path.unlink()

    def make_folder(self, path: Path) -> None:
        for folder in (*reversed(path.parents), path):
            if not folder.exists():
                self.note("folder", folder)
                folder.mkdir()

    def _create(self, path: Path) -> None:
        if not path.exists():
            self.note("create", path)
            path.touch()


class _RecordingVfs(apsw.VFS):
    """SQLite's files of one `RecordingFiles`."""

    def __init__(self, files: RecordingFiles) -> None:
        self.files = files
        super().__init__(files.vfs, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _RecordingFile(self.files, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if not filename.endswith("-shm"):
            _sqlite_error(self.files, "remove", filename)
            if syncdir:
                self.files.note("sync_folder", os.path.dirname(filename))
        super().xDelete(filename, syncdir)


class _RecordingFile(apsw.VFSFile):
    """One file that SQLite has open."""

    def __init__(self, files: RecordingFiles, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self.files = files
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else name
        is_new = self.path is not None and not os.path.exists(self.path)
        if is_new:
            assert self.path is not None
            _sqlite_error(files, "create", self.path)
        # SQLite's unix VFS syncs the folder with the first sync of a new log or journal.
        self._sync_folder = is_new and bool(flags[0] & (apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL))
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self.path is not None:
            _sqlite_error(self.files, "write", self.path, offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        if self.path is not None:
            _sqlite_error(self.files, "truncate", self.path, newsize)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        if self.path is not None:
            _sqlite_error(self.files, "sync", self.path)
            if self._sync_folder:
                self._sync_folder = False
                self.files.note("sync_folder", os.path.dirname(self.path))


def _sqlite_error(files: RecordingFiles, kind: Kind, path: str, number: int = 0, data: bytes = b"") -> None:
    """Log the operation; an injected fault becomes the error that SQLite knows."""
    try:
        files.note(kind, path, number, data)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise apsw.FullError(str(error)) from error
        failure = apsw.IOError(str(error))
        codes = {"sync": apsw.SQLITE_IOERR_FSYNC, "write": apsw.SQLITE_IOERR_WRITE}
        failure.extendedresult = codes.get(kind, apsw.SQLITE_IOERR)  # type: ignore[attr-defined]
        raise failure from error


class _Inode:
    """A file's bytes: as written, as sure to be on the disk, and the writes in between."""

    __slots__ = ("pending", "sure", "written")

    def __init__(self, content: bytes = b"") -> None:
        self.written = bytearray(content)
        self.sure = bytearray(content)
        self.pending: list[Operation] = []

    def apply(self, operation: Operation) -> None:
        _change(self.written, operation)
        self.pending.append(operation)

    def sync(self) -> None:
        for operation in self.pending:
            _change(self.sure, operation)
        self.pending.clear()

    def after_power_loss(self, random: Random, keep: float) -> bytes:
        content = bytearray(self.sure)
        for operation in self.pending:
            choice = random.random()
            if choice < keep:
                _change(content, operation)
            elif operation.kind == "write" and choice < keep + (1 - keep) / 2:
                for piece in _sectors(operation):
                    if random.random() < 0.5:
                        _change(content, piece)
        return bytes(content)


Image = dict[str, bytes | None]
"""What a crash leaves: a file's bytes by its path below the root; None for a folder."""


class Disk:
    """The state of a disk while a log is replayed onto it, from ``image`` on (all of which is sure)."""

    def __init__(self, image: Image | None = None) -> None:
        self._names: dict[str, _Inode | None] = {
            name: None if content is None else _Inode(content) for name, content in (image or {}).items()
        }
        self._sure = dict(self._names)
        self._pending: dict[str, list[list[tuple[str, _Inode | None, bool]]]] = {}

    def apply(self, operation: Operation) -> None:
        """The next operation of the log."""
        kind, path = operation.kind, operation.path
        if path.endswith("-shm"):
            return
        if kind in ("write", "truncate"):
            if path not in self._names:  # made past `Files`: for its mode
                self._rename_all(path, [(path, _Inode(), True)])
            inode = self._names[path]
            assert inode is not None
            inode.apply(operation)
        elif kind == "sync":
            inode = self._names[path]
            assert inode is not None
            inode.sync()
        elif kind == "create":
            self._rename_all(path, [(path, _Inode(), True)])
        elif kind == "folder":
            self._rename_all(path, [(path, None, True)])
        elif kind == "remove":
            self._rename_all(path, [(path, None, False)])
        elif kind == "rename":
            self._rename_all(path, [(path, None, False), (operation.data.decode(), self._names[path], True)])
        elif kind == "sync_folder":
            for changes in self._pending.pop(path, []):
                _enter(self._sure, changes)

    def _rename_all(self, path: str, changes: list[tuple[str, _Inode | None, bool]]) -> None:
        _enter(self._names, changes)
        self._pending.setdefault(os.path.dirname(path), []).append(changes)

    def after_kill(self, torn: Operation | None, random: Random) -> Image:
        """What is left when the process dies during ``torn``, the operation after the last applied one."""
        image = {name: None if inode is None else bytes(inode.written) for name, inode in self._names.items()}
        if torn is not None and torn.kind == "write" and not torn.path.endswith("-shm"):
            content = bytearray(image[torn.path] or b"")
            cut = random.randrange(len(torn.data) + 1) if torn.data else 0
            _change(content, torn._replace(data=torn.data[:cut]))
            image[torn.path] = bytes(content)
        return image

    def after_power_loss(self, random: Random) -> Image:
        """What is left when the power fails after the last applied operation."""
        keep = random.choice((0.0, 0.0, 0.3, 0.7, 0.95, 1.0))
        names = dict(self._sure)
        for folder in sorted(self._pending):
            for changes in self._pending[folder]:
                if random.random() < max(keep, 0.2):
                    _enter(names, changes)
        contents: dict[int, bytes] = {}
        image: Image = {}
        for name, inode in sorted(names.items(), key=lambda item: item[0]):
            if not _reachable(name, names):
                continue
            if inode is None:
                image[name] = None
            else:
                if id(inode) not in contents:
                    contents[id(inode)] = inode.after_power_loss(random, keep)
                image[name] = contents[id(inode)]
        return image


def write_image(image: Image, root: Path) -> None:
    """Make the files of ``image`` below ``root``, a folder that is not there yet."""
    root.mkdir(parents=True)
    for name, content in sorted(image.items()):
        path = root / name
        if content is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(content)


def _change(content: bytearray, operation: Operation) -> None:
    size = operation.number
    if operation.kind == "truncate":
        if size <= len(content):
            del content[size:]
        else:
            content.extend(bytes(size - len(content)))
        return
    if size > len(content):
        content.extend(bytes(size - len(content)))
    content[size : size + len(operation.data)] = operation.data


def _sectors(operation: Operation) -> Iterable[Operation]:
    """The write as one write for each sector that it touches."""
    start, end = operation.number, operation.number + len(operation.data)
    while start < end:
        stop = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
        data = operation.data[start - operation.number : stop - operation.number]
        yield Operation("write", operation.path, start, data)
        start = stop


def _enter(names: dict[str, _Inode | None], changes: list[tuple[str, _Inode | None, bool]]) -> None:
    for name, inode, present in changes:
        if present:
            names[name] = inode
        else:
            names.pop(name, None)


def _reachable(name: str, names: dict[str, _Inode | None]) -> bool:
    """Whether every folder above the name is there."""
    parent = os.path.dirname(name)
    while parent:
        if parent not in names:
            return False
        parent = os.path.dirname(parent)
    return True
