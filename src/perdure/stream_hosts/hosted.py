"""`HostedStream`: a free-standing stream with what the Durable Streams protocol knows of it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ..errors import ContentTypeConflict, SequenceConflict, StreamClosed
from ..streams.producers import (
    CLOSED_BY,
    NOTE_PREFIX,
    ProducerState,
    Verdict,
    decode_closer,
    decode_state,
    encode_closer,
    judge,
)
from ..streams.stream import Stream
from ..wire.durable_streams import CreateRequest, Producer, is_json, media_type

STREAM_SEQ = "stream-seq"
"""The note that holds the newest ``Stream-Seq``. Its scope is the stream."""

RENEWAL_SHARE = 16
"""A stream's time to live is renewed on the disk when this part of it has passed, not with every read."""

RENEWAL_MS_MIN = 1_000

NEVER_MS = 1 << 60
"""An end that is later than this is this: it fits into 64 bits."""

PRODUCERS_CACHED_MAX = 256
"""Producers of one stream whose state stays decoded."""


class StreamOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a stream was made with, and when it was last used (as far as that is kept)."""

    ttl_s: int | None = None
    expires_at_ms: int | None = None
    fork_source: str | None = None
    fork_offset: str | None = None
    fork_sub_offset: int = 0
    used_ms: int = 0


_OPTIONS = msgspec.json.Decoder(StreamOptions)


class AppendOutcome(NamedTuple):
    """What became of an append. ``kept`` is the producer's newest accepted pair, where there is a producer."""

    verdict: Verdict
    kept: ProducerState | None


ACCEPTED = AppendOutcome(Verdict.ACCEPTED, None)


