"""Tool calls in the fold: their states, and what each chunk leaves in the part."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.errors import RemoteProtocolError
from perdure.wire.fold import MessageFold, fold
from perdure.wire.messages import ChatMessage
from perdure.wire.ui_chunks import (
    Chunk,
    Start,
    StartStep,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputError,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputDenied,
    ToolOutputError,
)


def parts_of(*chunks: Chunk) -> list[dict[str, Any]]:
    return fold([Start("m1"), *chunks]).message().parts


def test_an_input_grows_and_is_shown_as_it_grows() -> None:
    """The text so far is kept beside what it says so far; the whole input replaces both."""
    begun: list[Chunk] = [ToolInputStart("c", "weather", title="Weather"), ToolInputDelta("c", '{"city": "Os')]
    assert parts_of(*begun) == [
        {
            "type": "tool-weather",
            "toolCallId": "c",
            "state": "input-streaming",
            "title": "Weather",
            "rawInput": '{"city": "Os',
            "input": {"city": "Os"},
        }
    ]
    assert parts_of(*begun, ToolInputDelta("c", 'lo"}'), ToolInputAvailable("c", "weather", {"city": "Oslo"})) == [
        {
            "type": "tool-weather",
            "toolCallId": "c",
            "state": "input-available",
            "title": "Weather",
            "input": {"city": "Oslo"},
        }
    ]


def test_a_dynamic_tool_names_itself() -> None:
    """Its part has one type for all tools, and the name is a field."""
    assert parts_of(ToolInputAvailable("c", "weather", 1, True, {"p": {"id": 1}}, dynamic=True)) == [
        {
            "type": "dynamic-tool",
            "toolCallId": "c",
            "toolName": "weather",
            "state": "input-available",
            "input": 1,
            "providerExecuted": True,
            "callProviderMetadata": {"p": {"id": 1}},
        }
    ]


def test_preliminary_outputs_are_replaced() -> None:
    """The last output is the one that stays, and its mark with it."""
    call = ToolInputAvailable("c", "weather", {})
    first = ToolOutputAvailable("c", "soon", preliminary=True)
    assert parts_of(call, first)[0]["preliminary"] is True
    assert parts_of(call, first, ToolOutputAvailable("c", {"celsius": -4})) == [
        {
            "type": "tool-weather",
            "toolCallId": "c",
            "state": "output-available",
            "input": {},
            "output": {"celsius": -4},
        }
    ]


def test_a_failed_tool_keeps_its_input() -> None:
    """The error takes the output's place."""
    assert parts_of(ToolInputAvailable("c", "weather", {"a": 1}), ToolOutputError("c", "down")) == [
        {"type": "tool-weather", "toolCallId": "c", "state": "output-error", "input": {"a": 1}, "errorText": "down"}
    ]


def test_a_tool_can_fail_while_its_input_still_grows() -> None:
    """What had come of the input stays visible."""
    assert parts_of(ToolInputStart("c", "weather"), ToolInputDelta("c", '{"a":1'), ToolOutputError("c", "down")) == [
        {
            "type": "tool-weather",
            "toolCallId": "c",
            "state": "output-error",
            "rawInput": '{"a":1',
            "input": {"a": 1},
            "errorText": "down",
        }
    ]


def test_a_bad_input_ends_the_call() -> None:
    """The input is shown as the model wrote it; a call already shown keeps its kind."""
    assert parts_of(ToolInputError("c", "weather", "{oops", "no JSON")) == [
        {
            "type": "tool-weather",
            "toolCallId": "c",
            "state": "output-error",
            "input": "{oops",
            "errorText": "no JSON",
        }
    ]
    shown = parts_of(ToolInputStart("c", "weather", dynamic=True), ToolInputError("c", "weather", "{", "no JSON"))
    assert [(part["type"], part["state"]) for part in shown] == [("dynamic-tool", "output-error")]


def test_a_person_is_asked() -> None:
    """The request's id is in the part; a refusal ends the call and keeps it there."""
    call = ToolInputAvailable("c", "pay", {"sum": 1})
    asked = {"type": "tool-pay", "toolCallId": "c", "input": {"sum": 1}, "approval": {"id": "a1"}}
    assert parts_of(call, ToolApprovalRequest("a1", "c")) == [{**asked, "state": "approval-requested"}]
    assert parts_of(call, ToolApprovalRequest("a1", "c"), ToolOutputDenied("c")) == [
        {**asked, "state": "output-denied"}
    ]


def test_a_result_finds_its_call_in_this_step_then_anywhere() -> None:
    """Models use the same ids again in later steps."""
    first, second = ToolInputAvailable("c", "a", 1), ToolInputAvailable("c", "b", 2)
    late = parts_of(first, StartStep(), ToolOutputAvailable("c", "late"))
    assert [part.get("output") for part in late] == ["late", None]
    both = parts_of(first, StartStep(), second, ToolOutputAvailable("c", "mine"))
    assert [part.get("output") for part in both] == [None, None, "mine"]
    newest = parts_of(first, StartStep(), second, StartStep(), ToolOutputAvailable("c", "newest"))
    assert [part.get("output") for part in newest] == [None, None, "newest", None]


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        (
            [ToolInputStart("c", "t"), ToolInputStart("c", "t")],
            "the input of tool call 'c' is already open",
        ),
        (
            [ToolInputStart("c", "t"), ToolInputAvailable("c", "t", 1), ToolInputDelta("c", "{")],
            "tool-input-delta for 'c', whose input is not open: "
            "a tool-input-start in the same step must come before it",
        ),
        (
            [ToolInputStart("c", "t"), StartStep(), ToolInputDelta("c", "{")],
            "tool-input-delta for 'c', whose input is not open: "
            "a tool-input-start in the same step must come before it",
        ),
        ([ToolApprovalRequest("a", "c")], "there is no tool call 'c' in this message"),
        ([ToolOutputError("c", "x")], "there is no tool call 'c' in this message"),
        ([ToolOutputDenied("c")], "there is no tool call 'c' in this message"),
    ],
)
def test_illegal_orders_are_refused(chunks: list[Chunk], message: str) -> None:
    """Chunks without the call or the open input that they speak of."""
    with pytest.raises(RemoteProtocolError) as caught:
        parts_of(*chunks)
    assert str(caught.value) == message


def test_a_result_comes_to_a_continued_message() -> None:
    """The call is in the message that the client sent back; parts that are not ours are left alone."""
    held = ChatMessage(
        "m1",
        "assistant",
        [
            {"type": "tool-a", "toolCallId": "c", "state": "input-available", "input": 1},
            {"type": "tool-broken"},
            {"type": "step-start"},
        ],
    )
    result = MessageFold("m1", message=held)
    result.push(Start("m1"))
    result.push(ToolOutputAvailable("c", 2))
    assert result.message().parts == [
        {"type": "tool-a", "toolCallId": "c", "state": "output-available", "input": 1, "output": 2},
        {"type": "tool-broken"},
        {"type": "step-start"},
    ]
