"""Reading the node index: which objects exist and when each one's next alarm is due.

The index lives in the journal's file and is written by the journal's writer in the same
transaction as the commit that caused the change. Reading it opens no object.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import apsw

from ..values import ObjectId


class IndexedObject(NamedTuple):
    """One object that exists. Times are Unix milliseconds."""

    object_id: ObjectId
    created_ms: int
    active_ms: int


class NodeIndex:
    """A read-only view of the index; sees every commit that is durable."""

    def __init__(self, journal_path: Path, vfs: str = "") -> None:
        self._connection = apsw.Connection(str(journal_path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs or None)
        self._connection.set_busy_timeout(5_000)
        self._connection.wal_autocheckpoint(0)

    def exists(self, object_id: ObjectId) -> bool:
        """Whether the object has ever saved anything."""
        row = self._connection.execute("SELECT 1 FROM objects WHERE class = ? AND name = ?", object_id).get
        return row is not None

    def objects(
        self, class_name: str | None = None, limit: int = 1_000, *, without: Collection[str] = ()
    ) -> list[IndexedObject]:
        """The objects that exist (of one class; without some classes), those active last first."""
        where, bindings = "", list(without)
        if class_name is not None:
            where, bindings = "WHERE class = ?", [class_name]
        elif without:
            where = f"WHERE class NOT IN ({','.join('?' * len(without))})"
        rows = self._connection.execute(
            f"SELECT class, name, created_ms, active_ms FROM objects {where} ORDER BY active_ms DESC, name LIMIT ?",
            [*bindings, limit],
        )
        return [IndexedObject(ObjectId(row[0], row[1]), row[2], row[3]) for row in rows]

    def alarms(self) -> Iterator[tuple[ObjectId, int]]:
        """Every pending alarm: the object and when it is due, earliest first."""
        for key, at_ms in self._connection.execute("SELECT object, at_ms FROM alarms ORDER BY at_ms"):
            yield ObjectId.from_key(key), at_ms

    def close(self) -> None:
        try:
            self._connection.close()
        except apsw.Error:  # closing last, SQLite folds the journal's log; the disk may be full or gone
            self._connection.close(True)
