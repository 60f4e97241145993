"""Forks of an object's streams: the same offsets up to the parting, nothing shared after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.running import hibernated, killed, running

from perdure import DurableObject, callable
from perdure.errors import InvalidName, OffsetError, StreamClosed, StreamNotFound
from perdure.objects.cursor import StreamCursor
from perdure.objects.runtime import Runtime
from perdure.streams.stream import Batch
from perdure.streams.streams import FORK_DEPTH_MAX

pytestmark = pytest.mark.anyio


class Tree(DurableObject):
    """Holds streams and their forks."""

    @callable
    async def append(self, name: str, *entries: str) -> str:
        return self.streams.create(name, "text/plain").append(*(entry.encode() for entry in entries))

    @callable
    async def fork(self, source: str, name: str, offset: str | None = None, content_type: str | None = None) -> str:
        stream = self.streams.fork(name, self.streams.get(source), offset, content_type=content_type)
        return stream.tail_offset

    @callable
    async def close(self, name: str) -> None:
        self.streams.get(name).close()

    @callable
    async def delete(self, name: str) -> None:
        self.streams.delete(name)

    @callable
    async def read(self, name: str, offset: str = "-1") -> Batch:
        return self.streams.get(name).read(offset)

    @callable
    async def facts(self, name: str) -> dict[str, Any]:
        stream = self.streams.get(name)
        return {
            "type": stream.content_type,
            "first": stream.first_offset,
            "tail": stream.tail_offset,
            "closed": stream.closed,
            "note": stream.note("key"),
        }

    @callable
    async def note(self, name: str, value: str) -> None:
        self.streams.get(name).set_note("key", value.encode())

    @callable
    async def names(self) -> list[str]:
        return self.streams.names()

    @callable
    async def hidden(self, name: str) -> bool:
        return self.streams.hidden(name)

    @callable
    async def fork_and_fail(self, source: str, name: str) -> None:
        try:
            with self.storage.transaction():
                self.streams.fork(name, self.streams.get(source)).append(b"undone")
                raise ValueError
        except ValueError:
            pass


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    """A runtime of trees."""
    async with running(tmp_path / "data", Tree) as started:
        yield started


@pytest.fixture
def tree(runtime: Runtime) -> Any:
    """One tree, with a stream ``a`` of three entries."""
    return runtime.get(Tree, "x")


async def _entries(tree: Any, name: str) -> list[bytes]:
    batch: Batch = await tree.read(name)
    return batch.entries


async def test_a_fork_goes_its_own_way(tree: Any) -> None:
    """From its source's tail, or from an offset; each only sees its own appends."""
    await tree.append("a", "1", "2", "3")
    assert await tree.fork("a", "tail") == "0000000000000003"
    assert await tree.fork("a", "middle", "0000000000000001") == "0000000000000001"
    assert await tree.fork("a", "start", "-1") == "0000000000000000"
    await tree.append("a", "4")
    await tree.append("middle", "x")
    assert await _entries(tree, "a") == [b"1", b"2", b"3", b"4"]
    assert await _entries(tree, "tail") == [b"1", b"2", b"3"]
    assert await _entries(tree, "middle") == [b"1", b"x"]
    assert await _entries(tree, "start") == []
    assert (await tree.read("middle", "0000000000000001")).entries == [b"x"]


async def test_a_fork_begins_open_and_without_notes(tree: Any) -> None:
    """Whatever its source is; with the source's content type unless it has its own."""
    await tree.append("a", "1")
    await tree.note("a", "kept")
    await tree.close("a")
    await tree.fork("a", "b")
    await tree.fork("a", "c", None, "text/html")
    same = {"first": "0000000000000000", "tail": "0000000000000001", "closed": False, "note": None}
    assert await tree.facts("b") == {"type": "text/plain", **same}
    assert await tree.facts("c") == {"type": "text/html", **same}
    assert await tree.append("b", "2") == "0000000000000002"
    with pytest.raises(StreamClosed):
        await tree.append("a", "2")


@pytest.mark.parametrize("offset", ["0000000000000004", "x", "", "now", "-2"])
async def test_there_must_be_such_an_offset(tree: Any, offset: str) -> None:
    """Nothing is made, and the source is not held."""
    await tree.append("a", "1", "2", "3")
    with pytest.raises(OffsetError):
        await tree.fork("a", "b", offset)
    assert await tree.names() == ["a"]
    await tree.delete("a")
    assert not await tree.hidden("a")


