"""Objects: one at a time, in order; they wake, sleep, fail and live on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.objects.clients import Client
from tests.running import hibernated, killed, running, until

from perdure import Connection, DurableObject, callable
from perdure.errors import (
    ClassNotFound,
    ConfigError,
    InvalidName,
    LimitExceeded,
    MethodNotFound,
    ObjectReset,
    Overloaded,
)
from perdure.objects import watchdog
from perdure.objects.cursor import StreamCursor
from perdure.objects.namespace import callable_of
from perdure.objects.runtime import Runtime

pytestmark = pytest.mark.anyio


class Desk(DurableObject):
    """Keeps a list of what happened, in memory; and values, in storage."""

    async def on_start(self) -> None:
        self.events: list[str] = []
        self.door = asyncio.Event()

    @callable
    async def note(self, text: str) -> None:
        self.events.append(text)

    @callable
    async def note_twice(self, text: str) -> None:
        self.events.append(f"{text} before")
        await asyncio.sleep(0)
        self.events.append(f"{text} after")

    @callable
    def note_plain(self, text: str) -> int:
        self.events.append(text)
        return len(self.events)

    @callable
    async def wait(self) -> str:
        await self.door.wait()
        return "through"

    @callable
    async def open(self) -> None:
        self.door.set()

    @callable
    async def read(self) -> list[str]:
        return self.events

    @callable
    async def fail(self) -> None:
        raise ValueError("as asked")

    @callable
    async def put(self, value: int) -> None:
        self.storage.put("value", value)

    @callable
    async def get(self) -> int | None:
        value: int | None = self.storage.get("value")
        return value

    @callable
    async def blocked(self, seconds: float) -> None:
        async with self.block_concurrency():
            self.events.append("block begins")
            await asyncio.sleep(seconds)
            self.events.append("block ends")

    async def hidden(self) -> None:
        """Not callable from outside."""


# --- calls


async def test_calls_on_a_stub_arrive_in_order(tmp_path: Path) -> None:
    """Also the first ones, while the object still starts."""
    async with running(tmp_path, Desk) as runtime:
        stub = runtime.get(Desk, "x")
        calls = [stub.note(str(number)) for number in range(50)]
        await asyncio.gather(*calls)
        assert await stub.read() == [str(number) for number in range(50)]


async def test_handlers_take_turns_at_awaits_only(tmp_path: Path) -> None:
    """Between two awaits nothing else runs; at an await others may."""
    async with running(tmp_path, Desk) as runtime:
        stub = runtime.get(Desk, "x")
        await stub.note("start")
        await asyncio.gather(stub.note_twice("one"), stub.note_twice("two"))
        assert await stub.read() == ["start", "one before", "two before", "one after", "two after"]


async def test_a_waiting_handler_keeps_nobody_out(tmp_path: Path) -> None:
    """Another call may end its wait."""
    async with running(tmp_path, Desk) as runtime:
        stub = runtime.get(Desk, "x")
        waiting = asyncio.ensure_future(stub.wait())
        await stub.open()
        assert await waiting == "through"


async def test_making_a_stub_does_nothing(tmp_path: Path) -> None:
    """Neither a file nor an instance; a plain method may be called, too."""
    async with running(tmp_path, Desk) as runtime:
        stub = runtime.get("Desk", "x")
        assert repr(stub) == "<stub of Desk/x>"
        assert not runtime.exists(stub.object_id)
        assert runtime.slots() == []
        assert await stub.note_plain("a") == 1


async def test_names_and_classes_are_checked(tmp_path: Path) -> None:
    """Before anything is made."""
    async with running(tmp_path, Desk) as runtime:
        with pytest.raises(ClassNotFound, match=r"no class 'Chair' is registered \(known: Desk\)"):
            runtime.get("Chair", "x")
        for name in ("", "a\x00", "\n", "\ud800"):
            with pytest.raises(InvalidName):
                runtime.get(Desk, name)
        with pytest.raises(LimitExceeded, match="object_name_bytes_max"):
            runtime.get(Desk, "x" * 513)
        with pytest.raises(AttributeError):
            runtime.get(Desk, "x").hidden  # noqa: B018
        with pytest.raises(MethodNotFound):
            callable_of(Desk, "on_start")
    with pytest.raises(ConfigError, match="two classes are named Desk"):
        Runtime(tmp_path, [Desk, type("Desk", (DurableObject,), {})])


async def test_an_error_goes_to_its_caller_and_the_object_lives_on(tmp_path: Path) -> None:
    """With its memory."""
    async with running(tmp_path, Desk) as runtime:
        stub = runtime.get(Desk, "x")
        await stub.note("before")
        with pytest.raises(ValueError, match="as asked"):
            await stub.fail()
        assert await stub.read() == ["before"]


# --- starting


async def test_an_error_in_on_start_discards_the_instance(tmp_path: Path) -> None:
    """Its caller is told; what it wrote is gone; the next call tries again."""
    starts: list[int | None] = []

    class Shaky(DurableObject):
        async def on_start(self) -> None:
            starts.append(self.storage.get("started"))
            self.storage.put("started", 1)
            if len(starts) == 1:
                raise RuntimeError("not today")

        @callable
        async def ping(self) -> str:
            return "pong"

    async with running(tmp_path, Shaky) as runtime:
        stub = runtime.get(Shaky, "x")
        with pytest.raises(ObjectReset, match="Shaky/x: not today"):
            await stub.ping()
        assert await stub.ping() == "pong"
        assert starts == [None, None]


async def test_nothing_is_delivered_before_on_start_has_ended(tmp_path: Path) -> None:
    """However long it waits."""

    class Slow(DurableObject):
        async def on_start(self) -> None:
            self.ready = False
            await asyncio.sleep(0.05)
            self.ready = True

        @callable
        async def is_ready(self) -> bool:
            return self.ready

    async with running(tmp_path, Slow) as runtime:
        stub = runtime.get(Slow, "x")
        assert [*await asyncio.gather(stub.is_ready(), stub.is_ready())] == [True, True]


# --- block_concurrency


async def test_block_concurrency_holds_the_others_back(tmp_path: Path) -> None:
    """They come after it, in their order."""
    async with running(tmp_path, Desk) as runtime:
        stub = runtime.get(Desk, "x")
        await stub.note("start")
        await asyncio.gather(stub.blocked(0.03), stub.note("one"), stub.note("two"))
        assert await stub.read() == ["start", "block begins", "block ends", "one", "two"]


async def test_a_block_that_takes_too_long_resets_the_object(tmp_path: Path) -> None:
    """What is saved stays, memory goes, and those who waited get their turn with the next instance."""
    async with running(tmp_path, Desk, limits={"block_concurrency_ms_max": 30}) as runtime:
        stub = runtime.get(Desk, "x")
        await stub.put(7)
        blocked = asyncio.ensure_future(stub.blocked(10))
        await asyncio.sleep(0)
        later = asyncio.ensure_future(stub.get())
        with pytest.raises((TimeoutError, ObjectReset)):
            await blocked
        assert await later == 7
        assert await stub.read() == []


# --- limits


async def test_the_inbox_has_a_limit(tmp_path: Path) -> None:
    """At it the next caller is refused by name; one below it is taken; afterwards all is well."""
    async with running(tmp_path, Desk, limits={"inbox_events_max": 5}) as runtime:
        stub = runtime.get(Desk, "x")
        await stub.note("awake")
        waiting = [asyncio.ensure_future(stub.wait()) for _ in range(4)]
        await asyncio.sleep(0)
        await stub.note("the fifth")
        await asyncio.sleep(0)
        waiting.append(asyncio.ensure_future(stub.wait()))
        with pytest.raises(Overloaded, match="Desk/x has 5 events waiting"):
            await stub.note("the sixth")
        assert await runtime.get(Desk, "y").note_plain("another object") == 1
        slot = runtime.slot(stub.object_id)
        assert slot.instance is not None
        slot.instance.object.door.set()  # type: ignore[attr-defined]
        assert await asyncio.gather(*waiting) == ["through"] * 5
        assert await stub.read() == ["awake", "the fifth"]


async def test_so_many_objects_are_awake_at_most(tmp_path: Path) -> None:
    """The longest idle one makes room; when all are at work the next is refused."""
    async with running(tmp_path, Desk, limits={"awake_objects_max": 3}) as runtime:
        for name in ("a", "b", "c", "d", "e"):
            await runtime.get(Desk, name).put(1)
            awake = [slot for slot in runtime.slots() if slot.instance is not None]
            assert len(awake) <= 3
        assert await runtime.get(Desk, "a").get() == 1
        awake = [slot for slot in runtime.slots() if slot.instance is not None]
        waiting = [asyncio.ensure_future(runtime.get(Desk, slot.object_id.name).wait()) for slot in awake]
        await asyncio.sleep(0)
        while len(waiting) < 3:
            waiting.append(asyncio.ensure_future(runtime.get(Desk, f"more {len(waiting)}").wait()))
            await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="awake_objects_max"):
            await runtime.get(Desk, "z").get()
        for slot in runtime.slots():
            if slot.instance is not None:
                slot.instance.object.door.set()  # type: ignore[attr-defined]
        await asyncio.gather(*waiting)


# --- hibernation


async def test_an_idle_object_hibernates_and_wakes(tmp_path: Path) -> None:
    """By itself after its time; what is in storage stays, what was in memory goes; its connections stay."""

    class Counter(DurableObject):
        hibernate_after_ms = 30
        made = 0

        async def on_start(self) -> None:
            type(self).made += 1
            self.in_memory = 0

        async def on_message(self, connection: Connection, data: str | bytes) -> None:
            self.in_memory += 1
            self.storage.put("total", self.storage.get("total", 0) + 1)
            connection.send(f"{self.in_memory} {self.storage.get('total')}")

    async with running(tmp_path, Counter) as runtime:
        client = Client.of(runtime, Counter, "x")
        for frames in (["1 1"], ["1 1", "1 2"]):
            client.say("count")
            await until(lambda: client.frames == frames)  # noqa: B023
            slot = runtime.slot(client.object_id)
            await until(lambda: slot.instance is None)  # noqa: B023
        assert Counter.made == 2
        assert client.closed_with is None


async def test_an_object_that_saved_nothing_leaves_nothing(tmp_path: Path) -> None:
    """No file, no entry."""
    async with running(tmp_path, Desk) as runtime:
        stub = runtime.get(Desk, "x")
        await stub.read()
        await hibernated(runtime, Desk, "x")
        assert not runtime.exists(stub.object_id)
        assert list((tmp_path / "objects" / "Desk").iterdir()) == []


# --- background work and the end


async def test_background_work_keeps_the_object_awake_and_reports_errors(tmp_path: Path) -> None:
    """An error goes to on_error; the object lives on."""
    errors: list[str] = []

    class Worker(DurableObject):
        hibernate_after_ms = 10

        @callable
        async def start(self, seconds: float) -> None:
            self.background(self.work(seconds))

        async def work(self, seconds: float) -> None:
            await asyncio.sleep(seconds)
            raise ValueError("the work failed")

        async def on_error(self, connection: Connection | None, error: Exception) -> None:
            errors.append(f"{connection} {error}")

    async with running(tmp_path, Worker) as runtime:
        await runtime.get(Worker, "x").start(0.15)
        await asyncio.sleep(0.1)
        slot = runtime.slots()[0]
        assert slot.instance is not None
        await until(lambda: errors == ["None the work failed"])
        await until(lambda: slot.instance is None)


async def test_a_stop_lets_short_work_end_and_cuts_long_work(tmp_path: Path) -> None:
    """What was written is saved either way; nobody gets in any more."""
    ended: list[str] = []

    class Worker(DurableObject):
        @callable
        async def work(self, seconds: float) -> None:
            self.storage.put(f"began {seconds}", True)
            await asyncio.sleep(seconds)
            self.storage.put(f"ended {seconds}", True)
            ended.append(str(seconds))

        @callable
        async def keys(self) -> list[str]:
            return [*self.storage.list()]

    async with running(tmp_path, Worker, limits={"drain_ms_max": 300}) as runtime:
        stub = runtime.get(Worker, "x")
        short, long = asyncio.ensure_future(stub.work(0.1)), asyncio.ensure_future(stub.work(30))
        await asyncio.sleep(0.02)
        stopping = asyncio.ensure_future(runtime.stop())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="shutting down"):
            await stub.keys()
        await stopping
        await short
        with pytest.raises(ObjectReset):
            await long
    assert ended == ["0.1"]
    async with running(tmp_path, Worker) as runtime:
        assert await runtime.get(Worker, "x").keys() == ["began 0.1", "began 30", "ended 0.1"]


async def test_a_stop_lets_readers_have_the_end(tmp_path: Path) -> None:
    """Of a stream that has ended, however late they come for it; nobody waits for the others."""

    class Log(DurableObject):
        @callable
        async def write(self) -> None:
            for name in ("ended", "open"):
                self.streams.create(name).append(b"all")
            self.streams.get("ended").close()

    async with running(tmp_path, Log, limits={"drain_ms_max": 5_000}) as runtime:
        stub = runtime.get(Log, "x")
        await stub.write()
        opened = StreamCursor(runtime, stub.object_id, "open")
        async with StreamCursor(runtime, stub.object_id, "ended") as ended:
            async with opened:
                assert (await opened.next()).entries == [b"all"]
                stopping = asyncio.ensure_future(runtime.stop())
                await asyncio.sleep(0.1)
                batch = await ended.next()
                assert (batch.entries, batch.closed) == ([b"all"], True)
                assert not stopping.done()
        await asyncio.wait_for(stopping, 2)


async def test_a_stopped_folder_has_nothing_to_recover(tmp_path: Path) -> None:
    """After a stop every object's file is up to date."""
    async with running(tmp_path, Desk) as runtime:
        await runtime.get(Desk, "x").put(1)
    async with running(tmp_path, Desk) as runtime:
        assert runtime.store.recovered == 0
        assert await runtime.get(Desk, "x").get() == 1


