"""The blocking producer: a few threads send, the caller's thread goes on."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Thread

from ..errors import PerdureError
from .answers import Lost, Response
from .core import StreamCore
from .errors import ProducerStopped
from .producing import Outgoing, ProducerCore
from .sync_transport import Transport


class Producer:
    """Appends exactly once, in order, many in a request. Made by `Stream.producer`. Threads may share it.

    `append` returns when the item is taken, not when it is stored: `flush` says that. Used as
    ``with`` it is flushed at the end of the block. After an error other than
    `StreamUnreachable` it is of no more use; `unacknowledged` is what may be missing.
    """

    def __init__(self, transport: Transport, stream: StreamCore, core: ProducerCore) -> None:
        self._transport = transport
        self._stream = stream
        self._core = core
        self._stopped = False
        self._changed = Condition()  # guards the core, and says that it has changed
        self._threads: list[Thread] = []
        self._resting = 0

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

    def append(self, item: object) -> None:
        """Take one item, as `Stream.append` does; wait while the buffer is full.

        Raises:
            LocalProtocolError: the item cannot be sent to this stream.
            LimitExceeded: it is larger than ``buffer_bytes_max``.
            ProducerStopped: after `close` and `detach`.
            PerdureError: what has stopped the producer, as `ProducerFenced`, `StreamClosed`, `StreamUnreachable`.
        """
        if self._stream.content_type is None:
            self._transport.run(self._stream.known_content_type())
        data = self._core.encode(item)
        with self._changed:
            self._check_running()
            self._until(lambda: self._core.has_room(data))
            self._check_running()
            self._core.add(data)
            self._wake()

    def flush(self) -> str | None:
        """Send everything now and wait until it is stored; return the greatest offset acknowledged.

        After `StreamUnreachable` it tries anew.

        Raises:
            ProducerStopped: it was stopped before everything was stored.
            PerdureError: what has stopped the producer.
        """
        with self._changed:
            self._core.revive()
            self._core.push()
            self._wake()
            self._until(lambda: self._core.idle)
            return self._core.offset

    def close(self, *items: object) -> str:
        """Flush, and end the stream for good with ``items`` as its last; return the final offset.

        Repeating it, after success or an error, does no harm: it is one closing, with the items of
        the first call.

        Raises:
            StreamClosed: another has closed the stream.
            ProducerStopped: after `detach`.
            PerdureError: what has stopped the producer.
        """
        if not self._core.closed:
            if items and self._stream.content_type is None:
                self._transport.run(self._stream.known_content_type())
            with self._changed:
                self._check_running()
                self._core.end(items)
            self.flush()
            self._leave()
        assert self._core.offset is not None
        return self._core.offset

    def detach(self) -> None:
        """Flush and stop, and leave the stream open for others.

        Raises:
            PerdureError: what has stopped the producer; it is stopped all the same.
        """
        try:
            if not self._stopped:
                self.flush()
        finally:
            self._leave()

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._leave()  # interrupted: nobody waits for a flush
            return
        try:
            self.detach()
        except PerdureError:
            if error is None:
                raise

    # --- sending

    def _check_running(self) -> None:
        if self._stopped:
            raise ProducerStopped("the producer was closed or detached")

    def _until(self, condition: Callable[[], object]) -> None:
        while True:
            if self._core.failure is not None:
                raise self._core.failure
            if condition():
                return
            self._check_running()
            self._changed.wait()

    def _wake(self) -> None:
        """Something may be to be sent; where every thread is busy, it gets one more."""
        self._changed.notify_all()
        if self._resting or self._stopped or len(self._threads) >= self._core.in_flight_max:
            return
        thread = Thread(target=self._work, name="perdure-producer", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (outgoing := self._next()) is not None:
            outcome: Response | Lost | Exception
            try:
                outcome = self._transport.exchange(outgoing.request)
            except Exception as error:  # also of the application's own function for headers
                outcome = error
            with self._changed:
                if isinstance(outcome, Exception):
                    self._core.fail(outcome)
                else:
                    self._core.took(outgoing, outcome)
                self._changed.notify_all()

    def _next(self) -> Outgoing | None:
        """Wait for what is to be sent next; None when there will be nothing more."""
        with self._changed:
            while not self._stopped:
                outgoing = self._core.take()
                wake_ms = self._core.wake_ms()
                if outgoing is not None:
                    if wake_ms is not None:
                        self._wake()
                    return outgoing
                self._resting += 1
                try:
                    wait_ms = None if wake_ms is None else wake_ms - self._stream.around.clock_ms()
                    self._changed.wait(None if wait_ms is None else max(0, wait_ms) / 1000)
                finally:
                    self._resting -= 1
        return None

    def _leave(self) -> None:
        with self._changed:
            self._stopped = True
            busy = len(self._threads) > self._resting
            self._changed.notify_all()
        if not busy:  # else they end with the requests that they are at
            for thread in self._threads:
                thread.join()
