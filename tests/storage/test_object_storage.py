"""Transactions within a turn, the alarm, and emptying an object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from perdure.errors import ForbiddenSQL, StorageError, StreamClosed, StreamNotFound
from perdure.storage.object_storage import Storage
from perdure.storage.stored_stream import StoredStream

from .conftest import Node

TABLES = (
    "CREATE TABLE parents(id INTEGER PRIMARY KEY)",
    "CREATE TABLE children(parent INTEGER NOT NULL REFERENCES parents(id))",
)


class Undo(Exception):
    """What the tests roll back with."""


@contextmanager
def undone(storage: Storage) -> Iterator[None]:
    """A transaction that is rolled back at its end."""
    with suppress(Undo), storage.transaction():
        yield
        raise Undo


def stream_of(storage: Storage, name: str) -> StoredStream:
    """The stream, which must be there."""
    stream = storage.stream_table.get(name)
    assert stream is not None
    return stream


def test_a_transaction_that_raises_is_undone_whole(storage: Storage) -> None:
    """Values, rows, streams and the alarm are as before the block; what came before it stays."""
    table = storage.stream_table
    kept, ended = table.create("kept", "text/plain", 0), table.create("ended", "text/plain", 0)
    storage.put("a", 1)
    storage.set_alarm(100)
    table.append(kept, [b"1"])
    table.append(ended, [b"1"])
    with undone(storage):
        storage.put("a", 2)
        storage.sql("INSERT INTO notes(text) VALUES('x')")
        storage.set_alarm(200)
        table.append(kept, [b"2"])
        table.close(ended)
        made = table.create("made", "text/plain", 0)
        table.append(made, [b"3"])
    assert storage.get("a") == 1
    assert storage.sql("SELECT * FROM notes") == []
    assert storage.get_alarm() == 100
    assert table.names() == ["kept", "ended"]
    assert table.read(kept, 0, 1000) == [b"1"]
    assert (ended.closed, kept.position) == (False, 1)
    assert table.append(ended, [b"2"]) == 2
    with pytest.raises(StreamNotFound, match="stream 'made' is gone"):
        table.append(made, [b"4"])


def test_transactions_nest(storage: Storage) -> None:
    """The inner one is undone alone; undoing the outer one undoes both."""
    with storage.transaction():
        storage.put("outer", 1)
        with undone(storage):
            storage.put("inner", 1)
        with storage.transaction():
            storage.put("second", 1)
    assert storage.list() == {"outer": 1, "second": 1}
    with undone(storage):
        with storage.transaction():
            storage.put("third", 1)
    assert storage.list() == {"outer": 1, "second": 1}


def test_work_waits_for_the_outermost_transaction(storage: Storage) -> None:
    """What belongs to writes is done when they stay, and not when they are undone."""
    done: list[str] = []
    storage.after_transaction(lambda: done.append("no transaction"))
    assert done == ["no transaction"]
    with storage.transaction():
        storage.after_transaction(lambda: done.append("outer"))
        with suppress(LookupError), storage.transaction():
            storage.after_transaction(lambda: done.append("undone"))
            raise LookupError
        with storage.transaction():
            storage.after_transaction(lambda: done.append("inner"))
        assert done == ["no transaction"]
    assert done == ["no transaction", "outer", "inner"]
    with suppress(LookupError), storage.transaction():
        storage.after_transaction(lambda: done.append("undone"))
        raise LookupError
    with storage.transaction():
        pass
    assert done == ["no transaction", "outer", "inner"]


def test_a_stream_first_opened_inside_a_transaction_can_be_used_after_it_was_undone(node: Node) -> None:
    """Its handle goes back to where the stream is."""
    opened = node.open("one")
    opened.storage.stream_table.append(opened.storage.stream_table.create("s", "text/plain", 0), [b"1"])
    node.save(opened)
    node.checkpoint(opened)
    node.store.close_object(opened)
    opened = node.open("one")
    table = opened.storage.stream_table
    with undone(opened.storage):
        stream = stream_of(opened.storage, "s")
        table.append(stream, [b"lost"])
    assert stream.position == 1
    opened.storage.mark_dirty()
    assert table.append(stream, [b"2"]) == 2
    assert table.read(stream, 0, 1000) == [b"1", b"2"]
    node.save(opened)
    node.store.close_object(opened)
    node.store.close()
    node.start()
    opened = node.open("one")
    stream = stream_of(opened.storage, "s")
    assert opened.storage.stream_table.read(stream, 0, 1000) == [b"1", b"2"]
    node.store.close_object(opened)


def test_a_stream_deleted_inside_a_transaction_that_is_undone_is_back(storage: Storage) -> None:
    """With its entries, under the same handle."""
    table = storage.stream_table
    stream = table.create("s", "text/plain", 0)
    table.append(stream, [b"1", b"2"])
    with undone(storage):
        table.delete(stream)
        assert table.create("s", "text/plain", 0).position == 0
    assert table.get("s") is stream
    assert table.read(stream, 0, 1000) == [b"1", b"2"]
    assert table.append(stream, [b"3"]) == 3


def test_a_streams_number_is_never_given_out_again(storage: Storage) -> None:
    """The journal may hold appends to a deleted stream: no other may get them."""
    table = storage.stream_table
    first = table.create("first", "text/plain", 0)
    table.delete(first)
    second = table.create("second", "text/plain", 0)
    table.delete(second)
    assert (first.number, second.number) == (1, 2)
    assert table.create("first", "text/plain", 0).number == 3
    storage.delete_all()
    assert table.create("first", "text/plain", 0).number == 4


def test_nothing_is_appended_after_the_end(storage: Storage) -> None:
    """A closed stream says where it ended."""
    table = storage.stream_table
    stream = table.create("s", "text/plain", 0)
    table.append(stream, [b"1", b"2"])
    table.close(stream)
    table.close(stream)
    with pytest.raises(StreamClosed, match="stream 's' has ended at 2"):
        table.append(stream, [b"3"])


def test_a_stream_reads_the_same_from_rows_and_tail(node: Node) -> None:
    """From every position, whatever part was put into rows; a page holds at least one entry."""
    opened = node.open("one")
    table = opened.storage.stream_table
    stream = table.create("s", "text/plain", 0)
    entries = [bytes([number]) * (number % 7 * 5_000) for number in range(40)]
    for number, entry in enumerate(entries):
        table.append(stream, [entry])
        if number in (3, 20, 33):
            opened.storage.materialise_tails()
    node.save(opened)
    for position in range(41):
        assert table.read(stream, position, 1 << 40) == entries[position:]
    assert table.read(stream, 1, 1) == [entries[1]]
    assert table.read(stream, 1, 5_001) == [entries[1], entries[2]]
    assert table.read(stream, 38, 1) == [entries[38]]
    node.store.close_object(opened)


def test_an_alarm_is_set_moved_and_deleted(node: Node) -> None:
    """In the object's file and, once durable, in the index."""
    opened = node.open("one")
    opened.storage.set_alarm(500)
    assert list(node.store.index.alarms()) == []
    node.save(opened)
    assert [(key.name, at) for key, at in node.store.index.alarms()] == [("one", 500)]
    opened.storage.set_alarm(300)
    node.save(opened)
    assert [at for _, at in node.store.index.alarms()] == [300]
    opened.storage.set_alarm(None)
    assert opened.storage.get_alarm() is None
    node.save(opened)
    assert list(node.store.index.alarms()) == []
    node.store.close_object(opened)


