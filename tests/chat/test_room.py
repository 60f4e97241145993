"""What a room does with messages: each its own turn, or the newest only; and how much it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.chat.rooms import lead, led_room, statuses, texts
from tests.objects.clients import Client
from tests.running import eventually, running

from perdure import ChatRoom, TurnContext
from perdure.errors import BadArguments, LimitExceeded, Overloaded
from perdure.objects.runtime import Runtime
from perdure.wire.ui_chunks import Chunk, ReasoningDelta, ReasoningEnd, ReasoningStart

pytestmark = pytest.mark.anyio


async def _all_answered(runtime: Runtime, room: type[ChatRoom], count: int) -> None:
    async def answered() -> bool:
        found = await statuses(runtime, room)
        return len(found) == count and all(status != "streaming" for status, _ in found)

    await eventually(answered)


# --- one turn after another


async def test_messages_during_an_answer_wait_for_their_own(tmp_path: Path) -> None:
    """Policy ``queue``: in order, one at a time, each shown what was said before it."""
    led = led_room()
    async with running(tmp_path, led) as runtime:
        room = runtime.get(led, "r")
        for text in ("one", "two", "three"):
            await room.submit(text)
        assert await texts(runtime, led) == [("user", "one"), ("assistant", ""), ("user", "two"), ("user", "three")]
        assert len(led.contexts) == 1
        for text in ("one", "two", "three"):
            lead(led, text, f"answer to {text}", None)
        await _all_answered(runtime, led, 3)
        assert [(turn.text, turn.attempt) for turn in led.contexts] == [("one", 1), ("two", 1), ("three", 1)]
        assert [(message.role, message.text) for message in led.contexts[2].messages] == [
            ("user", "one"),
            ("assistant", "answer to one"),
            ("user", "two"),
            ("assistant", "answer to two"),
            ("user", "three"),
        ]


async def test_the_newest_message_ends_the_answer_before(tmp_path: Path) -> None:
    """Policy ``latest``: what was said stays, those between are not answered."""
    led = led_room()
    led.policy = "latest"
    async with running(tmp_path, led) as runtime:
        room = runtime.get(led, "r")
        await room.submit("one")
        lead(led, "one", "As I was say")

        async def said() -> bool:
            return (await texts(runtime, led))[-1] == ("assistant", "As I was say")

        await eventually(said)
        await asyncio.gather(room.submit("two"), room.submit("three"))
        lead(led, "three", "Three it is", None)
        await _all_answered(runtime, led, 2)
        assert await statuses(runtime, led) == [("aborted", None), ("complete", None)]
        assert [turn.text for turn in led.contexts] == ["one", "three"]
        assert (await texts(runtime, led))[-1] == ("assistant", "Three it is")


async def test_a_room_of_people_answers_nothing(tmp_path: Path) -> None:
    """Without a model and without `respond` messages are passed on, and that is all."""

    class Hall(ChatRoom):
        model = None

    async with running(tmp_path, Hall) as runtime:
        listener = Client.of(runtime, Hall, "r")
        said = await runtime.get(Hall, "r").submit("Hello?", user="ann")
        assert said.answer_id is None
        await eventually(lambda: asyncio.sleep(0, len(listener.frames) == 2))
        assert listener.json[1]["message"]["user"] == "ann"
        assert await texts(runtime, Hall) == [("user", "Hello?")]


# --- the same message twice


async def test_a_message_has_one_turn_however_often_it_is_sent(tmp_path: Path) -> None:
    """Its id makes it one message; an empty one is none."""
    led = led_room()
    async with running(tmp_path, led) as runtime:
        room = runtime.get(led, "r")
        first = await room.submit("one", id="m1")
        again = await room.submit("one", id="m1")
        assert (first.known, again.known) == (False, True)
        assert (again.message_id, again.answer_id) == ("m1", first.answer_id)
        with pytest.raises(BadArguments, match="a message must not be empty"):
            await room.submit("  ")
        assert [role for role, _ in await texts(runtime, led)] == ["user", "assistant"]


# --- limits


async def test_so_many_messages_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused until one has its turn; nothing that was taken is lost."""
    monkeypatch.setattr("perdure.chat.room.WAITING_MESSAGES_MAX", 3)
    led = led_room()
    async with running(tmp_path, led) as runtime:
        room = runtime.get(led, "r")
        await room.submit("running")
        for text in ("one", "two", "three"):
            await room.submit(text)
        with pytest.raises(Overloaded, match=r"3 messages wait .* \(waiting_messages_max\)"):
            await room.submit("four")
        for text in ("running", "one"):
            lead(led, text, "ok", None)
        await eventually(lambda: asyncio.sleep(0, len(led.contexts) == 3))
        await room.submit("four")
        for text in ("two", "three", "four"):
            lead(led, text, "ok", None)
        await _all_answered(runtime, led, 5)
        assert [turn.text for turn in led.contexts] == ["running", "one", "two", "three", "four"]


@pytest.mark.parametrize(("piece", "fits"), [("x", 1_000), ("é", 500)])
async def test_an_answer_has_a_largest_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: str, fits: int
) -> None:
    """In bytes. At the limit it is whole; past it the turn fails, and what was said stays."""
    monkeypatch.setattr("perdure.chat.turn.ANSWER_BYTES_MAX", 1_000)
    led = led_room()
    async with running(tmp_path, led) as runtime:
        room = runtime.get(led, "r")
        await room.submit("fits")
        lead(led, "fits", *[piece * 100] * (fits // 100), None)
        await _all_answered(runtime, led, 1)
        await room.submit("too long")
        lead(led, "too long", *[piece * 100] * (fits // 100), piece)
        await _all_answered(runtime, led, 2)
        error = "the answer is longer than 1,000 bytes (answer_bytes_max)"
        assert await statuses(runtime, led) == [("complete", None), ("failed", error)]
        assert [text for role, text in await texts(runtime, led) if role == "assistant"] == [piece * fits] * 2


async def test_thoughts_count_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that never comes to its answer is stopped, too."""
    monkeypatch.setattr("perdure.chat.turn.ANSWER_BYTES_MAX", 1_000)

    class Brooding(ChatRoom):
        async def respond(self, turn: TurnContext) -> AsyncIterator[Chunk]:
            yield ReasoningStart(id="r1")
            while True:
                yield ReasoningDelta(id="r1", delta="hm " * 30)
                await asyncio.sleep(0)
            yield ReasoningEnd(id="r1")

    async with running(tmp_path, Brooding) as runtime:
        await runtime.get(Brooding, "r").submit("Well?")
        await _all_answered(runtime, Brooding, 1)
        error = "the answer is longer than 1,000 bytes (answer_bytes_max)"
        assert await statuses(runtime, Brooding) == [("failed", error)]


@pytest.mark.parametrize(
    ("limit", "name"), [("client_id_bytes_max", "id"), ("user_name_bytes_max", "user")], ids=["id", "user"]
)
async def test_ids_and_names_have_a_largest_size(tmp_path: Path, limit: str, name: str) -> None:
    """Whichever way they come; at the limit all is well."""
    async with running(tmp_path, led_room()) as runtime:
        room = runtime.get("Led", "r")
        await room.submit("fits", **{name: "é" * 128})
        with pytest.raises(LimitExceeded, match=f"{limit} allows 256 at most, this has 257"):
            await room.submit("too long", **{name: "é" * 128 + "x"})
        assert [message.text for message in await room.messages() if message.role == "user"] == ["fits"]
