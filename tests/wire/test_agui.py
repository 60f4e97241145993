"""A turn's chunks as AG-UI events: what each becomes, literally, and in which order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure.errors import LocalProtocolError, RemoteProtocolError
from perdure.wire.agui import AguiEncoder
from perdure.wire.agui_events import agui_event
from perdure.wire.ui_chunks import (
    Abort,
    Chunk,
    Data,
    Error,
    File,
    Finish,
    FinishReason,
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
    ToolInputAvailable,
    ToolOutputAvailable,
)

RUN_STARTED = {"type": "RUN_STARTED", "threadId": "room", "runId": "run-1"}
MESSAGE_STARTED = {"type": "TEXT_MESSAGE_START", "messageId": "a1", "role": "assistant"}
MESSAGE_ENDED = {"type": "TEXT_MESSAGE_END", "messageId": "a1"}
RUN_FINISHED = {
    "type": "RUN_FINISHED",
    "threadId": "room",
    "runId": "run-1",
    "metadata": {"tanstack": {"finishReason": "stop"}},
}


def said(delta: str) -> dict[str, Any]:
    return {"type": "TEXT_MESSAGE_CONTENT", "messageId": "a1", "delta": delta}


def thought(number: int, *deltas: str) -> list[dict[str, Any]]:
    message_id, step = f"a1-thinking-{number}", f"thinking-{number}"
    told: list[dict[str, Any]] = [
        {"type": "STEP_STARTED", "stepName": step},
        {"type": "REASONING_START", "messageId": message_id},
        {"type": "REASONING_MESSAGE_START", "messageId": message_id, "role": "reasoning"},
    ]
    for delta in deltas:
        told += [said(""), {"type": "REASONING_MESSAGE_CONTENT", "messageId": message_id, "delta": delta}]
    return [
        *told,
        {"type": "REASONING_MESSAGE_END", "messageId": message_id},
        {"type": "REASONING_END", "messageId": message_id},
        {"type": "STEP_FINISHED", "stepName": step},
    ]


def events(*chunks: Chunk) -> list[dict[str, Any]]:
    """What the run of message ``a1`` tells after its start."""
    encoder = AguiEncoder("room", "run-1")
    encoder.restore([Start("a1")])
    return [json.loads(event) for chunk in chunks for event in encoder.encode(chunk)]


def test_an_answer_of_text_byte_for_byte() -> None:
    """Compact JSON, one event each; the message begins with its first part and ends with the run."""
    encoder = AguiEncoder("room", "run-1")
    assert encoder.encode(b'{"type":"start","messageId":"a1"}') == [
        b'{"type":"RUN_STARTED","threadId":"room","runId":"run-1"}'
    ]
    assert encoder.message_id == "a1"
    assert encoder.encode('{"type":"text-start","id":"t1"}') == [
        b'{"type":"TEXT_MESSAGE_START","messageId":"a1","role":"assistant"}'
    ]
    assert encoder.encode(TextDelta("t1", "Hi “you”")) == [
        '{"type":"TEXT_MESSAGE_CONTENT","messageId":"a1","delta":"Hi “you”"}'.encode()
    ]
    assert encoder.encode(TextDelta("t1", "")) == []
    assert encoder.encode(TextEnd("t1")) == []
    assert encoder.encode(Finish("stop")) == [
        b'{"type":"TEXT_MESSAGE_END","messageId":"a1"}',
        b'{"type":"RUN_FINISHED","threadId":"room","runId":"run-1","metadata":{"tanstack":{"finishReason":"stop"}}}',
    ]


def test_texts_that_are_open_together_are_told_in_the_order_of_their_starts() -> None:
    """The second waits for the end of the first, and then goes on live."""
    told = events(
        TextStart("t1"),
        TextStart("t2"),
        TextDelta("t2", "two "),
        TextDelta("t1", "one "),
        TextDelta("t2", "and "),
        TextEnd("t1"),
        TextDelta("t2", "more"),
        Finish(),
    )
    assert told == [
        MESSAGE_STARTED,
        said("one "),
        said("two and "),
        said("more"),
        MESSAGE_ENDED,
        RUN_FINISHED,
    ]


def test_each_thought_has_a_step() -> None:
    """Clients make one part of the thoughts of one step; an empty text names the message of each piece."""
    told = events(
        ReasoningStart("r1"),
        ReasoningDelta("r1", "Hm"),
        ReasoningDelta("r1", "m."),
        ReasoningEnd("r1"),
        ReasoningStart("r1"),
        ReasoningDelta("r1", "Ah."),
        ReasoningEnd("r1"),
        TextStart("t1"),
        TextDelta("t1", "Yes."),
        Finish(),
    )
    assert told == [
        MESSAGE_STARTED,
        *thought(1, "Hm", "m."),
        *thought(2, "Ah."),
        said("Yes."),
        MESSAGE_ENDED,
        RUN_FINISHED,
    ]


def test_a_thought_in_a_text_is_held_until_the_end() -> None:
    """The text goes on as it comes; the thought is told when no text can follow."""
    told = events(
        TextStart("t1"),
        TextDelta("t1", "One. "),
        ReasoningStart("r1"),
        ReasoningDelta("r1", "Hm"),
        ReasoningEnd("r1"),
        TextDelta("t1", "Two."),
        Finish(),
    )
    assert told == [MESSAGE_STARTED, said("One. "), said("Two."), *thought(1, "Hm"), MESSAGE_ENDED, RUN_FINISHED]


def test_a_call_lets_out_what_was_held() -> None:
    """Before the call, in the order in which it came; after the call nothing is held until a text grows again."""
    call = {"type": "TOOL_CALL_START", "toolCallName": "look", "parentMessageId": "a1"}
    result = {"type": "TOOL_CALL_RESULT", "role": "tool"}
    told = events(
        ToolInputAvailable("c1", "look", {}),
        TextStart("t1"),
        TextDelta("t1", "One. "),
        ToolOutputAvailable("c1", "seen"),
        ReasoningStart("r1"),
        ReasoningDelta("r1", "Hm"),
        ReasoningEnd("r1"),
        ToolInputAvailable("c2", "look", {}),
        ToolOutputAvailable("c2", "seen"),
        TextDelta("t1", "Two."),
        Finish(),
    )
    assert told == [
        MESSAGE_STARTED,
        {**call, "toolCallId": "c1"},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "c1", "delta": "{}"},
        {"type": "TOOL_CALL_END", "toolCallId": "c1"},
        said("One. "),
        {**result, "messageId": "c1-result", "toolCallId": "c1", "content": "seen"},
        *thought(1, "Hm"),
        {**call, "toolCallId": "c2"},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "c2", "delta": "{}"},
        {"type": "TOOL_CALL_END", "toolCallId": "c2"},
        {**result, "messageId": "c2-result", "toolCallId": "c2", "content": "seen"},
        MESSAGE_ENDED,
        MESSAGE_STARTED,
        said("Two."),
        MESSAGE_ENDED,
        RUN_FINISHED,
    ]


def test_steps_are_told_when_something_is_in_them() -> None:
    """The first part of a step announces it, after the message; an empty step is not told."""
    told = events(
        StartStep(),
        FinishStep(),
        StartStep(),
        TextStart("t1"),
        TextDelta("t1", "Hi"),
        TextEnd("t1"),
        FinishStep(),
        Finish(),
    )
    assert told == [
        MESSAGE_STARTED,
        {"type": "STEP_STARTED", "stepName": "step-2"},
        said("Hi"),
        {"type": "STEP_FINISHED", "stepName": "step-2"},
        MESSAGE_ENDED,
        RUN_FINISHED,
    ]


@pytest.mark.parametrize(
    ("chunk", "name", "value"),
    [
        (
            SourceUrl("s1", "https://a.test/", "A"),
            "source-url",
            {"sourceId": "s1", "url": "https://a.test/", "title": "A"},
        ),
        (
            SourceDocument("s2", "text/plain", "B", "b.txt"),
            "source-document",
            {"sourceId": "s2", "mediaType": "text/plain", "title": "B", "filename": "b.txt"},
        ),
        (
            File("data:,x", "text/plain", {"openai": {"id": 1}}),
            "file",
            {"url": "data:,x", "mediaType": "text/plain", "providerMetadata": {"openai": {"id": 1}}},
        ),
        (Data("data-weather", {"celsius": -4}, "w1"), "data-weather", {"data": {"celsius": -4}, "id": "w1"}),
        (
            Data("data-notice", None, transient=True),
            "data-notice",
            {"data": None, "transient": True},
        ),
        (MessageMetadata({"tokens": 3}), "message-metadata", {"metadata": {"tokens": 3}}),
    ],
)
def test_what_has_no_part_is_a_custom_event(chunk: Chunk, name: str, value: dict[str, Any]) -> None:
    """Under the chunk's own name, with its fields and the message that it belongs to."""
    assert events(chunk) == [{"type": "CUSTOM", "name": name, "value": {"messageId": "a1", **value}}]