async def test_a_forks_name_must_be_free(tree: Any) -> None:
    """Also of a deleted stream that others still read."""
    await tree.append("a", "1")
    await tree.append("b", "1")
    with pytest.raises(InvalidName, match="there is a stream 'b' already"):
        await tree.fork("a", "b")
    await tree.fork("b", "c")
    await tree.delete("b")
    with pytest.raises(InvalidName, match="its name is not free yet"):
        await tree.fork("a", "b")
    with pytest.raises(InvalidName, match="its name is not free yet"):
        await tree.append("b", "1")


async def test_a_deleted_source_is_gone_for_all_but_its_forks(tree: Any) -> None:
    """They read on; it cannot be read or forked; with the last of them its name is free again."""
    await tree.append("a", "1")
    await tree.fork("a", "b")
    await tree.fork("b", "c")
    await tree.delete("a")
    await tree.delete("b")
    assert (await tree.names(), await tree.hidden("a"), await tree.hidden("b")) == (["c"], True, True)
    for name in ("a", "b"):
        with pytest.raises(StreamNotFound):
            await tree.read(name)
        with pytest.raises(StreamNotFound):
            await tree.fork(name, "d")
    assert await _entries(tree, "c") == [b"1"]
    await tree.delete("a")
    assert await _entries(tree, "c") == [b"1"]
    await tree.delete("c")
    assert (await tree.hidden("a"), await tree.hidden("b")) == (False, False)
    await tree.append("a", "new")
    assert await _entries(tree, "a") == [b"new"]


async def test_a_fork_that_was_undone_holds_nothing(tree: Any) -> None:
    """Its source can be deleted for good, its name be used."""
    await tree.append("a", "1")
    await tree.fork_and_fail("a", "b")
    assert await tree.names() == ["a"]
    await tree.append("b", "new")
    await tree.delete("a")
    assert not await tree.hidden("a")


async def test_forks_are_only_so_deep(tree: Any) -> None:
    """The deepest one reads through all of them; one more is refused."""
    await tree.append("0", "entry 0")
    for depth in range(1, FORK_DEPTH_MAX + 1):
        await tree.fork(str(depth - 1), str(depth))
        await tree.append(str(depth), f"entry {depth}")
    deepest = str(FORK_DEPTH_MAX)
    assert await _entries(tree, deepest) == [b"entry %d" % number for number in range(FORK_DEPTH_MAX + 1)]
    with pytest.raises(InvalidName, match=r"64 deep \(fork_depth_max\)"):
        await tree.fork(deepest, "one more")
    for depth in range(FORK_DEPTH_MAX):
        await tree.delete(str(depth))
    assert await tree.names() == [deepest]
    await tree.delete(deepest)
    assert not await tree.hidden("0")


async def test_a_tree_lives_over_hibernation_and_kill(runtime: Runtime, tree: Any, tmp_path: Path) -> None:
    """With what is shared, what is hidden, and what each has of its own."""
    await tree.append("a", "1", "2")
    await tree.fork("a", "b", "0000000000000001")
    await tree.append("b", "x")
    await tree.append("a", "3")
    await tree.delete("a")
    copy = await killed(runtime, tmp_path / "copy")
    await hibernated(runtime, Tree, "x")
    assert await _entries(tree, "b") == [b"1", b"x"]
    async with running(copy, Tree) as other:
        again = other.get(Tree, "x")
        assert (await again.names(), await again.hidden("a")) == (["b"], True)
        assert await _entries(again, "b") == [b"1", b"x"]
        await again.delete("b")
        assert not await again.hidden("a")


async def test_a_source_does_not_wake_its_forks_readers(runtime: Runtime, tree: Any) -> None:
    """Nor the other way round; each reader waits for its own stream."""
    await tree.append("a", "1")
    await tree.fork("a", "b")
    object_id = runtime.object_id(Tree, "x")
    async with (
        StreamCursor(runtime, object_id, "a", "0000000000000001") as at_a,
        StreamCursor(runtime, object_id, "b", "0000000000000001") as at_b,
    ):
        reading_a, reading_b = (asyncio.ensure_future(cursor.next()) for cursor in (at_a, at_b))
        await tree.append("a", "2")
        assert (await reading_a).entries == [b"2"]
        assert not reading_b.done()
        await tree.append("b", "3")
        assert (await reading_b).entries == [b"3"]
