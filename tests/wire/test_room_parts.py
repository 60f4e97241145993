"""Parts as room clients get them: only where they say more than the text, and so that chunks can be added."""

from __future__ import annotations

from perdure.wire.fold import MessageFold
from perdure.wire.room import Wait
from perdure.wire.room_parts import growing_parts, parts_beside_text, waits_of
from perdure.wire.ui_chunks import (
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolInputDelta,
    ToolInputStart,
)

TEXT = {"type": "text", "text": "Hi", "state": "done"}
STEP = {"type": "step-start"}


def test_text_alone_needs_no_parts() -> None:
    """Nor do the beginnings of steps."""
    assert parts_beside_text([]) is None
    assert parts_beside_text([STEP, TEXT, STEP]) is None
    assert parts_beside_text([STEP]) is None


def test_everything_else_does() -> None:
    """Two texts, which the content joins; a text with something of a provider's; any other part."""
    assert parts_beside_text([TEXT, TEXT]) == [TEXT, TEXT]
    marked = {**TEXT, "providerMetadata": {"p": {"cache": True}}}
    assert parts_beside_text([marked]) == [marked]
    file = {"type": "file", "mediaType": "image/png", "url": "/a.png"}
    assert parts_beside_text([STEP, file]) == [STEP, file]


def test_a_growing_text_says_what_its_chunks_call_it() -> None:
    """The open one alone: a text that has ended gets no more chunks."""
    fold = MessageFold("a1")
    for chunk in (
        *(Start("a1"), StartStep(), ReasoningStart("r1"), ReasoningDelta("r1", "Hm"), ReasoningEnd("r1")),
        *(TextStart("t1"), TextDelta("t1", "One."), TextEnd("t1"), TextStart("t2"), TextDelta("t2", "Tw")),
        *(ToolInputStart("c1", "order"), ToolInputDelta("c1", '{"id":4')),
    ):
        fold.push(chunk)
    assert growing_parts(fold) == [
        {"type": "step-start"},
        {"type": "reasoning", "id": "r1", "text": "Hm", "state": "done"},
        {"type": "text", "text": "One.", "state": "done"},
        {"type": "text", "text": "Tw", "state": "streaming", "id": "t2"},
        {
            "type": "tool-order",
            "toolCallId": "c1",
            "state": "input-streaming",
            "rawInput": '{"id":4',
            "input": {"id": 4},
        },
    ]


def test_what_an_answer_waits_for() -> None:
    """Approvals, and calls that are the clients' own; not those that have ended or that a provider carries out."""
    parts = [
        TEXT,
        {
            "type": "tool-refund",
            "toolCallId": "c1",
            "state": "approval-requested",
            "input": 1,
            "approval": {"id": "p"},
        },
        {"type": "dynamic-tool", "toolName": "where", "toolCallId": "c2", "state": "input-available", "input": {}},
        {"type": "tool-order", "toolCallId": "c3", "state": "output-available", "output": 1},
        {"type": "tool-web", "toolCallId": "c4", "state": "input-available", "providerExecuted": True},
    ]
    assert waits_of(parts) == [Wait("c1", "refund", "approval", 1), Wait("c2", "where", "result", {})]
    assert waits_of([TEXT]) is None
