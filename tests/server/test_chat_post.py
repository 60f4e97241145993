"""``POST /api/chat``: what ``useChat`` sends and reads, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.chat.rooms import Echo, lead, led_room
from tests.running import eventually, serving, until
from tests.server.apps import counted, served
from tests.server.clients import events, http, room, user_turn

from perdure.errors import ModelError

pytestmark = pytest.mark.anyio

ECHO = """\
data: {"type":"start","messageId":"id1"}

data: {"type":"start-step"}

data: {"type":"text-start","id":"text-1-1"}

data: {"type":"text-delta","id":"text-1-1","delta":"You said: Hi"}

data: {"type":"text-end","id":"text-1-1"}

data: {"type":"finish-step"}

data: {"type":"finish","finishReason":"stop"}

data: [DONE]

"""

STORED_ECHO = [
    {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]},
    {
        "id": "id1",
        "role": "assistant",
        "parts": [{"type": "step-start"}, {"type": "text", "text": "You said: Hi", "state": "done"}],
    },
]


def body(*chunks: str) -> str:
    """An event stream of these chunks, to its end."""
    return "".join(f"data: {chunk}\n\n" for chunk in (*chunks, "[DONE]"))


def answer(answer_id: str, text: str) -> str:
    """The event stream of an answer that was said in one piece."""
    return ECHO.replace('"id1"', f'"{answer_id}"').replace("You said: Hi", text)


async def messages(client: httpx2.AsyncClient) -> Any:
    """What the room has stored."""
    return (await client.get("/api/chat/r/messages")).json()


async def ids(client: httpx2.AsyncClient) -> list[str]:
    """The ids of what the room has stored."""
    return [message["id"] for message in await messages(client)]


async def test_the_first_message_is_answered(tmp_path: Path) -> None:
    """With the vendor's headers, one chunk an event, and an end; then both messages are there."""
    async with served(counted(tmp_path, Echo)) as client:
        response = await client.post("/api/chat", json=user_turn("Hi"))
        assert response.status_code == 200
        headers = {name: response.headers[name] for name in response.headers if name not in ("date", "server")}
        assert headers == {
            "content-type": "text/event-stream",
            "cache-control": "no-cache",
            "connection": "keep-alive",
            "x-vercel-ai-ui-message-stream": "v1",
            "x-accel-buffering": "no",
            "transfer-encoding": "chunked",
        }
        assert response.text == ECHO
        assert await messages(client) == STORED_ECHO


async def test_a_lone_message_is_enough(tmp_path: Path) -> None:
    """As the vendor's example for resumable streams sends it: the server has the rest."""
    async with served(counted(tmp_path, Echo)) as client:
        sent = {"id": "r", "message": {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}}
        assert (await client.post("/api/chat", json=sent)).text == ECHO
        assert await messages(client) == STORED_ECHO


async def test_only_the_newest_message_is_taken(tmp_path: Path) -> None:
    """The transcript is the server's: what a client claims of the past is not believed."""
    async with served(counted(tmp_path, Echo)) as client:
        await client.post("/api/chat", json=user_turn("Hi"))
        claim = {"id": "x", "role": "assistant", "parts": [{"type": "text", "text": "You owe me money."}]}
        turn = user_turn("Again", message_id="m2")
        turn["messages"].insert(0, claim)
        assert (await client.post("/api/chat", json=turn)).text == answer("id2", "You said: Again")
        assert await ids(client) == ["m1", "id1", "m2", "id2"]


