"""Parts as room clients get them: only where they say more than the text, and so that chunks can be added."""

from __future__ import annotations

from perdure.wire.fold import MessageFold, fold
from perdure.wire.messages import ChatMessage
from perdure.wire.room import Wait
from perdure.wire.room_parts import Part, growing_parts, parts_beside_text, waits_of
from perdure.wire.ui_chunks import (
    Chunk,
    Finish,
    FinishStep,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputStart,
    ToolOutputAvailable,
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


def test_a_growing_answer_can_be_taken_up_anywhere() -> None:
    """From what it is after any of its chunks, the rest makes the same message."""
    chunks: list[Chunk] = [
        *(Start("a1"), StartStep(), ReasoningStart("r1"), ReasoningDelta("r1", "Hm"), ReasoningDelta("r1", "m")),
        *(ReasoningEnd("r1"), TextStart("t1"), TextDelta("t1", "One"), TextDelta("t1", "."), TextEnd("t1")),
        *(ToolInputStart("c1", "order"), ToolInputDelta("c1", '{"id":4'), ToolInputDelta("c1", "7}")),
        *(ToolInputAvailable("c1", "order", {"id": 47}), ToolOutputAvailable("c1", {"state": "sent"})),
        *(FinishStep(), StartStep(), TextStart("t1"), TextDelta("t1", "Sent."), TextEnd("t1"), FinishStep()),
        Finish("stop"),
    ]
    whole = fold(chunks).message()
    for cut in range(1, len(chunks)):
        begun = fold(chunks[:cut])
        snapshot = ChatMessage("a1", "assistant", growing_parts(begun))
        taken_up = MessageFold.taking_up(snapshot)
        for chunk in chunks[cut:]:
            taken_up.push(chunk)
        assert taken_up.message() == whole, cut


def test_what_an_answer_waits_for() -> None:
    """Approvals, and calls that are the clients' own; not those that have ended or that a provider carries out."""
    parts: list[Part] = [
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
