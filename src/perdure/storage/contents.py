"""What is in an object's file: for people who look."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import apsw

from .journal import translate


class TableContents(NamedTuple):
    """One of the application's tables."""

    name: str
    rows: int


class StreamContents(NamedTuple):
    """One stream. ``position`` is the number of entries so far, ``first`` the oldest that is kept."""

    name: str
    content_type: str
    position: int
    first: int
    bytes: int
    closed: bool
    created_ms: int


class Contents(NamedTuple):
    """One object's contents; ``schema`` is how many of its class's migrations it has had."""

    schema: int
    keys: int
    tables: list[TableContents]
    streams: list[StreamContents]
    file_bytes: int


def read_contents(path: Path) -> Contents:
    """Count what a copy of an object holds (`FolderReader.copy`).

    Raises:
        CorruptionError: the file is damaged.
    """
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            names = connection.execute(
                "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual')"
                " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_perdure\\_%' ESCAPE '\\'"
                " ORDER BY name"
            )
            tables = [TableContents(name, _count(connection, name)) for (name,) in list(names)]
            rows = connection.execute(
                "SELECT name, content_type, position, first, bytes, closed, created_ms"
                " FROM _perdure_streams ORDER BY id"
            )
            streams = [StreamContents(*row)._replace(closed=bool(row[5])) for row in rows]
            schema = connection.execute("SELECT value FROM _perdure_meta WHERE key = 'schema'").get
            return Contents(schema or 0, _count(connection, "_perdure_kv"), tables, streams, path.stat().st_size)
        finally:
            connection.close()
    except apsw.Error as error:
        raise translate(error, str(path)) from error


def damage_of(path: Path) -> str | None:
    """What SQLite's own check finds wrong with the file; None when it is sound."""
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            found = connection.execute("PRAGMA quick_check(1)").get
        finally:
            connection.close()
    except apsw.Error as error:
        return str(error)
    return None if found == "ok" else str(found)


def _count(connection: apsw.Connection, table: str) -> int:
    quoted = table.replace('"', '""')
    return int(connection.execute(f'SELECT count(*) FROM "{quoted}"').get)
