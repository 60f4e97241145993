"""Reading a stream from an offset on, to its tail or for ever: pure.

The steps, as a shell carries them out: `Open` a request (sent its `Opened`, or `Lost`), `Read` on
(sent bytes, ``b""`` at the clean end, or `Lost`), `HangUp`, `Wait`; and each `Batch` is for the
reader. They follow one another like this::

    catch-up GET, again and again, until the tail is reached; then
        long-poll:  GET live=long-poll, again and again
        events:     GET live=sse; its end, clean or not, leads to the next one
    until the stream has ended

What came counts when all of it came: a body at its clean end, an event of data with its control
event. Until then the offset stays, and the next request asks for it again: nothing is lost and
nothing comes twice, wherever a connection is cut.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from ..errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from ..wire.json_text import decode_json
from ..wire.sse import SseParser
from .answers import Lost, Request, Response, may_pass, next_offset, refusal, says_closed, unreachable, with_query
from .content import DEFAULT_CONTENT_TYPE, decode_base64, is_exact_in_events, is_json, joined, media_type
from .core import Surroundings, Wait
from .retry import Backoff, retry_after_ms

Live: TypeAlias = Literal["auto", "sse", "long-poll", False]
"""How to go on at the tail.

``"auto"``: by server-sent events where they carry the stream unchanged (JSON, bytes), else by
long-polling; also when connections for events do not last. ``"sse"`` and ``"long-poll"``: only so.
``False``: not at all.
"""

START = "-1"
"""The offset before everything."""

NOW = "now"
"""The offset behind everything that is there."""

SHORT_CONNECTION_MS = 1_000
"""A connection for events that ends sooner was not worth it: a proxy may be in the way."""

SHORT_POLL_MS = 50
"""A poll that is answered sooner, and with nothing, is not repeated at once."""

REFUSAL_BYTES = 4_096
"""How much of a refusal's body is read."""


class Open(NamedTuple):
    """Send the request; its answer's body is read step by step. ``live``: it may be silent for long."""

    request: Request
    live: bool


class Opened(NamedTuple):
    """The head of the answer. ``headers`` have their names in small letters."""

    status: int
    headers: Mapping[str, str]


class Read(NamedTuple):
    """Wait for more of the body."""


class HangUp(NamedTuple):
    """Leave the answer as it is."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What came next in a stream.

    ``data`` is all of it as bytes, of a JSON stream one JSON array; ``messages`` are its messages
    (empty for other streams). ``offset`` is the position behind it: to resume there, keep it.
    ``up_to_date``: the tail was reached. ``closed``: the stream has ended, here.

    A batch without data says that one of these has become true.
    """

    data: bytes
    messages: list[Any]
    offset: str
    up_to_date: bool
    closed: bool
    content_type: str


Step: TypeAlias = Open | Read | HangUp | Wait | Batch
Steps: TypeAlias = Generator[Step, Opened | bytes | Lost | None, None]
Body: TypeAlias = Generator[Step, Opened | bytes | Lost | None, bytes | Lost]


class _Control(msgspec.Struct, rename="camel"):
    """A control event; section 5.8."""

    stream_next_offset: str
    stream_cursor: str | None = None
    up_to_date: bool = False
    stream_closed: bool = False


_CONTROL = msgspec.json.Decoder(_Control)


