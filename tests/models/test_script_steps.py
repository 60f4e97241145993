"""Scripts with several steps: which one comes next, where it goes on, and what happens between its pieces."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.models.answers import answer, folded

from perdure.errors import ModelOverloaded
from perdure.models.base import ToolSpec, TurnContext
from perdure.models.scripted import Failure, Hang, Pause, ScriptedModel, Until, tool_part
from perdure.wire.messages import ChatMessage
from perdure.wire.ui_chunks import (
    FinishStep,
    StartStep,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolOutputAvailable,
    ToolOutputDenied,
)


def _said(model: ScriptedModel, turn: TurnContext) -> list[Any]:
    pieces, error = asyncio.run(answer(model, turn))
    assert error is None
    return pieces


def _answer(*parts: dict[str, Any]) -> ChatMessage:
    return ChatMessage(id="a", role="assistant", parts=list(parts))


STEP: dict[str, Any] = {"type": "step-start"}
TEXT: dict[str, Any] = {"type": "text", "text": "one"}


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (None, ["one"]),
        (_answer(), ["one"]),
        (_answer(STEP), ["one"]),
        (_answer(STEP, TEXT), ["two", "and"]),
        (_answer(TEXT), ["two", "and"]),
        (_answer(STEP, TEXT, STEP, TEXT), ["three"]),
        (_answer(STEP, TEXT, STEP, TEXT, STEP, TEXT), ["done at last"]),
        (_answer(*[STEP, TEXT] * 4), []),
    ],
)
def test_the_step_after_those_in_the_answer_is_said(done: ChatMessage | None, said: list[str]) -> None:
    """Also where one list has two steps, parted by `StartStep`; after the last step there is nothing to say."""
    model = ScriptedModel(steps=[["one"], ["two", "and", FinishStep(), StartStep(), "three"], ["done", " at last"]])
    pieces = _said(model, TurnContext(text="", answer=done))
    until = pieces.index(FinishStep()) if FinishStep() in pieces else len(pieces)
    assert "".join(map(str, pieces[:until])) == "".join(said)


def test_a_step_goes_on_after_what_was_said_of_it() -> None:
    """The chunks after the text come again; the steps before do not."""
    call = ToolInputAvailable("c", "look", {})
    model = ScriptedModel(steps=[["one"], ["two ", "three", call]])
    turn = TurnContext(text="", answer=_answer(STEP, TEXT), partial="two th")
    assert _said(model, turn) == ["ree", call]


def test_each_turn_has_calls_of_its_own() -> None:
    """A room carries no call out twice, so the turn's id is part of the call's."""
    model = ScriptedModel(steps=[[ToolInputAvailable("call-{turn_id}", "look", {"at": "{turn_id}"})]])
    assert _said(model, TurnContext(text="", turn_id="t1")) == [
        ToolInputAvailable("call-t1", "look", {"at": "{turn_id}"})
    ]


def test_a_step_is_made_from_the_turn() -> None:
    """With the tool's result in it."""
    model = ScriptedModel(steps=[[], lambda turn: [f"It is {tool_part(turn, 'look')['output']}."]])
    part = {"type": "tool-look", "toolCallId": "c", "state": "output-available", "input": {}, "output": 7}
    assert _said(model, TurnContext(text="", answer=_answer(STEP, part))) == ["It is 7."]
    with pytest.raises(LookupError, match="no call of 'look' yet"):
        tool_part(TurnContext(text=""), "look")


def test_events_happen_between_pieces() -> None:
    """A pause, a wait for the test, a failure in the first attempt only."""

    async def main() -> None:
        ready = asyncio.Event()
        model = ScriptedModel(steps=[["one", Pause(1), Until(ready.wait), "two", Failure("overloaded", attempts=1)]])
        response = model.respond(TurnContext(text=""))
        assert await anext(response) == "one"
        second = asyncio.ensure_future(anext(response))
        await asyncio.sleep(0.02)
        assert not second.done()
        ready.set()
        assert await second == "two"
        with pytest.raises(ModelOverloaded, match="scripted failure"):
            await anext(response)
        assert await answer(model, TurnContext(text="", attempt=2, partial="one")) == (["two"], None)

    asyncio.run(main())


