"""`StreamWriter`: feeds a stream from an async iterator, whoever is still interested.

A stream that is written like this never hangs its readers: it ends with the source, with a last
entry that says what went wrong, or with one that says that it was stopped. The last entry for
the case that this process dies is stored with the stream; whoever starts next appends it.

Entries go out as an idempotent producer's: one append is under way at a time, what the source
gives meanwhile goes together in the next, and an append whose outcome is not known is repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from contextlib import aclosing
from typing import Any

import structlog

from ..errors import LimitExceeded, ObjectReset, Overloaded, StorageError, StreamConflict, StreamNotFound
from ..objects.runtime import Runtime
from ..streams.producers import Verdict
from ..streams.stream import ENTRY_BYTES_MAX
from ..values import format_offset
from ..wire.durable_streams import CreateRequest, Producer
from .directory import StreamDirectory
from .host import StreamHost
from .hosted import HostedStream
from .live_writers import live_writers

log = structlog.get_logger("perdure.streams")

PRODUCER_ID = "perdure"
RETRY_MS = 500
RETRIES_MAX = 60
"""Times that an append is tried again while the stream's host cannot take it; then the writer gives up."""

WAITING_BYTES_MAX = 1024 * 1024
"""Bytes of entries that wait for the append under way; past it the source waits, too."""


Tell = Callable[[StreamHost, HostedStream, str | None], None]
"""Told in the turn in which a stream was made (with where it begins) or has grown (None): see `SubscriptionFeed`."""


