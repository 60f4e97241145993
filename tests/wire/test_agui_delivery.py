"""AG-UI events on their way over HTTP: byte for byte, and from any place on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.wire.chunk_sequences import chunk_sequences

from perdure.errors import OffsetError, RemoteProtocolError
from perdure.wire.agui import AguiEncoder
from perdure.wire.agui_delivery import (
    ACCEPTED,
    Encode,
    EventId,
    RunFrames,
    accepted,
    empty_run,
    leg_encoder,
    parse_event_id,
    whole_encoder,
)
from perdure.wire.sse import SseParser
from perdure.wire.ui_chunks import (
    Abort,
    Chunk,
    Finish,
    Start,
    TextDelta,
    TextEnd,
    TextStart,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolOutputAvailable,
    encode_chunk,
)

HELLO: list[Chunk] = [Start("a1"), TextStart("t1"), TextDelta("t1", "Hello"), Finish("stop")]
ASKED: list[Chunk] = [
    Start("a1"),
    TextStart("t1"),
    TextDelta("t1", "Let me see."),
    TextEnd("t1"),
    ToolInputAvailable("c1", "where", {"who": "me"}),
    ToolInputAvailable("c2", "pay", {}),
    ToolApprovalRequest("p1", "c2"),
    Finish("tool-calls", {"tokens": 3}),
]
ANSWERED: list[Chunk] = [
    Start("a1"),
    ToolOutputAvailable("c1", "Oslo"),
    ToolOutputAvailable("c2", "paid"),
    TextStart("t2"),
    TextDelta("t2", "Oslo."),
    Finish("stop"),
]


def frames_of(chunks: list[Chunk], framing: Any = "sse") -> RunFrames:
    frames = RunFrames(AguiEncoder("room", "a1").encode, "a1", framing)
    assert frames.extend([encode_chunk(chunk) for chunk in chunks]) == []
    return frames


def told(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in SseParser().feed(body)]


def leg(*earlier: Chunk, parts: list[dict[str, Any]]) -> Encode:
    """The encoder of the second leg, for who knows the chunks before it."""
    encoder = AguiEncoder("room", "a1.2")
    for chunk in earlier:
        encoder.encode_earlier(encode_chunk(chunk))
    return leg_encoder(encoder, parts)


def ids(body: bytes) -> list[str]:
    return [event.id for event in SseParser().feed(body)]


def test_events_with_ids_byte_for_byte() -> None:
    """One ``id:`` directly before one ``data:``; a reader's own name for the run is in the run's events."""
    assert accepted("sse") == b'id: 0.0\ndata: {"type":"CUSTOM","name":"run.accepted","value":{}}\n\n'
    assert frames_of(HELLO).block(0, 4, ACCEPTED, "run-7") == (
        b'id: 1.0\ndata: {"type":"RUN_STARTED","threadId":"room","runId":"run-7"}\n\n'
        b'id: 2.0\ndata: {"type":"TEXT_MESSAGE_START","messageId":"a1","role":"assistant"}\n\n'
        b'id: 3.0\ndata: {"type":"TEXT_MESSAGE_CONTENT","messageId":"a1","delta":"Hello"}\n\n'
        b'id: 4.0\ndata: {"type":"TEXT_MESSAGE_END","messageId":"a1"}\n\n'
        b'id: 4.1\ndata: {"type":"RUN_FINISHED","threadId":"room","runId":"run-7",'
        b'"metadata":{"tanstack":{"finishReason":"stop"}}}\n\n'
    )


def test_ndjson_byte_for_byte() -> None:
    """A line each, the id beside the event."""
    assert accepted("ndjson") == b'{"id":"0.0","chunk":{"type":"CUSTOM","name":"run.accepted","value":{}}}\n'
    assert frames_of(HELLO, "ndjson").block(2, 3, ACCEPTED, "run-7") == (
        b'{"id":"3.0","chunk":{"type":"TEXT_MESSAGE_CONTENT","messageId":"a1","delta":"Hello"}}\n'
    )


def test_a_run_in_which_nothing_is_said() -> None:
    """It begins and ends."""
    body = empty_run("room", "run-1", "sse", None)
    assert [event["type"] for event in told(body)] == ["CUSTOM", "RUN_STARTED", "RUN_FINISHED"]
    assert ids(body) == ["0.0", "1.0", "1.1"]
    again = empty_run("room", "run-1", "sse", EventId(1, 1))
    assert [event["type"] for event in told(again)] == ["RUN_STARTED", "RUN_FINISHED"]
    assert ids(again) == ["2.0", "2.1"]


def test_only_the_runs_own_name_is_changed() -> None:
    """Text that looks like it stays."""
    frames = frames_of([Start("a1"), TextStart("t1"), TextDelta("t1", '"runId":"a1"'), Abort()])
    events = told(frames.block(0, 4, ACCEPTED, "run-7"))
    assert [event["runId"] for event in events if "runId" in event] == ["run-7", "run-7"]
    assert events[2]["delta"] == '"runId":"a1"'


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chunks=chunk_sequences(), data=st.data())
def test_a_reader_goes_on_strictly_after_any_event(chunks: list[Chunk], data: st.DataObject) -> None:
    """Whichever event was the last that it saw, in whatever portions the rest comes."""
    frames = frames_of(chunks)
    count = frames.count
    whole = SseParser().feed(frames.block(0, count, ACCEPTED, "r"))
    assert len({event.id for event in whole}) == len(whole)
    seen = data.draw(st.integers(0, len(whole)))
    after = parse_event_id(whole[seen - 1].id) if seen else ACCEPTED
    cut = data.draw(st.integers(0, count))
    rest = frames.block(0, cut, after, "r") + frames.block(cut, count, after, "r")
    assert [event.data for event in SseParser().feed(rest)] == [event.data for event in whole[seen:]]


@pytest.mark.parametrize("text", ["", "1", "1.", "a.b", "-1.0", "1.0.0", "1.0\n", " 1.0", "9" * 13 + ".0"])
def test_what_is_no_id(text: str) -> None:
    """Refused, before anything is read."""
    with pytest.raises(OffsetError):
        parse_event_id(text)


def test_an_id_is_read_as_it_is_written() -> None:
    """There and back."""
    assert parse_event_id(str(EventId(12, 3))) == EventId(12, 3)


def test_a_chunk_that_cannot_be_told_is_left_out() -> None:
    """The others keep their ids."""
    frames = RunFrames(AguiEncoder("room", "a1").encode, "a1", "sse")
    chunks: list[Chunk] = [Start("a1"), TextDelta("t9", "lost"), TextStart("t1"), TextDelta("t1", "Hi")]
    (problem,) = frames.extend([encode_chunk(chunk) for chunk in chunks])
    assert isinstance(problem, RemoteProtocolError)
    assert ids(frames.block(0, 4, ACCEPTED, "r")) == ["1.0", "3.0", "4.0"]


def test_a_leg_goes_on_where_the_last_one_was() -> None:
    """Its run begins the same message again, and names the calls as before."""
    encode = leg(*ASKED, parts=[])
    events = [json.loads(event) for chunk in ANSWERED for event in encode(encode_chunk(chunk))]
    assert [event["type"] for event in events] == [
        "RUN_STARTED",
        "TEXT_MESSAGE_START",
        "TOOL_CALL_RESULT",
        "TOOL_CALL_RESULT",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]
    assert {event["messageId"] for event in events if event["type"].startswith("TEXT")} == {"a1"}


@pytest.mark.parametrize("without_envelopes", [True, False])
def test_a_whole_answer_is_one_run(without_envelopes: bool) -> None:
    """For who joins: one beginning, one end, and no question that was answered since."""
    earlier, rest = ASKED, ANSWERED
    if without_envelopes:
        earlier, rest = ASKED[:-1], ANSWERED[1:]
    encode = whole_encoder(AguiEncoder("room", "a1"), len(earlier), [])
    events = [json.loads(event) for chunk in [*earlier, *rest] for event in encode(encode_chunk(chunk))]
    assert [event["type"] for event in events] == [
        "RUN_STARTED",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        *["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"] * 2,
        "TOOL_CALL_RESULT",
        "TOOL_CALL_RESULT",
        *["TEXT_MESSAGE_END", "TEXT_MESSAGE_START"],  # another text: a call came between
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]
    if not without_envelopes:
        assert [event["metadata"] for event in events[:-1] if "metadata" in event] == [{"tokens": 3}]


GIVEN = [
    {"type": "text", "text": "Let me see."},
    {"type": "tool-where", "toolCallId": "c1", "state": "output-available", "output": "Oslo"},
    {"type": "tool-pay", "toolCallId": "c2", "state": "output-available", "output": "paid"},
]
"""The message's parts when its client has given a result, and the approved call has one, too."""


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_client_gave_is_told_when_the_next_leg_begins(whole: bool) -> None:
    """No chunk tells it. The result of the call that was approved comes in its chunk."""
    asked, rest = [encode_chunk(chunk) for chunk in ASKED], [ANSWERED[0], *ANSWERED[2:]]
    encoder = AguiEncoder("room", "a1")
    encode = whole_encoder(encoder, len(asked), GIVEN) if whole else leg(*ASKED, parts=GIVEN)
    before = [event for chunk in asked for event in encode(chunk)] if whole else []
    assert not any(b"TOOL_CALL_RESULT" in event for event in before)
    told_per_chunk = [[json.loads(event) for event in encode(encode_chunk(chunk))] for chunk in rest]
    results = [[event for event in events if event["type"] == "TOOL_CALL_RESULT"] for events in told_per_chunk]
    assert [[(event["toolCallId"], event["content"]) for event in events] for events in results] == [
        [("c1", "Oslo")],
        [("c2", "paid")],
        *([[]] * 3),
    ]


