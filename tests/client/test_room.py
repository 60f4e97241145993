"""`RoomClient` against real servers, over a network that does what networks do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from starlette.requests import HTTPConnection
from tests.chat.rooms import Echo, lead, led_room
from tests.client.relay import relay
from tests.running import HURRIED, killed, serving, until
from tests.server.apps import NOON_MS, counted

from perdure import App, ChatRoom, Connection, TurnContext, User
from perdure.client import (
    Added,
    ClientEvent,
    Connected,
    Disconnected,
    Grew,
    Joined,
    Message,
    Refused,
    Removed,
    RoomClient,
    RoomUnreachable,
    Settled,
)
from perdure.errors import BadArguments, ConfigError, Overloaded, RemoteProtocolError

pytestmark = pytest.mark.anyio

Event = TypeVar("Event", bound=ClientEvent)

QUESTION = Message("m1", "user", "Hi", NOON_MS, user="Ann")
ANSWER = Message("id2", "assistant", "", NOON_MS, status="streaming", answers="m1")
WHOLE = Message("id2", "assistant", "Hello", NOON_MS, status="complete", answers="m1")


def ids() -> Callable[[], str]:
    """Message ids m1, m2, ..."""
    numbers = count(1)
    return lambda: f"m{next(numbers)}"


@asynccontextmanager
async def entered(address: str, path: str = "/ws/r", **options: Any) -> AsyncIterator[RoomClient]:
    """A client in the room, called Ann unless she says otherwise, that comes back without much waiting."""
    options = {"user": "Ann", "new_id": ids(), "random": lambda: 0.0, **options}
    async with RoomClient(f"ws://{address}{path}", **options) as client:
        yield client


async def until_event(client: RoomClient, kind: type[Event], seen: list[ClientEvent] | None = None) -> Event:
    """The next event of that kind; those before it, and it, are added to ``seen``."""
    async with asyncio.timeout(10):
        async for event in client:
            if seen is not None:
                seen.append(event)
            if isinstance(event, kind):
                return event
    raise AssertionError("the events ended")


def text_of(events: list[ClientEvent]) -> str:
    """What was said piece by piece."""
    return "".join(event.text for event in events if isinstance(event, Grew))


async def test_a_message_and_its_answer(tmp_path: Path) -> None:
    """Every event of a first visit, in order; the client then has the transcript."""
    led = led_room()
    async with serving(counted(tmp_path, led)) as address, entered(address) as client:
        assert await until_event(client, Joined) == Joined((), more=False)
        assert await client.say("Hi") == "m1"
        seen: list[ClientEvent] = []
        lead(led, "Hi", "Hel")
        await until_event(client, Grew, seen)
        assert client.streaming == client.messages[1]
        assert client.unacknowledged == ()
        lead(led, "Hi", "lo", None)
        await until_event(client, Settled, seen)
        assert seen == [Added(QUESTION), Added(ANSWER), Grew("id2", "Hel"), Grew("id2", "lo"), Settled(WHOLE)]
        assert client.messages == (QUESTION, WHOLE)
        assert (client.is_own("m1"), client.is_own("id2")) == (True, False)


async def test_a_late_client_gets_what_is_there_and_the_rest(tmp_path: Path) -> None:
    """The answer so far is in its greeting; ``limit`` makes that shorter."""
    led = led_room()
    async with serving(counted(tmp_path, led)) as address, entered(address) as client:
        await until_event(client, Joined)
        await client.say("Hi")
        lead(led, "Hi", "Hel")
        await until_event(client, Grew)
        async with entered(address, limit=1) as late:
            joined = await until_event(late, Joined)
            assert [(message.content, message.status) for message in joined.messages] == [("Hel", "streaming")]
            assert joined.more
            lead(led, "Hi", "lo", None)
            seen: list[ClientEvent] = []
            await until_event(late, Settled, seen)
            assert (text_of(seen), late.messages) == ("lo", (WHOLE,))


async def test_what_is_said_before_the_connection_is_sent(tmp_path: Path) -> None:
    """Once, when the room has greeted."""
    async with serving(counted(tmp_path, Echo)) as address, entered(address) as client:
        await client.say("Hi")
        settled = await until_event(client, Settled)
        assert settled.message.content == "You said: Hi"
        assert [message.content for message in client.messages] == ["Hi", "You said: Hi"]


async def test_a_stop_and_a_retry(tmp_path: Path) -> None:
    """What was said stays until it is made again."""
    led = led_room()
    async with serving(counted(tmp_path, led)) as address, entered(address) as client:
        await until_event(client, Joined)
        await client.say("Hi")
        lead(led, "Hi", "Hel")
        await until_event(client, Grew)
        await client.stop()
        stopped = (await until_event(client, Settled)).message
        assert (stopped.content, stopped.status) == ("Hel", "aborted")
        await client.retry()
        assert await until_event(client, Removed) == Removed((stopped.id,))
        lead(led, "Hi", "Hello", None)
        assert (await until_event(client, Settled)).message.content == "Hello"
        assert [message.content for message in client.messages] == ["Hi", "Hello"]


async def test_what_a_room_refuses_is_told(tmp_path: Path) -> None:
    """With the message that it was; the connection stays, and the message is not sent for ever."""
    app = counted(tmp_path, Echo, limits=replace(HURRIED, message_bytes_max=1_000))
    async with serving(app) as address, entered(address) as client:
        await until_event(client, Joined)
        await client.say("x" * 1_000)
        refused = await until_event(client, Refused)
        assert (refused.code, refused.retryable, refused.message_id) == ("limit_exceeded", False, "m1")
        assert refused.message == "message_bytes_max allows 1,000 at most, this has 1,054"
        assert client.unacknowledged == ()
        await client.say("Hi")
        assert (await until_event(client, Settled)).message.content == "You said: Hi"


async def test_nothing_is_not_said(tmp_path: Path) -> None:
    """An empty message is refused before it is sent."""
    async with serving(counted(tmp_path, Echo)) as address, entered(address) as client:
        with pytest.raises(BadArguments, match="a message must not be empty"):
            await client.say(" \n")
        assert client.unacknowledged == ()


# --- the network


async def test_an_answer_goes_on_where_the_line_broke(tmp_path: Path) -> None:
    """Again and again: each word once, and no second greeting."""
    led = led_room()
    async with serving(counted(tmp_path, led)) as address, relay(address) as line, entered(line.address) as client:
        await until_event(client, Joined)
        await client.say("Hi")
        seen: list[ClientEvent] = []
        for word in ("one ", "two ", "three "):
            lead(led, "Hi", word)
            await until_event(client, Grew, seen)
            line.drop()
            lost = await until_event(client, Disconnected, seen)
            assert lost == Disconnected("the connection was lost", 50)
            lead(led, "Hi", f"({word.strip()}) ")
            await until_event(client, Connected, seen)
            await until_event(client, Grew, seen)
        lead(led, "Hi", None)
        await until_event(client, Settled, seen)
        assert text_of(seen) == "one (one) two (two) three (three) "
        assert client.messages[1].content == "one (one) two (two) three (three) "
        kinds = [type(event).__name__ for event in seen]
        assert kinds == [
            "Added",
            "Added",
            *["Grew", "Disconnected", "Connected", "Grew"] * 3,
            "Settled",
        ]


class Remembering(ChatRoom):
    """Says ten words, as far as the test allows; remembers where its clients came back from."""

    said: ClassVar[int]
    offsets: ClassVar[list[str | None]]

    async def on_connect(self, connection: Connection) -> None:
        Remembering.offsets.append(connection.query.get("offset"))

    async def respond(self, turn: TurnContext) -> AsyncIterator[str]:
        for number in range(turn.partial.count(" "), 10):
            await until(lambda: Remembering.said > number)  # noqa: B023
            yield f"word{number} "


TEN_WORDS = "".join(f"word{number} " for number in range(10))


@pytest.fixture
def remembering() -> Iterator[type[Remembering]]:
    """The class as new."""
    Remembering.said, Remembering.offsets = 0, []
    yield Remembering
    Remembering.said = 10


async def test_a_killed_server_is_taken_up_where_it_was(tmp_path: Path, remembering: type[Remembering]) -> None:
    """``kill -9`` amid an answer, then a start from what the disk had: by its offset, each word once."""
    async with relay() as line:
        app = App([remembering], data=tmp_path / "first", limits=HURRIED)
        seen: list[ClientEvent] = []
        async with serving(app) as address:
            line.target = address
            remembering.said = 4
            client = RoomClient(f"ws://{line.address}/ws/r", random=lambda: 0.0)
            await client.say("Go")
            while text_of(seen) != "word0 word1 word2 word3 ":
                await until_event(client, Grew, seen)
            folder = await killed(app.runtime, tmp_path / "second")
            line.lead_to(None)
            await until_event(client, Disconnected, seen)
        remembering.said = 10
        async with serving(App([remembering], data=folder, limits=HURRIED)) as address:
            line.target = address
            await until_event(client, Settled, seen)
            await client.aclose()
    assert text_of(seen) == client.messages[1].content == TEN_WORDS
    assert [type(event) for event in seen].count(Joined) == 1
    assert remembering.offsets[0] is None
    assert all(offset is not None for offset in remembering.offsets[1:])


async def test_a_stopped_server_is_taken_up_where_it_was(tmp_path: Path, remembering: type[Remembering]) -> None:
    """A planned restart: the client is told to come back, and does."""
    async with relay() as line, entered(line.address) as client:
        seen: list[ClientEvent] = []
        async with serving(App([remembering], data=tmp_path, limits=HURRIED)) as address:
            line.target = address
            remembering.said = 4
            await client.say("Go")
            await until_event(client, Grew, seen)
        lost = await until_event(client, Disconnected, seen)
        assert lost.reason == "the server is restarting"
        remembering.said = 10
        async with serving(App([remembering], data=tmp_path, limits=HURRIED)) as address:
            line.target = address
            await until_event(client, Settled, seen)
        assert text_of(seen) == client.messages[1].content == TEN_WORDS


async def test_what_is_said_without_a_network_is_sent_once_later(tmp_path: Path) -> None:
    """Also where the message had arrived and only its echo was lost."""
    led = led_room()
    app = counted(tmp_path, led)
    async with serving(app) as address, relay(address) as line, entered(line.address) as client:
        await until_event(client, Joined)
        line.lead_to(None)
        await until_event(client, Disconnected)
        assert await client.say("one") == "m1"
        await app.get(led, "r").submit("one", id="m1", user="Ann")
        await client.say("two")
        line.target = address
        lead(led, "one", "first", None)
        lead(led, "two", "second", None)
        while sum(message.status == "complete" for message in client.messages) < 2:
            await until_event(client, Settled)
        assert client.unacknowledged == ()
        said = [message.content for message in client.messages if message.role == "user"]
        assert said == ["one", "two"]
        assert [message.text for message in await app.get(led, "r").messages() if message.role == "user"] == said


async def test_what_was_cut_meanwhile_is_removed(tmp_path: Path) -> None:
    """Another client let the answer be made again: the old one goes, the new one comes."""
    led = led_room()
    app = counted(tmp_path, led)
    async with serving(app) as address, relay(address) as line, entered(line.address) as client:
        await client.say("Hi")
        lead(led, "Hi", "Hallo", None)
        old = (await until_event(client, Settled)).message
        line.lead_to(None)
        await until_event(client, Disconnected)
        await app.get(led, "r").answer_again()
        lead(led, "Hi", "Hello", None)
        await until(lambda: len(led.contexts) == 2)
        line.target = address
        assert await until_event(client, Removed) == Removed((old.id,))
        while [message.content for message in client.messages] != ["Hi", "Hello"]:
            await anext(aiter(client))


async def test_waits_grow_while_nobody_answers(tmp_path: Path) -> None:
    """Half of each is random, so that a crowd of clients does not come at once."""
    async with serving(counted(tmp_path, Echo)) as address, relay(address) as line:
        async with entered(line.address, random=lambda: 0.5) as client:
            await until_event(client, Joined)
            line.lead_to(None)
            waits = [(await until_event(client, Disconnected)).retry_in_ms for _ in range(3)]
            assert waits == [75, 187, 375]


async def test_a_line_that_breaks_now_and_then_is_taken_up_at_once(tmp_path: Path) -> None:
    """Each time as if it were the first, though nothing is said between."""
    async with serving(counted(tmp_path, Echo)) as address, relay(address) as line, entered(line.address) as client:
        await until_event(client, Joined)
        for _ in range(3):
            line.drop()
            assert (await until_event(client, Disconnected)).retry_in_ms == 50
            await until_event(client, Connected)


async def test_a_busy_room_is_tried_again(tmp_path: Path) -> None:
    """A refusal that will pass: the message is kept, and taken when there is room."""

    class Full(Echo):
        """Refuses twice."""

        refusals: ClassVar[int] = 2

        def submit_message(self, message: Any, **options: Any) -> Any:
            if Full.refusals:
                Full.refusals -= 1
                raise Overloaded("come back later")
            return super().submit_message(message, **options)

    async with serving(counted(tmp_path, Full)) as address, entered(address) as client:
        await until_event(client, Joined)
        await client.say("Hi")
        seen: list[ClientEvent] = []
        await until_event(client, Added, seen)
        refused = [event for event in seen if isinstance(event, Refused)]
        assert [(event.code, event.retryable) for event in refused] == [("overloaded", True)] * 2
        assert [event.reason for event in seen if isinstance(event, Disconnected)] == ["come back later"] * 2
        assert client.unacknowledged == ()


# --- refusals


async def by_header(connection: HTTPConnection) -> User | None:
    """Ann, in her rooms; nobody else."""
    return User("Ann", rooms=["ann"]) if connection.headers.get("authorization") == "ann" else None


@pytest.mark.parametrize(
    ("path", "headers", "sentence"),
    [
        ("/ws/ann", {}, "the server closed the connection: sign in to use this"),
        ("/ws/ben", {"authorization": "ann"}, "the server closed the connection: you may not enter this room"),
        (
            "/nowhere",
            {"authorization": "ann"},
            "the server closed the connection: there is no room at this address; rooms are at /ws/{room}",
        ),
        (
            "/objects/Nothing/x",
            {"authorization": "ann"},
            "the server closed the connection: no class 'Nothing' is registered (known: Echo)",
        ),
    ],
)
async def test_a_server_that_will_not_have_us_is_told_of(
    tmp_path: Path, path: str, headers: dict[str, str], sentence: str
) -> None:
    """With its own reason, and no second attempt: it would end the same way."""
    app = counted(tmp_path, Echo, authenticate=by_header)
    async with serving(app) as address, relay(address) as line:
        async with entered(line.address, path, headers=headers) as client:
            with pytest.raises(RoomUnreachable) as caught:
                await until_event(client, Settled)
            assert str(caught.value) == sentence
            assert line.accepted == 1


async def test_headers_let_us_in(tmp_path: Path) -> None:
    """And the server's name for us goes before ours."""
    app = counted(tmp_path, Echo, authenticate=by_header)
    async with serving(app) as address:
        async with entered(address, "/ws/ann", headers={"authorization": "ann"}, user="Ben") as client:
            await client.say("Hi")
            await until_event(client, Settled)
            assert client.messages[0].user == "Ann"


