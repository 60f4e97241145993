"""`RoomClient` with real servers that are killed: tools, approvals, versions, presence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import pytest
from tests.client_matrix import shows
from tests.e2e.line import Line
from tests.e2e.served import Served
from tests.e2e.tab import words

from perdure.client import (
    Added,
    ClientEvent,
    Disconnected,
    Grew,
    Here,
    Joined,
    PartChanged,
    RoomClient,
    SentFile,
    Settled,
    Waiting,
)

pytestmark = pytest.mark.anyio

RoomOf = Callable[[str], str]
Event = TypeVar("Event", bound=ClientEvent)


def entered(url: str, room: str, **options: object) -> RoomClient:
    """A client that takes all there is."""
    return RoomClient(f"{url}/ws/{room}", **{"parts": True, "user": "Ann", **options})  # type: ignore[arg-type]


async def until(client: RoomClient, kind: type[Event], seen: list[ClientEvent] | None = None) -> Event:
    """The next event of that kind."""
    async with asyncio.timeout(20):
        async for event in client:
            if seen is not None:
                seen.append(event)
            if isinstance(event, kind):
                return event
    raise AssertionError("the events ended")


@shows("Python", "send", "history", "tool")
async def test_a_tool_and_what_it_says(server: Served, room_of: RoomOf) -> None:
    """Each state of the call is an event; the text comes piece by piece; a later client has it all."""
    room = room_of("weather")
    async with entered(server.url, room) as client:
        seen: list[ClientEvent] = []
        await client.say("How is it in Lisbon?")
        settled = await until(client, Settled, seen)
    text = "Let me ask `weather`.\n\nIn Lisbon it is 21 degrees and sunny."
    assert "".join(event.text for event in seen if isinstance(event, Grew)) == text == settled.message.content
    calls = [event.part for event in seen if isinstance(event, PartChanged) and "toolCallId" in event.part]
    assert calls[0]["state"] == "input-streaming"
    assert calls[-1]["output"] == {"city": "Lisbon", "degrees": 21, "sky": "sunny"}
    assert {"progress": "asking about Lisbon"} in [part.get("output") for part in calls]
    async with entered(server.url, room) as late:
        joined = await until(late, Joined)
    assert joined.messages == client.messages
    assert joined.messages[1].parts == settled.message.parts


@shows("Python", "resume")
async def test_parts_come_once_over_a_line_that_breaks(server: Served, room_of: RoomOf, line: Line) -> None:
    """Words and states of tools alike."""
    async with entered(line.url, room_of("weather"), random=lambda: 0.0) as client:
        await client.say("How is it in Lisbon?")
        seen: list[ClientEvent] = []
        breaking = asyncio.create_task(_break(line))
        await until(client, Settled, seen)
        breaking.cancel()
    assert len([event for event in seen if isinstance(event, Disconnected)]) > 2
    text = "Let me ask `weather`.\n\nIn Lisbon it is 21 degrees and sunny."
    assert "".join(event.text for event in seen if isinstance(event, Grew)) == text
    changes = [(event.index, event.part) for event in seen if isinstance(event, PartChanged)]
    assert all(before != after for before, after in pairwise(changes))


async def _break(line: Line) -> None:
    while True:
        await asyncio.sleep(0.25)
        await asyncio.to_thread(line.drop)


@shows("Python", "crash", "approval")
async def test_an_approval_over_kills(mortal: Served) -> None:
    """What the answer waits for is still there; a yes that no server heard is heard by the next."""
    async with entered(mortal.url, "refund-1", random=lambda: 0.0) as client:
        await client.say("Refund order 17")
        [wait] = (await until(client, Waiting)).message.waits
        assert (wait.tool, wait.kind, wait.input) == ("refund", "approval", {"order": 17})
        await asyncio.to_thread(mortal.kill)
        await client.approve(wait.id)
        await asyncio.to_thread(mortal.start)
        settled = await until(client, Settled)
        assert settled.message.content.endswith('{"order": 17, "refunds": 1}`.')
        assert client.waits == ()
        await asyncio.to_thread(mortal.restart_after_kill)
        await client.say("Refund order 18")
        [wait] = (await until(client, Waiting)).message.waits
        await client.approve(wait.id, False, reason="never")
        settled = await until(client, Settled)
        assert settled.message.content.endswith("You did not allow `refund`, so I cannot say.")
        [part] = [part for part in settled.message.parts if "toolCallId" in part]
        assert part["state"] == "output-denied"


@shows("Python", "client tool")
async def test_a_result_of_ones_own(server: Served, room_of: RoomOf) -> None:
    """Any JSON; or why there is none."""
    async with entered(server.url, room_of("locate")) as client:
        for given in ({"output": ["Lisbon"]}, {"error": "no receiver"}):
            await client.say("Where am I?")
            [wait] = (await until(client, Waiting)).message.waits
            await client.give_result(wait.id, **given)
            await until(client, Settled)
    assert client.messages[1].content.endswith('`locate` says: `["Lisbon"]`.')
    assert client.messages[3].content.endswith("`locate` failed: no receiver")


@shows("Python", "stop", "regenerate", "error")
async def test_stop_retry_and_versions(server: Served, room_of: RoomOf) -> None:
    """A stopped answer, a failed one and another; the first version is a choice away."""
    async with entered(server.url, room_of("slow")) as client:
        await client.say("Count")
        await until(client, Grew)
        await client.stop()
        assert (await until(client, Settled)).message.status == "aborted"
    async with entered(server.url, room_of("broken")) as client:
        question = await client.say("Please")
        failed = (await until(client, Settled)).message
        assert (failed.status, failed.error) == ("failed", "scripted failure after 8 pieces")
        await client.regenerate(failed.id)
        again = (await until(client, Settled)).message
        assert (again.content, again.branches is not None and again.branches.count) == (words(10), 2)
        await client.edit(question, "Please, please")
        await until(client, Settled)
        assert [message.content for message in client.messages] == ["Please, please", words(10)]
        await client.choose_branch(question, 0)
        while [message.content for message in client.messages] != ["Please", words(10)]:
            await until(client, Added)


@shows("Python", "families")
async def test_another_family_is_here(server: Served, room_of: RoomOf) -> None:
    """A message over HTTP, as `useChat` sends it, is here; files come along; who is here is told."""
    room = room_of("echo")
    async with entered(server.url, room, presence=True) as client:
        here = await until(client, Here)
        assert [person.user for person in here.people] == ["Ann"]
        body = {"id": room, "trigger": "submit-message", "messages": [_ui_message("u1", "Hello from React")]}
        reply = await asyncio.to_thread(lambda: server.open("/api/chat", body).read().decode())
        settled = await until(client, Settled)
        assert settled.message.content == "You said: Hello from React"
        assert '"delta"' in reply
        await client.say("Look", files=[SentFile("data:text/plain,Hi", "text/plain", "hi.txt")])
        await until(client, Settled)
        assert client.messages[2].parts[0]["filename"] == "hi.txt"


def _ui_message(message_id: str, text: str) -> dict[str, object]:
    return {"id": message_id, "role": "user", "parts": [{"type": "text", "text": text}]}


async def test_typing_is_told(server: Served, room_of: RoomOf) -> None:
    """To the others, with the name."""
    room = room_of("echo")
    async with entered(server.url, room, presence=True) as ann, entered(server.url, room, user="Bob") as bob:
        await until(bob, Joined)
        await until(ann, Here)
        await bob.typing()
        while not any(person.typing for person in (await until(ann, Here)).people):
            pass
        assert [(person.user, person.typing) for person in ann.here.people] == [("Ann", False), ("Bob", True)]
        await bob.typing(False)
        while any(person.typing for person in (await until(ann, Here)).people):
            pass
