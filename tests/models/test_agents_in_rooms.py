"""Agents of pydantic-ai in real rooms: approvals over restarts, and no effect twice wherever the server is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.running import eventually, killed, running

pytest.importorskip("pydantic_ai", reason="`pip install 'perdure[ai]'`")

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import ExternalToolset

from perdure import ChatRoom
from perdure.chat.tools import tool
from perdure.models.pydantic_ai import current_call
from perdure.objects.runtime import Runtime
from perdure.wire.messages import ChatMessage

pytestmark = pytest.mark.anyio


class World:
    """What happens outside of the servers, and which server is alive; 0 for none."""

    effects: ClassVar[list[str]] = []
    server: ClassVar[int] = 1

    @classmethod
    async def effect(cls, what: str) -> None:
        """Something that cannot be taken back, with a moment before and after it."""
        server = cls.server
        await asyncio.sleep(0.004)
        if server != cls.server or not server:
            await asyncio.Event().wait()  # this server was killed
        cls.effects.append(what)
        await asyncio.sleep(0.004)


Delta = str | dict[int, DeltaToolCall]


def _call(name: str, args: str, id: str) -> DeltaToolCall:
    return DeltaToolCall(name=name, json_args=args, tool_call_id=id)


async def _provider(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[Delta]:
    """Says a word, calls two tools at once, then asks for a third, then says what they said."""
    told = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    await asyncio.sleep(0.002)
    if not told:
        yield "Let me see. "
        await asyncio.sleep(0.002)
        yield {1: _call("first", '{"number":', "c1")}
        await asyncio.sleep(0.002)
        yield {1: DeltaToolCall(json_args=" 1}"), 2: _call("second", '{"number": 2}', "c2")}
    elif len(told) == 2:
        yield {0: _call("first", '{"number": 3}', "c1")}  # the same id again: another call
    else:
        for word in ("It ", "is ", "done: "):
            yield word
            await asyncio.sleep(0.002)
        yield ", ".join(f"{part.content}" for part in told)


agent = Agent(FunctionModel(stream_function=_provider))


@agent.tool_plain
async def first(number: int) -> str:
    """Has an effect, once."""
    await World.effect(f"first {number}")
    return f"first {number}"


@agent.tool_plain(metadata={"idempotent": True})
async def second(number: int) -> str:
    """Has an effect under a key, which the world knows."""
    await World.effect(f"second {number} {current_call().idempotency_key}")
    return f"second {number}"


class Worker(ChatRoom):
    """Its agent works."""

    model = agent


async def _answer(runtime: Runtime, kind: type[ChatRoom] = Worker) -> ChatMessage:
    async def settled() -> bool:
        def look(instance: Any) -> bool:
            found = instance.object.transcript.newest(1)
            return bool(found) and bool(found[0].answers) and found[0].status not in ("streaming", "waiting")

        return bool(await runtime.run_in(runtime.object_id(kind, "r"), _async(look)))

    await eventually(settled)
    messages: list[ChatMessage] = await runtime.get(kind, "r").messages()
    return messages[-1]


def _async(look: Any) -> Any:
    async def run(instance: Any) -> Any:
        return look(instance)

    return run


def _calls(message: ChatMessage) -> list[tuple[str, str, Any]]:
    """The calls' ids, states and results."""
    return [
        (part["toolCallId"], part["state"], part.get("output", part.get("errorText")))
        for part in message.parts
        if "toolCallId" in part
    ]


async def test_an_agent_works_in_a_room(tmp_path: Path) -> None:
    """Its calls, their results and its words are one answer; a provider's id that comes again is another call."""
    World.effects.clear()
    async with running(tmp_path, Worker) as runtime:
        await runtime.get(Worker, "r").submit("Go")
        message = await _answer(runtime)
    assert message.text == "Let me see. It is done: first 1, second 2, first 3"
    assert _calls(message) == [
        ("c1", "output-available", "first 1"),
        ("c2", "output-available", "second 2"),
        ("c1-2", "output-available", "first 3"),
    ]
    assert [part["type"] for part in message.parts].count("step-start") == 3
    assert World.effects[0].startswith(("first 1", "second 2"))
    assert message.metadata is not None
    assert message.metadata["usage"]["outputTokens"] > 0


