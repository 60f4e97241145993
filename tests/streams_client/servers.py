"""The servers that the client is tested against, and what goes wrong between it and them."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.requirements import need
from tests.running import HURRIED, serving

from perdure import App
from perdure.server.streams.limits import StreamLimits

HERE = Path(__file__).parent

LONG_POLL_MS = 400
"""How long the servers hold a poll."""

ROTATE_MS = 700
"""How long perdure's server lets a connection for events last."""


@contextmanager
def reference_server() -> Iterator[str]:
    """The reference server as a process; gives the address that its streams are below."""
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    package = HERE.parent / "npm" / "node_modules" / "@durable-streams" / "server"
    need("the npm package `@durable-streams/server`", package.is_dir(), "npm install --prefix tests/npm")
    process = subprocess.Popen(
        ["node", HERE / "reference_server.mjs", package / "dist" / "index.js", str(LONG_POLL_MS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield f"{process.stdout.readline().strip()}/v1/stream"
    finally:
        process.communicate(timeout=10)


@asynccontextmanager
async def own_server(folder: Path) -> AsyncIterator[str]:
    """perdure's server in this loop, ending live connections early; gives the address that its streams are below."""
    limits = StreamLimits(long_poll_ms=LONG_POLL_MS, rotate_ms=ROTATE_MS, read_bytes_max=16_384)
    async with serving(App([], data=folder, limits=HURRIED, stream_limits=limits)) as address:
        yield f"http://{address}/v1/stream"


METHODS = (b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE ")


@dataclass
class Cut:
    """Where one connection ends: after so many bytes to the server, or from it, or after a time."""

    to_server: int | None = None
    from_server: int | None = None
    after_ms: int | None = None


class FaultyLine:
    """Passes bytes on to a server; each connection is cut where ``next_cut`` says.

    ``asked`` are the lines of the requests that it has heard.
    """

    def __init__(self, target: str, next_cut: Callable[[], Cut]) -> None:
        self.accepted = 0
        self.cuts = 0
        self.asked: list[str] = []
        self._target = target
        self._next_cut = next_cut

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        cut = self._next_cut()
        host, port = self._target.split(":")
        there, away = await asyncio.open_connection(host, int(port))
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(reader, away, cut.to_server))
                both.create_task(self._pass_on(there, writer, cut.from_server))
                if cut.after_ms is not None:
                    both.create_task(self._cut_after(cut.after_ms))
        except* OSError:
            pass
        finally:
            for end in (writer, away):
                end.transport.abort()

    async def _cut_after(self, ms: int) -> None:
        await asyncio.sleep(ms / 1000)
        self.cuts += 1
        raise ConnectionAbortedError

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None) -> None:
        while data := await reader.read(65_536):
            if data.startswith(METHODS):
                self.asked.append(data.partition(b"\r\n")[0].decode())
            if left is not None and len(data) >= left:
                writer.write(data[:left])
                with suppress(OSError):
                    await writer.drain()
                self.cuts += 1
                raise ConnectionAbortedError
            left = None if left is None else left - len(data)
            writer.write(data)
            await writer.drain()
        raise ConnectionAbortedError


@asynccontextmanager
async def faulty_line(url: str, next_cut: Callable[[], Cut]) -> AsyncIterator[tuple[FaultyLine, str]]:
    """A line to the server of ``url``; also gives the address that leads through it."""
    target, _, path = url.removeprefix("http://").partition("/")
    line = FaultyLine(target, next_cut)
    server = await asyncio.start_server(line.accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield line, f"http://{host}:{port}/{path}"
    finally:
        server.close()
