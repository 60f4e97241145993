"""The capture of what commits write, and readers from outside."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from perdure.errors import CorruptionError, FormatError, StorageFull
from perdure.storage.database import Database
from perdure.storage.files import Files
from perdure.storage.record import decode_record
from perdure.storage.redo import Redo
from perdure.storage.template import build_template

TEMPLATE = build_template(())


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An open object file."""
    path = tmp_path / "object.sqlite"
    path.write_bytes(TEMPLATE.data)
    database = Database(path, Files())
    yield database
    database.close()


def put(database: Database, key: str, value: str) -> bytes:
    """One commit; the section with its pages."""
    database.begin()
    database.execute("INSERT OR REPLACE INTO _perdure_kv VALUES(?,?)", (key, value))
    return database.commit()


def replayed(folder: Path, *sections: bytes) -> dict[str, str]:
    """The values in a file that is rebuilt from the template and these sections."""
    path = folder / "rebuilt.sqlite"
    path.write_bytes(TEMPLATE.data)
    redo = Redo()
    for section in sections:
        redo.add(decode_record(b"\x01" + section, "here"))
    redo.apply(path, Files(), lambda digest: b"")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return dict(connection.execute("SELECT key, value FROM _perdure_kv").fetchall())


def test_the_captured_pages_rebuild_the_file(database: Database, tmp_path: Path) -> None:
    """Any number of commits, written over the template, give the file as it was after the last."""
    sections = [put(database, f"key {number}", "x" * 3_000) for number in range(20)]
    sections.append(put(database, "key 3", "changed"))
    values = replayed(tmp_path, *sections)
    assert len(values) == 20
    assert values["key 3"] == "changed"
    assert len(replayed(tmp_path, *sections[:7])) == 7


def test_one_small_commit_is_one_page(database: Database) -> None:
    """Header, page: nothing else goes into the journal."""
    put(database, "a", "1")
    assert len(put(database, "a", "2")) == 5 + 4 + 24 + 4096


def in_the_file(path: Path) -> dict[str, str]:
    """What the file holds, without its log."""
    copy = Path(shutil.copy(path, f"{path}-copy"))
    with closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as connection:
        return dict(connection.execute("SELECT key, value FROM _perdure_kv"))


def test_a_commit_that_changed_nothing_captures_nothing(database: Database) -> None:
    """No pages, no section."""
    assert database.commit() == b""
    database.begin()
    database.execute("DELETE FROM _perdure_kv WHERE key = 'nothing'")
    assert database.commit() == b""


def test_capture_goes_on_when_the_log_starts_over(database: Database, tmp_path: Path) -> None:
    """After a checkpoint SQLite writes from the log's beginning again; nothing is missed or taken twice."""
    sections = []
    for number in range(12):
        sections.append(put(database, f"key {number}", f"value {number}"))
        if number % 3 == 2:
            assert database.checkpoint()
    assert database.log_frames <= 3
    assert replayed(tmp_path, *sections) == {f"key {number}": f"value {number}" for number in range(12)}


def test_a_transaction_larger_than_the_cache_is_captured_whole(database: Database, tmp_path: Path) -> None:
    """Pages that SQLite spilled into the log before the commit are in the record, too."""
    put(database, "before", "1")
    database.begin()
    for number in range(400):
        database.execute("INSERT INTO _perdure_kv VALUES(?,?)", (f"key {number:04}", "x" * 4_000))
    large = database.commit()
    small = put(database, "after", "2")
    values = replayed(tmp_path, put(database, "x", "y"), large, small)
    assert len(values) == 402
    assert values["after"] == "2"


def test_a_rolled_back_savepoint_is_not_captured(database: Database, tmp_path: Path) -> None:
    """The record holds what was committed."""
    database.begin()
    database.execute("INSERT INTO _perdure_kv VALUES('kept', '1')")
    database.execute("SAVEPOINT s")
    database.execute("INSERT INTO _perdure_kv VALUES('undone', '1')")
    database.execute("ROLLBACK TO s")
    database.execute("RELEASE s")
    assert replayed(tmp_path, database.commit()) == {"kept": "1"}