# --- async generators


class Feed(DurableObject):
    """Streams values to callers."""

    async def on_start(self) -> None:
        self.made = 0
        self.closed = 0

    @callable
    async def numbers(self, count: int) -> AsyncIterator[int]:
        try:
            for number in range(count):
                self.made += 1
                yield number
        finally:
            self.closed += 1

    @callable
    async def facts(self) -> list[int]:
        return [self.made, self.closed]


async def test_an_async_generator_streams_its_values(tmp_path: Path) -> None:
    """All of them in order; a slow caller pauses it."""
    async with running(tmp_path, Feed) as runtime:
        stub = runtime.get(Feed, "x")
        assert [number async for number in stub.numbers(500)] == list(range(500))
        values = stub.numbers(10_000)
        assert await anext(values) == 0
        await asyncio.sleep(0.05)
        made, _ = await stub.facts()
        assert made < 700
        await values.aclose()


async def test_closing_the_iterator_closes_the_generator(tmp_path: Path) -> None:
    """Its ``finally`` runs; the object goes on."""
    async with running(tmp_path, Feed) as runtime:
        stub = runtime.get(Feed, "x")
        values = stub.numbers(10_000)
        assert [await anext(values), await anext(values)] == [0, 1]
        await values.aclose()
        for _ in range(100):
            _, closed = await stub.facts()
            if closed:
                break
            await asyncio.sleep(0.005)
        assert closed == 1


