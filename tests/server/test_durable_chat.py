"""`/api/durable-chat`, and `/api/chat` in both ways at once: what `@durable-streams/aisdk-transport` is answered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection
from tests.chat.rooms import Echo, lead, led_room
from tests.running import serving, until
from tests.server.apps import NOON_MS, counted, served, set_clock
from tests.server.clients import events, http, user_turn

from perdure import App, User
from perdure.chat.room import REPLAY_GRACE_MS

pytestmark = pytest.mark.anyio

POST = "/api/durable-chat"
RESUME = "/api/durable-chat/r/stream"
TURN = "/v1/stream/rooms/r/turns/id1"

ANN = {"authorization": "ann"}
BOB = {"authorization": "bob"}


def chunks(answer_id: str, text: str) -> list[dict[str, Any]]:
    """An answer that was said in one piece."""
    return [
        {"type": "start", "messageId": answer_id},
        {"type": "start-step"},
        {"type": "text-start", "id": "text-1-1"},
        {"type": "text-delta", "id": "text-1-1", "delta": text},
        {"type": "text-end", "id": "text-1-1"},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "stop"},
    ]


def shown_headers(response: httpx2.Response) -> dict[str, str]:
    """The response's headers but for those of every response."""
    return {name: response.headers[name] for name in response.headers if name not in ("date", "server")}


async def whole(client: httpx2.AsyncClient, url: str) -> list[dict[str, Any]]:
    """The stream from its start to its end, read without any header."""
    found: list[dict[str, Any]] = []
    async with (
        asyncio.timeout(10),
        client.stream("GET", f"{url}{'&' if '?' in url else '?'}live=sse&offset=-1") as body,
    ):
        assert body.status_code == 200, await body.aread()
        async for event in events(body):
            if event.event == "data":
                found += json.loads(event.data)
    return found


def by_header(connection: HTTPConnection) -> User | None:
    """Ann may enter the room, Bob may not, and nobody else has a name."""
    return {"ann": User("Ann", rooms=["r"]), "bob": User("Bob", rooms=["s"])}.get(
        connection.headers.get("authorization", "")
    )


# --- the answers


async def test_a_message_is_answered_with_an_address(tmp_path: Path) -> None:
    """At once, with the stream there already; what is read there is the answer."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        response = await client.post(POST, json=user_turn("Hi"))
        assert response.status_code == 201
        assert shown_headers(response) == {
            "location": TURN,
            "cache-control": "no-store",
            "content-length": "44",
            "content-type": "application/json",
            "access-control-expose-headers": "Location",
        }
        assert response.json() == {"streamUrl": TURN}
        first = await client.get(TURN, params={"offset": "-1"})
        assert (first.status_code, first.headers["content-type"]) == (200, "application/json")
        assert "stream-closed" not in first.headers
        lead(led, "Hi", "Hello", None)
        assert await whole(client, response.headers["location"]) == chunks("id1", "Hello")


async def test_awaited_the_answer_has_ended(tmp_path: Path) -> None:
    """``?mode=await``: 200, and where the stream ends."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        waiting = asyncio.create_task(client.post(POST, params={"mode": "await"}, json=user_turn("Hi")))
        await until(lambda: led.contexts)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        lead(led, "Hi", "Hello", None)
        response = await waiting
        assert (response.status_code, response.headers["location"]) == (200, TURN)
        assert response.json() == {"streamUrl": TURN, "finalOffset": "0000000000000007"}
        head = await client.head(TURN)
        assert (head.headers["stream-next-offset"], head.headers["stream-closed"]) == ("0000000000000007", "true")


async def test_another_mode_is_refused(tmp_path: Path) -> None:
    """Before anything is done."""
    async with served(counted(tmp_path, Echo)) as client:
        response = await client.post(POST, params={"mode": "later"}, json=user_turn("Hi"))
        assert (response.status_code, response.json()["error"]["message"]) == (400, "mode is immediate or await")
        assert (await client.get("/api/chat/r/messages")).json() == []


