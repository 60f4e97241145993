"""Live reads: their rotation, their ends, and readers that are slow or gone."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.running import until

from perdure.errors import PerdureError, StreamNotFound
from perdure.storage.journal import JournalEntry
from perdure.streams.stream import Stream
from perdure.wire.sse import SseParser

from .servers import JSON, START, Raw, StreamClient, Way, asked, limited, raw, serving_streams, stream_app

pytestmark = pytest.mark.anyio


# --- rotation


async def test_a_connection_is_rotated_with_a_newer_cursor(tmp_path: Path, way: Way) -> None:
    """After its time the body ends politely; its last event says where to go on, under another address."""
    async with serving_streams(stream_app(tmp_path, limits=limited(rotate_ms=150)), way) as client:
        await client.create("a", b"1")
        cursor, cursors = "", []
        for _ in range(2):
            started = asyncio.get_running_loop().time()
            async with client.events("a", "0000000000000001", cursor=cursor) as events:
                first, last = await events.rest()
            assert 0.14 < asyncio.get_running_loop().time() - started < 5
            assert (first.data, last.data) == (None, None)
            assert first.control["streamNextOffset"] == last.control["streamNextOffset"] == "0000000000000001"
            assert last.control["upToDate"] is True
            cursors += [int(first.control["streamCursor"]), int(last.control["streamCursor"])]
            cursor = str(cursors[-1])
        assert cursors[0] <= cursors[1] < cursors[2] <= cursors[3]
        assert client.stream("a").readers == 0


async def test_nothing_is_lost_between_two_connections(tmp_path: Path, way: Way) -> None:
    """A reader that goes on from its offset has each message once, over all rotations."""
    async with serving_streams(stream_app(tmp_path, limits=limited(rotate_ms=40)), way) as client:
        await client.create("a", content_type=JSON)

        async def write() -> None:
            for number in range(150):
                await client.append("a", b"%d" % number, JSON)
                await asyncio.sleep(0.002)
            await client.close("a")

        writing = asyncio.create_task(write())
        seen: list[int] = []
        offset, connections, closed = "-1", 0, False
        while not closed:
            connections += 1
            async with client.events("a", offset) as events:
                for event in await events.rest():
                    seen += json.loads(event.data or "[]")
                    offset = event.control["streamNextOffset"]
                    closed = event.control.get("streamClosed", False)
        await writing
        assert seen == list(range(150))
        assert connections > 3


async def test_a_long_poll_waits_its_time(tmp_path: Path, way: Way) -> None:
    """Then it is 204; an append before that is answered at once, and so is the end."""
    async with serving_streams(stream_app(tmp_path, limits=limited(long_poll_ms=200)), way) as client:
        await client.create("a")
        started = asyncio.get_running_loop().time()
        waited = await client.read("a", START, live="long-poll")
        assert (waited.status_code, waited.content) == (204, b"")
        assert 0.19 < asyncio.get_running_loop().time() - started < 5
        facts = ("stream-next-offset", "stream-up-to-date")
        assert [waited.headers[name] for name in facts] == [START, "true"]
        poll = asyncio.create_task(client.read("a", "now", live="long-poll"))
        await until(lambda: client.stream("a").readers == 1)
        await client.append("a", b"1", stream_closed="true")
        told = await poll
        assert (told.status_code, told.content, told.headers["stream-closed"]) == (200, b"1", "true")


# --- readers that leave


async def test_a_reader_that_leaves_is_noticed(client: StreamClient) -> None:
    """The count of readers is what it was, without any append, and their host may hibernate."""
    await client.create("a")
    stream = client.stream("a")
    for _ in range(3):
        async with raw(client.address) as one, raw(client.address) as two:
            for connection in (one, two):
                connection.send(asked("GET", f"{client.at('a')}?offset=-1&live=sse"))
                await connection.reader.readuntil(b'"upToDate":true}\n\n')
            assert stream.readers > 0
        await until(lambda: stream.readers == 0)
    await client.hibernate("a")


async def test_a_poll_that_is_cut_is_noticed(tmp_path: Path, way: Way) -> None:
    """Long before its time."""
    async with serving_streams(stream_app(tmp_path, limits=limited(long_poll_ms=20_000)), way) as client:
        await client.create("a")
        async with raw(client.address) as connection:
            connection.send(asked("GET", "a?offset=now&live=long-poll"))
            await until(lambda: client.stream("a").readers == 1)
        await until(lambda: client.stream("a").readers == 0)


@pytest.mark.parametrize("live", ["sse", "long-poll"])
async def test_a_reader_that_leaves_before_it_is_let_in(
    tmp_path: Path, way: Way, live: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its read waits for the disk, as an append came first: when that is durable, nobody is there to be counted."""
    async with serving_streams(stream_app(tmp_path, limits=limited(long_poll_ms=20_000)), way) as client:
        await client.create("a")
        stream, journal, may_write = client.stream("a"), client.app.runtime.store.journal, threading.Event()
        write = journal._writer.write

        def held(batch: list[JournalEntry], trim_to: int) -> None:
            may_write.wait()
            write(batch, trim_to)

        monkeypatch.setattr(journal._writer, "write", held)
        try:
            appending = asyncio.create_task(client.append("a", b"1"))
            await until(lambda: journal.pending_bytes)
            async with raw(client.address) as connection:
                connection.send(asked("GET", f"a?offset={START}&live={live}"))
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.05)
        finally:
            may_write.set()
        assert (await appending).status_code == 204
        await until(lambda: stream.readers == 0, timeout_s=0.5)
        assert not stream._followers


