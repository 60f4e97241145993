"""`StreamWriter` when the stream, the host, the disk or the process goes away: the stream has an end all the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.objects.disks import Disk
from tests.running import eventually, killed, running, until
from tests.stream_hosts.written import (
    LOST,
    TEXT,
    Source,
    begun,
    has,
    host_slot,
    in_host,
    is_held_awake,
    reset_host,
    set_clock,
    shown,
    writer_of,
)

from perdure.errors import PerdureError, StreamClosed, StreamConflict, StreamNotFound
from perdure.stream_hosts.host import StreamHost
from perdure.stream_hosts.live_writers import live_writers
from perdure.wire.durable_streams import CreateRequest

pytestmark = pytest.mark.anyio


async def test_a_path_that_is_taken_is_refused(tmp_path: Path) -> None:
    """The stream that is there stays as it is."""
    async with running(tmp_path, StreamHost) as runtime:
        await in_host(runtime, lambda host: host.create("s", TEXT, [b"before"]))
        with pytest.raises(StreamConflict):
            await writer_of(runtime, Source()).begin(TEXT)
        assert await shown(runtime) == ([b"before"], False)
        assert live_writers(runtime) == {}


async def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """And the first is still known: it can be stopped, and a reset of the host does not end its stream."""
    async with running(tmp_path, StreamHost) as runtime:
        source = Source(b"one")
        writer, task = await begun(runtime, source)
        with pytest.raises(StreamConflict):
            await writer_of(runtime, Source()).begin(TEXT)
        assert live_writers(runtime) == {"s": writer}
        await has(runtime, b"one")
        reset_host(runtime)
        await has(runtime, b"one")
        source.give(None)
        await task
        assert await shown(runtime) == ([b"one"], True)


async def test_a_deleted_stream_ends_its_writer(tmp_path: Path) -> None:
    """Its source is closed, and nobody waits for it any more."""
    source = Source(b"one")
    async with running(tmp_path, StreamHost) as runtime:
        _, task = await begun(runtime, source)
        await has(runtime, b"one")
        await in_host(runtime, lambda host: host.remove("s"))
        source.give(b"two")
        with pytest.raises(StreamNotFound):
            await task
        await until(lambda: source.closed and not is_held_awake(runtime))


async def test_another_stream_at_the_path_is_left_alone(tmp_path: Path) -> None:
    """Deleted and made again by someone else: it is not the writer's."""
    source = Source(b"one")
    async with running(tmp_path, StreamHost) as runtime:
        _, task = await begun(runtime, source)
        await has(runtime, b"one")

        def replace(host: StreamHost) -> None:
            host.remove("s")
            host.create("s", TEXT, [b"other"])

        await in_host(runtime, replace)
        source.give(b"two")
        with pytest.raises(StreamNotFound):
            await task
        await until(lambda: not is_held_awake(runtime))
        assert await shown(runtime) == ([b"other"], False)


async def test_a_stream_that_someone_else_closes(tmp_path: Path) -> None:
    """It stays as they closed it; the writer ends with that error."""
    source = Source(b"one")
    async with running(tmp_path, StreamHost) as runtime:
        _, task = await begun(runtime, source)
        await has(runtime, b"one")
        await in_host(runtime, lambda host: host.get("s").close(None))
        source.give(b"two")
        with pytest.raises(StreamClosed):
            await task
        await until(lambda: source.closed and not is_held_awake(runtime))
        assert await shown(runtime) == ([b"one"], True)


async def test_writing_renews_a_stream(tmp_path: Path) -> None:
    """One that is kept for ten seconds lives on while its source speaks now and then, and then for ten more."""
    source = Source()
    async with running(tmp_path, StreamHost) as runtime:
        start_ms = runtime.now_ms()
        _, task = await begun(runtime, source, CreateRequest("text/plain", 10, None, False, None))
        for number in range(1, 4):
            set_clock(runtime, start_ms + number * 8_000)
            source.give(b"%d" % number)
            await has(runtime, *(b"%d" % earlier for earlier in range(1, number + 1)))
        source.give(None)
        await task
        assert (await shown(runtime)).closed
        set_clock(runtime, start_ms + 24_000 + 11_000)
        with pytest.raises(StreamNotFound):
            await shown(runtime)


# --- when the host or the process fails


