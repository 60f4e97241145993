"""Rooms whose sessions are watched, and what TanStack's clients make of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import msgspec
from tests.wire.test_agui_oracle import Oracle, text_of

from perdure import ChatRoom, InterruptedTurn, TurnContext, tool
from perdure.chat.turns import Recovery
from perdure.objects.instance import Instance
from perdure.objects.runtime import Runtime
from perdure.values import format_offset
from perdure.wire.messages import ChatMessage
from perdure.wire.ui_chunks import Chunk

Event = dict[str, Any]
Text = tuple[str, str, str]

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


class Guided(ChatRoom):
    """Says what the test puts into its line: texts, chunks, errors; None ends the answer."""

    line: ClassVar[asyncio.Queue[str | Chunk | Exception | None]]
    recovery: ClassVar[Recovery] = "continue"

    async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        while (piece := await self.line.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def on_interrupted(self, turn: InterruptedTurn) -> Recovery:
        return self.recovery

    @tool(approval=True)
    def pay(self) -> str:
        """Needs somebody's word."""
        return "paid"

    @tool(client=True)
    def where(self) -> str:
        """The client's own."""
        raise NotImplementedError


def guided_room(**attributes: Any) -> type[Guided]:
    """A class of its own for each test, as the line is the class's."""
    return type("Guided", (Guided,), {"line": asyncio.Queue(), **attributes})


def question(message_id: str, text: str, *, files: int = 0) -> ChatMessage:
    """A user's message, with pictures."""
    file = {"type": "file", "mediaType": "image/gif", "url": PIXEL}
    return ChatMessage(message_id, "user", [{"type": "text", "text": text}, *([file] * files)])


async def in_room(runtime: Runtime, room: type[ChatRoom], name: str, *arguments: Any) -> Any:
    """What a method of the room returns, or a field of it is."""

    async def work(instance: Instance) -> Any:
        found = getattr(instance.object, name)
        return found(*arguments) if callable(found) else found

    return await runtime.run_in(runtime.object_id(room, "r"), work)


async def session_events(runtime: Runtime, room: type[ChatRoom], *, fresh: bool = False) -> list[Event]:
    """All that the session's stream holds; it is made, if there is none. ``fresh``: for a client that comes now."""

    async def read(instance: Instance) -> list[Event]:
        assert isinstance(instance.object, ChatRoom)
        instance.object.open_session(fresh=fresh)
        stream = instance.streams.get("session")
        entries: list[bytes] = []
        while len(entries) < stream.position:
            entries += stream.read(format_offset(len(entries))).entries
        return [msgspec.json.decode(entry) for entry in entries]

    return await runtime.run_in(runtime.object_id(room, "r"), read)


async def room_texts(runtime: Runtime, room: type[ChatRoom]) -> list[Text]:
    """Id, role and text of the room's messages; those without text are left out, as TanStack leaves them out."""
    messages: list[ChatMessage] = await runtime.get(room, "r").messages(1_000)
    return [(message.id, message.role, message.text) for message in messages if message.text.strip()]


def client_texts(messages: list[Event]) -> list[Text]:
    """The same of a client's messages."""
    shown = [(message["id"], message["role"], text_of(message)) for message in messages]
    return [(id, role, text) for id, role, text in shown if text.strip()]


def live_tab(oracle: Oracle, events: list[Event], posts: list[int] | None = None) -> list[Event]:
    """The messages of a tab that has been there from the first event on."""
    messages: list[Event] = oracle.ask("fold", events=events, posts=posts or [])["messages"]
    return messages


def late_tab(oracle: Oracle, events: list[Event], joined_at: int) -> list[Event]:
    """The messages of a tab that came after so many events: the transport folds those for it."""
    before = oracle.ask("transport", events=events[:joined_at])["messages"]
    return live_tab(oracle, [{"type": "MESSAGES_SNAPSHOT", "messages": before}, *events[joined_at:]])
