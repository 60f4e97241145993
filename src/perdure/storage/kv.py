"""Values by key: the simplest storage of an object.

A value is anything JSON-like or a `msgspec.Struct`. It is stored as JSON text, so that a
person with an SQLite shell can read it; ``bytes`` (and only bare ``bytes``) as they are.
Keys are ordered by the bytes of their UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import LimitExceeded
from .database import Database

KEY_BYTES_MAX = 2_048
VALUE_BYTES_MAX = 64 * 1024 * 1024
LIST_LIMIT = 1_000
"""Entries that `list` returns unless told otherwise."""


class KeyValues:
    """``get``, ``put``, ``delete``, ``list`` over ``_perdure_kv``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str, default: Any = None, *, type: Any = Any) -> Any:
        """The value, or ``default``. ``type`` (a Struct, ``list[int]``, ...) is what it is decoded to."""
        rows = self._database.execute("SELECT value FROM _perdure_kv WHERE key = ?", (key,))
        return _decode(rows[0][0], type) if rows else default

    def put(self, key: str | Mapping[str, Any], value: Any = None) -> None:
        """Store one value, or several at once from a mapping.

        Raises:
            LimitExceeded: ``key_bytes_max`` or ``value_bytes_max``.
            TypeError: the value is neither JSON-like nor a Struct.
        """
        entries = [(key, value)] if isinstance(key, str) else list(key.items())
        encoded = [(_check_key(name), _encode(item)) for name, item in entries]
        self._database.begin()
        for row in encoded:
            self._database.execute(
                "INSERT INTO _perdure_kv VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
                row,
            )

    def delete(self, *keys: str) -> int:
        """Remove the keys; return how many were there."""
        self._database.begin()
        connection = self._database.connection
        before = connection.total_changes()
        for key in keys:
            self._database.execute("DELETE FROM _perdure_kv WHERE key = ?", (key,))
        return connection.total_changes() - before

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
        """Entries with ``start <= key < end`` that begin with ``prefix``, in order of their keys."""
        conditions, bindings = ["1"], []
        if prefix:
            conditions.append("key >= ?")
            bindings.append(prefix)
            if (after := _after_prefix(prefix)) is not None:
                conditions.append("key < ?")
                bindings.append(after)
        if start is not None:
            conditions.append("key >= ?")
            bindings.append(start)
        if end is not None:
            conditions.append("key < ?")
            bindings.append(end)
        order = "DESC" if reverse else "ASC"
        rows = self._database.execute(
            f"SELECT key, value FROM _perdure_kv WHERE {' AND '.join(conditions)} ORDER BY key {order} LIMIT ?",
            (*bindings, limit),
        )
        return {key: _decode(value, type) for key, value in rows}


def _check_key(key: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key is a string, not {key.__class__.__name__}")
    size = len(key.encode())
    if size > KEY_BYTES_MAX:
        raise LimitExceeded("key_bytes_max", size, KEY_BYTES_MAX)
    return key


def _encode(value: Any) -> str | bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        encoded: str | bytes = data
    else:
        data = msgspec.json.encode(value)
        encoded = data.decode()
    if len(data) > VALUE_BYTES_MAX:
        raise LimitExceeded("value_bytes_max", len(data), VALUE_BYTES_MAX)
    return encoded


def _decode(stored: str | bytes, type: Any) -> Any:
    return stored if isinstance(stored, bytes) else msgspec.json.decode(stored, type=type)


def _after_prefix(prefix: str) -> str | None:
    """The smallest text that is greater than all texts with the prefix; None when there is none."""
    for index in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[index])
        if code < 0x10FFFF:
            following = code + 1 if code + 1 != 0xD800 else 0xE000
            return prefix[:index] + chr(following)
    return None
