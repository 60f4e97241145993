"""The data folder: the journal, the objects' files, and what moves between them.

::

    data/
      perdure.json                  {"format": 2, "shards": 256}
      lock                          held by the process that has the folder open
      journal.sqlite                see journal.py
      templates/<digest>.sqlite     see template.py
      objects/<Class>/<slug>-<hash>.sqlite

The life of a commit: the object's file takes it (unsynced), its frames and appends become a
journal record, the journal's writer makes a batch of records durable with one sync, and
later a checkpoint brings the object's file itself up to date on the disk, after which the
record is dead. At any moment the durable state of an object is its file as of its last
synced checkpoint, overwritten by the page images of its live records, in order, plus the
stream entries of its live records that the rows lack.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import msgspec

from ..errors import CorruptionError, FormatError, StorageError, StorageFull, SyncFailed
from ..values import SHARD_COUNT, ObjectId, shard_of
from .database import Database
from .files import Files, disk_error
from .index import NodeIndex
from .journal import JOURNAL_WAL_BYTES, IndexChange, JournalEntry, JournalListener, SqliteJournal
from .lock import lock_folder
from .object_storage import Storage
from .paths import format_path, journal_path, object_path, template_path
from .record import HEAD, Append, Note, create_section, decode_record
from .redo import Redo, recover
from .template import Template, build_template

FORMAT = 2
"""The data folder's format. `MIGRATIONS` has a step from each older one (1 was never released)."""

MIGRATIONS: dict[int, Callable[[Path], None]] = {}
"""From format N to N + 1: called with the locked data folder, before anything is opened."""

OBJECT_LOG_FRAMES_MAX = 1_024
"""Frames (4 MiB) of one object's write-ahead log past which the object is checkpointed."""


class FolderFormat(msgspec.Struct):
    """``perdure.json``."""

    format: int
    shards: int


class OpenObject:
    """An object whose file is open: its storage and where it stands in the journal."""

    __slots__ = (
        "first_commit",
        "incarnation",
        "key",
        "last_page_sequence",
        "last_sequence",
        "marked_sequence",
        "new_template",
        "object_id",
        "path",
        "registered",
        "shard",
        "storage",
    )

    def __init__(
        self, object_id: ObjectId, shard: int, path: Path, incarnation: int, new_template: bytes | None
    ) -> None:
        self.object_id = object_id
        self.key = object_id.key
        self.shard = shard
        self.path = path
        self.incarnation = incarnation
        self.new_template = new_template
        self.registered = new_template is None
        self.first_commit = True
        self.last_sequence = 0
        self.last_page_sequence = 0
        self.marked_sequence = 0
        self.storage: Storage

    @property
    def has_tail(self) -> bool:
        """Whether streams have entries that are only in the journal and in memory."""
        return self.storage.stream_table.has_tail

    @property
    def is_in_file(self) -> bool:
        """Whether its file has all that was committed, synced or not: what it lacks is lost with `close_object`."""
        return not (self.has_tail or self.storage.database.log_frames)


class Checkpoint:
    """A checkpoint under way: pages are in the object's file, `run` syncs it (from a thread).

    ``sequence`` is the last commit that wrote a page when it began. A page that such a commit overwrote
    was not moved: the file is whole only together with that commit's record.
    """

    def __init__(self, key: str, path: Path, files: Files, unsynced: set[str], sequence: int) -> None:
        self.key = key
        self.sequence = sequence
        self._path = path
        self._files = files
        self._unsynced = unsynced

    def run(self) -> None:
        """Make the object's file durable. Blocks.

        Raises:
            SyncFailed: it is not. Syncing again would prove nothing, for the disk may have dropped the
                pages: the next checkpoint fails, too, and the next `Store.open` writes them anew.
        """
        try:
            self._files.sync(self._path)
            self._files.sync_folder(self._path.parent)
        except OSError as error:
            self._unsynced.add(self.key)
            raise SyncFailed(f"{self._path}: the disk refused a sync ({error})") from error


class ObjectOwner(Protocol):
    """Who runs an open object: told when its turn became dirty or its storage broke."""

    def on_dirty(self) -> None: ...

    def on_broken(self, error: StorageError) -> None: ...

    async def sync(self) -> None: ...


