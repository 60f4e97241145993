"""Chat messages: what a stored one looks like, and what comes back from storage."""

from __future__ import annotations

import pytest

from perdure.errors import RemoteProtocolError
from perdure.wire.messages import ChatMessage, decode_message, encode_message, user_message


def test_a_user_message_is_one_text_part() -> None:
    """A named person's message carries the name in its metadata; without a name there is none."""
    assert encode_message(user_message("m1", "Hi", user="Ada")) == (
        b'{"id":"m1","role":"user","parts":[{"type":"text","text":"Hi"}],"metadata":{"user":"Ada"}}'
    )
    assert encode_message(user_message("m1", "Hi")) == (
        b'{"id":"m1","role":"user","parts":[{"type":"text","text":"Hi"}]}'
    )


def test_text_joins_the_text_parts_alone() -> None:
    """Reasoning, tools and steps are no part of a message's text."""
    message = ChatMessage(
        "m1",
        "assistant",
        [
            {"type": "step-start"},
            {"type": "reasoning", "text": "hmm"},
            {"type": "text", "text": "Hello"},
            {"type": "tool-weather", "toolCallId": "c"},
            {"type": "text", "text": " there"},
        ],
    )
    assert message.text == "Hello there"
    assert ChatMessage("m2", "assistant", []).text == ""


def test_the_users_name_is_read_from_the_metadata() -> None:
    """A name that is not a text (the metadata may be a client's) counts as none."""
    assert user_message("m1", "Hi", user="Ada").user == "Ada"
    assert user_message("m1", "Hi").user is None
    assert ChatMessage("m1", "user", [], {"user": 7}).user is None


def test_unknown_parts_come_back_whole() -> None:
    """A newer client's part types survive; fields of the message that are not ours do not."""
    message = decode_message(
        '{"id":"m1","role":"user","createdAt":1,"parts":[{"type":"steering-message","parts":[{"x":null}]}]}'
    )
    assert encode_message(message) == (
        b'{"id":"m1","role":"user","parts":[{"type":"steering-message","parts":[{"x":null}]}]}'
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("[]", "the message is not what it should be: Expected `object`, got `array`"),
        (
            '{"id":"m","role":"robot","parts":[]}',
            "the message is not what it should be: Invalid enum value 'robot' - at `$.role`",
        ),
        (
            '{"id":"m","role":"user"}',
            "the message is not what it should be: Object missing required field `parts`",
        ),
    ],
)
def test_what_is_no_message_is_refused(data: str, message: str) -> None:
    """The error says what is wrong."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode_message(data)
    assert str(caught.value) == message
