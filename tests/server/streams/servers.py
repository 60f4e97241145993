"""Servers of streams, over both ways to them, and clients that show all that is on the wire."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest import mock

import httpx2
import uvicorn
from tests.running import HURRIED, until
from tests.server.clients import http
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from perdure import App, DurableObject
from perdure.objects.slot import Slot
from perdure.server.streams.accelerator import StreamHttpProtocol, http_protocol
from perdure.server.streams.limits import StreamLimits
from perdure.stream_hosts.host import StreamHost
from perdure.streams.stream import Stream
from perdure.wire.sse import SseParser

Way = Literal["asgi", "accelerated"]

ROOT = "/v1/stream/"
TEXT = "text/plain"
JSON = "application/json"
START = "0000000000000000"

LIMITS = StreamLimits(long_poll_ms=300)
"""Polls end before the tests' patience does."""


def stream_app(folder: Path, *classes: type[DurableObject], limits: StreamLimits = LIMITS, **options: Any) -> App:
    """An application of streams, in ``folder / "data"``."""
    settings = {"limits": HURRIED, "pages": False, **options}
    return App(classes, data=folder / "data", stream_limits=limits, **settings)


def limited(**limits: Any) -> StreamLimits:
    """`LIMITS` with changes."""
    return replace(LIMITS, **limits)


class Event(NamedTuple):
    """A data event with its control event, or a control event alone."""

    data: str | None
    control: dict[str, Any]


class Events:
    """Server-sent events of one connection."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._pieces = response.aiter_raw()
        self._parser = SseParser()
        self._waiting: list[Event] = []
        self._data: str | None = None

    async def next(self, *, timeout_s: float = 5) -> Event | None:
        """The next one; None: the server has ended the body."""
        async with asyncio.timeout(timeout_s):
            while not self._waiting:
                try:
                    piece = await anext(self._pieces)
                except StopAsyncIteration:
                    assert self._data is None, "a data event without its control event"
                    return None
                for event in self._parser.feed(piece):
                    if event.event == "data":
                        assert self._data is None, "a data event without its control event"
                        self._data = event.data
                    else:
                        assert event.event == "control"
                        self._waiting.append(Event(self._data, json.loads(event.data)))
                        self._data = None
        return self._waiting.pop(0)

    async def rest(self) -> list[Event]:
        """All up to the end of the body."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events


class StreamClient:
    """A client of one server's streams. Paths are those below ``prefix``, which begins with ``/v1/stream/``."""

    def __init__(self, app: App, address: str, web: httpx2.AsyncClient, prefix: str = ROOT) -> None:
        self.app = app
        self.address = address
        self.web = web
        self.prefix = prefix

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """One request; its response, whatever its status."""
        return await self.web.request(method, self.prefix + path, content=body, headers=headers, params=query)

    async def create(self, path: str, body: bytes = b"", content_type: str = TEXT, **headers: str) -> httpx2.Response:
        """PUT; it must succeed. ``stream_ttl="60"`` is the header ``stream-ttl``."""
        response = await self.ask("PUT", path, body, {"content-type": content_type, **_headers(headers)})
        assert response.status_code in (200, 201), response.text
        return response

    async def append(self, path: str, body: bytes, content_type: str = TEXT, **headers: str) -> httpx2.Response:
        """POST; its response, whatever its status."""
        return await self.ask("POST", path, body, {"content-type": content_type, **_headers(headers)})

    async def produce(
        self, path: str, body: bytes, producer: tuple[str, int, int], content_type: str = TEXT, **headers: str
    ) -> httpx2.Response:
        """POST as a producer: id, epoch, sequence number."""
        name, epoch, seq = producer
        numbers = {"producer_id": name, "producer_epoch": str(epoch), "producer_seq": str(seq)}
        return await self.append(path, body, content_type, **numbers, **headers)

    async def close(self, path: str) -> httpx2.Response:
        """POST of nothing but the end."""
        return await self.ask("POST", path, headers={"stream-closed": "true"})

    async def read(
        self, path: str, offset: str = "-1", headers: Mapping[str, str] | None = None, **query: str
    ) -> httpx2.Response:
        """GET."""
        return await self.ask("GET", path, headers=headers, query={"offset": offset, **query})

    @asynccontextmanager
    async def events(self, path: str, offset: str = "-1", **query: str) -> AsyncIterator[Events]:
        """GET with ``live=sse``."""
        params = {"offset": offset, "live": "sse", **query}
        async with self.web.stream("GET", self.prefix + path, params=params) as response:
            assert response.status_code == 200, await response.aread()
            yield Events(response)

    # --- the server's side

    def at(self, path: str) -> str:
        """The whole path of a stream."""
        return self.prefix.removeprefix(ROOT) + path

    def slot(self, path: str) -> Slot:
        """The slot of the host where the stream is, or would be."""
        assert self.app.stream_surface is not None
        directory = self.app.stream_surface.service.directory
        number = directory._moved.get(self.at(path), directory.home(self.at(path)))
        return self.app.runtime.slot(directory.host_id(number))

    def stream(self, path: str) -> Stream:
        """The stream in the server's memory."""
        instance = self.slot(path).instance
        assert instance is not None
        assert isinstance(instance.object, StreamHost)
        return instance.object.get(self.at(path)).stream

    def may_hibernate(self, path: str) -> bool:
        """Whether the stream's host would hibernate if it had been idle for long."""
        return self.app.runtime.housekeeping._may_hibernate(self.slot(path))

    async def hibernate(self, path: str) -> None:
        """Let the stream's host hibernate, now, when it has nothing to do."""
        slot = self.slot(path)
        await until(lambda: slot.instance is None or self.may_hibernate(path))
        if slot.instance is not None:
            await self.app.runtime.housekeeping._start_hibernation(slot)
        assert slot.instance is None

    def reset(self, path: str) -> None:
        """Throw the host's instance away, as a failing disk would."""
        slot = self.slot(path)
        assert slot.instance is not None
        slot.discard_instance(slot.instance, RuntimeError("a test"))


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in given.items()}


