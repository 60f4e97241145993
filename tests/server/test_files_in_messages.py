"""Messages with files, posted by the clients of several protocols: small for all who read them."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.chat.rooms import Echo
from tests.running import eventually
from tests.server.apps import counted, served
from tests.server.clients import room, user_turn

from perdure import ChatRoom, Limits
from perdure.server.aisdk import CHAT_BODY_BYTES_MAX

pytestmark = pytest.mark.anyio

PICTURE = b"\x89PNG\r\n\x1a\n" + os.urandom(700_000)

DATA_URL = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"


def with_file(url: str = DATA_URL, media_type: str = "image/png") -> dict[str, Any]:
    """What ``useChat`` posts for a message with a file."""
    turn = user_turn("Look")
    turn["messages"][0]["parts"].append({"type": "file", "mediaType": media_type, "url": url, "filename": "a.png"})
    return turn


async def files(client: httpx2.AsyncClient) -> list[dict[str, Any]]:
    """The file parts of the room's messages."""
    messages = (await client.get("/api/chat/r/messages")).json()
    return [part for message in messages for part in message["parts"] if part["type"] == "file"]


async def test_use_chat(tmp_path: Path) -> None:
    """The history holds an address, which leads to the picture; a second POST says nothing again."""
    async with served(counted(tmp_path, Echo)) as client:
        for _ in range(2):
            assert (await client.post("/api/chat", json=with_file())).status_code == 200
        [part] = await files(client)
        assert {**part, "url": ""} == {"type": "file", "mediaType": "image/png", "url": "", "filename": "a.png"}
        assert (await client.get(part["url"])).content == PICTURE


async def test_tanstack(tmp_path: Path) -> None:
    """A picture as base64 in a TanStack message becomes a file, too."""
    source = {"type": "data", "value": base64.b64encode(PICTURE).decode(), "mimeType": "image/png"}
    message = {
        "id": "m1",
        "role": "user",
        "content": [{"type": "text", "content": "Look"}, {"type": "image", "source": source}],
    }
    body = {"threadId": "r", "runId": "run-1", "messages": [message], "tools": [], "context": [], "state": {}}
    async with served(counted(tmp_path, Echo)) as client:
        response = await client.post("/api/chat/r/session", json=body)
        assert response.status_code == 202, response.text
        [part] = await files(client)
        assert (await client.get(part["url"])).content == PICTURE


async def test_plain_rooms(tmp_path: Path) -> None:
    """A file in a room frame, uploaded before; one that is not there is refused with the message's id."""
    app = counted(tmp_path, Echo)
    async with served(app) as client:
        sent = await client.post(
            "/api/chat/r/files", content=PICTURE, headers={"content-type": "image/png"}, params={"filename": "a.png"}
        )
        file = {name: sent.json()[name] for name in ("url", "mediaType", "filename")}
        address = str(client.base_url).removeprefix("http://")
        async with room(address, "/ws/r") as socket:
            await socket.say("Look", id="m1", files=[file])
            await socket.next("complete")
            missing = {**file, "url": file["url"][:-4] + "0000"}
            await socket.say("Look", id="m2", files=[missing])
            error = await socket.next("error")
            assert (error["code"], error["id"]) == ("file_not_found", "m2")
            await socket.say(
                "Look", id="m3", files=[{"url": "data:application/zip,PK", "mediaType": "application/zip"}]
            )
            error = await socket.next("error")
            assert (error["code"], error["id"]) == ("unsupported_file", "m3")
        assert await files(client) == [{"type": "file", **file}]


@pytest.mark.parametrize(
    ("part", "status", "code"),
    [
        ({"mediaType": "application/zip", "url": "data:application/zip;base64,UEsDBA=="}, 415, "unsupported_file"),
        ({"mediaType": "image/jpeg", "url": DATA_URL}, 415, "unsupported_file"),
        ({"mediaType": "image/png", "url": "/api/chat/r/files/" + "0" * 32}, 404, "file_not_found"),
        ({"mediaType": "image/png", "url": "blob:x"}, 400, "bad_request"),
        ({"mediaType": "text/plain", "url": "data:text/plain," + "x" * 1_000_001}, 413, "limit_exceeded"),
    ],
)
async def test_messages_that_are_refused(tmp_path: Path, part: dict[str, str], status: int, code: str) -> None:
    """Before anything is kept: the message is not there, nor is its file."""
    app = counted(tmp_path, Echo, limits=Limits(file_bytes_max=1_000_000, drain_ms_max=50))
    async with served(app) as client:
        response = await client.post("/api/chat", json=with_file(part["url"], part["mediaType"]))
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert (await client.get("/api/chat/r/messages")).json() == []

        async def nothing() -> bool:
            async def count(instance: Any) -> bool:
                return bool(instance.object.files.store.totals() == (0, 0))

            return await app.runtime.run_in(app.runtime.object_id(Echo, "r"), count)

        await eventually(nothing)


async def test_the_largest_body_is_larger_than_the_largest_picture_in_it(tmp_path: Path) -> None:
    """Some 24 MB of a file fit into the body of a message; larger ones are uploaded."""
    assert CHAT_BODY_BYTES_MAX * 3 // 4 > 25_000_000
    data = b"\x89PNG\r\n\x1a\n" + os.urandom(24_000_000)
    async with served(counted(tmp_path, Echo)) as client:
        url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        assert (await client.post("/api/chat", json=with_file(url), timeout=60)).status_code == 200
        [part] = await files(client)
        assert (await client.get(part["url"], timeout=60)).content == data


async def test_a_message_for_people_only(tmp_path: Path) -> None:
    """Where only some messages are answered, one that asks nobody is taken, and its answer has no word."""

    class Named(ChatRoom):
        models = {"echo": "scripted:echo"}  # noqa: RUF012

    async with served(counted(tmp_path, Named)) as client:
        response = await client.post("/api/chat", json=user_turn("Hello, Ann"))
        assert (response.status_code, response.text) == (200, "data: [DONE]\n\n")
        durable = await client.post("/api/durable-chat", json=user_turn("Hello, Ben", message_id="m2"))
        assert durable.status_code == 201
        told = await client.get(durable.headers["location"], params={"offset": "-1"})
        assert (told.json(), told.headers["stream-closed"]) == ([], "true")
        named = await client.post("/api/chat", json=user_turn("Hello, @echo", message_id="m3"))
        assert '"delta":"You said: Hello, @echo"' in named.text
        stored = (await client.get("/api/chat/r/messages")).json()
        assert [item["id"] for item in stored] == ["m1", "m2", "m3", stored[3]["id"]]
