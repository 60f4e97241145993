"""What clients of a room send: each frame as a command, and what each bad frame is told."""

from __future__ import annotations

import pytest

from perdure.errors import LimitExceeded, RemoteProtocolError
from perdure.wire.room import PING
from perdure.wire.room_commands import (
    Approve,
    ChooseBranch,
    Edit,
    Ping,
    Regenerate,
    Result,
    Retry,
    RoomCommand,
    SendMessage,
    SentFile,
    Stop,
    Typing,
    parse_room_frame,
)


@pytest.mark.parametrize(
    ("data", "command"),
    [
        ('{"type":"message","content":"Hi"}', SendMessage("Hi")),
        (b'{"type":"message","content":"Hi","id":"u1","user":"Ada"}', SendMessage("Hi", "u1", "Ada")),
        ('{"type":"message","content":" Hi\\n","id":null,"user":null,"x":1}', SendMessage(" Hi\n")),
        ('{"type":"message","content":"\\u0001\\u0001\\u0001\\u0001"}', SendMessage("\x01" * 4)),
        ('{"type":"stop"}', Stop()),
        ('{"type":"retry"}', Retry()),
        ('{"type":"regenerate"}', Regenerate()),
        ('{"type":"regenerate","id":"a1"}', Regenerate("a1")),
        ('{"type":"edit","id":"u1","content":"Yo"}', Edit("u1", "Yo")),
        ('{"type":"edit","id":"u1","content":"Yo","files":[],"user":"Ada"}', Edit("u1", "Yo", "Ada", ())),
        ('{"type":"branch","id":"u1","index":0}', ChooseBranch("u1", 0)),
        ('{"type":"approve","id":"c1","approved":true}', Approve("c1", True)),
        ('{"type":"approve","id":"c1","approved":false,"reason":"too much"}', Approve("c1", False, "too much")),
        ('{"type":"result","id":"c1","output":null}', Result("c1", None)),
        ('{"type":"result","id":"c1","output":[1]}', Result("c1", [1])),
        ('{"type":"result","id":"c1","error":"no camera","output":1}', Result("c1", None, "no camera")),
        ('{"type":"typing"}', Typing()),
        ('{"type":"typing","typing":false}', Typing(False)),
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
            "there is no frame of type 'init'; a client sends message, edit, regenerate, branch, approve, result, "
            "typing, stop, retry or ping",
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
        (
            '{"type":"message","content":"","files":{}}',
            "a message's `files`, where there are some, are an array",
        ),
        (
            '{"type":"message","files":[{"url":"data:,x"}]}',
            "a message's `files` are not what they should be: Object missing required field `mediaType` - at `$[0]`",
        ),
        ('{"type":"edit","content":"x"}', "an edit has an `id`, and it is text"),
        ('{"type":"edit","id":"u1","content":" "}', "a message must not be empty"),
        ('{"type":"branch","id":"u1"}', "a branch has an `index`, and it is a whole number from 0"),
        ('{"type":"branch","id":"u1","index":true}', "a branch has an `index`, and it is a whole number from 0"),
        ('{"type":"approve","id":"c1"}', "an approve has `approved`, and it is true or false"),
        ('{"type":"approve","approved":true}', "an approve has an `id`, and it is text"),
        ('{"type":"result","id":"c1"}', "a result has an `output`, or an `error` that is text"),
        ('{"type":"typing","typing":1}', "`typing`, where it is said, is true or false"),
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
        (
            '{"type":"message","content":"","files":[' + ",".join(['{"url":"","mediaType":"x"}'] * 21) + "]}",
            "files_max allows 20 at most, this has 21",
        ),
        # A file that comes within the message counts like its text.
        (
            '{"type":"message","content":"ab","files":[{"url":"abc","mediaType":"x"}]}',
            "message_bytes_max allows 4 at most, this has 5",
        ),
        ('{"type":"result","id":"c1","output":"123"}', "message_bytes_max allows 4 at most, this has 5"),
        (
            f'{{"type":"approve","id":"c1","approved":false,"reason":"{"i" * 1_025}"}}',
            "reason_bytes_max allows 1,024 at most, this has 1,025",
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


def test_a_message_may_be_files_alone() -> None:
    """With the most that there may be of them."""
    file = '{"url":"data:,","mediaType":"text/plain","filename":"a.txt"}'
    command = parse_room_frame(f'{{"type":"message","files":[{",".join([file] * 20)}]}}', message_bytes_max=1_000)
    assert command == SendMessage("", files=(SentFile("data:,", "text/plain", "a.txt"),) * 20)


def test_a_reason_of_exactly_the_limit_is_taken() -> None:
    """In bytes."""
    data = f'{{"type":"approve","id":"c1","approved":false,"reason":"{"i" * 1_024}"}}'
    assert parse_room_frame(data, message_bytes_max=4) == Approve("c1", False, "i" * 1_024)
