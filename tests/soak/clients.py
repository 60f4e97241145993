"""The clients of the kill test: each connects, records, and comes back by itself until its room is done."""

from __future__ import annotations

import asyncio
import json
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from .plan import ClientKind, Order, RoomPlan
from .views import AnswerView, RoomView, Violation

RECONNECT_S = 0.1

CUT_CHANCE = 0.4
"""How many connections are cut from the client's side."""


class Client(ABC):
    """One client of one room."""

    def __init__(self, room: RoomPlan, number: int, port: int, *, sends: bool, chance: random.Random) -> None:
        self.room = room
        self.name = f"{room.name} client {number} ({room.clients[number]})"
        self.port = port
        self.sends = sends
        self.chance = chance
        self.connects = 0
        self.leader: Client | None = None
        """The client that sends in this room; None for the sender itself."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether every answer was seen to its end."""

    @property
    @abstractmethod
    def frames(self) -> int:
        """Frames or events seen."""

    @abstractmethod
    async def connection(self) -> None:
        """Connect once and stay until the connection ends or everything was seen."""

    async def run(self) -> None:
        """Connect, and again after each loss, until everything was seen.

        Raises:
            Violation: the server broke a promise.
        """
        while not self.done:
            self.connects += 1
            try:
                await self.connection()
            except (OSError, WebSocketException, httpx2.HTTPError):
                pass
            await asyncio.sleep(RECONNECT_S * self.chance.uniform(0.2, 1.5))


class SocketClient(Client):
    """A plain room client: in delta or update mode; ``fresh`` ones come back without their offset."""

    def __init__(self, room: RoomPlan, number: int, port: int, *, sends: bool, chance: random.Random) -> None:
        super().__init__(room, number, port, sends=sends, chance=chance)
        self.kind: ClientKind = room.clients[number]
        self.view = RoomView(self.name, exact=self.kind != "update")

    @property
    def done(self) -> bool:
        return self.view.settled(len(self.room.orders))

    @property
    def frames(self) -> int:
        return self.view.frames

    async def connection(self) -> None:
        offset = None if self.kind == "fresh" else self.view.offset
        query = "" if self.kind == "update" else "delta=1&"
        query += f"offset={quote(offset)}" if offset else ""
        address = f"ws://127.0.0.1:{self.port}/ws/{quote(self.room.name)}?{query}"
        async with connect(address, max_size=None, compression=None, ping_interval=None, close_timeout=1) as socket:
            greeted, sent = False, set[str]()
            # Now and then the network fails by itself: after some frames, or in the middle of a greeting.
            stays = self.chance.choice((1, 2, 3, 50, 500)) if self.chance.random() < CUT_CHANCE else None
            async for data in socket:
                self.view.take(json.loads(data), connected_with=None if greeted else offset)
                greeted = True
                for order in self._due(sent):
                    sent.add(order.message_id)
                    frame = {"type": "message", "id": order.message_id, "content": order.content}
                    await socket.send(json.dumps(frame, ensure_ascii=False))
                if self.done:
                    return
                if stays is not None and (stays := stays - 1) == 0:
                    socket.transport.abort()
                    return

    def _due(self, sent: set[str]) -> list[Order]:
        """The messages to send now: those that were never seen to arrive, in their order."""
        if not self.sends:
            return []
        missing = [order for order in self.room.orders if order.message_id not in self.view.users]
        if not self.room.together:
            answered = len(self.view.complete)
            missing = [order for order in missing if self.room.orders.index(order) <= answered]
        return [order for order in missing if order.message_id not in sent]


class SseClient(Client):
    """An AI SDK client: posts its one message and reads the answer, or looks on at someone else's."""

    def __init__(self, room: RoomPlan, number: int, port: int, *, sends: bool, chance: random.Random) -> None:
        super().__init__(room, number, port, sends=sends, chance=chance)
        self.view = AnswerView(self.name)
        self._posted = False
        self._over = False
        self._http = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)

    @property
    def done(self) -> bool:
        return self.view.done or self._over

    @property
    def frames(self) -> int:
        return self.view.frames

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            await self._http.aclose()

    async def connection(self) -> None:
        if self.sends and not self._posted:
            await self._read("POST", "/api/chat", self._body())
        else:
            await self._read("GET", f"/api/chat/{quote(self.room.name)}/stream", None)

    def _body(self) -> dict[str, Any]:
        order = self.room.orders[0]
        message = {"id": order.message_id, "role": "user", "parts": [{"type": "text", "text": order.content}]}
        return {"id": self.room.name, "messages": [message], "trigger": "submit-message"}

    async def _read(self, method: str, path: str, body: dict[str, Any] | None) -> None:
        async with self._http.stream(method, path, json=body) as response:
            if response.status_code == 204:
                # Nothing runs any more: what this one saw is held against the room's end.
                self._over = bool(self.view.events) or (self.leader is not None and self.leader.done)
                return
            if response.status_code != 200:
                return
            self._posted = True
            reader = self.view.read()
            async for event in _events(response):
                if not reader.begun and self.view.events and event != self.view.events[0]:
                    self._over = True  # the room is at its next answer
                    return
                reader.take(event)
            if not self.view.done:
                raise Violation(f"{self.name}: a clean end of the body after {self.view.events[-1:]}")


async def _events(response: httpx2.Response) -> AsyncIterator[str]:
    """The data of each event. By hand, so that the test trusts no parser with odd line ends."""
    buffer = b""
    async for piece in response.aiter_raw():
        *blocks, buffer = (buffer + piece).split(b"\n\n")
        for block in blocks:
            if block.startswith(b"data: "):
                yield block.removeprefix(b"data: ").decode()


def make_client(room: RoomPlan, number: int, port: int, chance: random.Random) -> Client:
    """The client number ``number`` of a room."""
    kind = SseClient if room.clients[number] == "sse" else SocketClient
    return kind(room, number, port, sends=number == 0, chance=chance)
