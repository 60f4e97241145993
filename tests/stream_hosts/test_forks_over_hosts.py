"""Forks that live away from their home: how they are found again, and what a crash in between leaves."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.running import until

from perdure.objects.instance import Instance
from perdure.storage.journal import JournalEntry
from perdure.stream_hosts.directory import HOST_COUNT, home_of
from perdure.stream_hosts.host import StreamHost
from perdure.wire.durable_streams import Reply

from .asking import Answer, Streams

pytestmark = pytest.mark.anyio

SOURCE = "source"
TEXT = {"content-type": "text/plain"}
FORK = {"stream-forked-from": f"/v1/stream/{SOURCE}"}

AWAY = next(path for path in map(str, range(100)) if home_of(path) != home_of(SOURCE))
"""A path whose home is not its source's."""


@pytest.fixture
async def streams(tmp_path: Path) -> AsyncIterator[Streams]:
    """Streams, with a source of two entries."""
    streams = Streams(tmp_path)
    await streams.start()
    await streams.ask("PUT", SOURCE, b"1", TEXT)
    await streams.ask("POST", SOURCE, b"2", TEXT)
    yield streams
    await streams.stop()


async def _host(streams: Streams, number: int) -> StreamHost:
    return (await streams.hosts())[number]


async def _pointer(streams: Streams) -> int | None:
    return (await _host(streams, home_of(AWAY))).pointer(AWAY)


def test_homes_never_change() -> None:
    """They follow from the path alone, so data folders of today are read tomorrow."""
    assert HOST_COUNT == 16
    assert [home_of(path) for path in ("a", "b", "chat/1", "é", "source")] == [14, 11, 7, 13, 7]


@pytest.mark.parametrize("again", ["restart", "kill", "sleep"])
async def test_a_fork_away_from_home_is_found_again(streams: Streams, again: str) -> None:
    """By the pointer that its home keeps, for every kind of request."""
    assert (await streams.ask("PUT", AWAY, b"3", FORK)).status == 201
    assert await _pointer(streams) == home_of(SOURCE)
    for expected in (b"123", b"1234"):
        if again == "sleep":
            await streams.sleep(AWAY)
            await streams.sleep(SOURCE)
        else:
            await (streams.kill() if again == "kill" else streams.restart())
        if expected == b"1234":
            assert (await streams.ask("POST", AWAY, b"4", TEXT)).status == 204
        assert (await streams.ask("HEAD", AWAY)).headers["stream-next-offset"] == f"{len(expected):016}"
        assert (await streams.whole(AWAY)).body == expected
        assert (await streams.ask("PUT", AWAY, b"", FORK)).status == 200
    assert (await streams.ask("DELETE", AWAY)).status == 204
    assert (await streams.whole(AWAY)).status == 404


@pytest.mark.parametrize("again", [None, "kill"])
@pytest.mark.parametrize("then", ["plain", "fork"])
async def test_a_path_of_a_deleted_fork_is_free(streams: Streams, again: str | None, then: str) -> None:
    """For a stream at home, or for another fork; its pointer is forgotten or leads to the new one."""
    await streams.ask("PUT", AWAY, b"3", FORK)
    await streams.ask("DELETE", AWAY)
    if again:
        await streams.kill()
    assert await _pointer(streams) is None
    made = await streams.ask("PUT", AWAY, b"new", FORK if then == "fork" else TEXT)
    assert made.status == 201
    if again:
        await streams.kill()
    assert (await streams.whole(AWAY)).body == (b"12new" if then == "fork" else b"new")
    assert await _pointer(streams) == (home_of(SOURCE) if then == "fork" else None)


async def _in_home(streams: Streams, change: Callable[[StreamHost], object]) -> None:
    """Change the home of `AWAY` in one commit."""
    assert streams.app.stream_surface is not None
    object_id = streams.app.stream_surface.service.directory.host_id(home_of(AWAY))

    async def work(instance: Instance) -> None:
        assert isinstance(instance.object, StreamHost)
        change(instance.object)

    await streams.app.runtime.run_in(object_id, work)


@pytest.mark.parametrize("then", ["plain", "fork", "nothing"])
async def test_a_pointer_without_its_fork_blocks_nothing(streams: Streams, then: str) -> None:
    """A crash between the two would leave it: the path is free, for whatever comes."""
    await _in_home(streams, lambda home: home.set_pointer(AWAY, home_of(SOURCE)))
    await streams.kill()
    for method in ("GET", "HEAD", "POST", "DELETE"):
        assert (await streams.ask(method, AWAY, b"x", TEXT)).status == 404
    if then != "nothing":
        assert (await streams.ask("PUT", AWAY, b"3", FORK if then == "fork" else TEXT)).status == 201
        await streams.kill()
        assert (await streams.whole(AWAY)).body == (b"123" if then == "fork" else b"3")
        assert (await streams.ask("DELETE", AWAY)).status == 204
    assert (await streams.ask("DELETE", SOURCE)).status == 204
    assert set((await streams.row_counts()).values()) == {0}


