"""Helix-style sessions: what a request to resume names, and what opens the parts that it comes into."""

from __future__ import annotations

import pytest

from perdure.errors import RemoteProtocolError
from perdure.wire.fold import fold
from perdure.wire.helix import parse_resume, reopened
from perdure.wire.ui_chunks import (
    Chunk,
    ReasoningDelta,
    ReasoningStart,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputStart,
    ToolOutputAvailable,
)


def test_a_resume_names_a_number_and_a_message() -> None:
    """Either may be absent; an event's id will do for the number."""
    assert parse_resume({}) == (None, None)
    assert parse_resume({"x-resume-from-sequence": "42", "x-existing-message-id": "msg-123"}) == (42, "msg-123")
    assert parse_resume({"last-event-id": "7"}) == (7, None)
    assert parse_resume({"x-resume-from-sequence": "0", "last-event-id": "7"}) == (0, None)
    assert parse_resume({"x-resume-from-sequence": "9" * 15, "x-existing-message-id": "m" * 256})[0] == 10**15 - 1


@pytest.mark.parametrize(
    "headers",
    [
        {"x-resume-from-sequence": "-1"},
        {"x-resume-from-sequence": "1.5"},
        {"x-resume-from-sequence": "٣"},
        {"x-resume-from-sequence": "9" * 16},
        {"x-existing-message-id": "m" * 257},
    ],
)
def test_what_is_no_number_is_refused(headers: dict[str, str]) -> None:
    """And an id that no message can have."""
    with pytest.raises(RemoteProtocolError):
        parse_resume(headers)


def test_open_parts_are_opened_again() -> None:
    """Texts, thoughts, an input with what was written of it, and calls without a result; nothing that is whole."""
    chunks: list[Chunk] = [
        Start("m1"),
        StartStep(),
        TextStart("t1"),
        TextDelta("t1", "whole"),
        TextEnd("t1"),
        ToolInputAvailable("c1", "done", {}),
        ToolOutputAvailable("c1", 1),
        ToolInputAvailable("c2", "works", {"a": 1}),
        ToolInputAvailable("c3", "asks", {}, dynamic=True),
        ToolApprovalRequest("ok3", "c3"),
        ToolInputStart("c4", "written", title="T"),
        ToolInputDelta("c4", '{"b'),
        TextStart("t2"),
        TextDelta("t2", "half"),
        ReasoningStart("r1"),
        ReasoningDelta("r1", "hm"),
    ]
    assert list(reopened(fold(chunks), "mine")) == [
        Start("mine"),
        TextStart("t2"),
        ReasoningStart("r1"),
        ToolInputAvailable("c2", "works", {"a": 1}),
        ToolInputAvailable("c3", "asks", {}, dynamic=True),
        ToolApprovalRequest("ok3", "c3"),
        ToolInputStart("c4", "written", title="T"),
        ToolInputDelta("c4", '{"b'),
    ]
