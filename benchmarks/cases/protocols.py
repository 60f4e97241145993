"""What one chunk costs from the model to the sockets, in each protocol that clients speak."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from time import monotonic
from typing import Any

import picows

from ..harness import Case, Server
from ..load import CpuMeter

RATE = 250
"""Chunks a second: slow enough that each is an append, a commit and a frame of its own."""

CLIENT_COUNTS = (1, 10, 100)

LEAD_S = 0.6
"""What an answer lasts longer than its measurement: clients come first."""

_rooms = count(1)


class _Socket(picows.WSListener):
    """A client that only counts."""

    def __init__(self, greeting: bytes | None) -> None:
        self.frames = 0
        self._greeting = greeting

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport
        if self._greeting is not None:
            transport.send(picows.WSMsgType.TEXT, self._greeting)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        self.frames += 1

    def leave(self) -> None:
        self.transport.disconnect()


class _Events(asyncio.Protocol):
    """A reader of server-sent events that only counts reads of its socket."""

    def __init__(self, request: bytes) -> None:
        self.frames = 0
        self._request = request

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.frames += 1

    def leave(self) -> None:
        self._transport.abort()


Reader = _Socket | _Events
Join = Callable[[Server, str, str], Awaitable[Reader]]
"""(server, room, the running answer's id) -> a reader of it."""


def _socket(path: str, greeting: Callable[[str], bytes | None] = lambda room: None) -> Join:
    async def join(server: Server, room: str, answer_id: str) -> Reader:
        address = f"ws://127.0.0.1:{server.port}{path.format(room=room)}"
        _, client = await picows.ws_connect(lambda: _Socket(greeting(room)), address)
        assert isinstance(client, _Socket)
        return client

    return join


def _events(path: str) -> Join:
    async def join(server: Server, room: str, answer_id: str) -> Reader:
        target = path.format(room=room, answer=answer_id)
        request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode()
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: _Events(request), "127.0.0.1", server.port)
        return client

    return join


def _resume(room: str) -> bytes:
    return json.dumps({"type": "resume", "requestId": "r1", "id": room, "headers": {}, "body": {}}).encode()


def _probe(_room: str) -> bytes:
    return b'{"type":"cf_agent_stream_resume_request"}'


@dataclass(frozen=True)
class Protocol:
    """How its clients join; ``early``: they are in the room before the answer begins."""

    name: str
    join: Join
    early: bool = False


PROTOCOLS = (
    Protocol("room, deltas", _socket("/ws/{room}?delta=1"), early=True),
    Protocol("room, parts", _socket("/ws/{room}?parts=1"), early=True),
    Protocol("room, plain", _socket("/ws/{room}"), early=True),
    Protocol("useChat", _events("/api/chat/{room}/stream")),
    Protocol("useChat, WebSocket", _socket("/api/chat/ws", _resume)),
    Protocol("Durable Streams", _events("/v1/stream/rooms/{room}/turns/{answer}?live=sse&offset=-1")),
    Protocol("TanStack AI", _events("/api/chat?offset=-1&runId={answer}@{room}")),
    Protocol("TanStack AI, session", _events("/api/chat/{room}/session?live=sse&offset=-1"), early=True),
    Protocol("Helix style", _events("/api/chat/{room}")),
    Protocol("Cloudflare Agents", _socket("/agents/scripted-room/{room}", _probe), early=True),
    Protocol("PartySocket", _socket("/parties/scripted-room/{room}"), early=True),
)


async def measure(server: Server, seconds: float) -> dict[str, float]:
    seconds = min(2.0, seconds)
    figures = {"nobody, us/chunk": await _cost(server, PROTOCOLS[0], 0, seconds)}
    for protocol in PROTOCOLS:
        for clients in CLIENT_COUNTS:
            figures[f"{protocol.name}, {clients}, us/chunk"] = await _cost(server, protocol, clients, seconds)
    return figures


async def _cost(server: Server, protocol: Protocol, clients: int, seconds: float) -> float:
    """The server's CPU time for one chunk, in microseconds, with so many clients in one room.

    Raises:
        RuntimeError: a client got nothing.
    """
    room = f"p{next(_rooms)}"
    readers: list[Reader] = []
    if protocol.early:
        readers = await _join(server, protocol, room, "", clients)
    lasting = round(seconds + LEAD_S) + 1
    submitted = await asyncio.to_thread(_call, server, room, "submit", {"text": f"pace {RATE} for {lasting}"})
    if not protocol.early:
        readers = await _join(server, protocol, room, submitted["result"]["answer_id"], clients)
    await asyncio.sleep(LEAD_S)
    before = [reader.frames for reader in readers]
    cpu = CpuMeter(server)
    cpu.start()
    started = monotonic()
    await asyncio.sleep(seconds)
    elapsed = monotonic() - started
    cpu.stop()
    chunks = RATE * elapsed
    # Plain clients and PartySockets get the accumulated text twenty times a second; all others every chunk.
    for reader, frames in zip(readers, before, strict=True):
        if reader.frames - frames < elapsed * 10:
            raise RuntimeError(f"{protocol.name}: a client got {reader.frames - frames} frames of {chunks:g} chunks")
        reader.leave()
    await asyncio.to_thread(_call, server, room, "stop", {})
    return cpu.server_s * 1e6 / chunks


async def _join(server: Server, protocol: Protocol, room: str, answer_id: str, clients: int) -> list[Reader]:
    return list(await asyncio.gather(*(protocol.join(server, room, answer_id) for _ in range(clients))))


def _call(server: Server, room: str, method: str, arguments: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/rpc/ScriptedRoom/{room}/{method}",
        json.dumps(arguments).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


CASE = Case(
    name="protocols",
    claim=f"One room whose model says {RATE} chunks a second, each its own append and commit: CPU time of the server "
    "for one chunk, with so many clients of one kind. What everyone shares is `nobody`; a chunk is encoded once for "
    "each kind of client.",
    room="scripted",
    measure=measure,
    aims={},
    beside=(),
)
