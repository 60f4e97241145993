"""`StreamWriter` and its source: all that it gives is in the stream, and however it ends, so does the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.objects.disks import Disk
from tests.running import running, until
from tests.stream_hosts.written import TEXT, Source, begun, has, in_host, is_held_awake, shown, writer_of

from perdure.errors import LimitExceeded
from perdure.stream_hosts.host import StreamHost
from perdure.stream_hosts.live_writers import live_writers
from perdure.stream_hosts.writers import PRODUCER_ID, WAITING_BYTES_MAX

pytestmark = pytest.mark.anyio


# --- the source


async def test_all_that_the_source_gives_is_written(tmp_path: Path) -> None:
    """In order, and then the stream has its end; the promise of an end is kept, and forgotten."""
    source = Source(b"one", b"two", b"three", None)
    async with running(tmp_path, StreamHost) as runtime:
        _, task = await begun(runtime, source)
        assert is_held_awake(runtime)
        assert await task == "0000000000000003"
        assert await shown(runtime) == ([b"one", b"two", b"three"], True)
        assert source.closed
        assert live_writers(runtime) == {}
        assert not is_held_awake(runtime)


async def test_an_iterator_will_do(tmp_path: Path) -> None:
    """It need not be a generator, nor have anything to close."""

    class Three:
        def __init__(self) -> None:
            self.left = 3

        def __aiter__(self) -> Three:
            return self

        async def __anext__(self) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return b"%d" % self.left

    async with running(tmp_path, StreamHost) as runtime:
        _, task = await begun(runtime, Three())
        await task
        assert await shown(runtime) == ([b"2", b"1", b"0"], True)


async def test_entries_without_content_are_left_out(tmp_path: Path) -> None:
    """A model that says nothing for once appends nothing."""
    async with running(tmp_path, StreamHost) as runtime:
        _, task = await begun(runtime, Source(b"", b"one", b"", None))
        await task
        assert await shown(runtime) == ([b"one"], True)


async def test_what_comes_during_an_append_goes_in_the_next(tmp_path: Path) -> None:
    """One append is under way at a time: a slow disk makes few large ones."""
    disk = Disk(tmp_path)
    source = Source()
    async with running(tmp_path, StreamHost, files=disk.files) as runtime:
        _, task = await begun(runtime, source)
        disk.hold()
        source.give(b"first")
        await until(lambda: runtime.store.journal.pending_bytes)
        source.give(*(b"%d" % number for number in range(100)), None)
        await until(lambda: source.closed)
        disk.release()
        await task
        assert await shown(runtime) == ([b"first", *(b"%d" % number for number in range(100))], True)
        state = await in_host(runtime, lambda host: host.get("s").producer_state(PRODUCER_ID))
        assert state.seq == 2  # the first, all the others, the end


async def test_a_source_waits_for_a_slow_disk(tmp_path: Path) -> None:
    """Past `WAITING_BYTES_MAX` it is not asked for more; nothing is lost."""
    disk = Disk(tmp_path)
    entry = bytes(WAITING_BYTES_MAX // 10)
    source = Source()
    async with running(tmp_path, StreamHost, files=disk.files) as runtime:
        _, task = await begun(runtime, source)
        disk.hold()
        source.give(entry)
        await until(lambda: runtime.store.journal.pending_bytes)
        source.give(*([entry] * 30), None)
        await asyncio.sleep(0.05)
        assert source.given == 1 + 11  # the one under way, and those that are more than the limit
        disk.release()
        await task
        assert await shown(runtime) == ([entry] * 31, True)


async def test_an_entry_may_be_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At `ENTRY_BYTES_MAX` it is written, past it it is a failure of the source."""
    monkeypatch.setattr("perdure.stream_hosts.writers.ENTRY_BYTES_MAX", 1_000)
    source = Source(bytes(1_000), bytes(1_001), b"after")
    async with running(tmp_path, StreamHost) as runtime:
        _, task = await begun(runtime, source)
        with pytest.raises(LimitExceeded):
            await task
        text = b"failed: LimitExceeded: entry_bytes_max allows 1,000 at most, this has 1,001"
        assert await shown(runtime) == ([bytes(1_000), text], True)
        assert source.closed


