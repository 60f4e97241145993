"""Plain rooms over WebSockets: ``/ws/{room}``, frame by frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.chat.rooms import Echo, lead, led_room
from tests.running import HURRIED, serving
from tests.server.apps import counted
from tests.server.clients import Room, room
from websockets.exceptions import ConnectionClosedError

from perdure import DurableObject

pytestmark = pytest.mark.anyio

NOON = 1_700_000_000_000
QUESTION = {"id": "m1", "role": "user", "content": "Hi", "timestamp": NOON}
ANSWER = {"id": "id2", "role": "assistant", "timestamp": NOON, "answers": "m1"}


async def shown(client: Room, kind: str | None = None) -> dict[str, Any]:
    """The next frame without its offset, which it must have."""
    frame = await client.next(kind)
    assert isinstance(frame.pop("offset"), str)
    return frame


async def test_an_answer_comes_as_accumulated_updates(tmp_path: Path) -> None:
    """What the simplest client does: connect, send, show the newest text."""
    led = led_room()
    async with serving(counted(tmp_path, led)) as address, room(address) as client:
        assert await shown(client) == {"type": "init", "messages": []}
        await client.say("Hi", id="m1")
        assert await shown(client) == {"type": "message", "message": QUESTION}
        assert await shown(client) == {
            "type": "message",
            "message": {**ANSWER, "content": "", "status": "streaming"},
        }
        lead(led, "Hi", "Hel")
        assert await shown(client) == {"type": "update", "messageId": "id2", "content": "Hel"}
        lead(led, "Hi", "lo")
        assert await shown(client) == {"type": "update", "messageId": "id2", "content": "Hello"}
        lead(led, "Hi", None)
        complete = {"type": "complete", "messageId": "id2", "content": "Hello", "status": "complete"}
        assert await shown(client) == complete


async def test_an_answer_comes_as_deltas(tmp_path: Path) -> None:
    """With ``?delta=1`` each frame has what is new; a client that comes later gets all so far, then the same."""
    led = led_room()
    async with serving(counted(tmp_path, led)) as address, room(address, query={"delta": "1"}) as client:
        await client.next("init")
        await client.say("Hi", id="m1")
        lead(led, "Hi", "Hel")
        assert await shown(client, "delta") == {"type": "delta", "messageId": "id2", "delta": "Hel"}
        async with room(address, query={"delta": "1"}) as late:
            assert await shown(late) == {
                "type": "init",
                "messages": [QUESTION, {**ANSWER, "content": "Hel", "status": "streaming"}],
                "streaming": "id2",
            }
            lead(led, "Hi", "lo", None)
            for each in (client, late):
                assert await shown(each) == {"type": "delta", "messageId": "id2", "delta": "lo"}
                assert (await shown(each))["content"] == "Hello"


async def test_a_client_that_was_away_gets_what_it_missed(tmp_path: Path) -> None:
    """By its offset: the rest of the answer, its end, the next question; no history."""
    led = led_room()
    async with serving(counted(tmp_path, led)) as address:
        async with room(address, query={"delta": "1"}) as client:
            await client.next("init")
            await client.say("Hi", id="m1")
            lead(led, "Hi", "Hel")
            offset = (await client.next("delta"))["offset"]
        async with room(address) as other:
            lead(led, "Hi", "lo", None)
            await other.next("complete")
            await other.say("And?", id="m2")
            await other.next("message")
            await other.next("message")
        async with room(address, query={"delta": "1", "offset": offset}) as client:
            frames = [await shown(client) for _ in range(5)]
        assert frames[:4] == [
            {"type": "resume"},
            {"type": "delta", "messageId": "id2", "delta": "lo"},
            {"type": "complete", "messageId": "id2", "content": "Hello", "status": "complete"},
            {"type": "message", "message": {"id": "m2", "role": "user", "content": "And?", "timestamp": NOON}},
        ]
        assert (frames[4]["message"]["answers"], frames[4]["message"]["status"]) == ("m2", "streaming")


@pytest.mark.parametrize("offset", ["nonsense", "", "00000.000000099.000000000.00000000", "9.9.9.9", "²" * 4])
async def test_an_offset_of_nowhere_gets_everything(tmp_path: Path, offset: str) -> None:
    """Never an error, never a hole."""
    app = counted(tmp_path, Echo)
    async with serving(app) as address:
        await app.get(Echo, "r").submit("Hi", id="m1")
        async with room(address, query={"offset": offset}) as client:
            init = await client.next()
            assert (init["type"], init["messages"][0]) == ("init", QUESTION)


async def test_a_client_may_ask_for_fewer_messages(tmp_path: Path) -> None:
    """``?limit=``: the newest ones, and ``more`` says that there are older ones."""
    app = counted(tmp_path, Echo)
    async with serving(app) as address:
        async with room(address, query={"limit": "1"}) as client:
            assert await shown(client) == {"type": "init", "messages": []}
            await client.say("Hi", id="m1")
            await client.next("complete")
        async with room(address, query={"limit": "1"}) as client:
            init = await shown(client)
            assert ([message["id"] for message in init["messages"]], init["more"]) == (["id2"], True)
        async with room(address, query={"limit": "x"}) as client:
            assert [message["id"] for message in (await shown(client))["messages"]] == ["m1", "id2"]


async def test_names_go_with_messages(tmp_path: Path) -> None:
    """From the query, or from the frame, which goes before it."""
    async with serving(counted(tmp_path, Echo)) as address, room(address, query={"user": "Ann"}) as client:
        await client.next("init")
        for fields, name in (({}, "Ann"), ({"user": "Ben"}, "Ben")):
            await client.say("Hi", **fields)
            assert (await client.next("message"))["message"]["user"] == name
            await client.next("complete")


async def test_a_message_that_is_sent_again_is_shown_to_its_sender_again(tmp_path: Path) -> None:
    """It was never acknowledged, so far as its sender knows; nobody else sees anything, and it is answered once."""
    async with serving(counted(tmp_path, Echo)) as address, room(address) as client, room(address) as other:
        await client.next("init")
        await other.next("init")
        await client.say("Hi", id="m1")
        await client.next("complete")
        await client.say("Hi", id="m1")
        assert await shown(client) == {"type": "message", "message": QUESTION}
        await client.say("Bye", id="m2")
        await other.next("complete")
        await other.next("complete")
        assert [frame["message"]["id"] for frame in other.frames if frame["type"] == "message"][::2] == ["m1", "m2"]


async def test_a_stop_and_a_retry(tmp_path: Path) -> None:
    """Any client may; what was said stays, until the answer is made again."""
    led = led_room()
    async with serving(counted(tmp_path, led)) as address, room(address) as client, room(address) as other:
        await client.next("init")
        await client.say("Hi", id="m1")
        lead(led, "Hi", "Hel")
        await client.next("update")
        answer = client.frames[-1]["messageId"]
        await other.send(type="stop")
        stopped = await shown(client)
        assert stopped == {"type": "complete", "messageId": answer, "content": "Hel", "status": "aborted"}
        await other.send(type="retry")
        assert await shown(client) == {"type": "remove", "messageIds": [answer]}
        lead(led, "Hi", "Hello", None)
        assert (await shown(client))["message"]["answers"] == "m1"
        assert (await client.next("complete"))["content"] == "Hello"


async def test_an_answer_that_fails_says_why(tmp_path: Path) -> None:
    """In its last frame, and in the next client's first one."""
    led = led_room()
    async with serving(counted(tmp_path, led)) as address, room(address) as client:
        await client.next("init")
        lead(led, "Hi", "Hel", ValueError("oops"))
        await client.say("Hi", id="m1")
        assert await shown(client, "complete") == {
            "type": "complete",
            "messageId": "id2",
            "content": "Hel",
            "status": "failed",
            "error": "ValueError: oops",
        }
        async with room(address) as late:
            failed = {**ANSWER, "content": "Hel", "status": "failed", "error": "ValueError: oops"}
            assert await shown(late) == {"type": "init", "messages": [QUESTION, failed]}


