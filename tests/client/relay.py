"""A network between a client and a server that comes, goes, and leads to another server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Relay:
    """Passes bytes on to ``target`` (``host:port``); without one, connections are broken at once."""

    def __init__(self) -> None:
        self.target: str | None = None
        self.address = ""
        self.accepted = 0
        self._open: set[asyncio.StreamWriter] = set()

    def drop(self) -> None:
        """Break what is open, without a goodbye."""
        for writer in self._open:
            writer.transport.abort()

    def lead_to(self, target: str | None) -> None:
        """Break what is open; what comes now goes there."""
        self.target = target
        self.drop()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.target is None:
            writer.transport.abort()
            return
        host, port = self.target.split(":")
        there, away = await asyncio.open_connection(host, int(port))
        ends = {writer, away}
        self._open |= ends
        try:
            with suppress(OSError):
                await asyncio.gather(_pass_on(reader, away), _pass_on(there, writer))
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def relay(target: str | None = None) -> AsyncIterator[Relay]:
    """A relay on a free port of this machine."""
    line = Relay()
    line.target = target
    server = await asyncio.start_server(line.accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    line.address = f"{host}:{port}"
    try:
        yield line
    finally:
        server.close()
        line.lead_to(None)
