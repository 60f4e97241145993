"""`/api/chat/{id}/session`: what `@durable-streams/tanstack-ai-transport` sends and reads."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import HTTPConnection
from tests.chat.rooms import Echo, lead, led_room
from tests.running import eventually, serving, until
from tests.server.apps import counted, served
from tests.server.clients import events, http, room, user_turn

from perdure import ChatRoom, User

pytestmark = pytest.mark.anyio

SESSION = "/api/chat/r/session"

PIXEL = "R0lGODlhAQABAAAAACw="


def said(message_id: str, role: str, *texts: str) -> list[dict[str, Any]]:
    """The events of a message that was said in these pieces."""
    return [
        {"type": "TEXT_MESSAGE_START", "messageId": message_id, "role": role},
        *({"type": "TEXT_MESSAGE_CONTENT", "messageId": message_id, "delta": text} for text in texts),
        {"type": "TEXT_MESSAGE_END", "messageId": message_id},
    ]


def answered(answer_id: str, text: str, room_name: str = "r") -> list[dict[str, Any]]:
    """The events of an answer that was said in one piece."""
    run = {"threadId": room_name, "runId": answer_id}
    start, content, end = said(answer_id, "assistant", text)
    return [
        {"type": "RUN_STARTED", **run},
        start,
        {"type": "STEP_STARTED", "stepName": "step-1"},
        content,
        {"type": "STEP_FINISHED", "stepName": "step-1"},
        end,
        {"type": "RUN_FINISHED", **run, "metadata": {"tanstack": {"finishReason": "stop"}}},
    ]


def posted(*texts: str) -> dict[str, Any]:
    """What a client posts whose user has said these; the messages are m1, m2 and so on."""
    parts = [[{"type": "text", "content": text}] for text in texts]
    return {"messages": [{"id": f"m{number}", "role": "user", "parts": part} for number, part in enumerate(parts, 1)]}


async def told(client: httpx2.AsyncClient, path: str = SESSION) -> list[dict[str, Any]]:
    """All that the session has said; without the places of users' messages (see `places`)."""
    response = await client.get(path, params={"offset": "-1"})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()
    for item in (*found, *(message for event in found for message in event.get("messages", []))):
        if "perdure" in item.get("metadata", {}):
            del item["metadata"]["perdure"]
            if not item["metadata"]:
                del item["metadata"]
    return found


async def places(client: httpx2.AsyncClient) -> list[tuple[str, dict[str, Any]]]:
    """The users' messages as they were told, each with the place that its client is to post again."""
    found = (await client.get(SESSION, params={"offset": "-1"})).json()
    messages = [message for event in found for message in event.get("messages", [event]) if "metadata" in message]
    return [
        (message.get("messageId") or message["id"], message["metadata"]["perdure"])
        for message in messages
        if "perdure" in message["metadata"]
    ]


async def test_a_message_is_taken_and_answered(tmp_path: Path) -> None:
    """202 with nothing in it; the message and its answer are in the session."""
    async with served(counted(tmp_path, Echo)) as client:
        response = await client.post(SESSION, json=posted("Hi"))
        assert (response.status_code, response.content) == (202, b"")
        expected = [*said("m1", "user", "Hi"), *answered("id1", "You said: Hi")]
        await eventually(lambda: _tells(client, expected))


