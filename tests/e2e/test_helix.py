"""Helix-style sessions with the real `DefaultChatTransport` of ``ai`` 6 and 7, as seed applications set it up.

The session is in the address, a request brings the newest message alone, and a page that is opened gets a snapshot
and resumes by number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.client_matrix import shows
from tests.e2e.line import Line
from tests.e2e.served import Served
from tests.e2e.tab import words
from tests.e2e.use_chat import React, ReactTab, State

RoomOf = Callable[[str], str]


def open_session(react: React, url: str, session: str, **options: Any) -> ReactTab:
    """A page of the session."""
    return react.open(url, session, transport="helix", **options)


def open_from_snapshot(react: React, server: Served, session: str, **options: Any) -> tuple[ReactTab, dict[str, Any]]:
    """A page that is rendered with the snapshot's messages, and resumes from the start of its newest answer."""
    shown = server.get(f"/api/chat/{session}/snapshot")
    page = open_session(
        react,
        server.url,
        session,
        resume=shown["status"] == "active",
        messages=shown["messages"],
        **{"from": shown["startSequence"], "existing": shown["messages"][-1]["id"], **options},
    )
    return page, shown


def whole(state: State) -> bool:
    """Whether the answer is complete and settled."""
    return state.status == "ready" and state.answer == words(80)


@shows("Helix style", "send", "history")
def test_basic_chat(react: React, server: Served, room_of: RoomOf) -> None:
    """A message is answered; both sides hold the same messages."""
    session = room_of("words")
    tab = open_session(react, server.url, session)
    tab.do("send", text="Count")
    state = tab.until(whole)
    assert state.texts == [("user", "Count"), ("assistant", words(80))]
    shown = server.get(f"/api/chat/{session}/snapshot")
    assert (shown["status"], shown["startSequence"]) == ("ended", 0)
    assert [each["id"] for each in shown["messages"]] == [each["id"] for each in state.messages]


@shows("Helix style", "resume")
def test_mid_stream_page_refresh(react: React, server: Served, room_of: RoomOf) -> None:
    """The page that is opened amid an answer shows its partial text at once, and then each word once."""
    session = room_of("words")
    tab = open_session(react, server.url, session)
    tab.do("send", text="Count")
    tab.until_words(20)
    tab.close()
    page, shown = open_from_snapshot(react, server, session)
    assert shown["status"] == "active"
    assert "word20 " in page.state().answer
    state = page.until(whole)
    assert state.texts == [("user", "Count"), ("assistant", words(80))]


def test_follow_up_message_streaming(react: React, server: Served, room_of: RoomOf) -> None:
    """Only the new answer is streamed, into a message of its own."""
    session = room_of("echo")
    tab = open_session(react, server.url, session)
    tab.do("send", text="one")
    tab.until_ready()
    tab.do("send", text="two")
    state = tab.until_ready(2)
    assert state.texts == [
        ("user", "one"),
        ("assistant", "You said: one"),
        ("user", "two"),
        ("assistant", "You said: two"),
    ]
    shown = server.get(f"/api/chat/{session}/snapshot")
    assert (shown["startSequence"], shown["streamSequence"]) == (7, 14)


