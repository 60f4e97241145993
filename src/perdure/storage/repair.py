"""Finding damage in a data folder, and moving it out of the way.

Nothing is ever deleted: what is taken out of the folder is written to ``quarantine/`` and synced before
the journal forgets it::

    data/quarantine/<object>-<time>/       object.sqlite     the object's file as it was
                                           <sequence>.record its journal records (record.py)
                                           about.json        what it was, and where it was
    data/quarantine/record-<sequence>-<time>/                one record

The folder's lock is held meanwhile, so a running server is in nobody's way.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgspec

from ..errors import ConfigError, CorruptionError, StorageError
from ..values import ObjectId
from .contents import damage_of
from .files import Files
from .journal import translate
from .lock import lock_folder
from .paths import format_path, journal_path, object_path, object_slug
from .record import decode_record
from .snapshot import FolderReader


class Damage(NamedTuple):
    """Something that cannot be read.

    ``object_key`` is the object that it belongs to; ``sequence`` the journal record. Neither: it is the folder's.
    """

    where: str
    what: str
    object_key: str | None = None
    sequence: int | None = None


def examine(folder: Path, on_object: Callable[[int, int], None] = lambda done, total: None) -> list[Damage]:
    """Read everything and say what is damaged. Changes nothing.

    ``on_object(done, total)`` is called after each object.

    Raises:
        DataFolderLocked: a server is running.
        ConfigError: there is no data folder.
    """
    reader = FolderReader(folder)
    with _locked(folder):
        found = _examine_folder(folder)
        if found:
            return found  # without a sound journal nothing can be said of the objects
        found = list(_examine_records(folder))
        broken = {item.object_key for item in found}
        objects = reader.objects(limit=-1)
        with tempfile.TemporaryDirectory(prefix="perdure-") as scratch:
            for done, item in enumerate(objects, 1):
                if item.object_id.key not in broken:
                    found += _examine_object(reader, item.object_id, Path(scratch) / "object.sqlite")
                on_object(done, len(objects))
        return found


def _examine_folder(folder: Path) -> list[Damage]:
    try:
        format_ = msgspec.json.decode(format_path(folder).read_bytes())
        if not isinstance(format_, dict) or not isinstance(format_.get("format"), int):
            raise ValueError("it does not name a format")
    except ValueError as error:
        return [Damage(str(format_path(folder)), str(error))]
    wrong = damage_of(journal_path(folder))
    return [Damage(str(journal_path(folder)), wrong)] if wrong else []


def _examine_records(folder: Path) -> Iterator[Damage]:
    with _journal(folder) as connection:
        for sequence, key, record in connection.execute("SELECT sequence, object, record FROM journal"):
            where = f"{key}, record {sequence}"
            try:
                decode_record(record, where)
            except CorruptionError as error:
                yield Damage(where, error.what, key, sequence)


def _examine_object(reader: FolderReader, object_id: ObjectId, scratch: Path) -> list[Damage]:
    path = object_path(reader.folder, object_id)
    try:
        copy = reader.copy(object_id, scratch)
    except CorruptionError as error:
        return [Damage(str(path), error.what, object_id.key)]
    wrong = damage_of(copy.path)
    return [Damage(str(path), wrong, object_id.key)] if wrong else []


# --- moving aside


def quarantine_object(folder: Path, object_id: ObjectId) -> Path:
    """Move an object with its records out of the folder; return where to. The name is free then.

    Raises:
        ConfigError: there is no such object.
        DataFolderLocked: a server is running.
    """
    FolderReader(folder)
    with _locked(folder), _journal(folder) as connection:
        listed = connection.execute(
            "SELECT created_ms, active_ms FROM objects WHERE class = ? AND name = ?", object_id
        ).get
        records = list(
            connection.execute(
                "SELECT sequence, shard, epoch, object, time_ms, record FROM journal WHERE object = ?",
                (object_id.key,),
            )
        )
        source = object_path(folder, object_id)
        if listed is None and not records:
            raise ConfigError(f"there is no object {object_id.key} in {folder}")
        about = {
            "class": object_id.class_name,
            "name": object_id.name,
            "createdMs": listed[0] if listed else None,
            "activeMs": listed[1] if listed else None,
            "file": str(source.relative_to(folder)),
        }
        target = _set_aside(folder, object_slug(object_id), about, records, source)
        _forget_records(connection, [row[0] for row in records], object_id)
        source.unlink(missing_ok=True)
        return target


def quarantine_record(folder: Path, sequence: int) -> Path:
    """Move one journal record out of the folder; return where to. What it wrote is lost to its object.

    Raises:
        ConfigError: there is no such record.
        DataFolderLocked: a server is running.
    """
    FolderReader(folder)
    with _locked(folder), _journal(folder) as connection:
        records = list(
            connection.execute(
                "SELECT sequence, shard, epoch, object, time_ms, record FROM journal WHERE sequence = ?", (sequence,)
            )
        )
        if not records:
            raise ConfigError(f"there is no record {sequence} in the journal of {folder}")
        target = _set_aside(folder, f"record-{sequence}", {}, records, None)
        _forget_records(connection, [sequence], None)
        return target


def _set_aside(
    folder: Path, stem: str, about: dict[str, Any], records: Sequence[tuple[Any, ...]], source: Path | None
) -> Path:
    """Write it all to the quarantine, synced."""
    files = Files()
    target = folder / "quarantine" / f"{stem}-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S%f')}"
    files.make_folder(target)
    about["records"] = [
        {"sequence": sequence, "shard": shard, "epoch": epoch, "object": key, "timeMs": time_ms}
        for sequence, shard, epoch, key, time_ms, _ in records
    ]
    files.replace(target / "about.json", msgspec.json.format(msgspec.json.encode(about)) + b"\n")
    for sequence, *_, record in records:
        files.replace(target / f"{sequence}.record", record)
    if source is not None and source.exists():
        shutil.copyfile(source, target / "object.sqlite")
        files.sync(target / "object.sqlite")
    for changed in (target, target.parent, folder):
        files.sync_folder(changed)
    return target


def _forget_records(connection: apsw.Connection, sequences: Sequence[int], object_id: ObjectId | None) -> None:
    with connection:
        if sequences:
            # An emptied log must not hand out a sequence number again.
            connection.execute(
                "INSERT INTO meta VALUES('sequence', (SELECT max(sequence) FROM journal))"
                " ON CONFLICT(key) DO UPDATE SET value = max(value, excluded.value)"
            )
            connection.executemany("DELETE FROM journal WHERE sequence = ?", [(item,) for item in sequences])
        if object_id is not None:
            connection.execute("DELETE FROM objects WHERE class = ? AND name = ?", object_id)
            connection.execute("DELETE FROM alarms WHERE object = ?", (object_id.key,))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = lock_folder(folder)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _journal(folder: Path) -> Iterator[apsw.Connection]:
    path = journal_path(folder)
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.pragma("synchronous", "FULL")
            yield connection
        finally:
            connection.close()
    except apsw.Error as error:
        raise translate(error, str(path)) from error
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}") from error
