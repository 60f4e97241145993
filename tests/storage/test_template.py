"""The bytes that a new object begins with."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from perdure.storage.template import APPLICATION_ID, PAGE_BYTES, build_template

MIGRATIONS = ("CREATE TABLE notes(id INTEGER PRIMARY KEY)", "CREATE VIRTUAL TABLE search USING fts5(text)")


def test_the_same_migrations_make_the_same_bytes() -> None:
    """The digest names them; other migrations make others."""
    template = build_template(MIGRATIONS)
    assert build_template(MIGRATIONS) == template
    assert len(template.digest) == 16
    assert build_template(MIGRATIONS[:1]).digest != template.digest


def test_a_template_is_a_database_in_wal_mode(tmp_path: Path) -> None:
    """With the engine's tables, the class's, and the schema's number."""
    template = build_template(MIGRATIONS)
    assert template.data[:16] == b"SQLite format 3\x00"
    assert template.data[18:20] == b"\x02\x02"
    assert int.from_bytes(template.data[16:18], "big") == PAGE_BYTES == 4096
    assert template.data[68:72] == b"perd"
    assert APPLICATION_ID.to_bytes(4, "big") == b"perd"
    path = tmp_path / "object.sqlite"
    path.write_bytes(template.data)
    connection = apsw.Connection(str(path))
    assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    assert connection.execute("SELECT value FROM _perdure_meta WHERE key = 'schema'").fetchall() == [(2,)]
    assert connection.execute("SELECT count(*) FROM notes, search").fetchall() == [(0,)]
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_wrong_migration_is_the_programmers_error() -> None:
    """SQLite's own error, before any object is touched."""
    with pytest.raises(apsw.SQLError, match="syntax error"):
        build_template(("CREATE TABEL notes(id)",))