async def test_a_ping_wakes_nobody(tmp_path: Path) -> None:
    """It is answered before the room; spelled in another way, by the room."""
    async with serving(counted(tmp_path, Echo)) as address, room(address) as client:
        await client.next("init")
        for ping in ('{"type":"ping"}', '{ "type": "ping" }'):
            await client.socket.send(ping)
            assert await client.socket.recv() == '{"type":"pong"}'


async def test_rooms_at_the_root_are_an_option(tmp_path: Path) -> None:
    """``/{room}``, as the first plain clients had it; ``/ws/{room}`` is the same room."""
    app = counted(tmp_path, Echo, rooms_at_root=True)
    async with serving(app) as address, room(address, "/general") as client, room(address, "/ws/general") as same:
        await client.next("init")
        await same.next("init")
        await client.say("Hi", id="m1")
        assert (await same.next("message"))["message"]["id"] == "m1"


async def test_a_long_reason_fits_its_close_frame(tmp_path: Path) -> None:
    """It holds 123 bytes, however many characters these are; the error frame before it says everything."""
    async with serving(counted(tmp_path, Echo)) as address:
        name = "é" * 100
        async with room(address, f"/objects/{quote(name)}/x") as client:
            told = await client.next()
            assert told["message"] == f"no class {name!r} is registered (known: Echo)"
            with pytest.raises(ConnectionClosedError) as caught:
                await client.next()
            assert caught.value.rcvd is not None
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "no class '" + "é" * 56)


