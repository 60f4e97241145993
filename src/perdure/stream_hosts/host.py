"""`StreamHost`: the durable object in which free-standing streams live, many in each.

A stream's path says which host is its home. Streams of one host share its commits and its
file; forks live where their source lives, so that they can share its entries, and their home
keeps a pointer (``at:<path>`` among its values) to that host. A pointer is only a hint: without
the stream it counts for nothing.

Everything here is synchronous: what is done between two awaits is one commit.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from ..errors import (
    ContentTypeConflict,
    OffsetError,
    RemoteProtocolError,
    StreamConflict,
    StreamGone,
    StreamNotFound,
)
from ..objects.object import AlarmInfo, Context, DurableObject
from ..streams.stream import Stream
from ..values import format_offset, parse_offset
from ..wire.durable_streams import CreateRequest, media_type
from .hosted import HostedStream, StreamOptions
from .live_writers import live_writers

HOSTED_MAX = 4_096
"""Streams of one host that stay in memory with their protocol state."""

MAPPED_BYTES_MAX = 1024**3
"""Bytes of a host's file that are read through memory (see `Database.map_file`)."""

EXPIRED_AT_ONCE_MAX = 200
"""Streams that one alarm removes before it lets others work."""

SUB_OFFSET_READ_BYTES = 1024 * 1024
"""How much is read at a time to find a sub-offset."""


