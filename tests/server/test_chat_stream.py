"""Coming back to an answer, stopping it, and reading the messages: ``/api/chat/{id}/…``."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.chat.rooms import Echo, lead, led_room
from tests.running import until
from tests.server.apps import NOON_MS, counted, served, set_clock
from tests.server.clients import events, user_turn

from perdure import ChatRoom

pytestmark = pytest.mark.anyio

BEGUN = (
    b'data: {"type":"start","messageId":"id1"}\n\n'
    b'data: {"type":"start-step"}\n\n'
    b'data: {"type":"text-start","id":"text-1-1"}\n\n'
    b'data: {"type":"text-delta","id":"text-1-1","delta":"Well"}\n\n'
)
ENDED = (
    b'data: {"type":"text-end","id":"text-1-1"}\n\n'
    b'data: {"type":"finish-step"}\n\n'
    b'data: {"type":"finish","finishReason":"stop"}\n\n'
    b"data: [DONE]\n\n"
)
ABORTED = b'data: {"type":"text-end","id":"text-1-1"}\n\ndata: {"type":"abort"}\n\ndata: [DONE]\n\n'


async def test_a_running_answer_is_replayed_and_followed(tmp_path: Path) -> None:
    """From its start chunk, with the same id; then live, to its end; every reader has the same bytes."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        posted = asyncio.create_task(client.post("/api/chat", json=user_turn("Hi")))
        lead(led, "Hi", "Well")
        await until(lambda: led.contexts)
        async with client.stream("GET", "/api/chat/r/stream") as response:
            assert response.status_code == 200
            names = ("content-type", "cache-control", "x-vercel-ai-ui-message-stream", "x-accel-buffering")
            assert [response.headers[name] for name in names] == ["text/event-stream", "no-cache", "v1", "no"]
            received = b""
            async with aclosing(response.aiter_bytes()) as pieces:
                async for piece in pieces:
                    received += piece
                    if received == BEGUN:
                        lead(led, "Hi", None)
        assert received == BEGUN + ENDED
        assert (await posted).content == BEGUN + ENDED


async def test_an_answer_that_has_ended_is_replayed_for_a_while(tmp_path: Path) -> None:
    """To a client that was cut near the end; five seconds later there is nothing to resume."""
    led = led_room()
    app = counted(tmp_path, led)
    async with served(app) as client:
        lead(led, "Hi", "Well", None)
        await client.post("/api/chat", json=user_turn("Hi"))
        assert (await client.get("/api/chat/r/stream")).content == BEGUN + ENDED
        set_clock(app, NOON_MS + 5_001)
        response = await client.get("/api/chat/r/stream")
        assert (response.status_code, response.content) == (204, b"")


async def test_a_room_that_does_not_answer_has_nothing_to_resume(tmp_path: Path) -> None:
    """People only: their message is stored; there is no stream."""

    class People(ChatRoom):
        pass

    app = counted(tmp_path, People)
    async with served(app) as client:
        await app.get(People, "r").submit("Hi")
        response = await client.get("/api/chat/r/stream")
        assert (response.status_code, response.content) == (204, b"")


async def test_silence_is_filled_with_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two chunks of a model that thinks; no event is lost around them."""
    monkeypatch.setattr("perdure.server.sse.KEEP_ALIVE_MS", 10)
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        lead(led, "Hi", "Well")
        async with client.stream("POST", "/api/chat", json=user_turn("Hi")) as response:
            received = b""
            async for piece in response.aiter_bytes():
                received += piece
                if received.endswith(b": keep-alive\n\n: keep-alive\n\n"):
                    lead(led, "Hi", None)
        assert received.replace(b": keep-alive\n\n", b"") == BEGUN + ENDED


async def test_a_stop_ends_the_answer_for_all_readers(tmp_path: Path) -> None:
    """With an abort chunk; what was said stays; a second stop finds nothing to do."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        lead(led, "Hi", "Well")
        seen = []
        async with client.stream("POST", "/api/chat", json=user_turn("Hi")) as response:
            async for event in events(response):
                seen.append(event.data)
                if len(seen) == 4:
                    stopped = await client.post("/api/chat/r/stop", json={"activeStreamId": "id1"})
                    assert stopped.content == b'{"success":true,"stopped":true}'
        assert "".join(f"data: {data}\n\n" for data in seen).encode() == BEGUN + ABORTED
        again = await client.post("/api/chat/r/stop")
        assert again.content == b'{"success":true,"stopped":false}'
        assert (await client.get("/api/chat/r/messages")).json()[1]["parts"][-1]["text"] == "Well"


async def test_a_stop_in_an_unknown_room_makes_none(tmp_path: Path) -> None:
    """There was nothing to stop, and there still is no room."""
    app = counted(tmp_path, Echo)
    async with served(app) as client:
        assert (await client.post("/api/chat/r/stop")).content == b'{"success":true,"stopped":false}'
        assert not app.runtime.exists(app.runtime.object_id(Echo, "r"))


async def test_messages_come_in_pages(tmp_path: Path) -> None:
    """The newest ones; before a message, the older ones; before an unknown one, none."""
    app = counted(tmp_path, Echo)
    async with served(app) as client:
        assert (await client.get("/api/chat/r/messages")).content == b"[]"
        for number in (1, 2):
            await client.post("/api/chat", json=user_turn(f"Hi {number}", message_id=f"m{number}"))
        response = await client.get("/api/chat/r/messages?limit=2")
        assert response.headers["content-type"] == "application/json"
        assert response.content == (
            b'[{"id":"m2","role":"user","parts":[{"type":"text","text":"Hi 2"}]},'
            b'{"id":"id2","role":"assistant","parts":[{"type":"step-start"},'
            b'{"type":"text","text":"You said: Hi 2","state":"done"}]}]'
        )
        for query, found in {
            "": ["m1", "id1", "m2", "id2"],
            "?limit=1": ["id2"],
            "?limit=1000": ["m1", "id1", "m2", "id2"],
            "?before=m2": ["m1", "id1"],
            "?before=m2&limit=1": ["id1"],
            "?before=m1": [],
            "?before=nobody": [],
        }.items():
            messages = (await client.get(f"/api/chat/r/messages{query}")).json()
            assert [message["id"] for message in messages] == found, query


async def test_an_answer_that_is_being_made_is_among_the_messages(tmp_path: Path) -> None:
    """As far as it goes, and marked as unfinished."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        lead(led, "Hi", "Well")
        async with client.stream("POST", "/api/chat", json=user_turn("Hi")) as response:
            async for event in events(response):
                if "text-delta" in event.data:
                    break
            assert (await client.get("/api/chat/r/messages")).json()[1] == {
                "id": "id1",
                "role": "assistant",
                "parts": [{"type": "step-start"}, {"type": "text", "text": "Well", "state": "streaming"}],
            }


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "", "x", "1.5", "²", "٣", "9" * 5_000])
async def test_a_limit_that_is_none_is_refused(tmp_path: Path, limit: str) -> None:
    """In rooms that are there, and in others."""
    app = counted(tmp_path, Echo)
    async with served(app) as client:
        await app.get(Echo, "r").submit("Hi")
        for name in ("r", "unknown"):
            response = await client.get(f"/api/chat/{name}/messages", params={"limit": limit})
            assert response.status_code == 400
            assert response.content == (
                b'{"error":{"code":"bad_request","message":"limit is a number from 1 to 1000","retryable":false}}'
            )