@asynccontextmanager
async def serving_streams(app: App, way: Way, **options: Any) -> AsyncIterator[StreamClient]:
    """The application under uvicorn as `perdure run` has it, or without the accelerator."""
    protocol: Any = http_protocol(app.stream_surface) if way == "accelerated" else HttpToolsProtocol
    assert way == "asgi" or issubclass(protocol, StreamHttpProtocol)
    with mock.patch.object(logging.getLogger("uvicorn.access"), "hasHandlers", return_value=False):
        # pytest's own handler for it would have uvicorn log each request, which is not the accelerator's to do.
        async with _listening(app, protocol, options) as address, http(address) as web:
            yield StreamClient(app, address, web)


@asynccontextmanager
async def _listening(app: App, protocol: Any, options: dict[str, Any]) -> AsyncIterator[str]:
    """uvicorn's protocol on a free port, without its server, whose end takes two tenths of a second."""
    config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None, **options)
    config.load()
    state = ServerState()
    state.default_headers = [(b"server", b"uvicorn")]
    await app.start()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        await app.stop()
        for connection in list(state.connections):
            connection.transport.abort()
        for task in list(state.tasks):
            task.cancel()
        await until(lambda: not state.connections and not state.tasks)


class RawAnswer(NamedTuple):
    """An answer as it is on the wire; header names in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes


class Raw:
    """One connection on which the test decides about each byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *pieces: bytes) -> None:
        """Write."""
        self.writer.write(b"".join(pieces))

    async def answer(self, *, head: bool = False, timeout_s: float = 10) -> RawAnswer:
        """The next answer. ``head``: it is one to HEAD, without a body."""
        async with asyncio.timeout(timeout_s):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:-2])}
            status = int(lines[0].split()[1])
            body = bytearray()
            if headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readline(), 16):
                    body += await self.reader.readexactly(size)
                    await self.reader.readexactly(2)
                await self.reader.readexactly(2)
            elif not head and status not in (204, 304):
                body += await self.reader.readexactly(int(headers["content-length"]))
            return RawAnswer(status, headers, bytes(body))

    async def ended(self) -> bool:
        """Whether the server has closed the connection, with nothing more on it."""
        async with asyncio.timeout(10):
            return await self.reader.read(1) == b""


@asynccontextmanager
async def raw(address: str, *, receive_bytes: int | None = None) -> AsyncIterator[Raw]:
    """A connection of one's own. ``receive_bytes``: how much the system keeps of what is not read."""
    host, port = address.split(":")
    connection = socket.socket()
    try:
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
    except BaseException:
        connection.close()
        raise
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


def asked(method: str, path: str, body: bytes | None = None, *headers: str, version: str = "1.1") -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {ROOT}{path} HTTP/{version}", "host: test", *headers]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
