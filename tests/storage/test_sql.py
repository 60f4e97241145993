"""SQL for applications: what may run, what is refused and with which sentence."""

from __future__ import annotations

import apsw
import pytest

from perdure.errors import ForbiddenSQL
from perdure.storage.object_storage import Storage

from .conftest import Node


def test_rows_are_dicts(storage: Storage) -> None:
    """By their columns' names, bindings by position."""
    storage.sql("INSERT INTO notes(text) VALUES(?), (?)", "a", "b")
    assert storage.sql("SELECT id, text AS t FROM notes WHERE id > ? ORDER BY id", 0) == [
        {"id": 1, "t": "a"},
        {"id": 2, "t": "b"},
    ]
    assert storage.sql("SELECT * FROM notes WHERE id > 5") == []
    assert storage.sql("INSERT INTO notes(text) VALUES('c') RETURNING id, upper(text) AS u") == [{"id": 3, "u": "C"}]


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("ATTACH '/tmp/other.db' AS other", "ATTACH, DETACH and VACUUM are refused: an object owns one file"),
        ("DETACH main", "an object owns one file"),
        ("VACUUM INTO '/tmp/copy.db'", "Use `perdure export` for a copy"),
        ("VACUUM", "an object owns one file"),
        ("BEGIN", "all writes between two awaits are one transaction already"),
        ("COMMIT", "BEGIN, COMMIT, ROLLBACK and SAVEPOINT are refused"),
        ("END", "BEGIN, COMMIT, ROLLBACK and SAVEPOINT are refused"),
        ("ROLLBACK", "BEGIN, COMMIT, ROLLBACK and SAVEPOINT are refused"),
        ("SAVEPOINT a", "Use `with self.storage.transaction\\(\\):`"),
        ("PRAGMA journal_mode=DELETE", "PRAGMA journal_mode is refused: the engine depends on it"),
        ("PRAGMA synchronous=FULL", "PRAGMA synchronous is refused"),
        ("PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA wal_checkpoint is refused"),
        ("PRAGMA writable_schema=ON", "PRAGMA writable_schema is refused"),
        ("PRAGMA foreign_keys=OFF", "PRAGMA foreign_keys is refused"),
        ("PRAGMA page_size=512", "PRAGMA page_size is refused"),
        ("INSERT INTO _perdure_kv VALUES('a', 1)", "Tables that begin with _perdure_ belong to the engine"),
        ("UPDATE _perdure_streams SET position = 0", "can only be read"),
        ("DELETE FROM _PERDURE_META", "can only be read"),
        ("DROP TABLE _perdure_kv", "can only be read"),
        ("ALTER TABLE _perdure_kv RENAME TO mine", "can only be read"),
        ("CREATE TABLE _perdure_mine(x)", "can only be read"),
        ("CREATE INDEX mine ON _perdure_kv(value)", "can only be read"),
        ("CREATE TRIGGER mine AFTER INSERT ON _perdure_kv BEGIN SELECT 1; END", "can only be read"),
        ("CREATE TEMP TRIGGER mine AFTER INSERT ON _perdure_kv BEGIN SELECT 1; END", "can only be read"),
        ("SELECT load_extension('x')", "The function load_extension is refused"),
    ],
)
def test_what_would_break_the_engine_is_refused(node: Node, storage: Storage, statement: str, sentence: str) -> None:
    """With a sentence that says why and what to do; the turn goes on."""
    storage.put("before", 1)
    with pytest.raises(ForbiddenSQL, match=sentence):
        storage.sql(statement)
    storage.put("after", 2)
    assert storage.list() == {"before": 1, "after": 2}
    assert storage.broken is None


def test_engines_tables_can_be_read(storage: Storage) -> None:
    """A curious application finds its values."""
    storage.put("a", [1])
    assert storage.sql("SELECT key, value FROM _perdure_kv") == [{"key": "a", "value": "[1]"}]


def test_harmless_pragmas_work(storage: Storage) -> None:
    """What only reads, or ends with the transaction."""
    assert [row["name"] for row in storage.sql("PRAGMA table_info(notes)")] == ["id", "text"]
    assert storage.sql("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    storage.sql("PRAGMA defer_foreign_keys=ON")


def test_full_text_search_is_there(storage: Storage) -> None:
    """FTS5 tables can be made, filled and searched."""
    storage.sql("CREATE VIRTUAL TABLE search USING fts5(text)")
    storage.sql("INSERT INTO search VALUES('the quick brown fox'), ('lazy dogs')")
    assert storage.sql("SELECT rowid, text FROM search WHERE search MATCH 'quick OR nothing'") == [
        {"rowid": 1, "text": "the quick brown fox"}
    ]


def test_foreign_keys_are_enforced(storage: Storage) -> None:
    """Without asking for it."""
    storage.sql("CREATE TABLE likes(note INTEGER REFERENCES notes(id))")
    with pytest.raises(apsw.ConstraintError, match="FOREIGN KEY"):
        storage.sql("INSERT INTO likes VALUES(5)")


def test_a_broken_constraint_leaves_the_turn_going(node: Node) -> None:
    """The statement is undone, what came before it is committed."""
    opened = node.open("one", ("CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)",))
    opened.storage.sql("INSERT INTO notes(text) VALUES('a')")
    with pytest.raises(apsw.ConstraintError, match="UNIQUE"):
        opened.storage.sql("INSERT INTO notes(text) VALUES('b'), ('a')")
    with pytest.raises(apsw.SQLError, match="no such table"):
        opened.storage.sql("SELECT * FROM missing")
    with pytest.raises(apsw.BindingsError):
        opened.storage.sql("SELECT ?", 1, 2)
    opened.storage.sql("INSERT INTO notes(text) VALUES('c')")
    node.save(opened)
    assert opened.storage.sql("SELECT text FROM notes ORDER BY text") == [{"text": "a"}, {"text": "c"}]
    node.store.close_object(opened)


def test_a_read_is_no_write(storage: Storage) -> None:
    """A SELECT begins no transaction: nothing waits to be committed."""
    storage.sql("SELECT 1")
    storage.get("x")
    storage.list()
    assert not storage.dirty
    storage.sql("SELECT 1; INSERT INTO notes(text) VALUES('x')")
    assert storage.dirty
