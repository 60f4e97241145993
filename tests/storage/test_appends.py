"""Streams in an object's storage: forks that share entries, notes, trimming."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.errors import StreamNotFound
from perdure.storage.appends import NOTE_OVERHEAD_BYTES, SEGMENT_BYTES_MAX, TAIL_BYTES_MAX, StreamTable
from perdure.storage.object_storage import Storage
from perdure.storage.store import OpenObject
from perdure.storage.stored_stream import StoredStream

from .conftest import Node
from .test_object_storage import stream_of, undone

ALL = 1 << 40


def _made(table: StreamTable, name: str, *entries: bytes) -> StoredStream:
    stream = table.create(name, "text/plain", 0)
    if entries:
        table.append(stream, entries)
    return stream


def _forked(table: StreamTable, base: StoredStream, name: str, end: int, *entries: bytes) -> StoredStream:
    fork = table.create(name, "text/plain", 0, base=base, base_end=end)
    if entries:
        table.append(fork, entries)
    return fork


def _restarted(node: Node, opened: OpenObject) -> OpenObject:
    """The object after its process ended without a checkpoint: rows and journal are all there is."""
    node.save(opened)
    node.store.close_object(opened)
    node.store.close()
    node.start()
    return node.open("one")


def _table_counts(storage: Storage) -> list[int]:
    tables = ("_perdure_streams", "_perdure_segments", "_perdure_notes")
    return [storage.database.execute(f"SELECT count(*) FROM {table}")[0][0] for table in tables]


# --- forks


def test_a_fork_has_what_was_before_it_parted(node: Node) -> None:
    """And then its own; neither sees what the other appends. Over rows, tails and a restart."""
    opened = node.open("one")
    for materialised in (False, True):
        table = opened.storage.stream_table
        base = _made(table, f"base{materialised}", b"1", b"2", b"3")
        if materialised:
            opened.storage.materialise_tails()
        _forked(table, base, f"fork{materialised}", 2, b"x", b"y")
        table.append(base, [b"4"])
    for _ in range(2):
        table = opened.storage.stream_table
        for materialised in (False, True):
            base, fork = (
                stream_of(opened.storage, f"base{materialised}"),
                stream_of(opened.storage, f"fork{materialised}"),
            )
            assert table.read(base, 0, ALL) == [b"1", b"2", b"3", b"4"]
            assert [table.read(fork, position, ALL) for position in range(5)] == [
                [b"1", b"2", b"x", b"y"],
                [b"2", b"x", b"y"],
                [b"x", b"y"],
                [b"y"],
                [],
            ]
            assert (fork.position, fork.bytes, fork.base, base.forks) == (4, 2, base, 1)
        opened = _restarted(node, opened)
    node.store.close_object(opened)


def test_a_page_of_a_fork_crosses_its_parting(storage: Storage) -> None:
    """It ends where it has the asked size, on either side, and holds an entry at least."""
    table = storage.stream_table
    base = _made(table, "base", b"aaaa", b"bbbb", b"cccc")
    fork = _forked(table, base, "fork", 2, b"dddd", b"eeee")
    for materialise in (False, True):
        if materialise:
            storage.materialise_tails()
        assert table.read(fork, 0, 1) == [b"aaaa"]
        assert table.read(fork, 0, 8) == [b"aaaa", b"bbbb"]
        assert table.read(fork, 0, 9) == [b"aaaa", b"bbbb", b"dddd"]
        assert table.read(fork, 1, 5) == [b"bbbb", b"dddd"]
        assert table.read(fork, 2, 1) == [b"dddd"]
        assert [table.measure(fork, 0, 4, size) for size in (1, 4, 9, 16, 17)] == [
            (1, 4),
            (1, 4),
            (3, 12),
            (4, 16),
            (4, 16),
        ]
        assert table.measure(fork, 1, 3, ALL) == (3, 8)
        assert table.measure(fork, 4, 4, ALL) == (4, 0)


def test_a_fork_of_a_fork_may_part_before_its_source_did(storage: Storage) -> None:
    """Then it has nothing of its source's own."""
    table = storage.stream_table
    first = _made(table, "first", b"1", b"2", b"3")
    second = _forked(table, first, "second", 3, b"4")
    early = _forked(table, second, "early", 1, b"e")
    late = _forked(table, second, "late", 4, b"l")
    empty = _forked(table, late, "empty", 0)
    assert [table.read(stream, 0, ALL) for stream in (early, late, empty)] == [
        [b"1", b"e"],
        [b"1", b"2", b"3", b"4", b"l"],
        [],
    ]
    assert [base.name for base in early.bases()] == ["second", "first"]


