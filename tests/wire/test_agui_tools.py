"""Tool calls as AG-UI events: their inputs, results, questions, and ids that come again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure.errors import RemoteProtocolError
from perdure.wire.agui import AguiEncoder
from perdure.wire.agui_events import result_text
from perdure.wire.ui_chunks import (
    Abort,
    Chunk,
    Finish,
    Start,
    StartStep,
    TextStart,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputError,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputDenied,
    ToolOutputError,
)

FAILED = {"tanstack": {"state": "output-error"}}


def events(*chunks: Chunk) -> list[dict[str, Any]]:
    """What the run of message ``a1`` tells after the start of its first text."""
    encoder = AguiEncoder("room", "run-1")
    encoder.restore([Start("a1"), TextStart("t1")])
    return [json.loads(event) for chunk in chunks for event in encoder.encode(chunk)]


def started(call_id: str = "c1", name: str = "look") -> dict[str, Any]:
    return {"type": "TOOL_CALL_START", "toolCallId": call_id, "toolCallName": name, "parentMessageId": "a1"}


def piece(delta: str, call_id: str = "c1") -> dict[str, Any]:
    return {"type": "TOOL_CALL_ARGS", "toolCallId": call_id, "delta": delta}


def ended(call_id: str = "c1") -> dict[str, Any]:
    return {"type": "TOOL_CALL_END", "toolCallId": call_id}


def result(content: str, call_id: str = "c1") -> dict[str, Any]:
    return {
        "type": "TOOL_CALL_RESULT",
        "messageId": f"{call_id}-result",
        "toolCallId": call_id,
        "content": content,
        "role": "tool",
    }


def test_a_streamed_input_is_told_as_it_comes() -> None:
    """Its pieces are enough where they are the input's JSON, in whichever spelling."""
    assert events(
        ToolInputStart("c1", "look"),
        ToolInputDelta("c1", '{ "at": '),
        ToolInputDelta("c1", ""),
        ToolInputDelta("c1", "1.0}"),
        ToolInputAvailable("c1", "look", {"at": 1.0}),
    ) == [started(), piece('{ "at": '), piece("1.0}"), ended()]


@pytest.mark.parametrize("text", ['{"at": 1', '{"at": 2}'])
def test_an_input_that_was_mended_goes_before_its_pieces(text: str) -> None:
    """It is where TanStack looks for it: AG-UI's event has no field for it."""
    assert events(
        ToolInputStart("c1", "look"), ToolInputDelta("c1", text), ToolInputAvailable("c1", "look", {"at": 1})
    ) == [started(), piece(text), {**ended(), "metadata": {"tanstack": {"input": {"at": 1}}}}]


def test_a_whole_input_is_one_piece() -> None:
    """With and without a start before it; a call that the provider carries out says so."""
    assert events(ToolInputAvailable("c1", "look", None)) == [started(), piece("null"), ended()]
    assert events(ToolInputStart("c1", "look", True), ToolInputAvailable("c1", "look", [1], True)) == [
        {**started(), "metadata": {"providerExecuted": True}},
        piece("[1]"),
        ended(),
    ]


@pytest.mark.parametrize(
    ("chunk", "told"),
    [
        (ToolOutputAvailable("c1", {"celsius": -4}), result('{"celsius":-4}')),
        (ToolOutputAvailable("c1", "cold", preliminary=True), result("cold")),
        (ToolOutputError("c1", "no such city"), {**result('{"error":"no such city"}'), "metadata": FAILED}),
        (ToolOutputError("c1", ""), {**result('{"error":"the tool failed"}'), "metadata": FAILED}),
        (
            ToolOutputDenied("c1"),
            {**result('{"error":"the user did not allow this tool call"}'), "metadata": FAILED},
        ),
    ],
)
def test_results(chunk: Chunk, told: dict[str, Any]) -> None:
    """A failure is told by its state; an input that was still open ends first."""
    assert events(ToolInputStart("c1", "look"), chunk) == [started(), ended(), told]


def test_an_input_that_the_tool_cannot_take() -> None:
    """The call ends with its input and its error."""
    assert events(ToolInputError("c1", "look", {"at": "x"}, "no number")) == [
        started(),
        piece('{"at":"x"}'),
        ended(),
        {**result('{"error":"no number"}'), "metadata": FAILED},
    ]


