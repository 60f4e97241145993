"""Clients over a real socket: rooms by WebSocket, the rest by HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import httpx2
import msgspec
from websockets.asyncio.client import ClientConnection, connect

from perdure.wire.sse import SseEvent, SseParser


class Room:
    """A room's client. ``frames`` are those that `next` has taken; ``delta_count`` the characters in their deltas."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []
        self.delta_count = 0

    async def next(self, kind: str | None = None, *, timeout_s: float = 5) -> dict[str, Any]:
        """The next frame (of this type; others before it are taken, too)."""
        async with asyncio.timeout(timeout_s):
            while True:
                frame: dict[str, Any] = msgspec.json.decode(await self.socket.recv())
                self.frames.append(frame)
                self.delta_count += len(frame.get("delta", ""))
                if kind is None or frame["type"] == kind:
                    return frame

    async def send(self, **fields: Any) -> None:
        """Send a frame."""
        await self.socket.send(msgspec.json.encode(fields).decode())

    async def say(self, content: str, **fields: Any) -> None:
        """Say something in the room."""
        await self.send(type="message", content=content, **fields)

    @property
    def offset(self) -> str:
        """The newest offset seen."""
        offset: str = next(frame["offset"] for frame in reversed(self.frames) if "offset" in frame)
        return offset

    @property
    def delta_text(self) -> str:
        """What deltas have said."""
        return "".join(frame["delta"] for frame in self.frames if frame["type"] == "delta")


@asynccontextmanager
async def room(
    address: str,
    path: str = "/ws/r",
    query: Mapping[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[Room]:
    """A client of a room, connected; ``options`` are those of `websockets.connect`."""
    url = f"ws://{address}{path}" + (f"?{urlencode(query)}" if query else "")
    async with connect(url, max_size=None, proxy=None, **options) as socket:
        yield Room(socket)


@asynccontextmanager
async def http(address: str, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """An HTTP client of the server."""
    async with httpx2.AsyncClient(base_url=f"http://{address}", timeout=10, trust_env=False, **options) as client:
        yield client


async def events(response: httpx2.Response) -> AsyncIterator[SseEvent]:
    """The server-sent events of a response, as they come."""
    parser = SseParser()
    async for piece in response.aiter_bytes():
        for event in parser.feed(piece):
            yield event


def user_turn(text: str, *, chat_id: str = "r", message_id: str = "m1", **fields: Any) -> dict[str, Any]:
    """What ``useChat`` posts for a new message."""
    message = {"id": message_id, "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"id": chat_id, "messages": [message], "trigger": "submit-message", **fields}
