"""Server-sent events over ASGI: the life of one response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import structlog
from starlette.types import Receive, Scope, Send

from ..errors import PerdureError
from ..wire.sse import sse_comment

log = structlog.get_logger("perdure.server")

KEEP_ALIVE_MS = 15_000
"""Silence after which a comment is sent: proxies close quiet connections, often after 30 or 60 s."""

KEEP_ALIVE = sse_comment("keep-alive")


class EventStream:
    """An ASGI response that sends blocks of events as they come.

    ``keep_alive`` is sent in silence: what clients of the format skip, a comment by default.
    ``blocks`` yields encoded events; it ends by itself when the stream has its end. The client's
    leaving only ends the reading. When ``blocks`` raises, the connection is cut without a polite
    end, so that the client knows that something is missing and resumes.
    """

    def __init__(
        self,
        blocks: AsyncIterator[bytes],
        headers: dict[str, str],
        status: int = 200,
        *,
        keep_alive: bytes = KEEP_ALIVE,
    ) -> None:
        self._blocks = blocks
        self._status = status
        self._keep_alive = keep_alive
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        gone = asyncio.ensure_future(_until_gone(receive))
        blocks = self._blocks.__aiter__()
        pending: asyncio.Task[bytes] | None = None
        try:
            while True:
                if pending is None:
                    pending = asyncio.ensure_future(_next(blocks))
                await asyncio.wait({pending, gone}, timeout=KEEP_ALIVE_MS / 1000, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    return
                if not pending.done():
                    await send({"type": "http.response.body", "body": self._keep_alive, "more_body": True})
                    continue
                block, pending = pending.result(), None
                if not block:
                    break
                await send({"type": "http.response.body", "body": block, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except PerdureError as error:
            # Leaving without the last body makes the server cut the connection.
            log.info("event stream cut", path=scope["path"], error=str(error))
        finally:
            gone.cancel()
            if pending is not None:
                pending.cancel()
            close = getattr(blocks, "aclose", None)
            if close is not None:
                await asyncio.gather(pending or asyncio.sleep(0), return_exceptions=True)
                await close()


async def _next(blocks: AsyncIterator[bytes]) -> bytes:
    """The next block; empty at the end."""
    async for block in blocks:
        return block
    return b""


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
