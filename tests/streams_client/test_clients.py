"""Both shells against both servers: everything that can be asked of a stream."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from perdure import errors
from perdure.errors import ConfigError, LocalProtocolError, OffsetError
from perdure.streams_client import (
    AsyncStreamClient,
    Batch,
    StreamClient,
    StreamClosed,
    StreamConflict,
    StreamGone,
    connect,
    connect_async,
)

pytestmark = pytest.mark.anyio

JSON = "application/json"
BYTES = "application/octet-stream"


async def everything(follow: Any) -> tuple[list[Any], bytes, Batch]:
    """All messages, all bytes and the last batch of a stream that ends."""
    messages: list[Any] = []
    data = b""
    last: Batch | None = None
    async with asyncio.timeout(20), follow:
        async for last in follow:
            messages += last.messages
            data += b"" if last.content_type == JSON else last.data
    assert last is not None
    return messages, data, last


# --- one request each


async def test_the_life_of_a_stream_of_messages(client: Any, path: str) -> None:
    """Created, appended to, read, ended, deleted."""
    stream = client.stream(path)
    created = await stream.create(content_type=JSON, items=[{"n": 0}])
    assert (created.created, created.content_type, created.closed) == (True, JSON, False)
    offset = await stream.append([1, 2])
    assert offset > created.offset
    tail = await stream.append_all([3, None, b'{"n": "\xc3\xa9"}'])
    batch = await stream.read()
    assert batch.messages == [{"n": 0}, [1, 2], 3, None, {"n": "é"}]
    assert (batch.offset, batch.up_to_date, batch.closed, batch.content_type) == (tail, True, False, JSON)
    assert (await stream.read(offset)).messages == [3, None, {"n": "é"}]
    assert (await stream.read(tail)).messages == []
    end = await stream.close("the end")
    info = await stream.head()
    assert (info.offset, info.content_type, info.closed) == (end, JSON, True)
    assert (await stream.read(tail)).messages == ["the end"]
    assert (await stream.read(end)).closed
    await stream.delete()
    with pytest.raises(errors.StreamNotFound):
        await stream.head()


async def test_the_life_of_a_stream_of_bytes(client: Any, path: str) -> None:
    """No boundaries; a name with everything that a name can have."""
    stream = client.stream(f"{path}/a b%2Fé?")
    await stream.create()
    first = await stream.append(bytes(range(256)))
    await stream.append_all(["é", bytearray(b"\r\n"), b"[]"])
    batch = await stream.read()
    assert batch.data == bytes(range(256)) + b"\xc3\xa9\r\n[]"
    assert (batch.messages, batch.content_type) == ([], BYTES)
    assert (await stream.read(first)).data == b"\xc3\xa9\r\n[]"
    assert (await client.stream(stream.url).head()).content_type == BYTES


async def test_creating_is_making_sure(client: Any, path: str) -> None:
    """A second time nothing happens, unless it says something else."""
    stream = client.stream(path)
    assert (await stream.create(content_type="text/plain", ttl_s=60)).created
    await stream.append("kept")
    assert not (await client.stream(path).create(content_type="text/plain", ttl_s=60)).created
    with pytest.raises(StreamConflict):
        await client.stream(path).create(content_type=JSON)
    info = await stream.head()
    assert (info.ttl_s, info.expires_at) == (60, None)
    assert (await stream.read()).data == b"kept"


async def test_a_stream_may_be_created_whole(client: Any, path: str) -> None:
    """With its content, its end, and the time at which it goes."""
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    stream = client.stream(path)
    created = await stream.create(content_type=JSON, items=[[1], 2], closed=True, expires_at=expires)
    assert created.closed
    batch = await stream.read()
    assert (batch.messages, batch.closed) == ([[1], 2], True)
    expires_at = (await stream.head()).expires_at
    assert datetime.fromisoformat(expires_at) == expires


async def test_a_fork_shares_the_beginning(client: Any, path: str) -> None:
    """Up to an offset and so many messages further; a deleted source lives on in it."""
    source = client.stream(path)
    await source.create(content_type=JSON, items=[1])
    offset = await source.append(2)
    await source.append_all([3, 4])
    fork = client.stream(f"{path}-fork")
    created = await fork.create(source=source.as_source(offset, sub_offset=1))
    assert created.content_type == JSON
    await source.append(5)
    await fork.append("other")
    assert (await fork.read()).messages == [1, 2, 3, "other"]
    whole = client.stream(f"{path}-whole")
    await whole.create(source=source.as_source())
    assert (await whole.read()).messages == [1, 2, 3, 4, 5]
    await source.delete()
    with pytest.raises(StreamGone):
        await source.head()
    assert (await fork.read()).messages == [1, 2, 3, "other"]


async def test_an_end_is_an_end(client: Any, path: str) -> None:
    """Appends are refused with the final offset; closing again is no error unless with an item."""
    stream = client.stream(path)
    await stream.create(content_type="text/plain", items=["a"])
    end = await stream.close()
    assert await stream.close() == end
    with pytest.raises(StreamClosed) as caught:
        await stream.append("b")
    assert caught.value.offset == end
    with pytest.raises(StreamClosed):
        await stream.close("b")
    assert (await stream.read()).data == b"a"


async def test_what_is_not_there(client: Any, path: str) -> None:
    """Each operation says so."""
    stream = client.stream(path, content_type=JSON)
    for operation in (stream.head, stream.read, stream.close, stream.delete, lambda: stream.append(1)):
        with pytest.raises(errors.StreamNotFound):
            await operation()
    with pytest.raises(errors.StreamNotFound):
        await client.stream(f"{path}-fork").create(source=stream.as_source())


async def test_offsets_are_the_servers(client: Any, path: str) -> None:
    """It refuses others."""
    stream = client.stream(path)
    await stream.create()
    with pytest.raises(OffsetError):
        await stream.read("no offset!")


async def test_writers_may_agree_on_an_order(client: Any, path: str) -> None:
    """A `Stream-Seq` that is not greater is refused; so is another content type."""
    stream = client.stream(path)
    await stream.create(content_type="text/plain")
    await stream.append("a", seq="s2")
    for seq in ("s2", "s1"):
        with pytest.raises(StreamConflict):
            await stream.append("b", seq=seq)
    with pytest.raises(StreamConflict):
        await client.stream(path, content_type=JSON).append("b")
    assert (await stream.read()).data == b"a"


async def test_a_wrong_item_is_not_sent(client: Any, path: str) -> None:
    """The stream's content type is known, or asked for."""
    await client.stream(path).create(content_type="text/plain")
    with pytest.raises(LocalProtocolError, match="takes bytes or str"):
        await client.stream(path).append({"a": 1})