async def test_the_same_message_again_has_the_same_address(tmp_path: Path) -> None:
    """A repeated request joins the turn, running or ended."""
    async with served(counted(tmp_path, Echo)) as client:
        for _ in range(3):
            response = await client.post(POST, json=user_turn("Hi"))
            assert await whole(client, response.headers["location"]) == chunks("id1", "You said: Hi")


async def test_a_running_answer_can_be_taken_up(tmp_path: Path) -> None:
    """200 and its address while it runs and shortly after; 204 when there is none, and no room is made by asking."""
    led = led_room()
    app = counted(tmp_path, led)
    async with served(app) as client:
        assert (await client.get(RESUME)).status_code == 204
        assert not app.runtime.exists(app.runtime.object_id(led, "r"))
        await client.post(POST, json=user_turn("Hi"))
        response = await client.get(RESUME)
        assert (response.status_code, response.headers["location"]) == (200, TURN)
        assert response.json() == {"streamUrl": TURN}
        assert response.headers["access-control-expose-headers"] == "Location"
        lead(led, "Hi", "Hello", None)
        await whole(client, TURN)
        for after_ms, status in ((REPLAY_GRACE_MS, 200), (REPLAY_GRACE_MS + 1, 204)):
            set_clock(app, NOON_MS + after_ms)
            assert (await client.get(RESUME)).status_code == status


async def test_names_are_encoded(tmp_path: Path) -> None:
    """A room's name may hold anything; the address is one that leads there."""
    async with served(counted(tmp_path, Echo)) as client:
        response = await client.post(POST, json=user_turn("Hi", chat_id="team/ä b"))
        assert response.headers["location"] == "/v1/stream/rooms/team%2F%C3%A4%20b/turns/id1"
        assert await whole(client, response.headers["location"]) == chunks("id1", "You said: Hi")


@pytest.mark.parametrize("prefix", ["", "/assistant", "/a/b"])
async def test_mounted_in_another_application(tmp_path: Path, prefix: str) -> None:
    """At its root or below a prefix: the address is the one that the client has to use."""
    app = counted(tmp_path, Echo)
    outer = FastAPI(lifespan=app.lifespan)
    outer.mount(prefix or "/", app)
    async with serving(outer) as address, http(address) as client:
        response = await client.post(prefix + POST, json=user_turn("Hi"))
        assert response.headers["location"] == prefix + TURN
        assert await whole(client, response.headers["location"]) == chunks("id1", "You said: Hi")
        response = await client.get(prefix + RESUME)
        assert response.json() == {"streamUrl": prefix + TURN}


async def test_behind_a_proxy_that_takes_a_prefix_away(tmp_path: Path) -> None:
    """The server is told of it (``--root-path``); addresses have it."""
    async with serving(counted(tmp_path, Echo), root_path="/chat") as address, http(address) as client:
        response = await client.post(POST, json=user_turn("Hi"))
        assert response.headers["location"] == f"/chat{TURN}"
        assert await whole(client, TURN) == chunks("id1", "You said: Hi")


# --- where users sign in


async def test_the_address_is_enough_to_read(tmp_path: Path) -> None:
    """The transport sends its headers to the chat, but not to the stream: the token in the address lets it in."""
    async with served(counted(tmp_path, Echo, authenticate=by_header)) as client:
        response = await client.post(POST, json=user_turn("Hi"), headers=ANN)
        url = response.headers["location"]
        assert url.startswith(f"{TURN}?token=")
        assert await whole(client, url) == chunks("id1", "You said: Hi")
        assert (await client.head(url)).status_code == 200
        resumed = (await client.get(RESUME, headers=ANN)).headers["location"]
        assert await whole(client, resumed) == chunks("id1", "You said: Hi")