async def test_awaited_the_answer_is_there(tmp_path: Path) -> None:
    """``?mode=await``: 200 when it has ended."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        waiting = asyncio.create_task(client.post(SESSION, params={"mode": "await"}, json=posted("Hi")))
        lead(led, "Hi", "Hello")
        await eventually(lambda: _has(client, "TEXT_MESSAGE_CONTENT", 2))
        assert not waiting.done()
        lead(led, "Hi", None)
        response = await waiting
        assert (response.status_code, response.content) == (200, b"")
        assert (await told(client))[-1]["type"] == "RUN_FINISHED"


async def test_a_session_is_there_for_whoever_asks(tmp_path: Path) -> None:
    """Clients read before anyone has said anything: an empty JSON stream, open, at its tail."""
    async with served(counted(tmp_path, Echo)) as client:
        response = await client.get(SESSION, params={"offset": "-1"})
        assert (response.status_code, response.text) == (200, "[]")
        assert response.headers["content-type"] == "application/json"
        assert response.headers["stream-next-offset"] == "0000000000000000"
        assert response.headers["stream-up-to-date"] == "true"
        assert "stream-closed" not in response.headers
        head = await client.head(SESSION)
        assert (head.status_code, head.headers["stream-next-offset"]) == (200, "0000000000000000")


@pytest.mark.parametrize("path", [SESSION, "/v1/stream/rooms/r/session"])
async def test_a_session_begins_with_what_was_said(tmp_path: Path, path: str) -> None:
    """Whatever clients said it, and in whichever way; for the first reader, too."""
    async with served(counted(tmp_path, Echo)) as client:
        await client.post("/api/chat", json=user_turn("Hi"))
        # A message that is told after the fact has no run.
        expected = [*said("m1", "user", "Hi"), *said("id1", "assistant", "You said: Hi")]
        assert await told(client, path) == expected


async def test_a_session_is_a_stream_of_the_room(tmp_path: Path) -> None:
    """It is at ``/v1/stream/rooms/{id}/session``, too, where it can be read, and nothing else."""
    path = "/v1/stream/rooms/r/session"
    async with served(counted(tmp_path, Echo)) as client:
        await client.post(SESSION, params={"mode": "await"}, json=posted("Hi"))
        assert await told(client, path) == await told(client)
        for method in ("PUT", "POST", "DELETE"):
            response = await client.request(method, path, json=[1])
            assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")


async def test_others_messages_come_live(tmp_path: Path) -> None:
    """From `useChat` and from a plain socket, while the session is read."""
    app = counted(tmp_path, Echo)
    async with serving(app) as address, http(address) as client, room(address) as socket:
        seen: list[dict[str, Any]] = []
        begun = asyncio.Event()

        async def read() -> None:
            params = {"offset": "now", "live": "sse"}
            async with client.stream("GET", SESSION, params=params) as response:
                async for event in events(response):
                    begun.set()
                    if event.event == "data":
                        seen.extend(json.loads(event.data))

        reading = asyncio.create_task(read())
        await begun.wait()
        await client.post("/api/chat", json=user_turn("Hi"))
        await socket.next("init")
        await socket.say("Hello", id="m2", user="Bob")
        await until(lambda: [event["type"] for event in seen].count("RUN_FINISHED") == 2)
        reading.cancel()
        told_live = [event for event in seen if event["type"] == "TEXT_MESSAGE_CONTENT"]
        assert [(event["messageId"][0], event["delta"]) for event in told_live] == [
            ("m", "Hi"),
            ("i", "You said: Hi"),
            ("m", "Hello"),
            ("i", "You said: Hello"),
        ]
        (start,) = [event for event in seen if event.get("messageId") == "m2" and event["type"].endswith("START")]
        assert start == {
            "type": "TEXT_MESSAGE_START",
            "messageId": "m2",
            "role": "user",
            "metadata": {"user": "Bob", "perdure": {"at": 10}},
        }


async def test_a_picture_is_told_by_a_snapshot(tmp_path: Path) -> None:
    """Events cannot show files: the whole conversation is told, and then the answer."""
    async with served(counted(tmp_path, Echo)) as client:
        await client.post(SESSION, params={"mode": "await"}, json=posted("Hi"))
        source = {"type": "data", "value": PIXEL, "mimeType": "image/gif"}
        parts = [{"type": "text", "content": "Look"}, {"type": "image", "source": source}]
        sent = {"messages": [{"id": "m2", "role": "user", "parts": parts}]}
        before = len(await told(client))
        assert (await client.post(SESSION, params={"mode": "await"}, json=sent)).status_code == 200
        url = f"data:image/gif;base64,{PIXEL}"
        text = {"type": "text", "content": "Look"}
        image = {"type": "image", "source": {"type": "url", "value": url, "mimeType": "image/gif"}}
        messages = [
            {"id": "m1", "role": "user", "parts": [{"type": "text", "content": "Hi"}]},
            {"id": "id1", "role": "assistant", "parts": [{"type": "text", "content": "You said: Hi"}]},
            {"id": "m2", "role": "user", "parts": [text, image]},
        ]
        snapshot = {"type": "MESSAGES_SNAPSHOT", "messages": messages}
        assert (await told(client))[before:] == [snapshot, *answered("id2", "You said: Look")]


# --- the same message again


async def test_the_same_message_again_joins_its_turn(tmp_path: Path) -> None:
    """While it is answered: nothing is said twice, and awaiting waits for the one answer."""
    led = led_room()
    app = counted(tmp_path, led)
    async with served(app) as client:
        lead(led, "Hi", "Hello")
        await client.post(SESSION, json=posted("Hi"))
        again = asyncio.create_task(client.post(SESSION, params={"mode": "await"}, json=posted("Hi")))
        instance = app.runtime.slot(app.runtime.object_id(led, "r")).instance
        assert instance is not None
        await until(lambda: instance.streams.get("turns/id1").readers)
        assert (await client.post(SESSION, json=posted("Hi"))).status_code == 202
        lead(led, "Hi", None)
        assert (await again).status_code == 200
        assert await told(client) == [*said("m1", "user", "Hi"), *answered("id1", "Hello")]
        assert len(led.contexts) == 1


async def reload(client: httpx2.AsyncClient, **more: Any) -> httpx2.Response:
    """What `reload()` posts: the message with the place at which it was told last."""
    sent = posted("Hi")
    sent["messages"][0]["metadata"] = {"perdure": (await places(client))[-1][1]}
    return await client.post(SESSION, params={"mode": "await", **more}, json=sent)


async def test_reload_answers_again(tmp_path: Path) -> None:
    """The last answer is removed for everyone, by a snapshot, and made again; as often as one likes."""
    async with served(counted(tmp_path, Echo)) as client:
        await client.post(SESSION, params={"mode": "await"}, json=posted("Hi"))
        for answer_id in ("id2", "id3"):
            before = len(await told(client))
            assert (await reload(client)).status_code == 200
            left = [{"id": "m1", "role": "user", "parts": [{"type": "text", "content": "Hi"}]}]
            snapshot = {"type": "MESSAGES_SNAPSHOT", "messages": left}
            assert (await told(client))[before:] == [snapshot, *answered(answer_id, "You said: Hi")]
        assert [place for _, place in await places(client)] == [{"at": 0}, {"at": 10}, {"at": 18}]


async def test_a_reload_that_comes_twice_is_one(tmp_path: Path) -> None:
    """Its bytes are the same, and its client keeps places: so it is no other reload."""
    async with served(counted(tmp_path, Echo)) as client:
        await client.post(SESSION, params={"mode": "await"}, json=posted("Hi"))
        sent = posted("Hi")
        sent["messages"][0]["metadata"] = {"perdure": {"at": 0}}
        for _ in range(2):
            await client.post(SESSION, params={"mode": "await"}, json=sent)
        assert [event["runId"] for event in await told(client) if event["type"] == "RUN_FINISHED"] == ["id1", "id2"]


async def test_a_reload_amid_the_answer_begins_anew(tmp_path: Path) -> None:
    """It is told from a repetition by the place in it."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        lead(led, "Hi", "Hel")
        await client.post(SESSION, json=posted("Hi"))
        await eventually(lambda: _has(client, "TEXT_MESSAGE_CONTENT", 2))
        assert (await reload(client, mode="immediate")).status_code == 202
        lead(led, "Hi", "Hello", None)
        await eventually(lambda: _has(client, "RUN_FINISHED", 2))
        messages = (await client.get("/api/chat/r/messages")).json()
        assert [message["id"] for message in messages] == ["m1", "id2"]
        assert messages[1]["parts"][-1]["text"] == "Hello"


