"""Nothing leaves an object before the writes that it depends on are durable (P1, P3)."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.objects.clients import Client
from tests.objects.disks import Disk
from tests.running import eventually, killed, running, until

from perdure import Connection, DurableObject, callable
from perdure.errors import StorageError
from perdure.objects.cursor import StreamCursor

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The gates are tried on both loops."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """A disk that can be held back."""
    return Disk(tmp_path)


class Ledger(DurableObject):
    """Writes, and says so on every way out."""

    async def on_connect(self, connection: Connection) -> None:
        connection.send("hello")

    async def on_message(self, connection: Connection, data: str | bytes) -> None:
        if data == "peek":
            connection.send("unconfirmed", allow_unconfirmed=True)
            return
        self.storage.put("last", data)
        connection.send(f"saved {data!s}")
        self.broadcast(f"news {data!s}", without=connection)

    @callable
    async def write(self, value: int) -> str:
        self.storage.put("value", value)
        self.streams.create("log").append(str(value).encode())
        return f"wrote {value}"

    @callable
    async def read(self) -> int | None:
        value: int | None = self.storage.get("value")
        return value

    @callable
    async def fail_after_write(self, value: int) -> None:
        self.storage.put("value", value)
        raise ValueError("after the write")

    @callable
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            self.storage.put("value", number)
            yield number

    @callable
    async def write_both(self) -> None:
        self.storage.put("a", 1)
        self.streams.create("log").append(b'"a"')
        self.storage.sql("CREATE TABLE t(x)")
        self.storage.sql("INSERT INTO t VALUES(1)")
        self.storage.put("b", 1)
        await asyncio.sleep(0)
        self.storage.put("c", 1)

    @callable
    async def everything(self) -> dict[str, Any]:
        log = self.streams.find("log")
        return {"values": self.storage.list(), "log": log.read().entries if log else []}


async def _settled() -> None:
    """Time in which what is not held would come out."""
    await asyncio.sleep(0.05)


async def test_frames_wait_for_the_sync_in_their_order(tmp_path: Path, disk: Disk) -> None:
    """To the sender, to the others, and those of later messages."""
    async with running(tmp_path, Ledger, files=disk.files) as runtime:
        one, two = Client.of(runtime, Ledger, "x"), Client.of(runtime, Ledger, "x")
        await until(lambda: one.frames == ["hello"] and two.frames == ["hello"])
        disk.hold()
        one.say("A")
        await _settled()
        one.say("B")
        two.say("C")
        await _settled()
        assert (one.frames, two.frames) == (["hello"], ["hello"])
        disk.release()
        await until(lambda: len(one.frames) == 4 and len(two.frames) == 4)
        assert one.frames == ["hello", "saved A", "saved B", "news C"]
        assert two.frames == ["hello", "news A", "news B", "saved C"]


async def test_a_frame_that_depends_on_nothing_leaves_at_once(tmp_path: Path, disk: Disk) -> None:
    """With no write under way there is nothing to wait for."""
    async with running(tmp_path, Ledger, files=disk.files) as runtime:
        client = Client.of(runtime, Ledger, "x")
        disk.hold()
        await until(lambda: client.frames == ["hello"])
        disk.release()


async def test_an_unconfirmed_frame_overtakes(tmp_path: Path, disk: Disk) -> None:
    """Only the one that asked for it."""
    async with running(tmp_path, Ledger, files=disk.files) as runtime:
        client = Client.of(runtime, Ledger, "x")
        await until(lambda: client.frames == ["hello"])
        disk.hold()
        client.say("A")
        client.say("peek")
        await until(lambda: client.frames == ["hello", "unconfirmed"])
        await _settled()
        assert client.frames == ["hello", "unconfirmed"]
        disk.release()
        await until(lambda: client.frames == ["hello", "unconfirmed", "saved A"])


async def test_results_errors_and_streams_wait_for_the_sync(tmp_path: Path, disk: Disk) -> None:
    """A call's result, its error, an async generator's values, a stream's readers."""
    async with running(tmp_path, Ledger, files=disk.files) as runtime:
        stub = runtime.get(Ledger, "x")
        await stub.write(1)
        async with StreamCursor(runtime, stub.object_id, "log") as cursor:
            assert (await cursor.next()).entries == [b"1"]
            disk.hold()
            values: list[int] = []

            async def collect() -> None:
                async for value in stub.count(3):
                    values.append(value)  # noqa: PERF401 - what came so far is looked at

            work = [
                asyncio.ensure_future(stub.write(2)),
                asyncio.ensure_future(stub.read()),
                asyncio.ensure_future(stub.fail_after_write(3)),
                asyncio.ensure_future(cursor.next()),
                asyncio.ensure_future(collect()),
            ]
            await _settled()
            assert [task.done() for task in work] == [False] * 5
            assert values == []
            disk.release()
            assert await work[0] == "wrote 2"
            assert await work[1] == 2
            with pytest.raises(ValueError, match="after the write"):
                await work[2]
            assert (await work[3]).entries == [b"2"]
            await work[4]
            assert values == [0, 1, 2]