def test_a_deleted_base_is_hidden_until_its_last_fork_is_gone(node: Node) -> None:
    """Then it goes, with all hidden ones above it; also when a restart lies between."""
    opened = node.open("one")
    table = opened.storage.stream_table
    first = _made(table, "first", b"1")
    second = _forked(table, first, "second", 1, b"2")
    third, other = _forked(table, second, "third", 2, b"3"), _forked(table, second, "other", 1)
    table.set_note(first, "key", b"value")
    table.delete(first)
    table.delete(second)
    assert (first.hidden, second.hidden, first.gone, second.gone) == (True, True, False, False)
    assert table.names() == ["third", "other"]
    assert table.read(third, 0, ALL) == [b"1", b"2", b"3"]
    opened = _restarted(node, opened)
    table = opened.storage.stream_table
    first, second = stream_of(opened.storage, "first"), stream_of(opened.storage, "second")
    assert (first.hidden, second.hidden, first.forks, second.forks) == (True, True, 1, 2)
    third, other = stream_of(opened.storage, "third"), stream_of(opened.storage, "other")
    assert table.read(third, 0, ALL) == [b"1", b"2", b"3"]
    table.delete(third)
    assert (table.count(), second.forks, second.gone) == (3, 1, False)
    table.delete(other)
    assert (second.gone, first.gone) == (True, True)
    opened = _restarted(node, opened)
    assert opened.storage.stream_table.count() == 0
    assert _table_counts(opened.storage) == [0, 0, 0]
    node.store.close_object(opened)


def test_a_base_that_lives_stays_when_its_forks_go(storage: Storage) -> None:
    """It is as if it had never had one."""
    table = storage.stream_table
    base = _made(table, "base", b"1")
    table.delete(_forked(table, base, "fork", 1))
    assert (base.forks, base.gone, base.hidden) == (0, False, False)
    table.delete(base)
    assert base.gone


def test_forks_are_deleted_with_everything(storage: Storage) -> None:
    """In whatever order they were made, hidden ones too."""
    table = storage.stream_table
    base = _made(table, "base", b"1")
    fork = _forked(table, base, "fork", 1, b"2")
    _forked(table, fork, "fork of fork", 2)
    table.delete(base)
    table.delete_everything()
    assert table.count() == 0


def test_a_fork_that_is_undone_leaves_no_trace(storage: Storage) -> None:
    """Its base does not count it, whether it was known before or not."""
    table = storage.stream_table
    base = _made(table, "base", b"1")
    with undone(storage):
        fork = _forked(table, base, "fork", 1, b"2")
        table.append(base, [b"undone"])
    assert (base.forks, fork.gone, table.get("fork")) == (0, True, None)
    assert table.read(base, 0, ALL) == [b"1"]
    with pytest.raises(StreamNotFound):
        table.append(fork, [b"3"])
    again = _forked(table, base, "fork", 1, b"4")
    assert table.read(again, 0, ALL) == [b"1", b"4"]
    assert base.forks == 1


def test_a_deletion_that_is_undone_leaves_all_as_it_was(storage: Storage) -> None:
    """Of a fork, of its hidden base with it, and of a base that was only to be hidden."""
    table = storage.stream_table
    base = _made(table, "base", b"1")
    fork = _forked(table, base, "fork", 1, b"2")
    table.set_note(fork, "key", b"value")
    with undone(storage):
        table.delete(base)
    assert not base.hidden
    table.delete(base)
    with undone(storage):
        table.delete(fork)
        assert table.count() == 0
    assert (base.hidden, base.forks, base.gone, fork.gone) == (True, 1, False, False)
    assert table.read(fork, 0, ALL) == [b"1", b"2"]
    assert table.note(fork, "key") == b"value"
    table.delete(fork)
    assert table.count() == 0


# --- notes


def test_notes_are_kept_by_stream_and_key(node: Node) -> None:
    """The newest value of each; in memory, in the journal, in rows, over a restart."""
    opened = node.open("one")
    table = opened.storage.stream_table
    one, two = _made(table, "one"), _made(table, "two", b"1")
    table.set_note(one, "é", b"old")
    table.set_note(one, "é", b"")
    table.set_note(two, "é", b"other")
    for step in range(4):
        table = opened.storage.stream_table
        one, two = stream_of(opened.storage, "one"), stream_of(opened.storage, "two")
        assert [table.note(one, "é"), table.note(two, "é"), table.note(two, "e")] == [b"", b"other", None]
        if step == 1:
            opened.storage.materialise_tails()
            assert (one.notes, two.notes, table.has_tail) == ({}, {}, False)
        opened = _restarted(node, opened)
    table = opened.storage.stream_table
    one = stream_of(opened.storage, "one")
    table.set_note(one, "é", b"newer than the row")
    assert table.note(one, "é") == b"newer than the row"
    opened.storage.materialise_tails()
    assert table.note(one, "é") == b"newer than the row"
    node.store.close_object(opened)


