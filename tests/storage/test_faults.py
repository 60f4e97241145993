"""Disks that are full or refuse a sync: nothing unsaved is kept, exactly what was lost is named, work goes on."""

from __future__ import annotations

import errno

import pytest

from perdure.errors import StorageError, StorageFull, SyncFailed
from perdure.storage.store import OpenObject
from perdure.testing.crash_model import READ_BYTES

from .conftest import Node


def append(opened: OpenObject, name: str, *entries: bytes) -> None:
    """Append to a stream of the object, made when it is not there."""
    table = opened.storage.stream_table
    stream = table.get(name) or table.create(name, "text/plain", 0)
    opened.storage.mark_dirty()
    table.append(stream, entries)


def entries_of(opened: OpenObject, name: str) -> list[bytes]:
    """All entries of a stream."""
    stream = opened.storage.stream_table.get(name)
    assert stream is not None
    return opened.storage.stream_table.read(stream, 0, READ_BYTES)


@pytest.mark.parametrize(
    ("number", "kind", "error"),
    [(errno.ENOSPC, "write", StorageFull), (errno.EIO, "write", StorageError), (errno.EIO, "sync", SyncFailed)],
)
def test_a_failing_journal_loses_what_waits_and_nothing_else(
    node: Node, number: int, kind: str, error: type[StorageError]
) -> None:
    """Failed commits are named; the object opened again is as durable; with the disk back, work goes on."""
    first, second = node.open("first"), node.open("second")
    for opened in (first, second):
        opened.storage.put("saved", 1)
        append(opened, "talk", b"a", b"b")
        node.save(opened)
    node.fail(number, kind, path="journal.sqlite")
    first.storage.put("saved", 2)
    append(first, "talk", b"lost")
    node.save(first)
    assert [key for key, _ in node.failed] == ["Room/first"]
    assert type(node.errors[0]) is error
    node.store.discard(first)
    node.store.on_failed([])
    node.heal()
    second.storage.put("saved", 3)
    node.save(second)
    assert node.store.may_open("Room/first")
    first = node.open("first")
    assert first.storage.get("saved") == 1
    assert entries_of(first, "talk") == [b"a", b"b"]
    append(first, "talk", b"c")
    node.save(first)
    node.store.close_object(first)
    node.store.close_object(second)
    node.store.close()
    node.start()
    first, second = node.open("first"), node.open("second")
    assert (first.storage.get("saved"), second.storage.get("saved")) == (1, 3)
    assert entries_of(first, "talk") == [b"a", b"b", b"c"]
    node.store.close_object(first)
    node.store.close_object(second)


def test_a_new_object_whose_first_commit_failed_was_never_there(node: Node) -> None:
    """It is not in the index, and opens empty."""
    node.fail(errno.ENOSPC, "write", path="journal.sqlite")
    opened = node.open("new")
    opened.storage.put("key", "value")
    node.save(opened)
    node.store.discard(opened)
    assert node.failed[0][0] == "Room/new"
    node.heal()
    other = node.open("other")
    other.storage.put("key", 1)
    node.save(other)
    assert [entry.object_id.name for entry in node.store.index.objects()] == ["other"]
    opened = node.open("new")
    assert opened.storage.get("key") is None
    node.store.close_object(opened)
    node.store.close_object(other)


def test_a_full_disk_in_the_objects_file_breaks_its_turn_only(node: Node) -> None:
    """The write that found no room raises; the instance is broken with that error; its durable state opens again."""
    opened, other = node.open("one"), node.open("other")
    opened.storage.put("key", "durable")
    node.save(opened)
    node.fail(errno.ENOSPC, "write", path="one-")
    opened.storage.put("key", "x" * 100)
    with pytest.raises(StorageFull, match="no room left on the disk"):
        node.store.commit(opened)
    with pytest.raises(StorageFull):
        opened.storage.get("key")
    other.storage.put("key", "goes on")
    node.save(other)
    node.store.discard(opened)
    node.heal()
    opened = node.open("one")
    assert opened.storage.get("key") == "durable"
    opened.storage.put("key", "room again")
    node.save(opened)
    assert node.failed == []
    node.store.close_object(opened)
    node.store.close_object(other)


def test_an_opening_that_fails_loses_nothing(node: Node) -> None:
    """A discarded object whose rebuilding finds no room is rebuilt by the next attempt, with its stream's tail."""
    opened = node.open("one")
    opened.storage.put("key", "durable")
    append(opened, "talk", b"a", b"b")
    node.save(opened)
    node.store.discard(opened)
    for kind in ("write", "create"):
        node.fail(errno.ENOSPC, kind, path="one-")
        with pytest.raises(StorageFull):
            node.open("one")
    node.heal()
    opened = node.open("one")
    assert opened.storage.get("key") == "durable"
    assert entries_of(opened, "talk") == [b"a", b"b"]
    node.store.close_object(opened)


def test_a_checkpoint_whose_sync_failed_is_not_done_by_syncing_again(node: Node) -> None:
    """The journal keeps its records, the next checkpoint fails, and the next opening writes the pages anew."""
    opened = node.open("one")
    opened.storage.put("key", "durable")
    node.save(opened)
    node.store.materialise(opened)
    checkpoint = node.store.begin_checkpoint(opened)
    assert checkpoint is not None
    node.fail(errno.EIO, "sync", path="one-")
    with pytest.raises(SyncFailed, match="refused a sync"):
        checkpoint.run()
    node.store.abandon_checkpoint(opened.key)
    node.heal()
    node.store.materialise(opened)
    with pytest.raises(SyncFailed):
        node.store.begin_checkpoint(opened)
    node.store.abandon_checkpoint(opened.key)
    assert node.store.has_live_records(opened)
    node.store.discard(opened)
    before = len(node.files.log)
    opened = node.open("one")
    written = [
        operation for operation in node.files.log[before:] if operation.kind == "write" and "one-" in operation.path
    ]
    assert written, "the pages must be written anew before they are synced"
    assert opened.storage.get("key") == "durable"
    node.checkpoint(opened)
    assert not node.store.has_live_records(opened)
    node.store.close_object(opened)


def test_a_store_that_cannot_be_recovered_for_want_of_room_keeps_everything(node: Node) -> None:
    """Starting on a full disk fails with a clear error; with room again nothing is missing."""
    opened = node.open("one")
    opened.storage.put("key", "durable")
    append(opened, "talk", b"a")
    node.save(opened)
    node.store.close_object(opened)
    node.store.close()
    for kind in ("write", "sync"):
        node.fail(errno.ENOSPC, kind, path="objects/")
        with pytest.raises(StorageError):
            node.start()
    node.heal()
    node.start()
    opened = node.open("one")
    assert opened.storage.get("key") == "durable"
    assert entries_of(opened, "talk") == [b"a"]
    node.store.close_object(opened)
