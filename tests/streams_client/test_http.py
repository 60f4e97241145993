"""The client on the wire: timeouts, sizes, redirects, and answers that are none. A few bytes of a server by hand."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import httpx2
import pytest

from perdure.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from perdure.streams_client import AsyncStreamClient, ClientLimits, StreamClient, StreamRefused, StreamUnreachable

pytestmark = pytest.mark.anyio

JSON = "application/json"

Answer: TypeAlias = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def by_hand(answer: Answer) -> AsyncIterator[str]:
    """A server that gives each request's head to ``answer`` and then closes the connection; its address."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(await reader.readuntil(b"\r\n\r\n"), writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()


def head(status: str, *headers: str) -> bytes:
    """The head of an answer that ends with its connection."""
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""]).encode()


TAIL = head("200 OK", f"Content-Type: {JSON}", "Stream-Next-Offset: o1", "Stream-Up-To-Date: true") + b"[1]"
EVENTS = head("200 OK", "Content-Type: text/event-stream")


async def test_a_silent_connection_is_given_up(shell: Any) -> None:
    """After `silence_timeout_s`; one that says something in time is not."""
    connections = 0

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        if b"live=" not in request:
            writer.write(TAIL)
            return
        connections += 1
        writer.write(EVENTS)
        for _ in range(5):
            await asyncio.sleep(0.1)
            writer.write(b": still here\n\n")
        if connections == 1:
            await asyncio.sleep(2)
        else:
            writer.write(b'event: control\ndata: {"streamNextOffset":"o1","streamClosed":true}\n\n')

    async with (
        by_hand(answer) as url,
        shell(url, limits=ClientLimits(silence_timeout_s=0.6, answer_timeout_s=5)) as client,
    ):
        batches = [batch async for batch in client.stream("a").follow(live="sse")]
    assert connections == 2
    assert batches[-1].closed


async def test_an_answer_is_waited_for(shell: Any) -> None:
    """For `answer_timeout_s`, and then asked for again."""
    requests = 0

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        await asyncio.sleep(1.5 if requests == 1 else 0.05)
        writer.write(head("204 No Content", "Stream-Next-Offset: o1"))

    async with by_hand(answer) as url, shell(url, limits=ClientLimits(answer_timeout_s=0.6)) as client:
        assert await client.stream("a", content_type=JSON).append(1) == "o1"
    assert requests == 2


