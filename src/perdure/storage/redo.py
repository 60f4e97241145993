"""Recovery: bring the objects' files up to what the journal holds.

At start the journal's live records are read in order. For each object: its file is made
anew from the template if the journal still has its creation; the ``-wal`` that the crash
left is removed; the last image of each page is written in place. That needs no more than
the file's last synced checkpoint and can be repeated any number of times, so a crash during
recovery is only another recovery. Stream entries that the rows lack are then put into rows
by an ordinary commit and an ordinary checkpoint, through the journal like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import CorruptionError, StorageError
from ..values import ObjectId
from .database import remove_log
from .files import Files
from .record import Append, Note, Record, decode_record

if TYPE_CHECKING:
    from .store import OpenObject, Store

_Item = TypeVar("_Item")

REOPEN_BATCH = 200
"""Objects open at once while their stream tails are put into rows."""


class Redo:
    """What the journal's records of one object add up to."""

    def __init__(self) -> None:
        self.template: bytes | None = None
        self.page_size = 0
        self.database_pages = 0
        self.pages: dict[int, memoryview] = {}
        self.tails: list[Append | Note] = []
        self.empty = True

    def add(self, record: Record) -> None:
        """Take the next record into account."""
        self.empty = False
        if record.template is not None:
            self.template = record.template
            self.pages.clear()
            self.tails.clear()
        for page in record.pages:
            self.pages[page.page_number] = page.data
            if page.database_pages:
                self.database_pages = page.database_pages
        if record.pages:
            self.page_size = record.page_size
        self.tails.extend(record.tails)

    def apply(self, path: Path, files: Files, read_template: Callable[[bytes], bytes]) -> None:
        """Write it into the object's file, unsynced."""
        remove_log(path, files)
        if self.template is not None:
            files.write_new(path, read_template(self.template))
        if self.pages:
            if not path.exists():
                raise CorruptionError("the file of an object that the journal changes is gone", str(path))
            pieces = (
                ((number - 1) * self.page_size, bytes(data))
                for number, data in sorted(self.pages.items())
                if number <= self.database_pages
            )
            files.write_at(path, pieces, self.database_pages * self.page_size)


class _RecoveryOwner:
    """Stands in for the runtime while recovery has an object open."""

    def on_dirty(self) -> None:
        """Recovery commits by itself."""

    def on_broken(self, error: StorageError) -> None:
        """The error is raised to recovery, which stops."""

    async def sync(self) -> None:
        raise AssertionError("recovery never waits")


def recover(store: Store, on_progress: Callable[[int, int], None]) -> int:
    """Recover the folder; return the number of objects that had live records.

    ``on_progress(done, total)`` is called after each object.

    Raises:
        CorruptionError: a record does not decode, or a file is gone; nothing was deleted.
    """
    redos: dict[str, Redo] = {}
    for entry in store.journal.replay():
        where = f"{entry.object_key}, record {entry.sequence}"
        redos.setdefault(entry.object_key, Redo()).add(decode_record(entry.record, where))
        store.mark_live(entry.object_key, entry.sequence)
    total, done = len(redos), 0
    paths = []
    with_tails = []
    for key, redo in redos.items():
        path = store.path_of(ObjectId.from_key(key))
        if store.index.exists(ObjectId.from_key(key)):
            redo.apply(path, store.files, store.read_template)
            paths.append(path)
            if redo.tails:
                with_tails.append(key)
        else:
            # `delete_all` was its last commit. Its file may be gone, or be a template that was
            # never committed to, so that its last records fit nothing.
            remove_log(path, store.files)
            store.files.remove(path)
        redo.pages.clear()
        done += 1
        on_progress(done, total)
    _sync_all(store, paths)
    for at in range(0, len(with_tails), REOPEN_BATCH):
        _restore_tails(store, {key: redos[key].tails for key in with_tails[at : at + REOPEN_BATCH]})
    for key in redos:
        store.forget_live(key)
    store.trim()
    store.journal.pump()
    return total


def _restore_tails(store: Store, tails: dict[str, list[Append | Note]]) -> None:
    opened: list[OpenObject] = []
    for key, items in tails.items():
        try:
            item = store.open(ObjectId.from_key(key), _RecoveryOwner())
            opened.append(item)
            for tail in items:
                item.storage.stream_table.restore(tail)
            store.materialise(item)
        except ValueError as error:
            raise CorruptionError(str(error), key) from error
    store.journal.pump()
    checkpoints = []
    for item in opened:
        checkpoint = store.begin_checkpoint(item)
        if checkpoint is None:
            raise StorageError(f"{item.path}: another program has the file open; close it and start again")
        checkpoints.append(checkpoint)
        store.close_object(item)
    _at_once(store, lambda checkpoint: checkpoint.run(), checkpoints)
    for checkpoint in checkpoints:
        store.finish_checkpoint(checkpoint)


def _sync_all(store: Store, paths: list[Path]) -> None:
    existing = [path for path in paths if path.exists()]
    try:
        _at_once(store, store.files.sync, existing)
        for folder in {path.parent for path in existing}:
            store.files.sync_folder(folder)
    except OSError as error:
        raise StorageError(f"the disk refused a sync during recovery ({error})") from error


def _at_once(store: Store, work: Callable[[_Item], None], items: Sequence[_Item]) -> None:
    """Do the work for each item, some at once."""
    threads = min(store.files.sync_threads, len(items))
    if threads <= 1:
        for item in items:
            work(item)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, items))
