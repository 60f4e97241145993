"""The frames of `WebSocketChatTransport`: literal bytes out, and what comes in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure.errors import RemoteProtocolError
from perdure.wire.chat_socket import (
    AbortFrame,
    BadRequest,
    ChunkFrames,
    ResumeFrame,
    SendFrame,
    SocketFrame,
    parse_socket_frame,
)
from perdure.wire.messages import user_message
from perdure.wire.ui_requests import ChatRequest

HI = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}


def parse(**fields: Any) -> SocketFrame | BadRequest:
    return parse_socket_frame(json.dumps(fields))


def test_a_request_is_sent() -> None:
    """As the package sends it, with an app's own field; the frame's fields go before those of its body."""
    frame = parse_socket_frame(
        b'{"type":"send","requestId":"q1","id":"chat-1","trigger":"submit-message","messages":'
        b'[{"id":"u1","role":"user","parts":[{"type":"text","text":"Hi"}]}],'
        b'"headers":{"Authorization":"me"},"body":{"model":"small","id":"other"}}'
    )
    hi = user_message("u1", "Hi")
    request = ChatRequest("chat-1", "submit-message", None, [hi], hi, {"model": "small"})
    assert frame == SendFrame("q1", {"authorization": "me"}, request)


def test_an_answer_is_resumed_and_ended() -> None:
    """The other two frames of a client."""
    assert parse(type="resume", requestId="q2", id="chat-1", headers={}, body={}) == ResumeFrame("q2", {}, "chat-1")
    assert parse(type="abort", requestId="q2") == AbortFrame("q2")


def test_what_the_server_sends() -> None:
    """Each frame's bytes; the sequence counts the chunks of one request from 0 on."""
    frames = ChunkFrames('q"1')
    assert frames.start() == b'{"type":"start","requestId":"q\\"1"}'
    assert frames.chunk(b'{"type":"start-step"}') == (
        b'{"type":"chunk","requestId":"q\\"1","sequence":0,"chunk":{"type":"start-step"}}'
    )
    assert b'"sequence":1,' in frames.chunk(b'{"type":"finish-step"}')
    assert frames.end() == b'{"type":"end","requestId":"q\\"1"}'
    assert frames.no_active() == b'{"type":"no-active","requestId":"q\\"1"}'
    assert frames.error("none\n") == b'{"type":"error","requestId":"q\\"1","errorText":"none\\n"}'


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "send", "id": "c", "messages": []}, "the request holds no message to answer"),
        ({"type": "send", "messages": [HI]}, "the request has no `id`: the chat that it is for"),
        ({"type": "send", "id": "c", "trigger": "resume", "messages": [HI]}, "`trigger` is submit-message or"),
        ({"type": "resume"}, "the request has no `id`: the chat that it is for"),
        ({"type": "resume", "id": ""}, "the request has no `id`: the chat that it is for"),
    ],
)
def test_a_bad_request_can_be_answered(fields: dict[str, Any], message: str) -> None:
    """The socket goes on: the reason goes to the request."""
    frame = parse(requestId="q1", **fields)
    assert isinstance(frame, BadRequest)
    assert frame.request_id == "q1"
    assert str(frame.error).startswith(message)


def test_a_long_message_can_be_answered() -> None:
    """So can one that is too long."""
    data = json.dumps({"type": "send", "requestId": "q1", "id": "c", "messages": [HI]})
    assert isinstance(parse_socket_frame(data, message_bytes_max=2), SendFrame)
    frame = parse_socket_frame(data, message_bytes_max=1)
    assert isinstance(frame, BadRequest)
    assert "message_bytes_max" in str(frame.error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("hello", "the frame is not valid JSON"),
        ("[]", "the frame is not a JSON object"),
        ('{"type":"abort"}', "`requestId` is a text of up to 256 bytes"),
        ('{"type":"abort","requestId":7}', "`requestId` is a text of up to 256 bytes"),
        (json.dumps({"type": "abort", "requestId": "x" * 257}), "`requestId` is a text of up to 256 bytes"),
        ('{"type":"ping","requestId":"q"}', "the type of a frame is send, resume or abort"),
        ('{"type":"resume","requestId":"q","id":"c","headers":[]}', "`headers` is not an object of texts"),
        ('{"type":"resume","requestId":"q","id":"c","headers":{"a":1}}', "`headers` is not an object of texts"),
        ('{"type":"resume","requestId":"q","id":"c","body":7}', "`body` is not an object"),
    ],
)
def test_what_is_no_frame_is_refused(data: str, message: str) -> None:
    """Nothing can be answered; the reason is for the close frame."""
    with pytest.raises(RemoteProtocolError) as caught:
        parse_socket_frame(data)
    assert str(caught.value).startswith(message)


def test_a_request_id_may_have_256_bytes() -> None:
    """Just not 257, above."""
    assert parse(type="abort", requestId="x" * 256) == AbortFrame("x" * 256)