class StreamWriter:
    """Writes one stream. `begin`, then `run`; `stop` from anywhere."""

    def __init__(
        self,
        runtime: Runtime,
        path: str,
        source: AsyncIterable[Any],
        *,
        encode: Callable[[Any], bytes],
        failure: Callable[[str], bytes | None],
        stopped: bytes | None,
        tell: Tell = lambda host, hosted, before: None,
    ) -> None:
        self.path = path
        self._tell = tell
        self._directory = StreamDirectory(runtime)
        self._runtime = runtime
        self._source = source
        self._encode = encode
        self._failure = failure
        self._stopped = stopped
        self._lost = failure("the server stopped while this was written")
        self._number: int | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self._seq = 0
        self._reading: asyncio.Task[None] | None = None
        self._stop_asked = False

    async def begin(self, request: CreateRequest) -> None:
        """Make the stream, durably, and the promise that it will end.

        Raises:
            StreamConflict: there is such a stream already.
        """
        writers = live_writers(self._runtime)
        if self.path in writers:
            raise StreamConflict(f"stream {self.path!r} is being written already")
        writers[self.path] = self

        def begin(host: StreamHost) -> None:
            host.begin_writing(self.path, request, self._lost)
            hosted = host.get(self.path)
            self._number = hosted.stream.stored.number
            self._tell(host, hosted, format_offset(0))

        try:
            await self._directory.run(self.path, begin)
        except BaseException:
            del writers[self.path]
            self._give_up()
            raise

    def stop(self) -> None:
        """End the stream early: what the source gave so far stays. Nothing, where the source has ended."""
        if self._reading is None:
            self._stop_asked = True
        elif not self._reading.done():
            self._stop_asked = True
            self._reading.cancel()

    async def run(self) -> str:
        """Write all that the source gives; return the offset of the stream's end.

        The stream is closed however this ends. An error of the source is raised after its last entry is
        stored. Cancelled because the process ends, it leaves the stream to whoever starts next.

        Raises:
            PerdureError: the stream could not be written to its end; someone else closed or deleted it.
            Exception: what the source raised.
        """
        reading = self._reading = asyncio.ensure_future(self._read())
        reading.add_done_callback(lambda _reading: self._changed.set())
        if self._stop_asked:
            reading.cancel()
        try:
            while self._waiting or not reading.done():
                if not self._waiting:
                    self._changed.clear()
                    await self._changed.wait()
                    continue
                entries, self._waiting, self._waiting_bytes = self._waiting, [], 0
                self._changed.set()
                await self._append(entries, close=False)
            last, error = self._last_entry(reading)
            offset = await self._append([] if last is None else [last], close=True)
        except BaseException as failure:
            if not self._runtime.draining:
                log.warning("a stream could not be written to its end", path=self.path, error=_told(failure))
                self._give_up()
            raise
        finally:
            reading.cancel()
            del live_writers(self._runtime)[self.path]
        if error is not None:
            raise error
        return offset

    # --- the source's side

    async def _read(self) -> None:
        iterator = self._source.__aiter__()
        close = getattr(iterator, "aclose", None)
        if close is None:
            await self._take_all(iterator)
        else:
            async with aclosing(iterator):  # type: ignore[type-var]
                await self._take_all(iterator)

    async def _take_all(self, iterator: AsyncIterable[Any]) -> None:
        async for item in iterator:
            entry = self._encode(item)
            if not entry:
                continue  # models do say nothing at times
            if len(entry) > ENTRY_BYTES_MAX:
                raise LimitExceeded("entry_bytes_max", len(entry), ENTRY_BYTES_MAX)
            self._waiting.append(entry)
            self._waiting_bytes += len(entry)
            self._changed.set()
            while self._waiting_bytes > WAITING_BYTES_MAX:
                self._changed.clear()
                await self._changed.wait()

    def _last_entry(self, reading: asyncio.Task[None]) -> tuple[bytes | None, BaseException | None]:
        error = asyncio.CancelledError() if reading.cancelled() else reading.exception()
        if self._stop_asked:
            if error is not None and not isinstance(error, asyncio.CancelledError):
                log.warning("the source of a stopped stream failed", path=self.path, error=_told(error))
            return self._stopped, None
        if error is None:
            return None, None
        if isinstance(error, asyncio.CancelledError):
            error = RuntimeError("the source was cancelled")
        log.warning("the source of a stream failed", path=self.path, error=_told(error))
        return self._failure(_told(error)), error

    # --- the stream's side

    async def _append(self, entries: list[bytes], *, close: bool) -> str:
        producer = Producer(PRODUCER_ID, 0, self._seq)
        self._seq += 1

        def append(host: StreamHost) -> str:
            hosted = host.get(self.path)
            if not self._is_ours(hosted):
                raise StreamNotFound(f"stream {self.path!r} was deleted; there is another one now")
            outcome = hosted.append(entries, producer, None, close=close)
            if outcome.verdict not in (Verdict.ACCEPTED, Verdict.DUPLICATE):
                raise StreamConflict(f"someone else writes stream {self.path!r} as {PRODUCER_ID!r}")
            if entries and outcome.verdict is Verdict.ACCEPTED:
                self._tell(host, hosted, None)
            if close:
                host.end_writing(self.path)
            else:
                host.renew(hosted)
            return hosted.stream.tail_offset

        for _ in range(RETRIES_MAX):
            try:
                return await self._directory.run(self.path, append)
            except (ObjectReset, Overloaded, StorageError) as error:
                if self._runtime.draining:
                    raise
                log.info("an append is tried again", path=self.path, error=str(error))
                await asyncio.sleep(RETRY_MS / 1000)
        raise ObjectReset(f"stream {self.path!r} could not be written")

    def _is_ours(self, hosted: HostedStream) -> bool:
        return hosted.stream.stored.number == self._number

    def _give_up(self) -> None:
        """Nobody may wait for more of the stream. Where this fails, too, the host does it when it starts again."""

        def end(host: StreamHost) -> None:
            if self._number is None:
                return  # it was never made
            hosted = host.find(self.path)
            if hosted is not None and self._is_ours(hosted) and not hosted.stream.closed:
                hosted.append([] if self._lost is None else [self._lost], None, None, close=True)
                self._tell(host, hosted, None)
            host.end_writing(self.path)

        self._directory.visit(self.path, end, lambda _error: None)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
