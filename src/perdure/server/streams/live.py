"""Live reads: server-sent events and long-polls at the tail of a stream.

What becomes durable is read once, encoded once, and the same bytes go to all readers that stand
at the tail. A reader that is behind (it begins, or its client is slow) reads from storage at its
own pace until it has caught up; it costs the others nothing and no more memory than one block.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import random

from ...errors import PerdureError
from ...streams.stream import READ_BYTES, Stream
from ...values import format_offset
from ...wire.durable_streams import Reply, next_cursor
from ...wire.stream_events import EventEncoder, control_event
from .counters import StreamCounters
from .exchange import Exchange, Frame
from .replies import error_reply

ROTATE_MS = 55_000
"""Age at which a live connection is ended politely; clients connect again (section 5.7 says about 60 s)."""

BLOCKS_AT_ONCE_MAX = 4
"""Blocks that a reader behind is given before others have their turn."""


class Rotation:
    """Ends live reads that have lasted long enough. One timer for all: they all last equally long."""

    def __init__(self, rotate_ms: int = ROTATE_MS) -> None:
        self._rotate_s = rotate_ms / 1000
        self._due: dict[EventReader, float] = {}  # in order of the time, which is the order of beginning
        self._timer: asyncio.TimerHandle | None = None

    def add(self, reader: EventReader) -> None:
        """The reader begins now."""
        loop = asyncio.get_running_loop()
        self._due[reader] = loop.time() + self._rotate_s
        if self._timer is None:
            self._timer = loop.call_later(self._rotate_s, self._rotate)

    def remove(self, reader: EventReader) -> None:
        """The reader has ended."""
        self._due.pop(reader, None)

    def _rotate(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for reader, due in list(self._due.items()):
            if due > loop.time():
                self._timer = loop.call_at(due, self._rotate)
                return
            del self._due[reader]
            reader.rotate()


class Hub:
    """All event readers at the tail of one stream."""

    def __init__(
        self, stream: Stream, encoder: EventEncoder, counters: StreamCounters, clock_ms: Callable[[], int]
    ) -> None:
        self.stream = stream
        self.encoder = encoder
        self.counters = counters
        self.readers: set[EventReader] = set()
        self._clock_ms = clock_ms
        self._position = stream.durable_position
        self._cursor = 0

    def cursor(self, client_cursor: str | None = None) -> int:
        """The cursor of the next event: greater than what any client brought, and never less than before."""
        self._cursor = max(self._cursor, next_cursor(self._clock_ms(), client_cursor, random()))
        return self._cursor

    def join(self, reader: EventReader, position: int) -> bool:
        """Take a reader in that has everything up to ``position``; False: there is more by now."""
        if position != self.stream.durable_position or self.stream.durable_closed:
            return False
        if not self.readers:
            self._position = position
            self.stream.follow_with(self)
        self.readers.add(reader)
        return True

    def leave(self, reader: EventReader) -> None:
        """The reader is gone, or behind."""
        if reader in self.readers:
            self.readers.remove(reader)
            if not self.readers:
                self.stream.unfollow(self)

    def on_entries(self, stream: Stream) -> None:
        """From the stream: more is durable."""
        while self.readers and (self._position < stream.durable_position or stream.durable_closed):
            batch = stream.read_durable(format_offset(self._position), READ_BYTES)
            self._position += len(batch.entries)
            self.counters.deliveries += len(batch.entries) * len(self.readers)
            frame = Frame(
                self.encoder.block(
                    batch.entries,
                    batch.next_offset,
                    self.cursor(),
                    up_to_date=batch.up_to_date,
                    closed=batch.closed,
                )
            )
            for reader in tuple(self.readers):
                reader.take(frame, batch.next_offset, batch.closed)

    def on_gone(self, error: PerdureError) -> None:
        """From the stream: it, or its instance, is gone. Clients ask again and learn which."""
        for reader in tuple(self.readers):
            reader.end()


class EventReader:
    """One client's server-sent events."""

    __slots__ = ("_client_cursor", "_closed", "_exchange", "_hub", "_rotation", "ended", "offset")

    def __init__(
        self, exchange: Exchange, hub: Hub, rotation: Rotation, offset: str, client_cursor: str | None
    ) -> None:
        self.offset = offset
        self.ended = False
        self._exchange = exchange
        self._hub = hub
        self._rotation = rotation
        self._client_cursor = client_cursor
        self._closed = False
        exchange.on_drained = self._catch_up
        exchange.on_gone = self._on_gone

    def begin(self) -> None:
        """Send what there is, and go on as it comes. The first control event comes at once."""
        self._hub.stream.readers += 1
        self._hub.counters.readers += 1
        self._rotation.add(self)
        self._send_block()
        self._catch_up()

    def _catch_up(self) -> None:
        for _ in range(BLOCKS_AT_ONCE_MAX):
            if self.ended:
                return
            if self._closed:
                self.end()
                return
            if self._hub.join(self, int(self.offset)):
                return
            if not self._send_block():
                return  # on_drained comes
        asyncio.get_running_loop().call_soon(self._catch_up)

    def _send_block(self) -> bool:
        try:
            batch = self._hub.stream.read_durable(self.offset, READ_BYTES)
        except PerdureError:
            self.end()  # asked again, the client gets the error
            return False
        self.offset = batch.next_offset
        cursor = self._hub.cursor(self._client_cursor)
        self._client_cursor = None
        block = self._hub.encoder.block(
            batch.entries, batch.next_offset, cursor, up_to_date=batch.up_to_date, closed=batch.closed
        )
        self._closed = batch.closed
        return self._exchange.write(Frame(block))

    def take(self, frame: Frame, next_offset: str, closed: bool) -> None:
        """From the hub: the next block, shared by all at the tail."""
        self.offset = next_offset
        if not self._exchange.write(frame) and not closed:
            self._hub.leave(self)  # behind; on_drained comes
        elif closed:
            self.end()

    def rotate(self) -> None:
        """The connection has lasted long enough: a last control event with a newer cursor, and the end."""
        if not self.ended:
            if self in self._hub.readers:
                cursor = self._hub.cursor()
                self._exchange.write(Frame(control_event(self.offset, cursor, up_to_date=True, closed=False)))
            self.end()

    def end(self) -> None:
        """End the body, politely: the client goes on from its offset."""
        if not self.ended:
            self._on_gone()
            self._exchange.finish()

    def _on_gone(self) -> None:
        if not self.ended:
            self.ended = True
            self._hub.stream.readers -= 1
            self._hub.counters.readers -= 1
            self._hub.leave(self)
            self._rotation.remove(self)


