"""Hibernation while others work: what is written on the way to it is not lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.objects.disks import Disk
from tests.running import running, until

from perdure import DurableObject, callable

pytestmark = pytest.mark.anyio


class Shelf(DurableObject):
    """Keeps values and a stream."""

    @callable
    async def put(self, value: str) -> None:
        self.storage.put("value", value)
        self.streams.create("log").append(value.encode())

    @callable
    async def read(self) -> tuple[str, list[bytes]]:
        return self.storage.get("value"), self.streams.get("log").read().entries


async def test_what_is_written_during_a_hibernation_is_kept(tmp_path: Path) -> None:
    """A write whose commit becomes durable together with the checkpoint's own is not in the file that is closed."""
    disk = Disk(tmp_path)
    async with running(tmp_path, Shelf, files=disk.files) as runtime:
        first, second, third = (runtime.get(Shelf, name) for name in ("first", "second", "third"))
        for shelf in (first, second, third):
            await shelf.put("old")
        disk.hold()
        busy = asyncio.ensure_future(third.put("new"))
        await until(lambda: runtime.store.journal.pending_bytes)
        housekeeping = runtime.housekeeping
        hibernations = [housekeeping._start_hibernation(runtime.slot(first.object_id))]
        await asyncio.sleep(0)  # its checkpoint waits behind the third's commit
        instance = runtime.enter(first.object_id)  # as a stream's request does, without a task of its own
        assert instance is not None
        instance.storage.put("value", "new")
        instance.streams.get("log").append(b"new")
        hibernations.append(housekeeping._start_hibernation(runtime.slot(second.object_id)))
        await asyncio.sleep(0)  # which commits what all have written before it begins
        disk.release()
        await asyncio.gather(busy, *hibernations)
        assert await first.read() == ("new", [b"old", b"new"])
        assert runtime.slot(second.object_id).instance is None