async def test_sync_waits_for_what_was_written(tmp_path: Path, disk: Disk) -> None:
    """Before a side effect on the outside world."""
    reached: list[str] = []

    class Payer(DurableObject):
        @callable
        async def pay(self) -> None:
            self.storage.put("paid", True)
            await self.storage.sync()
            reached.append("paid")

    async with running(tmp_path, Payer, files=disk.files) as runtime:
        disk.hold()
        call = runtime.get(Payer, "x").pay()
        await _settled()
        assert reached == []
        disk.release()
        await call
        assert reached == ["paid"]


async def test_what_was_seen_survives_a_kill_and_a_turn_is_whole(tmp_path: Path) -> None:
    """All writes between two awaits are there together, in table, key and stream."""
    async with running(tmp_path / "a", Ledger) as runtime:
        await runtime.get(Ledger, "x").write_both()
        folder = await killed(runtime, tmp_path / "b")
    async with running(folder, Ledger) as runtime:
        assert await runtime.get(Ledger, "x").everything() == {
            "values": {"a": 1, "b": 1, "c": 1},
            "log": [b'"a"'],
        }


async def test_a_kill_during_the_sync_keeps_a_turn_whole_or_not_at_all(tmp_path: Path) -> None:
    """Nobody was told of it, so both are right; half of it would not be."""
    disk = Disk(tmp_path / "a")
    async with running(tmp_path / "a", Ledger, files=disk.files) as runtime:
        stub = runtime.get(Ledger, "x")
        await stub.write(1)
        disk.hold()
        call = stub.write_both()
        await _settled()
        folder = await killed(runtime, tmp_path / "b", mid_write=True)
        disk.release()
        await call
    async with running(folder, Ledger) as runtime:
        found = await runtime.get(Ledger, "x").everything()
        assert found in (
            {"values": {"value": 1}, "log": [b"1"]},
            {"values": {"a": 1, "b": 1, "value": 1}, "log": [b"1", b'"a"']},
            {"values": {"a": 1, "b": 1, "c": 1, "value": 1}, "log": [b"1", b'"a"']},
        )


async def test_an_async_generators_error_comes_after_its_values(tmp_path: Path, disk: Disk) -> None:
    """And after the sync of what was written."""

    class Failing(DurableObject):
        @callable
        async def numbers(self) -> AsyncIterator[int]:
            for number in (1, 2):
                self.storage.put("value", number)
                yield number
            raise ValueError("no more")

    async with running(tmp_path, Failing, files=disk.files) as runtime:
        disk.hold()
        values = runtime.get(Failing, "x").numbers()
        first = asyncio.ensure_future(anext(values))
        await _settled()
        assert not first.done()
        disk.release()
        assert await first == 1
        assert await anext(values) == 2
        with pytest.raises(ValueError, match="no more"):
            await anext(values)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_failing_disk_shows_nothing_and_work_goes_on_after_it(
    tmp_path: Path, disk: Disk, number: int
) -> None:
    """The caller gets a StorageError, readers what was durable, clients a close; then all is as before."""
    async with running(tmp_path, Ledger, files=disk.files) as runtime:
        stub = runtime.get(Ledger, "x")
        await stub.write(1)
        client = Client.of(runtime, Ledger, "x")
        await until(lambda: client.frames == ["hello"])
        disk.fail(number)
        client.say("lost")
        with pytest.raises(StorageError) as caught:
            await stub.write(2)
        assert caught.value.code == ("storage_full" if number == errno.ENOSPC else "storage_error")
        await until(lambda: client.closed_with is not None)
        assert client.frames == ["hello"]
        assert client.closed_with == (1012, "the room was reset; reconnect and resume")
        disk.fail(0)
        assert await stub.read() == 1
        assert await stub.write(3) == "wrote 3"
        async with StreamCursor(runtime, stub.object_id, "log") as cursor:
            assert (await cursor.next()).entries == [b"1", b"3"]


async def test_a_reader_outlives_a_failure_of_the_disk(tmp_path: Path, disk: Disk) -> None:
    """It waits on and gets what comes after, at the right offset."""
    async with running(tmp_path, Ledger, files=disk.files) as runtime:
        stub = runtime.get(Ledger, "x")
        await stub.write(1)
        async with StreamCursor(runtime, stub.object_id, "log") as cursor:
            assert (await cursor.next()).entries == [b"1"]
            reading = asyncio.ensure_future(cursor.next())
            await asyncio.sleep(0)
            disk.fill()
            with pytest.raises(StorageError):
                await stub.write(2)
            disk.fail(0)

            async def writes() -> bool:
                return bool(await stub.write(3))

            await eventually(writes)
            batch = await reading
            assert (batch.entries, batch.next_offset) == ([b"3"], "0000000000000002")