def test_metadata_are_on_the_message() -> None:
    """On its START those of the start, on its END what all of them merge to, and nothing where none came since."""
    encoder = AguiEncoder("room", "run-1")
    chunks: list[Chunk] = [
        Start("a1", {"usage": {"input": 1}, "tanstack": {"model": "x"}}),
        TextStart("t1"),
        TextDelta("t1", "Hi"),
        MessageMetadata({"usage": {"output": 2}}),
        Finish("stop", {"model": "small"}),
    ]
    told = [json.loads(event) for chunk in chunks for event in encoder.encode(chunk)]
    assert [
        event.get("metadata") for event in told if event["type"] in ("TEXT_MESSAGE_START", "TEXT_MESSAGE_END")
    ] == [
        {"usage": {"input": 1}},
        {"usage": {"input": 1, "output": 2}, "model": "small"},
    ]


@pytest.mark.parametrize(
    ("reason", "theirs"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content-filter", "content_filter"),
        ("tool-calls", "stop"),
        ("error", "stop"),
        ("other", "stop"),
        (None, "stop"),
    ],
)
def test_finish_reasons(reason: FinishReason | None, theirs: str) -> None:
    """None is ``tool_calls``: a client would wait for more. An answer of nothing has no message."""
    assert events(Finish(reason)) == [{**RUN_FINISHED, "metadata": {"tanstack": {"finishReason": theirs}}}]


