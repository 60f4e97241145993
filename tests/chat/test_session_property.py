"""Whatever happens in a room, its session says what the room says, and TanStack's clients show just that."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.chat.sessions import (
    Event,
    Guided,
    Text,
    client_texts,
    guided_room,
    in_room,
    late_tab,
    live_tab,
    question,
    room_texts,
    session_events,
)
from tests.requirements import need
from tests.running import HURRIED, reset
from tests.wire.test_agui_oracle import NPM, Oracle

from perdure.objects.runtime import Runtime
from perdure.wire.messages import ChatMessage
from perdure.wire.ui_chunks import (
    Chunk,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    ToolInputAvailable,
    ToolOutputAvailable,
)

SAID: dict[str, tuple[str | Chunk, ...]] = {
    "words": ("some ", "words "),
    "thought": (ReasoningStart("r"), ReasoningDelta("r", "hm "), ReasoningEnd("r")),
    "call": (ToolInputAvailable("call", "where", {"x": 1}), ToolOutputAvailable("call", "here")),
}

CALLED = {"pay": ("pay",), "where": ("where",), "both": ("where", "pay")}
"""Calls that make the answer wait, at the end of a step."""

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from([0, 0, 0, 1])),
        st.tuples(st.sampled_from(["words", "words", "words", "thought", "call", "end", "fail"]), st.just(0)),
        st.tuples(st.sampled_from(["stop", "reset", "open", "come"]), st.just(0)),
        st.tuples(st.sampled_from(["pay", "where", "both"]), st.just(0)),
        st.tuples(st.sampled_from(["approve", "deny", "give", "approve", "give"]), st.just(0)),
        st.tuples(st.sampled_from(["edit", "illustrate", "regenerate"]), st.integers(0, 20)),
    ),
    min_size=4,
    max_size=24,
)


class Story:
    """One run of a room."""

    def __init__(self, runtime: Runtime, room: type[Guided]) -> None:
        self.runtime = runtime
        self.room = room
        self.questions = 0
        self.edits = 0
        self.calls = 0

    async def step(self, action: str, number: int) -> None:
        if action == "ask":
            self.questions += 1
            asked = question(f"m{self.questions}", f"Question {self.questions}?", files=number)
            await in_room(self.runtime, self.room, "submit_message", asked)
        elif action in SAID:
            self.guide(*SAID[action])
        elif action == "end":
            self.guide(None)
        elif action == "fail":
            self.guide(ValueError("oops"))
        elif action == "stop":
            await self.runtime.get(self.room, "r").stop()
        elif action == "reset":
            reset(self.runtime, self.room, "r")
        elif action in ("open", "come"):
            await session_events(self.runtime, self.room, fresh=action == "come")
        elif action in CALLED:
            self.calls += 1
            for name in CALLED[action]:
                self.guide(ToolInputAvailable(f"{name}-{self.calls}", name, {}))
            self.guide(None)
        elif action in ("approve", "deny", "give"):
            await self.settle(action)
        else:
            await self.change(action, number)
        await asyncio.sleep(0.002)

    def guide(self, *pieces: str | Chunk | Exception | None) -> None:
        """Let the running answer go on, if there is one."""
        for piece in pieces:
            self.room.line.put_nowait(piece)

    async def settle(self, action: str) -> None:
        """Answer the newest call that waits for this, if there is one."""
        for number in range(self.calls, 0, -1):
            if action == "give":
                done = await in_room(self.runtime, self.room, "tool_result", f"where-{number}", "here")
            else:
                done = await in_room(self.runtime, self.room, "answer_approval", f"pay-{number}", action == "approve")
            if done:
                return

    async def change(self, action: str, number: int) -> None:
        messages: list[ChatMessage] = await self.runtime.get(self.room, "r").messages(100)
        role = "assistant" if action == "regenerate" else "user"
        of_role = [message for message in messages if message.role == role]
        if not of_role:
            return
        target = of_role[number % len(of_role)]
        if action == "regenerate":
            await in_room(self.runtime, self.room, "regenerate", target.id)
            return
        self.edits += 1
        edited = question(target.id, f"Edit {self.edits}?", files=int(action == "illustrate"))
        await in_room(self.runtime, self.room, "edit", edited)

    async def finish(self) -> None:
        """Let all answers end."""
        while await in_room(self.runtime, self.room, "streaming_answer") is not None:
            if self.room.line.empty():
                self.guide("the end", None)
            await asyncio.sleep(0.002)


async def tell(
    folder: Path, steps: list[tuple[str, int]], attributes: Any
) -> tuple[list[Text], list[Event], list[Event]]:
    """Let it happen: what the room says at last, and all that the session has said; to those who were there, and
    to one that comes then."""
    room = guided_room(**attributes)
    runtime = Runtime(folder, [room], limits=HURRIED)
    await runtime.start()
    try:
        story = Story(runtime, room)
        for action, number in steps:
            await story.step(action, number)
        async with asyncio.timeout(20):
            await story.finish()
        told = await session_events(runtime, room)
        return await room_texts(runtime, room), told, await session_events(runtime, room, fresh=True)
    finally:
        await runtime.stop()


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    """TanStack AI itself."""
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    present = (NPM / "node_modules" / "@tanstack" / "ai-client").is_dir()
    need("the npm package `@tanstack/ai-client`", present, "npm install --prefix tests/npm")
    process = Oracle()
    yield process
    process.close()


def check_same(messages: list[Event], expected: list[Text]) -> None:
    """The same texts, questions and answers each in their order.

    An answer's place among the questions may be another: clients put it where its first word came.
    """
    shown = client_texts(messages)
    for role in ("user", "assistant"):
        assert [text for text in shown if text[1] == role] == [text for text in expected if text[1] == role]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    STEPS,
    st.sampled_from(["queue", "latest"]),
    st.sampled_from(["continue", "continue", "retry", "fail"]),
    st.lists(st.integers(0, 1_000), max_size=3),
    st.integers(0, 1_000),
)
def test_clients_show_what_the_room_says(
    oracle: Oracle, steps: list[tuple[str, int]], policy: str, recovery: str, posts: list[int], joined: int
) -> None:
    """Tabs that were there all the time, that posted, that came late, and that are reloaded."""
    with tempfile.TemporaryDirectory() as folder:
        attributes = {"policy": policy, "recovery": recovery}
        expected, events, later = uvloop.run(tell(Path(folder) / "data", steps, attributes))
    check_same(live_tab(oracle, events), expected)
    # A tab posts before its user's message is told.
    told = [index for index, event in enumerate(events) if event.get("role") == "user"]
    posted = sorted({told[post % len(told)] for post in posts}) if told else []
    check_same(live_tab(oracle, events, posted), expected)
    check_same(oracle.ask("transport", events=later)["messages"], expected)
    check_same(late_tab(oracle, later, joined % (len(events) + 1)), expected)