class HostedStream:
    """One free-standing stream in its host's memory. All of it can be made again from the storage."""

    __slots__ = (
        "_producers",
        "_stream_seq",
        "allowance",
        "allowance_ms",
        "json",
        "mortal",
        "options",
        "stored",
        "stream",
        "trimmed_ms",
        "type",
        "used_ms",
    )

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.stored = stream.stored
        options = self.stored.options
        self.options = StreamOptions() if options is None else _OPTIONS.decode(options)
        self.mortal = self.options.ttl_s is not None or self.options.expires_at_ms is not None
        """Whether it expires some time."""
        self.json = is_json(stream.content_type)
        self.type = media_type(stream.content_type)
        # As if it had been used at the last moment that was not worth a write.
        self.used_ms = self.options.used_ms + (self.renewal_ms if self.options.used_ms else 0)
        self.allowance = 0.0
        """Appends that may come at once, at the time ``allowance_ms`` (see quotas)."""
        self.allowance_ms = 0
        self.trimmed_ms = 0
        self._producers: dict[str, ProducerState] = {}
        self._stream_seq: bytes | bool | None = False  # False: not looked up yet

    # --- life

    @property
    def renewal_ms(self) -> int:
        """How old the kept time of use may grow."""
        return max(RENEWAL_MS_MIN, (self.options.ttl_s or 0) * 1000 // RENEWAL_SHARE)

    @property
    def ends_ms(self) -> int | None:
        """When the stream expires, Unix ms; None: never."""
        if self.options.ttl_s is not None:
            return min(self.used_ms + self.options.ttl_s * 1000, NEVER_MS)
        return self.options.expires_at_ms

    def renew(self, now_ms: int) -> bool:
        """The stream was used. True: that is worth a write."""
        self.used_ms = now_ms
        return now_ms - self.options.used_ms >= self.renewal_ms

    def keep_renewal(self) -> None:
        """Write down when the stream was used."""
        self.options = msgspec.structs.replace(self.options, used_ms=self.used_ms)
        self.stream.set_options(msgspec.json.encode(self.options))

    # --- writes

    def check_type(self, content_type: str) -> None:
        """Raises ContentTypeConflict when the content type is not the stream's (parameters do not matter)."""
        if content_type != self.stream.content_type and media_type(content_type) != self.type:
            raise ContentTypeConflict(f"the stream's content type is {self.stream.content_type}")

    def would_take(self, producer: Producer | None) -> bool:
        """Whether an append with these numbers is new."""
        if producer is None:
            return True
        return judge(self.producer_state(producer.id), producer.epoch, producer.seq) is Verdict.ACCEPTED

    def append(
        self, entries: list[bytes], producer: Producer | None, stream_seq: bytes | None, *, close: bool
    ) -> AppendOutcome:
        """Append, and close with it, if the producer's numbers and the Stream-Seq allow. One commit.

        Raises:
            StreamClosed: the stream has ended.
            SequenceConflict: ``stream_seq``.
        """
        stream = self.stream
        if stream.closed:
            return self._after_end(producer)
        state: ProducerState | None = None
        if producer is not None:
            kept = self.producer_state(producer.id)
            verdict = judge(kept, producer.epoch, producer.seq)
            if verdict is not Verdict.ACCEPTED:
                return AppendOutcome(verdict, kept)
            state = ProducerState(producer.epoch, producer.seq)
        if stream_seq is not None:
            self._check_seq(stream_seq)
        if entries:
            stream.extend(entries)
        if stream_seq is not None:
            stream.set_note(STREAM_SEQ, stream_seq)
            self._stream_seq = stream_seq
        if producer is not None and state is not None:
            stream.set_note(NOTE_PREFIX + producer.id, state.encode())
            self._remember(producer.id, state)
            if close:
                stream.set_note(CLOSED_BY, encode_closer(*producer))
        if close:
            stream.close()
        return ACCEPTED if state is None else AppendOutcome(Verdict.ACCEPTED, state)

    def _after_end(self, producer: Producer | None) -> AppendOutcome:
        """A retry of what closed the stream is a duplicate; anything else comes too late."""
        if producer is not None and decode_closer(self.stream.note(CLOSED_BY)) == tuple(producer):
            return AppendOutcome(Verdict.DUPLICATE, ProducerState(producer.epoch, producer.seq))
        raise StreamClosed(f"stream {self.stream.name!r} has ended at {self.stream.tail_offset}")

    def close(self, producer: Producer | None) -> AppendOutcome:
        """End the stream. Closing again is no error, unless a producer asks that did not close it."""
        if self.stream.closed and producer is None:
            return AppendOutcome(Verdict.DUPLICATE, None)
        return self.append([], producer, None, close=True)

    def producer_state(self, producer_id: str) -> ProducerState | None:
        """The producer's newest accepted pair."""
        state = self._producers.get(producer_id)
        if state is None:
            state = decode_state(self.stream.note(NOTE_PREFIX + producer_id))
            if state is not None:
                self._remember(producer_id, state)
        return state

    def _remember(self, producer_id: str, state: ProducerState) -> None:
        if len(self._producers) >= PRODUCERS_CACHED_MAX and producer_id not in self._producers:
            del self._producers[next(iter(self._producers))]
        self._producers[producer_id] = state

    def _check_seq(self, stream_seq: bytes) -> None:
        if self._stream_seq is False:
            self._stream_seq = self.stream.note(STREAM_SEQ)
        if isinstance(self._stream_seq, bytes) and stream_seq <= self._stream_seq:
            raise SequenceConflict(
                f"Stream-Seq {stream_seq.decode('latin-1')!r} is not greater than the newest one, "
                f"{self._stream_seq.decode('latin-1')!r}"
            )

    # --- comparisons

    def is_like(self, request: CreateRequest, fork_source: str | None) -> bool:
        """Whether the stream is what the PUT asks for, so that nothing need be done."""
        options, fork = self.options, request.fork
        if fork is None:
            same_origin = options.fork_source is None
            same_life = (request.ttl_s, request.expires_at_ms) == (options.ttl_s, options.expires_at_ms)
        else:
            same_origin = (
                options.fork_source == fork_source
                and fork.offset in (None, options.fork_offset)
                and fork.sub_offset == options.fork_sub_offset
            )
            asked = (request.ttl_s, request.expires_at_ms)
            same_life = asked in ((None, None), (options.ttl_s, options.expires_at_ms))
        same_type = request.content_type is None or media_type(request.content_type) == self.type
        return same_origin and same_life and same_type and request.closed == self.stream.closed
