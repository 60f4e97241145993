"""The asynchronous producer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..errors import PerdureError
from .async_transport import AsyncTransport
from .core import StreamCore
from .errors import ProducerStopped
from .producing import Outgoing, ProducerCore


class AsyncProducer:
    """Appends exactly once, in order, many in a request. Made by `AsyncStream.producer`.

    `append` returns when the item is taken, not when it is stored: `flush` says that. Used as
    ``async with`` it is flushed at the end of the block. After an error other than
    `StreamUnreachable` it is of no more use; `unacknowledged` is what may be missing.
    """

    def __init__(self, transport: AsyncTransport, stream: StreamCore, core: ProducerCore) -> None:
        self._transport = transport
        self._stream = stream
        self._core = core
        self._stopped = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    @property
    def epoch(self) -> int:
        """The epoch that it writes in; ``auto_claim`` may raise it."""
        return self._core.epoch

    @property
    def offset(self) -> str | None:
        """The greatest offset that the server has acknowledged with, None before the first."""
        return self._core.offset

    @property
    def buffered_bytes(self) -> int:
        """Bytes of the items that are not acknowledged."""
        return self._core.buffered_bytes

    @property
    def unacknowledged(self) -> list[bytes]:
        """The items that are not acknowledged, encoded, in order. The first ones may be stored."""
        return self._core.unacknowledged

    async def append(self, item: object) -> None:
        """Take one item, as `AsyncStream.append` does; wait while the buffer is full.

        Cancelled, it has not taken the item.

        Raises:
            LocalProtocolError: the item cannot be sent to this stream.
            LimitExceeded: it is larger than ``buffer_bytes_max``.
            ProducerStopped: after `close` and `detach`.
            PerdureError: what has stopped the producer, as `ProducerFenced`, `StreamClosed`, `StreamUnreachable`.
        """
        self._check_running()
        if self._stream.content_type is None:
            await self._transport.run(self._stream.known_content_type())
        data = self._core.encode(item)
        await self._until(lambda: self._core.has_room(data))
        self._check_running()
        self._core.add(data)
        self._pump()

    async def flush(self) -> str | None:
        """Send everything now and wait until it is stored; return the greatest offset acknowledged.

        After `StreamUnreachable` it tries anew.

        Raises:
            ProducerStopped: it was stopped before everything was stored.
            PerdureError: what has stopped the producer.
        """
        self._core.revive()
        self._core.push()
        self._pump()
        await self._until(lambda: self._core.idle)
        return self._core.offset

    async def close(self, *items: object) -> str:
        """Flush, and end the stream for good with ``items`` as its last; return the final offset.

        Repeating it, after success or an error, does no harm: it is one closing, with the items of
        the first call.

        Raises:
            StreamClosed: another has closed the stream.
            ProducerStopped: after `detach`.
            PerdureError: what has stopped the producer.
        """
        if not self._core.closed:
            self._check_running()
            if items and self._stream.content_type is None:
                await self._transport.run(self._stream.known_content_type())
            self._core.end(items)
            await self.flush()
            await self._leave()
        assert self._core.offset is not None
        return self._core.offset

    async def detach(self) -> None:
        """Flush and stop, and leave the stream open for others.

        Raises:
            PerdureError: what has stopped the producer; it is stopped all the same.
        """
        try:
            if not self._stopped:
                await self.flush()
        finally:
            await self._leave()

    async def __aenter__(self) -> AsyncProducer:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if kind is not None and not issubclass(kind, Exception):
            await self._leave()  # cancelled: nobody waits for a flush
            return
        try:
            await self.detach()
        except PerdureError:
            if error is None:
                raise

    # --- sending

    def _check_running(self) -> None:
        if self._stopped:
            raise ProducerStopped("the producer was closed or detached")

    async def _until(self, condition: Callable[[], object]) -> None:
        while True:
            if self._core.failure is not None:
                raise self._core.failure
            if condition():
                return
            self._check_running()
            await self._changed.wait()

    def _pump(self) -> None:
        """Send what is to be sent, and come back when the next may be."""
        if self._stopped:
            return
        while (outgoing := self._core.take()) is not None:
            task = asyncio.create_task(self._send(outgoing))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_ms = self._core.wake_ms()
        if wake_ms is not None:
            wait_s = max(0, wake_ms - self._stream.around.clock_ms()) / 1000
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._pump)

    async def _send(self, outgoing: Outgoing) -> None:
        try:
            self._core.took(outgoing, await self._transport.exchange(outgoing.request))
        except Exception as error:  # also of the application's own function for headers
            self._core.fail(error)
        self._pump()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _leave(self) -> None:
        self._stopped = True
        self._changed.set()
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
