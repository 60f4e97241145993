"""Messages as nothing but text."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.wire.plain_text import VALUE_CHARACTERS_SHOWN, part_note, plain_text


def text(said: str) -> dict[str, Any]:
    """A part of text."""
    return {"type": "text", "text": said, "state": "done"}


def refund(state: str, **more: Any) -> dict[str, Any]:
    """A tool's call."""
    return {"type": "tool-refund", "toolCallId": "c1", "state": state, "input": {"order": 17}, **more}


def test_text_is_text() -> None:
    """Joined with nothing between; thoughts, steps and data are none."""
    parts = [{"type": "step-start"}, {"type": "reasoning", "text": "Hm"}, text("one "), text("two")]
    assert plain_text([*parts, {"type": "data-mood", "data": 1}]) == "one two"
    assert plain_text([]) == ""


@pytest.mark.parametrize(
    ("part", "note"),
    [
        (refund("input-streaming"), None),
        (refund("input-available"), '[refund {"order": 17}]'),
        (refund("approval-requested"), None),
        (refund("output-available", output={"über": 1}), '[refund: {"über": 1}]'),
        (refund("output-available", output="x" * VALUE_CHARACTERS_SHOWN), f"[refund: {'x' * 300}]"),
        (refund("output-available", output="x" * (VALUE_CHARACTERS_SHOWN + 1)), f"[refund: {'x' * 299}…]"),
        (refund("output-error", errorText="no money"), "[refund failed: no money]"),
        (refund("output-denied"), "[refund: refused]"),
        (refund("output-available", output="ok") | {"type": "dynamic-tool", "toolName": "pay"}, "[pay: ok]"),
        ({"type": "source-url", "sourceId": "1", "url": "https://a.example"}, "[source: https://a.example]"),
        ({"type": "source-url", "url": "https://a.example", "title": "A"}, "[A: https://a.example]"),
        ({"type": "file", "url": "data:image/png;base64,AAAA", "mediaType": "image/png"}, "[file: image/png]"),
        ({"type": "file", "url": "/f/1", "mediaType": "image/png"}, "[file: /f/1]"),
        ({"type": "file", "url": "/f/1", "mediaType": "image/png", "filename": "a.png"}, "[file: a.png]"),
    ],
)
def test_notes(part: dict[str, Any], note: str | None) -> None:
    """What is said of a part that is no text."""
    assert part_note(part) == note


def test_notes_have_lines_of_their_own() -> None:
    """Between texts, at the beginning and at the end."""
    done = refund("output-available", output="done")
    assert plain_text([text("Let me see."), done, done, text("So."), done]) == (
        "Let me see.\n[refund: done]\n[refund: done]\nSo.\n[refund: done]"
    )
    assert plain_text([done, text("So.\n"), done]) == "[refund: done]\nSo.\n[refund: done]"


def test_what_it_waits_for() -> None:
    """A person's word, or a result; of a call that is being carried out nothing is asked."""
    assert plain_text([refund("approval-requested")], waiting=True) == '[refund {"order": 17} needs an approval]'
    assert plain_text([text("So."), refund("input-available")], waiting=True) == (
        'So.\n[refund {"order": 17} needs a result from its client]'
    )
    assert plain_text([refund("input-available")]) == '[refund {"order": 17}]'


def test_why_it_failed() -> None:
    """Below what was said, if anything was."""
    assert plain_text([text("one")], error="no power") == "one\n[failed: no power]"
    assert plain_text([], error="no power") == "no power"
