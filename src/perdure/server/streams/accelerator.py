"""The optional accelerator for streams: hot requests without ASGI.

ASGI costs a task, a scope and four messages a request. Under uvicorn with httptools, appends and
reads of free-standing streams are answered here from the parser's callbacks, and what many live
readers get is encoded once (as a chunk of HTTP/1.1) and written to each connection's transport.
The library keeps parsing, limits, pipelining, timeouts and closing; all other requests, and all
that need a hook of the application, go its way.

Everything works the same without it: with other servers, or with ``PERDURE_ACCELERATOR=0``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ...errors import LimitExceeded, PerdureError
from ...wire.durable_streams import Reply
from ..config import accelerator_enabled
from .exchange import WRITE_AHEAD_BYTES_MAX, Frame
from .replies import error_reply
from .service import STREAM_ROOT
from .surface import CONTROL, ROOMS, StreamSurface, check_stream_path

PREFIX = STREAM_ROOT.encode()
SLOW_PREFIXES = (PREFIX + CONTROL.encode(), PREFIX + ROOMS.encode())

LAST_CHUNK = b"0\r\n\r\n"

PLAIN_PATHS_MAX = 10_000
"""Paths that are kept as they were checked."""

_METHODS = {b"GET": "GET", b"POST": "POST"}
_SPECIAL_HEADERS = frozenset((b"origin", b"expect", b"upgrade"))


class _Signal:
    """Stands in for the event that uvicorn sets on its own cycles; nobody waits for it here."""

    __slots__ = ()

    def set(self) -> None:
        """Nothing to wake."""


_SIGNAL = _Signal()


class FastExchange:
    """An exchange on one of uvicorn's connections, in the place of its request-response cycle."""

    message_event = _SIGNAL

    # What most exchanges never change stays with the class: one is made for each request.
    body = b""
    size = 0
    on_drained: Callable[[], None] | None = None
    on_gone: Callable[[], None] | None = None
    disconnected = False
    gone = False
    keep_alive = True
    more_body = True
    response_complete = False
    _started = False
    _chunked = True

    def __init__(
        self, protocol: StreamHttpProtocol, method: str, path: str, query: bytes, headers: dict[bytes, bytes]
    ) -> None:
        self._protocol = protocol
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.chunks: list[bytes] = []

    @property
    def root(self) -> str:
        return STREAM_ROOT

    @property
    def url(self) -> bytes:
        host = self.headers.get(b"host") or b"localhost"
        return b"".join((self._protocol.scheme_bytes, b"://", host, PREFIX, self.path.encode()))

    # --- the protocol's side

    def reply(self, reply: Reply) -> None:
        if self.response_complete or self._started:
            return
        status, headers, body = reply
        protocol = self._protocol
        parts = protocol.head_of(status, headers)
        self.response_complete = True
        if status == 204 or status == 304:
            parts.append(b"\r\n")
            protocol.send(b"".join(parts))
        elif isinstance(body, list):
            parts.append(b"content-length: %d\r\n\r\n" % sum(map(len, body)))
            if not protocol.transport.is_closing():
                protocol.transport.writelines([b"".join(parts), *body])
        else:
            parts += (b"content-length: %d\r\n\r\n" % len(body), body)
            protocol.send(b"".join(parts))
        protocol.fast_complete(self)

    def start(self, reply: Reply, size: int | None = None) -> None:
        self._started = True
        self._chunked = size is None
        parts = self._protocol.head_of(reply.status, reply.headers)
        parts.append(b"transfer-encoding: chunked\r\n\r\n" if size is None else b"content-length: %d\r\n\r\n" % size)
        self.headers = {}  # a reader may stay long: it keeps no more than it needs
        self._protocol.send(b"".join(parts))

    def write(self, frame: Frame) -> bool:
        protocol = self._protocol
        protocol.send(frame.chunk if self._chunked else frame.data)
        return not protocol.slow

    def finish(self) -> None:
        if not self.response_complete:
            if self._chunked:
                self._protocol.send(LAST_CHUNK)
            self._complete()

    def cut(self) -> None:
        self._protocol.transport.abort()

    def _complete(self) -> None:
        self.response_complete = True
        self._protocol.fast_complete(self)

    # --- the connection's side

    def leave(self) -> None:
        """The client has left."""
        self.gone = self.response_complete = True
        if self.on_gone is not None:
            self.on_gone()


class StreamHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a short way for streams. Get a subclass for an app from `http_protocol`."""

    surface: ClassVar[StreamSurface]
    cycle: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.slow = False
        self._fast: FastExchange | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._answered_at = 0.0
        self.scheme_bytes = b"http"
        # uvicorn's own ways of logging, mounting and limiting are for requests that it answers, and an
        # application's hooks are asked with its scope.
        self._may_take = self.surface.open and not (
            self.access_log or self.root_path or self.limit_concurrency is not None
        )

    # --- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_AHEAD_BYTES_MAX)
        self.scheme_bytes = (self.scheme or "http").encode()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        fast, self._fast = self._fast, None
        if fast is not None and not fast.response_complete:
            fast.leave()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self.slow = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self.slow = False
        fast = self._fast
        if fast is not None and fast.on_drained is not None and not fast.response_complete:
            fast.on_drained()

    def send(self, data: bytes) -> None:
        """Write to the client if it is there."""
        if not self.transport.is_closing():
            self.transport.write(data)

    # --- requests

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        url = self.url
        if url.startswith(PREFIX) and self._take(url):
            return
        headers = self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def _take(self, url: bytes) -> bool:
        """Take the request if this is the way for it."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            return False  # pipelined: uvicorn queues it
        parser = self.parser
        method = _METHODS.get(parser.get_method())
        if method is None or not self._may_take:
            return False
        headers = dict(self.headers)
        surface = self.surface
        if (
            not _SPECIAL_HEADERS.isdisjoint(headers)
            or not parser.should_keep_alive()
            or (b"connection" in headers and parser.get_http_version() != "1.1")
            or not surface.runtime.ready
        ):
            return False
        raw, _, query = url.partition(b"?")
        name = surface.plain_paths.get(raw)
        if name is None:
            name = self._plain_path(raw)
            if name is None:
                return False
        self._fast = FastExchange(self, method, name, query, headers)
        self.cycle = self._fast
        return True

    def _plain_path(self, raw: bytes) -> str | None:
        """The path of a free-standing stream that needs no decoding; None for all others."""
        if b"%" in raw or raw.startswith(SLOW_PREFIXES):
            return None
        try:
            name = check_stream_path(raw[len(PREFIX) :].decode("ascii"))
        except (UnicodeDecodeError, PerdureError):
            return None
        paths = self.surface.plain_paths
        if len(paths) >= PLAIN_PATHS_MAX:
            paths.clear()
        paths[raw] = name
        return name

    def on_body(self, body: bytes) -> None:
        fast = self._fast
        if fast is None or self.cycle is not fast:
            super().on_body(body)
        elif not fast.response_complete:
            fast.size += len(body)
            limit = self.surface.limits.append_bytes_max
            if fast.size > limit:
                fast.reply(error_reply(LimitExceeded("append_bytes_max", fast.size, limit)))
            else:
                fast.chunks.append(body)

    def on_message_complete(self) -> None:
        fast = self._fast
        if fast is None or self.cycle is not fast:
            super().on_message_complete()
        elif not fast.response_complete:
            chunks = fast.chunks
            fast.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            fast.more_body = False
            self.surface.service.handle(fast)

    # --- answers

    def head_of(self, status: int, headers: list[tuple[bytes, bytes]]) -> list[bytes]:
        """The status line and headers, without the end."""
        parts: list[bytes] = [STATUS_LINE[status], self.surface.encode_defaults(self.server_state.default_headers)]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        return parts

    def fast_complete(self, exchange: FastExchange) -> None:
        """The exchange's answer is written: the next request may come."""
        if self._fast is exchange:
            self._fast = None
        if self.pipeline or self.flow.read_paused:
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        if not exchange.keep_alive:  # the server is going (`shutdown`)
            self.transport.close()
            return
        # One timer a connection, looked at when it fires, not one a request.
        self._answered_at = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._on_idle)

    def _on_idle(self) -> None:
        self._idle_timer = None
        if self.cycle is None or not self.cycle.response_complete or self.transport.is_closing():
            return
        left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if left > 0.01:
            self._idle_timer = self.loop.call_later(left, self._on_idle)
        else:
            self.timeout_keep_alive_handler()


def http_protocol(surface: StreamSurface | None) -> Any:
    """What uvicorn's ``http`` option should be for an app with this surface."""
    if surface is None or not accelerator_enabled():
        return "httptools"
    return type("AppHttpProtocol", (StreamHttpProtocol,), {"surface": surface})
