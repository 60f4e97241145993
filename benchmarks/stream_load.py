"""The load on streams: writers in a closed loop and event-stream readers, on bare sockets and epoll.

A hundred bytes are one message, and each says who wrote it and how many that one had written before:

    0  2          14                                   99
    +--+----------+------------------------------------+-+
    |wr|  number  | xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx |~|    wr: 2 digits, the writer; number: 12 digits, from 0
    +--+----------+------------------------------------+-+

Its last byte occurs nowhere else in an event stream, so a reader counts messages by counting that byte, however
they were cut or joined. What exactly came is looked at afterwards: see stream_check.py.
"""

from __future__ import annotations

import select
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from .load import CpuMeter, Unexpected
from .stream_http import HEAD_END, open_socket, parse_head, request

MESSAGE_BYTES = 100
LAST_BYTE = b"~"
FILLING = b"x" * (MESSAGE_BYTES - 15) + LAST_BYTE
BUFFER_BYTES = 1 << 18
DRAIN_SECONDS_MAX = 60
"""How long answers and deliveries are waited for after the last append has left."""

JOIN_SECONDS_MAX = 60

_buffer = bytearray(BUFFER_BYTES)
"""One for all sockets: each looks at its bytes at once."""


class Writer:
    """One connection that appends a message whenever the one before was acknowledged.

    It goes around ``paths``, beginning at its own number. As a producer it has its own id, and a sequence for each.
    Where the server ends the connection instead of answering, it sends the append again on another: Node ends those
    that wait for longer than 5 s for a busy process.
    """

    def __init__(
        self,
        port: int,
        number: int,
        paths: Sequence[str],
        content_type: str,
        *,
        producer: bool = False,
        limit: int = 0,
    ) -> None:
        self.number = number
        self.paths = paths
        self.limit = limit
        """So many appends and no more, where it is not 0."""
        self.writing = True
        """Whether an acknowledgement is followed by the next append."""
        self.sent_at = array("d")
        self.answered_at = array("d")
        self.repeated: Counter[int] = Counter()
        """How often an append was sent again. It may be stored as often."""
        self.on_reconnect: Callable[[Writer], None] | None = None
        self._port = port
        self._connect()
        self._ending = b""
        self._expected = b"HTTP/1.1 200 " if producer else b"HTTP/1.1 204 "
        self._request = self._requests(content_type, producer)

    def _connect(self) -> None:
        self.socket = open_socket(self._port)
        self.socket.setblocking(False)
        self._receive_into, self._send = self.socket.recv_into, self.socket.send

    def _requests(self, content_type: str, producer: bool) -> Callable[[int], bytes]:
        """What makes the bytes of the n-th request."""
        headers = {"Content-Type": content_type}
        if producer:
            headers |= {"Producer-Id": f"p{self.number}", "Producer-Epoch": "0", "Producer-Seq": "%d"}
        body = b"%02d" % self.number + b"%012d" + FILLING
        shifted = [self.path_of(count) for count in range(len(self.paths))]
        templates = [request("POST", path, headers, body_bytes=MESSAGE_BYTES) + body for path in shifted]
        around = len(templates)
        if producer:
            return lambda count: templates[count % around] % (count // around, count)
        return lambda count: templates[count % around] % count

    def path_of(self, count: int) -> str:
        """Where the ``count``-th message goes."""
        return self.paths[(self.number + count) % len(self.paths)]

    @property
    def waiting(self) -> bool:
        """Whether an append is not answered yet."""
        return len(self.sent_at) > len(self.answered_at)

    def write(self) -> None:
        """Send the next append."""
        count = len(self.sent_at)
        if self.limit and count >= self.limit:
            return
        data = self._request(count)
        self.sent_at.append(monotonic())
        if self._send(data) != len(data):
            raise Unexpected("a request did not fit into the socket")

    def on_readable(self) -> None:
        """An answer has come: exactly one, whole, with the status of an append that was new."""
        try:
            size = self._receive_into(_buffer)
        except ConnectionError:
            size = 0
        if size == 0:
            self._on_end()
            return
        whole = self._ending and _buffer.startswith(self._expected) and _buffer.endswith(self._ending, 0, size)
        if not whole:
            self._read_slowly(bytes(_buffer[:size]))
        self.answered_at.append(monotonic())
        if self.writing:
            self.write()

    def _on_end(self) -> None:
        """The server has ended the connection. After the last answer that is its right."""
        self.socket.close()  # which ends its polling, too
        if self.waiting:
            count = len(self.answered_at)
            self.repeated[count] += 1
            self._connect()
            self._send(self._request(count))  # its time stays that of the first
            if self.on_reconnect is not None:
                self.on_reconnect(self)

    def _read_slowly(self, data: bytes) -> None:
        """The first answer, whose ending all have, or one that came in pieces."""
        self.socket.settimeout(DRAIN_SECONDS_MAX)
        while HEAD_END not in data:
            data += self._more(data)
        head = parse_head(data.partition(HEAD_END)[0])
        if not data.startswith(self._expected) or (not head.chunked and head.length != 0):
            raise Unexpected(f"not the answer of a new append: {data!r}")
        self._ending = HEAD_END + b"0\r\n\r\n" if head.chunked else HEAD_END  # a body of no chunks, or none at all
        while not data.endswith(self._ending):
            data += self._more(data)
        self.socket.setblocking(False)

    def _more(self, data: bytes) -> bytes:
        piece = self.socket.recv(BUFFER_BYTES)
        if not piece:
            raise Unexpected(f"the server closed a writer's connection after {data!r}")
        return piece


class Reader:
    """One event-stream reader at the tail. It counts what arrives; some keep it all."""

    def __init__(self, port: int, path: str, *, keeps: bool = False) -> None:
        self.arrivals = array("d")
        self.totals = array("Q")
        """How many messages had come with the arrival of the same index."""
        self.total = 0
        self.closed = False
        self.kept: bytearray | None = bytearray() if keeps else None
        self.socket = open_socket(port)
        self.socket.sendall(request("GET", f"{path}?offset=now&live=sse", {"Accept": "text/event-stream"}))

    def join(self) -> None:
        """Wait for the first control event, which says that the reader is at the tail."""
        self.socket.settimeout(JOIN_SECONDS_MAX)
        data = b""
        while b"upToDate" not in data or not data.endswith((b"\n\n", b"\n\n\r\n")):
            piece = self.socket.recv(BUFFER_BYTES)
            data += piece
            if not piece or not data.startswith(b"HTTP/1.1 200 "[: len(data)]):
                raise Unexpected(f"not an event stream: {data!r}")
        if parse_head(data.partition(HEAD_END)[0]).headers.get("content-type") != "text/event-stream":
            raise Unexpected(f"not an event stream: {data!r}")
        if self.kept is not None:
            self.kept += data
        self.socket.setblocking(False)
        self._receive_into, self._count = self.socket.recv_into, _buffer.count

    def on_readable(self) -> None:
        try:
            size = self._receive_into(_buffer)
        except ConnectionError:
            size = 0
        count = self._count(LAST_BYTE, 0, size)
        if count:
            self.total += count
            self.arrivals.append(monotonic())
            self.totals.append(self.total)
        if self.kept is not None:
            self.kept += _buffer[:size]
        if size == 0:
            self.closed = True
            self.socket.close()  # which ends its polling, too


def join_all(port: int, path: str, count: int, *, keeping: int = 0) -> list[Reader]:
    """So many readers at the tail; ``keeping`` of them, spread evenly, keep what they get."""
    step = count // keeping if keeping else count + 1
    readers = [Reader(port, path, keeps=number % step == step - 1) for number in range(count)]
    for reader in readers:
        reader.join()
    return readers


def leave(clients: Sequence[Writer | Reader]) -> None:
    for client in clients:
        client.socket.close()


@dataclass(frozen=True)
class Window:
    """The measured time, in seconds of the monotonic clock."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    def __contains__(self, moment: float) -> bool:
        return self.begin <= moment < self.end


def drive(
    writers: Sequence[Writer], readers: Sequence[Reader], *, warm_up_s: float, seconds: float, cpu: CpuMeter
) -> Window:
    """Let writers write and readers read: first a warm-up, then what is measured.

    Afterwards every append is acknowledged, and every reader that was not cut off has all messages or has been
    waited for `DRAIN_SECONDS_MAX`. It ends early when all writers are at their limits.

    Raises:
        Unexpected: an append was not accepted, or not answered in time.
    """
    loop = _Loop(writers, readers)
    try:
        started = monotonic()
        for writer in writers:
            writer.write()
        loop.run_until(started + warm_up_s)
        cpu.start()
        begin = monotonic()
        loop.run_until(begin + seconds)
        end = monotonic()
        cpu.stop()
        loop.drain(end + DRAIN_SECONDS_MAX)
    finally:
        loop.close()
    return Window(begin, end)


class _Loop:
    """epoll over all sockets, level-triggered."""

    def __init__(self, writers: Sequence[Writer], readers: Sequence[Reader]) -> None:
        self._writers, self._readers = writers, readers
        self._handlers: dict[int, Callable[[], None]] = {}
        self._poller = select.epoll()
        for writer in writers:
            writer.on_reconnect = self._register
            self._register(writer)
        for reader in readers:
            self._register(reader)

    def _register(self, client: Writer | Reader) -> None:
        self._handlers[client.socket.fileno()] = client.on_readable
        self._poller.register(client.socket, select.EPOLLIN)

    def run_until(self, until: float) -> None:
        """Serve the sockets until then, or until all writers have reached their limits."""
        handlers, poll, event_count = self._handlers, self._poller.poll, len(self._handlers)
        while (now := monotonic()) < until and self._busy():
            for descriptor, _ in poll(until - now, event_count):
                handlers[descriptor]()

    def drain(self, until: float) -> None:
        """Wait for what is under way."""
        for writer in self._writers:
            writer.writing = False
        while monotonic() < until and (self._unanswered() or self._behind()):
            self.run_until(min(until, monotonic() + 0.02))
        if self._unanswered():
            raise Unexpected(f"{self._unanswered()} appends are not answered after {DRAIN_SECONDS_MAX} s")

    def close(self) -> None:
        self._poller.close()

    def _busy(self) -> bool:
        """Whether anything can still happen: limited writers come to an end."""
        return bool(self._readers) or any(writer.waiting for writer in self._writers)

    def _unanswered(self) -> int:
        return sum(writer.waiting for writer in self._writers)

    def _behind(self) -> bool:
        sent = sum(len(writer.sent_at) for writer in self._writers)
        return any(reader.total < sent and not reader.closed for reader in self._readers)


def make_writers(
    port: int, count: int, paths: Sequence[str], content_type: str, *, producer: bool = False, limit: int = 0
) -> list[Writer]:
    return [Writer(port, number, paths, content_type, producer=producer, limit=limit) for number in range(count)]
