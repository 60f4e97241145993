"""Files in a conversation: the model loads what was sent, and what it makes is kept; both go with their messages."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.chat.rooms import statuses
from tests.chat.test_files import NOON_MS, PNG, Clock, data_url, file_part, message
from tests.running import eventually, hibernated, running

from perdure import ChatRoom, TurnContext
from perdure.chat.submitted import Submitted
from perdure.objects.runtime import Runtime
from perdure.wire.messages import ChatMessage
from perdure.wire.ui_chunks import Chunk, File

pytestmark = pytest.mark.anyio

PICTURE = PNG + os.urandom(50_000)


class Painter(ChatRoom):
    """Says how large the pictures are that it was sent, and paints one."""

    painting = PNG + os.urandom(9_000_000)

    async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        assert turn.load_file is not None
        for part in turn.messages[-1].parts:
            if part["type"] == "file":
                data, media_type = await turn.load_file(part["url"])
                yield f"{media_type} {len(data)} "
        if "paint" in turn.text:
            yield File(data_url(type(self).painting), "image/png")


async def do(runtime: Runtime, work: Any) -> Any:
    """Do something in the room ``r``."""

    async def run(instance: Any) -> Any:
        return work(instance.object)

    return await runtime.run_in(runtime.object_id(Painter, "r"), run)


async def say(runtime: Runtime, given: ChatMessage) -> Submitted:
    """Say it, and wait until all is answered."""
    submitted: Submitted = await do(runtime, lambda room: room.submit_message(given))
    await answered(runtime)
    return submitted


async def answered(runtime: Runtime) -> None:
    """Wait until all is answered."""

    async def done() -> bool:
        return bool(await do(runtime, lambda room: room.running is None and not room.transcript.waiting()))

    await eventually(done)


async def parts(runtime: Runtime) -> list[list[dict[str, Any]]]:
    """The parts of the room's messages, without the steps."""
    messages = await runtime.get(Painter, "r").messages()
    return [[part for part in item.parts if part["type"] != "step-start"] for item in messages]


async def files(runtime: Runtime) -> int:
    """How many files the room has."""
    return int((await do(runtime, lambda room: room.files.store.totals()))[0])


async def count(runtime: Runtime, number: int) -> None:
    """Wait until the room has so many files."""

    async def so_many() -> bool:
        return await files(runtime) == number

    await eventually(so_many)


def text(said: str) -> dict[str, Any]:
    """A text part."""
    return {"type": "text", "text": said}


async def test_a_model_loads_what_was_sent(tmp_path: Path) -> None:
    """What was stored and what stayed in the message alike."""
    async with running(tmp_path, Painter) as runtime:
        await say(runtime, message(text("look"), file_part(PICTURE), file_part(PNG)))
        question, answer = await parts(runtime)
        assert question[1]["url"].startswith("/api/chat/r/files/")
        assert question[2]["url"].startswith("data:")
        assert answer == [{"type": "text", "text": "image/png 50008 image/png 8 ", "state": "done"}]


async def test_what_a_model_paints_is_stored(tmp_path: Path) -> None:
    """Its chunk and its message hold an address; so a picture larger than an answer may be is none too large."""
    async with running(tmp_path, Painter) as runtime:
        submitted = await say(runtime, message(text("paint")))
        assert await statuses(runtime, Painter) == [("complete", None)]
        [_, answer] = await parts(runtime)
        [part] = answer
        assert (part["type"], part["mediaType"]) == ("file", "image/png")

        async def load(instance: Any) -> tuple[bytes, str]:
            loaded: tuple[bytes, str] = await instance.object.files.load(part["url"])
            return loaded

        assert await runtime.run_in(runtime.object_id(Painter, "r"), load) == (Painter.painting, "image/png")
        chunks = await do(runtime, lambda room: list(room.streams.find(submitted.stream).entries()))
        assert [chunk for chunk in chunks if b'"file"' in chunk] == [
            b'{"type":"file","url":"%b","mediaType":"image/png"}' % part["url"].encode()
        ]


async def test_the_same_message_again_and_edited(tmp_path: Path) -> None:
    """A client's message that still holds the picture itself is the one that holds its address."""
    first = message(text("look"), file_part(PICTURE))
    async with running(tmp_path, Painter) as runtime:
        await say(runtime, first)
        assert (await do(runtime, lambda room: room.submit_message(first))).known
        assert (await do(runtime, lambda room: room.edit(first))).known
        assert await files(runtime) == 1
        edited = message(text("paint"), file_part(PICTURE))
        assert not (await do(runtime, lambda room: room.edit(edited))).known
        await answered(runtime)
        question, answer = await parts(runtime)
        assert [part["type"] for part in question + answer] == ["text", "file", "text", "file"]
        assert await files(runtime) == 2


async def test_files_of_branches_stay(tmp_path: Path) -> None:
    """What was edited away can come back, so its picture is kept, however old."""
    clock = Clock()
    async with running(tmp_path, Painter, clock_ms=lambda: clock.now_ms) as runtime:
        await say(runtime, message(text("hello"), id="m0"))
        await say(runtime, message(text("look"), file_part(PICTURE)))
        await do(runtime, lambda room: room.edit(message(text("never mind"))))
        await answered(runtime)
        await do(runtime, lambda room: room.regenerate(room.transcript.find("m0").answer_id))
        await answered(runtime)
        clock.now_ms += 2 * 86_400_000
        await hibernated(runtime, Painter, "r")
        assert await files(runtime) == 1


async def test_cleared_rooms_hold_nothing(tmp_path: Path) -> None:
    """Files of messages that are removed for good go with them; one that is still to be sent stays."""
    async with running(tmp_path, Painter) as runtime:
        await say(runtime, message(text("paint"), file_part(PICTURE)))
        await do(runtime, lambda room: room.files._store("text/plain", None, b"to be sent"))
        assert await files(runtime) == 3
        await do(runtime, lambda room: room.clear())
        await count(runtime, 1)


async def test_replaced_messages_keep_their_files(tmp_path: Path) -> None:
    """A client that sends the whole list: what is in it stays, new ones are stored, the rest goes."""
    async with running(tmp_path, Painter) as runtime:
        await say(runtime, message(text("paint"), file_part(PICTURE)))
        await say(runtime, message(text("look"), file_part(PICTURE + b"2"), id="m2"))
        assert await files(runtime) == 3
        first, painted, *_ = await runtime.get(Painter, "r").messages()
        other = message(file_part(PICTURE + b"3"), id="m3")
        await do(runtime, lambda room: room.replace_messages([first, painted, other]))
        await count(runtime, 3)
        kept = [part["url"] for item in await parts(runtime) for part in item if part["type"] == "file"]
        assert len(kept) == 3
        assert all(url.startswith("/api/chat/r/files/") for url in kept)


async def test_old_files_go_when_a_room_wakes(tmp_path: Path) -> None:
    """A file that nobody used, after a day: no alarm rings for it, the next use of the room is enough."""
    clock = Clock()
    async with running(tmp_path, Painter, clock_ms=lambda: clock.now_ms) as runtime:
        await do(runtime, lambda room: room.files._store("text/plain", None, b"x" * 500_000))
        await hibernated(runtime, Painter, "r")
        clock.now_ms = NOON_MS + 86_400_001
        await count(runtime, 0)
