"""The room protocol: the literal bytes of every frame, and what each bad frame is told."""

from __future__ import annotations

import msgspec
import pytest

from perdure.errors import LimitExceeded, RemoteProtocolError
from perdure.wire.room import (
    PING,
    PONG,
    RECONNECT,
    Ping,
    Retry,
    RoomCommand,
    RoomMessage,
    SendMessage,
    Stop,
    complete_frame,
    delta_frame,
    error_frame,
    init_frame,
    message_frame,
    parse_room_frame,
    remove_frame,
    resume_frame,
    update_frame,
)

QUESTION = RoomMessage("u1", "user", "Hi", 1_700_000_000_000, user="Ada")
ANSWER = RoomMessage("a1", "assistant", "", 1_700_000_000_001, status="streaming")


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


@pytest.mark.parametrize(
    ("data", "command"),
    [
        ('{"type":"message","content":"Hi"}', SendMessage("Hi")),
        (b'{"type":"message","content":"Hi","id":"u1","user":"Ada"}', SendMessage("Hi", "u1", "Ada")),
        ('{"type":"message","content":" Hi\\n","id":null,"user":null,"x":1}', SendMessage(" Hi\n")),
        ('{"type":"message","content":"\\u0001\\u0001\\u0001\\u0001"}', SendMessage("\x01" * 4)),
        ('{"type":"stop"}', Stop()),
        ('{"type":"retry"}', Retry()),
        (PING, Ping()),
    ],
)
def test_the_clients_frames_are_these_commands(data: bytes | str, command: RoomCommand) -> None:
    """Text and binary frames alike; fields that are not ours are ignored."""
    assert parse_room_frame(data, message_bytes_max=4) == command


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("hello", "the frame is not valid JSON: JSON is malformed: invalid character (byte 0)"),
        ("", "the frame is not valid JSON: Input data was truncated"),
        (b'{"type":"message","content":"\xff"}', "the frame is not valid UTF-8 text"),
        pytest.param("[" * 4_000, "the frame is nested too deeply", id="deep"),
        ("[]", "a frame is a JSON object, not an array"),
        ("null", "a frame is a JSON object, not null"),
        ("true", "a frame is a JSON object, not true or false"),
        ("7", "a frame is a JSON object, not a number"),
        ('"stop"', "a frame is a JSON object, not text"),
        ("{}", "a frame has a `type`, and it is text"),
        ('{"type":["stop"]}', "a frame has a `type`, and it is text"),
        (
            '{"type":"init"}',
            "there is no frame of type 'init'; a client sends message, stop, retry or ping",
        ),
        ('{"type":"message"}', "a message has `content`, and it is text"),
        ('{"type":"message","content":{"text":"Hi"}}', "a message has `content`, and it is text"),
        ('{"type":"message","content":""}', "a message must not be empty"),
        ('{"type":"message","content":" \\n "}', "a message must not be empty"),
        (
            '{"type":"message","content":"Hi","id":7}',
            "a message's `id`, where there is one, is text that is not empty",
        ),
        (
            '{"type":"message","content":"Hi","user":""}',
            "a message's `user`, where there is one, is text that is not empty",
        ),
    ],
)
def test_a_bad_frame_is_told_what_is_wrong(data: bytes | str, message: str) -> None:
    """Each kind of bad frame has its own sentence."""
    with pytest.raises(RemoteProtocolError) as caught:
        parse_room_frame(data, message_bytes_max=1_000)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            '{"type":"message","content":"12345"}',
            "message_bytes_max allows 4 at most, this has 5",
        ),
        # Bytes count, not characters.
        ('{"type":"message","content":"äää"}', "message_bytes_max allows 4 at most, this has 6"),
        # Spaces alone are too long before they are empty.
        ('{"type":"message","content":"      "}', "message_bytes_max allows 4 at most, this has 6"),
        # So long that it is refused before it is parsed.
        pytest.param("x" * 5_000, "message_bytes_max allows 4 at most, this has 5,000", id="long"),
        (
            f'{{"type":"message","content":"Hi","id":"{"i" * 257}"}}',
            "client_id_bytes_max allows 256 at most, this has 257",
        ),
        (
            f'{{"type":"message","content":"Hi","user":"{"ü" * 129}"}}',
            "user_name_bytes_max allows 256 at most, this has 258",
        ),
    ],
)
def test_what_is_too_long_names_its_limit(data: str, message: str) -> None:
    """Contents, ids and names are bounded, in bytes of UTF-8."""
    with pytest.raises(LimitExceeded) as caught:
        parse_room_frame(data, message_bytes_max=4)
    assert str(caught.value) == message


def test_a_message_of_exactly_the_limit_is_taken() -> None:
    """Also where its JSON is six times as long, every character escaped."""
    data = '{"type":"message","content":"' + "\\u0041" * 1_000 + '"}'
    assert parse_room_frame(data, message_bytes_max=1_000) == SendMessage("A" * 1_000)
