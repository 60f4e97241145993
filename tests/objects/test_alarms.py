"""Alarms over restarts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.running import killed, running, until

from perdure import AlarmInfo, DurableObject, callable

pytestmark = pytest.mark.anyio


class Clock(DurableObject):
    """Counts how often it rang."""

    @callable
    async def wind(self, after_ms: int, *, held: bool) -> None:
        self.context.hold_awake(held)
        self.set_alarm(time.time_ns() // 1_000_000 + after_ms)

    @callable
    async def rang(self) -> int:
        return int(self.storage.get("rang", 0))

    async def on_alarm(self, info: AlarmInfo) -> None:
        self.storage.put("rang", await self.rang() + 1)


@pytest.mark.parametrize("held", [False, True])
async def test_an_alarm_rings_after_a_kill(tmp_path: Path, held: bool) -> None:
    """At its time, once; also that of an object that has work under way and wakes with the server."""
    async with running(tmp_path / "a", Clock) as runtime:
        await runtime.get(Clock, "clock").wind(600, held=held)
        folder = await killed(runtime, tmp_path / "b")
    async with running(folder, Clock) as runtime:
        clock = runtime.get(Clock, "clock")
        assert await clock.rang() == 0
        object_id = runtime.object_id(Clock, "clock")
        slot = runtime.slot(object_id)
        await until(lambda: slot.instance is not None and slot.instance.storage.get("rang") == 1)