async def test_a_client_that_keeps_no_places_may_reload(tmp_path: Path) -> None:
    """Older ones: the same bytes, after the answer has ended, are a reload."""
    async with served(counted(tmp_path, Echo)) as client:
        for _ in range(2):
            await client.post(SESSION, params={"mode": "await"}, json=posted("Hi"))
        messages = (await client.get("/api/chat/r/messages")).json()
        assert [message["id"] for message in messages] == ["m1", "id2"]


async def test_a_changed_message_is_an_edit(tmp_path: Path) -> None:
    """Known by its id, with another text: what came after it is gone."""
    async with served(counted(tmp_path, Echo)) as client:
        for count in (1, 2):
            await client.post(SESSION, params={"mode": "await"}, json=posted(*["Hi", "Bye"][:count]))
        await client.post(SESSION, params={"mode": "await"}, json=posted("Hello"))
        messages = (await client.get("/api/chat/r/messages")).json()
        assert [message["parts"][-1]["text"] for message in messages] == ["Hello", "You said: Hello"]


async def test_a_late_repetition_removes_nothing(tmp_path: Path) -> None:
    """A message that was said before others: the others stay, nothing is answered."""
    async with served(counted(tmp_path, Echo)) as client:
        for count in (1, 2):
            await client.post(SESSION, params={"mode": "await"}, json=posted(*["Hi", "Bye"][:count]))
        before = await told(client)
        assert (await client.post(SESSION, json=posted("Hi"))).status_code == 202
        assert await told(client) == before


async def test_an_edit_is_told_by_a_snapshot(tmp_path: Path) -> None:
    """By `useChat`, in the same room."""
    async with served(counted(tmp_path, Echo)) as client:
        await client.post(SESSION, params={"mode": "await"}, json=posted("Hi"))
        before = len(await told(client))
        await client.post("/api/chat", json=user_turn("Bye", message_id="m1", messageId="m1"))
        assert (await told(client))[before:] == [
            {"type": "MESSAGES_SNAPSHOT", "messages": []},
            *said("m1", "user", "Bye"),
            *answered("id2", "You said: Bye"),
        ]


# --- who may, and what is refused


