"""GET and HEAD of any stream: catch-up, long-poll, server-sent events (sections 5.4 to 5.7)."""

from __future__ import annotations

import time
from random import random
from typing import NamedTuple

from ...errors import PerdureError
from ...objects.instance import Instance
from ...streams.stream import READ_BYTES, Batch, Span, Stream
from ...values import format_offset
from ...wire.durable_streams import ReadRequest, Reply, etag, is_json, join_json, matches_etag, next_cursor
from ...wire.stream_events import EVENT_STREAM_TYPE, EventEncoder
from .catch_up import CatchUp
from .counters import StreamCounters
from .exchange import Exchange
from .limits import StreamLimits
from .live import EventReader, Hub, LongPoll, Rotation
from .pending import PendingRead, submit
from .quotas import Quotas
from .replies import NO_STORE, Header, error_reply

CLOSED: Header = (b"stream-closed", b"true")
UP_TO_DATE: Header = (b"stream-up-to-date", b"true")
CACHE: Header = (b"cache-control", b"private, max-age=60, stale-while-revalidate=300")

HUBS_KEPT_MAX = 64
"""Streams whose hub is kept though nobody is at it."""


class Place(NamedTuple):
    """A stream for reading, wherever it lives."""

    instance: Instance
    stream: Stream
    tag: str


class StreamReads:
    """Reads streams, and knows who reads live."""

    def __init__(self, limits: StreamLimits, quotas: Quotas, counters: StreamCounters) -> None:
        self._limits = limits
        self._counters = counters
        self._quotas = quotas
        self._hubs: dict[Stream, Hub] = {}
        self._rotation = Rotation(limits.rotate_ms)

    def read(self, request: ReadRequest, exchange: Exchange, place: Place) -> Reply | None:
        """Read a stream; None: the answer comes later, past the gate already.

        Raises:
            OffsetError, OffsetTrimmed, TooManyRequests.
        """
        stream = place.stream
        if request.live == "sse":
            self._begin_events(request, exchange, place)
            return None
        if request.live == "long-poll":
            return self._long_poll(request, exchange, place)
        if request.offset == "now":
            body = b"[]" if is_json(stream.content_type) else b""
            return Reply(200, [*self._position_headers(place, stream.tail_batch), NO_STORE], body)
        offset = request.offset or "-1"
        if offset == "-1" and stream.stored.first:
            offset = stream.first_offset  # the start moves, and with it what a tag names
        if self._limits.read_bytes_max > READ_BYTES:
            span = stream.measure_durable(offset, self._limits.read_bytes_max)
            if span.bytes > READ_BYTES:
                return self._read_much(offset, span, exchange, place)
        batch = stream.read_durable(offset, min(self._limits.read_bytes_max, READ_BYTES))
        tag = etag(place.tag, offset, batch.next_offset, batch.closed)
        if matches_etag(exchange.headers.get(b"if-none-match"), tag):
            return Reply(304, [(b"etag", tag.encode()), CACHE])
        headers = [*self._position_headers(place, batch), CACHE, (b"etag", tag.encode())]
        return Reply(200, headers, _body(stream, batch))

    def _read_much(self, offset: str, span: Span, exchange: Exchange, place: Place) -> Reply | None:
        """A read that is sent block by block; its head tells all, before anything is read."""
        stream = place.stream
        batch = Batch([], format_offset(span.end), span.up_to_date, span.closed)
        tag = etag(place.tag, offset, batch.next_offset, batch.closed)
        if matches_etag(exchange.headers.get(b"if-none-match"), tag):
            return Reply(304, [(b"etag", tag.encode()), CACHE])
        reply = Reply(200, [*self._position_headers(place, batch), CACHE, (b"etag", tag.encode())])
        reader = CatchUp(exchange, stream, span, json=is_json(stream.content_type))
        submit(place.instance.object, PendingRead(exchange, lambda: reader.begin(reply, span)))
        return None

    def _position_headers(self, place: Place, batch: Batch) -> list[Header]:
        headers: list[Header] = [
            (b"content-type", place.stream.content_type.encode()),
            (b"stream-next-offset", batch.next_offset.encode()),
        ]
        if batch.up_to_date:
            headers.append(UP_TO_DATE)
        if batch.closed:
            headers.append(CLOSED)
        return headers

    def _long_poll(self, request: ReadRequest, exchange: Exchange, place: Place) -> Reply | None:
        stream = place.stream
        offset = stream.tail_batch.next_offset if request.offset == "now" else request.offset or "-1"

        def answer() -> Reply:
            cursor = (b"stream-cursor", str(next_cursor(_now_ms(), request.cursor, random())).encode())
            try:
                batch = stream.read_durable(offset, min(self._limits.read_bytes_max, READ_BYTES))
            except PerdureError as error:
                return error_reply(error)
            headers = [*self._position_headers(place, batch), cursor]
            if not batch.entries:
                return Reply(204, [*headers[1:], NO_STORE])
            tag = etag(place.tag, offset, batch.next_offset, batch.closed)
            return Reply(200, [*headers, CACHE, (b"etag", tag.encode())], _body(stream, batch))

        batch = stream.read_durable(offset, 1)
        if batch.entries or batch.closed:
            return answer()
        self._quotas.check_readers(stream)

        def begin() -> None:
            # What was under way may have become durable before this: nobody would be told of it again.
            found = stream.read_durable(offset, 1)
            if found.entries or found.closed:
                exchange.reply(answer())
            else:
                LongPoll(exchange, stream, self._counters, self._limits.long_poll_ms, answer)

        submit(place.instance.object, PendingRead(exchange, begin))
        return None

    def _begin_events(self, request: ReadRequest, exchange: Exchange, place: Place) -> None:
        stream = place.stream
        offset = stream.tail_batch.next_offset if request.offset == "now" else request.offset or "-1"
        if offset == "-1":
            offset = stream.first_offset
        stream.read_durable(offset, 1)  # a bad offset is an error, not a stream that ends
        self._quotas.check_readers(stream)
        encoder = EventEncoder(stream.content_type)
        headers: list[Header] = [(b"content-type", EVENT_STREAM_TYPE), (b"cache-control", b"no-cache")]
        headers.append((b"x-accel-buffering", b"no"))
        if encoder.base64:
            headers.append((b"stream-sse-data-encoding", b"base64"))

        def begin() -> None:
            exchange.start(Reply(200, headers))
            EventReader(exchange, self._hub(stream, encoder), self._rotation, offset, request.cursor).begin()

        submit(place.instance.object, PendingRead(exchange, begin))

    def _hub(self, stream: Stream, encoder: EventEncoder) -> Hub:
        hub = self._hubs.get(stream)
        if hub is None:
            if len(self._hubs) > HUBS_KEPT_MAX:
                self._hubs = {item: hub for item, hub in self._hubs.items() if hub.readers}
            hub = self._hubs[stream] = Hub(stream, encoder, self._counters, _now_ms)
        return hub


def head_reply(place: Place) -> Reply:
    """HEAD of any stream."""
    stream = place.stream
    batch = stream.tail_batch
    headers: list[Header] = [
        (b"content-type", stream.content_type.encode()),
        (b"stream-next-offset", batch.next_offset.encode()),
        NO_STORE,
        (b"etag", etag(place.tag, "-1", batch.next_offset, batch.closed).encode()),
    ]
    if batch.closed:
        headers.append(CLOSED)
    return Reply(200, headers)


def _body(stream: Stream, batch: Batch) -> bytes | list[bytes]:
    return join_json(batch.entries) if is_json(stream.content_type) else batch.entries


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
