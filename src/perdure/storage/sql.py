"""SQL for applications: which statements an object may run, and rows as dicts.

An object's own SQL runs in the transaction of its turn, so statements that would end it,
leave the file, or touch the engine's tables are refused before they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from ..errors import ForbiddenSQL, StorageError
from .database import Database
from .journal import translate

READABLE_PRAGMAS = frozenset(
    {
        "collation_list",
        "compile_options",
        "data_version",
        "foreign_key_check",
        "foreign_key_list",
        "function_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "page_count",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
"""Pragmas that an object may read; none of them changes the file or the connection."""

SWITCHABLE_PRAGMAS = frozenset({"case_sensitive_like", "defer_foreign_keys"})
"""Pragmas that an object may set: they end with the transaction or only touch its own queries."""

ENGINE_PREFIX = "_perdure_"

Binding = str | int | float | bytes | bool | None

# SQLite caches prepared statements by their text; the mark keeps an application's statements
# apart from the engine's, so that one judged by the authorizer is never mistaken for one that was not.
_MARK = "/*app*/ "

_NO_OTHER_FILES = "ATTACH, DETACH and VACUUM are refused: an object owns one file. Use `perdure export` for a copy."

_WRITES = frozenset(
    {
        apsw.SQLITE_INSERT,
        apsw.SQLITE_UPDATE,
        apsw.SQLITE_DELETE,
        apsw.SQLITE_DROP_TABLE,
        apsw.SQLITE_ALTER_TABLE,
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_CREATE_TEMP_TRIGGER,
        apsw.SQLITE_CREATE_INDEX,
    }
)


class SqlRunner:
    """Runs an application's statements on an object's file."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._refused = ""

    def run(self, query: str, bindings: Sequence[Binding]) -> list[dict[str, Any]]:
        """Run one or more statements; rows of all of them as dicts.

        Raises:
            ForbiddenSQL: the statement may not run in an object.
            apsw.SQLError, apsw.ConstraintError: the statement is wrong or breaks a constraint; what it
                did is undone, the turn goes on.
            StorageError: the disk failed; the instance must be discarded.
        """
        database = self._database
        database.watch(self._authorize)
        self._refused = ""
        try:
            cursor = database.connection.execute(_MARK + query, tuple(bindings))
            names: list[str] | None = None
            rows: list[dict[str, Any]] = []
            for row in cursor:
                if names is None:
                    names = [column[0] for column in cursor.get_description()]
                rows.append(dict(zip(names, row, strict=True)))
            return rows
        except (
            apsw.AuthError,
            apsw.SQLError,
            apsw.ConstraintError,
            apsw.MismatchError,
            apsw.BindingsError,
        ) as error:
            if "VACUUM" in str(error):
                self._refused = _NO_OTHER_FILES
            if self._refused:
                raise ForbiddenSQL(self._refused) from error
            if database.in_transaction and not database.connection.in_transaction:
                raise StorageError(f"SQLite gave the turn's transaction up: {error}") from error
            raise
        except apsw.Error as error:
            raise translate(error, str(database.path)) from error
        finally:
            database.watch(None)

    def _authorize(
        self, action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None
    ) -> int:
        refusal = _refusal(action, first, second)
        if refusal:
            self._refused = refusal
            return apsw.SQLITE_DENY
        return apsw.SQLITE_OK


def _refusal(action: int, first: str | None, second: str | None) -> str:
    name = (first or "").lower()
    if action in (apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH):
        return _NO_OTHER_FILES
    if action in (apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT):
        return (
            "BEGIN, COMMIT, ROLLBACK and SAVEPOINT are refused: all writes between two awaits are one "
            "transaction already. Use `with self.storage.transaction():` for a part that may roll back."
        )
    if action == apsw.SQLITE_PRAGMA and not ((name in READABLE_PRAGMAS) or (name in SWITCHABLE_PRAGMAS)):
        return f"PRAGMA {first} is refused: the engine depends on it."
    # The table's name is SQLite's first argument or, for an index, a trigger and ALTER TABLE, its second.
    if action in _WRITES and (name.startswith(ENGINE_PREFIX) or (second or "").lower().startswith(ENGINE_PREFIX)):
        return f"Tables that begin with {ENGINE_PREFIX} belong to the engine and can only be read."
    if action == apsw.SQLITE_FUNCTION and (second or "").lower() in (
        "load_extension",
        "writefile",
        "readfile",
    ):
        return f"The function {second} is refused in objects."
    return ""
