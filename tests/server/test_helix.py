"""Sessions in the style of Helix: ``/api/chat/{id}`` and its snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.chat.rooms import Echo, lead, led_room
from tests.chat.tool_rooms import call
from tests.running import eventually, serving
from tests.server.apps import NOON_MS, counted, served, set_clock
from tests.server.clients import events, http

from perdure import ChatRoom, tool
from perdure.models.scripted import ScriptedModel
from perdure.wire.fold import MessageFold
from perdure.wire.sse import SseEvent
from perdure.wire.ui_chunks import decode_chunk

pytestmark = pytest.mark.anyio

ECHO = """\
id: 1
data: {"type":"start","messageId":"id2"}

id: 2
data: {"type":"start-step"}

id: 3
data: {"type":"text-start","id":"text-1-1"}

id: 4
data: {"type":"text-delta","id":"text-1-1","delta":"You said: Hi"}

id: 5
data: {"type":"text-end","id":"text-1-1"}

id: 6
data: {"type":"finish-step"}

id: 7
data: {"type":"finish","finishReason":"stop"}

data: [DONE]

"""


async def snapshot(client: httpx2.AsyncClient, **query: Any) -> Any:
    """The session's snapshot."""
    response = await client.get("/api/chat/r/snapshot", params=query)
    assert response.status_code == 200
    return response.json()


def resume(sequence: int, message_id: str | None = None) -> dict[str, str]:
    """The headers of a request to resume."""
    headers = {"x-resume-from-sequence": str(sequence)}
    return headers if message_id is None else {**headers, "x-existing-message-id": message_id}


def text_of(body: str) -> str:
    """What a body's deltas say."""
    return "".join(line.split('"delta":"')[1][:-2] for line in body.splitlines() if '"delta":"' in line)


