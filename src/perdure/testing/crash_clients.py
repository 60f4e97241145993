"""The clients of a server of streams, for the crash simulator: what they ask, and what they must be answered."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random

import msgspec

from ..stream_hosts.directory import home_of
from ..values import ObjectId, format_offset
from ..wire.durable_streams import CreateRequest, ForkRequest, Producer, Reply, format_time, join_json
from .crash_model import Lost
from .crash_server import Call, Server
from .crash_streams_history import HOME_NUMBERS, Attempt, Promise, StreamsHistory, host_id, paths_at
from .crash_streams_model import EXPIRES_AFTER_MS, JSON, TEXT, TTL_S, Answer, Found, Hosts, StreamState
from .disk import RecordingFiles

PATHS = [path for number in HOME_NUMBERS for path in paths_at(number, "events/", 4)]
"""Where clients make streams."""

PRODUCER_IDS = ("é", "two")

TRIED_AGAIN = 12
"""Appends that are tried again after a start."""


class Clients:
    """Clients that make, write, read and delete streams.

    ``promise(promise, object_id)`` is called for each object whose writes so far an answer stands for.
    """

    def __init__(
        self,
        server: Server,
        files: RecordingFiles,
        random: Random,
        history: StreamsHistory,
        hosts: Hosts,
        promise: Callable[[Promise, ObjectId], None],
    ) -> None:
        self._server = server
        self._files = files
        self._random = random
        self._history = history
        self._hosts = hosts
        self._promise = promise
        self._texts = itertools.count()
        self._unanswered: dict[Promise, str] = {}

    def check(self) -> None:
        """When the server has ended in order: everybody was answered. Raises Lost."""
        if self._unanswered:
            raise Lost(f"nobody answered {list(self._unanswered.values())[:5]}")

    def act(self) -> None:
        """Some requests, one right after the other."""
        actions: tuple[tuple[Callable[[str], None], bool, int], ...] = (
            (self._create, False, 6),
            (self._fork, False, 8),
            (self._append, True, 24),
            (self.delete, True, 4),
            (self._read, True, 3),
        )
        weights = [weight for *_, weight in actions]
        for action, wants_stream, _ in self._random.choices(actions, weights, k=self._random.choice((1, 1, 2, 4))):
            fitting = [path for path in PATHS if (self._hosts.find(path) is not None) == wants_stream]
            action(self._random.choice(fitting if fitting and self._random.random() < 0.7 else PATHS))

    # --- PUT

    def _create(self, path: str) -> None:
        content_type = self._random.choice((TEXT, JSON))
        entries = self._entries(content_type) if self._random.random() < 0.4 else ()
        closed = self._random.random() < 0.1
        self.put(path, CreateRequest(content_type, *self._life(), closed, None), entries)

    def _fork(self, path: str) -> None:
        source = self._random.choice(PATHS)
        found = self._hosts.find(source)
        offset, sub_offset = None, 0
        if found is not None and self._random.random() < 0.6:
            offset = format_offset(self._random.randint(found.state.first, found.state.position + 1))
            sub_offset = self._random.choice((0, 0, 1, 5))
        life = self._life() if self._random.random() < 0.2 else (None, None)
        entries: tuple[bytes, ...] = ()
        if found is not None and self._random.random() < 0.3:
            entries = self._entries(found.state.content_type)
        fork = ForkRequest(source, offset, sub_offset)
        self.put(path, CreateRequest(None, *life, self._random.random() < 0.1, fork), entries)

    def _life(self) -> tuple[int | None, int | None]:
        """How long a stream lives: its time to live, its end."""
        ends_ms = self._server.now_ms + EXPIRES_AFTER_MS
        return self._random.choice(((None, None), (None, None), (TTL_S, None), (None, ends_ms)))

    def put(self, path: str, request: CreateRequest, entries: tuple[bytes, ...]) -> None:
        """Make a stream."""
        content_type, fork = request.content_type, request.fork
        headers: dict[bytes, bytes] = {}
        if content_type is not None:
            headers[b"content-type"] = content_type.encode()
        if request.ttl_s is not None:
            headers[b"stream-ttl"] = str(request.ttl_s).encode()
        if request.expires_at_ms is not None:
            headers[b"stream-expires-at"] = format_time(request.expires_at_ms).encode()
        if request.closed:
            headers[b"stream-closed"] = b"true"
        if fork is not None:
            headers[b"stream-forked-from"] = fork.source.encode()
            if fork.offset is not None:
                headers[b"stream-fork-offset"] = fork.offset.encode()
            if fork.sub_offset:
                headers[b"stream-fork-sub-offset"] = str(fork.sub_offset).encode()
            source = self._hosts.find(fork.source)
            content_type = None if source is None else source.state.content_type
        self.prepare()
        expected = self._hosts.create(path, request, entries, self._server.now_ms)
        self._call("PUT", path, headers, _body(content_type, entries), expected, self._hosts.find(path))

    # --- POST

    def _append(self, path: str) -> None:
        found = self._hosts.find(path)
        content_type = TEXT if found is None else found.state.content_type
        close = self._random.random() < 0.08
        entries = () if close and self._random.random() < 0.5 else self._entries(content_type)
        producer = self._producer(None if found is None else found.state) if self._random.random() < 0.6 else None
        stream_seq = None
        if entries and self._random.random() < 0.15:
            stream_seq = b"%06d" % (next(self._texts) - self._random.choice((0, 0, 0, 50)))
        self._post(path, content_type, entries, producer, stream_seq, close)

    def _producer(self, state: StreamState | None) -> Producer:
        """The next append of a producer, or one that is not."""
        id = self._random.choice(PRODUCER_IDS)
        kept = None if state is None else state.kept(id)
        if kept is None:
            return Producer(id, 0, 0 if self._random.random() < 0.9 else 3)
        epoch, seq = kept
        others = (
            Producer(id, epoch, self._random.randint(0, seq)),
            Producer(id, epoch, seq + 2),
            Producer(id, epoch + 1, 0),
            Producer(id, epoch + 1, 1),
            Producer(id, max(0, epoch - 1), seq + 1),
        )
        return self._random.choices((Producer(id, epoch, seq + 1), *others), (14, 3, 1, 1, 1, 1))[0]

    def _post(
        self,
        path: str,
        content_type: str,
        entries: tuple[bytes, ...],
        producer: Producer | None,
        stream_seq: bytes | None,
        close: bool,
    ) -> Answer:
        headers: dict[bytes, bytes] = {}
        if entries:
            headers[b"content-type"] = content_type.encode()
        if close:
            headers[b"stream-closed"] = b"true"
        if stream_seq is not None:
            headers[b"stream-seq"] = stream_seq
        if producer is not None:
            headers[b"producer-id"] = producer.id.encode()
            headers[b"producer-epoch"] = str(producer.epoch).encode()
            headers[b"producer-seq"] = str(producer.seq).encode()
        self.prepare()
        before = self._hosts.find(path)
        expected = self._hosts.append(path, entries, producer, stream_seq, close, self._server.now_ms)
        attempt = None
        if producer is not None and before is not None and expected.kept == producer[1:]:
            attempt = self._attempt(path, before.state, producer, entries, close)
        self._call("POST", path, headers, _body(content_type, entries), expected, self._hosts.find(path), attempt)
        return expected

    def _attempt(
        self, path: str, state: StreamState, producer: Producer, entries: tuple[bytes, ...], close: bool
    ) -> Attempt:
        """The append as it was tried first, now or before."""
        for attempt in self._history.facts.attempts:
            if (attempt.path, attempt.born, attempt.producer) == (path, state.born, producer):
                return attempt
        attempt = Attempt(path, state.born, producer, state.content_type, entries, close, len(self._files.log))
        self._history.facts.attempts.append(attempt)
        return attempt

    def try_again(self) -> None:
        """Producers repeat what they got no answer to, and some of what they got one to. After a start.

        Raises:
            Lost: what had been answered is taken for new, or what is repeated is there twice.
        """
        for attempt in self._history.facts.attempts[-TRIED_AGAIN:]:
            found = self._hosts.find(attempt.path)
            if found is None or found.state.hidden or found.state.born != attempt.born:
                continue
            kept = found.state.kept(attempt.producer.id)
            if kept is not None and kept[0] > attempt.producer.epoch:
                continue  # a later epoch has taken over
            answer = self._post(
                attempt.path, attempt.content_type, attempt.entries, attempt.producer, None, attempt.close
            )
            is_new = answer.kept is not None and answer.kept != kept
            if attempt.answered is not None and is_new:
                raise Lost(f"{attempt.producer} was answered before; its retry is taken for new")
            self._check_once(attempt)

    def _check_once(self, attempt: Attempt) -> None:
        found = self._hosts.find(attempt.path)
        if found is not None:
            for entry in attempt.entries:
                count = found.state.entries.count(entry)
                if count > 1:
                    raise Lost(f"{attempt.path!r} holds {entry[:20]!r} {count} times")

    # --- DELETE, GET

    def delete(self, path: str) -> None:
        """Remove a stream."""
        self.prepare()
        found = self._hosts.find(path)
        self._call("DELETE", path, {}, b"", self._hosts.delete(path), found)

    def _read(self, path: str) -> None:
        self.prepare()
        expected = self._hosts.read(path, self._server.now_ms)
        self._call("GET", path, {}, b"", expected, self._hosts.find(path))

    # --- all requests

    def prepare(self) -> None:
        """Have all hosts awake, so that a request is carried out at once, and rid of what has expired."""
        self._server.until(lambda: not self._overdue(), "the removal of what has expired")
        self._hosts.expire(self._server.now_ms)

    def _overdue(self) -> bool:
        """Whether a host sleeps, or its alarm has something to do."""
        runtime = self._server.runtime
        hosts = [runtime.enter(host_id(number)) for number in HOME_NUMBERS]
        for number, host in zip(HOME_NUMBERS, hosts, strict=True):
            if host is None:
                runtime.wake(host_id(number))
        due = "SELECT 1 FROM expiring WHERE at_ms <= ? LIMIT 1"
        return any(host is None or host.storage.sql(due, self._server.now_ms) for host in hosts)

    def _call(
        self,
        method: str,
        path: str,
        headers: dict[bytes, bytes],
        body: bytes,
        expected: Answer,
        found: Found | None,
        attempt: Attempt | None = None,
    ) -> None:
        """Ask. ``found`` is the stream that it is about."""
        promise = Promise()

        def answered(reply: Reply) -> None:
            if self._unanswered.pop(promise, None) is None:
                raise Lost(f"{method} {path!r} was answered twice")
            _check_reply(f"{method} {path!r}", reply, expected)
            if method == "GET" and reply.status == 200:
                assert found is not None
                _check_read(path, reply, found.state)
            if reply.status < 300:
                self._history.keep(len(self._files.log), promise)
                if attempt is not None and attempt.answered is None:
                    attempt.answered = len(self._files.log)

        self._unanswered[promise] = f"{method} {path!r}"
        self._server.loop.do(self._server.service.handle, Call(method, path, headers, body, b"", answered))
        if found is not None:
            self._promise(promise, host_id(found.number))
            if expected.status == 201 and found.number != home_of(path):
                self._promise(promise, host_id(home_of(path)))  # where the way to it is
            stored = self._server.awake(host_id(found.number)).storage.stream_table.get(path)
            if stored is not None:
                self._hosts.trimmed(path, stored.first)

    # --- what is written

    def _text(self) -> bytes:
        size = self._random.choices((8, 100, 3_000, 30_000), (60, 30, 9, 1))[0]
        return f"{self._history.life}.{next(self._texts)}:".encode() + b"x" * size

    def _entries(self, content_type: str) -> tuple[bytes, ...]:
        if content_type == JSON:
            return tuple(msgspec.json.encode(self._text().decode()) for _ in range(self._random.randint(1, 3)))
        return (self._text(),)


def _body(content_type: str | None, entries: tuple[bytes, ...]) -> bytes:
    if not entries:
        return b""
    return join_json(entries) if content_type == JSON else b"".join(entries)


def _check_reply(what: str, reply: Reply, expected: Answer) -> None:
    """Raises Lost for an answer that is not the one that must be given."""
    headers = dict(reply.headers)
    told: dict[str, object] = {"status": reply.status}
    wanted: dict[str, object] = {"status": expected.status}
    if expected.position is not None:
        told["offset"], wanted["offset"] = headers.get(b"stream-next-offset"), b"%016d" % expected.position
        told["closed"], wanted["closed"] = headers.get(b"stream-closed"), b"true" if expected.closed else None
    if expected.kept is not None:
        told["producer"] = headers.get(b"producer-epoch"), headers.get(b"producer-seq")
        wanted["producer"] = tuple(str(number).encode() for number in expected.kept)
    if told != wanted:
        raise Lost(f"{what} was answered {told} for {wanted}: {reply.body[:200]!r}")


def _check_read(path: str, reply: Reply, state: StreamState) -> None:
    """A read shows entries from the start on, as far as its offset says."""
    end = int(dict(reply.headers)[b"stream-next-offset"])
    body = _body(state.content_type, state.entries[: max(0, end - state.first)])
    if state.content_type == JSON and not body:
        body = b"[]"
    if reply.body != body:
        raise Lost(f"{path!r} up to {end} reads {len(reply.body)} bytes, {reply.body[:40]!r}, for {len(body)}")
