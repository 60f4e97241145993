"""What the crash simulator believes of free-standing streams: each host's state, and what requests do to it.

`HostState` is one host at one moment, as its commits leave it. `Hosts` is all of them together,
and says what the answer to each request must be: a second, simple telling of the Durable Streams
protocol, on plain lists, that knows nothing of tails, notes, journals or gates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..stream_hosts.directory import home_of
from ..values import format_offset
from ..wire.durable_streams import CreateRequest, Producer

JSON = "application/json"
TEXT = "text/plain"

EXPIRES_AFTER_MS = 90_000_000
"""Time that mortal streams get in the simulator, from their last use or from their creation."""

TTL_S = 100_000

LONG_MS = 60_000_000
"""The one jump of time by which streams expire: none does after one, every one that was not used after two.

So it never matters that a stream's last use is kept on the disk only by and by.
"""


@dataclass(frozen=True)
class StreamState:
    """One stream. ``entries`` are those kept, from the position ``first`` on.

    ``fork`` is what a fork was made with: source, offset, sub-offset. ``ends_ms`` is when it expires, as
    far as is known: what is on the disk may be a little later, and is not compared. ``born`` tells it
    from others of its path.
    """

    content_type: str
    entries: tuple[bytes, ...] = ()
    first: int = 0
    closed: bool = False
    producers: tuple[Producer, ...] = ()
    closer: Producer | None = None
    stream_seq: bytes | None = None
    base: str | None = None
    hidden: bool = False
    fork: tuple[str, str, int] | None = None
    ttl_s: int | None = None
    expires_at_ms: int | None = None
    ends_ms: int | None = field(default=None, compare=False)
    born: int = field(default=0, compare=False)

    @property
    def position(self) -> int:
        """The position after the last entry."""
        return self.first + len(self.entries)

    def kept(self, producer_id: str) -> tuple[int, int] | None:
        """The newest accepted epoch and number of the producer."""
        return next((item[1:] for item in self.producers if item.id == producer_id), None)

    def used(self, now_ms: int) -> StreamState:
        """The same, used at that time: its time to live begins anew."""
        return self if self.ttl_s is None else replace(self, ends_ms=now_ms + self.ttl_s * 1000)


@dataclass(frozen=True)
class HostState:
    """One host: its streams, its pointers to forks that live elsewhere, what its process was writing."""

    streams: dict[str, StreamState] = field(default_factory=dict)
    pointers: dict[str, int] = field(default_factory=dict)
    written: dict[str, bytes | None] = field(default_factory=dict)
    exists: bool = False

    def copy(self) -> HostState:
        """A copy whose parts can be changed."""
        return replace(self, streams=dict(self.streams), pointers=dict(self.pointers), written=dict(self.written))

    def delete(self, path: str) -> None:
        """A stream goes; while it has forks it is only hidden, and a hidden one goes with its last fork."""
        name: str | None = path
        while name is not None:
            if any(other.base == name for other in self.streams.values()):
                self.streams[name] = replace(self.streams[name], hidden=True)
                return
            base = self.streams.pop(name).base
            name = base if base is not None and self.streams[base].hidden else None

    def expire(self, now_ms: int) -> None:
        """What has expired by then goes."""
        ended = [
            path
            for path, stream in self.streams.items()
            if not stream.hidden and stream.ends_ms is not None and stream.ends_ms <= now_ms
        ]
        for path in ended:
            self.delete(path)


class Answer(NamedTuple):
    """What must be answered: the status; where the stream ends then, and whether it has ended; the producer's pair.

    None where the answer says nothing of it.
    """

    status: int
    position: int | None = None
    closed: bool = False
    kept: tuple[int, int] | None = None


class Found(NamedTuple):
    """Where a stream lives, and how it is."""

    number: int
    state: StreamState


class Hosts:
    """Hosts by number, and what requests do to them."""

    def __init__(self, states: dict[int, HostState], births: Iterator[int]) -> None:
        self.states = states
        self._births = births

    def find(self, path: str) -> Found | None:
        """The stream of that path, wherever it lives; it may be hidden."""
        return next(
            (Found(number, host.streams[path]) for number, host in self.states.items() if path in host.streams), None
        )

    def expire(self, now_ms: int) -> None:
        """What has expired by then goes."""
        for host in self.states.values():
            host.expire(now_ms)

    def _change(self, number: int, path: str, state: StreamState) -> None:
        self.states[number].streams[path] = state

    # --- requests

    def create(self, path: str, request: CreateRequest, entries: tuple[bytes, ...], now_ms: int) -> Answer:
        """PUT."""
        found = self.find(path)
        if found is not None:
            if found.state.hidden or not _is_like(found.state, request):
                return Answer(409)
            self._change(found.number, path, found.state.used(now_ms))
            return Answer(200, found.state.position, found.state.closed)
        number, base = home_of(path), None
        ttl_s, expires_at_ms = request.ttl_s, request.expires_at_ms
        shared: tuple[bytes, ...] = ()
        state = StreamState(request.content_type or "application/octet-stream")
        if request.fork is not None:
            base = request.fork.source
            source = self.find(base)
            if source is None:
                return Answer(404)
            if source.state.hidden:
                return Answer(409)
            number = source.number
            parting = _parting(source.state, request.fork.offset, request.fork.sub_offset)
            if parting is None:
                return Answer(400)
            position, piece = parting
            shared = (*source.state.entries[: position - source.state.first], *piece)
            if ttl_s is None and expires_at_ms is None:
                ttl_s, expires_at_ms = source.state.ttl_s, source.state.expires_at_ms
            state = StreamState(
                source.state.content_type,
                first=source.state.first,
                fork=(base, request.fork.offset or format_offset(position), request.fork.sub_offset),
            )
        state = replace(
            state,
            entries=(*shared, *entries),
            closed=request.closed,
            base=base,
            ttl_s=ttl_s,
            expires_at_ms=expires_at_ms,
            ends_ms=expires_at_ms,
            born=next(self._births),
        ).used(now_ms)
        self._change(number, path, state)
        return Answer(201, state.position, state.closed)

    def append(
        self,
        path: str,
        entries: tuple[bytes, ...],
        producer: Producer | None,
        stream_seq: bytes | None,
        close: bool,
        now_ms: int,
    ) -> Answer:
        """POST. No entries: only a close."""
        found = self.find(path)
        if found is None or found.state.hidden:
            return Answer(404 if found is None else 410)
        state = found.state
        if state.closed:
            if producer is None and not entries:
                self._change(found.number, path, state.used(now_ms))
                return Answer(204, state.position, closed=True)
            if producer is None or producer != state.closer:
                return Answer(409, state.position, closed=True)
            self._change(found.number, path, state.used(now_ms))
            return Answer(204, state.position, closed=True, kept=producer[1:])
        if producer is not None:
            refusal = _judge(state, producer)
            if refusal is not None:
                self._change(found.number, path, state.used(now_ms))
                return refusal
        if stream_seq is not None and state.stream_seq is not None and stream_seq <= state.stream_seq:
            return Answer(409)
        state = replace(state, entries=(*state.entries, *entries), closed=close)
        if stream_seq is not None:
            state = replace(state, stream_seq=stream_seq)
        if producer is not None:
            others = (item for item in state.producers if item.id != producer.id)
            state = replace(
                state, producers=tuple(sorted((*others, producer))), closer=producer if close else state.closer
            )
        self._change(found.number, path, state.used(now_ms))
        if producer is None:
            return Answer(204, state.position, close)
        return Answer(200 if entries else 204, state.position, close, producer[1:])

    def delete(self, path: str) -> Answer:
        """DELETE."""
        found = self.find(path)
        if found is None or found.state.hidden:
            return Answer(404 if found is None else 410)
        self.states[found.number].delete(path)
        return Answer(204)

    def read(self, path: str, now_ms: int) -> Answer:
        """GET. Where it ends is for the durable entries to say."""
        found = self.find(path)
        if found is None or found.state.hidden:
            return Answer(404 if found is None else 410)
        self._change(found.number, path, found.state.used(now_ms))
        return Answer(200)

    def trimmed(self, path: str, first: int) -> None:
        """The stream has dropped its oldest entries, to keep to what it may hold."""
        found = self.find(path)
        if found is None or first == found.state.first:
            return
        state = found.state
        assert state.first < first <= state.position, f"{path!r} was trimmed from {state.first} to {first}"
        assert state.base is None, f"{path!r}, a fork, was trimmed"
        self._change(found.number, path, replace(state, first=first, entries=state.entries[first - state.first :]))


def _is_like(state: StreamState, request: CreateRequest) -> bool:
    asked, kept = (request.ttl_s, request.expires_at_ms), (state.ttl_s, state.expires_at_ms)
    if request.content_type not in (None, state.content_type) or request.closed != state.closed:
        return False
    if request.fork is None:
        return state.fork is None and asked == kept
    if state.fork is None or asked not in ((None, None), kept):
        return False
    source, offset, sub_offset = state.fork
    wanted = request.fork
    return source == wanted.source and wanted.offset in (None, offset) and sub_offset == wanted.sub_offset


def _parting(source: StreamState, offset: str | None, sub_offset: int) -> tuple[int, tuple[bytes, ...]] | None:
    """Where a fork leaves its source, and the piece of an entry that it begins with; None: there is no such place."""
    position = source.position if offset is None else int(offset)
    if not source.first <= position <= source.position:
        return None
    if source.content_type == JSON:
        position += sub_offset
        return (position, ()) if position <= source.position else None
    for entry in source.entries[position - source.first :]:
        if sub_offset < len(entry):
            break
        sub_offset -= len(entry)
        position += 1
    if not sub_offset:
        return position, ()
    return (position, (source.entries[position - source.first][:sub_offset],)) if position < source.position else None


def _judge(state: StreamState, producer: Producer) -> Answer | None:
    """The answer to an append that is not the producer's next; None for one that is."""
    kept = state.kept(producer.id)
    if kept is None or producer.epoch > kept[0]:
        if producer.seq == 0:
            return None
        return Answer(409 if kept is None else 400)
    if producer.epoch < kept[0]:
        return Answer(403)
    if producer.seq == kept[1] + 1:
        return None
    return Answer(409) if producer.seq > kept[1] else Answer(204, state.position, kept=kept)
