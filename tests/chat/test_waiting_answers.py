"""An answer that needs a person or a client waits for them, durably, and goes on when they have answered."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.chat.tool_rooms import Tooled, answer, call, chunks, in_room, says, told, tooled
from tests.running import eventually, hibernated, killed, running

from perdure import ChatMessage, ChatRoom, ToolSpec, TurnContext, tool
from perdure.chat.listener import RoomListener
from perdure.chat.submitted import Submitted
from perdure.errors import Forbidden
from perdure.models.script_steps import Until
from perdure.models.scripted import ScriptedModel
from perdure.objects.runtime import Runtime
from perdure.wire.fold import MessageFold
from perdure.wire.messages import user_message
from perdure.wire.ui_chunks import (
    Finish,
    FinishStep,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolOutputAvailable,
    ToolOutputDenied,
    decode_chunk,
)

pytestmark = pytest.mark.anyio

WEEK_MS = 7 * 24 * 60 * 60 * 1000

ERASE = call("erase", {"path": "/tmp/x"})


def approval_of(message: ChatMessage) -> dict[str, Any]:
    """The approval in the answer."""
    found: dict[str, Any] = next(part["approval"] for part in message.parts if "approval" in part)
    return found


def returned(message: ChatMessage, **change: Any) -> ChatMessage:
    """The answer as a client sends it back: its call in another state."""
    parts = [{**part, **change} if "toolCallId" in part else part for part in message.parts]
    return ChatMessage(message.id, "assistant", parts, message.metadata)


async def settled(runtime: Runtime, room: type[ChatRoom], answer_id: str) -> ChatMessage:
    """The answer, when it is complete."""

    async def is_complete() -> bool:
        stored = await in_room(runtime, room, lambda it: it.transcript.find(answer_id))
        return bool(stored.status == "complete")

    await eventually(is_complete)
    stored = await in_room(runtime, room, lambda it: it.transcript.find(answer_id))
    message: ChatMessage = stored.message
    return message


async def take(runtime: Runtime, room: type[ChatRoom], message: ChatMessage) -> Submitted | None:
    """Send an assistant message back."""
    found: Submitted | None = await in_room(runtime, room, lambda it: it.take_results(message))
    return found


async def test_a_call_that_needs_agreement_waits(tmp_path: Path) -> None:
    """Its leg ends; the answer goes on in the next one, under the same id, when somebody has agreed."""
    room = tooled(["I would: ", ERASE], ["Gone."])
    async with running(tmp_path, room) as runtime:
        submitted = await runtime.get(room, "r").submit("Erase")
        message = await answer(runtime, room, "waiting")
        assert room.calls == []
        approval = approval_of(message)
        first = await chunks(runtime, room, submitted.stream)
        assert first[-3:] == [
            ToolApprovalRequest(approval["id"], "c1"),
            FinishStep(),
            Finish(finish_reason="tool-calls"),
        ]
        assert await runtime.get(room, "r").approve(approval["id"])
        message = await answer(runtime, room)
        assert told(message) == ["I would: ", ("erase", "output-available", "/tmp/x is gone"), "Gone."]
        assert approval_of(message) == {"id": approval["id"], "approved": True}
        assert room.calls == [("erase", "/tmp/x")]
        second = await chunks(runtime, room, f"turns/{message.id}.2")
        assert second == [
            Start(message_id=message.id),
            ToolOutputAvailable("c1", "/tmp/x is gone"),
            StartStep(),
            TextStart("text-2-1-1"),
            TextDelta("text-2-1-1", "Gone."),
            TextEnd("text-2-1-1"),
            FinishStep(),
            Finish(finish_reason="stop"),
        ]


async def test_a_call_that_is_denied_is_not_carried_out(tmp_path: Path) -> None:
    """The model is told, and goes on."""
    room = tooled([ERASE], ["As you like."])
    async with running(tmp_path, room) as runtime:
        await runtime.get(room, "r").submit("Erase")
        await answer(runtime, room, "waiting")
        assert await runtime.get(room, "r").approve("c1", False, "never")
        message = await answer(runtime, room)
        assert told(message) == [("erase", "output-denied", None), "As you like."]
        assert approval_of(message)["reason"] == "never"
        assert ToolOutputDenied("c1") in await chunks(runtime, room, f"turns/{message.id}.2")
        assert room.calls == []


async def test_the_first_response_counts(tmp_path: Path) -> None:
    """A second tab, a retried request: nothing happens twice."""
    room = tooled([ERASE], ["Gone."])
    async with running(tmp_path, room) as runtime:
        await runtime.get(room, "r").submit("Erase")
        message = await answer(runtime, room, "waiting")
        responded = returned(message, state="approval-responded", approval={**approval_of(message), "approved": True})
        first = await take(runtime, room, responded)
        again = await take(runtime, room, responded)
        assert first is not None
        assert again is not None
        assert (first.leg, first.known) == (2, False)
        assert (again.stream, again.known) == (first.stream, True)
        assert not await runtime.get(room, "r").approve("c1", False)
        await answer(runtime, room)
        assert (await take(runtime, room, responded)) == again
        assert room.calls == [("erase", "/tmp/x")]


async def test_an_approval_waits_a_week_over_restarts(tmp_path: Path) -> None:
    """kill -9, a week, hibernation, a restart: the answer waits, its room sleeps, and it goes on."""
    room = tooled([ERASE], ["Gone."])
    now = [1_700_000_000_000]
    async with running(tmp_path / "a", room, clock_ms=lambda: now[0]) as runtime:
        await runtime.get(room, "r").submit("Erase")
        message = await answer(runtime, room, "waiting")
        folder = await killed(runtime, tmp_path / "b")
    now[0] += WEEK_MS
    async with running(folder, room, clock_ms=lambda: now[0]) as runtime:
        assert runtime._slots == {}  # nothing wakes for it
        assert await answer(runtime, room, "waiting") == message
        await hibernated(runtime, room, "r")
        # Other answers come and end meanwhile; the streams of old legs are forgotten.
        for _ in range(3):
            await runtime.get(room, "r").submit("Erase more")
            now[0] += WEEK_MS
        assert await in_room(runtime, room, lambda it: it.streams.find(f"turns/{message.id}")) is None
        assert await in_room(runtime, room, lambda it: it.answer_approval(approval_of(message)["id"], True))
        assert told(await settled(runtime, room, message.id)) == [
            ("erase", "output-available", "/tmp/x is gone"),
            "Gone.",
        ]
        assert room.calls == [("erase", "/tmp/x")]


async def test_who_may_agree_is_the_rooms_to_say(tmp_path: Path) -> None:
    """``may_answer``; everyone else is refused, and nothing changes."""

    def may_answer(self: Any, user: str | None, tool: str) -> bool:
        return (user, tool) == ("Ada", "erase")

    room = tooled([ERASE], ["Gone."], may_answer=may_answer)
    async with running(tmp_path, room) as runtime:
        stub = runtime.get(room, "r")
        await stub.submit("Erase")
        message = await answer(runtime, room, "waiting")
        with pytest.raises(Forbidden, match="you may not answer for the tool erase"):
            await stub.approve("c1", user="Eve")
        with pytest.raises(Forbidden):
            await take(runtime, room, returned(message, state="approval-responded", approval={"approved": True}))
        assert await answer(runtime, room, "waiting") == message
        assert await stub.approve("c1", user="Ada")
        await answer(runtime, room)


async def test_a_function_says_whether_agreement_is_needed(tmp_path: Path) -> None:
    """Only some calls wait; the others of the same step are carried out meanwhile."""

    class Shop(ChatRoom):
        model = ScriptedModel(
            steps=[[call("buy", {"price": 5}, "c1"), call("buy", {"price": 500}, "c2")], ["Bought."]],
        )

        @tool(approval=lambda room, call: call.input["price"] > 100)
        def buy(self, price: int) -> str:
            """Buy something."""
            return f"bought for {price}"

    async with running(tmp_path, Shop) as runtime:
        await runtime.get(Shop, "r").submit("Buy")
        message = await answer(runtime, Shop, "waiting")
        assert told(message) == [
            ("buy", "output-available", "bought for 5"),
            ("buy", "approval-requested", None),
        ]
        await runtime.get(Shop, "r").approve("c2")
        assert told(await answer(runtime, Shop))[1:] == [("buy", "output-available", "bought for 500"), "Bought."]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"output": {"lat": 48.9}}, ("locate", "output-available", {"lat": 48.9})),
        ({"error": "no signal"}, ("locate", "output-error", "no signal")),
    ],
)
async def test_a_clients_tool_waits_for_its_result(tmp_path: Path, given: dict[str, Any], shown: Any) -> None:
    """What the client gave is in the message at once, and goes to the model."""
    room = tooled([call("locate")], ["I see."])
    async with running(tmp_path, room) as runtime:
        await runtime.get(room, "r").submit("Where am I?")
        assert told(await answer(runtime, room, "waiting")) == [("locate", "input-available", None)]
        assert await runtime.get(room, "r").submit_tool_result("c1", **given)
        assert told(await answer(runtime, room)) == [shown, "I see."]
        assert not await runtime.get(room, "r").submit_tool_result("c1", **given)


async def test_an_answer_waits_for_all_of_its_results(tmp_path: Path) -> None:
    """It goes on when the last is in; a surface may begin the leg itself."""
    room = tooled([call("locate", {}, "c1"), call("locate", {"precise": True}, "c2")], ["Both."])
    async with running(tmp_path, room) as runtime:
        await runtime.get(room, "r").submit("Where am I?")
        message = await answer(runtime, room, "waiting")
        await in_room(runtime, room, lambda it: it.tool_result("c2", "there", go_on=False))
        assert await in_room(runtime, room, lambda it: it.go_on(message.id)) is None
        await in_room(runtime, room, lambda it: it.tool_result("c1", "here", go_on=False))
        waiting = await answer(runtime, room, "waiting")
        assert [item[2] for item in told(waiting)] == ["here", "there"]
        begun = await in_room(runtime, room, lambda it: it.go_on(message.id))
        assert (begun.leg, begun.stream) == (2, f"turns/{message.id}.2")
        assert told(await answer(runtime, room))[-1] == "Both."


async def test_a_clients_own_tools_are_told_to_the_model(tmp_path: Path) -> None:
    """They come with its message."""
    seen: list[TurnContext] = []

    class Open(ChatRoom):
        model = None

        async def respond(self, turn: TurnContext) -> Any:
            seen.append(turn)
            if turn.answer is None:
                yield call("confetti", {"n": 3})
            else:
                yield "Hooray."

    async with running(tmp_path, Open) as runtime:
        confetti = ToolSpec("confetti", "Throw confetti.")
        await in_room(runtime, Open, lambda it: it.submit_message(user_message("m1", "Go"), client_tools=[confetti]))
        await answer(runtime, Open, "waiting")
        assert await runtime.get(Open, "r").submit_tool_result("c1", "thrown")
        assert told(await answer(runtime, Open)) == [("confetti", "output-available", "thrown"), "Hooray."]
        assert [turn.tools for turn in seen] == [(confetti,), (confetti,)]


async def test_a_result_that_is_faster_than_the_model(tmp_path: Path) -> None:
    """It comes while the step is still being said: the answer needs no second leg."""
    gate = asyncio.Event()
    room = tooled([call("locate"), Until(gate.wait), "One moment."], ["There you are."])
    async with running(tmp_path, room) as runtime:
        submitted = await runtime.get(room, "r").submit("Where am I?")
        await says(runtime, room, ("locate", "input-available", None))
        assert await runtime.get(room, "r").submit_tool_result("c1", "Paris")
        gate.set()
        message = await answer(runtime, room)
        assert told(message) == [("locate", "output-available", "Paris"), "One moment.", "There you are."]
        assert (await chunks(runtime, room, submitted.stream))[-1] == Finish(finish_reason="stop")


async def test_an_approval_that_comes_while_others_run(tmp_path: Path) -> None:
    """The call is carried out in the same leg."""
    room = tooled([call("weather", {"city": "Paris"}, "c1"), call("erase", {"path": "x"}, "c2")], ["Both."])
    room.gates = {"weather": asyncio.Event()}
    async with running(tmp_path, room) as runtime:
        submitted = await runtime.get(room, "r").submit("Go")
        await says(runtime, room, ("erase", "approval-requested", None))
        assert await runtime.get(room, "r").approve("c2")
        room.gates["weather"].set()
        message = await answer(runtime, room)
        assert told(message) == [
            ("weather", "output-available", "sunny in Paris"),
            ("erase", "output-available", "x is gone"),
            "Both.",
        ]
        assert (await chunks(runtime, room, submitted.stream))[-1] == Finish(finish_reason="stop")


async def test_others_are_answered_meanwhile(tmp_path: Path) -> None:
    """A waiting answer does not block the room; it goes on after the turn that runs."""
    gate = asyncio.Event()

    class Busy(Tooled):
        calls: ClassVar[list[tuple[str, Any]]] = []
        gates: ClassVar[dict[str, asyncio.Event]] = {}
        model = None

        async def respond(self, turn: TurnContext) -> Any:
            if turn.text == "Hi":
                yield "Hel"
                await gate.wait()
                yield "lo"
            elif turn.answer is None:
                yield ERASE
            else:
                yield "Gone."

    async with running(tmp_path, Busy) as runtime:
        stub = runtime.get(Busy, "r")
        await stub.submit("Erase")
        waiting = await answer(runtime, Busy, "waiting")
        await stub.submit("Hi")
        await says(runtime, Busy, "Hel")
        assert await stub.approve("c1")
        await asyncio.sleep(0.02)
        assert Busy.calls == []
        gate.set()

        message = await settled(runtime, Busy, waiting.id)
        assert told(message) == [("erase", "output-available", "/tmp/x is gone"), "Gone."]
        assert (await answer(runtime, Busy)).text == "Hello"


async def test_a_leg_that_was_to_begin_begins_after_a_crash(tmp_path: Path) -> None:
    """The approval is stored with it; the call is made once."""
    room = tooled([ERASE], ["Gone."])
    async with running(tmp_path / "a", room) as runtime:
        await runtime.get(room, "r").submit("Erase")
        message = await answer(runtime, room, "waiting")

        def approve_and_hold(it: Any) -> None:
            it.turns._paused = True  # as if another turn ran
            it.answer_approval("c1", True)

        await in_room(runtime, room, approve_and_hold)
        folder = await killed(runtime, tmp_path / "b")
    assert room.calls == []
    async with running(folder, room) as runtime:
        assert told(await answer(runtime, room))[-1] == "Gone."
        assert room.calls == [("erase", "/tmp/x")]
        assert (await answer(runtime, room)).id == message.id


async def test_a_replay_is_the_whole_answer(tmp_path: Path) -> None:
    """In its first leg, in its second, and long after: the fold of what a client gets is the message."""
    gate = asyncio.Event()
    room = tooled(["I would: ", ERASE], ["Gone", Until(gate.wait), "."])

    async def replayed(runtime: Runtime, answer_id: str) -> list[Any]:
        replay = await in_room(runtime, room, lambda it: it.replay(answer_id))
        said = [decode_chunk(data) for data in replay.prefix]
        if replay.stream is not None:
            said += (await chunks(runtime, room, replay.stream))[replay.skip :]
        fold = MessageFold(answer_id)
        for chunk in said:
            fold.push(chunk)
        return [fold.status, *told(fold.message())]

    async with running(tmp_path, room) as runtime:
        await runtime.get(room, "r").submit("Erase")
        message = await answer(runtime, room, "waiting")
        asked = ["I would: ", ("erase", "approval-requested", None)]
        assert await replayed(runtime, message.id) == ["finished", *asked]
        await runtime.get(room, "r").approve("c1")
        await says(runtime, room, "Gone")
        reading = asyncio.create_task(replayed(runtime, message.id))
        await asyncio.sleep(0.02)
        gate.set()
        whole = ["finished", "I would: ", ("erase", "output-available", "/tmp/x is gone"), "Gone."]
        assert await reading == whole
        await answer(runtime, room)
        assert await replayed(runtime, message.id) == whole
        assert await in_room(runtime, room, lambda it: it.replay("unknown")) is None


async def test_listeners_are_told_in_order(tmp_path: Path) -> None:
    """Messages, legs, chunks, text, results, ends."""
    heard: list[Any] = []

    class Listening(RoomListener):
        def on_message(self, stored: Any) -> None:
            heard.append(("message", stored.message.text))

        def on_turn(self, turn: Any, *, new: bool) -> None:
            heard.append(("turn", turn.leg, new))

        def on_chunk(self, turn: Any, chunk: Any, data: bytes) -> None:
            assert decode_chunk(data) == chunk
            heard.append((turn.position - 1, type(chunk).__name__))

        def on_text(self, turn: Any, text: str) -> None:
            heard.append(("text", text))

        def on_settled(self, turn: Any, outcome: Any, error: str | None) -> None:
            heard.append(("settled", outcome, error))

        def on_updated(self, stored: Any) -> None:
            heard.append(("updated", stored.status, [part.get("state") for part in stored.message.parts]))

        def on_removed(self, removed: list[Any]) -> None:
            heard.append(("removed", len(removed)))

    room = tooled([ERASE], ["Gone."])
    async with running(tmp_path, room) as runtime:
        await in_room(runtime, room, lambda it: it.add_listener(Listening()))
        await runtime.get(room, "r").submit("Erase")
        await answer(runtime, room, "waiting")
        await runtime.get(room, "r").approve("c1")
        await answer(runtime, room)
        await in_room(runtime, room, lambda it: it.clear())
    assert heard == [
        ("message", "Erase"),
        ("turn", 1, True),
        (0, "Start"),
        (1, "StartStep"),
        (2, "ToolInputAvailable"),
        (3, "ToolApprovalRequest"),
        (4, "FinishStep"),
        (5, "Finish"),
        ("settled", "waiting", None),
        ("updated", "waiting", [None, "approval-responded"]),
        ("updated", "streaming", [None, "approval-responded"]),
        ("turn", 2, False),
        (0, "Start"),
        (1, "ToolOutputAvailable"),
        (2, "StartStep"),
        (3, "TextStart"),
        (4, "TextDelta"),
        ("text", "Gone."),
        (5, "TextEnd"),
        (6, "FinishStep"),
        (7, "Finish"),
        ("settled", "complete", None),
        ("removed", 2),
    ]


async def test_a_models_own_call_waits_for_agreement(tmp_path: Path) -> None:
    """An agent asks; it is asked again with the response in what it said."""
    seen: list[Any] = []

    class Agentic(ChatRoom):
        model = None

        async def respond(self, turn: TurnContext) -> Any:
            if turn.answer is None:
                yield ToolInputAvailable("a1", "own", {}, dynamic=True)
                yield ToolApprovalRequest("ap1", "a1")
                return
            seen.append(turn.answer.parts[-1])
            yield ToolOutputAvailable("a1", "done", dynamic=True)
            yield "Done."

    async with running(tmp_path, Agentic) as runtime:
        await runtime.get(Agentic, "r").submit("Go")
        await answer(runtime, Agentic, "waiting")
        assert await runtime.get(Agentic, "r").approve("ap1", True)
        assert told(await answer(runtime, Agentic)) == [("own", "output-available", "done"), "Done."]
    assert [(part["state"], part["approval"]) for part in seen] == [
        ("approval-responded", {"id": "ap1", "approved": True})
    ]


async def test_an_agreement_that_came_amid_a_leg_survives_a_crash(tmp_path: Path) -> None:
    """No chunk tells it; the model hears of it all the same, with the reason."""
    seen: list[Any] = []
    gate = asyncio.Event()

    class Agentic(Tooled):
        calls: ClassVar[list[tuple[str, Any]]] = []
        gates: ClassVar[dict[str, asyncio.Event]] = {"pay": gate}
        model = None

        async def respond(self, turn: TurnContext) -> Any:
            if turn.answer is None:
                yield ToolInputAvailable("a1", "own", {}, dynamic=True)
                yield ToolApprovalRequest("ap1", "a1")
                yield call("pay", {"amount": 1})
                return
            seen.append(next(part for part in turn.answer.parts if part.get("toolCallId") == "a1"))
            yield ToolOutputAvailable("a1", "done", dynamic=True)
            yield "Done."

    async with running(tmp_path / "a", Agentic) as runtime:
        await runtime.get(Agentic, "r").submit("Go")
        await eventually(lambda: in_room(runtime, Agentic, lambda it: it.tool_calls.owed("ap1") is not None))
        assert await runtime.get(Agentic, "r").approve("ap1", True, "why not")
        folder = await killed(runtime, tmp_path / "b")
    gate.set()
    async with running(folder, Agentic) as runtime:
        message = await answer(runtime, Agentic)
        assert ("own", "output-available", "done") in told(message)
    assert [part["approval"] for part in seen] == [{"id": "ap1", "approved": True, "reason": "why not"}]
