"""`Exchange`: one request to a stream and its answer, whatever carries it.

The protocol's side is synchronous: it answers at once, or later from a callback (when a commit
is durable, when a stream has more). Two things carry exchanges: ASGI (here), and the accelerator
that writes to the connection itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from starlette.types import Receive, Send

from ...wire.durable_streams import Reply

WRITE_AHEAD_BYTES_MAX = 256 * 1024
"""Bytes of a live read that wait for a slow client; past it the reader falls back to reading from storage."""


class Frame:
    """A block of a body that goes to many connections; each carrier's encoding of it is made once."""

    __slots__ = ("_chunk", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._chunk: bytes | None = None

    @property
    def chunk(self) -> bytes:
        """As one chunk of HTTP/1.1's chunked coding (RFC 9112, 7.1)."""
        if self._chunk is None:
            self._chunk = b"%x\r\n%b\r\n" % (len(self.data), self.data)
        return self._chunk


class Exchange(Protocol):
    """One request and its answer."""

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def root(self) -> str:
        """The path of all streams, as the client sees it: ``/app/v1/stream/``."""

    @property
    def url(self) -> bytes:
        """The request's own URL without its query, as the client sees it."""

    on_drained: Callable[[], None] | None
    """Called when the client has taken what `write` said was too much."""

    on_gone: Callable[[], None] | None
    """Called when the client has left a live read."""

    @property
    def gone(self) -> bool:
        """Whether the client has left."""

    def reply(self, reply: Reply) -> None:
        """Answer. Once; nothing happens when the client has left."""

    def start(self, reply: Reply, size: int | None = None) -> None:
        """Begin an answer whose body comes with `write`: ``size`` bytes, or (None) nobody knows how many.

        ``reply.body`` is not sent.
        """

    def write(self, frame: Frame) -> bool:
        """Send a part of the body. False: taken, but the client is slow; wait for `on_drained`."""

    def finish(self) -> None:
        """End the body, politely."""

    def cut(self) -> None:
        """End the connection in the middle of the body."""


class AsgiExchange:
    """An exchange over ASGI. Run `carry` in the request's task."""

    __slots__ = (
        "_announced",
        "_common",
        "_cut",
        "_finished",
        "_frames",
        "_gone",
        "_reply",
        "_started",
        "_waiting_bytes",
        "_wake",
        "body",
        "headers",
        "method",
        "on_drained",
        "on_gone",
        "path",
        "query",
        "root",
        "url",
    )

    def __init__(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: dict[bytes, bytes],
        body: bytes,
        root: str,
        url: bytes,
        common_headers: Iterable[tuple[bytes, bytes]],
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.root = root
        self.url = url
        self._common = common_headers
        self.on_drained: Callable[[], None] | None = None
        self.on_gone: Callable[[], None] | None = None
        self._reply: Reply | None = None
        self._started = False
        self._finished = False
        self._cut = False
        self._gone = False
        self._announced = False  # write() has said that the client is slow
        self._frames: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._wake: asyncio.Future[None] | None = None

    # --- the protocol's side

    @property
    def gone(self) -> bool:
        return self._gone

    def reply(self, reply: Reply) -> None:
        if self._reply is None:
            self._reply = reply
            self._finished = True
            self._stir()

    def start(self, reply: Reply, size: int | None = None) -> None:
        if size is not None:
            reply.headers.append((b"content-length", str(size).encode()))
        self._reply = reply
        self._started = True
        self._stir()

    def write(self, frame: Frame) -> bool:
        if not self._gone:
            self._frames.append(frame.data)
            self._waiting_bytes += len(frame.data)
            self._stir()
        self._announced = self._waiting_bytes > WRITE_AHEAD_BYTES_MAX
        return not self._announced

    def finish(self) -> None:
        self._finished = True
        self._stir()

    def cut(self) -> None:
        self._cut = True
        self._stir()

    def _stir(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # --- the carrier's side

    async def carry(self, receive: Receive, send: Send) -> None:
        """Send the answer as it comes; returns when all is sent, the client is gone, or it is cut."""
        watch: asyncio.Future[None] | None = None
        try:
            while self._reply is None and not self._gone:
                if watch is None and self.method == "GET":  # a poll may wait for long
                    watch = asyncio.ensure_future(self._watch(receive))
                await self._sleep()
            if self._reply is None:
                return
            status, headers, body = self._reply
            if isinstance(body, list):
                body = b"".join(body)
            headers = [*headers, *self._common]
            if not self._started and status not in (204, 304) and self.method != "HEAD":
                headers.append((b"content-length", str(len(body)).encode()))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            if not self._started:
                await send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})
                return
            if watch is None:
                watch = asyncio.ensure_future(self._watch(receive))
            await self._carry_body(send)
        finally:
            if watch is not None:
                watch.cancel()
            self._leave()

    async def _carry_body(self, send: Send) -> None:
        while not (self._gone or self._cut):
            if self._frames:
                block = b"".join(self._frames) if len(self._frames) > 1 else self._frames[0]
                self._frames.clear()
                await send({"type": "http.response.body", "body": block, "more_body": True})
                self._waiting_bytes -= len(block)
                if self._announced and not self._waiting_bytes and self.on_drained is not None:
                    self._announced = False
                    self.on_drained()
            elif self._finished:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            else:
                await self._sleep()

    async def _sleep(self) -> None:
        self._wake = asyncio.get_running_loop().create_future()
        await self._wake
        self._wake = None

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave()
        self._stir()

    def _leave(self) -> None:
        if not self._gone:
            self._gone = True
            self._frames.clear()
            if self.on_gone is not None:
                self.on_gone()
