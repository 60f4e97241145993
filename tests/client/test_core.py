"""What a client makes of frames: each event once, no text twice, whatever comes again."""

from __future__ import annotations

import pytest

from perdure.client import Added, Grew, Joined, Message, Refused, Removed, Replaced, Settled
from perdure.client.core import RoomCore
from perdure.errors import RemoteProtocolError

QUESTION = '{"id":"m1","role":"user","content":"Hi","timestamp":1}'
ANSWER = '{"id":"a1","role":"assistant","content":"%s","timestamp":2,"status":"%s","answers":"m1"}'


def init(*messages: str, offset: str = "o1", more: bool = False) -> str:
    """A greeting with these messages."""
    ending = ',"more":true}' if more else "}"
    return '{"type":"init","messages":[' + ",".join(messages) + f'],"offset":"{offset}"' + ending


def answer(content: str, status: str = "streaming") -> str:
    """The answer, as it stands in a frame."""
    return ANSWER % (content, status)


def joined(*messages: str) -> RoomCore:
    """A client that has had its first greeting."""
    core = RoomCore(lambda: "m1", user="Ann")
    core.receive(init(*messages))
    return core


def test_the_first_connection_asks_for_everything() -> None:
    """The next one for what was missed since the last frame that said where one stands."""
    core = RoomCore(lambda: "m1", user="Ann", limit=7)
    assert core.query() == {"delta": "1", "limit": "7", "user": "Ann"}
    core.receive(init(offset="o1"))
    core.receive('{"type":"message","message":' + QUESTION + ',"offset":"o2"}')
    core.receive('{"type":"pong"}')
    core.receive('{"type":"reconnect"}')
    assert core.query() == {"delta": "1", "offset": "o2", "limit": "7", "user": "Ann"}


def test_a_message_is_kept_until_the_room_shows_it() -> None:
    """Then it is not sent again."""
    core = joined()
    message_id, frame = core.say("Hi")
    assert (message_id, frame) == ("m1", b'{"type":"message","content":"Hi","id":"m1","user":"Ann"}')
    assert core.unsent() == [frame]
    core.receive('{"type":"message","message":' + QUESTION + ',"offset":"o2"}')
    assert core.unsent() == []


def test_a_final_refusal_ends_the_keeping_and_a_passing_one_does_not() -> None:
    """What the room will never take must not come again."""
    core = joined()
    core.say("Hi")
    busy = '{"type":"error","code":"overloaded","message":"later","retryable":true,"id":"m1"}'
    assert core.receive(busy) == [Refused("overloaded", "later", True, "m1")]
    assert core.unacknowledged == ("m1",)
    no = '{"type":"error","code":"limit_exceeded","message":"no","retryable":false,"id":"m1"}'
    assert core.receive(no) == [Refused("limit_exceeded", "no", False, "m1")]
    assert not core.unacknowledged


def test_a_second_greeting_gives_only_what_is_new() -> None:
    """The rest of the text, the end, another message; nothing when nothing is new."""
    core = joined(QUESTION, answer("Hel"))
    assert core.receive(init(QUESTION, answer("Hel"))) == []
    assert core.receive(init(QUESTION, answer("Hello"))) == [Grew("a1", "lo")]
    settled = Message("a1", "assistant", "Hello!", 2, status="complete", answers="m1")
    assert core.receive(init(QUESTION, answer("Hello!", "complete"))) == [Grew("a1", "!"), Settled(settled)]
    new = '{"id":"m2","role":"user","content":"And?","timestamp":3}'
    assert core.receive(init(QUESTION, answer("Hello!", "complete"), new)) == [
        Added(Message("m2", "user", "And?", 3))
    ]


def test_what_a_whole_greeting_lacks_was_removed() -> None:
    """Of a part of the transcript that cannot be told."""
    core = joined(QUESTION, answer("Hello", "complete"))
    assert core.receive(init(answer("Hello", "complete"), more=True)) == []
    assert core.receive(init(QUESTION)) == [Removed(("a1",))]
    assert [message.id for message in core.messages] == ["m1"]


def test_a_text_that_is_another_is_replaced() -> None:
    """An edited message, or an answer that was made again under its id."""
    core = joined(QUESTION)
    edited = QUESTION.replace("Hi", "Bye")
    assert core.receive(init(edited)) == [Replaced(Message("m1", "user", "Bye", 1))]


def test_accumulated_updates_are_pieces_too() -> None:
    """A server that joined what was missed sends all of it."""
    core = joined(QUESTION, answer("Hel"))
    update = '{"type":"update","messageId":"a1","content":"Hello","offset":"o2"}'
    assert core.receive(update) == [Grew("a1", "lo")]
    assert core.receive(update) == []


def test_an_end_brings_what_was_missing() -> None:
    """Once; with the reason where it failed."""
    core = joined(QUESTION, answer("Hel"))
    end = '{"type":"complete","messageId":"a1","content":"Hello","status":"failed","offset":"o2","error":"oops"}'
    failed = Message("a1", "assistant", "Hello", 2, status="failed", error="oops", answers="m1")
    assert core.receive(end) == [Grew("a1", "lo"), Settled(failed)]
    assert core.receive(end) == []


def test_frames_about_unknown_messages_mean_nothing() -> None:
    """Older than what a short greeting showed."""
    core = joined()
    assert core.receive('{"type":"delta","messageId":"a9","delta":"x","offset":"o2"}') == []
    assert core.receive('{"type":"remove","messageIds":["a9"],"offset":"o3"}') == []
    assert core.offset == "o3"


def test_the_first_greeting_is_one_event() -> None:
    """And shows what was said before it, if the room has it already."""
    core = RoomCore(lambda: "m1")
    core.say("Hi")
    events = core.receive(init(QUESTION, more=True))
    assert events == [Joined((Message("m1", "user", "Hi", 1),), more=True)]
    assert core.unacknowledged == ()


@pytest.mark.parametrize("frame", ["", "[]", '{"type":"dance"}', '{"type":"delta"}', b"\xff"])
def test_a_frame_of_another_protocol_is_refused(frame: str | bytes) -> None:
    """Nothing of it is taken."""
    core = joined(QUESTION)
    with pytest.raises(RemoteProtocolError):
        core.receive(frame)
    assert [message.id for message in core.messages] == ["m1"]
