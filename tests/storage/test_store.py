"""The data folder: locks, formats, files that are gone, and refusals that keep everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from perdure.errors import CorruptionError, DataFolderLocked, FormatError
from perdure.storage import store as store_module
from perdure.storage.store import Store
from perdure.testing.crash_model import Silent
from perdure.testing.journal_contract import HeardListener
from perdure.values import ObjectId

from .conftest import Node


def reopen(folder: Path) -> Store:
    """A store on the folder, pumped by hand."""
    return Store(folder, HeardListener(), notify=lambda callback: callback(), threaded=False)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the folder but what SQLite and the lock keep for themselves."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".sqlite-shm", ".sqlite-wal") and path.name != "lock"
    }


def saved(node: Node, name: str) -> Path:
    """Make a checkpointed object, close it; its file."""
    opened = node.open(name)
    opened.storage.put("key", name)
    node.save(opened)
    node.checkpoint(opened)
    node.store.close_object(opened)
    return opened.path


def test_a_second_process_is_told_who_has_the_folder(node: Node) -> None:
    """With the process's number, and what to do."""
    program = (
        "import sys, pathlib; from perdure.storage.store import Store\n"
        "from perdure.testing.journal_contract import HeardListener\n"
        "Store(pathlib.Path(sys.argv[1]), HeardListener(), notify=lambda callback: callback())\n"
    )
    second = subprocess.run(
        [sys.executable, "-c", program, str(node.folder)], capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    last = second.stderr.strip().splitlines()[-1]
    assert "DataFolderLocked" in last
    assert "is in use by process " in last
    assert last.endswith("stop it, or choose another folder with --data")
    with pytest.raises(DataFolderLocked):
        reopen(node.folder)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """Nothing is touched; the lock is let go."""
    (tmp_path / "perdure.json").write_text('{"format": 3, "shards": 256}')
    for _ in range(2):
        with pytest.raises(FormatError, match=r"has format 3; this perdure knows 2\. Install a newer one\."):
            reopen(tmp_path)
    assert contents(tmp_path) == {"perdure.json": b'{"format": 3, "shards": 256}'}


def test_a_format_from_before_the_first_release_is_refused(tmp_path: Path) -> None:
    """There is no way from it, and nothing is touched."""
    (tmp_path / "perdure.json").write_text('{"format": 1, "shards": 256}')
    with pytest.raises(FormatError, match=r"has format 1, of a perdure that was never released"):
        reopen(tmp_path)
    assert contents(tmp_path) == {"perdure.json": b'{"format": 1, "shards": 256}'}


def test_an_older_format_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step, before anything is opened."""
    reopen(tmp_path).close()
    called: list[Path] = []
    monkeypatch.setattr(store_module, "FORMAT", 4)
    monkeypatch.setattr(store_module, "MIGRATIONS", {2: called.append, 3: called.append})
    reopen(tmp_path).close()
    assert called == [tmp_path, tmp_path]
    assert (tmp_path / "perdure.json").read_bytes() == b'{"format":4,"shards":256}'


@pytest.mark.parametrize("content", [b"", b'{"format": "x"}', b"\xff"])
def test_a_broken_format_file_is_corruption(tmp_path: Path, content: bytes) -> None:
    """It is kept as it is."""
    (tmp_path / "perdure.json").write_bytes(content)
    with pytest.raises(CorruptionError, match=r"perdure\.json"):
        reopen(tmp_path)
    assert contents(tmp_path) == {"perdure.json": content}


def test_a_journal_without_a_format_is_corruption(node: Node) -> None:
    """A folder that lost its format is not taken for a new one."""
    saved(node, "one")
    node.store.close()
    (node.folder / "perdure.json").unlink()
    before = contents(node.folder)
    with pytest.raises(CorruptionError, match=r"a journal but no perdure\.json"):
        reopen(node.folder)
    assert contents(node.folder) == before
    (node.folder / "perdure.json").write_text('{"format": 2, "shards": 256}')
    node.start()


def test_an_objects_missing_file_is_corruption(node: Node) -> None:
    """An object that exists is never silently empty; the others are as they were."""
    path, other = saved(node, "one"), saved(node, "other")
    path.unlink()
    before = other.read_bytes()
    with pytest.raises(CorruptionError, match="the file of Room/one is gone"):
        node.open("one")
    assert not path.exists()
    assert other.read_bytes() == before


def test_a_missing_file_that_the_journal_changes_stops_the_start(node: Node) -> None:
    """Recovery names it and deletes nothing, neither files nor records."""
    path = saved(node, "one")
    opened = node.open("one")
    opened.storage.put("key", "changed")
    node.save(opened)
    node.store.close_object(opened)
    node.store.close()
    content = path.read_bytes()
    path.unlink()
    for _ in range(2):
        with pytest.raises(CorruptionError, match="the file of an object that the journal changes is gone"):
            reopen(node.folder)
    path.write_bytes(content)
    node.start()
    opened = node.open("one")
    assert opened.storage.get("key") == "changed"
    node.store.close_object(opened)


def test_a_record_that_does_not_decode_stops_the_start(node: Node) -> None:
    """The error names object and record; every file and every record is kept."""
    opened = node.open("one")
    opened.storage.put("key", 1)
    sequence = node.save(opened)
    node.store.close_object(opened)
    node.store.close()
    connection = apsw.Connection(str(node.folder / "journal.sqlite"))
    ((record,),) = connection.execute("SELECT record FROM journal").fetchall()
    connection.execute("UPDATE journal SET record = CAST(x'02' || substr(record, 2) AS BLOB)")
    connection.close()
    before = contents(node.folder)
    for _ in range(2):
        with pytest.raises(CorruptionError, match=f"Room/one, record {sequence}: the record does not decode"):
            reopen(node.folder)
    after = contents(node.folder)
    assert {name: after[name] for name in after if name != "journal.sqlite"} == {
        name: before[name] for name in before if name != "journal.sqlite"
    }
    connection = apsw.Connection(str(node.folder / "journal.sqlite"))
    connection.execute("UPDATE journal SET record = ?", (record,))
    connection.close()
    node.start()
    opened = node.open("one")
    assert opened.storage.get("key") == 1
    node.store.close_object(opened)


def test_a_missing_template_stops_the_start(node: Node) -> None:
    """An object that begins with it cannot be rebuilt; nothing is deleted."""
    opened = node.open("one")
    opened.storage.put("key", 1)
    node.save(opened)
    node.store.close_object(opened)
    node.store.close()
    (template,) = (node.folder / "templates").iterdir()
    content = template.read_bytes()
    template.unlink()
    with pytest.raises(CorruptionError, match="the template that an object begins with is gone"):
        reopen(node.folder)
    template.write_bytes(content)
    node.start()


def test_a_classs_new_migrations_reach_old_files(node: Node) -> None:
    """At the object's next opening, in one commit with what it does then."""
    first = ("CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT)",)
    second = (*first, "ALTER TABLE notes ADD COLUMN stars INTEGER DEFAULT 5")
    opened = node.open("one", first)
    opened.storage.sql("INSERT INTO notes(text) VALUES('old')")
    node.save(opened)
    node.checkpoint(opened)
    node.store.close_object(opened)
    opened = node.open("one", second)
    assert opened.storage.dirty
    assert opened.storage.sql("SELECT * FROM notes") == [{"id": 1, "text": "old", "stars": 5}]
    node.save(opened)
    node.store.close_object(opened)
    node.store.close()
    node.start()
    opened = node.open("one", second)
    assert not opened.storage.dirty
    assert opened.storage.sql("SELECT stars FROM notes") == [{"stars": 5}]
    node.store.close_object(opened)
    with pytest.raises(FormatError, match="newer version of its class"):
        node.open("one", first)


def test_an_object_that_never_saved_anything_leaves_nothing(node: Node) -> None:
    """No file, no entry in the index."""
    opened = node.open("one")
    assert opened.path.exists()
    node.store.close_object(opened)
    assert not opened.path.exists()
    assert node.store.index.objects() == []


def test_names_that_look_alike_have_files_of_their_own(node: Node) -> None:
    """Case, signs and length make no two objects share a file; every name gives a short file name."""
    names = ["room", "Room", "ROOM", "r/oom", "../room", "röm", "x" * 512, "x" * 511 + "y", ".", "✓"]
    paths = [node.store.path_of(ObjectId("Room", name)) for name in names]
    assert len({str(path).lower() for path in paths}) == len(names)
    assert all(path.parent == node.folder / "objects" / "Room" for path in paths)
    assert all(len(path.name.encode()) < 80 for path in paths)


def test_a_checkpoint_kills_its_objects_records_only(node: Node) -> None:
    """The journal keeps what is newer, and what belongs to others."""
    one, other = node.open("one"), node.open("other")
    one.storage.put("key", 1)
    node.save(one)
    other.storage.put("key", 1)
    node.save(other)
    node.store.materialise(one)
    node.store.journal.pump()
    checkpoint = node.store.begin_checkpoint(one)
    assert checkpoint is not None
    one.storage.put("key", 2)
    newest = node.save(one)
    checkpoint.run()
    node.store.finish_checkpoint(checkpoint)
    node.store.journal.pump()
    assert [(e.object_key, e.sequence) for e in node.store.journal.replay()] == [
        ("Room/other", 2),
        ("Room/one", newest),
    ]
    assert node.store.oldest_live(5) == ["Room/other", "Room/one"]
    node.store.close_object(one)
    node.store.close_object(other)


def test_pages_that_are_not_durable_stay_out_of_the_file(node: Node) -> None:
    """A checkpoint is not begun while the journal has not written the object's newest commit."""
    opened = node.open("one")
    opened.storage.put("key", 1)
    node.store.materialise(opened)
    assert node.store.begin_checkpoint(opened) is None
    assert not node.store.checkpointing("Room/one")
    node.store.journal.pump()
    node.checkpoint(opened)
    node.store.close_object(opened)


def test_an_object_that_never_rests_is_checkpointed(node: Node) -> None:
    """Commits that are still under way do not keep pages from moving; the journal forgets when they are durable."""
    opened = node.open("one")
    opened.storage.put("key", 1)
    node.store.materialise(opened)
    node.store.journal.pump()
    opened.storage.put("key", 2)
    newest = node.store.commit(opened)
    checkpoint = node.store.begin_checkpoint(opened)
    assert checkpoint is not None
    checkpoint.run()
    with pytest.raises(AssertionError):
        node.store.finish_checkpoint(checkpoint)  # the file has lost a page to a commit that may yet be lost
    node.store.journal.pump()
    node.store.finish_checkpoint(checkpoint)
    node.store.journal.pump()
    assert [entry.sequence for entry in node.store.journal.replay()] == [newest]
    node.store.close_object(opened)


def test_recovery_empties_the_journal(node: Node) -> None:
    """And reports each object."""
    for number in range(3):
        opened = node.open(f"room {number}")
        opened.storage.put("key", number)
        opened.storage.stream_table.append(opened.storage.stream_table.create("s", "text/plain", 0), [b"x"])
        node.save(opened)
        node.store.close_object(opened)
    node.store.close()
    progress: list[tuple[int, int]] = []
    store = Store(
        node.folder,
        HeardListener(),
        notify=lambda callback: callback(),
        threaded=False,
        on_recovery=lambda done, total: progress.append((done, total)),
    )
    assert store.recovered == 3
    assert progress[-1] == (3, 3)
    assert list(store.journal.replay()) == []
    opened = store.open(ObjectId("Room", "room 2"), Silent(), ())
    assert opened.storage.get("key") == 2
    assert opened.storage.stream_table.names() == ["s"]
    store.close_object(opened)
    store.close()
    node.start()
