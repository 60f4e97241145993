"""The npm packages ``ai`` 6 and 7 with ``useChat`` of ``@ai-sdk/react`` against a real server."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from tests.client_matrix import shows
from tests.e2e.served import Served
from tests.e2e.tab import words
from tests.e2e.use_chat import React

RoomOf = Callable[[str], str]


@shows("useChat", "send", "history")
def test_a_message_is_answered(react: React, server: Served, room_of: RoomOf) -> None:
    """Word by word; both sides then hold the same messages under the same ids."""
    room = room_of("words")
    tab = react.open(server.url, room)
    tab.do("send", text="Count")
    tab.until_words(5)
    state = tab.until_ready()
    assert state.texts == [("user", "Count"), ("assistant", words(80))]
    assert list(dict.fromkeys(status for status, _text in state.seen)) == ["ready", "submitted", "streaming"]
    growing = [text or "" for _status, text in state.seen]
    assert len(growing) > 10
    assert all(after.startswith(before) for before, after in pairwise(growing))
    stored = server.get(f"/api/chat/{room}/messages")
    assert [(each["id"], each["role"]) for each in stored] == [(each["id"], each["role"]) for each in state.messages]


def test_a_follow_up_is_answered(react: React, server: Served, room_of: RoomOf) -> None:
    """The second turn of a conversation."""
    tab = react.open(server.url, room_of("echo"))
    tab.do("send", text="one")
    tab.until_ready()
    tab.do("send", text="two")
    assert tab.until_ready(2).texts == [
        ("user", "one"),
        ("assistant", "You said: one"),
        ("user", "two"),
        ("assistant", "You said: two"),
    ]


@shows("useChat", "resume")
def test_a_second_client_joins_amid_an_answer(react: React, server: Served, room_of: RoomOf) -> None:
    """It loads the messages, resumes, and has each word once."""
    room = room_of("words")
    first = react.open(server.url, room)
    first.do("send", text="Count")
    first.until_words(20)
    messages = server.get(f"/api/chat/{room}/messages")
    assert [each["role"] for each in messages] == ["user", "assistant"]
    second = react.open(server.url, room, resume=True, messages=messages)
    state = second.until(lambda state: state.status == "ready" and state.answer == words(80))
    assert state.texts == first.until_ready().texts == [("user", "Count"), ("assistant", words(80))]
    assert [each["id"] for each in state.messages] == [each["id"] for each in first.state().messages]


@shows("useChat", "stop")
def test_a_stop_by_request_ends_the_answer(react: React, server: Served, room_of: RoomOf) -> None:
    """Its readers are ready; what was said stays, on both sides."""
    room = room_of("slow")
    tab = react.open(server.url, room)
    tab.do("send", text="Count")
    tab.until_words(10)
    assert server.post(f"/api/chat/{room}/stop", {}) == {"success": True, "stopped": True}
    state = tab.until_ready()
    assert state.error is None
    assert words(80).startswith(state.answer)
    assert 10 <= len(state.answer.split()) < 80
    stored = server.get(f"/api/chat/{room}/messages")[-1]
    assert "".join(part.get("text", "") for part in stored["parts"]) == state.answer
    assert server.post(f"/api/chat/{room}/stop", {}) == {"success": True, "stopped": False}


def test_a_client_that_leaves_stops_nothing(react: React, server: Served, room_of: RoomOf) -> None:
    """``stop()`` of the hook only ends its own request."""
    room = room_of("words")
    tab = react.open(server.url, room)
    tab.do("send", text="Count")
    tab.until_words(10)
    tab.do("stop")
    assert len(tab.until_ready().answer.split()) < 80
    tab.do("resume")
    state = tab.until(lambda state: state.status == "ready" and state.answer == words(80))
    assert state.texts == [("user", "Count"), ("assistant", words(80))]


@shows("useChat", "regenerate")
def test_regenerate_replaces_the_answer(react: React, server: Served, room_of: RoomOf) -> None:
    """One question, one answer, another id than before."""
    room = room_of("quick")
    tab = react.open(server.url, room)
    tab.do("send", text="Count")
    before = tab.until_ready().messages[-1]["id"]
    tab.do("regenerate")
    state = tab.until(lambda state: state.status == "ready" and state.messages[-1]["id"] != before)
    assert state.texts == [("user", "Count"), ("assistant", words(10))]
    stored = server.get(f"/api/chat/{room}/messages")
    assert [each["id"] for each in stored] == [each["id"] for each in state.messages]


def test_an_edited_message_is_answered_anew(react: React, server: Served, room_of: RoomOf) -> None:
    """All that came after it goes, here and there."""
    room = room_of("echo")
    tab = react.open(server.url, room)
    tab.do("send", text="one")
    question = tab.until_ready().messages[0]["id"]
    tab.do("send", text="two")
    tab.until_ready(2)
    tab.do("send", text="three", messageId=question)
    state = tab.until(lambda state: state.status == "ready" and state.answer == "You said: three")
    assert state.texts == [("user", "three"), ("assistant", "You said: three")]
    stored = server.get(f"/api/chat/{room}/messages")
    assert [(each["id"], each["role"]) for each in stored] == [
        (question, "user"),
        (state.messages[1]["id"], "assistant"),
    ]


@shows("useChat", "error")
def test_a_model_s_error_is_the_client_s_error(react: React, server: Served, room_of: RoomOf) -> None:
    """The reason is told, the words so far stay, and regenerate helps."""
    tab = react.open(server.url, room_of("broken"))
    tab.do("send", text="Please")
    state = tab.until(lambda state: state.status == "error")
    assert state.error == "scripted failure after 8 pieces"
    assert state.answer == words(8)
    tab.do("regenerate")
    assert tab.until_ready().texts == [("user", "Please"), ("assistant", words(10))]


def test_a_refusal_is_the_client_s_error(react: React, server: Served, room_of: RoomOf) -> None:
    """A message above the limit: an error that says so; the room goes on."""
    room = room_of("echo")
    tab = react.open(server.url, room)
    tab.do("send", text="x" * 1_048_577)
    state = tab.until(lambda state: state.status == "error")
    assert "message_bytes_max" in (state.error or "")
    assert server.get(f"/api/chat/{room}/messages") == []


def test_there_is_nothing_to_resume_in_an_unknown_room(react: React, server: Served, room_of: RoomOf) -> None:
    """204: ready, without a message and without an error; and asking makes no room."""
    room = room_of("echo")
    tab = react.open(server.url, room, resume=True)
    with server.open(f"/api/chat/{room}/stream") as response:
        assert (response.status, response.read()) == (204, b"")
    state = tab.until_ready(0)
    assert (state.error, state.messages) == (None, [])
    assert room not in server.open("/").read().decode()


def test_keep_alive_comments_are_ignored(react: React, commenting: Served) -> None:
    """They come during silence, and change nothing."""
    tab = react.open(commenting.url, "late-1")
    tab.do("send", text="Count")
    while not commenting.get("/api/chat/late-1/messages"):
        pass
    with commenting.open("/api/chat/late-1/stream") as response:
        body = response.read()
    assert body.count(b": keep-alive\n\n") >= 5
    assert body.endswith(b"data: [DONE]\n\n")
    assert tab.until_ready().texts == [("user", "Count"), ("assistant", words(10))]