def test_a_held_alarm_is_due_at_once_in_the_index(node: Node) -> None:
    """An object at work is woken by a restart; its own alarm stays what it is."""
    opened = node.open("one")
    opened.storage.set_alarm(None, held=True)
    node.save(opened)
    assert [at for _, at in node.store.index.alarms()] == [0]
    assert opened.storage.get_alarm() is None
    node.store.close_object(opened)


def test_delete_all_leaves_a_new_object(node: Node) -> None:
    """Values, own tables of any kind, streams and alarm are gone; the class's tables are there, empty."""
    opened = node.open("one", TABLES)
    storage = opened.storage
    storage.put("a", 1)
    storage.sql("INSERT INTO parents VALUES(1)")
    storage.sql("INSERT INTO children VALUES(1)")
    storage.sql("CREATE VIRTUAL TABLE search USING fts5(text)")
    storage.sql('CREATE VIEW "odd ""name" AS SELECT 1 AS one')
    storage.sql("CREATE TRIGGER t AFTER INSERT ON parents BEGIN DELETE FROM children; END")
    storage.stream_table.create("s", "text/plain", 0)
    storage.set_alarm(5)
    node.save(opened)
    storage.delete_all()
    node.save(opened)
    assert storage.list() == {}
    assert storage.sql("SELECT * FROM parents, children") == []
    names = {row["name"] for row in storage.sql("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'")}
    assert {name for name in names if not name.startswith("_perdure_")} == {"parents", "children"}
    assert storage.stream_table.names() == []
    assert node.store.index.objects() == []
    assert list(node.store.index.alarms()) == []
    node.store.close_object(opened)


def test_what_is_written_after_delete_all_is_kept(node: Node) -> None:
    """An object that is emptied and filled again in one turn exists."""
    opened = node.open("one")
    opened.storage.put("a", 1)
    node.save(opened)
    opened.storage.delete_all()
    opened.storage.put("b", 2)
    node.save(opened)
    assert [entry.object_id.name for entry in node.store.index.objects()] == ["one"]
    node.checkpoint(opened)
    node.store.close_object(opened)
    opened = node.open("one")
    assert opened.storage.list() == {"b": 2}
    node.store.close_object(opened)


def test_delete_all_is_refused_in_a_transaction(storage: Storage) -> None:
    """It could not be undone; the turn goes on."""
    with pytest.raises(ForbiddenSQL, match="delete_all is refused inside transaction"), storage.transaction():
        storage.delete_all()
    assert storage.broken is None


def test_a_transaction_left_open_over_the_turns_end_is_undone(node: Node) -> None:
    """The commit says so, and the object must be discarded."""
    opened = node.open("one")
    opened.storage.put("a", 1)
    node.save(opened)
    block = opened.storage.transaction()
    block.__enter__()
    opened.storage.put("a", 2)
    with pytest.raises(StorageError, match="left open over an await"):
        node.store.commit(opened)
    with pytest.raises(StorageError, match="left open over an await"):
        block.__exit__(None, None, None)
    node.store.discard(opened)
    opened = node.open("one")
    assert opened.storage.get("a") == 1
    node.store.close_object(opened)