class Reading:
    """One reader's way along a stream. ``offset`` is where it stands, ``up_to_date`` and ``closed`` what is there.

    Args:
        body_bytes_max: longest body, and most data before its control event.
        event_bytes_max: longest event.
        short_connections_max: so many connections for events in a row that end within a second, and
            ``"auto"`` polls from then on.
    """

    def __init__(
        self,
        url: str,
        around: Surroundings,
        *,
        offset: str = START,
        live: Live = "auto",
        body_bytes_max: int = 268_435_456,
        event_bytes_max: int = 67_108_864,
        short_connections_max: int = 3,
    ) -> None:
        if live not in ("auto", "sse", "long-poll", False):
            raise LocalProtocolError(f"live is 'auto', 'sse', 'long-poll' or False, not {live!r}")
        if not offset:
            raise LocalProtocolError("an offset must not be empty; the start is '-1'")
        self.offset = offset
        self.up_to_date = False
        self.closed = False
        self.content_type = DEFAULT_CONTENT_TYPE
        self._url = url
        self._around = around
        self._live: Live = live
        self._body_bytes_max = body_bytes_max
        self._event_bytes_max = event_bytes_max
        self._short_connections_max = short_connections_max
        self._short_connections = 0
        self._caught_up = False
        self._cursor: str | None = None
        self._retry = around.retry()
        self._pause = Backoff(around.random)

    # --- the way

    def steps(self) -> Steps:
        """The steps to the end.

        Raises:
            PerdureError: the server refuses, or breaks the protocol, or no try is left.
            LimitExceeded: a body or an event is larger than allowed.
        """
        while not self.closed and not (self._live is False and self._caught_up):
            mode = self._mode()
            open_step = Open(self._request(mode), mode != "catch-up")
            opened_ms = self._around.clock_ms()
            opened = yield open_step
            if isinstance(opened, Lost):
                yield self._again(open_step.request, opened)
                continue
            assert isinstance(opened, Opened)
            if mode == "sse" and self._live == "auto" and not _has_events(opened) and not may_pass(opened.status):
                # Servers of the first draft refuse events for some streams.
                yield HangUp()
                self._live = "long-poll"
            elif opened.status in (200, 204):
                take = self._events if _has_events(opened) else self._answer
                yield from take(open_step, opened, opened_ms)
            else:
                yield from self._refused(open_step.request, opened)

    def _mode(self) -> Literal["catch-up", "sse", "long-poll"]:
        if not self._caught_up or self._live is False:
            return "catch-up"
        mode: Literal["sse", "long-poll"]
        if self._live == "auto":
            mode = "sse" if is_exact_in_events(self.content_type) else "long-poll"
        else:
            mode = self._live
        if mode == "long-poll" and not self.up_to_date:
            return "catch-up"  # such answers may come from a cache
        return mode

    def _request(self, mode: str) -> Request:
        query = {"offset": self.offset}
        if mode != "catch-up":
            query["live"] = mode
            if self._cursor is not None:
                query["cursor"] = self._cursor
        return Request("GET", with_query(self._url, **query), {})

    def _again(self, request: Request, outcome: Lost | Response) -> Wait:
        """What to do after a failure that may pass."""
        at_least_ms = 0.0
        if isinstance(outcome, Response):
            at_least_ms = retry_after_ms(outcome.headers, self._around.unix_s())
        wait_ms = self._retry.next_wait_ms(self._around.clock_ms(), at_least_ms)
        if wait_ms is None:
            raise unreachable(request, outcome, at_least_ms)
        return Wait(wait_ms)

    def _refused(self, request: Request, opened: Opened) -> Steps:
        body = b""
        while len(body) < REFUSAL_BYTES:
            more = yield Read()
            if not isinstance(more, bytes) or not more:
                break
            body += more
        yield HangUp()
        response = Response(opened.status, opened.headers, body[:REFUSAL_BYTES])
        if not may_pass(opened.status):
            raise refusal(request, response)
        yield self._again(request, response)

    # --- a whole answer

    def _answer(self, open_step: Open, opened: Opened, opened_ms: float) -> Steps:
        """A catch-up read, or a poll; sections 5.6 and 5.7."""
        body = yield from self._body()
        if isinstance(body, Lost):
            yield self._again(open_step.request, body)
            return
        headers = opened.headers
        timed_out = opened.status == 204
        if not timed_out:
            self.content_type = headers.get("content-type") or self.content_type
        data, messages = joined([body] if body else [], self.content_type)
        offset = headers.get("stream-next-offset") or self.offset if timed_out else next_offset(headers)
        nothing = not self._holds(data, messages)
        at_tail = timed_out or "stream-up-to-date" in headers or (nothing and offset == self.offset)
        self._cursor = headers.get("stream-cursor") or self._cursor
        yield from self._progress(data, messages, offset, up_to_date=at_tail, closed=says_closed(headers))
        if not nothing or self._around.clock_ms() - opened_ms >= SHORT_POLL_MS:
            self._pause.reset()
        elif open_step.live and not self.closed:
            yield Wait(self._pause.next_ms())

    def _body(self) -> Body:
        pieces: list[bytes] = []
        size = 0
        while True:
            more = yield Read()
            if isinstance(more, Lost):
                return more
            assert isinstance(more, bytes)
            if not more:
                return b"".join(pieces)
            pieces.append(more)
            size += len(more)
            if size > self._body_bytes_max:
                raise LimitExceeded("body_bytes_max", size, self._body_bytes_max)

    # --- events

    def _events(self, open_step: Open, opened: Opened, opened_ms: float) -> Steps:
        """A connection for events; section 5.8. Its end is no end of the stream unless it said so."""
        encoded = opened.headers.get("stream-sse-data-encoding", "").strip().lower() == "base64"
        parser = SseParser(event_bytes_max=self._event_bytes_max)
        pieces: list[bytes] = []
        size = 0
        while True:
            more = yield Read()
            if isinstance(more, Lost) or not more:
                break
            assert isinstance(more, bytes)
            for event in parser.feed(more):
                if event.event == "data":
                    pieces.append(decode_base64(event.data) if encoded else event.data.encode())
                    size += len(pieces[-1])
                    if size > self._body_bytes_max:
                        raise LimitExceeded("body_bytes_max", size, self._body_bytes_max)
                elif event.event == "control":
                    yield from self._controlled(event.data, pieces)
                    pieces, size = [], 0
                    if self.closed:
                        yield HangUp()
                        return
        yield from self._events_ended(open_step.request, more if isinstance(more, Lost) else None, opened_ms)

    def _controlled(self, text: str, pieces: list[bytes]) -> Iterator[Batch]:
        control = decode_json(text, "a control event", _CONTROL)
        data, messages = joined(pieces, self.content_type)
        self._cursor = control.stream_cursor or self._cursor
        yield from self._progress(
            data,
            messages,
            control.stream_next_offset,
            up_to_date=control.up_to_date,
            closed=control.stream_closed,
        )

    def _events_ended(self, request: Request, lost: Lost | None, opened_ms: float) -> Steps:
        if self._around.clock_ms() - opened_ms >= SHORT_CONNECTION_MS:
            self._short_connections = 0
            self._pause.reset()
        else:
            self._short_connections += 1
            if self._live == "auto" and self._short_connections >= self._short_connections_max:
                self._live = "long-poll"
                return
            yield Wait(self._pause.next_ms())
        if lost is not None:
            yield self._again(request, lost)

    # --- both

    def _holds(self, data: bytes, messages: list[Any]) -> bool:
        return bool(messages) if is_json(self.content_type) else bool(data)

    def _progress(
        self, data: bytes, messages: list[Any], offset: str, *, up_to_date: bool, closed: bool
    ) -> Iterator[Batch]:
        """Go to ``offset``; the reader hears of it when there is something to hear."""
        up_to_date |= closed
        more = self._holds(data, messages)
        if more and offset == self.offset:
            raise RemoteProtocolError("the stream has data and does not move on; reading would never end")
        news = more or closed or (up_to_date and not self.up_to_date)
        self.offset, self.up_to_date, self.closed = offset, up_to_date, closed
        self._caught_up |= up_to_date
        self._retry.succeeded()
        if news:
            yield Batch(data, messages, offset, up_to_date, closed, self.content_type)


def _has_events(opened: Opened) -> bool:
    return opened.status == 200 and media_type(opened.headers.get("content-type", "")) == "text/event-stream"


class Whole:
    """The batches of one reading, gathered to one of at most ``bytes_max``."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._batches: list[Batch] = []

    def add(self, batch: Batch) -> None:
        """Take the next one.

        Raises:
            LimitExceeded: it is too much.
        """
        self._bytes += len(batch.data)
        if self._bytes > self._bytes_max:
            raise LimitExceeded("body_bytes_max", self._bytes, self._bytes_max)
        self._batches.append(batch)

    @property
    def batch(self) -> Batch:
        """All of them as one."""
        last = self._batches[-1]
        messages = [message for batch in self._batches for message in batch.messages]
        if is_json(last.content_type):
            data = b"[" + b",".join(batch.data[1:-1] for batch in self._batches if batch.messages) + b"]"
        else:
            data = b"".join(batch.data for batch in self._batches)
        return Batch(data, messages, last.offset, last.up_to_date, last.closed, last.content_type)
