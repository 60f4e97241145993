"""Streams: entries at offsets that never change, a durable end, readers that wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.running import hibernated, killed, running, until

from perdure import DurableObject, callable
from perdure.errors import LimitExceeded, OffsetError, StreamClosed, StreamNotFound
from perdure.objects.cursor import StreamCursor
from perdure.objects.runtime import Runtime
from perdure.streams.stream import ENTRY_BYTES_MAX, Batch

pytestmark = pytest.mark.anyio


class Log(DurableObject):
    """Holds streams."""

    @callable
    async def append(self, *entries: str, name: str = "log") -> str:
        return self.streams.create(name).append(*(entry.encode() for entry in entries))

    @callable
    async def close(self, name: str = "log") -> None:
        self.streams.get(name).close()

    @callable
    async def delete(self, name: str = "log") -> None:
        self.streams.delete(name)

    @callable
    async def read(self, offset: str = "-1", bytes_max: int = 1_000, name: str = "log") -> Batch:
        return self.streams.get(name).read(offset, bytes_max)

    @callable
    async def facts(self, name: str = "log") -> dict[str, Any]:
        stream = self.streams.get(name)
        return {"names": self.streams.names(), "tail": stream.tail_offset, "closed": stream.closed}

    @callable
    async def try_undone(self) -> list[bytes]:
        stream = self.streams.create("log")
        stream.append(b"1")
        try:
            with self.storage.transaction():
                stream.append(b"2")
                raise ValueError
        except ValueError:
            stream.append(b"3")
        return stream.read().entries

    @callable
    async def grow(self, entries: int, size: int) -> None:
        stream = self.streams.create("log")
        for number in range(entries):
            stream.append(str(number).ljust(size).encode())


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    """A runtime of logs."""
    async with running(tmp_path / "data", Log) as started:
        yield started


def _cursor(runtime: Runtime, offset: str = "-1", name: str = "log") -> StreamCursor:
    return StreamCursor(runtime, runtime.object_id(Log, "x"), name, offset)


async def test_appends_are_read_from_any_offset(runtime: Runtime) -> None:
    """``-1`` is the start; an offset is where the entry after it begins."""
    log = runtime.get(Log, "x")
    assert await log.append("a") == "0000000000000001"
    assert await log.append("b", "c") == "0000000000000003"
    assert await log.read() == Batch([b"a", b"b", b"c"], "0000000000000003", True, False)
    assert await log.read("0000000000000001") == Batch([b"b", b"c"], "0000000000000003", True, False)
    assert await log.read("0000000000000003") == Batch([], "0000000000000003", True, False)


async def test_pages_end_at_the_asked_size_but_hold_an_entry(runtime: Runtime) -> None:
    """Each page says where to go on and whether it was the last."""
    log = runtime.get(Log, "x")
    await log.append("aaaa", "bbbb", "cccc")
    assert await log.read("-1", 1) == Batch([b"aaaa"], "0000000000000001", False, False)
    assert await log.read("-1", 5) == Batch([b"aaaa", b"bbbb"], "0000000000000002", False, False)
    assert await log.read("0000000000000002", 5) == Batch([b"cccc"], "0000000000000003", True, False)


@pytest.mark.parametrize("offset", ["0000000000000004", "9", "", "abc", "٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠١", "-2", "0" * 17])
async def test_an_offset_that_was_never_given_is_refused(runtime: Runtime, offset: str) -> None:
    """Past the end, or no offset at all."""
    log = runtime.get(Log, "x")
    await log.append("a", "b", "c")
    with pytest.raises(OffsetError):
        await log.read(offset)
    async with _cursor(runtime, offset) as cursor:
        with pytest.raises(OffsetError):
            await cursor.next()


async def test_offsets_sort_as_text(runtime: Runtime) -> None:
    """Later entries have greater offsets, over every number of digits."""
    log = runtime.get(Log, "x")
    offsets = [await log.append("x") for _ in range(12)]
    assert offsets == sorted(offsets)
    assert "-1" < offsets[0]


async def test_a_reader_follows_the_tail_to_the_end(runtime: Runtime) -> None:
    """It waits for entries and learns of the close once."""
    log = runtime.get(Log, "x")
    await log.append("a")
    async with _cursor(runtime) as cursor:
        assert (await cursor.next()).entries == [b"a"]
        waiting = asyncio.ensure_future(cursor.next())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await log.append("b")
        assert await waiting == Batch([b"b"], "0000000000000002", True, False)
        waiting = asyncio.ensure_future(cursor.next())
        await log.close()
        assert await waiting == Batch([], "0000000000000002", True, True)
        assert await cursor.next() == Batch([], "0000000000000002", True, True)


async def test_many_readers_share_a_stream(runtime: Runtime) -> None:
    """Each from its own offset, none takes from another; one that gives up harms none."""
    log = runtime.get(Log, "x")
    await log.append("a", "b")
    async with _cursor(runtime) as one, _cursor(runtime, "0000000000000002") as two:
        assert (await one.next()).entries == [b"a", b"b"]
        reads = [asyncio.ensure_future(cursor.next()) for cursor in (one, two, two)]
        await asyncio.sleep(0)
        reads[2].cancel()
        await log.append("c")
        assert [(await read).entries for read in reads[:2]] == [[b"c"], [b"c"]]


async def test_the_end_is_durable(runtime: Runtime, tmp_path: Path) -> None:
    """Nothing can be appended, also after hibernation and after a kill."""
    log = runtime.get(Log, "x")
    await log.append("a")
    await log.close()
    await log.close()
    with pytest.raises(StreamClosed):
        await log.append("b")
    await hibernated(runtime, Log, "x")
    with pytest.raises(StreamClosed):
        await log.append("b")
    async with running(await killed(runtime, tmp_path / "copy"), Log) as other:
        with pytest.raises(StreamClosed):
            await other.get(Log, "x").append("b")
        async with _cursor(other) as cursor:
            assert await cursor.next() == Batch([b"a"], "0000000000000001", True, True)


async def test_a_deleted_stream_ends_its_readers(runtime: Runtime) -> None:
    """And a new one of its name begins at the start."""
    log = runtime.get(Log, "x")
    await log.append("a")
    async with _cursor(runtime, "0000000000000001") as cursor:
        reading = asyncio.ensure_future(cursor.next())
        await asyncio.sleep(0)
        await log.delete()
        with pytest.raises(StreamNotFound):
            await reading
    with pytest.raises(StreamNotFound):
        async with _cursor(runtime):
            pass
    await log.append("new")
    assert (await log.read()).entries == [b"new"]


async def test_what_a_transaction_undid_was_never_appended(runtime: Runtime) -> None:
    """Nor does its offset stay taken."""
    log = runtime.get(Log, "x")
    assert await log.try_undone() == [b"1", b"3"]
    async with _cursor(runtime) as cursor:
        assert (await cursor.next()).entries == [b"1", b"3"]


async def test_entries_stay_over_tail_rows_hibernation_and_kill(runtime: Runtime, tmp_path: Path) -> None:
    """Larger than the tail may be: partly in rows, partly in the tail, read as one."""
    log = runtime.get(Log, "x")
    await log.grow(400, 1_000)
    await log.append("last")
    expected = [str(number).ljust(1_000).encode() for number in range(400)] + [b"last"]
    assert await _all(runtime) == expected
    copy = await killed(runtime, tmp_path / "copy")
    await hibernated(runtime, Log, "x")
    assert await _all(runtime) == expected
    assert await _all(runtime, "0000000000000399") == expected[399:]
    async with running(copy, Log) as other:
        assert await _all(other) == expected
        assert await other.get(Log, "x").append("more") == "0000000000000402"


async def _all(runtime: Runtime, offset: str = "-1") -> list[bytes]:
    entries: list[bytes] = []
    async with _cursor(runtime, offset) as cursor:
        while True:
            batch = await cursor.next(64 * 1024)
            entries += batch.entries
            if batch.up_to_date:
                return entries


async def test_an_entry_has_a_largest_size(runtime: Runtime) -> None:
    """One byte above is refused by name, and nothing of the call is appended."""
    log = runtime.get(Log, "x")
    with pytest.raises(LimitExceeded) as caught:
        await log.append("a", "x" * (ENTRY_BYTES_MAX + 1))
    assert (caught.value.limit, caught.value.value, caught.value.maximum) == (
        "entry_bytes_max",
        16 * 1024 * 1024 + 1,
        16 * 1024 * 1024,
    )
    assert (await log.read()).entries == []


async def test_an_open_reader_keeps_its_object_awake(runtime: Runtime) -> None:
    """And lets it sleep afterwards."""
    log = runtime.get(Log, "x")
    await log.append("a")
    slot = runtime.slot(runtime.object_id(Log, "x"))
    async with _cursor(runtime) as cursor:
        await cursor.next()
        assert slot.instance is not None
        await until(lambda: slot.instance is None or not slot.instance.tasks)
        assert not slot.instance.idle
    await until(lambda: slot.instance is None or slot.instance.idle)


async def test_streams_have_names(runtime: Runtime) -> None:
    """In order of creation; facts are of each."""
    log = runtime.get(Log, "x")
    await log.append("a", name="z")
    await log.append("b", "c", name="a")
    assert await log.facts(name="a") == {"names": ["z", "a"], "tail": "0000000000000002", "closed": False}