async def test_an_app_without_rooms_has_no_room_sockets(tmp_path: Path) -> None:
    """Only its objects' own."""

    class Counter(DurableObject):
        pass

    async with serving(counted(tmp_path, Counter)) as address, room(address, "/ws/r") as client:
        assert await client.next() == {
            "type": "error",
            "code": "not_found",
            "message": "there is no room at this address; rooms are at /ws/{room}",
            "retryable": False,
        }


async def test_a_message_that_is_refused_unread_is_named(tmp_path: Path) -> None:
    """So that its sender knows which one it was; where no id can be made out there is none."""
    app = counted(tmp_path, Echo, limits=replace(HURRIED, message_bytes_max=1_000))
    refusal = {"type": "error", "code": "limit_exceeded", "retryable": False}
    async with serving(app) as address, room(address) as client:
        await client.next("init")
        for frame, named in (
            ('{"type":"message","id":"m1","content":"' + "x" * 1_000 + '"}', {"id": "m1"}),
            ('{"type":"message","id":"' + "m" * 300 + '","content":"' + "x" * 1_000 + '"}', {}),
            ('{"type":"message","id":7,"content":"' + "x" * 1_000 + '"}', {}),
            ('{"type":"message","content":"' + "x" * 1_000 + '"}', {}),
            ("x" * 1_001, {}),
            ("[" * 100_000, {}),
            (b"\xff" * 1_001, {}),
        ):
            await client.socket.send(frame)
            told = await client.next()
            told.pop("message")
            assert told == {**refusal, **named}


async def test_connections_that_give_themselves_one_id_are_two(tmp_path: Path) -> None:
    """A copied tab sends the id of its original (``?_pk=``): neither takes the other's frames away."""
    same = {"_pk": "one"}
    async with serving(counted(tmp_path, Echo)) as address, room(address, query=same) as first:
        await first.next("init")
        async with room(address, query=same) as second:
            await second.next("init")
            await first.say("Hi", id="m1")
            for each in (first, second):
                assert (await each.next("message"))["message"]["id"] == "m1"
                await each.next("complete")
        await first.say("Bye", id="m2")
        assert (await first.next("complete"))["content"] == "You said: Bye"