class Reader:
    """The standard library's SQLite, read-only, in a process of its own (a process shares its locks with itself)."""

    PROGRAM = """
import sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, isolation_level=None)
for line in sys.stdin:
    print(connection.execute(line).fetchall(), flush=True)
"""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, query: str) -> str:
        """The rows, as Python writes them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{query}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def test_a_reader_from_outside_sees_commits_live(database: Database) -> None:
    """Another program reads the open file, and does not stop commits."""
    put(database, "a", "1")
    with closing(Reader(database.path)) as reader:
        assert reader.ask("SELECT value FROM _perdure_kv") == "[('1',)]"
        put(database, "a", "2")
        assert reader.ask("SELECT value FROM _perdure_kv") == "[('2',)]"


def test_a_reader_in_the_middle_of_a_query_puts_a_checkpoint_off(database: Database, tmp_path: Path) -> None:
    """It keeps its snapshot; the checkpoint says that it was not complete, and capture stays right."""
    sections = [put(database, f"key {number}", "x" * 2_000) for number in range(5)]
    with closing(Reader(database.path)) as reader:
        reader.ask("BEGIN")
        assert reader.ask("SELECT count(*) FROM _perdure_kv") == "[(5,)]"
        sections.append(put(database, "key 9", "later"))
        assert not database.checkpoint()
        sections.append(put(database, "key 8", "later still"))
        assert reader.ask("SELECT count(*) FROM _perdure_kv") == "[(5,)]"
    assert database.checkpoint()
    sections.append(put(database, "key 7", "after"))
    assert replayed(tmp_path, *sections)["key 7"] == "after"
    assert len(replayed(tmp_path, *sections)) == 8


def test_a_checkpoint_moves_nothing_that_came_after_its_mark(database: Database, tmp_path: Path) -> None:
    """Commits may go on while the marked ones become durable; their pages stay out of the file until the next."""
    sections = [put(database, "before", "1")]
    database.mark()
    database.begin()
    database.execute("CREATE TABLE another(x)")
    sections.append(database.commit())
    assert database.checkpoint()
    assert in_the_file(database.path) == {"before": "1"}
    database.mark()
    sections.append(put(database, "after", "2"))
    assert database.checkpoint()
    assert in_the_file(database.path) == {"before": "1"}
    assert database.checkpoint()
    assert in_the_file(database.path) == {"before": "1", "after": "2"}
    assert database.log_frames == 0
    sections.append(put(database, "later", "4"))
    assert replayed(tmp_path, *sections) == {"before": "1", "after": "2", "later": "4"}


def test_a_mark_that_is_dropped_leaves_no_reader(database: Database) -> None:
    """A checkpoint that was called off does not keep the log from starting over."""
    put(database, "a", "1")
    database.mark()
    put(database, "b", "1")
    database.unmark()
    assert database.checkpoint()
    put(database, "c", "1")
    assert database.log_frames <= 2


def test_closing_forgets_what_was_not_checkpointed(tmp_path: Path) -> None:
    """The file on the disk is as of the checkpoint: the journal has the rest."""
    path = tmp_path / "object.sqlite"
    path.write_bytes(TEMPLATE.data)
    database = Database(path, Files())
    put(database, "kept", "1")
    assert database.checkpoint()
    put(database, "forgotten", "1")
    database.close()
    assert [found.name for found in tmp_path.iterdir()] == ["object.sqlite"]
    database = Database(path, Files())
    assert database.execute("SELECT key FROM _perdure_kv") == [("kept",)]
    database.close()


def test_a_log_from_before_a_crash_is_never_read(tmp_path: Path) -> None:
    """Opening removes it."""
    path = tmp_path / "object.sqlite"
    path.write_bytes(TEMPLATE.data)
    database = Database(path, Files())
    put(database, "a", "1")
    log = Path(f"{path}-wal").read_bytes()
    database.close()
    Path(f"{path}-wal").write_bytes(log)
    database = Database(path, Files())
    assert database.execute("SELECT key FROM _perdure_kv") == []
    database.close()


@pytest.mark.parametrize("content", [b"", b"no database at all" * 500])
def test_a_file_that_is_none_of_ours_is_corruption(tmp_path: Path, content: bytes) -> None:
    """It is named and kept."""
    path = tmp_path / "object.sqlite"
    path.write_bytes(content)
    with pytest.raises(CorruptionError, match=r"object\.sqlite"):
        Database(path, Files())
    assert path.read_bytes() == content


def test_an_object_has_a_size_limit(tmp_path: Path) -> None:
    """A write past it is `StorageFull`."""
    path = tmp_path / "object.sqlite"
    path.write_bytes(TEMPLATE.data)
    database = Database(path, Files(), bytes_max=200_000)
    put(database, "small", "x" * 100_000)
    with pytest.raises(StorageFull):
        put(database, "large", "x" * 200_000)
    database.close()


def test_migrations_run_once_and_in_order(database: Database) -> None:
    """Only what the file has not had; a file from a newer class is refused."""
    assert database.migrate(("CREATE TABLE a(x)",))
    database.commit()
    assert not database.migrate(("CREATE TABLE a(x)",))
    assert database.migrate(("CREATE TABLE a(x)", "INSERT INTO a VALUES(1)", "UPDATE a SET x = x + 1"))
    database.commit()
    assert database.execute("SELECT x FROM a") == [(2,)]
    with pytest.raises(FormatError, match=r"schema 3, this code knows 1"):
        database.migrate(("CREATE TABLE a(x)",))
