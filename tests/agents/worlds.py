"""Agents on a loop without a clock: time goes by when a test says so, and a kill comes between any two callbacks.

The runtime, its objects and their files are the real ones; the journal's writer works on the loop.
"""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perdure import DurableObject, Limits, ObjectStub
from perdure.objects import runtime as runtime_module
from perdure.objects.runtime import Runtime
from perdure.objects.watchdog import Watchdog
from perdure.storage.journal import JournalListener
from perdure.storage.store import Store
from perdure.testing.loop import SimulatedLoop
from perdure.testing.patches import patched

START_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z."""

ROUNDS_MAX = 20_000

ROUNDING_MS = 0.01
"""What floating point may lose of a time of today; the loop is always this much ahead."""


class World:
    """One process after the other over the same folder, and the time that they live in."""

    def __init__(self, folder: Path, *classes: type[DurableObject], **limits: int) -> None:
        self.now_ms = START_MS
        self.kills = 0
        self._root = folder
        self._classes = classes
        self._limits = Limits(**limits)
        self._serial = 0
        self.loop: SimulatedLoop
        self.runtime: Runtime
        self._start(folder / "0")

    # --- life

    def _start(self, folder: Path) -> None:
        self.loop = SimulatedLoop(self.now_ms / 1000)
        with patched((runtime_module, "Store", _store), (runtime_module, "Watchdog", _Blind)):
            self.runtime = Runtime(
                folder,
                self._classes,
                limits=self._limits,
                clock_ms=lambda: self.now_ms,
                new_id=self._new_id,
            )
            self.finish(self.runtime.start())

    def _new_id(self) -> str:
        self._serial += 1
        return f"{self._serial:032}"

    def kill(self, *classes: type[DurableObject]) -> None:
        """The process dies, now; another one (with these classes) starts on what it left."""
        self._classes = classes or self._classes
        self.kills += 1
        folder = self._root / str(self.kills)
        shutil.copytree(self.runtime.folder, folder)
        self._abandon()
        self._start(folder)

    def restart(self) -> None:
        """The server is stopped in order, and started again."""
        self.finish(self.runtime.stop())
        self._start(self.runtime.folder)

    def _abandon(self) -> None:
        """Let go of the old process's files; nothing of it runs any more."""
        for slot in self.runtime.slots():
            if slot.instance is not None:
                slot.instance.gate.discard()
                for task in slot.instance.tasks:
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    self.loop.do(task.cancel)
        self.loop.run()
        self.loop.do(self.runtime.store.close)

    # --- time

    def settle(self) -> None:
        """Let everything go on that can, with commits, but without time."""
        for _ in range(ROUNDS_MAX):
            if self.loop.ready:
                self.loop.run()
            elif self.runtime.store.journal.pending_bytes:
                self.loop.do(self.runtime.store.journal.pump)
            else:
                return
        raise AssertionError("the world does not settle")

    def step(self, callbacks: int) -> None:
        """Let a few callbacks run, and the journal write if nothing else can go on: a kill may come after."""
        if self.loop.ready:
            self.loop.run(callbacks)
        elif self.runtime.store.journal.pending_bytes:
            self.loop.do(self.runtime.store.journal.pump)

    def advance(self, duration_ms: int) -> None:
        """Let time go by, timer by timer."""
        end_ms = self.now_ms + duration_ms
        self.settle()
        while (next_ms := self._next_timer_ms) is not None and next_ms <= end_ms:
            self._move(next_ms)
            self.settle()
        self._move(end_ms)
        self.settle()

    @property
    def _next_timer_ms(self) -> int | None:
        """The first whole millisecond at which the next timer has rung."""
        next_s = self.loop.next_timer_s
        return None if next_s is None else max(self.now_ms, math.ceil(next_s * 1000 - ROUNDING_MS))

    def _move(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.loop.advance(max(0.0, (now_ms + ROUNDING_MS) / 1000 - self.loop.time()))

    def finish(self, work: Any) -> Any:
        """Do something to its end, with as little time as it needs."""

        async def run() -> Any:
            return await work

        task = self.loop.create_task(run())
        for _ in range(ROUNDS_MAX):
            self.settle()
            if task.done():
                return task.result()
            next_ms = self._next_timer_ms
            assert next_ms is not None, "what is waited for never comes"
            self._move(next_ms)
        raise AssertionError("what is waited for does not come")

    # --- objects

    def get(self, object_class: type[DurableObject], name: str = "a") -> Stub:
        """An object whose methods are called at once, and waited for."""
        return Stub(self, self.runtime.get(object_class, name))

    def hibernate(self, object_class: type[DurableObject], name: str = "a") -> None:
        """Let the object go that has nothing to do."""
        slot = self.runtime.slot(self.runtime.object_id(object_class, name))
        self.settle()
        assert self.runtime.housekeeping._may_hibernate(slot), "it is at work"
        self.finish(self.loop.do(self.runtime.housekeeping._start_hibernation, slot))
        assert slot.instance is None


class Stub:
    """An object's methods, as plain functions of a world."""

    def __init__(self, world: World, stub: ObjectStub) -> None:
        self._world = world
        self._stub = stub

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            return self._world.finish(self._world.loop.do(lambda: getattr(self._stub, method)(*arguments, **named)))

        return call


@contextmanager
def world(folder: Path, *classes: type[DurableObject], **limits: int) -> Iterator[World]:
    """A world, whose last process is stopped at the end."""
    made = World(folder, *classes, **limits)
    try:
        yield made
    finally:
        made._abandon()


def _store(folder: Path, listener: JournalListener, **options: Any) -> Store:
    return Store(folder, listener, threaded=False, **options)


class _Blind(Watchdog):
    """Watches nothing: there is no thread, and nothing takes time."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to watch."""
