"""The Durable Streams protocol: what each request does, and its answer.

Everything is synchronous in the stream's object: what a request writes is one commit, and its
answer waits at the object's gate until that is durable. So data, producer state and close are
either all there after a crash, or none, and a retry is answered as a duplicate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from random import random
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import structlog

from ...errors import (
    LimitExceeded,
    PerdureError,
    RemoteProtocolError,
    StorageError,
    StreamClosed,
    StreamConflict,
    StreamGone,
)
from ...objects.gate import Answer
from ...objects.instance import Instance
from ...objects.object import DurableObject
from ...objects.runtime import Runtime
from ...stream_hosts.directory import StreamDirectory
from ...stream_hosts.host import StreamHost
from ...stream_hosts.hosted import HostedStream
from ...stream_hosts.subscriptions import SubscriptionFeed
from ...streams.producers import Verdict
from ...streams.stream import READ_BYTES, Batch, Span, Stream
from ...values import encode_offset, format_offset
from ...wire.durable_streams import (
    AppendRequest,
    CreateRequest,
    ReadRequest,
    Reply,
    etag,
    format_time,
    is_json,
    join_json,
    matches_etag,
    next_cursor,
    parse_append,
    parse_create,
    parse_read,
    split_json,
)
from ...wire.stream_events import EVENT_STREAM_TYPE, EventEncoder
from .catch_up import CatchUp
from .exchange import Exchange
from .limits import StreamLimits
from .live import EventReader, Hub, LongPoll, Rotation
from .quotas import Quotas
from .replies import NO_STORE, Header, error_reply

log = structlog.get_logger("perdure.streams")

CLOSED: Header = (b"stream-closed", b"true")
UP_TO_DATE: Header = (b"stream-up-to-date", b"true")
CACHE: Header = (b"cache-control", b"private, max-age=60, stale-while-revalidate=300")

STREAM_ROOT = "/v1/stream/"
"""Where streams are, below where the application is mounted."""


class MethodNotAllowed(PerdureError):
    """This stream is written by its owner; it can only be read here."""

    code = "method_not_allowed"
    status = 405


class Place(NamedTuple):
    """A stream for reading, wherever it lives."""

    instance: Instance
    stream: Stream
    tag: str


class StreamService:
    """Answers exchanges."""

    def __init__(
        self,
        runtime: Runtime,
        limits: StreamLimits,
    ) -> None:
        self.directory = StreamDirectory(runtime)
        self.limits = limits
        self._runtime = runtime
        self.feed = SubscriptionFeed(runtime)
        self._hubs: dict[Stream, Hub] = {}
        self._rotation = Rotation(limits.rotate_ms)
        self._quotas = Quotas(limits)

    # --- dispatch

    def handle(self, exchange: Exchange) -> None:
        """Answer a request to a free-standing stream, now or later."""
        try:
            match exchange.method:
                case "POST":
                    request = parse_append(exchange.headers)
                    host = self.directory.awake(exchange.path)
                    if host is not None:  # nearly always
                        self._append_now(request, host, exchange)
                        return
                    work: Callable[[StreamHost, Exchange], Reply | None] = partial(self._append, request)
                case "GET":
                    work = partial(self._read, parse_read(exchange.query))
                case "HEAD":
                    work = self._head
                case "PUT":
                    self._create(exchange, parse_create(exchange.headers))
                    return
                case "DELETE":
                    work = self._delete
                case _:
                    raise MethodNotAllowed(f"{exchange.method} is not for streams")
        except PerdureError as error:
            exchange.reply(error_reply(error))
            return
        self._visit(exchange.path, exchange, work)

    def _visit(self, path: str, exchange: Exchange, work: Callable[[StreamHost, Exchange], Reply | None]) -> None:
        self.directory.visit(path, lambda host: self._run(host, exchange, work), partial(_fail, exchange))

    def _run(
        self, host: StreamHost, exchange: Exchange, work: Callable[[StreamHost, Exchange], Reply | None]
    ) -> None:
        """Do the work in the host; its reply waits for what was written before it."""
        try:
            reply = work(host, exchange)
        except StorageError as error:
            exchange.reply(error_reply(error))  # the gate will never open
            return
        except PerdureError as error:
            reply = error_reply(error)
        except Exception as error:
            log.error("stream request failed", path=exchange.path, exc_info=error)
            reply = error_reply(PerdureError("something went wrong on the server; it has been logged"))
        if reply is not None:
            _submit(host, PendingReply(exchange, reply))

    # --- PUT

    def _create(self, exchange: Exchange, request: CreateRequest) -> None:
        source = None
        if request.fork is not None:
            source = stream_path(request.fork.source, exchange.root)
        self._visit(exchange.path, exchange, partial(self._create_at, request, source))

    def _create_at(
        self, request: CreateRequest, source: str | None, host: StreamHost, exchange: Exchange
    ) -> Reply | None:
        path = exchange.path
        existing = host.find(path)
        if existing is not None:
            if not existing.is_like(request, source):
                raise StreamConflict(f"stream {path!r} is there already, and it is not like this")
            host.renew(existing)
            return _created(existing, exchange, new=False)
        if host.streams.hidden(path):
            raise StreamConflict(f"stream {path!r} was deleted but forks still read it; its path is not free yet")
        self._quotas.check_count(host)
        if source is not None:
            # In the home: the source's host is asked next.
            fork = partial(self._fork_at, request, source, host)
            self.directory.visit(source, lambda at: self._run(at, exchange, fork), partial(_fail, exchange))
            return None
        if host.pointer(path) is not None:
            host.set_pointer(path, None)
        entries = self._entries(exchange, is_json(request.content_type or ""), allow_empty=True)
        hosted = host.create(path, request, entries)
        self._made(host, hosted)
        return _created(hosted, exchange, new=True)

    def _fork_at(
        self, request: CreateRequest, source_path: str, home: StreamHost, host: StreamHost, exchange: Exchange
    ) -> Reply:
        try:
            source = host.get(source_path)
        except StreamGone as error:
            raise StreamConflict(f"the source was deleted: {error}") from error
        entries = self._entries(exchange, source.json, allow_empty=True)
        if host is not home:
            # The pointer's commit comes first in the journal: no fork is ever without it.
            home.set_pointer(exchange.path, int(host.name))
        elif home.pointer(exchange.path) is not None:
            home.set_pointer(exchange.path, None)
        hosted = host.fork(exchange.path, source, source_path, request, entries)
        if host is not home:
            self.directory.moved(exchange.path, int(host.name))
        self._made(host, hosted)
        return _created(hosted, exchange, new=True)

    def _made(self, host: StreamHost, hosted: HostedStream) -> None:
        if self.feed.active:
            tail = hosted.stream.tail_offset
            # Content that it begins with, a fork's too, is news; where there is none it is linked at its tail.
            self.feed.changed(_instance(host), hosted.stream.name, tail, format_offset(0))

    def _entries(self, exchange: Exchange, json: bool, *, allow_empty: bool) -> list[bytes]:
        body = exchange.body
        if not body:
            return []
        if not json:
            return [body]
        entries = split_json(body)
        if not entries and not allow_empty:
            raise RemoteProtocolError("an empty array appends nothing")
        if len(entries) > self.limits.messages_per_append_max:
            raise LimitExceeded("messages_per_append_max", len(entries), self.limits.messages_per_append_max)
        return entries

    # --- POST

    def _append_now(self, request: AppendRequest, host: StreamHost, exchange: Exchange) -> None:
        try:
            reply = self._append(request, host, exchange)
        except StorageError as error:
            exchange.reply(error_reply(error))  # the gate will never open
            return
        except PerdureError as error:
            reply = error_reply(error)
        instance = host.context
        assert isinstance(instance, Instance)
        instance.gate.submit(host.storage.dirty, PendingReply(exchange, reply))

    def _append(self, request: AppendRequest, host: StreamHost, exchange: Exchange) -> Reply:
        hosted = host.get(exchange.path)
        stream = hosted.stream
        try:
            if not exchange.body:
                if not request.closed:
                    raise RemoteProtocolError("the body is empty; to end the stream, say Stream-Closed: true")
                outcome = hosted.close(request.producer)
            else:
                if request.content_type is None:
                    raise RemoteProtocolError("say the Content-Type of the body")
                entries: list[bytes] = []
                if not stream.closed:  # else it is refused for that, whatever it is
                    hosted.check_type(request.content_type)
                    entries = self._entries(exchange, hosted.json, allow_empty=False)
                    if self._quotas.any:
                        self._quotas.check_append(hosted, len(exchange.body), host.now_ms())
                outcome = hosted.append(entries, request.producer, request.stream_seq, close=request.closed)
                if self._quotas.any:
                    self._quotas.trim(hosted, host.now_ms())
        except StreamClosed as error:
            return error_reply(error, CLOSED, (b"stream-next-offset", stream.tail_offset.encode()))
        stored = hosted.stored
        if hosted.mortal:
            host.renew(hosted)
        headers: list[Header] = [(b"stream-next-offset", encode_offset(stored.position))]
        if stored.closed:
            headers.append(CLOSED)
        producer = request.producer
        if producer is None:
            if outcome.verdict is Verdict.ACCEPTED and exchange.body:
                self._grown(host, hosted)
            return Reply(204, headers)
        kept = outcome.kept
        match outcome.verdict:
            case Verdict.ACCEPTED | Verdict.DUPLICATE:
                assert kept is not None
                headers += (
                    (b"producer-epoch", str(kept.epoch).encode()),
                    (b"producer-seq", str(kept.seq).encode()),
                )
                if outcome.verdict is Verdict.DUPLICATE or not exchange.body:
                    return Reply(204, headers)
                self._grown(host, hosted)
                return Reply(200, headers)
            case Verdict.STALE:
                assert kept is not None
                return error_reply(
                    ProducerStale(f"epoch {kept.epoch} of this producer has taken over"),
                    (b"producer-epoch", str(kept.epoch).encode()),
                )
            case Verdict.BAD_START:
                raise RemoteProtocolError("a new epoch begins with Producer-Seq 0")
            case Verdict.GAP:
                expected = 0 if kept is None else kept.seq + 1
                return error_reply(
                    ProducerGap(f"Producer-Seq {expected} comes next, not {producer.seq}"),
                    (b"producer-expected-seq", str(expected).encode()),
                    (b"producer-received-seq", str(producer.seq).encode()),
                )

    def _grown(self, host: StreamHost, hosted: HostedStream) -> None:
        if self.feed.active:
            self.feed.changed(_instance(host), hosted.stream.name, hosted.stream.tail_offset, None)

    # --- HEAD, DELETE

    def _head(self, host: StreamHost, exchange: Exchange) -> Reply:
        hosted = host.get(exchange.path)
        reply = head_reply(Place(_instance(host), hosted.stream, self._tag(host, hosted)))
        if hosted.options.ttl_s is not None:
            reply.headers.append((b"stream-ttl", str(hosted.options.ttl_s).encode()))
        if hosted.options.expires_at_ms is not None:
            reply.headers.append((b"stream-expires-at", format_time(hosted.options.expires_at_ms).encode()))
        return reply

    def _delete(self, host: StreamHost, exchange: Exchange) -> Reply:
        hosted = host.get(exchange.path)
        host.remove(exchange.path)
        if not host.streams.hidden(exchange.path):
            self.directory.removed(exchange.path)
        if self.feed.active:
            self.feed.changed(_instance(host), exchange.path, hosted.stream.tail_offset, None, removed=True)
        return Reply(204, [])

    # --- GET

    def _read(self, request: ReadRequest, host: StreamHost, exchange: Exchange) -> Reply | None:
        hosted = host.get(exchange.path)
        host.renew(hosted)
        return self.read(request, exchange, Place(_instance(host), hosted.stream, self._tag(host, hosted)))

    def _tag(self, host: StreamHost, hosted: HostedStream) -> str:
        return f"{host.name}.{hosted.stream.stored.number}"

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
        if self.limits.read_bytes_max > READ_BYTES:
            span = stream.measure_durable(offset, self.limits.read_bytes_max)
            if span.bytes > READ_BYTES:
                return self._read_much(offset, span, exchange, place)
        batch = stream.read_durable(offset, min(self.limits.read_bytes_max, READ_BYTES))
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
        _submit(place.instance.object, PendingRead(exchange, lambda: reader.begin(reply, span)))
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
                batch = stream.read_durable(offset, self.limits.read_bytes_max)
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
        _submit(
            place.instance.object,
            PendingRead(exchange, lambda: LongPoll(exchange, stream, self.limits.long_poll_ms, answer)),
        )
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

        _submit(place.instance.object, PendingRead(exchange, begin))

    def _hub(self, stream: Stream, encoder: EventEncoder) -> Hub:
        hub = self._hubs.get(stream)
        if hub is None:
            if len(self._hubs) > 64:
                self._hubs = {item: hub for item, hub in self._hubs.items() if hub.readers}
            hub = self._hubs[stream] = Hub(stream, encoder, _now_ms)
        return hub


class ProducerStale(PerdureError):
    """A later epoch of the producer has taken over."""

    code = "producer_stale"
    status = 403


class ProducerGap(PerdureError):
    """An append before this one has not arrived."""

    code = "producer_gap"
    status = 409


class PendingReply(Answer):
    """A reply that waits for what was written before it."""

    __slots__ = ("_exchange", "_reply")

    def __init__(self, exchange: Exchange, reply: Reply) -> None:
        self._exchange = exchange
        self._reply = reply

    def __call__(self) -> None:
        self._exchange.reply(self._reply)

    def fail(self, error: Exception) -> None:
        _fail(self._exchange, error)


class PendingRead(Answer):
    """A live read that begins when what was written before it is durable."""

    __slots__ = ("_begin", "_exchange")

    def __init__(self, exchange: Exchange, begin: Callable[[], object]) -> None:
        self._exchange = exchange
        self._begin = begin

    def __call__(self) -> None:
        try:
            self._begin()
        except PerdureError as error:
            self._exchange.reply(error_reply(error))

    def fail(self, error: Exception) -> None:
        _fail(self._exchange, error)


def _submit(owner: DurableObject, answer: Answer) -> None:
    instance = _instance(owner)
    instance.gate.submit(owner.storage.dirty, answer)


def _instance(owner: DurableObject) -> Instance:
    assert isinstance(owner.context, Instance)
    return owner.context


def _fail(exchange: Exchange, error: Exception) -> None:
    if not isinstance(error, PerdureError):
        log.error("stream request failed", path=exchange.path, exc_info=error)
        error = PerdureError("something went wrong on the server; it has been logged")
    exchange.reply(error_reply(error))


def stream_path(given: str, root: str) -> str:
    """A stream's path from what names it in a header: its URL, the URL's path, or its own path."""
    path = urlsplit(given).path
    for prefix in (root, STREAM_ROOT):
        if path.startswith(prefix):
            path = path[len(prefix) :]
            break
    return unquote(path).strip("/")


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


def _created(hosted: HostedStream, exchange: Exchange, *, new: bool) -> Reply:
    stream = hosted.stream
    headers: list[Header] = [
        (b"content-type", stream.content_type.encode()),
        (b"stream-next-offset", stream.tail_offset.encode()),
    ]
    if new:
        headers.append((b"location", exchange.url))
    if stream.closed:
        headers.append(CLOSED)
    return Reply(201 if new else 200, headers)


def _body(stream: Stream, batch: Batch) -> bytes | list[bytes]:
    return join_json(batch.entries) if is_json(stream.content_type) else batch.entries


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
