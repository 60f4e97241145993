"""A room carries out its model's tool calls, each once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.chat.tool_rooms import answer, call, chunks, in_room, says, told, tooled
from tests.running import killed, running, until

from perdure import ChatMessage, ChatRoom, ToolCall, ToolSpec, TurnContext, tool
from perdure.chat.carrier import TOOL_OUTPUT_BYTES_MAX
from perdure.chat.room import CLIENT_TOOLS_MAX
from perdure.chat.tools import tools_of
from perdure.errors import ConfigError, LimitExceeded
from perdure.models.script_steps import Hang
from perdure.models.scripted import ScriptedModel
from perdure.wire.fold import fold
from perdure.wire.messages import user_message
from perdure.wire.ui_chunks import (
    Finish,
    FinishReason,
    FinishStep,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolInputAvailable,
    ToolOutputAvailable,
    ToolOutputError,
)

pytestmark = pytest.mark.anyio


async def test_the_model_gets_the_result_and_goes_on(tmp_path: Path) -> None:
    """The call, its result and the next step are one answer, in one stream of legal chunks."""
    room = tooled(["Let me look. ", call("weather", {"city": "Paris"})], ["It is sunny."])
    async with running(tmp_path, room) as runtime:
        submitted = await runtime.get(room, "r").submit("Weather?")
        message = await answer(runtime, room)
        assert told(message) == ["Let me look. ", ("weather", "output-available", "sunny in Paris"), "It is sunny."]
        assert room.calls == [("weather", ("Paris", 1))]
        said = await chunks(runtime, room, submitted.stream)
        assert said == [
            Start(message_id=message.id),
            StartStep(),
            TextStart("text-1-1"),
            TextDelta("text-1-1", "Let me look. "),
            TextEnd("text-1-1"),
            ToolInputAvailable("c1", "weather", {"city": "Paris"}),
            ToolOutputAvailable("c1", "sunny in Paris"),
            FinishStep(),
            StartStep(),
            TextStart("text-1-2"),
            TextDelta("text-1-2", "It is sunny."),
            TextEnd("text-1-2"),
            FinishStep(),
            Finish(finish_reason="stop"),
        ]
        assert fold(said).message() == message


async def test_the_model_sees_tools_and_results(tmp_path: Path) -> None:
    """It is told of every tool, and asked again with what it said and got."""
    seen: list[TurnContext] = []

    class Watched(ChatRoom):
        model = None

        async def respond(self, turn: TurnContext) -> Any:
            seen.append(turn)
            if turn.answer is None:
                yield call("add", {"numbers": [1, 2]})
            else:
                yield "3"

        @tool
        def add(self, numbers: list[int], negate: bool = False) -> int:
            """Add numbers up.

            Whole ones.
            """
            return sum(numbers)

    async with running(tmp_path, Watched) as runtime:
        await runtime.get(Watched, "r").submit("1 + 2?")
        message = await answer(runtime, Watched)
    first, second = seen
    assert first.tools == (
        ToolSpec(
            "add",
            "Add numbers up.\n\nWhole ones.",
            {
                "type": "object",
                "properties": {
                    "numbers": {"type": "array", "items": {"type": "integer"}},
                    "negate": {"type": "boolean", "default": False},
                },
                "required": ["numbers"],
                "additionalProperties": False,
            },
        ),
    )
    assert (first.answer, first.partial) == (None, "")
    assert second.answer == ChatMessage(message.id, "assistant", message.parts[:2])
    assert message.parts[1]["output"] == 3


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (call("nowhere"), "there is no tool named nowhere"),
        (
            call("weather", {"city": "Paris", "days": "x"}),
            "the input does not fit the tool weather: Expected `int`, got `str` - at `$.days`",
        ),
        (
            call("weather", {"town": "Paris"}),
            "the input does not fit the tool weather: Object contains unknown field `town`",
        ),
        (call("book", {"city": "Atlantis"}), "there is no such city"),
        (call("broken"), "the tool broken failed (ZeroDivisionError); the error was logged"),
        (call("slow"), "the tool slow took longer than 0.02 s"),
    ],
)
async def test_a_failed_call_is_told_to_the_model(tmp_path: Path, made: Any, error: str) -> None:
    """It is a part of the answer, and the model goes on."""
    room = tooled([made], ["Sorry."])
    async with running(tmp_path, room) as runtime:
        await runtime.get(room, "r").submit("Do it")
        name = made.tool_name
        assert told(await answer(runtime, room)) == [(name, "output-error", error), "Sorry."]
        # A plain tool that failed has written nothing.
        assert await in_room(runtime, room, lambda it: it.storage.sql("SELECT * FROM bookings")) == []


async def test_preliminary_results_are_shown(tmp_path: Path) -> None:
    """Each replaces the one before; the last is the result."""
    room = tooled([call("search", {"query": "q"})], ["Done."])
    async with running(tmp_path, room) as runtime:
        submitted = await runtime.get(room, "r").submit("Search")
        message = await answer(runtime, room)
        outputs = [
            (chunk.output, chunk.preliminary)
            for chunk in await chunks(runtime, room, submitted.stream)
            if isinstance(chunk, ToolOutputAvailable)
        ]
        assert outputs == [
            (["q 0"], True),
            (["q 0", "q 1"], True),
            (["q 0", "q 1", "q 2"], True),
            (["q 0", "q 1", "q 2"], None),
        ]
        assert told(message)[0] == ("search", "output-available", ["q 0", "q 1", "q 2"])


async def test_calls_of_one_step_run_together(tmp_path: Path) -> None:
    """Neither waits for the other; the results come as they are there."""
    room = tooled(
        [call("weather", {"city": "Paris"}, "c1"), call("pay", {"amount": 2}, "c2")],
        ["Both."],
    )
    room.gates = {"weather": asyncio.Event(), "pay": asyncio.Event()}
    async with running(tmp_path, room) as runtime:
        await runtime.get(room, "r").submit("Go")
        await until(lambda: len(room.calls) == 2)
        room.gates["pay"].set()
        found = await says(runtime, room, ("pay", "output-available", "paid 2"))
        assert ("weather", "input-available", None) in told(found)
        room.gates["weather"].set()
        assert told(await answer(runtime, room))[-1] == "Both."


async def test_an_id_that_comes_again_is_another_call(tmp_path: Path) -> None:
    """Models count their calls anew in each step; in the answer every call has an id of its own."""
    room = tooled(
        [call("weather", {"city": "Paris"})], [call("weather", {"city": "Rome"})], [call("book", {"city": "Rome"})]
    )
    async with running(tmp_path, room) as runtime:
        await runtime.get(room, "r").submit("Go")
        message = await answer(runtime, room)
        assert told(message) == [
            ("weather", "output-available", "sunny in Paris"),
            ("weather", "output-available", "sunny in Rome"),
            ("book", "output-available", {"bookings": 1}),
        ]
        ids = [part["toolCallId"] for part in message.parts if "toolCallId" in part]
        assert ids == ["c1", "c1-2", "c1-3"]


@pytest.mark.parametrize(("steps_max", "steps", "reason"), [(2, 2, "tool-calls"), (3, 3, "stop")])
async def test_the_number_of_steps_is_limited(
    tmp_path: Path, steps_max: int, steps: int, reason: FinishReason
) -> None:
    """``steps_max`` counts the times that the model is asked for one answer."""
    room = tooled([call("weather", {"city": "A"})], [call("weather", {"city": "B"})], ["End."], steps_max=steps_max)
    async with running(tmp_path, room) as runtime:
        submitted = await runtime.get(room, "r").submit("Go")
        message = await answer(runtime, room)
        assert sum(part["type"] == "step-start" for part in message.parts) == steps
        assert (await chunks(runtime, room, submitted.stream))[-1] == Finish(finish_reason=reason)


async def test_results_are_limited(tmp_path: Path) -> None:
    """``tool_output_bytes_max`` is the size of a result as JSON."""

    class Big(ChatRoom):
        model = ScriptedModel(
            steps=[
                [
                    call("make", {"size": TOOL_OUTPUT_BYTES_MAX - 2}),
                    call("make", {"size": TOOL_OUTPUT_BYTES_MAX - 1}, "c2"),
                ]
            ]
        )
        steps_max = 1

        @tool
        def make(self, size: int) -> str:
            """Make a long text."""
            return "x" * size

    async with running(tmp_path, Big) as runtime:
        await runtime.get(Big, "r").submit("Go")
        fits, does_not = told(await answer(runtime, Big))
        assert (fits[1], len(fits[2])) == ("output-available", TOOL_OUTPUT_BYTES_MAX - 2)
        assert does_not[2] == "the tool's result has 1,048,577 bytes; tool_output_bytes_max allows 1,048,576"


async def test_a_stop_ends_running_tools(tmp_path: Path) -> None:
    """The call has no result; the model does not go on."""
    room = tooled(["Look: ", call("weather", {"city": "Paris"})], ["never"])
    room.gates = {"weather": asyncio.Event()}
    async with running(tmp_path, room) as runtime:
        await runtime.get(room, "r").submit("Go")
        await until(lambda: room.calls)
        assert await runtime.get(room, "r").stop()
        assert told(await answer(runtime, room, "aborted")) == [
            "Look: ",
            ("weather", "output-error", "no result: the answer was stopped"),
        ]


# --- crashes


async def test_a_plain_tool_takes_effect_exactly_once(tmp_path: Path) -> None:
    """Its effect and its result are one commit; after the crash the model goes on from there."""
    room = tooled([call("book", {"city": "Paris"})], ["Booked", Hang(1), "."])
    async with running(tmp_path / "a", room) as runtime:
        await runtime.get(room, "r").submit("Book")
        await says(runtime, room, "Booked")
        folder = await killed(runtime, tmp_path / "b")
    async with running(folder, room) as runtime:
        message = await answer(runtime, room)
        assert told(message) == [("book", "output-available", {"bookings": 1}), "Booked."]
        assert await in_room(runtime, room, lambda it: it.storage.sql("SELECT * FROM bookings")) == [
            {"city": "Paris"}
        ]


async def test_an_interrupted_tool_is_not_run_again(tmp_path: Path) -> None:
    """It may have had its effect. The model is told so, and goes on."""
    room = tooled([call("weather", {"city": "Paris"})], ["Who knows."])
    room.gates = {"weather": asyncio.Event()}
    async with running(tmp_path / "a", room) as runtime:
        await runtime.get(room, "r").submit("Go")
        await until(lambda: room.calls)
        folder = await killed(runtime, tmp_path / "b")
    async with running(folder, room) as runtime:
        error = "the server was restarted while the tool ran; whether it took effect is not known"
        assert told(await answer(runtime, room)) == [("weather", "output-error", error), "Who knows."]
        assert room.calls == [("weather", ("Paris", 1))]


async def test_an_idempotent_tool_is_run_again_with_the_same_key(tmp_path: Path) -> None:
    """The world outside knows by the key that it is the same call."""
    room = tooled([call("pay", {"amount": 5})], ["Paid."])
    room.gates = {"pay": asyncio.Event()}
    async with running(tmp_path / "a", room) as runtime:
        answer_id = (await runtime.get(room, "r").submit("Pay")).answer_id
        await until(lambda: room.calls)
        folder = await killed(runtime, tmp_path / "b")
    room.gates.clear()
    async with running(folder, room) as runtime:
        assert told(await answer(runtime, room)) == [("pay", "output-available", "paid 5"), "Paid."]
        assert room.calls == [("pay", (f"{answer_id}:c1", 1)), ("pay", (f"{answer_id}:c1", 2))]


async def test_the_step_that_was_cut_off_goes_on_by_its_text(tmp_path: Path) -> None:
    """What the model had said in it stays; the steps before it are given as what they are."""
    room = tooled([call("book", {"city": "Rome"})], ["One ", Hang(1), "two."])
    async with running(tmp_path / "a", room) as runtime:
        await runtime.get(room, "r").submit("Go")
        await says(runtime, room, "One ")
        folder = await killed(runtime, tmp_path / "b")
    async with running(folder, room) as runtime:
        message = await answer(runtime, room)
        assert told(message)[1:] == ["One two."]
        assert sum(part["type"] == "step-start" for part in message.parts) == 2


# --- declarations


async def test_a_tool_gets_its_call(tmp_path: Path) -> None:
    """A parameter that is annotated with it; the model is not told of that one."""
    got: list[ToolCall] = []

    class Asking(ChatRoom):
        model = ScriptedModel(steps=[[call("see", {"x": 1})]])
        steps_max = 1

        @tool(name="see")
        def look(self, x: int, call: ToolCall) -> None:
            """Look."""
            got.append(call)

    async with running(tmp_path, Asking) as runtime:
        answer_id = (await runtime.get(Asking, "r").submit("Go")).answer_id
        assert told(await answer(runtime, Asking)) == [("see", "output-available", None)]
        assert got == [ToolCall("c1", "see", {"x": 1}, f"{answer_id}:c1", 1, answer_id, "r")]
        assert set(tools_of(Asking)["see"].spec.parameters["properties"]) == {"x"}


def test_tools_that_cannot_be_told_to_a_model_are_refused() -> None:
    """When the server starts, with a sentence."""

    class Untyped(ChatRoom):
        @tool
        def f(self, x) -> None:  # type: ignore[no-untyped-def]
            """F."""

    class Wild(ChatRoom):
        @tool
        def f(self, *x: int) -> None:
            """F."""

    class Strange(ChatRoom):
        @tool
        def f(self, x: ChatRoom) -> None:
            """F."""

    class Twice(ChatRoom):
        @tool
        def f(self) -> None:
            """F."""

        @tool(name="f")
        def g(self) -> None:
            """G."""

    class Misnamed(ChatRoom):
        @tool(name="no blanks")
        def f(self) -> None:
            """F."""

    for room, said in (
        (Untyped, "tool f: parameter x needs an annotation; the model reads it"),
        (Wild, "tool f: the model gives inputs by name, so \\*x: .* cannot be a parameter"),
        (Strange, "tool f: Generating JSON schema for custom types"),
        (Twice, "Twice has two tools named f"),
        (Misnamed, "'no blanks' is no name for a tool"),
    ):
        with pytest.raises(ConfigError, match=said):
            tools_of(room)


async def test_client_tools_are_limited(tmp_path: Path) -> None:
    """``client_tools_max`` of one room; those of the class go before them."""
    room = tooled(["Hi"])
    specs = [ToolSpec(f"t{number}") for number in range(CLIENT_TOOLS_MAX)]
    async with running(tmp_path, room) as runtime:
        await in_room(
            runtime,
            room,
            lambda it: it.submit_message(user_message("m1", "Hi"), client_tools=[*specs[1:], ToolSpec("weather")]),
        )
        assert await in_room(runtime, room, lambda it: list(it.client_tools)) == [spec.name for spec in specs[1:]]
        with pytest.raises(LimitExceeded, match="client_tools_max allows 128 at most, this has 129"):
            await in_room(runtime, room, lambda it: it.set_client_tools([*specs, ToolSpec("more")]))


class _Recorded(ChatRoom):
    """Emits calls and results itself, as agents do."""

    model = None
    runs: ClassVar[int] = 0

    async def respond(self, turn: TurnContext) -> Any:
        assert turn.ledger is not None

        async def work(call: ToolCall) -> str:
            type(self).runs += 1
            return f"ran as {call.idempotency_key.split(':')[1]}"

        yield ToolInputAvailable("a1", "own", {}, dynamic=True)
        output = await turn.ledger.run("a1", "own", {}, work)
        if turn.attempt == 1:
            await asyncio.Event().wait()
        yield ToolOutputAvailable("a1", output, dynamic=True)
        yield "Done."


async def test_the_ledger_keeps_a_models_own_calls_from_being_run_twice(tmp_path: Path) -> None:
    """A crash between the call's end and its result: the ledger has it."""
    _Recorded.runs = 0
    async with running(tmp_path / "a", _Recorded) as runtime:
        await runtime.get(_Recorded, "r").submit("Go")
        await until(lambda: _Recorded.runs == 1)
        await asyncio.sleep(0.05)
        folder = await killed(runtime, tmp_path / "b")
    async with running(folder, _Recorded) as runtime:
        assert told(await answer(runtime, _Recorded))[0] == ("own", "output-available", "ran as a1")
        assert _Recorded.runs == 1


async def test_an_error_chunk_of_a_tool_is_not_an_error_of_the_answer(tmp_path: Path) -> None:
    """A model that runs its tools tells of their failures; the answer goes on."""

    class Own(ChatRoom):
        model = ScriptedModel(
            chunks=[
                ToolInputAvailable("a1", "own", {}, dynamic=True),
                ToolOutputError("a1", "no luck", dynamic=True),
                "Well.",
            ]
        )

    async with running(tmp_path, Own) as runtime:
        await runtime.get(Own, "r").submit("Go")
        assert told(await answer(runtime, Own)) == [("own", "output-error", "no luck"), "Well."]
