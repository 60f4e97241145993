"""The frames of `useAgentChat`: their literal bytes, and what clients' frames ask for."""

from __future__ import annotations

import msgspec
import pytest

from perdure.wire.cloudflare import REQUEST_ID_BYTES_MAX
from perdure.wire.cloudflare_chat import (
    CLEARED,
    Answer,
    Cancel,
    ChatCommand,
    ChatPost,
    Clear,
    ResumeAck,
    ResumeRequest,
    SetMessages,
    ToolApproval,
    ToolResult,
    messages_frame,
    none_frame,
    parse_chat_frame,
    pending_frame,
    resuming_frame,
    updated_frame,
)
from perdure.wire.messages import ChatMessage

ANSWER = Answer('r"1')
HELLO = ChatMessage("m1", "user", [{"type": "text", "text": "Hi"}])
DELTA = '{"type":"text-delta","id":"t","delta":"né\\n"}'.encode()


@pytest.mark.parametrize(
    ("frame", "data"),
    [
        (
            ANSWER.chunk(DELTA, 7),
            r'{"type":"cf_agent_use_chat_response","id":"r\"1","body":"{\"type\":\"text-delta\",\"id\":\"t\",'
            r'\"delta\":\"né\\n\"}","done":false,"seq":7}',
        ),
        (
            ANSWER.replayed(DELTA, 7),
            r'{"type":"cf_agent_use_chat_response","id":"r\"1","body":"{\"type\":\"text-delta\",\"id\":\"t\",'
            r'\"delta\":\"né\\n\"}","done":false,"replay":true,"seq":7}',
        ),
        (
            ANSWER.replay_complete(),
            r'{"type":"cf_agent_use_chat_response","id":"r\"1","body":"","done":false,"replay":true,'
            r'"replayComplete":true}',
        ),
        (
            ANSWER.done("completed", ["m1"]),
            r'{"type":"cf_agent_use_chat_response","id":"r\"1","body":"","done":true,"messageIds":["m1"],'
            r'"outcome":"completed"}',
        ),
        (
            ANSWER.done("aborted", replay=True),
            r'{"type":"cf_agent_use_chat_response","id":"r\"1","body":"","done":true,"replay":true,"outcome":"aborted"}',
        ),
        (
            ANSWER.failed("no model", ["m1"]),
            r'{"type":"cf_agent_use_chat_response","id":"r\"1","body":"no model","done":true,"error":true,'
            r'"messageIds":["m1"],"outcome":"error"}',
        ),
        (
            messages_frame([HELLO, msgspec.Raw(b'{"id":"m2"}')]),
            '{"type":"cf_agent_chat_messages","messages":[{"id":"m1","role":"user","parts":[{"type":"text",'
            '"text":"Hi"}]},{"id":"m2"}]}',
        ),
        (messages_frame([], connect=True), '{"type":"cf_agent_chat_messages","messages":[],"connect":true}'),
        (
            updated_frame(HELLO),
            '{"type":"cf_agent_message_updated","message":{"id":"m1","role":"user","parts":[{"type":"text",'
            '"text":"Hi"}]}}',
        ),
        (resuming_frame("r1"), '{"type":"cf_agent_stream_resuming","id":"r1"}'),
        (resuming_frame("r1", "p1"), '{"type":"cf_agent_stream_resuming","id":"r1","probeId":"p1"}'),
        (pending_frame("p1"), '{"type":"cf_agent_stream_pending","probeId":"p1"}'),
        (none_frame("p1"), '{"type":"cf_agent_stream_resume_none","reason":"idle","probeId":"p1"}'),
        (
            none_frame(continuation=True),
            '{"type":"cf_agent_stream_resume_none","reason":"continuation-owned"}',
        ),
        (CLEARED, '{"type":"cf_agent_chat_clear"}'),
    ],
)
def test_the_server_s_frames(frame: bytes, data: str) -> None:
    """Byte for byte."""
    assert frame.decode() == data


def test_a_chunk_in_a_frame_is_the_chunk() -> None:
    """Whatever the chunk holds: quotes, line breaks, other scripts."""
    chunk = '{"type":"data-x","data":"\\"\\\\ \\u0001 né 😀 </script>"}'.encode()
    frame = msgspec.json.decode(ANSWER.chunk(chunk, 0))
    assert (frame["id"], frame["body"].encode(), frame["seq"]) == ('r"1', chunk, 0)


@pytest.mark.parametrize(
    ("data", "command"),
    [
        (
            '{"id":"r1","init":{"method":"POST","body":"{}"},"type":"cf_agent_use_chat_request"}',
            ("r1", "{}"),
        ),
        ('{"id":"r1","type":"cf_agent_chat_request_cancel"}', Cancel("r1")),
        ('{"type":"cf_agent_chat_clear"}', Clear()),
        ('{"messages":[{"id":"m1"}],"type":"cf_agent_chat_messages"}', SetMessages([{"id": "m1"}])),
        ('{"type":"cf_agent_stream_resume_request","probeId":"p1"}', ResumeRequest("p1")),
        ('{"type":"cf_agent_stream_resume_request"}', ResumeRequest()),
        ('{"type":"cf_agent_stream_resume_ack","id":"r1"}', ResumeAck("r1")),
        (
            '{"type":"cf_agent_tool_result","toolCallId":"c1","toolName":"where","output":{"a":1},"autoContinue":true}',
            ToolResult("c1", "where", {"a": 1}, auto_continue=True),
        ),
        (
            '{"type":"cf_agent_tool_result","toolCallId":"c1","toolName":"","state":"output-error","errorText":"no"}',
            ToolResult("c1", state="output-error", error_text="no"),
        ),
        (
            '{"type":"cf_agent_tool_approval","toolCallId":"c1","approved":false,"autoContinue":true}',
            ToolApproval("c1", False, True),
        ),
    ],
)
def test_what_clients_ask_for(data: str, command: ChatCommand | tuple[str, str]) -> None:
    """As the packages write it."""
    parsed = parse_chat_frame(data)
    if isinstance(parsed, ChatPost):
        assert (parsed.id, parsed.init.body) == command
    else:
        assert parsed == command


@pytest.mark.parametrize(
    "data",
    [
        "hello",
        "[]",
        '{"type":"rpc","id":"1","method":"m","args":[]}',
        '{"type":"cf_agent_use_chat_request","id":"r1"}',
        '{"type":"cf_agent_use_chat_request","id":"r1","init":{"body":{}}}',
        '{"type":"cf_agent_tool_approval","toolCallId":"c1","approved":"yes"}',
        '{"type":"cf_agent_stream_resume_ack"}',
        '{"type":"cf_agent_stream_resume_ack","id":""}',
        '{"type":"cf_agent_chat_messages","messages":{}}',
        b'{"type":"cf_agent_chat_clear"}',
    ],
)
def test_all_else_is_the_application_s(data: str | bytes) -> None:
    """Nothing is refused."""
    assert parse_chat_frame(data) is None


def test_the_longest_id_of_a_request() -> None:
    """``request_id_bytes_max``, on both sides."""
    longest = "r" * REQUEST_ID_BYTES_MAX
    frame = '{"type":"cf_agent_stream_resume_ack","id":"%s"}'
    assert parse_chat_frame(frame % longest) == ResumeAck(longest)
    assert parse_chat_frame(frame % (longest + "r")) is None
