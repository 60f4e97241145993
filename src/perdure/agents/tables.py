"""An agent's own tables. Each is made when something is first written to it, in the commit of that write.

An agent that uses none of this has none of them. Whether a table is there is asked each time, in a few
microseconds, and never remembered: `Storage.delete_all` and a rolled back `Storage.transaction` remove it.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from ..storage.object_storage import Storage
from ..storage.sql import Binding
from .values import decode_value

Record = TypeVar("Record", bound=msgspec.Struct)

JSON_COLUMNS = frozenset({"payload", "stash", "result"})
"""Columns whose text is a JSON value."""

SCHEMA = {
    "agent_values": "CREATE TABLE IF NOT EXISTS agent_values(key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
    "agent_schedules": """
        CREATE TABLE IF NOT EXISTS agent_schedules(
            id TEXT PRIMARY KEY, kind TEXT NOT NULL, callback TEXT NOT NULL, payload TEXT NOT NULL,
            due_ms INTEGER NOT NULL, planned_ms INTEGER NOT NULL, attempts INTEGER NOT NULL, retry TEXT NOT NULL,
            cron TEXT, time_zone TEXT, interval_ms INTEGER
        );
        CREATE INDEX IF NOT EXISTS agent_schedules_due ON agent_schedules(due_ms)
    """,
    "agent_queue": """
        CREATE TABLE IF NOT EXISTS agent_queue(
            seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, callback TEXT NOT NULL,
            payload TEXT NOT NULL, created_ms INTEGER NOT NULL, due_ms INTEGER NOT NULL,
            attempts INTEGER NOT NULL, retry TEXT NOT NULL
        )
    """,
    "agent_dead_letters": """
        CREATE TABLE IF NOT EXISTS agent_dead_letters(
            seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, source TEXT NOT NULL,
            source_id TEXT NOT NULL, callback TEXT NOT NULL, payload TEXT NOT NULL, attempts INTEGER NOT NULL,
            retry TEXT NOT NULL, error TEXT NOT NULL, died_ms INTEGER NOT NULL
        )
    """,
    "agent_fibers": """
        CREATE TABLE IF NOT EXISTS agent_fibers(
            id TEXT PRIMARY KEY, name TEXT NOT NULL, method TEXT, payload TEXT NOT NULL, status TEXT NOT NULL,
            stash TEXT, result TEXT, error TEXT, idempotency_key TEXT UNIQUE, kept INTEGER NOT NULL,
            parked INTEGER NOT NULL, interruptions INTEGER NOT NULL, created_ms INTEGER NOT NULL, ended_ms INTEGER
        )
    """,
    "agent_children": """
        CREATE TABLE IF NOT EXISTS agent_children(
            class_name TEXT NOT NULL, name TEXT NOT NULL, created_ms INTEGER NOT NULL, PRIMARY KEY(class_name, name)
        ) WITHOUT ROWID
    """,
}
"""By name: the statement that makes the table."""


class Tables:
    """Reads and writes of rows, over tables that may not be there yet."""

    __slots__ = ("_storage",)

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def has(self, table: str) -> bool:
        """Whether the table is there."""
        return bool(self._storage.sql("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", table))

    def read(self, table: str, query: str, *bindings: Binding) -> list[dict[str, Any]]:
        """Rows of a query on the table; none where there is no table."""
        return self._storage.sql(query, *bindings) if self.has(table) else []

    def change(self, table: str, query: str, *bindings: Binding) -> list[dict[str, Any]]:
        """Run an UPDATE or DELETE on the table, with what it returns; nothing where there is no table."""
        return self._storage.sql(query, *bindings) if self.has(table) else []

    def make(self, table: str) -> None:
        """See that the table is there."""
        self._storage.sql(SCHEMA[table])

    def insert(self, table: str, **values: Binding) -> None:
        """Add a row (or replace the one with its key); makes the table."""
        self.make(table)
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        self._storage.sql(f"INSERT OR REPLACE INTO {table}({names}) VALUES({marks})", *values.values())

    # --- single values

    def get_value(self, key: str) -> str | None:
        """A value of ``agent_values``, or None."""
        rows = self.read("agent_values", "SELECT value FROM agent_values WHERE key = ?", key)
        return rows[0]["value"] if rows else None

    def put_value(self, key: str, value: str) -> None:
        """Set a value of ``agent_values``."""
        self.insert("agent_values", key=key, value=value)


def as_record(kind: type[Record], row: dict[str, Any]) -> Record:
    """What is told of a row: the fields of ``kind``, those that are JSON decoded."""
    values = {name: decode_value(row[name]) if name in JSON_COLUMNS else row[name] for name in kind.__struct_fields__}
    return kind(**values)