# --- following


@pytest.mark.parametrize("live", ["auto", "sse", "long-poll"])
async def test_messages_are_followed_to_the_end(client: Any, path: str, live: str) -> None:
    """What is there, what comes, and the end, each once."""
    stream = client.stream(path)
    await stream.create(content_type=JSON, items=[0, 1])
    follow = client.stream(path).follow(live=live)
    following = asyncio.create_task(everything(follow))
    for number in range(2, 12):
        await stream.append({"n": number} if number % 2 else [number])
        await asyncio.sleep(0.01)
    end = await stream.close("last", "words")
    messages, _, last = await following
    assert messages == [0, 1, *({"n": n} if n % 2 else [n] for n in range(2, 12)), "last", "words"]
    assert (last.closed, last.offset) == (True, end)
    assert (follow.closed, follow.up_to_date, follow.offset, follow.content_type) == (True, True, end, JSON)


@pytest.mark.parametrize("live", ["auto", "sse", "long-poll"])
async def test_bytes_are_followed_to_the_end(client: Any, path: str, live: str) -> None:
    """Every byte as it is, over events, too."""
    stream = client.stream(path)
    await stream.create(items=[b"[]"])
    following = asyncio.create_task(everything(client.stream(path).follow(live=live)))
    for number in range(5):
        await stream.append(bytes(range(256)) * (number + 1))
        await asyncio.sleep(0.01)
    await stream.close()
    _, data, _ = await following
    assert data == b"[]" + bytes(range(256)) * 15


@pytest.mark.parametrize("live", ["auto", "long-poll"])
async def test_text_keeps_its_line_ends(client: Any, path: str, live: str) -> None:
    """And characters that two appends share."""
    stream = client.stream(path)
    await stream.create(content_type="text/plain; charset=utf-8")
    following = asyncio.create_task(everything(client.stream(path).follow(live=live)))
    await asyncio.sleep(0.05)
    for piece in ("a\r\nb\rc\n", b"\xc3", b"\xa9", "\n\n"):
        await stream.append(piece)
    await stream.close()
    assert (await following)[1] == b"a\r\nb\rc\n\xc3\xa9\n\n"