@pytest.mark.parametrize("after_ms", range(0, 60, 3))
async def test_no_effect_happens_twice_wherever_the_server_is_killed(tmp_path: Path, after_ms: int) -> None:
    """A call that was cut off is told as such; one that may be run again is, under its key; the answer ends."""
    World.effects.clear()
    World.server = 1
    async with running(tmp_path / "a", Worker) as runtime:
        await runtime.get(Worker, "r").submit("Go")
        await asyncio.sleep(after_ms / 1000)
        folder = await killed(runtime, tmp_path / "b")
        World.server = 0
    World.server = 2
    before = list(World.effects)
    async with running(folder, Worker) as runtime:
        message = await _answer(runtime)
    for call_id, state, said in _calls(message):
        effects = [effect for effect in World.effects if effect.startswith(_EFFECTS[call_id])]
        if state == "output-available":
            assert len(set(effects)) == 1
        elif "before its input was whole" in said:
            assert effects == []
        else:
            assert "restarted while the tool ran" in said
        if call_id != "c2":
            assert len(effects) <= 1, (before, World.effects)
    assert "It is done: " in message.text


_EFFECTS = {"c1": "first 1", "c2": "second 2", "c1-2": "first 3"}


class Shop(ChatRoom):
    """An agent with a tool that needs approval, and one of the room's own."""

    @tool
    def note(self, text: str) -> str:
        """Write it down."""
        self.storage.put("note", text)
        return "noted"


async def _shopkeeper(
    messages: list[ModelMessage], _info: AgentInfo
) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
    told = {
        part.tool_name: part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)
    }
    if "note" not in told:
        yield {0: _call("note", '{"text": "bell"}', "n1")}
    elif "order" not in told:
        yield {0: _call("order", '{"article": "bell"}', "o1")}
    else:
        yield f"{told['note'].content}, {told['order'].content}"


shopkeeper = Agent(FunctionModel(stream_function=_shopkeeper))


@shopkeeper.tool_plain(requires_approval=True)
async def order(article: str) -> str:
    """Order it."""
    await World.effect(f"order {article}")
    return f"ordered {article}"


Shop.model = shopkeeper


@pytest.mark.parametrize("approved", [True, False])
async def test_an_agents_approval_waits_over_a_restart(tmp_path: Path, approved: bool) -> None:
    """The room's tool is run by the room, the agent's by the agent, once, after somebody has agreed."""
    World.effects.clear()

    async with running(tmp_path / "a", Shop) as runtime:
        await runtime.get(Shop, "r").submit("Order a bell")

        async def asked() -> bool:
            newest = (await runtime.get(Shop, "r").messages())[-1]
            return any(part.get("state") == "approval-requested" for part in newest.parts)

        await eventually(asked)
        folder = await killed(runtime, tmp_path / "b")
    assert World.effects == []
    async with running(folder, Shop) as runtime:
        room = runtime.get(Shop, "r")
        assert await room.approve("o1", approved, "as you like")
        assert not await room.approve("o1", approved)
        message = await _answer(runtime, Shop)
    if approved:
        assert _calls(message)[1] == ("o1", "output-available", "ordered bell")
        assert message.text == "noted, ordered bell"
        assert World.effects == ["order bell"]
    else:
        assert _calls(message)[1][:2] == ("o1", "output-denied")
        assert message.text == "noted, as you like"
        assert World.effects == []