# --- readers that are behind

PIECE = bytes(range(32, 96)) * 4_096
"""256 KiB, without line breaks."""

PIECES = 40
"""More than the system keeps for a connection."""

END = f"{PIECES:016}"


@asynccontextmanager
async def _behind(
    client: StreamClient,
    path: str,
) -> AsyncIterator[Raw]:
    """A reader whose client has read nothing of a stream of `PIECES`, so that it waits for its client."""
    await client.create(path)
    async with raw(client.address, receive_bytes=4_096) as connection:
        connection.send(asked("GET", f"{client.at(path)}?offset=-1&live=sse"))
        followers = client.stream(path)._followers
        await until(lambda: followers)
        for _ in range(PIECES):
            assert (await client.append(path, PIECE)).status_code == 204
        await until(lambda: not followers)
        yield connection


async def _data_of(connection: Raw, last_offset: str) -> tuple[str, bool]:
    """What a reader gets: its data up to ``last_offset`` or to the end of the body, and whether that came first."""
    await connection.reader.readuntil(b"\r\n\r\n")
    parser = SseParser()
    data: list[str] = []
    size = 0
    while size < 2 * PIECES * len(PIECE):
        async with asyncio.timeout(5):
            length = int(await connection.reader.readline(), 16)
            piece = await connection.reader.readexactly(length)
            await connection.reader.readexactly(2)
        if not length:
            return "".join(data), True
        size += length
        for event in parser.feed(piece):
            if event.event == "data":
                data.append(event.data)
            elif json.loads(event.data)["streamNextOffset"] == last_offset:
                return "".join(data), False
    raise AssertionError(f"no end after {size:,} bytes; the last ones were {piece[-200:]!r}")


async def test_a_slow_reader_gets_everything_in_the_end(client: StreamClient) -> None:
    """From storage, at its own pace; then it is at the tail again like the others."""
    async with _behind(client, "a") as connection, client.events("a", "now") as quick:
        assert (await quick.next()) is not None
        assert await _data_of(connection, END) == (PIECE.decode() * PIECES, False)
        await client.append("a", b"live")
        event = await quick.next()
        assert event is not None
        assert event.data == "live"
        assert b"data:live" in await connection.reader.readuntil(b'"upToDate":true}\n\n')


async def test_a_stream_that_is_deleted_ends_readers_that_are_behind(client: StreamClient) -> None:
    """The client asks again and learns that it is gone."""
    async with _behind(client, "a") as connection:
        await client.ask("DELETE", "a")
        _, ended = await _data_of(connection, END)
        assert ended


async def test_a_host_that_is_reset_ends_readers_that_are_behind(client: StreamClient) -> None:
    """The client goes on from its offset, with the host's next instance."""
    async with _behind(client, "a") as connection:
        client.reset("a")
        _, ended = await _data_of(connection, END)
        assert ended


class Told:
    """A follower that notes what it is told."""

    def __init__(self) -> None:
        self.error: PerdureError | None = None

    def on_entries(self, stream: Stream) -> None:
        """Nothing is appended here."""

    def on_gone(self, error: PerdureError) -> None:
        """The stream is gone."""
        self.error = error


async def test_a_reader_that_comes_too_late_is_told_so(client: StreamClient) -> None:
    """One that has all of the stream and turns to its tail just when it is deleted must not wait there for ever."""
    await client.create("a", b"1")
    stream = client.stream("a")
    await client.ask("DELETE", "a")
    late = Told()
    stream.follow_with(late)
    await until(lambda: late.error is not None)
    assert isinstance(late.error, StreamNotFound)
    assert stream.readers == 0
    with pytest.raises(StreamNotFound):
        stream.read_durable()


async def test_a_host_stays_awake_for_readers_that_are_behind(client: StreamClient) -> None:
    """Else what is appended later would never reach them."""
    async with _behind(client, "a") as connection:
        instance = client.slot("a").instance
        assert instance is not None
        await until(lambda: instance.gate.idle and not instance.tasks)
        assert not client.may_hibernate("a")
        assert connection
