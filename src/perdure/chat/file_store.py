"""The files of a room, in its own tables, cut into rows.

::

    files        number      a small integer of its own
                 id          32 hex digits, from the type and the content; null: not whole yet, or being removed
                 media_type
                 filename    what its first sender called it, or null
                 bytes       how many there are so far
                 touched_ms  Unix milliseconds: when it was last sent, or last found in use
    file_chunks  position    number * 2^20 + the chunk's place in the file
                 data        FILE_CHUNK_BYTES of it; the last one may be shorter
    file_uses    file_id, message_id   a message that holds the file

The tables are made with the first file: rooms without any have none of them. The same content of the same
type is there once. Nothing here is longer than one chunk's work, except `remove` of a part of a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..storage.object_storage import Storage

FILE_CHUNK_BYTES = 192 * 1024
"""Bytes in one row: what is read, written and sent at once. A multiple of 3: whole groups of Base64."""

_CHUNKS_OF_A_FILE = 1 << 20

_LOOKED_AT = 200

_TABLES = (
    "CREATE TABLE IF NOT EXISTS files(number INTEGER PRIMARY KEY, id TEXT UNIQUE, media_type TEXT NOT NULL,"
    " filename TEXT, bytes INTEGER NOT NULL DEFAULT 0, touched_ms INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS file_chunks(position INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS file_uses(file_id TEXT NOT NULL, message_id TEXT NOT NULL,"
    " PRIMARY KEY(file_id, message_id)) WITHOUT ROWID",
)


class StoredFile(NamedTuple):
    """A whole file of a room."""

    id: str
    media_type: str
    filename: str | None
    bytes: int
    number: int

    @property
    def chunks(self) -> int:
        """How many rows its content has."""
        return -(-self.bytes // FILE_CHUNK_BYTES)


class FileHash:
    """Makes a file's id as its content comes: a SHA-256 over type and content, its first 16 bytes."""

    def __init__(self, media_type: str) -> None:
        self._hash = hashlib.sha256(f"{media_type}\n".encode())

    def update(self, data: bytes) -> None:
        """The next of the content. Takes a millisecond a megabyte: give long ones to a thread."""
        self._hash.update(data)

    @property
    def file_id(self) -> str:
        """The id of the file that ends here."""
        return self._hash.hexdigest()[:32]


