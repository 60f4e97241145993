"""The fold, by hand: parts, states, metadata, and the orders that it refuses."""

from __future__ import annotations

import pytest

from perdure.errors import RemoteProtocolError
from perdure.wire.fold import MessageFold, fold
from perdure.wire.messages import ChatMessage, encode_message
from perdure.wire.ui_chunks import (
    Abort,
    Chunk,
    Data,
    Error,
    File,
    Finish,
    FinishStep,
    MessageMetadata,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    SourceDocument,
    SourceUrl,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolInputDelta,
    ToolOutputAvailable,
)

START = Start("m1")


def test_a_plain_answer() -> None:
    """The commonest stream there is, and its message byte for byte."""
    result = fold(
        [
            START,
            StartStep(),
            TextStart("t1"),
            TextDelta("t1", "Hel"),
            TextDelta("t1", "lo"),
            TextEnd("t1"),
            FinishStep(),
            Finish("stop"),
        ]
    )
    assert encode_message(result.message()) == (
        b'{"id":"m1","role":"assistant","parts":[{"type":"step-start"},'
        b'{"type":"text","text":"Hello","state":"done"}]}'
    )
    assert (result.status, result.finish_reason, result.error_text) == ("finished", "stop", None)
    assert result.text == "Hello"


def test_an_open_part_is_streaming() -> None:
    """A snapshot in the middle has the text so far, and later chunks do not change it."""
    result = fold([START, ReasoningStart("r"), ReasoningDelta("r", "hm"), TextStart("t"), TextDelta("t", "Hi")])
    snapshot = result.message()
    result.push(TextDelta("t", " there"))
    assert snapshot.parts == [
        {"type": "reasoning", "id": "r", "text": "hm", "state": "streaming"},
        {"type": "text", "text": "Hi", "state": "streaming"},
    ]
    assert result.text == "Hi there"
    assert (result.open_text_ids, result.open_reasoning_ids) == (("t",), ("r",))
    assert result.status == "streaming"


def test_parts_interleave() -> None:
    """Deltas go to the part of their id; parts stay in the order of their starts."""
    result = fold(
        [
            START,
            TextStart("a"),
            TextStart("b"),
            TextDelta("b", "2"),
            TextDelta("a", "1"),
            TextEnd("b"),
            TextStart("b"),
            TextDelta("b", "3"),
        ]
    )
    assert [(part["text"], part["state"]) for part in result.message().parts] == [
        ("1", "streaming"),
        ("2", "done"),
        ("3", "streaming"),
    ]
    assert result.text == "123"


def test_the_newest_provider_metadata_replaces() -> None:
    """It is a part's, taken from its start, any delta or its end, and never merged."""
    result = fold(
        [
            START,
            TextStart("t", {"p": {"a": 1}}),
            TextDelta("t", "x"),
            TextEnd("t", {"p": {"b": 2}}),
            ReasoningStart("r"),
            ReasoningDelta("r", "y", {"p": {"c": 3}}),
            ReasoningEnd("r"),
        ]
    )
    assert [part["providerMetadata"] for part in result.message().parts] == [{"p": {"b": 2}}, {"p": {"c": 3}}]


def test_metadata_is_merged_deeply() -> None:
    """Over start, message-metadata and finish; arrays and plain values are replaced."""
    result = fold(
        [
            Start("m1", {"model": "x", "usage": {"in": 1, "seen": [1]}}),
            MessageMetadata({"usage": {"out": 2, "seen": [2]}, "model": None}),
            Finish(message_metadata={"usage": {"in": {"total": 3}}, "constructor": 1}),
        ]
    )
    assert result.message().metadata == {"model": None, "usage": {"in": {"total": 3}, "out": 2, "seen": [2]}}


def test_data_parts_are_replaced_by_type_and_id() -> None:
    """No id appends, a transient one is never kept."""
    result = fold(
        [
            START,
            Data("data-a", 1, "x"),
            Data("data-a", 2),
            Data("data-b", 3, "x"),
            Data("data-a", 4, "x"),
            Data("data-a", 5),
            Data("data-a", 6, "x", transient=True),
        ]
    )
    assert result.message().parts == [
        {"type": "data-a", "id": "x", "data": 4},
        {"type": "data-a", "data": 2},
        {"type": "data-b", "id": "x", "data": 3},
        {"type": "data-a", "data": 5},
    ]


def test_sources_and_files_are_parts() -> None:
    """Each whole in one chunk; absent fields stay absent."""
    result = fold(
        [
            START,
            SourceUrl("s1", "https://a.example", "A"),
            SourceUrl("s2", "https://b.example"),
            SourceDocument("s3", "text/plain", "Notes", "n.txt"),
            File("data:,x", "text/plain", {"p": {}}),
        ]
    )
    assert result.message().parts == [
        {"type": "source-url", "sourceId": "s1", "url": "https://a.example", "title": "A"},
        {"type": "source-url", "sourceId": "s2", "url": "https://b.example"},
        {
            "type": "source-document",
            "sourceId": "s3",
            "mediaType": "text/plain",
            "title": "Notes",
            "filename": "n.txt",
        },
        {"type": "file", "mediaType": "text/plain", "url": "data:,x", "providerMetadata": {"p": {}}},
    ]


