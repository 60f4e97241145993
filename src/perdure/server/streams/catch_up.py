"""Large catch-up reads: a body of known size, sent block by block as fast as the client takes it.

However much one read returns, no more than a block of it is in memory; a client that reads slowly
costs a place to go on from.
"""

from __future__ import annotations

import asyncio

from ...errors import PerdureError
from ...streams.stream import READ_BYTES, Span, Stream
from ...values import format_offset
from ...wire.durable_streams import Reply
from .exchange import Exchange, Frame

BLOCKS_AT_ONCE_MAX = 8
"""Blocks that one read is given before others have their turn."""


def body_bytes(span: Span, json: bool) -> int:
    """The size of the body: an array's brackets and commas count."""
    return span.bytes + (span.end - span.position - 1) + 2 if json else span.bytes


class CatchUp:
    """One client's large read."""

    __slots__ = ("_end", "_exchange", "_first", "_json", "_position", "_stopped", "_stream")

    def __init__(self, exchange: Exchange, stream: Stream, span: Span, *, json: bool) -> None:
        self._exchange = exchange
        self._stream = stream
        self._position = span.position
        self._end = span.end
        self._json = json
        self._first = True
        self._stopped = False
        exchange.on_drained = self._go_on
        exchange.on_gone = self._leave

    def begin(self, reply: Reply, span: Span) -> None:
        """Send the head and what the client takes at once."""
        self._stream.readers += 1
        self._exchange.start(reply, body_bytes(span, self._json))
        self._go_on()

    def _go_on(self) -> None:
        for _ in range(BLOCKS_AT_ONCE_MAX):
            if self._stopped:
                return
            try:
                block = self._next_block()
            except PerdureError:  # it was deleted or trimmed: a body that is cut short says so
                self._leave()
                self._exchange.cut()
                return
            taken = self._exchange.write(Frame(block))
            if self._position >= self._end:
                self._leave()
                self._exchange.finish()
                return
            if not taken:
                return  # on_drained comes
        asyncio.get_running_loop().call_soon(self._go_on)

    def _next_block(self) -> bytes:
        entries = self._stream.read_durable(format_offset(self._position), READ_BYTES).entries
        entries = entries[: self._end - self._position]
        self._position += len(entries)
        if not self._json:
            return entries[0] if len(entries) == 1 else b"".join(entries)
        opening = b"[" if self._first else b","
        self._first = False
        return b"".join((opening, b",".join(entries), b"]" if self._position >= self._end else b""))

    def _leave(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._stream.readers -= 1
