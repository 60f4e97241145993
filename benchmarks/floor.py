"""The floor: the same frames from a bare ASGI app that stores nothing.

    python -m benchmarks.floor --port 8000

It has no durability, no limits, no resume and no recovery: what it costs is what uvicorn, the event loop
and the JSON of the frames cost. A ratio beside it says what perdure's promises cost.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import msgspec

from .script import is_command, speak
from .serve import serve

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


@dataclass(slots=True)
class Room:
    """One room: its messages, and the sockets in it."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    sends: list[Any] = field(default_factory=list)
    offset: int = 0

    async def broadcast(self, frame: dict[str, Any]) -> None:
        self.offset += 1
        frame["offset"] = f"{self.offset:016d}"
        event = {"type": "websocket.send", "text": encode(frame).decode()}
        for send in tuple(self.sends):
            await send(event)


class Floor:
    """The ASGI app."""

    def __init__(self) -> None:
        self.rooms: dict[str, Room] = {}
        self.answers: set[asyncio.Task[None]] = set()
        self.ids = itertools.count(1)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self.converse(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})
        else:  # lifespan
            while (event := await receive())["type"] != "lifespan.shutdown":
                await send({"type": event["type"] + ".complete"})
            await send({"type": "lifespan.shutdown.complete"})

    async def converse(self, scope: Any, receive: Any, send: Any) -> None:
        room = self.rooms.setdefault(scope["path"], Room())
        limit = int(parse_qs(scope["query_string"].decode()).get("limit", ["100"])[0])
        await receive()
        await send({"type": "websocket.accept"})
        init = {"type": "init", "messages": room.messages[-limit:], "offset": f"{room.offset:016d}"}
        await send({"type": "websocket.send", "text": encode(init).decode()})
        room.sends.append(send)
        try:
            while (event := await receive())["type"] == "websocket.receive":
                await self.say(room, decode(event["text"])["content"])
        finally:
            room.sends.remove(send)

    async def say(self, room: Room, text: str) -> None:
        message = self.message("user", text)
        room.messages.append(message)
        await room.broadcast({"type": "message", "message": message})
        if is_command(text):
            task = asyncio.create_task(self.answer(room, text))
            self.answers.add(task)
            task.add_done_callback(self.answers.discard)

    async def answer(self, room: Room, command: str) -> None:
        message = self.message("assistant", "") | {"status": "streaming"}
        message_id = message["id"]
        await room.broadcast({"type": "message", "message": message})
        pieces = []
        async for piece in speak(command):
            pieces.append(piece)
            await room.broadcast({"type": "delta", "messageId": message_id, "delta": piece})
        message |= {"content": "".join(pieces), "status": "complete"}
        room.messages.append(message)
        await room.broadcast(
            {"type": "complete", "messageId": message_id, "content": message["content"], "status": "complete"}
        )

    def message(self, role: str, text: str) -> dict[str, Any]:
        timestamp_ms = int(time.time() * 1000)
        return {"id": f"m{next(self.ids):08d}", "role": role, "content": text, "timestamp": timestamp_ms}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    serve(Floor(), parser.parse_args().port)