class Store:
    """One data folder, open. All methods are for one thread, but `Checkpoint.run`."""

    def __init__(
        self,
        folder: Path,
        listener: JournalListener,
        *,
        notify: Callable[[Callable[[], None]], object],
        files: Files | None = None,
        threaded: bool = True,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        journal_bytes_max: int = 256 * 1024 * 1024,
        on_recovery: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.folder = folder
        self.files = files or Files()
        self.journal_bytes_max = journal_bytes_max
        self._clock_ms = clock_ms
        self._templates: dict[tuple[str, ...], Template] = {}
        self._incarnations = itertools.count(1)
        self._first_live: dict[str, int] = {}
        self._next_live: dict[str, int | None] = {}
        self._to_redo: dict[str, int] = {}
        self._unsynced: set[str] = set()
        self.files.make_folder(folder)
        self._lock = lock_folder(folder)
        with ExitStack() as undo:
            undo.callback(os.close, self._lock)
            self.shards = self._check_format()
            self.files.make_folder(folder / "templates")
            self.journal = SqliteJournal(
                journal_path(folder),
                listener,
                notify=notify,
                vfs=self.files.vfs,
                clock_ms=clock_ms,
            )
            undo.callback(self.journal.abandon)
            self.index = NodeIndex(journal_path(folder), self.files.vfs)
            undo.callback(self.index.close)
            self.files.sync_folder(folder)
            try:
                self.recovered = recover(self, on_recovery)
            except OSError as error:
                raise disk_error(error, f"recovery of {folder}") from error
            self._threaded = threaded
            undo.pop_all()

    def _check_format(self) -> int:
        path = format_path(self.folder)
        try:
            found = msgspec.json.decode(self.files.read(path), type=FolderFormat)
        except FileNotFoundError:
            if journal_path(self.folder).exists():
                raise CorruptionError("the folder has a journal but no perdure.json", str(path)) from None
            self.files.replace(path, msgspec.json.encode(FolderFormat(FORMAT, SHARD_COUNT)))
            return SHARD_COUNT
        except msgspec.MsgspecError as error:
            raise CorruptionError(str(error), str(path)) from error
        if found.format > FORMAT:
            raise FormatError(
                f"{self.folder} has format {found.format}; this perdure knows {FORMAT}. Install a newer one."
            )
        while found.format < FORMAT:
            if found.format not in MIGRATIONS:
                raise FormatError(
                    f"{self.folder} has format {found.format}, of a perdure that was never released; "
                    f"this one can only read what releases wrote. Move the folder away, or use that version."
                )
            MIGRATIONS[found.format](self.folder)
            found.format += 1
            self.files.replace(path, msgspec.json.encode(found))
        return found.shards

    def start(self) -> None:
        """Start the journal's writer (unless the store was made with ``threaded=False``). Blocks for a sync."""
        if self._threaded:
            self.files.extend(self.folder / "journal.sqlite-wal", JOURNAL_WAL_BYTES)
            self.journal.start()

    # --- objects

    def path_of(self, object_id: ObjectId) -> Path:
        """Where the object's file is."""
        return object_path(self.folder, object_id)

    def template(self, migrations: tuple[str, ...]) -> Template:
        """The template of a class with these migrations; kept (durably) in the data folder."""
        template = self._templates.get(migrations)
        if template is None:
            template = self._templates[migrations] = build_template(migrations)
            path = self.template_path(template.digest)
            if not path.exists() or self.files.read(path) != template.data:
                self.files.write_new(path, template.data)
                self.files.sync(path)
                self.files.sync_folder(path.parent)
        return template

    def template_path(self, digest: bytes) -> Path:
        return template_path(self.folder, digest)

    def prepare_class(self, class_name: str, migrations: tuple[str, ...]) -> None:
        """Make the folder and the template of a class, durably; once before its objects are opened."""
        folder = self.folder / "objects" / class_name
        if not folder.exists():
            self.files.make_folder(folder)
            self.files.sync_folder(folder.parent)
            self.files.sync_folder(self.folder)
        self.template(migrations)

    def may_open(self, key: str) -> bool:
        """Whether `open` may be called: not while commits of a discarded instance are under way."""
        return self._to_redo.get(key, 0) <= self.journal.durable_sequence

    def open(self, object_id: ObjectId, owner: ObjectOwner, migrations: tuple[str, ...] | None = None) -> OpenObject:
        """Open the object's file, making it when the object is new (nothing is saved by that).

        ``migrations`` None leaves the schema as it is.

        Raises:
            CorruptionError: the object exists but its file is gone or is not one of ours.
            StorageError: the disk failed.
        """
        try:
            opened = self._open(object_id, owner, migrations)
        except OSError as error:
            raise disk_error(error, object_id.key) from error
        self._to_redo.pop(object_id.key, None)
        self._unsynced.discard(object_id.key)
        return opened

    def _open(self, object_id: ObjectId, owner: ObjectOwner, migrations: tuple[str, ...] | None) -> OpenObject:
        key, path = object_id.key, self.path_of(object_id)
        listed = self.index.exists(object_id)
        tails: list[Append | Note] = []
        if key in self._to_redo or key in self._unsynced:
            tails = self._redo(key, path, listed)
        new_template: bytes | None = None
        if key not in self._first_live and not listed:
            template = self.template(migrations or ())
            self.files.write_new(path, template.data)
            new_template = template.digest
        elif not path.exists():
            raise CorruptionError(f"the file of {key} is gone", str(path))
        database = Database(path, self.files)
        opened = OpenObject(object_id, shard_of(key, self.shards), path, next(self._incarnations), new_template)
        # A file that is not listed is what `delete_all` left: the next commit lists the object again.
        opened.registered = listed
        opened.storage = Storage(
            database,
            on_dirty=owner.on_dirty,
            on_broken=owner.on_broken,
            sync_all=owner.sync,
            migrations=migrations or (),
            clock_ms=self._clock_ms,
        )
        try:
            for tail in tails:
                opened.storage.stream_table.restore(tail)
            if new_template is None and migrations is not None and database.migrate(migrations):
                opened.storage.mark_dirty()
        except BaseException:
            database.close()
            raise
        return opened

    def _redo(self, key: str, path: Path, listed: bool) -> list[Append | Note]:
        """Rebuild a discarded object's file from its durable records; return the entries to restore."""
        if not listed:  # nothing durable, or `delete_all` was the last durable commit
            self._first_live.pop(key, None)
            return []
        redo = Redo()
        first = self._first_live.get(key)
        if first is not None:
            for entry in self.journal.replay(first - 1, key):
                redo.add(decode_record(entry.record, f"{key}, record {entry.sequence}"))
        redo.apply(path, self.files, self.read_template)
        if redo.empty:
            self._first_live.pop(key, None)
        return redo.tails

    def read_template(self, digest: bytes) -> bytes:
        """The bytes of a template by its digest. Raises CorruptionError when it is gone."""
        path = self.template_path(digest)
        try:
            return self.files.read(path)
        except FileNotFoundError:
            raise CorruptionError("the template that an object begins with is gone", str(path)) from None

    def commit(self, opened: OpenObject) -> int:
        """Commit the turn; return the journal's sequence number that it is durable with.

        Raises:
            StorageFull: the journal is twice as large as it may be: checkpoints do not come through.
            StorageError: nothing of the turn is kept; the object must be discarded.
        """
        if self.journal.live_bytes > 2 * self.journal_bytes_max:
            raise StorageFull(
                f"the journal holds {self.journal.live_bytes:,} bytes, twice journal_bytes_max: checkpoints do not "
                f"come through (is another program reading an object's file all the time?)"
            )
        return self._commit(opened)

    def _commit(self, opened: OpenObject) -> int:
        sections, index, pages = opened.storage.commit_turn()
        if not sections and index is None:
            return opened.last_sequence
        if opened.new_template is not None:
            sections.insert(0, create_section(opened.new_template))
        if not opened.registered:
            index = (index or IndexChange())._replace(created=True)
        elif opened.first_commit:
            index = (index or IndexChange())._replace(active=True)
        sequence = self.journal.append(
            opened.key,
            opened.shard,
            self.journal.epoch,
            b"".join((HEAD, *sections)),
            index,
            opened.incarnation,
        )
        opened.registered = not (index is not None and index.forget)
        opened.first_commit = False
        opened.new_template = None
        opened.last_sequence = sequence
        if pages:
            opened.last_page_sequence = sequence
        self._first_live.setdefault(opened.key, sequence)
        if self._next_live.get(opened.key, 0) is None:
            self._next_live[opened.key] = sequence
        return sequence

    # --- checkpoints

    def has_live_records(self, opened: OpenObject) -> bool:
        """Whether the journal still holds anything of the object."""
        return opened.key in self._first_live

    def checkpointing(self, key: str) -> bool:
        """Whether a checkpoint of the object is under way."""
        return key in self._next_live

    def materialise(self, opened: OpenObject) -> int:
        """First step of a checkpoint: put the streams' tails into rows and commit; return the sequence number.

        Everything committed from now on outlives the checkpoint. Only one checkpoint of an object at a time.
        """
        assert opened.key not in self._next_live
        opened.storage.materialise_tails()
        sequence = self._commit(opened)
        opened.storage.database.mark()
        opened.marked_sequence = opened.last_page_sequence
        self._next_live[opened.key] = None
        return sequence

    def begin_checkpoint(self, opened: OpenObject) -> Checkpoint | None:
        """Second step, once the materialised commit is durable: move its pages and older ones into the file.

        Later commits may be under way. None when it cannot be done now (a page is not durable yet, a turn
        is not committed, or a reader from outside is in the way); the checkpoint is then off and may be
        begun again later.

        Raises:
            SyncFailed: the last one could not be synced; the object must be discarded.
        """
        if opened.key in self._unsynced:
            raise SyncFailed(f"{opened.path}: the last checkpoint could not be synced")
        database = opened.storage.database
        if (
            database.in_transaction
            or opened.marked_sequence > self.journal.durable_sequence
            or not database.checkpoint()
        ):
            database.unmark()
            self.abandon_checkpoint(opened.key)
            return None
        return Checkpoint(opened.key, opened.path, self.files, self._unsynced, opened.last_page_sequence)

    def finish_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Last step, after `Checkpoint.run` and when ``checkpoint.sequence`` is durable: the records before
        the first step are dead."""
        assert checkpoint.sequence <= self.journal.durable_sequence
        following = self._next_live.pop(checkpoint.key)
        if following is None:
            self._first_live.pop(checkpoint.key, None)
        else:
            self._first_live[checkpoint.key] = following
        self.trim()

    def abandon_checkpoint(self, key: str) -> None:
        """The checkpoint is off: the object's records stay alive."""
        self._next_live.pop(key, None)

    def mark_live(self, key: str, sequence: int) -> None:
        """The journal holds a live record of the object (recovery)."""
        self._first_live.setdefault(key, sequence)

    def forget_live(self, key: str) -> None:
        """Every record of the object is in its file, durably (recovery)."""
        self._first_live.pop(key, None)

    def trim(self) -> None:
        """Let the journal delete what is dead at its front."""
        oldest = min(self._first_live.values(), default=self.journal.durable_sequence + 1)
        self.journal.trim(oldest - 1)

    def oldest_live(self, count: int) -> list[str]:
        """Keys of the objects that hold the journal's front, oldest first."""
        return sorted(self._first_live, key=self._first_live.__getitem__)[:count]

    def close_object(self, opened: OpenObject) -> None:
        """Close the file. If the object never saved anything, its file goes, too."""
        opened.storage.database.close()
        if opened.new_template is not None and opened.key not in self._next_live:  # a checkpoint may yet sync it
            self.files.remove(opened.path)

    def discard(self, opened: OpenObject) -> None:
        """Close after a failure: what is durable will be rebuilt from the journal at the next `open`."""
        self.close_object(opened)
        self._to_redo[opened.key] = opened.last_sequence

    def on_failed(self, entries: Sequence[JournalEntry]) -> None:
        """These entries will never be durable: a discarded instance need not wait for them."""
        for entry in entries:
            if entry.object_key in self._to_redo:
                self._to_redo[entry.object_key] = 0

    def close(self) -> None:
        """Finish what was committed and let go of the folder. Open objects must be closed before."""
        self.journal.close()
        self.index.close()
        os.close(self._lock)
