"""Streams made for readers of one stream: all legs of an answer, or what comes after the steps that they hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.running import eventually
from tests.server.apps import counted, served
from tests.server.clients import events, user_turn

from perdure import ChatRoom, TurnContext, tool
from perdure.wire.fold import MessageFold
from perdure.wire.ui_chunks import Chunk, ToolInputAvailable, decode_chunk

pytestmark = pytest.mark.anyio

RESUME = "/api/durable-chat/r/stream"


def gated_room() -> type[ChatRoom]:
    """A room that asks for a refund, and says what came of it when the test lets it go on."""

    class Gated(ChatRoom):
        gate = asyncio.Event()

        async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
            if turn.answer is None:
                yield "May I? "
                yield ToolInputAvailable("c1", "refund", {})
                return
            if not turn.partial:
                yield "Now "
            await type(self).gate.wait()
            yield "done."

        @tool(approval=True)
        def refund(self) -> str:
            """Give the money back."""
            return "refunded"

    return Gated


async def history(client: httpx2.AsyncClient) -> Any:
    """The room's messages."""
    return (await client.get("/api/chat/r/messages")).json()


def approved(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The request of a client that agrees."""
    part = messages[-1]["parts"][-1]
    part |= {"state": "approval-responded", "approval": {**part["approval"], "approved": True}}
    return {"id": "r", "messages": messages, "messageId": messages[-1]["id"], "trigger": "submit-message"}


async def says(client: httpx2.AsyncClient, text: str) -> bool:
    """Whether the answer's newest part says this."""
    return bool((await history(client))[-1]["parts"][-1].get("text") == text)


async def whole(client: httpx2.AsyncClient, url: str) -> list[dict[str, Any]]:
    """The stream from its start to its end."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(10), client.stream("GET", f"{url}?live=sse&offset=-1") as body:
        assert body.status_code == 200, await body.aread()
        async for event in events(body):
            if event.event == "data":
                found += json.loads(event.data)
            elif json.loads(event.data).get("streamClosed"):
                return found
    return found


def fold(chunks: list[dict[str, Any]]) -> Any:
    """The message that a client makes of them."""
    made = MessageFold(chunks[0]["messageId"])
    for chunk in chunks:
        made.push(decode_chunk(json.dumps(chunk)))
    assert made.status == "finished"
    return [part for part in made.message().parts if part["type"] != "step-start"]


WHOLE = [
    {"type": "text", "text": "May I? ", "state": "done"},
    {
        "type": "tool-refund",
        "toolCallId": "c1",
        "state": "output-available",
        "input": {},
        "output": "refunded",
        "approval": {"id": "id2"},
    },
    {"type": "text", "text": "Now done.", "state": "done"},
]


async def begin_second_leg(client: httpx2.AsyncClient) -> str:
    """An answer whose person has agreed; where its second leg is read."""
    await client.post("/api/durable-chat?mode=await", json=user_turn("Please"))
    response = await client.post("/api/durable-chat", json=approved(await history(client)))
    assert response.status_code == 201
    await eventually(lambda: says(client, "Now "))
    location: str = response.headers["location"]
    return location


async def test_a_later_leg_has_a_stream_of_its_own(tmp_path: Path) -> None:
    """Whoever brought the result reads that one: it appends to the message that it holds."""
    gated = gated_room()
    async with served(counted(tmp_path, gated)) as client:
        leg = await begin_second_leg(client)
        assert leg == "/v1/stream/rooms/r/turns/id1.2"
        gated.gate.set()  # type: ignore[attr-defined]
        types = [chunk["type"] for chunk in await whole(client, leg)]
        assert types[:3] == ["start", "tool-output-available", "start-step"]
        assert types[-1] == "finish"


async def test_who_comes_back_reads_all_legs(tmp_path: Path) -> None:
    """In one stream, that goes on with the answer and ends with it; the next reader gets the same one."""
    gated = gated_room()
    async with served(counted(tmp_path, gated)) as client:
        await begin_second_leg(client)
        told = (await client.get(RESUME)).headers["location"]
        assert (await client.get(RESUME)).headers["location"] == told
        reading = asyncio.create_task(whole(client, told))
        gated.gate.set()  # type: ignore[attr-defined]
        assert fold(await reading) == WHOLE
        ended = (await client.get(RESUME)).headers["location"]
        assert fold(await whole(client, ended)) == WHOLE


async def test_such_a_stream_outlives_a_restart(tmp_path: Path) -> None:
    """It goes on with its leg when it is read again."""
    gated = gated_room()
    async with served(counted(tmp_path, gated)) as client:
        await begin_second_leg(client)
        told = (await client.get(RESUME)).headers["location"]
    async with served(counted(tmp_path, gated)) as client:
        reading = asyncio.create_task(whole(client, told))
        await asyncio.sleep(0.05)
        gated.gate.set()  # type: ignore[attr-defined]
        assert fold(await reading) == WHOLE


async def test_who_comes_too_late_is_told_what_is_missing(tmp_path: Path) -> None:
    """The result, and what was said after it; nothing that the client holds."""
    gated = gated_room()
    async with served(counted(tmp_path, gated)) as client:
        await client.post("/api/durable-chat?mode=await", json=user_turn("Please"))
        request = approved(await history(client))
        gated.gate.set()  # type: ignore[attr-defined]
        for _ in range(2):
            await client.post("/api/durable-chat?mode=await", json=request)
        late = await client.post("/api/durable-chat", json=request)
        types = [chunk["type"] for chunk in await whole(client, late.headers["location"])]
        assert types == [
            *("start", "tool-output-available", "start-step", "text-start", "text-delta", "text-end"),
            *("finish-step", "finish"),
        ]
