"""What a client makes of frames: each event once, no text twice, whatever comes again."""

from __future__ import annotations

import pytest

from perdure.client import (
    Added,
    Grew,
    Here,
    Joined,
    Message,
    PartChanged,
    Person,
    Refused,
    Removed,
    Replaced,
    Settled,
    Wait,
    Waiting,
)
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


# --- parts


GROWING = (
    '{"id":"a1","role":"assistant","content":"Hel","timestamp":2,"status":"streaming","answers":"m1",'
    '"parts":[{"type":"step-start"},{"type":"text","text":"Hel","state":"streaming","id":"t"}]}'
)
CALL = {"type": "tool-refund", "toolCallId": "c1", "state": "input-available", "input": {"order": 7}}


def chunks(*said: str, offset: str = "o2") -> str:
    """A frame with these chunks."""
    return '{"type":"chunks","messageId":"a1","chunks":[' + ",".join(said) + f'],"offset":"{offset}"}}'


def with_parts(*messages: str) -> RoomCore:
    """A client of parts that has had its first greeting."""
    core = RoomCore(lambda: "m1", parts=True)
    core.receive(init(*messages))
    return core


def test_a_client_of_parts_asks_for_them() -> None:
    """And to be told who is here, where it wants that."""
    assert RoomCore(lambda: "m1", parts=True, presence=True).query() == {"parts": "1", "presence": "1"}


def test_chunks_are_added_to_what_came_before() -> None:
    """Text as text; anything else as a part that came or changed, once for each change."""
    core = with_parts(QUESTION, GROWING)
    delta = '{"type":"text-delta","id":"t","delta":"lo"}'
    assert core.receive(chunks(delta)) == [Grew("a1", "lo")]
    assert core.messages[1].content == "Hello"
    end, available = '{"type":"text-end","id":"t"}', '{"type":"tool-input-available","toolCallId":"c1",'
    available += '"toolName":"refund","input":{"order":7}}'
    assert core.receive(chunks(end, available)) == [PartChanged("a1", 2, CALL)]
    output = '{"type":"tool-output-available","toolCallId":"c1","output":"done"}'
    assert core.receive(chunks(output)) == [
        PartChanged("a1", 2, {**CALL, "state": "output-available", "output": "done"})
    ]
    assert [part["type"] for part in core.messages[1].parts] == ["step-start", "text", "tool-refund"]
    assert core.messages[1].parts[1] == {"type": "text", "text": "Hello", "state": "done"}


def test_a_whole_message_gives_only_what_is_new() -> None:
    """As after a lost connection: nothing comes a second time."""
    core = with_parts(QUESTION, GROWING)
    whole = GROWING.replace('"Hel"', '"Hello"').replace("streaming", "complete", 1)
    frame = '{"type":"message","message":' + whole + ',"offset":"o3"}'
    [grew, settled] = core.receive(frame)
    assert grew == Grew("a1", "lo")
    assert isinstance(settled, Settled)
    assert core.receive(frame) == []


def test_an_answer_waits_and_goes_on() -> None:
    """What it waits for is known, whatever asks for it; then it grows again."""
    core = joined(QUESTION, answer("I will."))
    wait = '{"id":"c1","tool":"refund","kind":"approval","input":7}'
    frame = '{"type":"complete","messageId":"a1","content":"I will.","status":"waiting","waits":[' + wait
    [waiting] = core.receive(frame + '],"offset":"o2"}')
    assert isinstance(waiting, Waiting)
    assert core.waits == waiting.message.waits == (Wait("c1", "refund", "approval", 7),)
    assert core.streaming is None
    assert core.receive('{"type":"message","message":' + answer("I will.") + ',"offset":"o3"}') == []
    assert not core.waits
    assert core.streaming is not None
    [grew, settled] = core.receive(
        '{"type":"complete","messageId":"a1","content":"I will. Done.","status":"complete","offset":"o4"}'
    )
    assert (grew, isinstance(settled, Settled)) == (Grew("a1", " Done."), True)


def test_a_response_is_kept_until_nobody_waits_for_it() -> None:
    """Sent again after each greeting; over when the room shows the answer without that wait, or refuses."""
    wait = '"waits":[{"id":"c1","tool":"refund","kind":"approval","input":7}]'
    waiting = answer("", "waiting")[:-1] + "," + wait + "}"
    for ending in (
        '{"type":"message","message":' + answer("") + ',"offset":"o3"}',
        '{"type":"error","code":"forbidden","message":"not you","retryable":false,"id":"c1"}',
    ):
        core = joined(QUESTION, waiting)
        frame = core.approve("c1", True, None)
        assert frame == b'{"type":"approve","id":"c1","approved":true}'
        core.receive(init(QUESTION, waiting, offset="o2"))
        assert core.unsent() == [frame]
        core.receive(ending)
        assert core.unsent() == []


def test_results_are_any_json_or_an_error() -> None:
    """Nothing is a result as well."""
    core = joined()
    assert core.give_result("c1", None, None) == b'{"type":"result","id":"c1","output":null}'
    assert core.give_result("c1", None, "no camera") == b'{"type":"result","id":"c1","error":"no camera"}'


def test_who_is_here_is_told() -> None:
    """All of it, each time."""
    core = joined()
    [here] = core.receive('{"type":"presence","people":[{"user":"Ann","tabs":2},{"user":"Bob"}],"guests":1}')
    assert here == core.here == Here((Person("Ann", 2), Person("Bob")), 1, 0)