def test_what_a_client_could_not_do_is_told_as_well() -> None:
    """As the error that it gave."""
    failed = {"type": "tool-where", "toolCallId": "c1", "state": "output-error", "errorText": "no gps"}
    encode = leg(*ASKED, parts=[failed])
    (result,) = [event for event in map(json.loads, encode(Start("a1"))) if event["type"] == "TOOL_CALL_RESULT"]
    assert (result["content"], result["metadata"]) == ('{"error":"no gps"}', {"tanstack": {"state": "output-error"}})


def test_who_has_come_to_the_end_is_told_it_again() -> None:
    """Its client believes in no end that came in another response: under a new id, again and again."""
    frames = frames_of(HELLO)
    assert not frames.is_over(ACCEPTED)
    assert not frames.is_over(EventId(4, 0))
    after = EventId(4, 1)
    for expected in ("5.0", "6.0"):
        assert frames.is_over(after)
        assert frames.block(0, 4, after, "run-7") == b""
        body = frames.end_again(after, "run-7")
        assert ids(body) == [expected]
        assert told(body)[0] == {
            "type": "RUN_FINISHED",
            "threadId": "room",
            "runId": "run-7",
            "metadata": {"tanstack": {"finishReason": "stop"}},
        }
        after = parse_event_id(ids(body)[0])


def test_an_answer_that_waits_asks_whoever_joins() -> None:
    """The questions of the newest leg are still open."""
    encode = whole_encoder(AguiEncoder("room", "a1"), 0, [])
    events = [json.loads(event) for chunk in ASKED for event in encode(encode_chunk(chunk))]
    assert [event["name"] for event in events if event["type"] == "CUSTOM"] == [
        "approval-requested",
        "tool-input-available",
    ]