class FileStore:
    """Reads and writes a room's files."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    # --- reading

    def find(self, file_id: str) -> StoredFile | None:
        """The whole file of that id."""
        rows = self._rows("SELECT id, media_type, filename, bytes, number FROM files WHERE id = ?", file_id)
        return StoredFile(*rows[0]) if rows else None

    def chunk(self, file: StoredFile, place: int) -> bytes | None:
        """A row of its content; None where the file was removed meanwhile."""
        rows = self._rows(
            "SELECT data FROM file_chunks JOIN files ON number = ? AND id = ? WHERE position = ?",
            file.number,
            file.id,
            file.number * _CHUNKS_OF_A_FILE + place,
        )
        return rows[0][0] if rows else None

    def totals(self) -> tuple[int, int]:
        """How many files there are, and their bytes; those that are not whole yet are counted."""
        rows = self._rows("SELECT count(*), coalesce(sum(bytes), 0) FROM files")
        return (int(rows[0][0]), int(rows[0][1])) if rows else (0, 0)

    # --- writing

    def begin(self, media_type: str, filename: str | None, now_ms: int) -> int:
        """A new file without content; its number."""
        self._begin()
        for statement in _TABLES:
            self._storage.database.execute(statement)
        self._storage.database.execute(
            "INSERT INTO files(media_type, filename, touched_ms) VALUES(?,?,?)", (media_type, filename, now_ms)
        )
        return int(self._storage.database.connection.last_insert_rowid())

    def append(self, number: int, place: int, data: bytes, now_ms: int) -> bool:
        """The next chunk of a file that is not whole yet; False where it was removed meanwhile."""
        self._begin()
        known = self._rows(
            "UPDATE files SET bytes = bytes + ?, touched_ms = ? WHERE number = ? AND id IS NULL RETURNING 1",
            len(data),
            now_ms,
            number,
        )
        if known:
            position = number * _CHUNKS_OF_A_FILE + place
            self._storage.database.execute("INSERT INTO file_chunks VALUES(?,?)", (position, data))
        return bool(known)

    def finish(self, number: int, file_id: str, now_ms: int) -> StoredFile:
        """The file is whole. Where its content was there already, that one; the new one is then to be removed."""
        known = self.find(file_id)
        if known is None:
            self._change("UPDATE files SET id = ? WHERE number = ?", file_id, number)
            known = self.find(file_id)
            assert known is not None
        else:
            self.touch(known, now_ms)
            self.drop(number)
        return known

    def touch(self, file: StoredFile, now_ms: int) -> None:
        """The file was sent again."""
        self._change("UPDATE files SET touched_ms = ? WHERE number = ?", now_ms, file.number)

    def drop(self, number: int) -> None:
        """Nobody finds the file any more; `remove` is to remove it."""
        self._change("DELETE FROM file_uses WHERE file_id = (SELECT id FROM files WHERE number = ?)", number)
        self._change("UPDATE files SET id = NULL, touched_ms = 0 WHERE number = ?", number)

    def use(self, file_id: str, message_id: str) -> None:
        """The message holds the file."""
        self._change("INSERT OR IGNORE INTO file_uses VALUES(?,?)", file_id, message_id)

    # --- removing

    def drop_old(self, before_ms: int, now_ms: int) -> None:
        """Drop the files that were not touched since ``before_ms`` and that no message of the room holds.

        Looks at the oldest `_LOOKED_AT`; those in use come last the next time.
        """
        query = "SELECT number, id FROM files WHERE touched_ms < ? AND touched_ms > 0 ORDER BY touched_ms LIMIT ?"
        old = self._rows(query, before_ms, _LOOKED_AT)
        for number, file_id in old:
            if file_id is not None and self._used(file_id):
                self._change("UPDATE files SET touched_ms = ? WHERE number = ?", now_ms, number)
            else:
                self.drop(number)

    def drop_released(self) -> None:
        """Drop the files of messages that are gone."""
        used = "SELECT number, id FROM files WHERE id IN (SELECT file_id FROM file_uses)"
        for number, file_id in self._rows(used):
            if not self._used(file_id):
                self.drop(number)

    @property
    def has_dropped(self) -> bool:
        """Whether there is something to `remove`."""
        return bool(self._rows("SELECT 1 FROM files WHERE id IS NULL AND touched_ms = 0 LIMIT 1"))

    def remove(self) -> Iterator[None]:
        """Remove what was dropped, a chunk a step. Breaking off is fine: it goes on with the next time."""
        while rows := self._rows("SELECT number FROM files WHERE id IS NULL AND touched_ms = 0 LIMIT 1"):
            [(number,)] = rows
            first = number * _CHUNKS_OF_A_FILE
            while self._change(
                "DELETE FROM file_chunks WHERE position IN"
                " (SELECT max(position) FROM file_chunks WHERE position >= ? AND position < ?) RETURNING 1",
                first,
                first + _CHUNKS_OF_A_FILE,
            ):
                yield
            self._change("DELETE FROM files WHERE number = ?", number)

    def _used(self, file_id: str) -> bool:
        in_use = "SELECT 1 FROM file_uses JOIN {} ON id = message_id WHERE file_id = ? LIMIT 1"
        return any(self._rows(in_use.format(table), file_id) for table in ("messages", "old_messages"))

    # --- the tables

    def _rows(self, query: str, *bindings: Any) -> list[tuple[Any, ...]]:
        """Rows of a query; none where there are no tables (`Storage.delete_all` removes them)."""
        has_tables = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'files'"
        if not self._storage.database.execute(has_tables):
            return []
        return self._storage.database.execute(query, bindings)

    def _change(self, statement: str, *bindings: Any) -> list[tuple[Any, ...]]:
        self._begin()
        return self._rows(statement, *bindings)

    def _begin(self) -> None:
        if not self._storage.dirty:
            self._storage.mark_dirty()
        self._storage.database.begin()
