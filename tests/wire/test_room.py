"""The room protocol: the literal bytes of every frame that a server sends."""

from __future__ import annotations

import msgspec
import pytest

from perdure.wire.room import (
    PONG,
    RECONNECT,
    Branches,
    Person,
    RoomMessage,
    Wait,
    chunks_frame,
    complete_frame,
    delta_frame,
    error_frame,
    init_frame,
    message_frame,
    presence_frame,
    remove_frame,
    resume_frame,
    update_frame,
)

QUESTION = RoomMessage("u1", "user", "Hi", 1_700_000_000_000, user="Ada")
ANSWER = RoomMessage("a1", "assistant", "", 1_700_000_000_001, status="streaming")
WITH_PARTS = RoomMessage(
    *("a1", "assistant", "", 1_700_000_000_001),
    status="complete",
    branches=Branches(1, 2),
    parts=[{"type": "step-start"}, {"type": "source-url", "sourceId": "s", "url": "https://example.com"}],
    metadata={"usage": 7},
)


@pytest.mark.parametrize(
    ("frame", "data"),
    [
        (init_frame([], "0"), b'{"type":"init","messages":[],"offset":"0"}'),
        (
            init_frame([QUESTION, msgspec.Raw(b'{"id":"a1"}')], "7", streaming="a1", more=True),
            b'{"type":"init","messages":[{"id":"u1","role":"user","content":"Hi","timestamp":1700000000000,'
            b'"user":"Ada"},{"id":"a1"}],"offset":"7","streaming":"a1","more":true}',
        ),
        (resume_frame("7"), b'{"type":"resume","offset":"7"}'),
        (
            message_frame(ANSWER, "8"),
            b'{"type":"message","message":{"id":"a1","role":"assistant","content":"",'
            b'"timestamp":1700000000001,"status":"streaming"},"offset":"8"}',
        ),
        (
            update_frame("a1", "Hello", "9"),
            b'{"type":"update","messageId":"a1","content":"Hello","offset":"9"}',
        ),
        (delta_frame("a1", "lo", "9"), b'{"type":"delta","messageId":"a1","delta":"lo","offset":"9"}'),
        (
            complete_frame("a1", "Hello", "complete", "10"),
            b'{"type":"complete","messageId":"a1","content":"Hello","status":"complete","offset":"10"}',
        ),
        (
            complete_frame("a1", "Hel", "failed", "10", error="the model is overloaded"),
            b'{"type":"complete","messageId":"a1","content":"Hel","status":"failed","offset":"10",'
            b'"error":"the model is overloaded"}',
        ),
        (
            chunks_frame("a1", [b'{"type":"text-start","id":"t"}', b'{"type":"abort"}'], "9"),
            b'{"type":"chunks","messageId":"a1","chunks":[{"type":"text-start","id":"t"},{"type":"abort"}],'
            b'"offset":"9"}',
        ),
        (
            complete_frame("a1", "", "waiting", "10", waits=[Wait("c1", "refund", "approval", {"order": 7})]),
            b'{"type":"complete","messageId":"a1","content":"","status":"waiting","offset":"10",'
            b'"waits":[{"id":"c1","tool":"refund","kind":"approval","input":{"order":7}}]}',
        ),
        (
            message_frame(WITH_PARTS, "8"),
            b'{"type":"message","message":{"id":"a1","role":"assistant","content":"","timestamp":1700000000001,'
            b'"status":"complete","branches":{"index":1,"count":2},"parts":[{"type":"step-start"},'
            b'{"type":"source-url","sourceId":"s","url":"https://example.com"}],"metadata":{"usage":7}},"offset":"8"}',
        ),
        (presence_frame([]), b'{"type":"presence","people":[]}'),
        (
            presence_frame([Person("Ada", 2), Person("Bob", typing=True)], guests=1, more=3),
            b'{"type":"presence","people":[{"user":"Ada","tabs":2},{"user":"Bob","typing":true}],"guests":1,"more":3}',
        ),
        (remove_frame(["a1", "u2"], "11"), b'{"type":"remove","messageIds":["a1","u2"],"offset":"11"}'),
        (
            error_frame("bad_request", "no", False),
            b'{"type":"error","code":"bad_request","message":"no","retryable":false}',
        ),
        (PONG, b'{"type":"pong"}'),
        (RECONNECT, b'{"type":"reconnect"}'),
    ],
)
def test_the_servers_frames_have_these_bytes(frame: bytes, data: bytes) -> None:
    """Every frame that a server sends, byte for byte."""
    assert frame == data