@pytest.mark.parametrize(
    ("sent", "mode", "status", "text", "code"),
    [
        (posted("Hi"), "later", 400, "mode is immediate or await", "bad_request"),
        ({"messages": []}, "await", 400, "the request holds no message to answer", "bad_request"),
        (posted("  "), "await", 400, "a message must not be empty", "bad_request"),
        (
            posted("x" * 1_048_577),
            "await",
            413,
            "message_bytes_max allows 1,048,576 at most, this has 1,048,577",
            "limit_exceeded",
        ),
    ],
)
async def test_a_refusal_is_shown_to_the_user(
    tmp_path: Path, sent: dict[str, Any], mode: str, status: int, text: str, code: str
) -> None:
    """The transport shows what is in ``error``: there it is the text."""
    async with served(counted(tmp_path, Echo)) as client:
        response = await client.post(SESSION, params={"mode": mode}, json=sent)
        assert response.status_code == status
        assert response.json() == {"error": text, "code": code, "retryable": False}
        assert await told(client) == []


async def test_a_message_of_the_greatest_length_is_told(tmp_path: Path) -> None:
    """The other side of ``message_bytes_max``, in a room of people."""
    people = type("People", (ChatRoom,), {"model": None})
    async with served(counted(tmp_path, people)) as client:
        assert (await client.post(SESSION, json=posted("x" * 1_048_576))).status_code == 202
        assert await told(client) == said("m1", "user", "x" * 1_048_576)


async def test_a_room_of_people_takes_messages(tmp_path: Path) -> None:
    """Nobody answers there, so awaiting has nothing to wait for."""
    people = type("People", (ChatRoom,), {"model": None})
    async with served(counted(tmp_path, people)) as client:
        assert (await client.post(SESSION, params={"mode": "await"}, json=posted("Hi"))).status_code == 200
        assert await told(client) == said("m1", "user", "Hi")


def _by_header(connection: HTTPConnection) -> User | None:
    return {"ann": User("Ann", rooms=["r"]), "bob": User("Bob", rooms=["s"])}.get(
        connection.headers.get("authorization", "")
    )


async def test_the_door_is_kept(tmp_path: Path) -> None:
    """Posting and reading: 401 for strangers, 403 for those of other rooms; messages carry the user's name."""
    async with served(counted(tmp_path, Echo, authenticate=_by_header)) as client:
        for user, status, code in (("", 401, "unauthenticated"), ("bob", 403, "forbidden")):
            headers = {"authorization": user}
            response = await client.post(SESSION, json=posted("Hi"), headers=headers)
            assert (response.status_code, response.json()["code"]) == (status, code)
            for path in (SESSION, "/v1/stream/rooms/r/session"):
                response = await client.get(path, headers=headers)
                assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        ann = {"authorization": "ann"}
        assert (await client.post(SESSION, json=posted("Hi"), headers=ann)).status_code == 202
        start = (await client.get(SESSION, headers=ann)).json()[0]
        assert (start["messageId"], start["metadata"]) == ("m1", {"user": "Ann", "perdure": {"at": 0}})


async def test_other_sites_see_the_streams_headers(tmp_path: Path) -> None:
    """A listed page may post and read, and is shown where to go on."""
    async with served(counted(tmp_path, Echo, origins=["https://friend.example"])) as client:
        friend = {"origin": "https://friend.example"}
        assert (await client.post(SESSION, json=posted("Hi"), headers=friend)).status_code == 202
        response = await client.get(SESSION, headers=friend)
        assert response.headers["access-control-allow-origin"] == "https://friend.example"
        exposed = {name.strip() for name in response.headers["access-control-expose-headers"].lower().split(",")}
        assert exposed >= {"stream-next-offset", "stream-cursor", "stream-up-to-date", "stream-closed"}
        response = await client.post(SESSION, json=posted("Hi"), headers={"origin": "https://foe.example"})
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")


async def test_a_name_may_have_a_slash(tmp_path: Path) -> None:
    """Percent-encoded it is one segment, in both addresses."""
    async with served(counted(tmp_path, Echo)) as client:
        path = "/api/chat/team%2Fü/session"
        await client.post(path, params={"mode": "await"}, json=posted("Hi"))
        expected = [*said("m1", "user", "Hi"), *answered("id1", "You said: Hi", "team/ü")]
        assert await told(client, path) == expected
        assert await told(client, "/v1/stream/rooms/team%2Fü/session") == expected


async def _tells(client: httpx2.AsyncClient, expected: list[dict[str, Any]]) -> bool:
    return await told(client) == expected


async def _has(client: httpx2.AsyncClient, kind: str, count: int) -> bool:
    return [event["type"] for event in await told(client)].count(kind) == count
