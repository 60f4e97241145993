"""``useChat`` of ``ai`` 7 over `WebSocketChatTransport`, and beside clients of other families."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.client_matrix import shows
from tests.e2e.line import Line
from tests.e2e.served import Served
from tests.e2e.tab import words
from tests.e2e.use_chat import React, ReactTab

RoomOf = Callable[[str], str]

pytestmark = pytest.mark.parametrize("react", [7], indirect=True, ids=["ai7"])


def open_tab(react: React, server: Served | Line, room: str, **options: object) -> ReactTab:
    """A page that talks over a socket."""
    return react.open(server.url, room, transport="socket", **options)  # type: ignore[arg-type]


@shows("useChat, WebSocket", "send", "history")
def test_a_message_is_answered(react: React, server: Served, room_of: RoomOf) -> None:
    """Word by word, and again."""
    room = room_of("echo")
    tab = open_tab(react, server, room)
    tab.do("send", text="one")
    tab.until_ready()
    tab.do("send", text="two")
    state = tab.until_ready(2)
    assert [text for _role, text in state.texts] == ["one", "You said: one", "two", "You said: two"]
    stored = server.get(f"/api/chat/{room}/messages")
    assert [each["id"] for each in stored] == [each["id"] for each in state.messages]


@shows("useChat, Durable Streams", "families")
@shows("useChat, WebSocket", "families")
@shows("useChat", "families")
def test_clients_of_other_families_see_the_same(react: React, server: Served, room_of: RoomOf) -> None:
    """Over sockets, over HTTP, as Durable Streams: opened amid the answer, they show the same messages."""
    room = room_of("words")
    first = open_tab(react, server, room)
    first.do("send", text="Count")
    first.until_words(20)
    messages = server.get(f"/api/chat/{room}/messages")
    others = [
        react.open(server.url, room, resume=True, messages=messages),
        react.open(server.url, room, resume=True, messages=messages, transport="durable"),
        open_tab(react, server, room, resume=True, messages=messages),
    ]
    expected = first.until(lambda state: state.status == "ready" and state.answer == words(80))
    for other in others:
        state = other.until(lambda state: state.status == "ready" and state.answer == words(80))
        assert state.messages == expected.messages


@shows("useChat, WebSocket", "stop")
def test_stop_is_a_stop(react: React, server: Served, room_of: RoomOf) -> None:
    """Over a socket it ends the answer for everyone; over HTTP it ends the reading."""
    room = room_of("slow")
    tab = open_tab(react, server, room)
    tab.do("send", text="Count")
    tab.until_words(5)
    other = react.open(server.url, room, resume=True)
    other.until_words(5)
    tab.do("stop")
    assert 5 <= len(other.until_ready().answer.split()) < 80
    assert server.post(f"/api/chat/{room}/stop", {}) == {"success": True, "stopped": False}


def test_a_resumed_page_can_stop(react: React, server: Served, room_of: RoomOf) -> None:
    """After a reload, too."""
    room = room_of("slow")
    first = open_tab(react, server, room)
    first.do("send", text="Count")
    first.until_words(3)
    page = open_tab(react, server, room, resume=True)
    page.until_words(4)
    page.do("stop")
    state = first.until_ready()
    assert len(state.answer.split()) < 80
    assert page.until_ready().answer in words(80)


def test_strict_mode_stops_nothing(react: React, server: Served, room_of: RoomOf) -> None:
    """It mounts a page twice: the first resume is taken back, and asked for again at once."""
    room = room_of("slow")
    first = open_tab(react, server, room)
    first.do("send", text="Count")
    first.until_words(3)
    page = open_tab(react, server, room, resume=True, strict=True)
    state = page.until(lambda state: state.status == "ready" and state.answer == words(80))
    assert state.texts == [("assistant", words(80))]
    assert first.until_ready().answer == words(80)


@shows("useChat, WebSocket", "resume")
def test_a_lost_line_is_resumed(react: React, server: Served, line: Line, room_of: RoomOf) -> None:
    """Cut twice; each word once, and it was never stopped."""
    tab = open_tab(react, line, room_of("words"))
    tab.do("send", text="Count")
    for count in (10, 30):
        tab.until_words(count)
        line.drop()
        tab.until(lambda state: state.status == "error")
        tab.do("resume")
    state = tab.until(lambda state: state.status == "ready" and state.answer == words(80))
    assert state.texts == [("user", "Count"), ("assistant", words(80))]


@shows("useChat, WebSocket", "crash")
def test_a_killed_server(react: React, mortal: Served) -> None:
    """``kill -9``: after the restart the answer is there to its end, once."""
    tab = open_tab(react, mortal, "words-1")
    tab.do("send", text="Count")
    tab.until_words(10)
    mortal.kill()
    tab.until(lambda state: state.status == "error")
    mortal.start()
    tab.do("resume")
    state = tab.until(lambda state: state.status == "ready" and state.answer == words(80))
    assert state.texts == [("user", "Count"), ("assistant", words(80))]


@shows("useChat, WebSocket", "regenerate", "error")
def test_regenerate_and_errors(react: React, server: Served, room_of: RoomOf) -> None:
    """A model's error is shown, and regenerate makes another answer."""
    room = room_of("broken")
    tab = open_tab(react, server, room)
    tab.do("send", text="Please")
    assert tab.until(lambda state: state.status == "error").error == "scripted failure after 8 pieces"
    tab.do("regenerate")
    state = tab.until_ready()
    assert state.texts == [("user", "Please"), ("assistant", words(10))]
    assert [each["id"] for each in server.get(f"/api/chat/{room}/messages")] == [
        each["id"] for each in state.messages
    ]