@shows("Helix style", "tool")
def test_tool_call_rendering(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """Input and output are parts of the answer; a page that is opened amid it shows them, too."""
    session = room_of("weather")
    tab = open_session(react, tool_server.url, session)
    tab.do("send", text="Weather?")
    tab.until(lambda state: "more3 " in state.answer)
    page, _ = open_from_snapshot(react, tool_server, session)
    for each in (tab, page):
        state = each.until(lambda state: state.status == "ready" and state.answer.endswith("end"))
        assert state.part("tool-weather")["output"] == {"city": "Oslo", "celsius": -4}
        assert [part["type"] for part in state.messages[-1]["parts"]].count("tool-weather") == 1


def test_content_replay(react: React, server: Served, room_of: RoomOf) -> None:
    """Refreshed again and again: nothing is lost, nothing comes twice."""
    session = room_of("words")
    tab = open_session(react, server.url, session)
    tab.do("send", text="Count")
    for count in (10, 25, 40):
        tab.until_words(count)
        tab.close()
        tab, _ = open_from_snapshot(react, server, session)
        assert f"word{count} " in tab.state().answer
    state = tab.until(whole)
    assert state.texts == [("user", "Count"), ("assistant", words(80))]
    assert all(words(80).startswith(text or "") for _status, text in state.seen)


def test_a_cut_is_resumed(react: React, server: Served, line: Line, room_of: RoomOf) -> None:
    """On the page itself, from its start: each word once."""
    tab = open_session(react, line.url, room_of("words"), **{"from": 0})
    tab.do("send", text="Count")
    tab.until_words(15)
    line.drop()
    tab.until(lambda state: state.status == "error")
    tab.do("resume")
    assert tab.until(whole).texts == [("user", "Count"), ("assistant", words(80))]


def test_the_last_message_wins(react: React, server: Served, room_of: RoomOf) -> None:
    """A second page's message interrupts the first one's answer."""
    session = room_of("slow")
    first = open_session(react, server.url, session)
    first.do("send", text="Count")
    first.until_words(5)
    second = open_session(react, server.url, session)
    second.do("send", text="Again")
    assert len(first.until_ready().answer.split()) < 80
    second.until_words(5)
    server.post(f"/api/chat/{session}/stop", {})
    second.until_ready()
    assert [each["role"] for each in server.get(f"/api/chat/{session}/messages")] == ["user", "assistant"] * 2


def test_a_paused_session_goes_on(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """The page that is opened while it waits for a person lets them agree."""
    session = room_of("refund")
    tab = open_session(react, tool_server.url, session)
    tab.do("send", text="My money, please")
    tab.until(lambda state: state.status == "ready" and state.part("tool-refund"))
    page, shown = open_from_snapshot(react, tool_server, session, auto=True)
    assert shown["status"] == "paused"
    page.do("approve", id=page.state().part("tool-refund")["approval"]["id"], approved=True)
    state = page.until(lambda state: state.status == "ready" and state.answer.endswith("end"))
    assert [message["role"] for message in state.messages] == ["user", "assistant"]
    assert tool_server.call(session, "calls", "refund") == {"result": 1}


@shows("Helix style", "approval")
def test_an_approval_outlives_the_server(react: React, mortal_tools: Served) -> None:
    """Paused over a ``kill -9``; a page from the snapshot agrees, and the call is carried out once."""
    tab = open_session(react, mortal_tools.url, "refund-1")
    tab.do("send", text="My money, please")
    tab.until(lambda state: state.status == "ready" and state.part("tool-refund"))
    mortal_tools.restart_after_kill()
    page, shown = open_from_snapshot(react, mortal_tools, "refund-1", auto=True)
    assert shown["status"] == "paused"
    page.do("approve", id=page.state().part("tool-refund")["approval"]["id"], approved=True)
    page.until(lambda state: state.status == "ready" and state.answer.endswith("end"))
    assert mortal_tools.call("refund-1", "calls", "refund") == {"result": 1}


@shows("Helix style", "crash")
def test_a_killed_server(react: React, mortal: Served) -> None:
    """``kill -9`` amid an answer: a page from the snapshot that the restarted server gives has each word once."""
    tab = open_session(react, mortal.url, "words-1")
    tab.do("send", text="Count")
    tab.until_words(10)
    mortal.kill()
    tab.until(lambda state: state.status == "error")
    mortal.start()
    page, shown = open_from_snapshot(react, mortal, "words-1")
    assert shown["streamSequence"] > 10
    assert page.until(whole).texts == [("user", "Count"), ("assistant", words(80))]


@shows("Helix style", "error", "regenerate")
def test_an_error_is_shown_and_another_answer_made(react: React, server: Served, room_of: RoomOf) -> None:
    """`regenerate` replaces the failed answer."""
    session = room_of("broken")
    tab = open_session(react, server.url, session)
    tab.do("send", text="Please")
    assert tab.until(lambda state: state.status == "error").error == "scripted failure after 8 pieces"
    assert server.get(f"/api/chat/{session}/snapshot")["status"] == "failed"
    tab.do("regenerate")
    assert tab.until_ready().texts == [("user", "Please"), ("assistant", words(10))]


@shows("Helix style", "families", "stop")
def test_a_session_is_a_room(react: React, server: Served, room_of: RoomOf) -> None:
    """A client of another family sees the same, and stops it for both."""
    session = room_of("slow")
    tab = open_session(react, server.url, session)
    tab.do("send", text="Count")
    tab.until_words(5)
    other = react.open(server.url, session, resume=True, messages=server.get(f"/api/chat/{session}/messages"))
    other.until_words(8)
    assert server.post(f"/api/chat/{session}/stop", {}) == {"success": True, "stopped": True}
    states = [each.until_ready() for each in (tab, other)]
    assert states[0].texts == states[1].texts
    assert 8 <= len(states[0].answer.split()) < 80


@shows("Helix style", "client tool")
def test_a_tool_of_the_client(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """Its result is posted by itself, and the answer goes on."""
    tab = open_session(react, tool_server.url, room_of("locate"), auto=True, tools={"locate": "Oslo"})
    tab.do("send", text="Where am I?")
    state = tab.until(lambda state: state.status == "ready" and state.answer.endswith("end"))
    assert state.part("tool-locate")["output"] == "Oslo"
    assert [message["role"] for message in state.messages] == ["user", "assistant"]
