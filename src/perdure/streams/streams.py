"""`Streams`: all streams of one object."""

from __future__ import annotations

import time
from collections.abc import Callable
from weakref import WeakValueDictionary

from ..errors import InvalidName, ObjectReset, OffsetError, StreamNotFound
from ..storage.object_storage import Storage
from ..storage.stored_stream import StoredStream
from ..values import parse_offset
from .stream import JSON, Stream

RECENT_MAX = 256
"""Streams that stay in memory though nobody reads or writes them."""

FORK_DEPTH_MAX = 64
"""Most streams in a row of which each is the fork of the one before."""


class Streams:
    """The streams of one object: ``self.streams``."""

    def __init__(self, storage: Storage, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._storage = storage
        self._clock_ms = clock_ms
        # One `Stream` of each: whoever uses it holds it, and so does whatever waits to be published.
        self._open: WeakValueDictionary[str, Stream] = WeakValueDictionary()
        self._recent: dict[str, Stream] = {}
        self._touched: dict[str, Stream] = {}

    def create(self, name: str, content_type: str = JSON, *, options: bytes | None = None) -> Stream:
        """The stream of that name, made if it is not there.

        Raises:
            InvalidName: the name belongs to a deleted stream that lives on for its forks.
        """
        stream = self.find(name)
        if stream is None:
            self._check_free(name)
            self._storage.mark_dirty()
            stream = self._opened(
                self._storage.stream_table.create(name, content_type, self._clock_ms(), options=options)
            )
        return stream

    def fork(
        self,
        name: str,
        source: Stream,
        offset: str | None = None,
        *,
        content_type: str | None = None,
        options: bytes | None = None,
    ) -> Stream:
        """A new stream that shares the source's entries before ``offset`` (None: all), and goes its own way.

        Offsets before the parting are the same in both. The source may be closed; the fork is open.

        Raises:
            OffsetError: the source never gave this offset out, or does not keep it any more.
            InvalidName: the name is taken, or the fork would be one of too many in a row.
        """
        if self.find(name) is not None:
            raise InvalidName(f"there is a stream {name!r} already")
        self._check_free(name)
        position = source.position if offset is None else parse_offset(offset)
        if not source.stored.first <= position <= source.position:
            raise OffsetError(
                f"stream {source.name!r} has nothing at offset {offset}; it ends at {source.tail_offset}"
            )
        if sum(1 for _ in source.stored.bases()) >= FORK_DEPTH_MAX:
            raise InvalidName(
                f"stream {source.name!r} is a fork of a fork ... {FORK_DEPTH_MAX} deep (fork_depth_max)"
            )
        self._storage.mark_dirty()
        stored = self._storage.stream_table.create(
            name,
            content_type or source.content_type,
            self._clock_ms(),
            options=options,
            base=source.stored,
            base_end=position,
        )
        return self._opened(stored)

    def _check_free(self, name: str) -> None:
        stored = self._storage.stream_table.get(name)
        if stored is not None and stored.hidden:
            raise InvalidName(f"stream {name!r} was deleted, but forks still read it; its name is not free yet")

    def find(self, name: str) -> Stream | None:
        """The stream of that name, or None."""
        stream = self._open.get(name)
        if stream is not None and not stream.stored.gone:  # gone: the transaction that made it was rolled back
            return None if stream.stored.hidden else stream
        stored = self._storage.stream_table.get(name)
        return None if stored is None or stored.hidden else self._opened(stored)

    def hidden(self, name: str) -> bool:
        """Whether a stream of that name was deleted but lives on for its forks."""
        stored = self._storage.stream_table.get(name)
        return stored is not None and stored.hidden

    def get(self, name: str) -> Stream:
        """The stream of that name.

        Raises:
            StreamNotFound: there is none.
        """
        stream = self.find(name)
        if stream is None:
            raise StreamNotFound(f"there is no stream {name!r}")
        return stream

    def delete(self, name: str) -> None:
        """Remove the stream; its readers end with StreamNotFound. Nothing happens when there is none.

        What forks share with it stays until the last of them is deleted; so long its name is not free.
        """
        stream = self.find(name)
        if stream is not None:
            self._storage.mark_dirty()
            self._storage.stream_table.delete(stream.stored)
            self._open.pop(name, None)
            self._recent.pop(name, None)
            self._touched.pop(name, None)
            stream.fail(StreamNotFound(f"stream {name!r} was deleted"))

    def names(self) -> list[str]:
        """The names of all streams, in order of creation."""
        return self._storage.stream_table.names()

    @property
    def has_readers(self) -> bool:
        """Whether anyone waits at a stream."""
        return any(stream.readers for stream in self._open.values())

    @property
    def has_parting_readers(self) -> bool:
        """Whether anyone still reads a stream that has ended, and will leave by itself when it has the end."""
        return any(stream.readers and stream.closed for stream in self._open.values())

    def take_touched(self) -> list[tuple[Stream, int, bool]]:
        """What the turn's commit makes durable: streams with their ends. For whoever commits."""
        if not self._touched:
            return []
        touched = [(stream, stream.position, stream.closed) for stream in self._touched.values()]
        self._touched.clear()
        return touched

    def fail(self, error: ObjectReset) -> None:
        """The instance is gone: wake all readers with the error."""
        for stream in list(self._open.values()):
            stream.fail(error)

    def _opened(self, stored: StoredStream) -> Stream:
        stream = self._open[stored.name] = Stream(stored, self._storage, self._touch)
        self._recent[stored.name] = stream
        if len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        return stream

    def _touch(self, stream: Stream) -> None:
        self._touched[stream.name] = stream
