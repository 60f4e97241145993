"""One instance of an object: its handlers' tasks, its commits, its gate."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import structlog

from ..errors import ObjectReset, PerdureError, StorageError
from ..storage.store import OpenObject
from ..streams.streams import Streams
from .connections import Connection
from .gate import Answer, OutputGate
from .object import AlarmInfo, DurableObject

if TYPE_CHECKING:
    from .runtime import Runtime
    from .slot import Slot

log = structlog.get_logger("perdure.objects")

ALARM_TRIES_MAX = 6
"""Retries of a failing alarm handler; after them the alarm is dropped."""

ALARM_RETRY_MS = 2_000
"""Wait before the first retry; doubles with each, plus up to a quarter of jitter."""


class Instance:
    """The in-memory incarnation of an object, from its activation to its hibernation or its end."""

    def __init__(self, slot: Slot, runtime: Runtime, object_class: type[DurableObject]) -> None:
        self.slot = slot
        self.runtime = runtime
        self.object_id = slot.object_id
        self.gate = OutputGate()
        self.parking = False
        self.reset_error: PerdureError | None = None
        self._dirty_queued = False
        self._alarm_due: int | None = None
        self._blocked = 0
        self._held = False
        self.tasks: set[asyncio.Task[Any]] = set()
        self.opened: OpenObject = runtime.store.open(self.object_id, self, object_class.migrations)
        self.storage = self.opened.storage
        self.streams = Streams(self.storage, runtime.now_ms)
        self._held = self.storage.read_meta("held") is not None
        if self._held and (alarm := self.storage.get_alarm()) is not None:
            runtime.alarms.set(self.object_id, alarm)  # the index says only that it is held
        self.object = object_class(self)
        self.last_active = runtime.loop.time()
        if self.storage.dirty and not self._dirty_queued:
            self.on_dirty()

    # --- the engine's side (ObjectOwner)

    def on_dirty(self) -> None:
        if not self._dirty_queued:
            self._dirty_queued = True
            self.runtime.queue_commit(self)

    def on_broken(self, error: StorageError) -> None:
        self.runtime.loop.call_soon(self.slot.discard_instance, self, error)

    async def sync(self) -> None:
        """Wait until everything written so far is durable."""
        if self.gate.broken:
            raise self.cancelled
        future: asyncio.Future[None] = self.runtime.loop.create_future()
        self.gate.submit(self.storage.dirty, _Resolve(future))
        await future

    @property
    def cancelled(self) -> PerdureError:
        """What a caller is told whose call ended with the instance: what ended it, where that is known."""
        return self.reset_error or ObjectReset(f"{self.object_id.key} was reset during the call")

    def commit(self) -> None:
        """End the turn (called by the runtime, once a turn of the loop)."""
        self._dirty_queued = False
        if self.gate.broken:
            return
        try:
            touched = self.streams.take_touched()
            for stream, position, closed in touched:
                self.gate.submit(True, stream.publish, position, closed)
            sequence = self.runtime.store.commit(self.opened)
        except StorageError as error:
            self.slot.discard_instance(self, error)
            return
        self.gate.commit(sequence)
        if sequence > self.runtime.store.journal.durable_sequence:
            self.runtime.await_durable(sequence, self)
        else:
            self.gate.release(sequence)
        self.runtime.housekeeping.on_commit(self)

    # --- what the object sees (Context)

    def now_ms(self) -> int:
        return self.runtime.now_ms()

    def new_id(self) -> str:
        return self.runtime.new_id()

    def connections(self, tag: str | None = None) -> tuple[Connection, ...]:
        return self.slot.connections.tagged(tag)

    def touch_connections(self) -> None:
        self.slot.connections.changed()

    def broadcast(self, frame: bytes, text: bool, tag: str | None, without: Connection | None) -> None:
        audience = self.slot.connections.tagged(tag)
        if without is not None:
            audience = tuple(item for item in audience if item is not without)
        if audience:
            self.gate.submit(self.storage.dirty, self.runtime.fan_out, audience, frame, text)

    def after_durable(self, effect: Callable[..., object], *arguments: Any) -> None:
        self.gate.submit(self.storage.dirty, effect, *arguments)

    def background(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        return self.spawn(self._run_background(work), name)

    async def _run_background(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await work
        except Exception as error:
            await self.report(None, error)

    @asynccontextmanager
    async def block_concurrency(self) -> AsyncIterator[None]:
        self._blocked += 1
        self.slot.blocked += 1
        timeout_s = self.runtime.limits.block_concurrency_ms_max / 1000
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                self.slot.discard_instance(self, error)
            raise
        finally:
            if not self.gate.broken:
                self.slot.blocked -= 1
                self.slot.deliver_waiting()

    def set_alarm(self, at_ms: int | None) -> None:
        self._alarm_due = None
        self._store_alarm(at_ms, None)

    def _store_alarm(self, at_ms: int | None, tries: int | None) -> None:
        self.storage.set_alarm(at_ms, held=self._held)
        self.storage.write_meta("alarm_tries", tries)
        self.after_durable(self.runtime.alarms.set, self.object_id, at_ms)

    def get_alarm(self) -> int | None:
        return None if self._alarm_due is not None else self.storage.get_alarm()

    def hold_awake(self, held: bool) -> None:
        if held != self._held:
            self._held = held
            self.storage.write_meta("held", 1 if held else None)
            self.storage.set_alarm(self.storage.get_alarm(), held=held)

    # --- events

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a coroutine as part of the instance."""
        task = self.runtime.loop.create_task(work, name=f"{self.object_id.key}:{name}")
        self.tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        self.last_active = self.runtime.loop.time()
        if not task.cancelled() and (error := task.exception()) is not None and not self.gate.broken:
            log.error("task failed", object=self.object_id.key, task=task.get_name(), exc_info=error)

    async def report(self, connection: Connection | None, error: Exception) -> None:
        """A handler failed: tell the object; the object lives on."""
        if self.gate.broken:
            return
        log.warning("handler failed", object=self.object_id.key, error=str(error), exc_info=error)
        try:
            await self.object.on_error(connection, error)
        except Exception as second:
            log.error("on_error failed", object=self.object_id.key, exc_info=second)

    async def run_alarm(self) -> None:
        """Deliver the alarm: at least once, with retries that survive restarts."""
        due = self.storage.get_alarm()
        if due is None or due > self.now_ms():
            return
        tries = int(self.storage.read_meta("alarm_tries") or 0)
        self._alarm_due = due
        try:
            async with asyncio.timeout(self.runtime.limits.alarm_ms_max / 1000):
                await self.object.handle_alarm(AlarmInfo(due, tries))
        except Exception as error:
            await self.report(None, error)
            if self._alarm_due is None or self.gate.broken:
                return
            self._alarm_due = None
            if tries >= ALARM_TRIES_MAX:
                log.error("alarm dropped", object=self.object_id.key, tries=tries + 1)
                self.set_alarm(None)
            else:
                delay = ALARM_RETRY_MS * 2**tries
                self._store_alarm(self.now_ms() + int(delay * random.uniform(1, 1.25)), tries + 1)
        else:
            if self._alarm_due is not None:
                self.set_alarm(None)

    @property
    def idle(self) -> bool:
        """Whether the instance may hibernate."""
        return not (self.tasks or self._held or self.storage.dirty or not self.gate.idle or self.streams.has_readers)


class _Resolve(Answer):
    """A gate's effect that wakes a waiting caller."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future

    def __call__(self) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