def test_a_script_hangs_in_its_first_attempts() -> None:
    """And goes on after it in the next."""

    async def main() -> None:
        model = ScriptedModel(steps=[["one", Hang(attempts=1), "two"]])
        response = model.respond(TurnContext(text=""))
        assert await anext(response) == "one"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(response), 0.05)
        assert await answer(model, TurnContext(text="", attempt=2, partial="one")) == (["two"], None)

    asyncio.run(main())


WEATHER = ToolSpec(
    "weather",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "unit": {"enum": ["C", "F"]},
            "x": {},
        },
        "required": ["city", "days", "unit"],
    },
)


def test_the_rooms_tool_is_called_and_left_to_the_room() -> None:
    """The input streams and fits the tool's schema; the step ends with the call; then the result is told."""
    model = ScriptedModel.from_text("tool=weather")
    turn = TurnContext(text="Weather in Rome for 3 days?", turn_id="t", tools=[WEATHER])
    pieces = _said(model, turn)
    message = folded(pieces)
    assert message.parts[-1] == {
        "type": "tool-weather",
        "toolCallId": "call-t",
        "state": "input-available",
        "input": {"city": "Rome", "days": 3, "unit": "C"},
    }
    assert message.parts[1]["type"] == "reasoning"
    assert message.text == "Let me ask `weather`.\n\n"
    done = folded([*pieces, ToolOutputAvailable("call-t", [1, 2])])
    assert _said(model, TurnContext(text="", answer=done, tools=[WEATHER])) == [
        "`weather`",
        " says:",
        " `[1,",
        " 2]`.",
    ]


def test_a_tool_that_the_room_lacks_is_played() -> None:
    """Call, result and answer in one go, in two steps."""
    pieces = _said(ScriptedModel.from_text("tool=weather"), TurnContext(text="And in Rome?", turn_id="t"))
    assert ToolOutputAvailable("call-t", {"city": "Rome", "degrees": 19, "sky": "sunny"}) in pieces
    parts = folded(pieces).parts
    assert [part["type"] for part in parts].count("step-start") == 2
    assert folded(pieces).text.endswith("In Rome it is 19 degrees and sunny.")


@pytest.mark.parametrize("approved", [True, False])
def test_a_played_tool_can_ask_first(approved: bool) -> None:
    """The answer waits; then the tool does it, or does not."""
    model = ScriptedModel.from_text("tool=send&approval=1")
    pieces = _said(model, TurnContext(text="Send it", turn_id="t"))
    assert pieces[-1] == ToolApprovalRequest("approval-t", "call-t")
    waiting = folded(pieces)
    waiting.parts[-1] |= {"state": "approval-responded", "approval": {"id": "approval-t", "approved": approved}}
    first, *rest = _said(model, TurnContext(text="Send it", turn_id="t", answer=waiting))
    if approved:
        assert first == ToolOutputAvailable("call-t", {"ok": True, "asked": {"text": "Send it"}})
        assert "".join(rest).startswith("`send` says:")
    else:
        assert first == ToolOutputDenied("call-t")
        assert "".join(rest) == "You did not allow `send`, so I cannot say."


def test_a_failed_tool_is_told() -> None:
    """With the tool's own words."""
    part = {"type": "tool-weather", "toolCallId": "c", "state": "output-error", "input": {}, "errorText": "no sky"}
    turn = TurnContext(text="", answer=_answer(STEP, part), tools=[WEATHER])
    assert "".join(_said(ScriptedModel.from_text("tool=weather"), turn)) == "`weather` failed: no sky"


def test_the_tour_has_all_kinds_of_parts() -> None:
    """Enough to build a page with."""
    message = folded(_said(ScriptedModel.from_text("tour&speed=100000"), TurnContext(text="Show me", turn_id="t")))
    kinds = {part["type"] for part in message.parts}
    assert kinds == {
        "step-start",
        "reasoning",
        "text",
        "source-url",
        "source-document",
        "tool-weather",
        "data-weather",
        "file",
    }
    assert message.metadata == {"usage": {"inputTokens": 12, "outputTokens": 34, "totalTokens": 46}}
