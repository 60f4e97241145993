"""Whatever happens between two reads, a reader that comes back has each entry exactly once (P4)."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.running import HURRIED, hibernated, killed, reset

from perdure import DurableObject, callable
from perdure.objects.cursor import StreamCursor
from perdure.objects.runtime import Runtime

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 6)),
        st.tuples(st.just("large"), st.integers(1, 4)),
        st.tuples(st.just("read"), st.integers(1, 400_000)),
        st.tuples(st.just("go back"), st.integers(0, 100)),
        st.tuples(st.sampled_from(["hibernate", "reset", "restart", "kill"]), st.just(0)),
    ),
    min_size=3,
    max_size=25,
)


class Log(DurableObject):
    """Appends numbered entries, the same number at the same place always."""

    @callable
    async def grow(self, count: int, size: int) -> None:
        stream = self.streams.create("log")
        for number in range(stream.position, stream.position + count):
            stream.append(str(number).ljust(size).encode())

    @callable
    async def close(self) -> None:
        self.streams.create("log").close()


class Story:
    """One run: a log that grows and is interrupted, and its reader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kills = 0
        self.runtime: Runtime
        self.seen: list[bytes] = []
        self.offsets = ["-1"]
        self.cursor: StreamCursor | None = None

    async def start(self) -> None:
        self.runtime = Runtime(self.folder, [Log], limits=HURRIED)
        await self.runtime.start()

    async def step(self, action: str, number: int) -> None:
        log = self.runtime.get(Log, "x")
        if action in ("append", "large"):
            await log.grow(number, 10 if action == "append" else 70_000)
        elif action == "read":
            await self.read(number)
        elif action == "go back":
            # Another tab, with what the first had at that time.
            await self.leave()
            at = number % len(self.offsets)
            self.offsets = self.offsets[: at + 1]
            self.seen = self.seen[: 0 if at == 0 else int(self.offsets[at])]
        elif action == "hibernate":
            await self.leave()
            await hibernated(self.runtime, Log, "x")
        elif action == "reset":
            reset(self.runtime, Log, "x")
        else:
            await self.leave()
            await self.interrupt(action)

    async def interrupt(self, action: str) -> None:
        folder = self.folder
        if action == "kill":
            self.kills += 1
            folder = await killed(self.runtime, self.folder.with_name(f"killed{self.kills}"))
        await self.runtime.stop()
        self.folder = folder
        await self.start()

    async def leave(self) -> None:
        if self.cursor is not None:
            await self.cursor.__aexit__(None, None, None)
            self.cursor = None

    async def read(self, bytes_max: int) -> bool:
        """Read once, if there is anything; whether the end was reached."""
        if self.cursor is None:
            await self.runtime.get(Log, "x").grow(0, 0)
            self.cursor = StreamCursor(self.runtime, self.runtime.object_id(Log, "x"), "log", self.offsets[-1])
            await self.cursor.__aenter__()
        try:
            async with asyncio.timeout(0.02 if bytes_max else 10):
                batch = await self.cursor.next(bytes_max or 100_000)
        except TimeoutError:
            return False
        self.seen += batch.entries
        if batch.entries:
            self.offsets.append(batch.next_offset)
        return batch.closed

    async def finish(self) -> None:
        await self.runtime.get(Log, "x").grow(1, 10)
        await self.runtime.get(Log, "x").close()
        while not await self.read(0):
            pass
        await self.leave()
        await self.runtime.stop()


async def _tell(steps: list[tuple[str, int]], folder: Path) -> Story:
    story = Story(folder)
    await story.start()
    for action, number in steps:
        await story.step(action, number)
    await story.finish()
    return story


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_a_reader_has_each_entry_once(steps: list[tuple[str, int]]) -> None:
    """Over any cuts, goings-back, hibernations, resets, restarts and kills."""
    with tempfile.TemporaryDirectory() as folder:
        story = uvloop.run(_tell(steps, Path(folder) / "data"))
    total = 1 + sum(number for action, number in steps if action in ("append", "large"))
    assert [int(entry) for entry in story.seen] == list(range(total))
