"""A network line that can be cut: a TCP proxy in front of a server."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any


class Line:
    """Forwards bytes both ways while it is whole. A cut resets what is open and refuses what is new."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._whole = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="line", daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accepted, "127.0.0.1", 0))
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    def cut(self) -> None:
        """Everything that is open breaks, nothing new comes through."""
        self._do(self._set(False))

    def mend(self) -> None:
        """New connections come through again."""
        self._do(self._set(True))

    def drop(self) -> None:
        """Break what is open, once."""
        self.cut()
        self.mend()

    def close(self) -> None:
        """Take the line down."""
        self.cut()
        self._do(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _set(self, whole: bool) -> None:
        self._whole = whole
        if not whole:
            for writer in self._writers:
                _reset(writer)

    async def _finish(self) -> None:
        self._server.close()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            _reset(writer)
            return
        try:
            there, away = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            _reset(writer)
            return
        self._writers |= {writer, away}
        try:
            await asyncio.gather(_pump(reader, away), _pump(there, writer))
        except OSError:
            _reset(writer)
            _reset(away)
        finally:
            self._writers -= {writer, away}
            writer.close()
            away.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection as a lost network does: a reset, not a goodbye."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()