@pytest.mark.parametrize("after_ms", range(0, 20, 2))
async def test_what_was_approved_is_done_once_wherever_the_server_is_killed(tmp_path: Path, after_ms: int) -> None:
    """Or it is told that nobody knows whether it was."""
    World.effects.clear()
    World.server = 1
    async with running(tmp_path / "a", Shop) as runtime:
        room = runtime.get(Shop, "r")
        await room.submit("Order a bell")

        def waits(instance: Any) -> bool:
            return bool(instance.object.transcript.newest(1)[0].status == "waiting")

        await eventually(lambda: runtime.run_in(runtime.object_id(Shop, "r"), _async(waits)))
        assert await room.approve("o1")
        await asyncio.sleep(after_ms / 1000)
        folder = await killed(runtime, tmp_path / "b")
        World.server = 0
    World.server = 2
    async with running(folder, Shop) as runtime:
        message = await _answer(runtime, Shop)
        assert not await runtime.get(Shop, "r").approve("o1")
    _, state, said = _calls(message)[1]
    if state == "output-available":
        assert World.effects == ["order bell"]
    else:
        assert "restarted while the tool ran" in said
        assert len(World.effects) <= 1
    assert message.text == f"noted, {said}"


class Finder(ChatRoom):
    """An agent with a tool that runs in the client."""


async def _finder(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[Delta]:
    newest = messages[-1].parts[-1]
    if isinstance(newest, ToolReturnPart):
        yield f"You are in {newest.content}."
    else:
        yield {0: _call("locate", "{}", "l1")}


Finder.model = Agent(
    FunctionModel(stream_function=_finder),
    toolsets=[ExternalToolset([ToolDefinition(name="locate", description="Where the person is.")])],
)


async def test_an_agents_external_tool_waits_for_the_client(tmp_path: Path) -> None:
    """Over a restart; the first result counts."""
    async with running(tmp_path / "a", Finder) as runtime:
        await runtime.get(Finder, "r").submit("Where am I?")

        async def waits() -> bool:
            parts = (await runtime.get(Finder, "r").messages())[-1].parts
            return any(part.get("state") == "input-available" for part in parts)

        await eventually(waits)
        await asyncio.sleep(0.05)
        folder = await killed(runtime, tmp_path / "b")
    async with running(folder, Finder) as runtime:
        room = runtime.get(Finder, "r")
        assert await room.submit_tool_result("l1", "Lisbon")
        assert not await room.submit_tool_result("l1", "Porto")
        message = await _answer(runtime, Finder)
    assert _calls(message) == [("l1", "output-available", "Lisbon")]
    assert message.text == "You are in Lisbon."


class Plain(ChatRoom):
    """A bare model with the room's own tool."""

    @tool
    def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        return a + b


async def _adder(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Delta]:
    newest = messages[-1].parts[-1]
    assert [definition.name for definition in info.function_tools] == ["add"]
    if not isinstance(newest, ToolReturnPart):
        yield "I add. "
        yield {1: _call("add", '{"a": 1, "b": 2}', "a1"), 2: _call("add", '{"a": "x"}', "a2")}
        yield {3: _call("sub", "{}", "a3")}
    else:
        yield " ".join(str(part.outcome) for part in messages[-1].parts if isinstance(part, ToolReturnPart))


Plain.model = FunctionModel(stream_function=_adder)


async def test_a_bare_model_calls_the_rooms_tools(tmp_path: Path) -> None:
    """What it does wrong is told to it: an input that does not fit, a tool that there is not."""
    async with running(tmp_path, Plain) as runtime:
        await runtime.get(Plain, "r").submit("Add 1 and 2")
        message = await _answer(runtime, Plain)
    assert [state for _, state, _ in _calls(message)] == ["output-available", "output-error", "output-error"]
    assert message.text == "I add. success failed failed"
    assert message.metadata is not None
    assert message.metadata["usage"]["totalTokens"] > 0


async def test_a_stopped_agent_stops_its_tool(tmp_path: Path) -> None:
    """What it said stays."""
    begun, ended = asyncio.Event(), asyncio.Event()
    stuck = Agent(FunctionModel(stream_function=_finder))

    @stuck.tool_plain
    async def locate() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "nowhere"

    class Stuck(ChatRoom):
        model = stuck

    async with running(tmp_path, Stuck) as runtime:
        room = runtime.get(Stuck, "r")
        await room.submit("Where am I?")
        await asyncio.wait_for(begun.wait(), 5)
        assert await room.stop()
        await asyncio.wait_for(ended.wait(), 5)
        assert (await room.messages())[-1].parts[-1]["toolCallId"] == "l1"