@pytest.mark.parametrize(
    "body",
    [
        {"message": "Hi"},
        {"messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}]},
        {
            "messages": [
                {"role": "user", "parts": [{"type": "text", "text": "Before"}]},
                {"role": "assistant", "parts": [{"type": "text", "text": "claimed"}]},
                {"role": "user", "parts": [{"type": "text", "text": "Hi"}]},
            ]
        },
    ],
)
async def test_both_bodies_are_answered(tmp_path: Path, body: dict[str, Any]) -> None:
    """The last message is new; the session has the history. Each event has the number of its chunk."""
    async with served(counted(tmp_path, Echo)) as client:
        response = await client.post("/api/chat/r", json=body)
        assert response.status_code == 200
        assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
        assert response.headers["x-session-id"] == "r"
        assert response.text == ECHO
        assert [message["id"] for message in (await snapshot(client))["messages"]] == ["id1", "id2"]


async def test_a_session_may_have_any_name(tmp_path: Path) -> None:
    """Encoded in the address, and in the header."""
    async with served(counted(tmp_path, Echo)) as client:
        response = await client.post("/api/chat/a%2Fb%20%C3%BC", json={"message": "Hi"})
        assert response.headers["x-session-id"] == "a%2Fb%20%C3%BC"


async def test_a_follow_up_tells_only_what_is_new(tmp_path: Path) -> None:
    """Multi-turn filtering: numbers go on, chunks of the first answer do not come again."""
    async with served(counted(tmp_path, Echo)) as client:
        await client.post("/api/chat/r", json={"message": "Hi"})
        body = (await client.post("/api/chat/r", json={"message": "Again"})).text
        assert text_of(body) == "You said: Again"
        assert body.startswith('id: 8\ndata: {"type":"start","messageId":"id4"}\n\n')
        shown = await snapshot(client)
        assert (shown["startSequence"], shown["streamSequence"], shown["status"]) == (7, 14, "ended")
        assert len(shown["messages"]) == 4
        assert len((await snapshot(client, limit=1))["messages"]) == 1


async def test_the_last_message_wins(tmp_path: Path) -> None:
    """The running answer is interrupted, even in a room whose messages otherwise queue."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        first = asyncio.create_task(client.post("/api/chat/r", json={"message": "one"}))
        lead(led, "one", "Well")
        await eventually(lambda: _says(client, "Well"))
        lead(led, "two", "Yes", None)
        second = (await client.post("/api/chat/r", json={"message": "two"})).text
        assert text_of(second) == "Yes"
        assert '{"type":"abort"}' in (await first).text
        assert [message["role"] for message in (await snapshot(client))["messages"]] == ["user", "assistant"] * 2


async def _says(client: httpx2.AsyncClient, text: str) -> bool:
    parts = [part for message in (await snapshot(client))["messages"] for part in message["parts"]]
    return any(part.get("text") == text for part in parts)


@asynccontextmanager
async def half_said(tmp_path: Path) -> AsyncIterator[tuple[httpx2.AsyncClient, Any, Any]]:
    """A session whose answer has said ``Well, `` and waits for the test; with its snapshot."""
    led = led_room()
    app = counted(tmp_path, led)
    async with served(app) as client:
        posted = asyncio.create_task(client.post("/api/chat/r", json={"message": "Hi"}))
        lead(led, "Hi", "Well, ")
        await eventually(lambda: _says(client, "Well, "))
        yield client, led, app
        await posted


async def test_a_snapshot_of_a_running_answer(tmp_path: Path) -> None:
    """Its messages hold the partial text, and its number says how far that is."""
    async with half_said(tmp_path) as (client, led, _):
        shown = await snapshot(client)
        assert shown == {
            "state": {},
            "messages": [
                {"id": "id1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]},
                {
                    "id": "id2",
                    "role": "assistant",
                    "parts": [{"type": "step-start"}, {"type": "text", "text": "Well, ", "state": "streaming"}],
                },
            ],
            "streamSequence": 4,
            "startSequence": 0,
            "status": "active",
            "timestamp": NOON_MS,
        }
        lead(led, "Hi", None)


async def test_the_end_of_an_answer_is_resumed(tmp_path: Path) -> None:
    """After the snapshot's number, under the message id that the client names; the open part is opened first."""
    async with half_said(tmp_path) as (client, led, _):
        lead(led, "Hi", "hello.", None)
        response = await client.get("/api/chat/r", headers=resume(4, "msg-123"))
        assert response.text == (
            'data: {"type":"start","messageId":"msg-123"}\n\n'
            'data: {"type":"text-start","id":"text-1-1"}\n\n'
            'id: 5\ndata: {"type":"text-delta","id":"text-1-1","delta":"hello."}\n\n'
            'id: 6\ndata: {"type":"text-end","id":"text-1-1"}\n\n'
            'id: 7\ndata: {"type":"finish-step"}\n\n'
            'id: 8\ndata: {"type":"finish","finishReason":"stop"}\n\n'
            "data: [DONE]\n\n"
        )


@pytest.mark.parametrize(
    "headers", [{}, resume(0), resume(0, "id2"), resume(3, "id1"), resume(99), {"last-event-id": "0"}]
)
async def test_an_answer_is_resumed_from_its_start(tmp_path: Path, headers: dict[str, str]) -> None:
    """Without a number, with the snapshot's start, for a client that holds another message, and for numbers that the
    session never gave out: all of it, under its own id."""
    async with half_said(tmp_path) as (client, led, _):
        lead(led, "Hi", None)
        body = (await client.get("/api/chat/r", headers=headers)).text
        assert body.startswith('id: 1\ndata: {"type":"start","messageId":"id2"}\n\n')
        assert text_of(body) == "Well, "


async def test_an_answer_is_resumed_from_its_start_under_another_id(tmp_path: Path) -> None:
    """A client that named the message itself."""
    async with half_said(tmp_path) as (client, led, _):
        lead(led, "Hi", None)
        body = (await client.get("/api/chat/r", headers=resume(0, "mine"))).text
        assert body.startswith('data: {"type":"start","messageId":"mine"}\n\nid: 2\ndata: {"type":"start-step"}\n\n')
        assert '"id2"' not in body


async def test_every_number_can_be_resumed_from(tmp_path: Path) -> None:
    """What was seen and what comes then is the whole, wherever the cut is; clients can read each of them."""
    async with served(counted(tmp_path, Tools)) as client:
        whole = await _events(client, "POST", json={"message": "Weather?"})
        assert [event.id for event in whole[:-1]] == [str(number) for number in range(1, len(whole))]
        for seen in range(1, len(whole) - 2):
            tail = await _events(client, "GET", headers=resume(seen))
            assert tail[-1].data == "[DONE]"
            numbered = [event for event in tail if event.id]
            assert [(event.id, event.data) for event in numbered] == [
                (event.id, event.data) for event in whole[seen:]
            ]
            fold = MessageFold("id2")
            for event in tail[:-1]:
                fold.push(decode_chunk(event.data))  # raises where a client would
            assert fold.status == "finished"
        assert (await client.get("/api/chat/r", headers=resume(len(whole) - 1))).status_code == 204


async def _events(client: httpx2.AsyncClient, method: str, **options: Any) -> list[SseEvent]:
    async with client.stream(method, "/api/chat/r", **options) as response:
        assert response.status_code == 200
        return [event async for event in events(response)]


class Tools(ChatRoom):
    """Says something, calls a tool, says something more."""

    model = ScriptedModel(
        steps=[["Let me ", "look. ", call("weather", {"city": "Oslo"}, "c-{turn_id}")], ["It is ", "cold."]]
    )

    @tool
    def weather(self, city: str) -> int:
        """How cold it is."""
        return -4


class Refunds(ChatRoom):
    """Asks before it acts."""

    model = ScriptedModel(steps=[["May I? ", call("refund", {}, "c-{turn_id}")], ["Done."]])

    @tool(approval=True)
    def refund(self) -> str:
        """Give the money back."""
        return "refunded"


async def test_a_session_waits_for_a_person(tmp_path: Path) -> None:
    """It is paused; when they agree, the answer goes on under the same id and with the numbers that follow."""
    app = counted(tmp_path, Refunds)
    async with served(app) as client:
        first = await _events(client, "POST", json={"message": "Please"})
        shown = await snapshot(client)
        assert shown["status"] == "paused"
        assert shown["streamSequence"] == len(first) - 1
        answer = shown["messages"][-1]
        part = answer["parts"][-1]
        assert part["state"] == "approval-requested"
        part |= {"state": "approval-responded", "approval": {"id": part["approval"]["id"], "approved": True}}
        second = await _events(client, "POST", json={"messages": [answer]})
        assert [event.data.split('"')[3] for event in second[:3]] == ["start", "tool-output-available", "start-step"]
        assert [event.id for event in second[:-1]] == [
            str(shown["streamSequence"] + number) for number in range(1, len(second))
        ]
        ended = await snapshot(client)
        assert (ended["status"], ended["startSequence"]) == ("ended", 0)
        assert ended["messages"][-1]["parts"][-1]["text"] == "Done."
        # Both legs, from a number in the first one and from one in the second.
        tail = await _events(client, "GET", headers=resume(4))
        assert [event.data for event in tail].count('{"type":"finish-step"}') == 2
        assert sum('"type":"finish"' in event.data for event in tail) == 1
        tail = await _events(client, "GET", headers=resume(shown["streamSequence"] + 2))
        assert text_of("\n".join(event.data for event in tail)) == "Done."


async def test_there_may_be_nothing_to_resume(tmp_path: Path) -> None:
    """Long after the end, and in a session that nobody has used; its snapshot is empty, and makes none."""
    app = counted(tmp_path, Echo)
    async with served(app) as client:
        assert (await client.get("/api/chat/r", headers=resume(0))).status_code == 204
        assert await snapshot(client) == {
            "state": {},
            "messages": [],
            "streamSequence": 0,
            "startSequence": 0,
            "status": "ended",
            "timestamp": NOON_MS,
        }
        assert not app.runtime.exists(app.runtime.object_id(Echo, "r"))
        await client.post("/api/chat/r", json={"message": "Hi"})
        set_clock(app, NOON_MS + 5_001)
        assert (await client.get("/api/chat/r", headers=resume(0))).status_code == 204


async def test_a_failed_answer_is_told(tmp_path: Path) -> None:
    """By the snapshot's status."""

    class Broken(ChatRoom):
        model = "scripted:count=5&error_at=2"

    async with served(counted(tmp_path, Broken)) as client:
        await client.post("/api/chat/r", json={"message": "Hi"})
        assert (await snapshot(client))["status"] == "failed"


async def test_numbers_outlive_the_server(tmp_path: Path) -> None:
    """After a restart they go on where they were; state that the room set is in the snapshot."""
    async with served(counted(tmp_path, Echo)) as client:
        await client.post("/api/chat/r", json={"message": "Hi"})
    app = counted(tmp_path, Echo)
    numbers = count(100)
    app.runtime.new_id = lambda: f"id{next(numbers)}"
    async with serving(app) as address, http(address) as client:
        body = (await client.post("/api/chat/r", json={"message": "Again"})).text
        assert body.startswith("id: 8\n")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/chat/r", {"x-resume-from-sequence": "x"}),
        ("/api/chat/r?target=ai5", {}),
        ("/api/chat/r/snapshot?limit=0", {}),
        ("/api/chat/r/snapshot?limit=1001", {}),
        ("/api/chat/r/snapshot?limit=x", {}),
    ],
)
async def test_bad_requests_are_refused(tmp_path: Path, path: str, headers: dict[str, str]) -> None:
    """In the common error shape; a limit of 1000 is taken."""
    async with served(counted(tmp_path, Echo)) as client:
        response = await client.get(path, headers=headers)
        assert response.status_code in (400, 422)
        assert response.json()["error"]["retryable"] is False
        assert (await client.get("/api/chat/r/snapshot?limit=1000")).status_code == 200