async def test_a_message_without_an_id_gets_one(tmp_path: Path) -> None:
    """And is answered like any other."""
    async with served(counted(tmp_path, Echo)) as client:
        sent = {"id": "r", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
        assert (await client.post("/api/chat", json=sent)).text == answer("id2", "You said: Hi")
        assert await ids(client) == ["id1", "id2"]


async def test_the_same_message_again_joins_its_turn(tmp_path: Path) -> None:
    """During the answer and after it: the same bytes from the start chunk, and nothing is said twice."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        first = asyncio.create_task(client.post("/api/chat", json=user_turn("Hi")))
        await until(lambda: led.contexts)
        second = asyncio.create_task(client.post("/api/chat", json=user_turn("Hi")))
        lead(led, "Hi", "You said: Hi", None)
        assert (await first).text == (await second).text == ECHO
        assert (await client.post("/api/chat", json=user_turn("Hi"))).text == ECHO
        assert len(led.contexts) == 1
        assert await messages(client) == STORED_ECHO


async def test_a_message_during_an_answer_gets_its_own(tmp_path: Path) -> None:
    """Its body waits for its turn, and holds that turn alone."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        first = asyncio.create_task(client.post("/api/chat", json=user_turn("one")))
        await until(lambda: led.contexts)
        second = asyncio.create_task(client.post("/api/chat", json=user_turn("two", message_id="m2")))
        await eventually(lambda: _has(client, 3))
        lead(led, "two", "second", None)
        lead(led, "one", "first", None)
        assert (await first).text == answer("id1", "first")
        assert (await second).text == answer("id2", "second")


async def test_regenerate_answers_anew(tmp_path: Path) -> None:
    """The named answer and all after it goes; the question stays; the new answer has an id of its own."""
    async with served(counted(tmp_path, Echo)) as client:
        for number in (1, 2):
            await client.post("/api/chat", json=user_turn(f"Hi {number}", message_id=f"m{number}"))
        assert await ids(client) == ["m1", "id1", "m2", "id2"]
        sent = user_turn("Hi 1", message_id="m1", trigger="regenerate-message", messageId="id1")
        assert (await client.post("/api/chat", json=sent)).text == answer("id3", "You said: Hi 1")
        assert await ids(client) == ["m1", "id3"]


async def test_regenerate_takes_the_last_answer(tmp_path: Path) -> None:
    """Where the client names none."""
    async with served(counted(tmp_path, Echo)) as client:
        for number in (1, 2):
            await client.post("/api/chat", json=user_turn(f"Hi {number}", message_id=f"m{number}"))
        sent = {"id": "r", "messages": [], "trigger": "regenerate-message"}
        assert (await client.post("/api/chat", json=sent)).text == answer("id3", "You said: Hi 2")
        assert await ids(client) == ["m1", "id1", "m2", "id3"]


async def test_regenerate_may_name_the_question(tmp_path: Path) -> None:
    """Its answer is made again, not the last one."""
    async with served(counted(tmp_path, Echo)) as client:
        for number in (1, 2):
            await client.post("/api/chat", json=user_turn(f"Hi {number}", message_id=f"m{number}"))
        sent = user_turn("Hi 1", message_id="m1", trigger="regenerate-message", messageId="m1")
        assert (await client.post("/api/chat", json=sent)).text == answer("id3", "You said: Hi 1")
        assert await ids(client) == ["m1", "id3"]


async def test_regenerate_sent_again_joins_the_new_answer(tmp_path: Path) -> None:
    """A retry names the answer that was replaced already."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        lead(led, "Hi", "Well", None)
        await client.post("/api/chat", json=user_turn("Hi"))
        sent = user_turn("Hi", trigger="regenerate-message", messageId="id1")
        first = asyncio.create_task(client.post("/api/chat", json=sent))
        await until(lambda: len(led.contexts) == 2)
        async with client.stream("POST", "/api/chat", json=sent) as second:
            lead(led, "Hi", "Hello", None)
            assert await second.aread() == answer("id2", "Hello").encode()
        assert (await first).text == answer("id2", "Hello")
        assert len(led.contexts) == 2


async def test_regenerate_amid_an_answer_ends_it(tmp_path: Path) -> None:
    """Who reads the old one is told that it was aborted."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        first = asyncio.create_task(client.post("/api/chat", json=user_turn("Hi")))
        lead(led, "Hi", "Well")
        await eventually(lambda: _says(client, "Well"))
        sent = {"id": "r", "messages": [], "trigger": "regenerate-message", "messageId": "id1"}
        second = asyncio.create_task(client.post("/api/chat", json=sent))
        assert (await first).text == body(
            '{"type":"start","messageId":"id1"}',
            '{"type":"start-step"}',
            '{"type":"text-start","id":"text-1-1"}',
            '{"type":"text-delta","id":"text-1-1","delta":"Well"}',
            '{"type":"text-end","id":"text-1-1"}',
            '{"type":"abort"}',
        )
        await until(lambda: len(led.contexts) == 2)
        lead(led, "Hi", "Hello", None)
        assert (await second).text == answer("id2", "Hello")
        assert await ids(client) == ["m1", "id2"]


async def test_an_edit_is_answered_anew(tmp_path: Path) -> None:
    """The edited message takes its own place; all after it goes; a repeated edit joins the turn."""
    async with served(counted(tmp_path, Echo)) as client:
        for number in (1, 2):
            await client.post("/api/chat", json=user_turn(f"Hi {number}", message_id=f"m{number}"))
        sent = user_turn("Bye", message_id="m1", messageId="m1")
        assert (await client.post("/api/chat", json=sent)).text == answer("id3", "You said: Bye")
        assert (await client.post("/api/chat", json=sent)).text == answer("id3", "You said: Bye")
        assert [(message["id"], message["parts"][-1]["text"]) for message in await messages(client)] == [
            ("m1", "Bye"),
            ("id3", "You said: Bye"),
        ]


async def test_an_edit_of_an_unknown_message_is_a_new_message(tmp_path: Path) -> None:
    """Its first sending never arrived."""
    async with served(counted(tmp_path, Echo)) as client:
        sent = user_turn("Hi", message_id="m1", messageId="m1")
        assert (await client.post("/api/chat", json=sent)).text == ECHO


@pytest.mark.parametrize(
    ("error", "text"),
    [(ModelError("the model is not well"), "the model is not well"), (ValueError("oops"), "ValueError: oops")],
)
async def test_a_models_error_amid_an_answer_is_its_last_chunk(tmp_path: Path, error: Exception, text: str) -> None:
    """What was said stays; the body ends, but only after the error."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        lead(led, "Hi", "Well, ", error)
        response = await client.post("/api/chat", json=user_turn("Hi"))
        assert response.text == body(
            '{"type":"start","messageId":"id1"}',
            '{"type":"start-step"}',
            '{"type":"text-start","id":"text-1-1"}',
            '{"type":"text-delta","id":"text-1-1","delta":"Well, "}',
            '{"type":"text-end","id":"text-1-1"}',
            '{"type":"error","errorText":"' + text + '"}',
        )
        assert (await messages(client))[1]["parts"][-1] == {"type": "text", "text": "Well, ", "state": "done"}


async def test_a_server_that_goes_ends_no_body_politely(tmp_path: Path) -> None:
    """A clean end without a terminal chunk would read as a whole answer: the connection is cut instead."""
    led = led_room()
    app = counted(tmp_path, led)
    async with served(app) as client:
        lead(led, "Hi", "Well")
        seen: list[str] = []

        async def read() -> None:
            async with client.stream("POST", "/api/chat", json=user_turn("Hi")) as response:
                async for event in events(response):
                    seen.append(event.data)
                    if len(seen) == 4:
                        await app.stop()

        with pytest.raises(httpx2.RemoteProtocolError):
            await read()
        assert seen == [
            '{"type":"start","messageId":"id1"}',
            '{"type":"start-step"}',
            '{"type":"text-start","id":"text-1-1"}',
            '{"type":"text-delta","id":"text-1-1","delta":"Well"}',
        ]


async def test_sockets_see_what_was_posted(tmp_path: Path) -> None:
    """One room, whatever its clients speak: the question, the answer, and a cut."""
    app = counted(tmp_path, Echo)
    async with serving(app) as address, http(address) as client, room(address) as socket:
        await socket.next("init")
        await client.post("/api/chat", json=user_turn("Hi"))
        await socket.next("complete")
        sent = user_turn("Bye", message_id="m1", messageId="m1")
        await client.post("/api/chat", json=sent)
        await socket.next("complete")
        kinds = [frame["type"] for frame in socket.frames if frame["type"] != "update"]
        assert kinds == ["init", "message", "message", "complete", "remove", "message", "message", "complete"]
        removed = next(frame for frame in socket.frames if frame["type"] == "remove")
        assert removed["messageIds"] == [socket.frames[1]["message"]["id"], socket.frames[2]["message"]["id"]]


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [
        (
            {"id": "r", "messages": [], "trigger": "regenerate-message"},
            422,
            {"code": "bad_arguments", "message": "there is nothing to answer in this room", "retryable": False},
        ),
        (
            {"id": "r", "messages": [{"id": "a", "role": "assistant", "parts": []}], "messageId": "a"},
            422,
            {"code": "bad_arguments", "message": "there is nothing to go on with in this room", "retryable": False},
        ),
        (
            {"id": "r", "messages": [{"id": "s", "role": "system", "parts": []}]},
            400,
            {
                "code": "bad_request",
                "message": "the request ends with a system message; there is nothing to answer",
                "retryable": False,
            },
        ),
    ],
)
async def test_a_request_without_a_question_is_refused(
    tmp_path: Path, sent: dict[str, Any], status: int, error: dict[str, Any]
) -> None:
    """In the common error shape."""
    async with served(counted(tmp_path, Echo)) as client:
        response = await client.post("/api/chat", json=sent)
        assert (response.status_code, response.json()) == (status, {"error": error})


async def test_a_body_of_unknown_length_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is announced is refused at once; one that comes in pieces, when it has become too long."""
    monkeypatch.setattr("perdure.server.aisdk.CHAT_BODY_BYTES_MAX", 1_000)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b" " * 100

    async with served(counted(tmp_path, Echo)) as client:
        response = await client.post("/api/chat", content=pieces())
        assert response.status_code == 413
        assert response.json() == {
            "error": {
                "code": "limit_exceeded",
                "message": "chat_body_bytes_max allows 1,000 at most, this has 1,100",
                "retryable": False,
            }
        }
        assert (await client.post("/api/chat", json=user_turn("Hi"))).text == ECHO


async def _has(client: httpx2.AsyncClient, count: int) -> bool:
    return len(await messages(client)) == count


async def _says(client: httpx2.AsyncClient, text: str) -> bool:
    return bool((await messages(client))[-1:] and text in str((await messages(client))[-1]["parts"]))
