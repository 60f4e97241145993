"""The runtime: all objects of one process.

It activates objects, orders their events, commits their turns, opens their gates when the
journal says that commits are durable, fires alarms, lets idle objects hibernate, keeps the
journal small, and drains at shutdown. Everything runs on one event loop; only file syncs
and the journal's writer are threads.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import structlog

from ..errors import ClassNotFound, ConfigError, Overloaded, PerdureError, StorageError
from ..storage.files import Files
from ..storage.journal import JournalEntry
from ..storage.secret import load_secret
from ..storage.store import Store
from ..values import ObjectId, check_object_name
from .alarms import AlarmClock
from .calls import StreamingCall, plain_call
from .connections import Connection
from .housekeeping import Housekeeping
from .instance import Instance
from .limits import Limits
from .metrics import Metrics
from .namespace import ObjectStub
from .object import DurableObject
from .pace import Pace
from .slot import Slot
from .watchdog import Watchdog

log = structlog.get_logger("perdure.runtime")

Result = TypeVar("Result")


class Runtime:
    """All objects of one data folder in this process."""

    def __init__(
        self,
        folder: Path,
        classes: Iterable[type[DurableObject]],
        *,
        limits: Limits | None = None,
        files: Files | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self.folder = folder
        self.classes: dict[str, type[DurableObject]] = {}
        for object_class in classes:
            if object_class.__name__ in self.classes:
                raise ConfigError(
                    f"two classes are named {object_class.__name__}; objects are addressed by that name"
                )
            self.classes[object_class.__name__] = object_class
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.pace = Pace()
        self.now_ms = clock_ms
        self.new_id = new_id
        self.ready = False
        self.draining = False
        self._files = files
        self._slots: dict[ObjectId, Slot] = {}
        self._dirty: list[Instance] = []
        self._undurable: deque[tuple[int, Instance]] = deque()
        self._reopen_waiters: list[asyncio.Future[None]] = []
        self._recovering = True
        self._classes_started = False
        self.loop: asyncio.AbstractEventLoop
        self.store: Store
        self.secret = b""
        """The data folder's secret, once the store is open."""
        self.alarms = AlarmClock(self._fire_alarm, self.now_ms)
        self.housekeeping = Housekeeping(self)
        self._watchdog = Watchdog(self.limits.loop_block_ms_max)

    # --- life

    async def start_classes(self) -> None:
        """Call each class's `DurableObject.on_server_start`, once; `start` does it where nobody has before.

        Raises:
            Exception: what one of them raised.
        """
        if not self._classes_started:
            for object_class in self.classes.values():
                await object_class.on_server_start()
            self._classes_started = True

    async def start(self, on_recovery: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Open the data folder, recover what a crash left, wake what has work.

        Raises:
            StorageError: the folder is locked, damaged, or of a newer format.
            Exception: what a class's `on_server_start` raised.
        """
        await self.start_classes()
        self.loop = asyncio.get_running_loop()
        started = time.perf_counter()

        def open_store() -> Store:
            store = Store(
                self.folder,
                self,
                notify=self.loop.call_soon_threadsafe,
                files=self._files,
                clock_ms=self.now_ms,
                on_recovery=on_recovery,
                journal_bytes_max=self.limits.journal_bytes_max,
            )
            self.secret = load_secret(self.folder, store.files)
            return store

        self.store = await asyncio.to_thread(open_store)
        self._recovering = False
        for name, object_class in self.classes.items():
            await asyncio.to_thread(self.store.prepare_class, name, tuple(object_class.migrations))
        await asyncio.to_thread(self.store.start)
        self._watchdog.start(self.loop)
        self.ready = True
        woken = 0
        for object_id, at_ms in self.store.index.alarms():
            if object_id.class_name not in self.classes:
                log.warning("an alarm of a class that is not registered waits", object=object_id.key)
            elif at_ms == 0:
                woken += 1
                self.wake(object_id)
            else:
                self.alarms.set(object_id, at_ms)
        log.info(
            "ready",
            data=str(self.folder),
            recovered_objects=self.store.recovered,
            woken=woken,
            alarms=len(self.alarms),
            seconds=round(time.perf_counter() - started, 3),
        )

    async def stop(self) -> None:
        """Drain and close: running work gets ``drain_ms_max``, then it is parked for the next start."""
        if self.draining:
            return
        self.draining = True
        self.ready = False
        self.alarms.stop()
        await self.housekeeping.drain()
        self._watchdog.stop()
        await asyncio.to_thread(self.store.close)
        for object_class in self.classes.values():
            await object_class.on_server_stop()

    # --- addressing

    def object_id(self, object_class: type[DurableObject] | str, name: str) -> ObjectId:
        """The id of an object.

        Raises:
            ClassNotFound, InvalidName, LimitExceeded.
        """
        class_name = object_class if isinstance(object_class, str) else object_class.__name__
        if class_name not in self.classes or self.classes[class_name].internal:
            known = ", ".join(sorted(name for name, item in self.classes.items() if not item.internal)) or "none"
            raise ClassNotFound(f"no class {class_name!r} is registered (known: {known})")
        return ObjectId(class_name, check_object_name(name))

    def get(self, object_class: type[DurableObject] | str, name: str) -> ObjectStub:
        """A stub of the object; sends nothing."""
        object_id = self.object_id(object_class, name)
        return ObjectStub(self, self.classes[object_id.class_name], object_id)

    def exists(self, object_id: ObjectId) -> bool:
        """Whether the object is awake or has ever saved anything. Makes nothing."""
        slot = self._slots.get(object_id)
        return (slot is not None and slot.instance is not None) or self.store.index.exists(object_id)

    def update_metrics(self) -> None:
        """Bring the gauges that are read, not counted, up to date."""
        self.metrics.journal_live_bytes.set(self.store.journal.live_bytes if self.ready else 0)
        self.metrics.loop_lag_seconds.set(self._watchdog.lag_s)

    def slot(self, object_id: ObjectId) -> Slot:
        """The object's slot, made when needed."""
        slot = self._slots.get(object_id)
        if slot is None:
            slot = self._slots[object_id] = Slot(self, object_id, self.classes[object_id.class_name])
        return slot

    def slots(self) -> list[Slot]:
        """All slots."""
        return list(self._slots.values())

    @property
    def slot_count(self) -> int:
        """How many objects are awake, or have connections or events."""
        return len(self._slots)

    def forget_if_empty(self, slot: Slot) -> None:
        """Let go of a slot that holds nothing."""
        if slot.empty and self._slots.get(slot.object_id) is slot:
            del self._slots[slot.object_id]

    # --- calls and events

    def call(
        self, object_id: ObjectId, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        """Call a method of the object: an awaitable, or for async generators an async iterator."""
        if inspect.isasyncgenfunction(function):
            stream = StreamingCall(function, arguments, named)
            self.deliver(object_id, stream.event, f"call {function.__name__}", stream.fail)
            return stream
        answer: asyncio.Future[Any] = self.loop.create_future()

        def fail(error: Exception) -> None:
            if not answer.done():
                answer.set_exception(error)

        try:
            event = plain_call(function, arguments, named, answer)
            self.deliver(object_id, event, f"call {function.__name__}", fail)
        except PerdureError as error:
            fail(error)
        return answer

    async def run_in(self, object_id: ObjectId, work: Callable[[Instance], Coroutine[Any, Any, Result]]) -> Result:
        """Run ``work(instance)`` as an event of the object; its result passes the output gate."""

        async def call(_object: DurableObject) -> Result:
            instance = self.slot(object_id).instance
            assert instance is not None
            return await work(instance)

        result: Result = await self.call(object_id, call, (), {})
        return result

    def deliver(
        self,
        object_id: ObjectId,
        event: Callable[[Instance], Coroutine[Any, Any, None]],
        name: str,
        fail: Callable[[Exception], None],
    ) -> None:
        """Deliver an event in order of arrival. Raises Overloaded."""
        if not self.ready and not self.draining:
            raise Overloaded("the server is starting; try again in a moment")
        if self.draining:
            raise Overloaded("the server is shutting down; connect again in a moment")
        self.slot(object_id).deliver(event, name, fail)

    def enter(self, object_id: ObjectId) -> Instance | None:
        """The object's instance, if an event could run in it at once (see `Slot.enter`); else None: deliver one."""
        slot = self._slots.get(object_id)
        return None if slot is None or not self.ready else slot.enter()

    def wake(self, object_id: ObjectId) -> None:
        """Make sure that the object has an instance."""

        async def nothing(_instance: Instance) -> None:
            """Being awake is all."""

        try:
            self.deliver(object_id, nothing, "wake", _ignore)
        except Overloaded:
            pass

    def _fire_alarm(self, object_id: ObjectId) -> None:
        async def ring(instance: Instance) -> None:
            await instance.run_alarm()

        def retry(error: Exception) -> None:
            log.warning("alarm delayed", object=object_id.key, error=str(error))
            self.alarms.set(object_id, self.now_ms() + 2_000)

        try:
            self.deliver(object_id, ring, "alarm", retry)
        except PerdureError as error:
            if not self.draining:
                retry(error)

    # --- connections

    def connect(self, object_id: ObjectId, connection: Connection) -> None:
        """Hand a client to the object.

        Raises:
            Overloaded: too many connections or events.
        """
        slot = self.slot(object_id)
        slot.add_connection(connection)
        self.metrics.connections.inc()

        async def event(instance: Instance) -> None:
            # Only now: what is broadcast before a client is greeted is in its greeting.
            connection.joined = True
            slot.connections.changed()
            try:
                await instance.object.handle_connect(connection)
            except Exception as error:
                await instance.report(connection, error)
            finally:
                slot.connections.changed()

        try:
            self.deliver(object_id, event, "connect", lambda error: _close(connection, error))
        except PerdureError:
            self.disconnect(object_id, connection, 1013, "", tell=False)
            raise

    def receive(self, object_id: ObjectId, connection: Connection, data: str | bytes) -> None:
        """Hand a client's frame to the object.

        Raises:
            LimitExceeded: ``message_bytes_max``.
            Overloaded: too many events wait.
        """
        slot = self.slot(object_id)
        auto = slot.object_class.auto_response
        if auto is not None and data == auto[0]:
            connection.transport.write(auto[1].encode(), True)
            return
        slot.check_message(len(data) if isinstance(data, bytes) else _utf8_size(data), connection.protocol)

        async def event(instance: Instance) -> None:
            try:
                await instance.object.handle_message(connection, data)
            except Exception as error:
                await instance.report(connection, error)

        self.deliver(object_id, event, "message", lambda error: _close(connection, error))

    def disconnect(
        self, object_id: ObjectId, connection: Connection, code: int, reason: str, *, tell: bool = True
    ) -> None:
        """A client is gone. The object is told if it is awake (a hibernating one is not woken for it)."""
        slot = self._slots.get(object_id)
        if slot is None or connection.closed:
            return
        slot.remove_connection(connection)
        self.metrics.connections.dec()

        async def event(instance: Instance) -> None:
            try:
                await instance.object.handle_close(connection, code, reason)
            except Exception as error:
                await instance.report(connection, error)

        if tell and slot.instance is not None and not self.draining:
            try:
                slot.deliver(event, "close", _ignore)
            except Overloaded:
                pass
        self.forget_if_empty(slot)

    def fan_out(self, audience: Sequence[Connection], frame: bytes, text: bool) -> None:
        """Write one shared frame to many connections."""
        for connection in audience:
            if not connection.closed:
                connection.transport.write(frame, text)

    # --- commits

    def queue_commit(self, instance: Instance) -> None:
        """The instance's turn wrote something: commit it at the end of the loop's turn.

        While the journal's writer is at work, the commit waits for it: it could not begin earlier, and
        more turns of the same object go with it.
        """
        if not self._dirty and not self.store.journal.pending_bytes:
            self.loop.call_soon(self._commit_all)
        self._dirty.append(instance)

    def commit_now(self) -> None:
        """Commit what has been written so far, of all objects together.

        Before an object commits by itself: what one turn wrote to several of them stays in one group.
        """
        if self._dirty:
            self._commit_all()

    def _commit_all(self) -> None:
        dirty, self._dirty = self._dirty, []
        with self.store.journal.together():
            for instance in dirty:
                instance.commit()

    def await_durable(self, sequence: int, instance: Instance) -> None:
        """Open the instance's gate when ``sequence`` is durable."""
        self._undurable.append((sequence, instance))

    def on_durable(self, sequence: int) -> None:
        """From the journal: everything up to ``sequence`` is on the disk."""
        if self._recovering:
            return  # recovery's own commits, on its thread: nobody waits for them
        waiting = self._undurable
        count = 0
        while waiting and waiting[0][0] <= sequence:
            at, instance = waiting.popleft()
            instance.gate.release(at)
            count += 1
        if self._dirty:
            self.loop.call_soon(self._commit_all)
        self.metrics.commits.inc(count)
        journal = self.store.journal
        if journal.sync_seconds:
            self.metrics.sync_seconds.observe(journal.sync_seconds[-1])
        self._wake_reopeners()
        self.housekeeping.on_durable()

    def on_failed(self, entries: Sequence[JournalEntry], error: StorageError) -> None:
        """From the journal: these commits are lost; their objects start again from what is durable."""
        if self._recovering:
            raise error
        self.store.on_failed(entries)
        if self._dirty:
            self.loop.call_soon(self._commit_all)
        lost = {(entry.object_key, entry.incarnation) for entry in entries}
        for key, incarnation in lost:
            slot = self._slots.get(ObjectId.from_key(key))
            instance = slot.instance if slot is not None else None
            if slot is not None and instance is not None and instance.opened.incarnation == incarnation:
                slot.discard_instance(instance, error)
        self.store.on_failed(entries)
        self._wake_reopeners()

    def after_discard(self, slot: Slot) -> None:
        """An instance was discarded: if it had work under way, the object starts again by itself."""
        self.housekeeping.after_discard(slot)

    async def room_for_instance(self, slot: Slot) -> None:
        """Wait until the object's file may be opened and there is room for one more instance.

        Raises:
            Overloaded: ``awake_objects_max`` instances are all at work.
        """
        while not self.store.may_open(slot.object_id.key):
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._reopen_waiters.append(waiter)
            await waiter
        await self.housekeeping.make_room()

    def _wake_reopeners(self) -> None:
        if self._reopen_waiters:
            waiters, self._reopen_waiters = self._reopen_waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def schedule_hibernation(self) -> None:
        """Something is awake: look for idle instances now and then."""
        self.housekeeping.schedule()


def _ignore(_error: Exception) -> None:
    """Nobody waits for the event's outcome."""


def _close(connection: Connection, error: Exception) -> None:
    connection.transport.close(1011, str(error)[:120])


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
