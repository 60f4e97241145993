"""Rooms and their clients for the tests of chat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from perdure import ChatRoom, TurnContext
from perdure.objects.runtime import Runtime

TEN_WORDS = "word1 word2 word3 word4 word5 word6 word7 word8 word9 word10"


class Echo(ChatRoom):
    """Says back what it hears."""

    model = "scripted:echo"


class Hanging(ChatRoom):
    """Says five of ten words, then nothing more; after a crash, the rest."""

    model = "scripted:count=10&hang_at=5&attempts=1"


class Led(ChatRoom):
    """Answers word by word, as the test allows it."""

    model = None
    script: dict[str, asyncio.Queue[str | Exception | None]]
    contexts: list[TurnContext]

    async def respond(self, turn: TurnContext) -> AsyncIterator[str]:
        type(self).contexts.append(turn)
        queue = type(self).script.setdefault(turn.text, asyncio.Queue())
        while (piece := await queue.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def led_room() -> type[Led]:
    """A class of its own for each test, as its script is the class's."""
    return type("Led", (Led,), {"script": {}, "contexts": []})


def lead(room: type[Led], text: str, *pieces: str | Exception | None) -> None:
    """Let the answer to ``text`` go on by these pieces; None ends it."""
    for piece in pieces:
        room.script.setdefault(text, asyncio.Queue()).put_nowait(piece)


async def texts(runtime: Runtime, room: type[ChatRoom], name: str = "r") -> list[tuple[str, str]]:
    """The room's messages: roles and texts."""
    return [(message.role, message.text) for message in await runtime.get(room, name).messages()]


async def statuses(runtime: Runtime, room: type[ChatRoom], name: str = "r") -> list[tuple[str, str | None]]:
    """The statuses of the room's answers, with their errors."""
    shown = await runtime.run_in(runtime.object_id(room, name), _room_messages)
    return [(item["status"], item.get("error")) for item in shown if item["role"] == "assistant"]


async def _room_messages(instance: Any) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = instance.object.room_messages()[0]
    return shown