class StreamHost(DurableObject):
    """Holds free-standing streams. Applications reach them under ``/v1/stream/``."""

    internal = True
    migrations: ClassVar[tuple[str, ...]] = (
        "CREATE TABLE expiring(path TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE INDEX expiring_by_time ON expiring(at_ms)",
        "CREATE TABLE written(path TEXT PRIMARY KEY, failure BLOB) WITHOUT ROWID",
    )

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._hosted: dict[str, HostedStream] = {}
        self._count: int | None = None

    # --- finding

    @property
    def count(self) -> int:
        """How many streams live here."""
        if self._count is None:
            self._count = self.storage.stream_table.count()
        return self._count

    def holds(self, path: str) -> bool:
        """Whether the stream is in this host's memory."""
        return path in self._hosted

    def find(self, path: str) -> HostedStream | None:
        """The stream at that path, if it lives here and has not expired."""
        hosted = self._hosted.get(path)
        if hosted is None or hosted.stored.gone:
            hosted = self._load(path)
            if hosted is None:
                return None
        if hosted.mortal:
            ends_ms = hosted.ends_ms
            if ends_ms is not None and ends_ms <= self.now_ms():
                self.remove(path)
                return None
        return hosted

    def get(self, path: str) -> HostedStream:
        """The stream at that path.

        Raises:
            StreamGone: it was deleted or has expired, but forks still read it.
            StreamNotFound: there is none here.
        """
        hosted = self.find(path)
        if hosted is None:
            if self.streams.hidden(path):
                raise StreamGone(f"stream {path!r} was deleted; only its forks still read it")
            raise StreamNotFound(f"there is no stream {path!r}; make it with PUT")
        return hosted

    def _load(self, path: str) -> HostedStream | None:
        stream = self.streams.find(path)
        if stream is None:
            self._hosted.pop(path, None)
            return None
        if len(self._hosted) >= HOSTED_MAX:
            for name in [name for name, item in self._hosted.items() if not item.stream.readers][: HOSTED_MAX // 4]:
                del self._hosted[name]
        hosted = self._hosted[path] = HostedStream(stream)
        return hosted

    def renew(self, hosted: HostedStream) -> None:
        """The stream was read or written: its time to live begins anew."""
        if hosted.options.ttl_s is not None and hosted.renew(self.now_ms()):
            hosted.keep_renewal()
            self._expect_end(hosted)

    # --- making and removing

    def create(self, path: str, request: CreateRequest, entries: list[bytes]) -> HostedStream:
        """Make a stream that is no fork. The path must be free.

        Raises:
            StreamConflict: a deleted stream lives on there for its forks.
        """
        self._check_free(path)
        now_ms = self.now_ms()
        options = StreamOptions(request.ttl_s, request.expires_at_ms, used_ms=0 if request.ttl_s is None else now_ms)
        stream = self.streams.create(
            path, request.content_type or "application/octet-stream", options=msgspec.json.encode(options)
        )
        return self._begun(path, stream, entries, request.closed)

    def fork(
        self, path: str, source: HostedStream, source_path: str, request: CreateRequest, entries: list[bytes]
    ) -> HostedStream:
        """Make a fork of a stream of this host. The path must be free.

        Raises:
            StreamConflict: a deleted stream lives on there for its forks.
            ContentTypeConflict: the fork's content type is not the source's.
            RemoteProtocolError, OffsetError: there is no such place in the source.
        """
        assert request.fork is not None
        self._check_free(path)
        if request.content_type is not None and media_type(request.content_type) != source.type:
            raise ContentTypeConflict(f"the source's content type is {source.stream.content_type}")
        offset, piece = self._parting(source, request.fork.offset, request.fork.sub_offset)
        ttl_s, expires_at_ms = request.ttl_s, request.expires_at_ms
        if ttl_s is None and expires_at_ms is None:
            ttl_s, expires_at_ms = source.options.ttl_s, source.options.expires_at_ms
        options = StreamOptions(
            ttl_s,
            expires_at_ms,
            source_path,
            request.fork.offset or offset,
            request.fork.sub_offset,
            0 if ttl_s is None else self.now_ms(),
        )
        stream = self.streams.fork(
            path, source.stream, offset, content_type=request.content_type, options=msgspec.json.encode(options)
        )
        return self._begun(path, stream, [*piece, *entries], request.closed)

    def _parting(self, source: HostedStream, anchor: str | None, sub_offset: int) -> tuple[str, list[bytes]]:
        """Where a fork leaves its source, and the piece of an entry that it begins with."""
        stream = source.stream
        if anchor is None:
            position = stream.position
        else:
            position = parse_offset(anchor)
            if anchor == "-1":
                position = stream.stored.first
            if not stream.stored.first <= position <= stream.position:
                raise OffsetError(f"the source has nothing at offset {anchor}; it ends at {stream.tail_offset}")
        if source.json:
            position += sub_offset
            sub_offset = 0
        while sub_offset and position < stream.position:
            for entry in stream.read(format_offset(position), SUB_OFFSET_READ_BYTES).entries:
                if sub_offset < len(entry):
                    return format_offset(position), [entry[:sub_offset]] if sub_offset else []
                sub_offset -= len(entry)
                position += 1
        if sub_offset or position > stream.position:
            raise RemoteProtocolError("Stream-Fork-Sub-Offset reaches past the end of the source")
        return format_offset(position), []

    def _check_free(self, path: str) -> None:
        if self.streams.hidden(path):
            raise StreamConflict(f"stream {path!r} was deleted but forks still read it; its path is not free yet")

    def _begun(self, path: str, stream: Stream, entries: list[bytes], closed: bool) -> HostedStream:
        self._count = None
        if entries:
            stream.append(*entries)
        if closed:
            stream.close()
        hosted = self._load(path)
        assert hosted is not None
        hosted.used_ms = hosted.options.used_ms  # it was not loaded: this is exact
        self._expect_end(hosted)
        return hosted

    def remove(self, path: str) -> None:
        """Delete the stream; while it has forks it is only hidden."""
        self._count = None
        self.streams.delete(path)
        self._hosted.pop(path, None)
        self.storage.sql("DELETE FROM expiring WHERE path = ?", path)

    # --- streams that this process writes

    async def on_start(self) -> None:
        """End the streams whose writers died with the last process."""
        self.storage.database.map_file(MAPPED_BYTES_MAX)
        for row in self.storage.sql("SELECT path, failure FROM written"):
            path, failure = row["path"], row["failure"]
            if path in live_writers(self.context.runtime):
                continue  # it was only this instance that was started anew
            hosted = self.find(path)
            if hosted is not None and not hosted.stream.closed:
                hosted.append([] if failure is None else [failure], None, None, close=True)
            self.end_writing(path)

    def begin_writing(self, path: str, request: CreateRequest, failure: bytes | None) -> None:
        """Make a stream that a writer of this process fills, and ends; ``failure`` ends it if the process dies.

        Raises:
            StreamConflict: the path is taken.
        """
        if self.find(path) is not None:
            raise StreamConflict(f"stream {path!r} is there already")
        self.create(path, request, [])
        self.storage.sql("INSERT OR REPLACE INTO written VALUES(?, ?)", path, failure)
        self.context.hold_awake(True)  # a restart wakes the host at once

    def end_writing(self, path: str) -> None:
        """The writer has closed the stream."""
        self.storage.sql("DELETE FROM written WHERE path = ?", path)
        if not self.storage.sql("SELECT 1 FROM written LIMIT 1"):
            self.context.hold_awake(False)

    # --- pointers to streams that live in other hosts

    def pointer(self, path: str) -> int | None:
        """The number of the host where a fork lives whose home this is."""
        number = self.storage.get(f"at:{path}")
        return number if isinstance(number, int) else None

    def set_pointer(self, path: str, number: int | None) -> None:
        """Say (or with None forget) where a fork lives whose home this is."""
        if number is None:
            self.storage.delete(f"at:{path}")
        else:
            self.storage.put(f"at:{path}", number)

    # --- expiry

    def _expect_end(self, hosted: HostedStream) -> None:
        ends_ms = hosted.ends_ms
        if ends_ms is None:
            return
        self.storage.sql("INSERT OR REPLACE INTO expiring VALUES(?, ?)", hosted.stream.name, ends_ms)
        due = self.get_alarm()
        if due is None or due > ends_ms:
            self.set_alarm(max(1, ends_ms))

    async def on_alarm(self, info: AlarmInfo) -> None:
        """Remove what has expired; reading an expired stream removes it, too."""
        now_ms = self.now_ms()
        due = self.storage.sql(
            "SELECT path FROM expiring WHERE at_ms <= ? ORDER BY at_ms LIMIT ?", now_ms, EXPIRED_AT_ONCE_MAX
        )
        for row in due:
            path = row["path"]
            hosted = self.find(path)
            if hosted is None:
                self.storage.sql("DELETE FROM expiring WHERE path = ?", path)
            elif hosted.ends_ms is not None:  # it was used since
                self.storage.sql("UPDATE expiring SET at_ms = ? WHERE path = ?", max(hosted.ends_ms, now_ms), path)
        (first,) = self.storage.sql("SELECT min(at_ms) AS at_ms FROM expiring")
        if first["at_ms"] is not None:
            self.set_alarm(max(first["at_ms"], now_ms + 1 if len(due) < EXPIRED_AT_ONCE_MAX else 1))