def test_a_stop_ends_the_run_in_order() -> None:
    """What is open ends, and the run is finished; its result says that it was stopped."""
    told = events(StartStep(), TextStart("t1"), TextDelta("t1", "Hal"), Abort())
    assert told == [
        MESSAGE_STARTED,
        {"type": "STEP_STARTED", "stepName": "step-1"},
        said("Hal"),
        {"type": "STEP_FINISHED", "stepName": "step-1"},
        MESSAGE_ENDED,
        {**RUN_FINISHED, "result": {"aborted": True}},
    ]


@pytest.mark.parametrize(("text", "message"), [("no model", "no model"), ("", "the answer failed")])
def test_an_error_is_hung_on_its_message(text: str, message: str) -> None:
    """Also where nothing was said before: a client would make a message for it otherwise."""
    assert events(Error(text)) == [
        MESSAGE_STARTED,
        MESSAGE_ENDED,
        {
            "type": "RUN_ERROR",
            "message": message,
            "metadata": {"tanstack": {"threadId": "room", "runId": "run-1"}},
        },
    ]
    assert events(TextStart("t1"), TextDelta("t1", "Hal"), Error(text))[:5] == [
        MESSAGE_STARTED,
        said("Hal"),
        MESSAGE_ENDED,
        MESSAGE_STARTED,
        MESSAGE_ENDED,
    ]


def test_a_further_run_goes_on_in_the_message() -> None:
    """Restored with the first run's chunks: a run of its own, which begins the message again; the call is known."""
    encoder = AguiEncoder("room", "run-2")
    encoder.restore([Start("a1"), ToolInputAvailable("c1", "look", {}), Finish("tool-calls")])
    chunks: list[Chunk] = [
        Start("a1"),
        ToolOutputAvailable("c1", "seen"),
        TextStart("t1"),
        TextDelta("t1", "Ah"),
        Finish(),
    ]
    assert [json.loads(event) for chunk in chunks for event in encoder.encode(chunk)] == [
        {"type": "RUN_STARTED", "threadId": "room", "runId": "run-2"},
        MESSAGE_STARTED,
        {
            "type": "TOOL_CALL_RESULT",
            "messageId": "c1-result",
            "toolCallId": "c1",
            "content": "seen",
            "role": "tool",
        },
        said("Ah"),
        MESSAGE_ENDED,
        {**RUN_FINISHED, "runId": "run-2"},
    ]


def test_an_answer_without_an_id_has_the_runs() -> None:
    """Clients would make up one each, and none would know the message again."""
    encoder = AguiEncoder("room", "run-1")
    encoder.encode(Start())
    assert json.loads(encoder.encode(TextStart("t1"))[0])["messageId"] == "run-1"


@pytest.mark.parametrize(
    ("chunks", "sentence"),
    [
        ([TextStart("t1")], "text-start before `start`"),
        ([Start("a1"), Finish(), TextStart("t1")], "text-start after the end of the stream"),
        ([Start("a1"), Start("a2")], "`start` of message 'a2' in that of message 'a1'"),
        ([Start("a1"), TextDelta("t1", "x")], "text-delta for part 't1', which is not open"),
        ([Start("a1"), TextEnd("t1")], "text-end for part 't1', which is not open"),
        ([Start("a1"), TextStart("t1"), TextStart("t1")], "text-start for part 't1', which is already open"),
        ([Start("a1"), ReasoningDelta("r1", "x")], "reasoning-delta for part 'r1', which is not open"),
    ],
)
def test_chunks_that_may_not_come_are_refused(chunks: list[Chunk], sentence: str) -> None:
    """The last of these is an error, and the sentence names it."""
    encoder = AguiEncoder("room", "run-1")
    encoder.restore(chunks[:-1])
    with pytest.raises(RemoteProtocolError) as caught:
        encoder.encode(chunks[-1])
    assert str(caught.value) == sentence


def test_what_is_no_chunk_is_refused() -> None:
    """As everywhere: one sentence, whatever is wrong."""
    with pytest.raises(RemoteProtocolError, match="there is no chunk of type 'nope'"):
        AguiEncoder("room", "run-1").encode(b'{"type":"nope"}')


def test_an_event_without_json_is_refused() -> None:
    """Half a surrogate pair cannot be sent."""
    with pytest.raises(LocalProtocolError):
        agui_event("CUSTOM", name="x", value="\ud800")
