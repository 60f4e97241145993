"""Rooms spoken to with durable-chat's frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.chat.rooms import Echo, lead, led_room
from tests.objects.clients import Client
from tests.running import hibernated, running, until

from perdure import ChatRoom
from perdure.objects.runtime import Runtime

pytestmark = pytest.mark.anyio


def add(text: str, *, kind: str = "add", user: str = "Ada", message_id: str | None = None) -> str:
    """What a client sends; the id is the text."""
    return json.dumps({"type": kind, "id": message_id or text, "content": text, "user": user, "role": "user"})


def party(runtime: Runtime, room: type[ChatRoom], **options: Any) -> Client:
    """A client of the room ``r``."""
    return Client.of(runtime, room, "r", protocol="party", **options)


def shown(client: Client) -> list[tuple[str, str]]:
    """What the client shows, by the rules of durable-chat's page: names and contents."""
    messages: dict[str, tuple[str, str]] = {}
    for frame in client.json:
        if frame["type"] == "all":
            messages = {item["id"]: (item["user"], item["content"]) for item in frame["messages"]}
        else:
            messages[frame["id"]] = (frame["user"], frame["content"])
    return list(messages.values())


async def test_a_conversation_frame_by_frame(tmp_path: Path) -> None:
    """Everyone gets every frame, the sender too; the answer grows in one message."""
    room = led_room()
    async with running(tmp_path, room) as runtime:
        ada, bob = party(runtime, room), party(runtime, room)
        await until(lambda: ada.json and bob.json)
        ada.say(add("Hi"))
        lead(room, "Hi", "one ")
        await until(lambda: shown(bob)[-1:] == [("AI", "one ...")])
        lead(room, "Hi", "two", None)
        await until(lambda: shown(bob)[-1:] == [("AI", "one two")])
        await until(lambda: len(ada.json) == len(bob.json))
        frames = bob.json
        assert frames[0] == {"type": "all", "messages": []}
        assert frames[1] == {"type": "add", "id": "Hi", "content": "Hi", "user": "Ada", "role": "user"}
        assert (frames[2]["type"], frames[2]["content"], frames[2]["user"]) == ("add", "...", "AI")
        assert {frame["type"] for frame in frames[3:]} == {"update"}
        assert ada.json == frames
        assert shown(ada) == [("Ada", "Hi"), ("AI", "one two")]


async def test_a_client_that_comes_amid_an_answer(tmp_path: Path) -> None:
    """Its first frame has what was said so far."""
    room = led_room()
    async with running(tmp_path, room) as runtime:
        ada = party(runtime, room)
        ada.say(add("Hi"))
        lead(room, "Hi", "one ")
        await until(lambda: shown(ada)[-1:] == [("AI", "one ...")])
        bob = party(runtime, room)
        await until(lambda: bob.json)
        assert [item["content"] for item in bob.json[0]["messages"]] == ["Hi", "one ..."]
        lead(room, "Hi", "two", None)
        await until(lambda: shown(bob) == [("Ada", "Hi"), ("AI", "one two")])


async def test_updates_of_a_quick_answer_are_few(tmp_path: Path) -> None:
    """They hold all the text so far, so one is not sent for each word."""

    class Quick(Echo):
        """A thousand words at once."""

        model = "scripted:count=1000"

    async with running(tmp_path, Quick) as runtime:
        ada = party(runtime, Quick)
        ada.say(add("Hi"))
        await until(lambda: len(ada.json) > 2 and not ada.json[-1]["content"].endswith("..."))
        assert ada.json[-1]["content"].endswith("word999 word1000")
        assert len([frame for frame in ada.json if frame["type"] == "update"]) < 50


async def test_an_update_edits(tmp_path: Path) -> None:
    """The message is answered anew, and what came after it goes, everywhere."""
    async with running(tmp_path, Echo) as runtime:
        ada, bob = party(runtime, Echo), party(runtime, Echo)
        ada.say(add("one"))
        await until(lambda: shown(ada)[-1:] == [("AI", "You said: one")])
        ada.say(add("two", kind="update", message_id="one"))
        for client in (ada, bob):
            await until(lambda client=client: shown(client) == [("Ada", "two"), ("AI", "You said: two")])  # type: ignore[misc]


async def test_a_message_that_comes_twice(tmp_path: Path) -> None:
    """It is said once; its sender sees that it is there."""
    async with running(tmp_path, Echo) as runtime:
        ada = party(runtime, Echo)
        for _time in range(2):
            ada.say(add("Hi"))
        await until(lambda: shown(ada)[-1:] == [("AI", "You said: Hi")])
        assert [message.text for message in await runtime.get(Echo, "r").messages()] == ["Hi", "You said: Hi"]
        assert len([frame for frame in ada.json if frame.get("id") == "Hi"]) == 2


async def test_a_refused_message(tmp_path: Path) -> None:
    """Its sender, who shows it already, is told what there is."""
    async with running(tmp_path, Echo, limits={"message_bytes_max": 1_000}) as runtime:
        ada = party(runtime, Echo)
        await until(lambda: ada.json)
        ada.say(add("x", user="u" * 300))
        await until(lambda: len(ada.json) == 2)
        assert ada.json[1] == {"type": "all", "messages": []}


async def test_a_failed_answer_says_why(tmp_path: Path) -> None:
    """Where it has said nothing else."""

    class Broken(Echo):
        """Fails at once."""

        model = "scripted:count=3&error_at=0"

    async with running(tmp_path, Broken) as runtime:
        ada = party(runtime, Broken)
        ada.say(add("Hi"))
        await until(lambda: shown(ada)[-1:] == [("AI", "scripted failure after 0 pieces")])


async def test_an_authenticated_name_goes_first(tmp_path: Path) -> None:
    """Nobody speaks under another's name."""
    async with running(tmp_path, Echo) as runtime:
        ada = party(runtime, Echo, user="Ada")
        ada.say(add("Hi", user="Bob"))
        await until(lambda: ("Ada", "Hi") in shown(ada))


async def test_clients_stay_while_the_room_hibernates(tmp_path: Path) -> None:
    """They see what others say next."""
    async with running(tmp_path, Echo) as runtime:
        ada = party(runtime, Echo)
        await until(lambda: ada.json)
        await hibernated(runtime, Echo, "r")
        await runtime.get(Echo, "r").submit("Hi", user="Bob")
        await until(lambda: shown(ada) == [("Bob", "Hi"), ("AI", "You said: Hi")])
