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

HERE = Path(__file__).parent

LONG_POLL_MS = 400
"""How long the reference server holds a poll, and is silent in a stream of events."""


def _reference_package() -> Path | None:
    """Where the npm package is installed, if it is."""
    for folder in (HERE.parent / "npm", HERE):
        package = folder / "node_modules" / "@durable-streams" / "server"
        if package.is_dir():
            return package
    return None


@contextmanager
def reference_server() -> Iterator[str]:
    """The reference server as a process; gives the address that its streams are below."""
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    package = _reference_package()
    need("the npm package `@durable-streams/server`", package is not None, "npm install --prefix tests/npm")
    assert package is not None
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


@dataclass
class Cut:
    """Where one connection ends: after so many bytes to the server, or from it."""

    to_server: int | None = None
    from_server: int | None = None


class FaultyLine:
    """Passes bytes on to a server; each connection is cut where ``next_cut`` says."""

    def __init__(self, target: str, next_cut: Callable[[], Cut]) -> None:
        self.address = ""
        self.accepted = 0
        self.cuts = 0
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
        except* OSError:
            pass
        finally:
            for end in (writer, away):
                end.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None) -> None:
        while data := await reader.read(65_536):
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