async def test_each_entry_is_there_once_when_the_host_is_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An append whose outcome is not known is repeated, and known to be a repetition where it was stored."""
    monkeypatch.setattr("perdure.stream_hosts.writers.RETRY_MS", 2)
    source = Source()
    async with running(tmp_path, StreamHost) as runtime:
        _, task = await begun(runtime, source)
        entries = [b"%d" % number for number in range(200)]
        for number, entry in enumerate(entries):
            source.give(entry)
            await asyncio.sleep(0)
            if number % 10 == 5:
                reset_host(runtime)
            if number % 3 == 0:
                await asyncio.sleep(0.001)
        source.give(None)
        await task
        assert await shown(runtime) == (entries, True)


async def test_a_disk_that_is_full_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source waits, nothing is lost."""
    monkeypatch.setattr("perdure.stream_hosts.writers.RETRY_MS", 20)
    disk = Disk(tmp_path)
    source = Source(b"one")
    async with running(tmp_path, StreamHost, files=disk.files) as runtime:
        _, task = await begun(runtime, source)
        await has(runtime, b"one")
        disk.fill()
        source.give(b"two", b"three", None)
        await until(lambda: source.closed)
        await asyncio.sleep(0.05)
        disk.fail(0)
        async with asyncio.timeout(10):
            await task
        assert await shown(runtime) == ([b"one", b"two", b"three"], True)


async def test_a_disk_that_stays_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `RETRIES_MAX` tries the writer gives up; the next start of the server ends the stream."""
    monkeypatch.setattr("perdure.stream_hosts.writers.RETRY_MS", 1)
    monkeypatch.setattr("perdure.stream_hosts.writers.RETRIES_MAX", 3)
    disk = Disk(tmp_path)
    source = Source(b"one")
    async with running(tmp_path, StreamHost, files=disk.files) as runtime:
        _, task = await begun(runtime, source)
        await has(runtime, b"one")
        disk.fill()
        source.give(b"two")
        with pytest.raises(PerdureError):
            await task
        await until(lambda: source.closed)
        disk.fail(0)
    async with running(tmp_path, StreamHost) as runtime:
        assert await shown(runtime) == ([b"one", LOST], True)


async def test_a_killed_process_leaves_an_end(tmp_path: Path) -> None:
    """The next one appends it at its start, without anyone asking; the start after that does not do it again."""
    async with running(tmp_path / "first", StreamHost) as runtime:
        _, task = await begun(runtime, Source(b"one"))
        await has(runtime, b"one")
        folder = await killed(runtime, tmp_path / "killed")
        task.cancel()
    async with running(folder, StreamHost) as runtime:
        await until(lambda: host_slot(runtime).instance is not None)  # nobody has asked for it
        assert await shown(runtime) == ([b"one", LOST], True)
        assert not is_held_awake(runtime)
    async with running(folder, StreamHost) as runtime:
        assert await shown(runtime) == ([b"one", LOST], True)


async def test_a_stopped_process_leaves_an_end(tmp_path: Path) -> None:
    """Planned or not: what the source gives after the stop is not written by anyone."""
    source = Source(b"one")
    async with running(tmp_path, StreamHost) as runtime:
        _, task = await begun(runtime, source)
        await has(runtime, b"one")
    source.give(b"two")
    with pytest.raises(PerdureError):
        await task
    await until(lambda: source.closed)
    async with running(tmp_path, StreamHost) as runtime:
        assert await shown(runtime) == ([b"one", LOST], True)


async def test_a_cancelled_writer_ends_its_stream(tmp_path: Path) -> None:
    """Where the process goes on, readers need not wait for its end."""
    async with running(tmp_path, StreamHost) as runtime:
        source = Source(b"one")
        _, task = await begun(runtime, source)
        await has(runtime, b"one")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: source.closed)
        assert await shown(runtime) == ([b"one", LOST], True)


async def test_a_beginning_that_is_cancelled_leaves_no_open_stream(tmp_path: Path) -> None:
    """Whoever wanted it is gone before it is durable."""
    disk = Disk(tmp_path)
    async with running(tmp_path, StreamHost, files=disk.files) as runtime:
        await in_host(runtime, lambda host: host.count)  # awake
        disk.hold()
        beginning = asyncio.create_task(writer_of(runtime, Source()).begin(TEXT))
        await until(lambda: runtime.store.journal.pending_bytes)
        beginning.cancel()
        await asyncio.gather(beginning, return_exceptions=True)
        disk.release()
        assert await shown(runtime) == ([LOST], True)
        assert live_writers(runtime) == {}
        assert not is_held_awake(runtime)


async def test_a_beginning_that_fails_is_an_error(tmp_path: Path) -> None:
    """The disk is full: no stream is promised, and the path is free again."""
    disk = Disk(tmp_path)
    async with running(tmp_path, StreamHost, files=disk.files) as runtime:
        await in_host(runtime, lambda host: host.count)
        disk.fill()
        with pytest.raises(PerdureError):
            await writer_of(runtime, Source()).begin(TEXT)
        disk.fail(0)
        source = Source(b"one", None)
        writing: list[asyncio.Task[str]] = []

        async def try_again() -> bool:
            try:
                writing.append((await begun(runtime, source))[1])
            except PerdureError:
                return False
            return True

        await eventually(try_again)
        await writing[0]
        assert await shown(runtime) == ([b"one"], True)
