"""Housekeeping: hibernation, checkpoints, draining. What keeps memory and the journal bounded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from ..errors import ObjectReset, Overloaded, StorageError
from ..storage.store import OBJECT_LOG_FRAMES_MAX, Checkpoint
from ..values import ObjectId
from .instance import Instance
from .memory import give_back
from .slot import Slot

if TYPE_CHECKING:
    from .runtime import Runtime

log = structlog.get_logger("perdure.housekeeping")

SWEEP_MS = 1_000
"""How often idle instances are looked for while any is awake."""

CHECKPOINTS_AT_ONCE = 32
"""Objects checkpointed together when the journal is half full."""

RESTARTING = "the server is restarting; reconnect and resume"

GIVE_BACK_OBJECTS = 100
"""Hibernations after which free memory is given back to the system."""

RESTART_MS = 1_000
"""Wait before an object that was reset at work is started again."""


class Housekeeping:
    """The runtime's background work; costs nothing while nothing is awake."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._timer: asyncio.TimerHandle | None = None
        self._trimming: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._hibernated = 0

    def _spawn(self, work: asyncio.Task[None]) -> asyncio.Task[None]:
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)
        return work

    # --- hibernation

    def schedule(self) -> None:
        """Sweep in a while."""
        if self._timer is None and not self._runtime.draining:
            shortest_ms = min(
                (self._hibernate_after_ms(item) for item in self._runtime.classes.values()),
                default=self._runtime.limits.hibernate_after_ms,
            )
            delay_ms = max(10, min(SWEEP_MS, shortest_ms // 2))
            self._timer = self._runtime.loop.call_later(delay_ms / 1000, self._sweep)

    def _hibernate_after_ms(self, object_class: type) -> int:
        own: int | None = getattr(object_class, "hibernate_after_ms", None)
        return self._runtime.limits.hibernate_after_ms if own is None else own

    def _sweep(self) -> None:
        self._timer = None
        now = self._runtime.loop.time()
        awake = 0
        for slot in self._runtime.slots():
            instance = slot.instance
            if instance is None:
                continue
            awake += 1
            idle_ms = (now - instance.last_active) * 1000
            if idle_ms >= self._hibernate_after_ms(slot.object_class) and self._may_hibernate(slot):
                self._start_hibernation(slot)
        if awake:
            self.schedule()
        if self._hibernated >= GIVE_BACK_OBJECTS or (self._hibernated and not awake):
            self._hibernated = 0
            self._runtime.loop.run_in_executor(None, give_back)

    def _may_hibernate(self, slot: Slot) -> bool:
        return (
            slot.instance is not None
            and slot.instance.idle
            and slot.starting is None
            and not slot.closing
            and not self._runtime.store.checkpointing(slot.object_id.key)
        )

    def _start_hibernation(self, slot: Slot) -> asyncio.Task[None]:
        slot.closing = True
        return self._spawn(self._runtime.loop.create_task(self._hibernate(slot)))

    async def _hibernate(self, slot: Slot) -> None:
        """Bring the file up to date, close it, sync it beside the loop."""
        runtime, instance = self._runtime, slot.instance
        assert instance is not None
        opened = instance.opened
        checkpoint = None
        try:
            if runtime.store.has_live_records(opened):
                checkpoint = await self._begin_checkpoint(slot, instance)
                if checkpoint is None:
                    return
            # What was committed while the checkpoint was under way is not in the file: then it is for another time.
            if instance.idle and slot.instance is instance and opened.is_in_file:
                slot.let_go(instance)
                runtime.store.close_object(opened)
                self._hibernated += 1
        finally:
            slot.closing = False
        runtime.forget_if_empty(slot)
        if checkpoint is not None:
            await self._sync(checkpoint, instance)

    async def _begin_checkpoint(self, slot: Slot, instance: Instance) -> Checkpoint | None:
        """The steps of a checkpoint that are the loop's: materialise, commit, wait, move the pages.

        None when the pages cannot be moved now, or the instance is gone.
        """
        store, opened = self._runtime.store, instance.opened
        self._runtime.commit_now()
        if instance.gate.broken:
            return None
        try:
            sequence = store.materialise(opened)
            instance.gate.commit(sequence)
            if sequence > store.journal.durable_sequence:
                self._runtime.await_durable(sequence, instance)
            else:
                instance.gate.release(sequence)
            await instance.sync()
            self._runtime.commit_now()
            if instance.gate.broken:
                store.abandon_checkpoint(opened.key)
                return None
            return store.begin_checkpoint(opened)
        except ObjectReset:
            store.abandon_checkpoint(opened.key)
        except StorageError as error:
            store.abandon_checkpoint(opened.key)
            slot.discard_instance(instance, error)
        return None

    async def _sync(self, checkpoint: Checkpoint, instance: Instance) -> None:
        """The step of a checkpoint that waits for the disk: for the file, and for later commits' records."""
        store = self._runtime.store
        try:
            await asyncio.to_thread(checkpoint.run)
            if checkpoint.sequence > store.journal.durable_sequence:
                await instance.sync()
        except ObjectReset:
            store.abandon_checkpoint(checkpoint.key)
        except StorageError as error:
            log.error("checkpoint failed", object=checkpoint.key, error=str(error))
            store.abandon_checkpoint(checkpoint.key)
        else:
            store.finish_checkpoint(checkpoint)

    async def make_room(self) -> None:
        """Let the longest idle instances go when there are too many.

        Raises:
            Overloaded: all of them are at work.
        """
        runtime = self._runtime
        if runtime.slot_count < runtime.limits.awake_objects_max:
            return
        awake = [slot for slot in runtime.slots() if slot.instance is not None]
        if len(awake) < runtime.limits.awake_objects_max:
            return
        idle = sorted((slot for slot in awake if self._may_hibernate(slot)), key=_last_active)
        if not idle:
            raise Overloaded(f"{len(awake):,} objects are at work (awake_objects_max); try again in a moment")
        await asyncio.gather(*(self._start_hibernation(slot) for slot in idle[: max(1, len(awake) // 20)]))

    # --- checkpoints

    def on_durable(self) -> None:
        """After each group commit: is the journal half full?"""
        runtime = self._runtime
        if (
            runtime.store.journal.live_bytes > runtime.store.journal_bytes_max // 2
            and self._trimming is None
            and not runtime.draining
        ):
            self._trimming = self._spawn(runtime.loop.create_task(self._shrink_journal()))

    def on_commit(self, instance: Instance) -> None:
        """After a commit: has the object's own log grown long?"""
        if (
            instance.storage.database.log_frames > OBJECT_LOG_FRAMES_MAX
            and not instance.slot.closing
            and not self._runtime.store.checkpointing(instance.opened.key)
        ):
            self._spawn(self._runtime.loop.create_task(self._checkpoint(instance.slot)))

    async def _shrink_journal(self) -> None:
        """Checkpoint the objects at the journal's front until it is a quarter full."""
        runtime = self._runtime
        store = runtime.store
        try:
            while store.journal.live_bytes > store.journal_bytes_max // 4 and not runtime.draining:
                before = store.journal.live_bytes
                keys = store.oldest_live(CHECKPOINTS_AT_ONCE)
                await asyncio.gather(*(self._checkpoint_key(key) for key in keys))
                if store.journal.live_bytes >= before:
                    await asyncio.sleep(0.05)
        finally:
            self._trimming = None

    async def _checkpoint_key(self, key: str) -> None:
        object_id = ObjectId.from_key(key)
        if object_id.class_name not in self._runtime.classes:
            return
        slot = self._runtime.slot(object_id)
        if slot.instance is None:
            self._runtime.wake(object_id)
        elif not slot.closing and not self._runtime.store.checkpointing(key):
            await self._checkpoint(slot)

    async def _checkpoint(self, slot: Slot) -> None:
        """Bring an awake object's file up to date while it works on."""
        instance = slot.instance
        if instance is None or instance.gate.broken or self._runtime.store.checkpointing(instance.opened.key):
            return
        checkpoint = await self._begin_checkpoint(slot, instance)
        if checkpoint is not None:
            await self._sync(checkpoint, instance)

    def after_discard(self, slot: Slot) -> None:
        """Start an object again that was reset (it may have had work under way)."""
        runtime = self._runtime
        if runtime.draining:
            return
        runtime.loop.call_later(RESTART_MS / 1000, runtime.wake, slot.object_id)

    # --- shutdown

    async def drain(self) -> None:
        """Give running work its time, park the rest, bring every file up to date, close."""
        runtime = self._runtime
        if self._timer is not None:
            self._timer.cancel()
        for slot in runtime.slots():
            for connection in slot.connections.everyone():
                connection.transport.close(1012, RESTARTING)
        deadline = runtime.loop.time() + runtime.limits.drain_ms_max / 1000
        while any(_is_finishing(slot.instance) for slot in runtime.slots() if slot.instance is not None):
            if runtime.loop.time() > deadline:
                break
            await asyncio.sleep(0.02)
        for slot in runtime.slots():
            if slot.instance is not None:
                slot.instance.parking = True
                for task in slot.instance.tasks:
                    task.cancel()
        await asyncio.sleep(0)
        await asyncio.gather(*list(self._tasks), return_exceptions=True)
        for slot in runtime.slots():
            slot.refuse_waiting(Overloaded(RESTARTING))
            await self._park(slot)

    async def _park(self, slot: Slot) -> None:
        instance = slot.instance
        if instance is None:
            return
        if instance.tasks:
            await asyncio.wait(list(instance.tasks), timeout=1)
        self._runtime.commit_now()
        try:
            await instance.sync()
            if not instance.gate.broken:
                instance._held = False
                # Before the file closes under its readers, who would wait for an answer that was parked.
                instance.streams.fail(ObjectReset(RESTARTING))
                await self._hibernate(slot)
        except Exception as error:
            log.warning("object not checkpointed", object=slot.object_id.key, error=str(error))
        if slot.instance is instance:
            slot.let_go(instance)
            instance.streams.fail(ObjectReset(RESTARTING))
            self._runtime.store.close_object(instance.opened)


def _is_finishing(instance: Instance) -> bool:
    return bool(instance.tasks) or instance.streams.has_parting_readers


def _last_active(slot: Slot) -> float:
    return slot.instance.last_active if slot.instance is not None else 0.0