async def test_text_over_events_has_plain_line_ends(client: Any, path: str) -> None:
    """Who insists on events gets them as events have them."""
    stream = client.stream(path)
    await stream.create(content_type="text/plain")
    following = asyncio.create_task(everything(client.stream(path).follow(live="sse")))
    await asyncio.sleep(0.1)
    await stream.append("a\r\nb\n: no comment\ndata: x\n")
    await stream.close()
    assert (await following)[1] == b"a\nb\n: no comment\ndata: x\n"


async def test_following_from_now(client: Any, path: str) -> None:
    """The first batch says where that is."""
    stream = client.stream(path)
    await stream.create(content_type=JSON, items=["old"])
    async with asyncio.timeout(20), client.stream(path).follow("now") as follow:
        first = await anext(aiter(follow))
        assert (first.messages, first.up_to_date, first.offset) == ([], True, (await stream.head()).offset)
        await stream.append("new")
        assert (await anext(aiter(follow))).messages == ["new"]


async def test_a_reader_leaves_and_comes_back(client: Any, path: str) -> None:
    """With the offset of the last batch that it has used."""
    stream = client.stream(path)
    await stream.create(content_type=JSON, items=[1])
    async with client.stream(path).follow() as follow:
        async for batch in follow:
            offset = batch.offset
            break
    await stream.append(2)
    await stream.close()
    messages, _, _ = await everything(client.stream(path).follow(offset))
    assert messages == [2]


async def test_a_long_stream_comes_in_batches(client: Any, path: str) -> None:
    """Without going on at the tail, or all at once."""
    stream = client.stream(path)
    await stream.create()
    for _ in range(10):
        await stream.append(b"0123456789abcdef" * 512)
    batches = [batch async for batch in stream.follow(live=False)]
    assert b"".join(batch.data for batch in batches) == b"0123456789abcdef" * 5_120
    assert [batch.up_to_date for batch in batches] == [False] * (len(batches) - 1) + [True]
    assert (await stream.read()).data == b"0123456789abcdef" * 5_120


async def test_a_stream_that_is_deleted_ends_its_readers(client: Any, path: str) -> None:
    """They are told what has happened, sooner or later."""
    stream = client.stream(path)
    await stream.create(content_type=JSON)
    follow = client.stream(path).follow(live="long-poll")
    async with asyncio.timeout(20), follow:
        assert (await anext(aiter(follow))).up_to_date
        await stream.delete()
        with pytest.raises(errors.StreamNotFound):
            await anext(aiter(follow))


# --- the client itself


async def test_own_headers_are_asked_for_each_time(server_url: str, shell: Any, path: str) -> None:
    """So a token may change; the protocol's own headers cannot be replaced."""
    asked = 0

    def headers() -> dict[str, str]:
        nonlocal asked
        asked += 1
        return {"Authorization": f"Bearer {asked}", "Content-Type": "text/html"}

    async with shell(server_url, headers=headers) as client:
        await client.stream(path).create(content_type="text/plain")
        assert asked == 1
        assert (await client.stream(path).head()).content_type == "text/plain"
        assert asked == 2


async def test_addresses_may_stand_for_themselves(server_url: str, shell: Any, path: str) -> None:
    """Without a base, a name is none."""
    async with shell() as client:
        stream = client.stream(f"{server_url}/{path}")
        assert stream.url == f"{server_url}/{path}"
        assert (await stream.create()).created
        with pytest.raises(ConfigError):
            client.stream(path)


async def test_one_stream_may_be_enough(server_url: str, path: str) -> None:
    """A client comes and goes with the block."""
    url = f"{server_url}/{path}"
    async with connect_async(url) as stream:
        await stream.create(content_type=JSON, items=[1])

    def read() -> list[Any]:
        with connect(url) as stream:
            return stream.read().messages

    assert await asyncio.to_thread(read) == [1]


async def test_an_http_client_of_ones_own_stays_open(server_url: str, path: str) -> None:
    """It may serve other purposes, too."""
    async with httpx2.AsyncClient() as http:
        async with AsyncStreamClient(server_url, http=http) as client:
            await client.stream(path).create()
        assert not http.is_closed

    def blocking() -> bool:
        with httpx2.Client() as http:
            with StreamClient(server_url, http=http) as client:
                client.stream(path).head()
            return http.is_closed

    assert not await asyncio.to_thread(blocking)
