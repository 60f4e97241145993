"""Streams without HTTP: requests are handed to the service as its carriers do, their replies come back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

from tests.running import HURRIED, until

from perdure import App
from perdure.objects.instance import Instance
from perdure.server.streams.exchange import Frame
from perdure.server.streams.service import STREAM_ROOT
from perdure.stream_hosts.directory import HOST_COUNT
from perdure.stream_hosts.host import StreamHost
from perdure.wire.durable_streams import Reply


class Request:
    """An exchange whose client is the test. ``answer`` is what it is told."""

    def __init__(self, method: str, path: str, query: bytes, headers: dict[bytes, bytes], body: bytes) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.on_drained: Callable[[], None] | None = None
        self.on_gone: Callable[[], None] | None = None
        self.gone = False
        self.answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._begun: Reply | None = None
        self._written: list[bytes] = []

    @property
    def root(self) -> str:
        return STREAM_ROOT

    @property
    def url(self) -> bytes:
        return (STREAM_ROOT + self.path).encode()

    def reply(self, reply: Reply) -> None:
        self.answer.set_result(reply)

    def start(self, reply: Reply, size: int | None = None) -> None:
        self._begun = reply

    def write(self, frame: Frame) -> bool:
        self._written.append(frame.data)
        return True

    def finish(self) -> None:
        assert self._begun is not None
        self.reply(self._begun._replace(body=b"".join(self._written)))

    def cut(self) -> None:
        raise AssertionError("the body was cut")


class Answer:
    """A reply with its headers by name."""

    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self.headers = {name.decode(): value.decode() for name, value in reply.headers}
        self.body = reply.body if isinstance(reply.body, bytes) else b"".join(reply.body)

    def __repr__(self) -> str:
        return f"{self.status} {self.headers} {self.body[:200]!r}"


class Streams:
    """The streams of one data folder, over any number of lives of their process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        self._copies = count(1)
        self.app: App

    async def start(self) -> None:
        """Open the folder."""
        self.app = App([], data=self.folder, limits=HURRIED, pages=False)
        await self.app.start()

    async def stop(self) -> None:
        """End in an orderly way."""
        await self.app.stop()

    async def restart(self) -> None:
        """End in an orderly way, and start again."""
        await self.stop()
        await self.start()

    async def kill(self) -> None:
        """Go on with what ``kill -9`` would leave at this moment, whatever is under way."""
        journal = self.app.runtime.store.journal
        await until(lambda: journal.pending_bytes == 0)
        copy = self.folder.with_name(f"copy{next(self._copies)}")
        shutil.copytree(self.folder, copy)
        await self.stop()
        shutil.rmtree(self.folder)
        self.folder = copy
        await self.start()

    def begin(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, query: str = ""
    ) -> asyncio.Future[Reply]:
        """Hand a request over; its reply comes when it may."""
        given = {name.encode(): value.encode() for name, value in (headers or {}).items()}
        request = Request(method, path, query.encode(), given, body)
        assert self.app.stream_surface is not None
        self.app.stream_surface.service.handle(request)
        return request.answer

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Answer:
        """A request and its reply."""
        async with asyncio.timeout(10):
            return Answer(await self.begin(method, path, body, headers, query))

    async def whole(self, path: str) -> Answer:
        """The stream from its start."""
        return await self.ask("GET", path, query="offset=-1")

    async def hosts(self) -> list[StreamHost]:
        """All hosts, awake."""
        assert self.app.stream_surface is not None
        directory, found = self.app.stream_surface.service.directory, []

        async def wake(instance: Instance) -> None:
            assert isinstance(instance.object, StreamHost)
            found.append(instance.object)

        for object_id in directory.host_ids:
            await self.app.runtime.run_in(object_id, wake)
        assert len(found) == HOST_COUNT
        return found

    async def row_counts(self) -> dict[str, int]:
        """How many rows the hosts have in all, by table, once what they only have in memory was put into rows."""
        tables = ("_perdure_streams", "_perdure_segments", "_perdure_notes", "expiring")
        counts = dict.fromkeys(tables, 0)
        for host in await self.hosts():
            for table in tables:
                # The database itself: objects may not look into the engine's tables.
                ((rows,),) = host.storage.database.execute(f"SELECT count(*) FROM {table}")
                counts[table] += rows
        return counts

    async def sleep(self, path: str) -> None:
        """Let the path's home hibernate."""
        assert self.app.stream_surface is not None
        runtime, directory = self.app.runtime, self.app.stream_surface.service.directory
        slot = runtime.slot(directory.host_id(directory.home(path)))
        await until(lambda: slot.instance is None or runtime.housekeeping._may_hibernate(slot))
        if slot.instance is not None:
            await runtime.housekeeping._start_hibernation(slot)
