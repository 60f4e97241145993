"""Receivers of webhooks: real servers on this machine that answer as they are told."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.running import until


class Call(NamedTuple):
    """A request that a receiver got; header names in small letters."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def wake(self) -> dict[str, Any]:
        """The body as JSON."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def pending(self) -> dict[str, tuple[str, str]]:
        """By path: what is acknowledged and the tail, of the streams that have work."""
        return {
            item["path"]: (item["acked_offset"], item["tail_offset"])
            for item in self.wake["streams"]
            if item["has_pending"]
        }


class Line(NamedTuple):
    """The connection that a call came on."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


Answer = Callable[[Call, Line], Awaitable[None]]


def reply(status: int, body: bytes = b"", *headers: str) -> Answer:
    """An answer that is whole."""

    async def answer(_call: Call, line: Line) -> None:
        lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close", *headers, "", ""]
        line.writer.write("\r\n".join(lines).encode() + body)

    return answer


OK = reply(200)
DONE = reply(200, b'{"done": true}')


async def hang(_call: Call, line: Line) -> None:
    """No answer for as long as the caller waits."""
    await line.reader.read()


class Receiver:
    """Answers with ``answer``, which may be changed at any time; the calls are in ``calls``."""

    def __init__(self) -> None:
        self.answer: Answer = DONE
        self.calls: list[Call] = []
        self.url = ""
        self.at_work = 0
        """Calls that have no answer yet."""
        self.at_work_max = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody calls."""
        task = asyncio.ensure_future(self._serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            headers = {name.lower(): value for name, _, value in (item.partition(": ") for item in lines)}
            call = Call(line, headers, await reader.readexactly(int(headers["content-length"])))
            self.calls.append(call)
            self.at_work += 1
            self.at_work_max = max(self.at_work, self.at_work_max)
            try:
                await self.answer(call, Line(reader, writer))
                await writer.drain()
            finally:
                self.at_work -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the caller gave up, or never said anything
        finally:
            writer.close()

    async def next(self, *, timeout_s: float = 5) -> Call:
        """The oldest call that was not taken yet."""
        await until(lambda: self.calls, timeout_s=timeout_s)
        return self.calls.pop(0)

    async def silent(self, for_s: float = 0.1) -> bool:
        """Whether nobody calls for a while."""
        await asyncio.sleep(for_s)
        return not self.calls


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver at ``url``."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.connected, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    receiver.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{port}/hook"
    try:
        yield receiver
    finally:
        server.close()
        for task in receiver.tasks:
            task.cancel()
        await asyncio.gather(*receiver.tasks, return_exceptions=True)