class LongPoll:
    """One client's wait for more."""

    __slots__ = ("_answer", "_answered", "_counters", "_exchange", "_stream", "_timer")

    def __init__(
        self,
        exchange: Exchange,
        stream: Stream,
        counters: StreamCounters,
        timeout_ms: int,
        answer: Callable[[], Reply],
    ) -> None:
        self._exchange = exchange
        self._stream = stream
        self._answer = answer
        self._answered = False
        self._counters = counters
        counters.readers += 1
        stream.readers += 1
        stream.follow_with(self)
        self._timer = asyncio.get_running_loop().call_later(timeout_ms / 1000, self._reply)
        exchange.on_gone = self._leave

    def on_entries(self, stream: Stream) -> None:
        """From the stream: more is durable."""
        self._reply()

    def on_gone(self, error: PerdureError) -> None:
        """From the stream: it, or its instance, is gone."""
        self._reply(error)

    def _reply(self, error: PerdureError | None = None) -> None:
        if self._answered:
            return
        self._leave()
        self._exchange.reply(error_reply(error) if error is not None else self._answer())

    def _leave(self) -> None:
        if not self._answered:
            self._answered = True
            self._timer.cancel()
            self._counters.readers -= 1
            self._stream.readers -= 1
            self._stream.unfollow(self)
