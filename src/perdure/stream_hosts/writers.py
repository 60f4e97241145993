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

from ..errors import ObjectReset, Overloaded, StorageError
from ..objects.runtime import Runtime
from ..streams.producers import Verdict
from ..wire.durable_streams import CreateRequest, Producer
from .directory import StreamDirectory
from .host import StreamHost
from .live_writers import live_writers

log = structlog.get_logger("perdure.streams")

PRODUCER_ID = "perdure"
RETRY_MS = 500
RETRIES_MAX = 60
"""Times that an append is tried again while the stream's host cannot take it; then the writer gives up."""

WAITING_BYTES_MAX = 1024 * 1024
"""Bytes of entries that wait for the append under way; past it the source waits, too."""


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
    ) -> None:
        self.path = path
        self._directory = StreamDirectory(runtime)
        self._runtime = runtime
        self._source = source
        self._encode = encode
        self._failure = failure
        self._stopped = stopped
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self._ended = False
        self._seq = 0
        self._reading: asyncio.Task[None] | None = None
        self._stop_asked = False

    async def begin(self, request: CreateRequest) -> None:
        """Make the stream, durably, and the promise that it will end.

        Raises:
            StreamConflict: there is such a stream already.
        """
        lost = self._failure("the server stopped while this was written")
        live_writers(self._runtime)[self.path] = self
        try:
            await self._directory.run(self.path, lambda host: host.begin_writing(self.path, request, lost))
        except BaseException:
            live_writers(self._runtime).pop(self.path, None)
            raise

    def stop(self) -> None:
        """End the stream early: what the source gave so far stays."""
        self._stop_asked = True
        if self._reading is not None:
            self._reading.cancel()

    async def run(self) -> str:
        """Write all that the source gives; return the offset of the stream's end.

        The stream is closed however this ends. An error of the source is raised after its last entry is
        stored. Cancelled from outside it leaves the stream to whoever starts next.
        """
        self._reading = asyncio.ensure_future(self._read())
        try:
            while not (self._ended and not self._waiting):
                if not self._waiting:
                    self._changed.clear()
                    await self._changed.wait()
                    continue
                entries, self._waiting, self._waiting_bytes = self._waiting, [], 0
                self._changed.set()
                await self._append(entries, close=False)
            last, error = self._last_entry()
            offset = await self._append([] if last is None else [last], close=True)
        finally:
            self._reading.cancel()
            live_writers(self._runtime).pop(self.path, None)
        if error is not None:
            raise error
        return offset

    async def _read(self) -> None:
        try:
            iterator = self._source.__aiter__()
            close = getattr(iterator, "aclose", None)
            if close is None:
                await self._take_all(iterator)
            else:
                async with aclosing(iterator):  # type: ignore[type-var]
                    await self._take_all(iterator)
        finally:
            self._ended = True
            self._changed.set()

    async def _take_all(self, iterator: AsyncIterable[Any]) -> None:
        async for item in iterator:
            entry = self._encode(item)
            self._waiting.append(entry)
            self._waiting_bytes += len(entry)
            self._changed.set()
            while self._waiting_bytes > WAITING_BYTES_MAX:
                self._changed.clear()
                await self._changed.wait()

    def _last_entry(self) -> tuple[bytes | None, BaseException | None]:
        assert self._reading is not None
        if self._reading.cancelled():
            return self._stopped, None
        error = self._reading.exception() if self._reading.done() else None
        if error is None:
            return None, None
        log.warning("the source of a stream failed", path=self.path, error=f"{type(error).__name__}: {error}")
        return self._failure(f"{type(error).__name__}: {error}"), error

    async def _append(self, entries: list[bytes], *, close: bool) -> str:
        producer = Producer(PRODUCER_ID, 0, self._seq)
        self._seq += 1

        def append(host: StreamHost) -> str:
            hosted = host.get(self.path)
            outcome = hosted.append(entries, producer, None, close=close)
            assert outcome.verdict in (Verdict.ACCEPTED, Verdict.DUPLICATE), outcome
            if close:
                host.end_writing(self.path)
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
