"""`Storage`: what an object sees of the engine.

Everything is synchronous and takes microseconds. All writes between two awaits are one
commit; it is made by itself at the end of the loop's turn, and nothing that depends on it
leaves the object before it is durable.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import ForbiddenSQL, StorageError
from .appends import StreamTable
from .database import Database
from .journal import IndexChange
from .kv import LIST_LIMIT, KeyValues
from .record import tail_section
from .sql import Binding, SqlRunner

UNCHANGED = -1

# `Storage.list` hides the builtin in annotations.
Rows = list[dict[str, Any]]
Sections = list[bytes]


class Storage:
    """An object's private storage: values by key, SQL, an alarm, streams.

    ``on_dirty`` is called at the first write after a commit: whoever runs the object then
    arranges for `commit_turn`. ``sync_all`` waits until everything so far is durable.
    """

    def __init__(
        self,
        database: Database,
        *,
        on_dirty: Callable[[], None],
        on_broken: Callable[[StorageError], None],
        sync_all: Callable[[], Awaitable[None]],
        migrations: tuple[str, ...] = (),
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.database = database
        self._migrations = migrations
        self._on_dirty = on_dirty
        self._on_broken = on_broken
        self._sync_all = sync_all
        self._kv = KeyValues(database)
        self._sql = SqlRunner(database)
        self.stream_table = StreamTable(database, self._write, clock_ms)
        self._dirty = False
        self._depth = 0
        self._after: list[Callable[[], None]] = []
        self._forget = False
        self._alarm_change: int | None = UNCHANGED
        self.broken: StorageError | None = None

    # --- values by key

    def get(self, key: str, default: Any = None, *, type: Any = Any) -> Any:
        """The value stored under ``key``, or ``default``; ``type`` is what it is decoded to (a Struct, ...)."""
        with self._guard():
            return self._kv.get(key, default, type=type)

    def put(self, key: str | Mapping[str, Any], value: Any = None) -> None:
        """Store a JSON-like value, a ``msgspec.Struct`` or ``bytes``; or several from a mapping.

        Raises LimitExceeded (``key_bytes_max``, ``value_bytes_max``), TypeError.
        """
        with self._guard():
            self._write()
            self._kv.put(key, value)

    def delete(self, *keys: str) -> int:
        """Remove keys; return how many were there."""
        with self._guard():
            self._write()
            return self._kv.delete(*keys)

    def list(
        self,
        prefix: str = "",
        *,
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        limit: int = LIST_LIMIT,
        type: Any = Any,
    ) -> dict[str, Any]:
        """Entries with ``start <= key < end`` that begin with ``prefix``, ordered by the keys' bytes."""
        with self._guard():
            return self._kv.list(prefix, start=start, end=end, reverse=reverse, limit=limit, type=type)

    # --- SQL

    def sql(self, query: str, *bindings: Binding) -> Rows:
        """Run SQL with ``?`` bindings; rows as dicts.

        Raises ForbiddenSQL for what would leave the object's file or transaction, and SQLite's
        own `apsw.SQLError` and `apsw.ConstraintError` for wrong statements.
        """
        with self._guard():
            if not _only_reads(query):
                self._write()
            return self._sql.run(query, bindings)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Writes inside are undone when the block raises. Nests. No ``await`` inside."""
        with self._guard():
            self._write()
            self.database.begin()
            name = f"perdure_{self._depth}"
            self.database.execute(f"SAVEPOINT {name}")
            mark = self.stream_table.mark()
            alarm = self._alarm_change
            after = len(self._after)
            self._depth += 1
        try:
            yield
        except BaseException:
            with self._guard():
                self._depth -= 1
                self.database.execute(f"ROLLBACK TO {name}")
                self.database.execute(f"RELEASE {name}")
                self.stream_table.rewind(mark)
                self._alarm_change = alarm
                del self._after[after:]
            raise
        with self._guard():
            self._depth -= 1
            self.database.execute(f"RELEASE {name}")
        if not self._depth:
            held_back, self._after = self._after, []
            for work in held_back:
                work()

    def after_transaction(self, work: Callable[[], None]) -> None:
        """Do ``work`` when what was written until now cannot be undone by a `transaction` any more.

        That is at the end of the outermost one, or now where none is open; never, where the writes are undone.
        """
        if self._depth:
            self._after.append(work)
        else:
            work()

    async def sync(self) -> None:
        """Wait until everything written so far is durable. Use it before a side effect on the outside world.

        Raises StorageError when it cannot be made durable.
        """
        await self._sync_all()

    def delete_all(self) -> None:
        """Remove everything: values, tables of the application, streams, the alarm."""
        with self._guard():
            if self._depth:
                raise ForbiddenSQL("delete_all is refused inside transaction()")
            self._write()
            self.database.begin()
            self.stream_table.delete_everything()
            self.database.execute("DELETE FROM _perdure_kv")
            self.database.execute("PRAGMA defer_foreign_keys=ON")
            rows = self.database.execute(
                "SELECT type, name FROM sqlite_schema WHERE type IN ('view', 'trigger', 'table')"
                " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_perdure\\_%' ESCAPE '\\'"
                " ORDER BY type = 'table', name"
            )
            shadow = {
                row[0] for row in self.database.execute("SELECT name FROM pragma_table_list WHERE type = 'shadow'")
            }
            for kind, name in rows:
                if name not in shadow:
                    quoted = name.replace('"', '""')
                    self.database.execute(f'DROP {kind} IF EXISTS "{quoted}"')
            self.database.execute("UPDATE _perdure_meta SET value = 0 WHERE key = 'schema'")
            self.database.migrate(self._migrations)
            self.set_alarm(None)
            self._forget = True

    # --- the alarm

    def set_alarm(self, at_ms: int | None, *, held: bool = False) -> None:
        """Set (or with None delete) the object's alarm, Unix milliseconds.

        ``held``: the object has work under way. The node index then says 0 (at once), so that
        a restart wakes the object whatever its alarm says.
        """
        with self._guard():
            self._write()
            self.database.begin()
            if at_ms is None:
                self.database.execute("DELETE FROM _perdure_meta WHERE key = 'alarm_ms'")
            else:
                self.database.execute("INSERT OR REPLACE INTO _perdure_meta VALUES('alarm_ms', ?)", (at_ms,))
            self._alarm_change = 0 if held else at_ms

    def get_alarm(self) -> int | None:
        """When the alarm is due, Unix milliseconds; None when there is none."""
        value = self.read_meta("alarm_ms")
        return None if value is None else int(value)

    def read_meta(self, key: str) -> Any:
        """One of the engine's own values."""
        with self._guard():
            rows = self.database.execute("SELECT value FROM _perdure_meta WHERE key = ?", (key,))
            return rows[0][0] if rows else None

    def write_meta(self, key: str, value: Any) -> None:
        """Set (or with None delete) one of the engine's own values."""
        with self._guard():
            self._write()
            self.database.begin()
            if value is None:
                self.database.execute("DELETE FROM _perdure_meta WHERE key = ?", (key,))
            else:
                self.database.execute("INSERT OR REPLACE INTO _perdure_meta VALUES(?,?)", (key, value))

    # --- for whoever runs the object

    def mark_dirty(self) -> None:
        """A stream was appended to: the turn has something to commit."""
        if not self._dirty:
            self._dirty = True
            self._on_dirty()

    @property
    def dirty(self) -> bool:
        """Whether something waits for the turn's commit."""
        return self._dirty

    def commit_turn(self) -> tuple[Sections, IndexChange | None, bool]:
        """End the turn: its sections for the journal, its index change, whether pages were written.

        Raises:
            StorageError: nothing of the turn is kept.
        """
        if self.broken is None and not (self.database.in_transaction or self.stream_table.has_large_tail):
            # Only appends: no SQL, so nothing can fail. This is the path of every streamed token.
            self._dirty = False
            return [tail_section(item) for item in self.stream_table.take_pending()], None, False
        with self._guard():
            if self._depth:
                raise StorageError("transaction() was left open over an await; its turn is undone")
            self.stream_table.materialise_large()
            pages = self.database.commit()
            sections = [tail_section(item) for item in self.stream_table.take_pending()]
            if pages:
                sections.append(pages)
            index = None
            if self._alarm_change != UNCHANGED or self._forget:
                index = IndexChange(alarm_ms=self._alarm_change, forget=self._forget)
                self._alarm_change, self._forget = UNCHANGED, False
            self._dirty = False
            return sections, index, bool(pages)

    def materialise_tails(self) -> None:
        """Move the streams' tails into rows; part of the turn's commit."""
        with self._guard():
            self.stream_table.materialise_all()

    def _write(self) -> None:
        if not self._dirty:
            self.mark_dirty()
        self._forget = False  # whatever is written after delete_all belongs to an object that exists
        self.database.begin()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        if self.broken is not None:
            raise self.broken
        try:
            yield
        except StorageError as error:
            if not isinstance(error, ForbiddenSQL):
                self.broken = error
                self._on_broken(error)
            raise


def _only_reads(query: str) -> bool:
    """Whether the text is surely one reading statement; such a one needs no transaction of the turn's."""
    text = query.strip()
    return text[:7].upper() in ("SELECT ", "SELECT\n") and ";" not in text.rstrip(";")