@pytest.mark.parametrize(
    ("end", "status", "error_text"),
    [(Abort(), "aborted", None), (Error("overloaded"), "failed", "overloaded"), (Finish(), "finished", None)],
)
def test_the_text_so_far_is_kept(end: Chunk, status: str, error_text: str | None) -> None:
    """However a stream ends, what was said stays."""
    result = fold([START, TextStart("t"), TextDelta("t", "Hal"), end])
    assert (result.status, result.error_text, result.text) == (status, error_text, "Hal")
    assert result.message().parts == [{"type": "text", "text": "Hal", "state": "streaming"}]


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([TextStart("t")], "text-start before `start`"),
        ([Finish()], "finish before `start`"),
        ([START, Start("m2")], "`start` of message 'm2' in the stream of message 'm1'"),
        ([START, TextDelta("t", "x")], "text-delta for part 't', which is not open"),
        ([START, TextEnd("t")], "text-end for part 't', which is not open"),
        ([START, ReasoningStart("t"), TextDelta("t", "x")], "text-delta for part 't', which is not open"),
        ([START, TextStart("t"), ReasoningDelta("t", "x")], "reasoning-delta for part 't', which is not open"),
        ([START, ReasoningEnd("r")], "reasoning-end for part 'r', which is not open"),
        ([START, TextStart("t"), TextEnd("t"), TextDelta("t", "x")], "text-delta for part 't', which is not open"),
        ([START, TextStart("t"), TextStart("t")], "text-start for part 't', which is already open"),
        ([START, StartStep(), TextStart("t"), FinishStep()], "finish-step while part 't' is open"),
        ([START, ReasoningStart("r"), FinishStep()], "finish-step while part 'r' is open"),
        ([START, ToolInputDelta("c", "{")], "tool-input-delta for 'c', whose input is not open: "),
        ([START, ToolOutputAvailable("c", 1)], "there is no tool call 'c' in this message"),
        ([START, Finish(), Finish()], "finish after the end of the stream (finished)"),
        ([START, Abort(), TextStart("t")], "text-start after the end of the stream (aborted)"),
        (
            [START, TextStart("t"), Error("no"), TextDelta("t", "x")],
            "text-delta after the end of the stream (failed)",
        ),
    ],
)
def test_an_illegal_order_is_refused(chunks: list[Chunk], message: str) -> None:
    """Everything that some client refuses or reads differently; the fold stays as it was."""
    *legal, last = chunks
    result = MessageFold("m1")
    for chunk in legal:
        result.push(chunk)
    before = (result.message(), result.status)
    with pytest.raises(RemoteProtocolError) as caught:
        result.push(last)
    assert str(caught.value).startswith(message)
    assert (result.message(), result.status) == before


def test_a_second_start_of_the_same_message_adds_metadata() -> None:
    """Merged streams bring their own starts."""
    result = fold([Start("m1", {"a": 1}), Start(message_metadata={"b": 2}), Start("m1")])
    assert result.message().metadata == {"a": 1, "b": 2}


def test_the_id_comes_from_start_or_from_the_caller() -> None:
    """`start` without an id leaves the caller's."""
    assert fold([START], message_id="other").message_id == "m1"
    assert fold([Start()], message_id="other").message_id == "other"
    assert fold([], message_id="other").message() == ChatMessage("other", "assistant", [])


def test_a_continued_message_is_not_changed() -> None:
    """The fold of a continuation works on copies."""
    held = ChatMessage("m1", "assistant", [{"type": "data-a", "id": "x", "data": 1}], {"a": 1})
    result = MessageFold("m1", message=held)
    for chunk in (Start("m1", {"b": 2}), Data("data-a", 2, "x"), TextStart("t"), TextDelta("t", "more")):
        result.push(chunk)
    assert held == ChatMessage("m1", "assistant", [{"type": "data-a", "id": "x", "data": 1}], {"a": 1})
    assert result.message() == ChatMessage(
        "m1",
        "assistant",
        [{"type": "data-a", "id": "x", "data": 2}, {"type": "text", "text": "more", "state": "streaming"}],
        {"a": 1, "b": 2},
    )


def test_a_hundred_thousand_deltas() -> None:
    """A long answer with a look at it now and then."""
    result = fold([START, TextStart("t")])
    for index in range(100_000):
        result.push(TextDelta("t", "ab "))
        if index % 1_000 == 0:
            assert len(result.text) == 3 * (index + 1)
    assert result.text == "ab " * 100_000