async def test_without_the_token_nobody_reads(tmp_path: Path) -> None:
    """But those who may enter the room; and the chat itself asks everyone."""
    async with served(counted(tmp_path, Echo, authenticate=by_header)) as client:
        assert (await client.post(POST, json=user_turn("Hi"))).status_code == 401
        assert (await client.post(POST, json=user_turn("Hi"), headers=BOB)).status_code == 403
        await client.post(POST, json=user_turn("Hi"), headers=ANN)
        for path in (TURN, RESUME):
            statuses = [(await client.get(path, headers=headers)).status_code for headers in ({}, BOB, ANN)]
            assert statuses == [401, 403, 200]


async def test_a_token_is_for_one_stream_to_read(tmp_path: Path) -> None:
    """Not for another turn, the session, another room, or to write; nor changed, nor for more than its time."""
    async with served(counted(tmp_path, Echo, authenticate=by_header)) as client:
        url = (await client.post(POST, json=user_turn("Hi"), headers=ANN)).headers["location"]
        token = url.partition("?")[2]
        await client.post(POST, json=user_turn("Bye", message_id="m2"), headers=ANN)
        for path in ("rooms/r/turns/id2", "rooms/r/session", "rooms/s/turns/id1", "other"):
            assert (await client.get(f"/v1/stream/{path}?{token}")).status_code == 403
        for method in ("PUT", "POST", "DELETE"):
            assert (await client.request(method, url)).status_code == 403
        expiry, _, rest = token.removeprefix("token=").partition(".")
        assert (await client.get(f"{TURN}?token={int(expiry) + 1}.{rest}")).status_code == 403


@pytest.mark.parametrize(("valid_s", "status"), [(60, 200), (-1, 403)])
async def test_a_token_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valid_s: int, status: int) -> None:
    """After `TURN_URL_VALID_S`; a new address is got from the resume route."""
    monkeypatch.setattr("perdure.server.streams.turn_urls.TURN_URL_VALID_S", valid_s)
    async with served(counted(tmp_path, Echo, authenticate=by_header)) as client:
        url = (await client.post(POST, json=user_turn("Hi"), headers=ANN)).headers["location"]
        assert (await client.get(url)).status_code == status
        monkeypatch.setattr("perdure.server.streams.turn_urls.TURN_URL_VALID_S", 60)
        url = (await client.get(RESUME, headers=ANN)).headers["location"]
        assert (await client.get(url)).status_code == 200


# --- both ways at once


async def test_post_is_answered_in_both_ways(tmp_path: Path) -> None:
    """The events in the body are whole for whoever reads them; the address leads to the same."""
    async with served(counted(tmp_path, Echo, double_answer=True)) as client:
        response = await client.post("/api/chat", json=user_turn("Hi"))
        assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
        assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
        assert response.headers["access-control-expose-headers"] == "Location"
        assert response.text.count("data: ") == 8
        assert response.text.endswith('data: {"type":"finish","finishReason":"stop"}\n\ndata: [DONE]\n\n')
        url = response.headers["location"]
        assert url.startswith(f"{TURN}?post=")
        assert await whole(client, url) == chunks("id1", "You said: Hi")


async def test_a_running_answer_is_taken_up_in_both_ways(tmp_path: Path) -> None:
    """By the events in the body, and by the address, whose reader lets go of the body."""
    led = led_room()
    async with served(counted(tmp_path, led, double_answer=True)) as client:
        assert (await client.get("/api/chat/r/stream")).status_code == 204
        lead(led, "Hi", "Hello")
        async with client.stream("POST", "/api/chat", json=user_turn("Hi")) as response:
            posted = response.headers["location"]
        async with client.stream("GET", "/api/chat/r/stream") as response:
            url = response.headers["location"]
            assert url.startswith(f"{TURN}?post=")
            assert url != posted
            await client.get(url)
            assert b"[DONE]" not in await response.aread()
        lead(led, "Hi", None)
        assert (await client.get("/api/chat/r/stream")).text.endswith("data: [DONE]\n\n")
        assert await whole(client, url) == chunks("id1", "Hello")