@pytest.mark.parametrize(
    ("output", "content"),
    [
        ("plain text", "plain text"),
        ("", ""),
        ("42", '"42"'),
        (' {"a": 1} ', '" {\\"a\\": 1} "'),
        ("NaN of things", "NaN of things"),
        ("[" * 100_000, json.dumps("[" * 100_000)),
        (None, "null"),
        (["é", 1.5, {"a": None}], '["é",1.5,{"a":null}]'),
    ],
)
def test_clients_read_back_the_output_that_was_given(output: Any, content: str) -> None:
    """They take a content for JSON where they can, so a text that looks like JSON is sent as JSON."""
    assert result_text(output) == content


def test_a_question_is_asked_with_the_calls_input() -> None:
    """The form that TanStack calls legacy: its clients ask, and post the word in the message."""
    asked = {
        "type": "CUSTOM",
        "name": "approval-requested",
        "value": {
            "toolCallId": "c1",
            "toolName": "look",
            "input": {"at": 1},
            "approval": {"id": "p1", "needsApproval": True},
        },
    }
    told = events(ToolInputAvailable("c1", "look", {"at": 1}), ToolApprovalRequest("p1", "c1"))
    assert told == [started(), piece('{"at":1}'), ended(), asked]
    told = events(ToolInputStart("c1", "look"), ToolInputDelta("c1", '{"at'), ToolApprovalRequest("p1", "c1"))
    assert told[-2:] == [ended(), {**asked, "value": {**asked["value"], "input": {}}}]  # type: ignore[dict-item]


def test_the_client_carries_out_what_waits_for_it() -> None:
    """Where the turn stops for calls: those with neither a result nor a question, and not the provider's."""
    chunks: list[Chunk] = [
        ToolInputAvailable("c1", "look", {"at": 1}),
        ToolInputAvailable("c2", "look", {}),
        ToolInputAvailable("c3", "look", {}),
        ToolInputAvailable("c4", "search", {}, True),
        ToolInputAvailable("c5", "look", {"at": 5}),
        ToolInputStart("c6", "look"),
        ToolOutputAvailable("c2", "seen"),
        ToolApprovalRequest("p1", "c3"),
    ]

    def asked(end: Chunk) -> list[Any]:
        return [event["value"] for event in events(*chunks, end) if event.get("name") == "tool-input-available"]

    assert asked(Finish("tool-calls")) == [
        {"toolCallId": "c1", "toolName": "look", "input": {"at": 1}},
        {"toolCallId": "c5", "toolName": "look", "input": {"at": 5}},
    ]
    assert events(*chunks, Finish("tool-calls"))[-1]["type"] == "RUN_FINISHED"
    assert asked(Finish("stop")) == []
    assert asked(Abort()) == []


def test_an_id_that_comes_again_is_another_call() -> None:
    """Models number their calls from 0 in each step; clients would take the second for the first."""
    told = events(
        StartStep(),
        ToolInputStart("c1", "look"),
        ToolInputDelta("c1", "{"),
        StartStep(),
        ToolInputStart("c1", "read"),
        ToolInputDelta("c1", "[]"),
        ToolInputAvailable("c1", "read", []),
        ToolOutputAvailable("c1", "seen"),
        ToolInputAvailable("c1", "read", {}),
    )
    assert [event for event in told if not event["type"].startswith("STEP")] == [
        started(),
        piece("{"),
        ended(),
        started("c1~2", "read"),
        piece("[]", "c1~2"),
        ended("c1~2"),
        result("seen", "c1~2"),
        started("c1~3", "read"),
        piece("{}", "c1~3"),
        ended("c1~3"),
    ]


@pytest.mark.parametrize(
    ("chunks", "sentence"),
    [
        ([ToolInputDelta("c1", "{")], "tool-input-delta for 'c1', whose input is not open"),
        (
            [ToolInputStart("c1", "look"), StartStep(), ToolInputDelta("c1", "{")],
            "tool-input-delta for 'c1', whose input is not open",
        ),
        ([ToolOutputAvailable("c1", 1)], "there is no tool call 'c1' in this message"),
        ([ToolApprovalRequest("p1", "c1")], "there is no tool call 'c1' in this message"),
    ],
)
def test_chunks_without_their_call_are_refused(chunks: list[Chunk], sentence: str) -> None:
    """The sentence names the call."""
    with pytest.raises(RemoteProtocolError) as caught:
        events(*chunks)
    assert str(caught.value) == sentence