def test_a_note_that_is_undone_was_never_kept(storage: Storage) -> None:
    """Neither in memory nor later."""
    table = storage.stream_table
    stream = _made(table, "s")
    table.set_note(stream, "a", b"1")
    with undone(storage):
        table.set_note(stream, "a", b"2")
        table.set_note(stream, "b", b"2")
        new = _made(table, "new")
        table.set_note(new, "a", b"2")
    assert [table.note(stream, key) for key in "ab"] == [b"1", None]
    storage.materialise_tails()
    assert [table.note(stream, key) for key in "ab"] == [b"1", None]
    with pytest.raises(StreamNotFound):
        table.set_note(new, "a", b"3")


def test_notes_go_with_their_stream(storage: Storage) -> None:
    """A new stream of that name has none; a fork begins without its base's."""
    table = storage.stream_table
    stream = _made(table, "s", b"1")
    table.set_note(stream, "a", b"1")
    assert table.note(_forked(table, stream, "fork", 1), "a") is None
    other = _made(table, "other")
    table.set_note(other, "a", b"1")
    storage.materialise_tails()
    table.set_note(other, "b", b"2")
    table.delete(other)
    again = _made(table, "other")
    assert [table.note(again, key) for key in "ab"] == [None, None]
    with pytest.raises(StreamNotFound):
        table.set_note(other, "a", b"2")


def test_notes_count_in_the_tail(node: Node) -> None:
    """So that a stream with many writers goes into rows, too: at the limit not yet, past it with the next commit."""
    opened = node.open("one")
    table = opened.storage.stream_table
    stream = _made(table, "s")
    each = 100 + 5 + NOTE_OVERHEAD_BYTES
    for number in range(TAIL_BYTES_MAX // each):
        table.set_note(stream, f"{number:05}", bytes(100))
    node.save(opened)
    assert len(stream.notes) == TAIL_BYTES_MAX // each
    table.set_note(stream, "00000", bytes(100))
    node.save(opened)
    assert len(stream.notes) == TAIL_BYTES_MAX // each
    table.set_note(stream, "more", bytes(100))
    node.save(opened)
    assert stream.notes == {}
    assert _table_counts(opened.storage) == [1, 0, TAIL_BYTES_MAX // each + 1]
    node.store.close_object(opened)


# --- trimming


def _rows(table: StreamTable, stream: StoredStream, count: int) -> None:
    """Append so many entries, each of which fills a row."""
    for number in range(count):
        table.append(stream, [bytes([number]) * SEGMENT_BYTES_MAX])


def test_trimming_drops_whole_rows_from_the_front(node: Node) -> None:
    """As many as end at the position or before it; positions stay what they were, over a restart too."""
    opened = node.open("one")
    table = opened.storage.stream_table
    stream = _made(table, "s")
    _rows(table, stream, 5)
    opened.storage.materialise_tails()
    table.append(stream, [b"tail"])
    assert [end for end, _, _ in table.segments(stream)] == [1, 2, 3, 4, 5]
    assert table.trim(stream, 0) == 0
    assert table.trim(stream, 3) == 3
    assert table.trim(stream, 2) == 3
    for _ in range(2):
        table, stream = opened.storage.stream_table, stream_of(opened.storage, "s")
        assert (stream.first, stream.position, stream.bytes) == (3, 6, 2 * SEGMENT_BYTES_MAX + 4)
        assert [len(entry) for entry in table.read(stream, 3, ALL)] == [SEGMENT_BYTES_MAX, SEGMENT_BYTES_MAX, 4]
        assert table.measure(stream, 3, 6, ALL) == (6, 2 * SEGMENT_BYTES_MAX + 4)
        opened = _restarted(node, opened)
    table, stream = opened.storage.stream_table, stream_of(opened.storage, "s")
    # After the restart the tail is a row, or only in the journal: it is not dropped with what is before it.
    assert table.trim(stream, 5) == 5
    assert table.read(stream, 5, ALL) == [b"tail"]
    assert table.append(stream, [b"more"]) == 7
    assert stream.bytes == 8
    node.store.close_object(opened)


def test_a_row_of_many_entries_is_dropped_as_one(storage: Storage) -> None:
    """Not while one of them is to be kept."""
    table = storage.stream_table
    stream = _made(table, "s", *(bytes(1_000) for _ in range(100)))
    storage.materialise_tails()
    (end, size, _), (last, _, _) = table.segments(stream)
    assert (end, size, last) == (65, 65_000, 100)
    assert table.trim(stream, end - 1) == 0
    assert table.trim(stream, end) == end
    assert table.trim(stream, ALL) == 100
    assert (stream.bytes, table.read(stream, 100, ALL)) == (0, [])


def test_what_forks_share_is_not_trimmed(storage: Storage) -> None:
    """Neither the base nor the fork; without its forks the base is like any other again."""
    table = storage.stream_table
    base = _made(table, "base")
    _rows(table, base, 3)
    storage.materialise_tails()
    assert table.trim(base, 1) == 1
    fork = _forked(table, base, "fork", 2)
    _rows(table, fork, 2)
    storage.materialise_tails()
    assert (table.trim(base, 3), table.trim(fork, 4), fork.first) == (1, 1, 1)
    table.delete(fork)
    assert table.trim(base, 3) == 3


def test_trimming_that_is_undone_has_dropped_nothing(storage: Storage) -> None:
    """The rows are there, and the stream begins where it did."""
    table = storage.stream_table
    stream = _made(table, "s")
    _rows(table, stream, 3)
    storage.materialise_tails()
    with undone(storage):
        assert table.trim(stream, 2) == 2
    assert (stream.first, stream.bytes) == (0, 3 * SEGMENT_BYTES_MAX)
    assert len(table.read(stream, 0, ALL)) == 3


# --- names


def test_names_come_in_pages(storage: Storage) -> None:
    """In the order of their text, below a prefix, without hidden ones."""
    table = storage.stream_table
    for name in ("b", "a/2", "a/1", "a", "a%", "a/é", "a/10", "A/1"):
        _made(table, name, b"1")
    _forked(table, stream_of(storage, "a/1"), "z", 1)
    table.delete(stream_of(storage, "a/1"))
    assert table.names_after("", "a/", 10) == ["a/10", "a/2", "a/é"]
    assert table.names_after("a/10", "a/", 1) == ["a/2"]
    assert table.names_after("", "", 3) == ["A/1", "a", "a%"]
    assert table.names_after("z", "", 3) == []
    assert table.names_after("", "a%", 10) == ["a%"]


# --- everything together

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "fork", "fork", "delete", "materialise", "restart", "undo"]),
        st.integers(0, 7),
        st.integers(0, 40),
    ),
    max_size=25,
)