# --- the watchdog


async def test_a_blocked_loop_is_reported_with_its_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the handler which did it can be found."""
    monkeypatch.setattr(watchdog, "CHECK_S", 0.02)

    class Blocking(DurableObject):
        @callable
        async def block(self) -> None:
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                pass

    with capture_logs() as logs:
        async with running(tmp_path, Blocking, limits={"loop_block_ms_max": 50}) as runtime:
            await asyncio.sleep(0.05)
            await runtime.get(Blocking, "x").block()
            await asyncio.sleep(0.05)
    (report,) = [entry for entry in logs if entry["event"] == "the event loop is blocked"]
    assert "in block" in report["stack"]


# --- the journal stays small


async def test_checkpoints_keep_the_journal_small_and_lose_nothing(tmp_path: Path) -> None:
    """Many times the journal's size goes through it; a kill in the middle finds all."""

    class Log(DurableObject):
        @callable
        async def append(self, number: int) -> None:
            self.storage.put(f"{number:04d}", "x" * 2_000)
            self.streams.create("log").append(str(number).ljust(1_000).encode())

        @callable
        async def facts(self) -> dict[str, Any]:
            entries = self.streams.get("log").read(bytes_max=10_000_000).entries
            return {"keys": len(self.storage.list()), "entries": [int(entry) for entry in entries]}

    async with running(tmp_path / "a", Log, limits={"journal_bytes_max": 2_000_000}) as runtime:
        largest = 0
        for number in range(400):
            await asyncio.gather(*(runtime.get(Log, name).append(number) for name in "abc"))
            largest = max(largest, runtime.store.journal.live_bytes)
        assert 1_000_000 < largest < 4_000_000
        folder = await killed(runtime, tmp_path / "b")
    async with running(folder, Log) as runtime:
        for name in "abc":
            assert await runtime.get(Log, name).facts() == {"keys": 400, "entries": list(range(400))}
