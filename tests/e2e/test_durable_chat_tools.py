"""`@durable-streams/aisdk-transport` in `useChat` of ai 6 and 7, with tools: answers of several legs."""

from __future__ import annotations

from collections.abc import Callable

from tests.client_matrix import shows
from tests.e2e.durable_clients import need_packages
from tests.e2e.served import Served
from tests.e2e.use_chat import React, ReactTab, State

RoomOf = Callable[[str], str]

MORE = "".join(f"more{number} " for number in range(1, 21)) + "end"
REFUND = f"I can do that. It is output-available: order 7 refunded. {MORE}"
LONG = REFUND.removesuffix("end") + "".join(f"more{number} " for number in range(21, 151)) + "end"
TWICE = f"First you. Now the place. It is output-available: Oslo. {MORE}"


def open_tab(react: React, server: Served, room: str, **options: object) -> ReactTab:
    """A page that reads answers as Durable Streams."""
    need_packages()
    return react.open(server.url, room, transport="durable", **options)  # type: ignore[arg-type]


def said(text: str) -> Callable[[State], object]:
    """Whether the newest answer is this, and settled."""
    return lambda state: state.status == "ready" and state.answer == text


def agree(tab: ReactTab, *, approved: bool = True) -> None:
    """Answer what the page asks."""
    state = tab.until(lambda state: state.status == "ready" and state.part("tool-refund"))
    tab.do("approve", id=state.part("tool-refund")["approval"]["id"], approved=approved)


@shows("useChat, Durable Streams", "tool", "client tool")
def test_an_answer_of_three_legs(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """A person agrees, the client gives a result: one message, and what is stored is what is shown."""
    room = room_of("twice")
    tab = open_tab(react, tool_server, room, auto=True, tools={"locate": "Oslo"})
    tab.do("send", text="Both")
    agree(tab)
    state = tab.until(said(TWICE))
    assert [message["role"] for message in state.messages] == ["user", "assistant"]
    assert tool_server.call(room, "calls", "refund") == {"result": 1}


def test_a_page_is_opened_amid_a_later_leg(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """It is given one stream with all legs."""
    room = room_of("refund")
    tab = open_tab(react, tool_server, room, auto=True)
    tab.do("send", text="My money, please")
    agree(tab)
    tab.until(lambda state: "more3 " in state.answer)
    pages = [open_tab(react, tool_server, room, resume=True) for _ in range(2)]
    for page in pages:
        state = page.until(said(REFUND))
        assert state.part("tool-refund")["output"] == "order 7 refunded"
    assert tab.until(said(REFUND)).messages[-1]["id"] == pages[0].state().messages[-1]["id"]


def test_a_kill_amid_a_later_leg(react: React, mortal_tools: Served) -> None:
    """No false end: a reader comes back by itself, or the page shows an error and resumes. Each word once."""
    tab = open_tab(react, mortal_tools, "long-1", auto=True)
    tab.do("send", text="My money, please")
    agree(tab)
    tab.until(lambda state: "more2 " in state.answer)
    page = open_tab(react, mortal_tools, "long-1", resume=True)
    page.until(lambda state: "more4 " in state.answer)
    mortal_tools.restart_after_kill()
    for each in (tab, page):
        state = each.until(lambda state: state.status == "error" or said(LONG)(state))
        if state.status == "error":
            each.do("resume")
        assert each.until(said(LONG)).texts[-1] == ("assistant", LONG)
    assert mortal_tools.call("long-1", "calls", "refund") == {"result": 1}


def test_a_tab_that_comes_too_late(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """Another has agreed already, and the answer has ended: it is told what it lacks."""
    room = room_of("refund")
    first = open_tab(react, tool_server, room, auto=True)
    first.do("send", text="My money, please")
    first.until(lambda state: state.status == "ready" and state.part("tool-refund"))
    history = tool_server.get(f"/api/chat/{room}/messages")
    second = open_tab(react, tool_server, room, auto=True, messages=history)
    agree(first)
    first.until(said(REFUND))
    agree(second, approved=False)
    assert second.until(said(REFUND)).part("tool-refund")["output"] == "order 7 refunded"
    assert tool_server.call(room, "calls", "refund") == {"result": 1}


@shows("useChat, Durable Streams", "approval")
def test_an_approval_outlives_the_server(react: React, mortal_tools: Served) -> None:
    """``kill -9`` while the answer waits; the same page agrees then, and the call is carried out once."""
    tab = open_tab(react, mortal_tools, "refund-1", auto=True)
    tab.do("send", text="My money, please")
    tab.until(lambda state: state.status == "ready" and state.part("tool-refund"))
    mortal_tools.restart_after_kill()
    agree(tab)
    tab.until(said(REFUND))
    assert mortal_tools.call("refund-1", "calls", "refund") == {"result": 1}
