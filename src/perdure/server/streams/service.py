"""The Durable Streams protocol: what each request does, and its answer.

Everything is synchronous in the stream's object: what a request writes is one commit, and its
answer waits at the object's gate until that is durable. So data, producer state and close are
either all there after a crash, or none, and a retry is answered as a duplicate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
from ...objects.instance import Instance
from ...objects.runtime import Runtime
from ...stream_hosts.directory import StreamDirectory
from ...stream_hosts.host import StreamHost
from ...stream_hosts.hosted import HostedStream
from ...stream_hosts.subscriptions import SubscriptionFeed
from ...streams.producers import Verdict
from ...streams.stream import ENTRY_BYTES_MAX, check_entries
from ...values import encode_offset, format_offset
from ...wire.durable_streams import (
    AppendRequest,
    CreateRequest,
    ReadRequest,
    Reply,
    format_time,
    is_json,
    parse_append,
    parse_create,
    parse_read,
    split_json,
)
from .counters import StreamCounters
from .exchange import Exchange
from .limits import StreamLimits
from .pending import PendingReply, fail, failed, instance_of, submit
from .quotas import Quotas
from .reads import CLOSED, Place, StreamReads, head_reply
from .replies import Header, error_reply

log = structlog.get_logger("perdure.streams")

STREAM_ROOT = "/v1/stream/"
"""Where streams are, below where the application is mounted."""


class MethodNotAllowed(PerdureError):
    """This stream is written by its owner; it can only be read here."""

    code = "method_not_allowed"
    status = 405


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
        self.counters = StreamCounters()
        runtime.metrics.registry.register(self.counters)
        self._quotas = Quotas(limits)
        self.reads = StreamReads(limits, self._quotas, self.counters)

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
        self.directory.visit(path, lambda host: self._run(host, exchange, work), partial(fail, exchange))

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
            reply = failed(exchange, error)
        if reply is not None:
            submit(host, PendingReply(exchange, reply))

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
            fork = partial(self._fork_at, request, source, host, host.pointer(path))
            self.directory.visit(source, lambda at: self._run(at, exchange, fork), partial(fail, exchange))
            return None
        if host.pointer(path) is not None:
            host.set_pointer(path, None)
        entries = self._entries(exchange, is_json(request.content_type or ""), allow_empty=True)
        self._quotas.check_size(len(exchange.body))
        hosted = host.create(path, request, entries)
        self.tell(host, hosted, format_offset(0))  # what it begins with, a fork's too, is news
        return _created(hosted, exchange, new=True)

    def _fork_at(
        self,
        request: CreateRequest,
        source_path: str,
        home: StreamHost,
        pointer: int | None,
        host: StreamHost,
        exchange: Exchange,
    ) -> Reply | None:
        path, number = exchange.path, int(host.name)
        if instance_of(home).gate.broken or home.find(path) is not None or home.pointer(path) != pointer:
            self._create(exchange, request)  # the source's host had to wake, and meanwhile things have changed
            return None
        try:
            source = host.get(source_path)
        except StreamGone as error:
            raise StreamConflict(f"the source was deleted: {error}") from error
        entries = self._entries(exchange, source.json, allow_empty=True)
        self._quotas.check_size(len(exchange.body))
        hosted = host.fork(path, source, source_path, request, entries)
        # In the same turn, so in the same group of the journal: no fork is ever without its pointer.
        if host is not home:
            home.set_pointer(path, number)
            self.directory.moved(path, number)
        elif pointer is not None:
            home.set_pointer(path, None)
        self.tell(host, hosted, format_offset(0))  # what it begins with, a fork's too, is news
        return _created(hosted, exchange, new=True)

    def tell(self, host: StreamHost, hosted: HostedStream, before: str | None) -> None:
        """Tell subscriptions that a stream was made (``before``: where it begins) or has grown (None)."""
        if self.feed.active:
            self.feed.changed(instance_of(host), hosted.stream.name, hosted.stream.tail_offset, before)

    def _entries(self, exchange: Exchange, json: bool, *, allow_empty: bool) -> list[bytes]:
        body = exchange.body
        if not body:
            return []
        entries = split_json(body) if json else [body]
        if len(body) > ENTRY_BYTES_MAX:
            check_entries(entries)
        if not json:
            return entries
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
                    if self._quotas.any and hosted.would_take(request.producer):  # a retry needs no room
                        self._quotas.check_append(hosted, len(exchange.body), host.now_ms())
                outcome = hosted.append(entries, request.producer, request.stream_seq, close=request.closed)
                if self._quotas.any:
                    self._quotas.trim(hosted, host.now_ms())
        except StreamClosed as error:
            return error_reply(error, CLOSED, (b"stream-next-offset", stream.tail_offset.encode()))
        if outcome.verdict is Verdict.ACCEPTED:
            self.counters.appends += 1
            self.counters.appended_bytes += len(exchange.body)
        elif outcome.verdict is Verdict.DUPLICATE:
            self.counters.duplicates += 1
        stored = hosted.stored
        if hosted.mortal:
            host.renew(hosted)
        headers: list[Header] = [(b"stream-next-offset", encode_offset(stored.position))]
        if stored.closed:
            headers.append(CLOSED)
        producer = request.producer
        if producer is None:
            if outcome.verdict is Verdict.ACCEPTED and exchange.body:
                self.tell(host, hosted, None)
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
                self.tell(host, hosted, None)
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

    # --- HEAD, DELETE

    def _head(self, host: StreamHost, exchange: Exchange) -> Reply:
        hosted = host.get(exchange.path)
        reply = head_reply(Place(instance_of(host), hosted.stream, self._tag(host, hosted)))
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
            self.feed.changed(instance_of(host), exchange.path, hosted.stream.tail_offset, None, removed=True)
        return Reply(204, [])

    # --- GET

    def _read(self, request: ReadRequest, host: StreamHost, exchange: Exchange) -> Reply | None:
        hosted = host.get(exchange.path)
        host.renew(hosted)
        return self.reads.read(request, exchange, Place(instance_of(host), hosted.stream, self._tag(host, hosted)))

    def _tag(self, host: StreamHost, hosted: HostedStream) -> str:
        return f"{host.name}.{hosted.stream.stored.number}"


class ProducerStale(PerdureError):
    """A later epoch of the producer has taken over."""

    code = "producer_stale"
    status = 403


class ProducerGap(PerdureError):
    """An append before this one has not arrived."""

    code = "producer_gap"
    status = 409


def stream_path(given: str, root: str) -> str:
    """A stream's path from what names it in a header: its URL, the URL's path, or its own path."""
    path = urlsplit(given).path
    for prefix in (root, STREAM_ROOT):
        if path.startswith(prefix):
            path = path[len(prefix) :]
            break
    return unquote(path).strip("/")


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
