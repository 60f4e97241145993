"""A server of streams without a network, a thread or a clock of its own, for the crash simulator.

The runtime, its objects and the stream service are the real ones. They live on a `SimulatedLoop`;
`Call` is a request to them. The journal's writer works when `Server.pump` is called, so a story
decides how long commits wait, and what happens meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from ..errors import StorageError
from ..objects import runtime as runtime_module
from ..objects.instance import Instance
from ..objects.limits import Limits
from ..objects.runtime import Runtime
from ..objects.watchdog import Watchdog
from ..server.streams.exchange import Frame
from ..server.streams.limits import StreamLimits
from ..server.streams.service import STREAM_ROOT, StreamService
from ..storage.journal import JournalEntry, JournalListener
from ..storage.store import OpenObject, Store
from ..stream_hosts.host import StreamHost
from ..stream_hosts.subscriptions import Subscriptions
from ..values import ObjectId
from ..wire.durable_streams import Reply
from .disk import RecordingFiles
from .loop import SimulatedLoop
from .patches import patched

MANY_ROUNDS = 2_000
"""Rounds of work, commits and time after which something that was waited for is taken for lost."""

LIMITS = Limits(journal_bytes_max=400_000)
STREAM_LIMITS = StreamLimits(retain_bytes_max=8_000)

_Result = TypeVar("_Result")


class Keeper(Protocol):
    """Who is told what the server does."""

    def on_commit(self, opened: OpenObject, sequence: int, *, new: bool) -> None:
        """An object was committed. Not ``new``: it had written nothing since the last time."""

    def on_time(self, now_ms: int) -> None:
        """It is later."""


class RecordedStore(Store):
    """A store that tells of each commit. Mixed into the store under test."""

    keeper: Keeper | None = None
    """Nobody during the recovery: its commits change nothing that can be read."""

    def _commit(self, opened: OpenObject) -> int:
        before = opened.last_sequence
        sequence = super()._commit(opened)
        if self.keeper is not None:
            self.keeper.on_commit(opened, sequence, new=sequence != before)
        return sequence


class Server:
    """One process after the other, on the same files."""

    def __init__(
        self, folder: Path, files: RecordingFiles, keeper: Keeper, make_store: type[Store], now_ms: int
    ) -> None:
        self.now_ms = now_ms
        self.loop = SimulatedLoop(now_ms / 1000)
        self._folder = folder
        self._files = files
        self._keeper = keeper
        self._store_class = cast(
            "type[RecordedStore]", type(f"Recorded{make_store.__name__}", (RecordedStore, make_store), {})
        )
        self.runtime: Runtime
        self.service: StreamService

    # --- life

    def start(self) -> None:
        """Open the folder, and wake what has work."""
        serial = iter(range(1_000_000_000))
        with patched(
            (runtime_module, "Store", self._open_store),
            (runtime_module, "Watchdog", _Blind),
        ):
            self.runtime = Runtime(
                self._folder,
                [StreamHost, Subscriptions],
                limits=LIMITS,
                files=self._files,
                clock_ms=lambda: self.now_ms,
                new_id=lambda: f"{next(serial):032}",
            )
            self.finish(self.runtime.start(), "the start")
        self.service = StreamService(self.runtime, STREAM_LIMITS)

    def _open_store(self, folder: Path, listener: JournalListener, **options: Any) -> Store:
        store = self._store_class(folder, _Marking(listener, self._files), threaded=False, **options)
        store.keeper = self._keeper
        return store

    def stop(self) -> None:
        """Drain, as a server does that is told to end."""
        self.finish(self.runtime.stop(), "the stop")

    # --- work

    def pump(self) -> None:
        """The journal's writer has its turn."""
        self.loop.do(self.runtime.store.journal.pump)

    def advance(self, duration_ms: int) -> None:
        """Let time go by."""
        self.now_ms += duration_ms
        self._keeper.on_time(self.now_ms)
        self.loop.advance(duration_ms / 1000)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Let everything go on, with commits and time, until the condition holds."""
        for _ in range(MANY_ROUNDS):
            if self.loop.do(condition):
                return
            next_s = self.loop.next_timer_s
            if self.loop.ready:
                self.loop.run()
            elif self.runtime.store.journal.pending_bytes:
                self.pump()
            elif next_s is not None:
                self.advance(max(1, round(next_s * 1000) - self.now_ms))
            else:
                break
        raise AssertionError(f"{what} does not come to an end")

    def finish(self, work: Coroutine[Any, Any, _Result], what: str) -> _Result:
        """Do something to its end."""
        task = self.loop.create_task(work)
        self.loop.run()
        if not task.done():
            self.until(task.done, what)
        return task.result()

    def settle(self) -> None:
        """Let everything go on that can, with commits, but without time."""
        self.loop.run()
        while self.runtime.store.journal.pending_bytes:
            self.pump()
            self.loop.run()

    # --- objects

    def instance(self, object_id: ObjectId) -> Instance | None:
        """The object's instance, while it is awake."""
        return self.runtime.slot(object_id).instance

    def awake(self, object_id: ObjectId) -> Instance:
        """The object's instance, which could run an event at once."""
        if self.loop.do(self.runtime.enter, object_id) is None:
            self.loop.do(self.runtime.wake, object_id)
            self.until(lambda: self.runtime.enter(object_id), f"waking {object_id.key}")
        instance = self.loop.do(self.runtime.enter, object_id)
        assert instance is not None
        return instance


class Call:
    """A request to the service, and its answer."""

    root = STREAM_ROOT
    url = b"http://localhost/a-stream"

    def __init__(
        self,
        method: str,
        path: str,
        headers: dict[bytes, bytes],
        body: bytes,
        query: bytes,
        on_reply: Callable[[Reply], None],
    ) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.query = query
        self.on_drained: Callable[[], None] | None = None
        self.on_gone: Callable[[], None] | None = None
        self._on_reply = on_reply
        self._head: Reply | None = None
        self._parts: list[bytes] = []

    def reply(self, reply: Reply) -> None:
        body = reply.body if isinstance(reply.body, bytes) else b"".join(reply.body)
        self._on_reply(reply._replace(body=body))

    def start(self, reply: Reply) -> None:
        self._head = reply

    def write(self, frame: Frame) -> bool:
        self._parts.append(frame.data)
        return True

    def finish(self) -> None:
        assert self._head is not None
        self.reply(self._head._replace(body=self._parts))

    def cut(self) -> None:
        raise AssertionError(f"the answer to {self.method} {self.path!r} was cut off")


class _Marking:
    """The runtime as the journal's listener; what it is told goes into the log of operations, too."""

    def __init__(self, listener: JournalListener, files: RecordingFiles) -> None:
        self._listener = listener
        self._files = files

    def on_durable(self, sequence: int) -> None:
        self._files.mark(sequence)
        self._listener.on_durable(sequence)

    def on_failed(self, entries: Sequence[JournalEntry], error: StorageError) -> None:
        raise AssertionError(f"{len(entries)} commits failed") from error


class _Blind(Watchdog):
    """Watches nothing: there is no thread, and nothing takes time."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to watch."""
