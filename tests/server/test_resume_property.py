"""Whatever cuts a client off, on any protocol, it has each word once in the end (P4)."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.running import HURRIED, killed, reset, serving, until
from tests.server.clients import Room, events, http, room

from perdure import App, ChatRoom, InterruptedTurn, TurnContext
from perdure.chat.turns import Recovery
from perdure.wire.fold import MessageFold
from perdure.wire.ui_chunks import decode_chunk

WORDS = [f"w{number:02d} " for number in range(40)]
WHOLE = "".join(WORDS)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("speak"), st.integers(1, 8)),
        st.tuples(st.just("cut"), st.integers(0, 3)),
        st.tuples(st.just("go back"), st.integers(0, 50)),
        st.tuples(st.just("replay"), st.integers(0, 400)),
        st.tuples(st.just("fresh tab"), st.just(0)),
        st.tuples(st.sampled_from(["reset", "restart", "kill"]), st.just(0)),
    ),
    min_size=4,
    max_size=14,
)


class Paced(ChatRoom):
    """Says the words up to the one that the story has come to."""

    allowed = 0

    async def on_interrupted(self, turn: InterruptedTurn) -> Recovery:
        return "continue"

    async def respond(self, turn: TurnContext) -> AsyncIterator[str]:
        said = len(turn.partial) // len(WORDS[0])
        while said < len(WORDS):
            await until(lambda: said < Paced.allowed, timeout_s=60)  # noqa: B023
            yield WORDS[said]
            said += 1


class Tab:
    """A client in delta mode: what it has seen at each offset."""

    def __init__(self) -> None:
        self.text = ""
        self.done = False
        self.past: list[tuple[str, str]] = []

    def take(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "init":
            answers = [message["content"] for message in frame["messages"] if message["role"] == "assistant"]
            self.text = answers[-1] if answers else ""
            self.done = bool(answers) and "streaming" not in frame
        elif frame["type"] == "delta":
            self.text += frame["delta"]
        elif frame["type"] == "complete":
            assert frame["content"] == self.text
            self.done = True
        if "offset" in frame:
            self.past.append((frame["offset"], self.text))

    async def watch(self, client: Room, *, until_text: str) -> None:
        """Take frames until the text is there."""
        while len(self.text) < len(until_text):
            self.take(await client.next())
            assert WHOLE.startswith(self.text)


class Story:
    """A room whose one answer is told word by word, and its clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kills = 0
        self.tab = Tab()
        self.stack = AsyncExitStack()
        self.app: App
        self.address: str
        self.answer_id = ""
        Paced.allowed = 0

    async def start(self) -> None:
        self.app = App([Paced], data=self.folder, limits=HURRIED, pages=False)
        self.address = await self.stack.enter_async_context(serving(self.app))

    async def stop(self) -> None:
        await self.stack.aclose()
        self.stack = AsyncExitStack()

    async def step(self, action: str, number: int) -> None:
        if action == "speak":
            Paced.allowed = min(Paced.allowed + number, len(WORDS) - 1)
        elif action == "cut":
            await self.visit(frames_max=number)
        elif action == "go back" and self.tab.past:
            at = number % len(self.tab.past)
            self.tab.past = self.tab.past[: at + 1]
            self.tab.text = self.tab.past[at][1]
        elif action == "replay":
            await self.replay(number)
        elif action == "fresh tab":
            self.tab = Tab()
        elif action == "reset":
            reset(self.app.runtime, Paced, "r")
        elif action in ("restart", "kill"):
            folder = self.folder
            if action == "kill":
                self.kills += 1
                folder = await killed(self.app.runtime, self.folder.with_name(f"killed{self.kills}"))
            await self.stop()
            self.folder = folder
            await self.start()

    async def visit(self, *, frames_max: int) -> None:
        """Connect where the tab stands, take some frames, leave without a word."""
        query = {"delta": "1"} | ({"offset": self.tab.past[-1][0]} if self.tab.past else {})
        async with room(self.address, query=query) as client:
            for _ in range(frames_max):
                try:
                    self.tab.take(await client.next(timeout_s=0.03))
                except TimeoutError:
                    break
                assert WHOLE.startswith(self.tab.text)
            client.socket.transport.abort()

    async def replay(self, bytes_max: int) -> None:
        """Read the turn from its start chunk over SSE; leave after so many bytes."""
        answer = MessageFold(self.answer_id)
        async with http(self.address) as client, client.stream("GET", "/api/chat/r/stream") as response:
            assert response.status_code == 200
            size = 0
            try:
                async with asyncio.timeout(0.03):
                    async for event in events(response):
                        answer.push(decode_chunk(event.data))
                        size += len(event.data)
                        if size >= bytes_max:
                            break
            except TimeoutError:
                pass
        assert WHOLE.startswith(answer.text)

    async def finish(self) -> None:
        query = {"delta": "1"} | ({"offset": self.tab.past[-1][0]} if self.tab.past else {})
        async with http(self.address) as client, client.stream("GET", "/api/chat/r/stream") as response:
            async with room(self.address, query=query) as tab:
                Paced.allowed = len(WORDS)
                while not self.tab.done:
                    self.tab.take(await tab.next())
            answer = MessageFold(self.answer_id)
            data = [event.data async for event in events(response)]
            for item in data[:-1]:
                answer.push(decode_chunk(item))
            assert (data[-1], answer.status, answer.text) == ("[DONE]", "finished", WHOLE)


async def _tell(steps: list[tuple[str, int]], folder: Path) -> str:
    story = Story(folder)
    await story.start()
    try:
        async with asyncio.timeout(20):
            story.answer_id = (await story.app.get(Paced, "r").submit("Tell me")).answer_id
            for action, number in steps:
                await story.step(action, number)
            await story.finish()
    finally:
        await story.stop()
    return story.tab.text


@settings(max_examples=20, deadline=None)
@given(STEPS)
def test_a_client_has_each_word_once(steps: list[tuple[str, int]]) -> None:
    """By WebSocket with its offset, by SSE from the start; over resets, restarts and kills."""
    with tempfile.TemporaryDirectory() as folder:
        assert uvloop.run(_tell(steps, Path(folder) / "data")) == WHOLE
    assert re.fullmatch(r"(w\d\d )+", WHOLE)