@contextmanager
def _node() -> Iterator[Node]:
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder) / "data")
        try:
            yield node
        finally:
            node.store.close()
            node.files.close()


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_any_tree_reads_as_lists_do(actions: list[tuple[str, int, int]]) -> None:
    """Every fork is a list that began as a part of another; pages and measures agree with it from everywhere."""
    with _node() as node:
        _grow(node, actions)


def _grow(node: Node, actions: list[tuple[str, int, int]]) -> None:
    opened = node.open("one")
    lists: dict[str, list[bytes]] = {}
    for number, (action, which, size) in enumerate(actions):
        table = opened.storage.stream_table
        name = sorted(lists)[which % len(lists)] if lists else ""
        if action == "fork" and name:
            end = size % (len(lists[name]) + 1)
            _forked(table, stream_of(opened.storage, name), f"s{number}", end)
            lists[f"s{number}"] = lists[name][:end]
        elif action == "fork" or not name:
            _made(table, f"s{number}")
            lists[f"s{number}"] = []
        elif action == "append":
            entries = [bytes([number]) * (size * part) for part in (1, 300, 2_000)[: which % 3 + 1]]
            table.append(stream_of(opened.storage, name), entries)
            lists[name] += entries
        elif action == "delete":
            table.delete(stream_of(opened.storage, name))
            del lists[name]
        elif action == "materialise":
            opened.storage.materialise_tails()
        elif action == "restart":
            opened = _restarted(node, opened)
        else:
            with undone(opened.storage):
                _forked(table, stream_of(opened.storage, name), "undone", 0, b"x")
                table.delete(stream_of(opened.storage, name))
    table = opened.storage.stream_table
    assert sorted(table.names()) == sorted(lists)
    for name, entries in lists.items():
        stream = stream_of(opened.storage, name)
        for position in range(0, len(entries) + 1, 3):
            for bytes_max in (1, 50_000, ALL):
                page = table.read(stream, position, bytes_max)
                assert page == entries[position : position + len(page)]
                reached = sum(map(len, page)) >= bytes_max or position + len(page) == len(entries)
                assert reached
                assert sum(map(len, page[:-1])) < bytes_max
                assert table.measure(stream, position, len(entries), bytes_max) == (
                    position + len(page),
                    sum(map(len, page)),
                )
    for name in lists:
        table.delete(stream_of(opened.storage, name))
    assert table.count() == 0
    node.save(opened)
    assert _table_counts(opened.storage) == [0, 0, 0]
    node.store.close_object(opened)
