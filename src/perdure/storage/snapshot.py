"""Reading a data folder from outside: copies of objects, beside a running server or after a crash.

Nothing here writes to the folder, takes its lock, or opens an object's live file with SQLite.
What is durable of an object is its file overwritten by its live journal records (store.py), so
a copy is made of both::

    1. read the object's records                          A
    2. copy the file, byte by byte, while it may change
    3. read the object's records again                    B
    4. write A ∪ B over the copy, put the streams' tails into rows

A page reaches the file only while the record that wrote it is live, and records die from the
journal's front only. So every page that changed during step 2 is in A ∪ B, unless the journal was
trimmed past A's end in between: then its front in step 3 says so, and the copy is made again.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw

from ..errors import ConfigError, CorruptionError, StorageError
from ..values import ObjectId
from .appends import StreamTable
from .database import Database
from .files import Files
from .index import IndexedObject, NodeIndex
from .journal import translate
from .paths import format_path, journal_path, object_path, template_path
from .record import decode_record
from .redo import Redo

COPIES_MAX = 20
"""Copies tried of an object that is checkpointed faster than its file can be read."""


class ObjectCopy(NamedTuple):
    """A copy of an object, and where the object stood in the journal then.

    ``first_sequence`` and ``last_sequence`` are those of its live records, None when its file has
    everything; ``record_bytes`` is their size.
    """

    object_id: ObjectId
    path: Path
    created_ms: int
    active_ms: int
    alarm_ms: int | None
    first_sequence: int | None
    last_sequence: int | None
    record_count: int
    record_bytes: int


class _Records(NamedTuple):
    """What the journal holds at one moment of an object, and of all."""

    records: dict[int, bytes]
    front: int
    end: int
    listed: tuple[int, int] | None
    alarm_ms: int | None


class FolderReader:
    """A data folder, read only."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError when there is no data folder."""
        if not format_path(folder).exists() or not journal_path(folder).exists():
            raise ConfigError(f"there is no data folder at {folder}; name it with --data")
        self.folder = folder

    def objects(
        self, class_name: str | None = None, limit: int = 1_000, *, without: Collection[str] = ()
    ) -> list[IndexedObject]:
        """The objects that exist (of one class; without some classes), those active last first."""
        try:
            index = NodeIndex(journal_path(self.folder))
            try:
                return index.objects(class_name, limit, without=without)
            finally:
                index.close()
        except apsw.Error as error:
            raise translate(error, str(journal_path(self.folder))) from error

    def find(self, text: str) -> ObjectId:
        """The object that ``Class/name``, or a name that only one class has, stands for.

        Raises:
            ConfigError: there is none, or there are several.
        """
        with self._journal() as connection:
            exact = ObjectId.from_key(text)
            query = "SELECT class, name FROM objects WHERE (class = ? AND name = ?) OR name = ? ORDER BY class"
            found = [ObjectId(*row) for row in connection.execute(query, (*exact, text))]
        if exact in found:
            return exact
        if not found:
            raise ConfigError(f"there is no object {text!r} in {self.folder}; `perdure rooms` lists them")
        if len(found) > 1:
            raise ConfigError(
                f"several classes have a {text!r}: {', '.join(item.key for item in found)}; name one so"
            )
        return found[0]

    def copy(self, object_id: ObjectId, target: Path) -> ObjectCopy:
        """Make ``target`` a SQLite file of its own that holds all that is durable of the object.

        Raises:
            CorruptionError: a record does not decode, or a file is gone.
            StorageError: the object is gone, or is written faster than it can be read.
        """
        for _ in range(COPIES_MAX):
            before = self._read(object_id)
            source = object_path(self.folder, object_id)
            target.unlink(missing_ok=True)
            if source.exists():
                shutil.copyfile(source, target)
            after = self._read(object_id)
            if after.front <= before.end + 1:
                return self._complete(object_id, target, before, after)
        raise StorageError(f"{object_id.key} is written faster than it can be copied; try again")

    def _complete(self, object_id: ObjectId, target: Path, before: _Records, after: _Records) -> ObjectCopy:
        if after.listed is None:
            target.unlink(missing_ok=True)
            raise StorageError(f"{object_id.key} does not exist any more")
        redo = Redo()
        for sequence, record in sorted({**before.records, **after.records}.items()):
            redo.add(decode_record(record, f"{object_id.key}, record {sequence}"))
        if redo.template is None and not target.exists():
            raise CorruptionError(f"the file of {object_id.key} is gone", str(object_path(self.folder, object_id)))
        files = Files()
        redo.apply(target, files, self._read_template)
        database = Database(target, files)
        try:
            streams = StreamTable(database, database.begin)
            for tail in redo.tails:
                streams.restore(tail)
            streams.materialise_all()
            database.commit()
            database.checkpoint()
        except ValueError as error:
            raise CorruptionError(str(error), object_id.key) from error
        finally:
            database.close()
        _make_plain(target)
        live = sorted(after.records)
        return ObjectCopy(
            object_id,
            target,
            *after.listed,
            after.alarm_ms,
            live[0] if live else None,
            live[-1] if live else None,
            len(live),
            sum(map(len, after.records.values())),
        )

    def _read(self, object_id: ObjectId) -> _Records:
        with self._journal() as connection, connection:  # one transaction: one moment
            front = connection.execute("SELECT min(sequence) FROM journal").get
            end = connection.execute("SELECT max(sequence) FROM journal").get
            kept = connection.execute("SELECT value FROM meta WHERE key = 'sequence'").get or 0
            listed = connection.execute(
                "SELECT created_ms, active_ms FROM objects WHERE class = ? AND name = ?", object_id
            ).get
            alarm_ms = connection.execute("SELECT at_ms FROM alarms WHERE object = ?", (object_id.key,)).get
            records = dict(
                connection.execute("SELECT sequence, record FROM journal WHERE object = ?", (object_id.key,))
            )
        end = max(end or 0, kept)
        return _Records(records, front or end + 1, end, listed, alarm_ms)

    @contextmanager
    def _journal(self) -> Iterator[apsw.Connection]:
        """The journal, for a short read; a server writes on beside it."""
        path = journal_path(self.folder)
        try:
            connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                connection.set_busy_timeout(5_000)
                connection.wal_autocheckpoint(0)
                yield connection
            finally:
                connection.close()
        except apsw.Error as error:
            raise translate(error, str(path)) from error

    def _read_template(self, digest: bytes) -> bytes:
        path = template_path(self.folder, digest)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise CorruptionError("the template that an object begins with is gone", str(path)) from None


def _make_plain(path: Path) -> None:
    """Turn write-ahead mode off: one file that any SQLite opens, also where it cannot write."""
    connection = apsw.Connection(str(path))
    try:
        connection.pragma("journal_mode", "DELETE")
    except apsw.Error as error:
        raise translate(error, str(path)) from error
    finally:
        connection.close()