def test_there_is_nothing_to_resume(react: React, server: Served, room_of: RoomOf) -> None:
    """Ready, without a message and without an error."""
    state = open_tab(react, server, room_of("echo"), resume=True).until_ready(0)
    assert (state.error, state.messages) == (None, [])


def test_a_refusal_is_shown(react: React, server: Served, room_of: RoomOf) -> None:
    """And the socket goes on with the next message."""
    tab = open_tab(react, server, room_of("echo"))
    tab.do("send", text="x" * 1_048_577)
    assert "message_bytes_max" in (tab.until(lambda state: state.status == "error").error or "")
    tab.do("send", text="Hi")
    assert tab.until_ready().answer == "You said: Hi"


@shows("useChat, WebSocket", "tool", "client tool")
def test_tools_and_approvals(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """First a person agrees, then the client gives a result; one message, over one socket."""
    room = room_of("twice")
    tab = open_tab(react, tool_server, room, auto=True, tools={"locate": "Oslo"})
    tab.do("send", text="Both")
    state = tab.until(lambda state: state.status == "ready" and state.part("tool-refund"))
    tab.do("approve", id=state.part("tool-refund")["approval"]["id"], approved=True)
    state = tab.until(lambda state: state.status == "ready" and state.answer.endswith("end"))
    assert [message["role"] for message in state.messages] == ["user", "assistant"]
    assert state.part("tool-locate")["output"] == "Oslo"
    assert tool_server.call(room, "calls", "refund") == {"result": 1}


@shows("useChat, WebSocket", "approval")
def test_an_approval_outlives_the_server(react: React, mortal_tools: Served) -> None:
    """The socket is lost; the page opens another by itself, and the call is carried out once."""
    tab = open_tab(react, mortal_tools, "refund-1", auto=True)
    tab.do("send", text="My money, please")
    state = tab.until(lambda state: state.status == "ready" and state.part("tool-refund"))
    mortal_tools.restart_after_kill()
    tab.do("approve", id=state.part("tool-refund")["approval"]["id"], approved=True)
    tab.until(lambda state: state.status == "ready" and state.answer.endswith("end"))
    assert mortal_tools.call("refund-1", "calls", "refund") == {"result": 1}
