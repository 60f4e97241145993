"""Clients of the room protocol, in its three kinds, see the same room: whatever happens, and however often they are
cut off."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.chat.sessions import Guided, question
from tests.chat.tool_rooms import call, tooled
from tests.objects.clients import Client
from tests.running import HURRIED, reset, running, until

from perdure import ChatRoom, tool
from perdure.client import Added, Grew, Joined, Message, Removed, Replaced, RoomEvent
from perdure.client.core import RoomCore
from perdure.objects.instance import Instance
from perdure.objects.runtime import Runtime
from perdure.wire.messages import ChatMessage
from perdure.wire.room import RoomMessage
from perdure.wire.ui_chunks import Chunk, ReasoningDelta, ReasoningEnd, ReasoningStart, SourceUrl

KINDS: tuple[dict[str, str], ...] = ({"parts": "1"}, {"delta": "1"}, {})


# --- the frames of one answer


def newest(client: Client) -> dict[str, Any]:
    """The frame that came last."""
    found: dict[str, Any] = client.json[-1] if client.frames else {}
    return found


@pytest.mark.anyio
async def test_a_tool_call_comes_as_chunks(tmp_path: Path) -> None:
    """Each chunk once, in order, between the empty answer and its end."""
    room = tooled([call("weather", {"city": "Rome"})], ["It is ", "sunny."])
    async with running(tmp_path, room) as runtime:
        client = Client.of(runtime, room, "r", parts="1")
        client.say('{"type":"message","content":"How is Rome?","id":"m1"}')
        await until(lambda: newest(client).get("type") == "complete")
        frames = client.json
        assert [frame["type"] for frame in frames[:3]] == ["init", "message", "message"]
        assert {frame["type"] for frame in frames[3:-1]} == {"chunks"}
        chunks = [chunk for frame in frames[3:-1] for chunk in frame["chunks"]]
        assert [chunk["type"] for chunk in chunks] == [
            *("start", "start-step", "tool-input-available", "tool-output-available", "finish-step"),
            *("start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"),
        ]
        assert chunks[3] == {"type": "tool-output-available", "toolCallId": "c1", "output": "sunny in Rome"}
        assert (frames[-1]["content"], frames[-1]["status"]) == ("It is sunny.", "complete")
        late = Client.of(runtime, room, "r", parts="1")
        await until(lambda: late.frames)
        assert [part["type"] for part in late.json[0]["messages"][1]["parts"]] == [
            *("step-start", "tool-weather", "step-start", "text"),
        ]


@pytest.mark.anyio
async def test_a_plain_client_sees_what_an_answer_waits_for(tmp_path: Path) -> None:
    """As the end of what it says for now; it may even respond; the same answer then goes on."""
    room = tooled(["Let me see. ", call("erase", {"path": "/tmp/x"})], ["Gone."])
    async with running(tmp_path, room) as runtime:
        client = Client.of(runtime, room, "r")
        client.say('{"type":"message","content":"Erase it","id":"m1"}')
        await until(lambda: newest(client).get("type") == "complete")
        wait = {"id": "c1", "tool": "erase", "kind": "approval", "input": {"path": "/tmp/x"}}
        waiting = client.json[-1]
        assert (waiting["status"], waiting["content"], waiting["waits"]) == ("waiting", "Let me see. ", [wait])
        late = Client.of(runtime, room, "r")
        await until(lambda: late.frames)
        assert (late.json[0]["messages"][1]["status"], late.json[0]["messages"][1]["waits"]) == ("waiting", [wait])
        assert "streaming" not in late.json[0]
        before = len(client.frames)
        late.say('{"type":"approve","id":"c1","approved":true}')
        await until(lambda: newest(client).get("type") == "complete" and len(client.frames) > before)
        again = [frame["message"]["status"] for frame in client.json[before:] if frame["type"] == "message"]
        assert again == ["waiting", "streaming", "streaming"]  # nothing is owed, it may go on, it goes on
        assert (client.json[-1]["content"], client.json[-1]["status"]) == ("Let me see. Gone.", "complete")
        assert room.calls == [("erase", "/tmp/x")]


@pytest.mark.anyio
async def test_the_first_response_counts(tmp_path: Path) -> None:
    """What comes after it changes nothing and is no error; a result for nobody is none either."""
    room = tooled([call("erase", {"path": "/a"})], ["Gone."])
    async with running(tmp_path, room) as runtime:
        client = Client.of(runtime, room, "r")
        client.say('{"type":"message","content":"Erase it"}')
        await until(lambda: newest(client).get("type") == "complete")
        client.say('{"type":"approve","id":"c1","approved":true}')
        client.say('{"type":"approve","id":"c1","approved":false}')
        client.say('{"type":"result","id":"c9","output":1}')
        await until(lambda: newest(client).get("status") == "complete")
        assert room.calls == [("erase", "/a")]
        assert [frame for frame in client.json if frame["type"] == "error"] == []


@pytest.mark.anyio
async def test_versions_are_told_and_chosen(tmp_path: Path) -> None:
    """To clients of parts; what cannot be chosen or edited is refused."""
    async with running(tmp_path, tooled(["One."], model="scripted:echo")) as runtime:
        client = Client.of(runtime, runtime.classes["Tooled"], "r", parts="1")
        client.say('{"type":"message","content":"Hi","id":"m1"}')
        await until(lambda: newest(client).get("content") == "You said: Hi")
        client.say('{"type":"edit","content":"Yo","id":"m1"}')
        await until(lambda: newest(client).get("content") == "You said: Yo")
        shown = [frame["message"] for frame in client.json if frame["type"] == "message"]
        assert [message.get("branches") for message in shown if message["id"] == "m1"] == [
            None,
            {"index": 1, "count": 2},
        ]
        before = len(client.frames)
        client.say('{"type":"branch","id":"m1","index":0}')
        await until(lambda: len(client.frames) == before + 3)
        removed, first, second = client.json[before:]
        assert (removed["type"], removed["messageIds"][0]) == ("remove", "m1")
        assert (first["message"]["content"], first["message"]["branches"]) == ("Hi", {"index": 0, "count": 2})
        assert second["message"]["content"] == "You said: Hi"
        client.say('{"type":"branch","id":"m1","index":2}')
        client.say('{"type":"edit","id":"m9","content":"x"}')
        await until(lambda: len(client.frames) == before + 5)
        assert [frame["code"] for frame in client.json[-2:]] == ["bad_arguments", "bad_arguments"]


# --- anything may happen, and any client may be cut off


class Watched(Guided):
    """A guided room with tools that wait."""

    @tool(approval=True)
    async def erase(self, path: str) -> str:
        """Erase a file."""
        return f"{path} is gone"

    @tool(client=True)
    def locate(self) -> str:
        """Where the user is."""
        raise AssertionError("never run here")

    @tool
    async def look(self) -> list[str]:
        """Look."""
        return ["a", "b"]


SAID: dict[str, tuple[str | Chunk | None, ...]] = {
    "words": ("some ", "words "),
    "thought": (ReasoningStart("r"), ReasoningDelta("r", "hm "), ReasoningEnd("r")),
    "source": (SourceUrl("s", "https://example.com"),),
    "end": (None,),
}

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from([0, 0, 1])),
        st.tuples(st.sampled_from(["words", "words", "words", "thought", "source", "end"]), st.just(0)),
        st.tuples(st.sampled_from(["erase", "locate", "look"]), st.just(0)),
        st.tuples(
            st.sampled_from(["respond", "respond", "refuse", "edit", "regenerate", "branch"]), st.integers(0, 9)
        ),
        st.tuples(st.sampled_from(["stop", "reset", "fail"]), st.just(0)),
        st.tuples(st.sampled_from(["cut", "cut", "cut", "away", "back"]), st.integers(0, 99)),
    ),
    min_size=4,
    max_size=30,
)


class Viewer:
    """A client that shows the room, over connections that come and go."""

    def __init__(self, runtime: Runtime, room: type[ChatRoom], kind: dict[str, str]) -> None:
        self.core = RoomCore(lambda: "none", parts="parts" in kind)
        self.texts: dict[str, str] = {}
        self._kind = kind
        self._runtime = runtime
        self._room = room
        self._client: Client | None = None
        self._read = 0
        self.connect()

    def connect(self) -> None:
        """Come (back), where the last frame left off."""
        if self._client is None or self._client.closed_with is not None:
            query = {name: value for name, value in self.core.query().items() if name not in ("parts", "delta")}
            self._client, self._read = Client.of(self._runtime, self._room, "r", **query, **self._kind), 0

    def leave(self, unread: int) -> None:
        """The connection breaks; the newest frames never arrive."""
        if self._client is not None:
            self.read(unread)
            self._client.leave(1006)
            self._client = None

    def read(self, unread: int = 0) -> tuple[Message, ...]:
        """Take in what has come, but not the newest frames; what is shown then."""
        if self._client is None:
            return self.core.messages
        frames = self._client.frames[self._read : len(self._client.frames) - unread or None]
        self._read += len(frames)
        for frame in frames:
            for event in self.core.receive(frame):
                self._note(event)
        return self.core.messages

    def _note(self, event: RoomEvent) -> None:
        """Keep what was told piece by piece, as a terminal does."""
        if isinstance(event, Replaced):  # a question that was edited while one was away
            assert event.message.role == "user", "an answer was taken back"
            self.texts[event.message.id] = event.message.content
        elif isinstance(event, Joined):
            self.texts = {message.id: message.content for message in event.messages}
        elif isinstance(event, Added):
            self.texts[event.message.id] = event.message.content
        elif isinstance(event, Grew):
            self.texts[event.message_id] += event.text
        elif isinstance(event, Removed):
            for message_id in event.message_ids:
                del self.texts[message_id]


class Story:
    """One run of a room, and those who watch it."""

    def __init__(self, runtime: Runtime, room: type[Watched]) -> None:
        self.runtime = runtime
        self.room = room
        self.viewers = [Viewer(runtime, room, kind) for kind in (*KINDS, *KINDS)]
        self.numbers = 0

    async def in_room(self, name: str, *arguments: Any) -> Any:
        async def work(instance: Instance) -> Any:
            found = getattr(instance.object, name)(*arguments)
            return await found if asyncio.iscoroutine(found) else found

        return await self.runtime.run_in(self.runtime.object_id(self.room, "r"), work)

    async def step(self, action: str, number: int) -> None:
        self.numbers += 1
        if action in SAID:
            self.guide(*SAID[action])
        elif action in ("erase", "locate", "look"):
            given = {"path": "/x"} if action == "erase" else {}
            self.guide("I will. ", call(action, given, f"c{self.numbers}"), None)
        elif action == "fail":
            self.guide(ValueError("oops"))
        elif action == "ask":
            await self.in_room("submit_message", question(f"m{self.numbers}", "Question?", files=number))
        elif action == "stop":
            await self.in_room("stop")
        elif action == "reset":
            reset(self.runtime, self.room, "r")
        elif action in ("respond", "refuse"):
            await self.respond(action == "respond")
        elif action in ("cut", "away", "back"):
            viewer = self.viewers[number % len(self.viewers)]
            if action != "back":
                viewer.leave(number // len(self.viewers) % 4)
            if action != "away":
                viewer.connect()
        else:
            await self.change(action, number)
        await asyncio.sleep(0.002)
        for number, viewer in enumerate(self.viewers):
            if number % 2:  # the others take what comes only when they are cut off
                viewer.read()

    def guide(self, *pieces: str | Chunk | Exception | None) -> None:
        for piece in pieces:
            self.room.line.put_nowait(piece)

    async def shown(self) -> list[RoomMessage]:
        async def work(instance: Instance) -> list[RoomMessage]:
            assert isinstance(instance.object, ChatRoom)
            return instance.object.audience.shown(1_000)

        return await self.runtime.run_in(self.runtime.object_id(self.room, "r"), work)

    async def respond(self, agree: bool) -> None:
        for wait in [wait for message in await self.shown() for wait in message.waits or ()][:1]:
            if wait.kind == "approval":
                await self.in_room("answer_approval", wait.id, agree)
            else:
                await self.in_room("tool_result", wait.id, {"at": "home"})

    async def change(self, action: str, number: int) -> None:
        messages = await self.shown()
        if action == "branch":
            for message in messages:
                if message.branches is not None:
                    await self.in_room("choose_branch", message.id, number % message.branches.count)
                    return
            return
        role = "assistant" if action == "regenerate" else "user"
        of_role = [message for message in messages if message.role == role]
        if not of_role:
            return
        target = of_role[number % len(of_role)]
        if action == "regenerate":
            await self.in_room("regenerate", target.id)
        else:
            edited: ChatMessage = question(target.id, f"Edit {self.numbers}?")
            await self.in_room("edit", edited)

    async def finish(self) -> None:
        """Let all answers end or wait; bring everyone back, and let them take in what there is."""
        while any(message.status == "streaming" for message in await self.shown()):
            if self.room.line.empty():
                self.guide("the end", None)
            await asyncio.sleep(0.002)
        for viewer in self.viewers:
            viewer.connect()
        await self.in_room("stop")
        await asyncio.sleep(0.08)  # longer than accumulated updates are held back
        for viewer in self.viewers:
            viewer.read()


def plain(message: RoomMessage | Message) -> tuple[Any, ...]:
    """What clients of text see of a message."""
    waits = tuple(message.waits or ())
    return (message.id, message.role, message.content, message.status, message.error, message.answers, waits)


def rich(message: RoomMessage | Message) -> tuple[Any, ...]:
    """What clients of parts see of it besides."""
    return (message.id, tuple(message.parts or ()), message.branches)


async def tell(folder: Path, steps: list[tuple[str, int]]) -> None:
    room = type("Watched", (Watched,), {"line": asyncio.Queue()})
    runtime = Runtime(folder, [room], limits=HURRIED)
    await runtime.start()
    try:
        story = Story(runtime, room)
        for action, number in steps:
            await story.step(action, number)
        async with asyncio.timeout(20):
            await story.finish()
        shown = await story.shown()
        for viewer in story.viewers:
            seen = viewer.core.messages
            assert [plain(message) for message in seen] == [plain(message) for message in shown], viewer._kind
            assert viewer.texts == {message.id: message.content for message in shown}, viewer._kind
            if "parts" in viewer._kind:
                assert [rich(message) for message in seen] == [rich(message) for message in shown]
    finally:
        await runtime.stop()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_all_clients_show_what_the_room_says(steps: list[tuple[str, int]]) -> None:
    """Tools that wait, edits, versions, stops, crashes of the room; cuts at any frame. Each word and part once."""
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(tell(Path(folder) / "data", steps))


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS, ids=["parts", "delta", "update"])
@pytest.mark.parametrize("taken", [1, 2, 3])
async def test_a_cut_amid_a_change_of_versions(tmp_path: Path, kind: dict[str, str], taken: int) -> None:
    """Between the frame that removes the one version and those that bring the other back nothing is lost."""
    room = tooled(["One."], model="scripted:echo")
    async with running(tmp_path, room) as runtime:
        client = Client.of(runtime, room, "r", parts="1")
        client.say('{"type":"message","content":"Hi","id":"m1"}')
        await until(lambda: newest(client).get("content") == "You said: Hi")
        client.say('{"type":"edit","content":"Yo","id":"m1"}')
        await until(lambda: newest(client).get("content") == "You said: Yo")
        viewer = Viewer(runtime, room, kind)
        viewer.read()
        before = len(client.frames)
        client.say('{"type":"branch","id":"m1","index":0}')
        await until(lambda: len(client.frames) == before + 3)
        viewer.leave(3 - taken)
        viewer.connect()
        await until(lambda: len(viewer.read()) == 2)
        assert [message.content for message in viewer.core.messages] == ["Hi", "You said: Hi"]
