"""HTTP as the stream cases need it: one blocking connection, and an answer's head and body taken apart.

It makes streams, fills them, and reads them back; the timed loops are in stream_load.py.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from .load import Unexpected

ROOT = "/v1/stream/"
HEAD_END = b"\r\n\r\n"
ANSWER_SECONDS_MAX = 60
BUFFER_BYTES = 1 << 18

Sink = Callable[[memoryview], object]
"""Takes the pieces of a body in; it must copy what it keeps."""


@dataclass(frozen=True)
class Head:
    """The first line and the headers of an answer; names in lower case."""

    status: int
    headers: dict[str, str]

    @property
    def chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower() == "chunked"

    @property
    def length(self) -> int:
        """The body's bytes, where the head says it (not when it is chunked)."""
        if self.status in {204, 304}:
            return 0
        if "content-length" not in self.headers:
            raise Unexpected(f"an answer without a length: {self}")
        return int(self.headers["content-length"])


def parse_head(data: bytes) -> Head:
    """Take a head apart; ``data`` ends before the empty line.

    Raises:
        Unexpected: this is no HTTP/1.1.
    """
    first, *lines = data.decode("latin-1").split("\r\n")
    if not first.startswith("HTTP/1.1 ") or not first[9:12].isdigit():
        raise Unexpected(f"not an answer: {first[:100]!r}")
    pairs = (line.partition(":") for line in lines)
    return Head(int(first[9:12]), {name.lower(): value.strip() for name, _, value in pairs})


def open_socket(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS_MAX)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def request(method: str, path: str, headers: dict[str, str] | None = None, *, body_bytes: int = 0) -> bytes:
    """The head of a request for a stream: ``path`` is below the root of streams."""
    lines = [f"{method} {ROOT}{path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if method != "GET":
        lines.append(f"Content-Length: {body_bytes}")
    return "\r\n".join([*lines, "", ""]).encode()


class StreamClient:
    """One blocking connection, kept open from request to request (some servers end it after 5 idle seconds)."""

    def __init__(self, port: int) -> None:
        self._socket = open_socket(port)
        self._unread = b""
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    def __enter__(self) -> StreamClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def create(self, path: str, content_type: str) -> None:
        """Raises Unexpected where it is not made."""
        self._socket.sendall(request("PUT", path, {"Content-Type": content_type}))
        self._expect(201, None)

    def append(self, path: str, content_type: str, body: bytes) -> None:
        self._socket.sendall(request("POST", path, {"Content-Type": content_type}, body_bytes=len(body)) + body)
        self._expect(204, None)

    def read(self, path: str, sink: Sink | None = None) -> int:
        """Catch up from the beginning, following ``Stream-Next-Offset`` until up to date; returns the bytes."""
        offset, total = "-1", 0
        while True:
            self._socket.sendall(request("GET", f"{path}?offset={offset}"))
            head, length = self._expect(200, sink)
            total += length
            if head.headers.get("stream-up-to-date") == "true":
                return total
            if head.headers["stream-next-offset"] == offset:
                raise Unexpected(f"catch-up stands still at {offset}")
            offset = head.headers["stream-next-offset"]

    def read_all(self, path: str) -> bytes:
        content = bytearray()
        self.read(path, content.extend)
        return bytes(content)

    def _expect(self, status: int, sink: Sink | None) -> tuple[Head, int]:
        """Read a whole answer; returns its head and the length of its body."""
        while HEAD_END not in self._unread:
            self._unread += self._receive()
        data, _, self._unread = self._unread.partition(HEAD_END)
        head = parse_head(data)
        if head.status != status:
            raise Unexpected(f"{status} was expected, not {data[9:].splitlines()[0].decode('latin-1')}")
        if head.chunked:
            return head, self._take_chunks(sink)
        self._take(head.length, sink)
        return head, head.length

    def _take_chunks(self, sink: Sink | None) -> int:
        total = 0
        while size := int(self._line().partition(b";")[0], 16):
            self._take(size, sink)
            self._line()
            total += size
        if self._line():
            raise Unexpected("trailers are not read here")
        return total

    def _line(self) -> bytes:
        while b"\r\n" not in self._unread:
            self._unread += self._receive()
        line, _, self._unread = self._unread.partition(b"\r\n")
        return line

    def _take(self, size: int, sink: Sink | None) -> None:
        """Read so many bytes of a body, past the buffer of lines."""
        ready = self._unread[:size]
        self._unread = self._unread[size:]
        if sink is not None:
            sink(memoryview(ready))
        left = size - len(ready)
        while left:
            count = self._socket.recv_into(self._buffer, min(left, BUFFER_BYTES))
            if count == 0:
                raise Unexpected("the server closed the connection within a body")
            if sink is not None:
                sink(self._buffer[:count])
            left -= count

    def _receive(self) -> bytes:
        data = self._socket.recv(4096)
        if not data:
            raise Unexpected("the server closed the connection")
        return data