async def test_the_body_is_let_go_of_when_the_address_is_read(tmp_path: Path) -> None:
    """Nobody reads that body any more: it ends amid the answer, while the stream goes on."""
    led = led_room()
    app = counted(tmp_path, led, double_answer=True)
    async with served(app) as client:
        lead(led, "Hi", "Well, ")
        async with client.stream("POST", "/api/chat", json=user_turn("Hi")) as response:
            url = response.headers["location"]
            reading = asyncio.create_task(whole(client, url))
            async with asyncio.timeout(5):
                body = await response.aread()
            assert b"[DONE]" not in body
            assert not reading.done()
            assert waiting_marks(app) == 0
            lead(led, "Hi", "hello", None)
            assert [chunk.get("delta") for chunk in await reading][3:5] == ["Well, ", "hello"]


async def test_the_body_goes_on_while_nobody_reads_the_address(tmp_path: Path) -> None:
    """`useChat` takes no notice of it; the plain address of the turn, which others read, is not the body's."""
    led = led_room()
    app = counted(tmp_path, led, double_answer=True)
    async with served(app) as client:
        lead(led, "Hi", "Well, ")
        async with client.stream("POST", "/api/chat", json=user_turn("Hi")) as response:
            for url in (TURN, f"{TURN}?post=unknown"):
                assert (await client.get(url)).status_code == 200
            lead(led, "Hi", "hello", None)
            assert (await response.aread()).endswith(b"data: [DONE]\n\n")
        assert waiting_marks(app) == 0


async def test_a_client_that_leaves_is_not_waited_for(tmp_path: Path) -> None:
    """Its mark is forgotten, and means nothing to whoever comes later."""
    led = led_room()
    app = counted(tmp_path, led, double_answer=True)
    async with served(app) as client:
        lead(led, "Hi", "Well")
        async with client.stream("POST", "/api/chat", json=user_turn("Hi")) as response:
            url = response.headers["location"]
            assert waiting_marks(app) == 1
        await until(lambda: waiting_marks(app) == 0)
        lead(led, "Hi", None)
        assert await whole(client, url) == chunks("id1", "Well")


async def test_each_post_waits_for_its_own_address(tmp_path: Path) -> None:
    """Two tabs repeat the same message: when one of them goes to the stream, the other's body goes on."""
    led = led_room()
    async with served(counted(tmp_path, led, double_answer=True)) as client:
        lead(led, "Hi", "Well, ")
        async with (
            client.stream("POST", "/api/chat", json=user_turn("Hi")) as first,
            client.stream("POST", "/api/chat", json=user_turn("Hi")) as second,
        ):
            assert first.headers["location"] != second.headers["location"]
            await client.get(first.headers["location"])
            assert b"[DONE]" not in await first.aread()
            lead(led, "Hi", "hello", None)
            assert (await second.aread()).endswith(b"data: [DONE]\n\n")


async def test_both_ways_where_users_sign_in(tmp_path: Path) -> None:
    """The address has the token and the mark."""
    led = led_room()
    async with served(counted(tmp_path, led, double_answer=True, authenticate=by_header)) as client:
        lead(led, "Hi", "Hello")
        async with client.stream("POST", "/api/chat", json=user_turn("Hi"), headers=ANN) as response:
            url = response.headers["location"]
            reading = asyncio.create_task(whole(client, url))
            assert b"[DONE]" not in await response.aread()
        lead(led, "Hi", None)
        assert await reading == chunks("id1", "Hello")


async def test_one_way_unless_asked_for(tmp_path: Path) -> None:
    """Without ``double_answer`` there is no address."""
    async with served(counted(tmp_path, Echo)) as client:
        response = await client.post("/api/chat", json=user_turn("Hi"))
        assert "location" not in response.headers


def waiting_marks(app: App) -> int:
    """How many bodies wait for their address to be read."""
    assert app.stream_surface is not None
    return len(app.stream_surface.turn_urls._awaited)