async def test_a_pointer_to_the_wrong_host_blocks_nothing(streams: Streams) -> None:
    """It is a hint, and what lives at home counts more."""
    await streams.ask("PUT", AWAY, b"home", TEXT)
    await _in_home(streams, lambda home: home.set_pointer(AWAY, home_of(SOURCE)))
    await streams.kill()
    assert (await streams.whole(AWAY)).body == b"home"


class Images:
    """What a kill after each group commit of the journal leaves, and which of them came after an answer."""

    def __init__(self, streams: Streams, folder: Path) -> None:
        self.folders: list[Path] = []
        self._streams = streams
        writer = streams.app.runtime.store.journal._writer
        write = writer.write

        def watched(batch: list[JournalEntry], trim_to: int) -> None:
            write(batch, trim_to)
            image = folder / f"image{len(self.folders)}"
            shutil.copytree(streams.folder, image / "data")
            self.folders.append(image)

        writer.write = watched  # type: ignore[method-assign]

    async def answered(self, answer: asyncio.Future[Reply]) -> int:
        """Wait for the answer; from which image on it must hold."""
        assert (await answer).status in (200, 201, 204)
        return len(self.folders) - 1


async def _has_all_or_nothing(image: Path, *, made: bool | None) -> None:
    """The fork is there (or not; None: it may be), and its path can be used in any case."""
    streams = Streams(image)
    await streams.start()
    found = await streams.whole(AWAY)
    if made is not None:
        assert (found.status == 200) is made
    assert found.body.startswith(b"12") or found.status == 404
    assert (await streams.ask("PUT", AWAY, b"", FORK)).status == (200 if found.status == 200 else 201)
    for path in (SOURCE, AWAY):
        assert (await streams.ask("DELETE", path)).status == 204
    assert set((await streams.row_counts()).values()) == {0}
    await streams.stop()


@pytest.mark.parametrize("meanwhile", ["nothing", "checkpoint"])
async def test_a_kill_leaves_the_fork_with_its_pointer_or_neither(
    streams: Streams, tmp_path: Path, meanwhile: str
) -> None:
    """After each group commit, while their hosts have other work in the same turn; what was answered stays."""
    assert streams.app.stream_surface is not None
    runtime, directory = streams.app.runtime, streams.app.stream_surface.service.directory
    await streams.whole(AWAY)  # both are awake
    images = Images(streams, tmp_path)
    busy = streams.begin("POST", SOURCE, b"3", TEXT)
    forked = streams.begin("PUT", AWAY, b"", FORK)
    if meanwhile == "checkpoint":
        await runtime.housekeeping._checkpoint(runtime.slot(directory.host_id(home_of(SOURCE))))
    made = await images.answered(forked)
    deleted = streams.begin("DELETE", AWAY)
    await images.answered(busy)
    gone = await images.answered(deleted)
    await until(lambda: runtime.store.journal.pending_bytes == 0)
    for number, image in enumerate(images.folders):
        must = False if number >= gone else True if number >= made and number < gone - 1 else None
        await _has_all_or_nothing(image, made=must)
    assert made < gone


@pytest.mark.parametrize("asleep", [SOURCE, AWAY, "both", "none"])
@pytest.mark.parametrize("second", ["plain", "same fork", "other fork", "append", "delete source"])
async def test_what_comes_while_a_fork_is_made(streams: Streams, asleep: str, second: str) -> None:
    """Its source's host may have to wake first; then the path has one stream, and what was answered is true."""
    other = next(path for path in map(str, range(100, 200)) if home_of(path) not in (home_of(SOURCE), home_of(AWAY)))
    await streams.ask("PUT", other, b"other", TEXT)
    for path in (SOURCE, AWAY):
        if asleep in (path, "both"):
            await streams.sleep(path)
    fork = streams.begin("PUT", AWAY, b"", FORK)
    rival = {
        "plain": lambda: streams.begin("PUT", AWAY, b"plain", TEXT),
        "same fork": lambda: streams.begin("PUT", AWAY, b"", FORK),
        "other fork": lambda: streams.begin("PUT", AWAY, b"", {"stream-forked-from": f"/v1/stream/{other}"}),
        "append": lambda: streams.begin("POST", AWAY, b"!", TEXT),
        "delete source": lambda: streams.begin("DELETE", SOURCE),
    }[second]()
    made, told = Answer(await fork), Answer(await rival)
    statuses = {
        "plain": {(201, 409), (409, 201)},
        "same fork": {(201, 200), (200, 201)},
        "other fork": {(201, 409), (409, 201)},
        "append": {(201, 204), (201, 404)},
        "delete source": {(201, 204), (404, 204)},
    }[second]
    assert (made.status, told.status) in statuses
    whole = {
        "plain": b"12" if made.status == 201 else b"plain",
        "same fork": b"12",
        "other fork": b"12" if made.status == 201 else b"other",
        "append": b"12!" if told.status == 204 else b"12",
        "delete source": b"12",
    }[second]
    for _ in range(2):
        found = await streams.whole(AWAY)
        if second == "delete source" and made.status == 404:
            assert found.status == 404
        else:
            assert (found.status, found.body) == (200, whole)
        await streams.kill()
    for path in (AWAY, SOURCE, other):
        await streams.ask("DELETE", path)
    assert set((await streams.row_counts()).values()) == {0}
