"""Streams that the server itself writes, for the crash simulator: each ends, whatever happens to its process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from random import Random

from ..errors import PerdureError
from ..stream_hosts.writers import StreamWriter
from ..wire.durable_streams import CreateRequest
from .crash_model import Lost
from .crash_server import Server
from .crash_streams_history import HOME_NUMBERS, paths_at
from .crash_streams_model import TEXT, StreamState

GENERATIONS = "generations/"
"""How the paths of these streams begin."""

PATHS = [path for number in HOME_NUMBERS for path in paths_at(number, GENERATIONS, 2)]

AT_ONCE = 2
"""Streams that are written together."""

FAILED = b"failed: "
STOPPED = b"stopped"


class Source:
    """Gives what it is told to give: numbered entries, an error, or its end (None)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.given = 0

    def give(self) -> None:
        """The next entry."""
        self.items.put_nowait(f"{self.name}:{self.given}".encode())
        self.given += 1

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (item := await self.items.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


class Writers:
    """The writers of one life of a server. ``on_end`` is told the path of a stream that was written to its end."""

    def __init__(self, server: Server, random: Random, name: str, on_end: Callable[[str], None]) -> None:
        self._server = server
        self._random = random
        self._name = name
        self._on_end = on_end
        self._count = 0
        self._sources: dict[str, Source] = {}
        self._writers: dict[str, StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def at_work(self) -> set[str]:
        """The paths of the streams that are being written."""
        return set(self._sources)

    def pick(self) -> str:
        """The path of one of these streams, or of one that could be."""
        return self._random.choice(PATHS)

    def act(self, path: str) -> None:
        """The stream's writer begins, gives something, or ends."""
        source = self._sources.get(path)
        if source is None:
            if len(self._sources) < AT_ONCE:
                self._begin(path)
            return
        what = self._random.choices(("give", "end", "fail", "stop"), (10, 1, 1, 1))[0]
        if what == "stop":
            self._server.loop.do(self._writers[path].stop)
        elif what == "give":
            self._server.loop.do(source.give)
        else:
            self._server.loop.do(source.items.put_nowait, None if what == "end" else RuntimeError("so it was told"))

    def _begin(self, path: str) -> None:
        self._count += 1
        source = self._sources[path] = Source(f"{self._name}.{self._count}")
        writer = self._writers[path] = StreamWriter(
            self._server.runtime,
            path,
            source,
            encode=bytes,
            failure=lambda text: FAILED + text.encode(),
            stopped=STOPPED,
        )
        self._server.loop.do(source.give)
        task = self._server.loop.create_task(self._write(path, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, path: str, writer: StreamWriter) -> None:
        try:
            await writer.begin(CreateRequest(TEXT, None, None, False, None))
            await writer.run()
        except (PerdureError, RuntimeError):
            return  # there is such a stream, or the source failed
        finally:
            del self._sources[path], self._writers[path]
        self._on_end(path)

    def end(self) -> None:
        """The process is over."""
        for task in self._tasks:
            task.cancel()
        self._server.loop.run()


def check_written(path: str, stream: StreamState, *, at_work: bool) -> None:
    """Raises Lost for a stream that does not hold what its source gave, or stays open without a writer."""
    entries = list(stream.entries)
    if entries and (entries[-1].startswith(FAILED) or entries[-1] == STOPPED):
        entries.pop()
    names = {entry.rpartition(b":")[0] for entry in entries}
    numbers = [int(entry.rpartition(b":")[2]) for entry in entries]
    if len(names) > 1 or numbers != list(range(len(numbers))):
        raise Lost(f"{path!r} holds {entries[-5:]}")
    if not (at_work or stream.closed):
        raise Lost(f"{path!r} stays open; its writer is dead")