async def test_a_user_who_is_no_longer_welcome_is_told_so(tmp_path: Path) -> None:
    """Also after years of coming back."""
    welcome = ["r"]
    app = counted(tmp_path, Echo, authenticate=lambda connection: User("Ann", rooms=welcome))
    async with serving(app) as address, relay(address) as line, entered(line.address) as client:
        await until_event(client, Joined)
        welcome.clear()
        line.drop()
        with pytest.raises(RoomUnreachable, match="you may not enter this room"):
            await until_event(client, Settled)


async def test_a_server_that_is_not_there_is_told_of_at_the_first_attempt() -> None:
    """A wrong address should not look like a bad network."""
    async with relay() as line:
        address = line.address
    async with entered(address) as client:
        with pytest.raises(RoomUnreachable) as caught:
            await until_event(client, Joined)
        assert str(caught.value) == f"cannot reach ws://{address}/ws/r: nothing listens there"


async def test_a_server_that_speaks_no_websocket_is_told_of() -> None:
    """With what it answered instead."""

    async def not_found(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})

    async with serving(not_found, lifespan="off") as address, entered(address) as client:
        with pytest.raises(RoomUnreachable) as caught:
            await until_event(client, Joined)
        assert str(caught.value) == f"cannot reach ws://{address}/ws/r: the server answered 403"


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/ws/r", "ws://", "ws://host:port/ws/r", "ws://[/ws/r"])
async def test_an_address_that_is_none_is_told_of(url: str) -> None:
    """As a mistake in a setting."""
    async with RoomClient(url) as client:
        with pytest.raises(ConfigError) as caught:
            await until_event(client, Joined)
        assert str(caught.value) == f"{url!r} is no room's address, like ws://127.0.0.1:8000/ws/general"


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("nonsense", "valid JSON: JSON is malformed: invalid character (byte 4)"),
        ('{"type":"dance"}', "what it should be: Invalid value 'dance' - at `$.type`"),
        ('{"type":"init"}', "what it should be: Object missing required field `messages`"),
    ],
)
async def test_a_server_that_speaks_another_protocol_is_told_of(frame: str, reason: str) -> None:
    """It is no room."""

    async def other(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": frame})
        await receive()

    async with serving(other, lifespan="off") as address, entered(address) as client:
        with pytest.raises(RemoteProtocolError) as caught:
            await until_event(client, Joined)
        assert str(caught.value) == f"the server's frame is not {reason}"


# --- leaving


class Watched(ChatRoom):
    """Notes how clients leave."""

    left: ClassVar[list[int]] = []

    async def on_close(self, connection: Connection, code: int, reason: str) -> None:
        Watched.left.append(code)


async def test_leaving_says_goodbye(tmp_path: Path) -> None:
    """The room sees a clean close, whether one leaves between events or amid waiting for one."""
    Watched.left.clear()
    async with serving(counted(tmp_path, Watched)) as address:
        async with entered(address) as client:
            await until_event(client, Joined)
        await until(lambda: Watched.left == [1000])
        async with entered(address) as client:
            await until_event(client, Joined)
            waiting = asyncio.create_task(until_event(client, Settled))
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await until(lambda: Watched.left == [1000, 1000])


async def test_leaving_without_having_come(tmp_path: Path) -> None:
    """Nothing is connected, nothing is closed; twice is once."""
    client = RoomClient("ws://127.0.0.1:1/ws/r")
    await client.say("Hi")
    await client.aclose()
    await client.aclose()
    assert [event async for event in client] == []


async def test_an_http_address_will_do(tmp_path: Path) -> None:
    """The room's own, with its query; the scheme is a browser's."""
    async with serving(counted(tmp_path, Echo)) as address:
        async with RoomClient(f"http://{address}/ws/r?user=Ann&limit=5") as client:
            await client.say("Hi")
            await until_event(client, Settled)
            assert client.messages[0].user == "Ann"
