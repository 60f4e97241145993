"""Server-sent events: the text/event-stream format of the HTML standard, both directions.

An event is a block of lines that ends with an empty one::

    event: control\n          optional; "message" where it is absent
    id: 17\n                  optional; a client sends it back as Last-Event-ID
    data: {"a":1}\n           one line of data each, joined with \n
    \n

Lines that begin with a colon are comments; proxies see traffic, clients skip them.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import LimitExceeded

DONE = b"data: [DONE]\n\n"
"""How the AI SDK's streams end."""

EVENT_BYTES_MAX = 4 * 1024 * 1024
"""Default for the longest event that `SseParser` takes: a 1 MiB message in its worst encoding."""


def sse_event(data: bytes, *, event: str | None = None, id: str | None = None) -> bytes:
    """One event. ``data`` may hold line breaks (they arrive as ``\\n``).

    Raises:
        ValueError: ``event`` or ``id`` holds a character that would break the block.
    """
    head = b""
    if event is not None:
        head = b"event: " + _one_line(event) + b"\n"
    if id is not None:
        head += b"id: " + _one_line(id) + b"\n"
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    return head + b"data: " + data + b"\n\n"


def sse_comment(text: str) -> bytes:
    """A comment: keeps a connection alive and is ignored by every client."""
    return b": " + _one_line(text) + b"\n\n"


def _one_line(text: str) -> bytes:
    if any(character in text for character in "\r\n\0"):
        raise ValueError(f"line breaks and NUL cannot be part of an event's head: {text[:80]!r}")
    return text.encode()


class SseEvent(NamedTuple):
    """A received event. ``id`` is the newest id that the stream has named, ``""`` at first."""

    data: str
    event: str
    id: str


class SseParser:
    """Bytes in, events out, wherever the network cut the bytes.

    An event that the stream's end cut off is never given out. Invalid UTF-8 becomes U+FFFD, as
    the standard demands. ``event_bytes_max`` bounds one event, and one line.
    """

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self._event_bytes_max = event_bytes_max
        self._line = bytearray()  # an unfinished line
        self._after_cr = False  # the last byte was \r: a \n now belongs to it
        self._at_start = True  # a byte order mark may come
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event = b""

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that ``data`` completes.

        Raises:
            LimitExceeded: an event is larger than allowed; the parser is of no use afterwards.
        """
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *rest = data.split(b"\n")
        self._line += first
        events: list[SseEvent] = []
        for following in rest:
            event = self._take_line(bytes(self._line))
            if event is not None:
                events.append(event)
            self._line = bytearray(following)
        self._check_size(len(self._line))
        return events

    def _take_line(self, line: bytes) -> SseEvent | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._take_event()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._check_size(len(value))
            self._data.append(value)
            self._data_bytes += len(value) + 1
        elif name == b"event":
            self._event = value
        elif name == b"id":
            if b"\0" not in value:
                self.last_event_id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit():
            self.retry_ms = int(value[:9])  # a week and more is "never" anyway
        return None

    def _take_event(self) -> SseEvent | None:
        data, event = self._data, self._event
        self._data, self._data_bytes, self._event = [], 0, b""
        if not data:
            return None
        return SseEvent(
            b"\n".join(data).decode(errors="replace"),
            event.decode(errors="replace") or "message",
            self.last_event_id,
        )

    def _check_size(self, more_bytes: int) -> None:
        size = self._data_bytes + more_bytes
        if size > self._event_bytes_max:
            raise LimitExceeded("event_bytes_max", size, self._event_bytes_max)