async def test_every_request_has_its_timeouts() -> None:
    """Live reads may be silent, the others not; the connection has its own time."""
    seen: list[tuple[str, Any]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        live = request.url.params.get("live", "")
        seen.append((live, request.extensions["timeout"]))
        headers = {"content-type": "text/plain", "stream-next-offset": "o1", "stream-up-to-date": "true"}
        return httpx2.Response(200, headers=headers | ({"stream-closed": "true"} if live else {}))

    limits = ClientLimits(connect_timeout_s=1, answer_timeout_s=2, silence_timeout_s=3)
    async with (
        httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http,
        AsyncStreamClient("http://test", http=http, limits=limits) as client,
    ):
        assert [batch.closed async for batch in client.stream("a").follow()] == [False, True]
    with StreamClient(
        "http://test", http=httpx2.Client(transport=httpx2.MockTransport(answer)), limits=limits
    ) as same:
        assert [batch.closed for batch in same.stream("a").follow()] == [False, True]
    other = {"connect": 1, "read": 2, "write": 2, "pool": 2}
    assert seen == [("", other), ("long-poll", {**other, "read": 3})] * 2


@pytest.mark.parametrize("limit", ["body_bytes_max", "event_bytes_max"])
async def test_sizes_are_bounded(shell: Any, limit: str) -> None:
    """What fits comes, one byte more is an error."""
    event = f'{{"streamNextOffset":"o2","streamClosed":true,"padding":"{"x" * 60}"}}'

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        body = f"event: data\ndata: [2]\n\nevent: control\ndata: {event}\n\n".encode()
        writer.write(EVENTS + body if b"live=" in request else TAIL)

    for room, fits in ((0, True), (-1, False)):
        value = (3 if limit == "body_bytes_max" else len(event)) + room
        async with by_hand(answer) as url, shell(url, limits=ClientLimits(**{limit: value})) as client:
            follow = client.stream("a").follow(live="sse")
            if fits:
                assert [batch.messages async for batch in follow] == [[1], [2]]
            else:
                with pytest.raises(LimitExceeded, match=f"{limit} allows {value}"):
                    assert [batch async for batch in follow]


async def test_all_of_a_read_is_bounded(shell: Any) -> None:
    """Its batches together are as long as a body may be."""
    answers = [(b"Stream-Next-Offset: o1", b"ab"), (b"Stream-Up-To-Date: true\r\nStream-Next-Offset: o2", b"cd")]

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        headers, body = answers[b"offset=o1" in request]
        writer.write(head("200 OK", headers.decode(), "Content-Type: text/plain") + body)

    for bytes_max in (4, 3):
        async with by_hand(answer) as url, shell(url, limits=ClientLimits(body_bytes_max=bytes_max)) as client:
            if bytes_max == 4:
                assert (await client.stream("a").read()).data == b"abcd"
            else:
                with pytest.raises(LimitExceeded, match="body_bytes_max allows 3 at most, this has 4"):
                    await client.stream("a").read()


async def test_the_rest_of_a_long_refusal_is_not_read(shell: Any) -> None:
    """Its beginning says enough, of a read and of other requests."""

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head("413 Content Too Large", "Content-Length: 100000000000") + b"too large. ")
        while True:
            writer.write(b"x" * 16_384)
            await writer.drain()

    async with by_hand(answer) as url, shell(url) as client, asyncio.timeout(5):
        with pytest.raises(StreamRefused, match=r"POST was answered 413: too large\. x") as caught:
            await client.stream("a", content_type=JSON).append(1)
        assert caught.value.status == 413
        with pytest.raises(StreamRefused, match=r"GET was answered 413: too large\. x"):
            await client.stream("a").read()


async def test_reads_are_redirected_and_appends_are_not(shell: Any) -> None:
    """A read may be served elsewhere; where an append has gone must be certain."""

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        line = request.partition(b"\r\n")[0]
        if b"/elsewhere" in line:
            writer.write(TAIL)
        else:
            writer.write(head("307 Temporary Redirect", "Location: /elsewhere?offset=-1", "Content-Length: 0"))

    async with by_hand(answer) as url, shell(url) as client:
        assert (await client.stream("a").read()).messages == [1]
        with pytest.raises(RemoteProtocolError, match="POST was answered 307"):
            await client.stream("a", content_type=JSON).append(1)


async def test_bodies_may_be_compressed(shell: Any) -> None:
    """What is broken then is an error."""
    packed = gzip.compress(b"[1,2,3]")
    bodies = iter([packed, b"no gzip"])

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        headers = ("Content-Encoding: gzip", f"Content-Type: {JSON}", "Stream-Next-Offset: o1")
        writer.write(head("200 OK", "Stream-Up-To-Date: true", *headers) + next(bodies))

    async with by_hand(answer) as url, shell(url) as client:
        assert (await client.stream("a").read()).messages == [1, 2, 3]
        with pytest.raises(RemoteProtocolError, match="cannot be read"):
            await client.stream("a").read()


async def test_what_speaks_no_http_is_not_reached(shell: Any) -> None:
    """It is tried again, as after a cut."""
    requests = 0

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        writer.write(b"220 mail.example ESMTP\r\n")

    async with by_hand(answer) as url, shell(url, retry_for_s=0.3) as client:
        with pytest.raises(StreamUnreachable):
            await client.stream("a").head()
    assert requests > 1


async def test_what_cannot_be_sent_is_this_programs_mistake(shell: Any) -> None:
    """It is not tried again."""
    async with shell("http://127.0.0.1:9", headers={"x-name": "a\nb"}) as client:
        with pytest.raises(LocalProtocolError, match="cannot be sent"):
            await client.stream("a").head()
    async with shell("http://127.0.0.1:9") as client:
        producer = client.stream("a", content_type=JSON).producer("né")
        await producer.append(1)
        with pytest.raises(LocalProtocolError, match="cannot be sent"):
            await producer.flush()
        with pytest.raises(LocalProtocolError):
            await producer.detach()