@pytest.mark.parametrize("told", [True, False])
async def test_a_source_that_fails(tmp_path: Path, told: bool) -> None:
    """What it gave stays; a last entry, where there is one, says why; the error is raised once that is stored."""
    async with running(tmp_path, StreamHost) as runtime:
        _, task = await begun(runtime, Source(b"one", ValueError("oops")), told=told)
        with pytest.raises(ValueError, match="oops"):
            await task
        last = [b"failed: ValueError: oops"] if told else []
        assert await shown(runtime) == ([b"one", *last], True)
        assert live_writers(runtime) == {}


async def test_a_source_that_is_cancelled_has_failed(tmp_path: Path) -> None:
    """By someone else than `stop`: a task that it waited for, say."""
    async with running(tmp_path, StreamHost) as runtime:
        _, task = await begun(runtime, Source(b"one", asyncio.CancelledError()))
        with pytest.raises(RuntimeError, match="the source was cancelled"):
            await task
        assert await shown(runtime) == ([b"one", b"failed: RuntimeError: the source was cancelled"], True)


async def test_a_value_that_cannot_be_encoded_is_a_failure(tmp_path: Path) -> None:
    """The source is closed for it, too."""
    source = Source(b"one", "text")  # type: ignore[arg-type]
    async with running(tmp_path, StreamHost) as runtime:
        _, task = await begun(runtime, source)
        with pytest.raises(TypeError):
            await task
        assert (await shown(runtime)).closed
        assert source.closed


# --- stop


async def test_stop_ends_the_source_and_the_stream(tmp_path: Path) -> None:
    """What came before stays; the last entry says that it was stopped; that is no error."""
    source = Source(b"one")
    async with running(tmp_path, StreamHost) as runtime:
        writer, task = await begun(runtime, source)
        await has(runtime, b"one")
        writer.stop()
        assert await task == "0000000000000002"
        assert await shown(runtime) == ([b"one", b"stopped"], True)
        assert source.closed


async def test_stop_without_a_last_entry(tmp_path: Path) -> None:
    """Then the stream just ends."""
    async with running(tmp_path, StreamHost) as runtime:
        writer, task = await begun(runtime, Source(b"one"), told=False)
        await has(runtime, b"one")
        writer.stop()
        await task
        assert await shown(runtime) == ([b"one"], True)


@pytest.mark.parametrize("steps", [None, 0, 1, 2, 3])
async def test_stop_may_come_at_once(tmp_path: Path, steps: int | None) -> None:
    """Before the writer runs (None), before it has looked at the source, or right then."""
    async with running(tmp_path, StreamHost) as runtime:
        writer = writer_of(runtime, Source(b"one"))
        await writer.begin(TEXT)
        if steps is None:
            writer.stop()
        task = asyncio.create_task(writer.run())
        for _ in range(steps or 0):
            await asyncio.sleep(0)
        writer.stop()
        async with asyncio.timeout(5):
            await task
        entries, closed = await shown(runtime)
        assert entries in ([b"stopped"], [b"one", b"stopped"])
        assert closed


async def test_stop_after_the_sources_end_changes_nothing(tmp_path: Path) -> None:
    """While the last append is under way, it was whole already."""
    disk = Disk(tmp_path)
    source = Source()
    async with running(tmp_path, StreamHost, files=disk.files) as runtime:
        writer, task = await begun(runtime, source)
        disk.hold()
        source.give(b"one", None)
        await until(lambda: source.closed)
        await asyncio.sleep(0.01)
        writer.stop()
        disk.release()
        await task
        assert await shown(runtime) == ([b"one"], True)


async def test_a_source_may_take_stop_for_its_end(tmp_path: Path) -> None:
    """It swallows the cancellation and ends quietly: stopped all the same."""

    async def stubborn() -> AsyncIterator[bytes]:
        yield b"one"
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            yield b"bye"

    async with running(tmp_path, StreamHost) as runtime:
        writer, task = await begun(runtime, stubborn())
        await has(runtime, b"one")
        writer.stop()
        await task
        assert await shown(runtime) == ([b"one", b"bye", b"stopped"], True)


async def test_a_source_may_fail_while_it_is_closed(tmp_path: Path) -> None:
    """That it was stopped is what its readers are told."""

    async def clumsy() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            await asyncio.sleep(60)
        finally:
            raise ValueError("oops")

    async with running(tmp_path, StreamHost) as runtime:
        writer, task = await begun(runtime, clumsy())
        await has(runtime, b"one")
        writer.stop()
        await task
        assert await shown(runtime) == ([b"one", b"stopped"], True)
