"""The unfold of a message is chunks whose fold is the message."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from tests.wire.chunk_sequences import MESSAGE_ID, chunk_sequences

from perdure.wire.fold import MessageFold
from perdure.wire.messages import ChatMessage
from perdure.wire.ui_chunks import (
    Chunk,
    FinishStep,
    SourceUrl,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputStart,
    ToolOutputAvailable,
)
from perdure.wire.unfold import unfold


def _folded(chunks: list[Chunk]) -> ChatMessage:
    fold = MessageFold(MESSAGE_ID)
    for chunk in chunks:
        fold.push(chunk)
    return fold.message()


def test_a_message_is_told_by_few_chunks() -> None:
    """Each text whole, each call with its result, steps as they were."""
    message = ChatMessage(
        MESSAGE_ID,
        "assistant",
        [
            {"type": "step-start"},
            {"type": "text", "text": "Let me look.", "state": "done"},
            {
                "type": "tool-weather",
                "toolCallId": "c1",
                "state": "output-available",
                "input": {"city": "Paris"},
                "output": "sunny",
                "approval": {"id": "ap1", "approved": True},
            },
            {"type": "step-start"},
            {"type": "source-url", "sourceId": "s1", "url": "https://example.com/"},
            {"type": "from-the-future", "x": 1},
        ],
        {"model": "m"},
    )
    assert unfold(message) == [
        Start(MESSAGE_ID, {"model": "m"}),
        StartStep(),
        TextStart("part-1"),
        TextDelta("part-1", "Let me look."),
        TextEnd("part-1"),
        ToolInputAvailable("c1", "weather", {"city": "Paris"}),
        ToolApprovalRequest("ap1", "c1"),
        ToolOutputAvailable("c1", "sunny"),
        FinishStep(),
        StartStep(),
        SourceUrl("s1", "https://example.com/"),
        FinishStep(),
    ]


def test_an_input_that_is_still_written_keeps_what_is_known_of_it() -> None:
    """Its title, and what the provider said with it."""
    part = {
        "type": "tool-weather",
        "toolCallId": "c1",
        "state": "input-streaming",
        "title": "Weather",
        "callProviderMetadata": {"p": {"x": 1}},
        "toolMetadata": {"y": 2},
    }
    chunks = unfold(ChatMessage(MESSAGE_ID, "assistant", [part]))
    assert chunks[1:] == [
        ToolInputStart("c1", "weather", title="Weather", provider_metadata={"p": {"x": 1}}, tool_metadata={"y": 2})
    ]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chunks=chunk_sequences())
def test_the_fold_of_the_unfold_is_the_message(chunks: list[Chunk]) -> None:
    """Whatever was said, but for what has no chunk; and where one id is two calls, nobody knows whose a result is."""
    message = _folded(chunks)
    calls = [part["toolCallId"] for part in message.parts if "toolCallId" in part]
    assume(len(set(calls)) == len(calls))
    again = _folded(unfold(message))
    assert [_plain(part) for part in again.parts] == [_plain(part) for part in message.parts]
    assert again.metadata == message.metadata


def _plain(part: dict[str, Any]) -> dict[str, Any]:
    """The part without what tells how it came about rather than what it is."""
    return {name: value for name, value in part.items() if name not in ("rawInput", "resultProviderMetadata")}
