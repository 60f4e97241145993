"""``useChat`` of ``ai`` 6 and 7 with tools: shown, carried out by the client, agreed to; never carried out twice."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.client_matrix import shows
from tests.e2e.served import Served
from tests.e2e.use_chat import React, State

RoomOf = Callable[[str], str]

MORE = "".join(f"more{number} " for number in range(1, 21)) + "end"
WEATHER = f"Let me look. It is output-available: {{'city': 'Oslo', 'celsius': -4}}. {MORE}"
REFUND = f"I can do that. It is output-available: order 7 refunded. {MORE}"
LONG = REFUND.removesuffix("end") + "".join(f"more{number} " for number in range(21, 151)) + "end"
LOCATE = f"One moment. It is output-available: Oslo. {MORE}"
TWICE = f"First you. Now the place. It is output-available: Oslo. {MORE}"


def history(server: Served, room: str) -> list[dict[str, Any]]:
    """What the room has stored, as the next page load gets it."""
    messages: list[dict[str, Any]] = server.get(f"/api/chat/{room}/messages")
    return messages


def parts(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The parts of all messages, without what is absent."""
    return [
        [{key: value for key, value in part.items() if value is not None} for part in message["parts"]]
        for message in messages
    ]


def said(text: str) -> Callable[[State], object]:
    """Whether the newest answer is this, and settled."""
    return lambda state: state.status == "ready" and state.answer == text


@shows("useChat", "tool")
def test_a_tool_is_shown(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """Its input as it is written, a preliminary result, the result; then the answer goes on in the same message."""
    room = room_of("weather")
    tab = react.open(tool_server.url, room)
    tab.do("send", text="Weather?")
    state = tab.until(said(WEATHER))
    part = state.part("tool-weather")
    assert part["state"] == "output-available"
    assert (part["input"], part["output"]) == ({"city": "Oslo"}, {"city": "Oslo", "celsius": -4})
    assert [part["type"] for part in state.messages[-1]["parts"]] == [
        *("step-start", "text", "tool-weather"),
        *("step-start", "text"),
    ]
    assert parts(history(tool_server, room)) == parts(state.messages)
    assert tool_server.call(room, "calls", "weather") == {"result": 1}


def test_an_error_of_a_tool_is_shown(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """And the model hears of it."""
    tab = react.open(tool_server.url, room_of("broken"))
    tab.do("send", text="Try")
    state = tab.until(lambda state: state.status == "ready" and state.answer.endswith("end"))
    assert state.part("tool-broken")["state"] == "output-error"
    assert state.part("tool-broken")["errorText"] == "the line is dead"


def test_a_person_agrees(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """The call waits, is carried out once, and the answer goes on in the same message."""
    room = room_of("refund")
    tab = react.open(tool_server.url, room, auto=True)
    tab.do("send", text="My money, please")
    state = tab.until(lambda state: state.status == "ready" and state.part("tool-refund"))
    part = state.part("tool-refund")
    assert part["state"] == "approval-requested"
    assert history(tool_server, room)[-1]["parts"][-1]["state"] == "approval-requested"
    tab.do("approve", id=part["approval"]["id"], approved=True)
    state = tab.until(said(REFUND))
    assert [message["role"] for message in state.messages] == ["user", "assistant"]
    assert tool_server.call(room, "calls", "refund") == {"result": 1}
    assert parts(history(tool_server, room)) == parts(state.messages)


def test_a_person_does_not_agree(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """The call is not carried out; the model hears of it."""
    room = room_of("refund")
    tab = react.open(tool_server.url, room, auto=True)
    tab.do("send", text="My money, please")
    state = tab.until(lambda state: state.status == "ready" and state.part("tool-refund"))
    tab.do("approve", id=state.part("tool-refund")["approval"]["id"], approved=False, reason="too much")
    state = tab.until(lambda state: state.status == "ready" and state.answer.endswith("end"))
    assert state.part("tool-refund")["state"] == "output-denied"
    assert "It is output-denied" in state.answer
    assert tool_server.call(room, "calls", "refund") == {"result": 0}


@shows("useChat", "approval")
def test_an_approval_outlives_the_server(react: React, mortal_tools: Served) -> None:
    """``kill -9`` while it waits, and again; a page that is opened then agrees, and the call is carried out once."""
    tab = react.open(mortal_tools.url, "refund-1", auto=True)
    tab.do("send", text="My money, please")
    tab.until(lambda state: state.status == "ready" and state.part("tool-refund"))
    mortal_tools.restart_after_kill()
    mortal_tools.restart_after_kill()
    page = react.open(
        mortal_tools.url, "refund-1", auto=True, resume=True, messages=history(mortal_tools, "refund-1")
    )
    part = page.until_ready().part("tool-refund")
    assert part["state"] == "approval-requested"
    page.do("approve", id=part["approval"]["id"], approved=True)
    page.until(said(REFUND))
    assert mortal_tools.call("refund-1", "calls", "refund") == {"result": 1}
    # The first page still shows the question. Its answer comes too late, and it gets what it lacks.
    tab.do("approve", id=part["approval"]["id"], approved=False)
    assert tab.until(said(REFUND)).part("tool-refund")["state"] == "output-available"
    assert mortal_tools.call("refund-1", "calls", "refund") == {"result": 1}


@shows("useChat", "client tool")
def test_a_tool_of_the_client(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """Its result is posted by itself, and the answer goes on."""
    room = room_of("locate")
    tab = react.open(tool_server.url, room, auto=True, tools={"locate": "Oslo"})
    tab.do("send", text="Where am I?")
    state = tab.until(said(LOCATE))
    assert len(state.calls) == 1
    assert state.part("tool-locate")["output"] == "Oslo"
    assert parts(history(tool_server, room)) == parts(state.messages)


def test_a_tool_of_the_client_fails(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """The model hears of it."""
    tab = react.open(tool_server.url, room_of("locate"), auto=True)
    tab.do("send", text="Where am I?")
    call_id = tab.until(lambda state: state.status == "ready" and state.calls).calls[0]
    tab.do("output", tool="locate", toolCallId=call_id, errorText="no signal")
    state = tab.until(lambda state: state.status == "ready" and state.answer.endswith("end"))
    assert "It is output-error: no signal." in state.answer


def test_a_client_brings_a_tool_of_its_own(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """The room does not know it; the request's body says what it is."""
    offered = [{"name": "guess", "description": "A number", "parameters": {"type": "object"}}]
    tab = react.open(tool_server.url, room_of("guess"), auto=True, tools={"guess": 4}, body={"clientTools": offered})
    tab.do("send", text="Guess")
    assert tab.until(said(f"One moment. It is output-available: 4. {MORE}")).part("tool-guess")["output"] == 4


def test_an_answer_of_three_legs(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """First a person agrees, then the client gives a result: one message all along."""
    room = room_of("twice")
    tab = react.open(tool_server.url, room, auto=True, tools={"locate": "Oslo"})
    tab.do("send", text="Both")
    state = tab.until(lambda state: state.status == "ready" and state.part("tool-refund"))
    tab.do("approve", id=state.part("tool-refund")["approval"]["id"], approved=True)
    state = tab.until(said(TWICE))
    assert [message["role"] for message in state.messages] == ["user", "assistant"]
    assert parts(history(tool_server, room)) == parts(state.messages)
    assert tool_server.call(room, "calls", "refund") == {"result": 1}


def test_a_page_is_opened_amid_a_later_leg(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """It resumes, and has all legs once."""
    room = room_of("locate")
    tab = react.open(tool_server.url, room, auto=True, tools={"locate": "Oslo"})
    tab.do("send", text="Where am I?")
    tab.until(lambda state: "more3 " in state.answer)
    page = react.open(tool_server.url, room, resume=True, messages=history(tool_server, room))
    state = page.until(said(LOCATE))
    assert parts(state.messages) == parts(tab.until(said(LOCATE)).messages)


def test_a_cut_in_a_later_leg_is_resumed(react: React, mortal_tools: Served) -> None:
    """``kill -9`` after the result was given: the page resumes; each word once, the tool carried out once."""
    tab = react.open(mortal_tools.url, "long-1", auto=True)
    tab.do("send", text="My money, please")
    state = tab.until(lambda state: state.status == "ready" and state.part("tool-refund"))
    tab.do("approve", id=state.part("tool-refund")["approval"]["id"], approved=True)
    tab.until(lambda state: "more5 " in state.answer)
    mortal_tools.kill()
    tab.until(lambda state: state.status == "error")
    mortal_tools.start()
    tab.do("resume")
    state = tab.until(said(LONG))
    assert [message["role"] for message in state.messages] == ["user", "assistant"]
    assert mortal_tools.call("long-1", "calls", "refund") == {"result": 1}


def test_the_same_post_twice_runs_no_tool_twice(tool_server: Served, react: React, room_of: RoomOf) -> None:
    """What a retry, strict mode or a second tab sends: both are told the same."""
    room = room_of("refund")
    tab = react.open(tool_server.url, room)
    tab.do("send", text="My money, please")
    messages = tab.until(lambda state: state.status == "ready" and state.part("tool-refund")).messages
    part = messages[-1]["parts"][-1]
    part |= {"state": "approval-responded", "approval": {**part["approval"], "approved": True}}
    body = {"id": room, "messages": messages, "trigger": "submit-message", "messageId": messages[-1]["id"]}
    first, second = (_post(tool_server, body) for _ in range(2))
    third = _post(tool_server, body).read()
    answers = [first.read(), second.read(), third]
    assert answers[0] == answers[1]
    assert all(answer.endswith(b"data: [DONE]\n\n") for answer in answers)
    assert tool_server.call(room, "calls", "refund") == {"result": 1}


def _post(server: Served, body: Any) -> Any:
    request = urllib.request.Request(
        f"{server.url}/api/chat", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    return urllib.request.urlopen(request, timeout=10)


def test_two_tabs_give_a_result_at_once(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """The first wins; both show what came of it."""
    room = room_of("refund")
    first = react.open(tool_server.url, room, auto=True)
    first.do("send", text="My money, please")
    state = first.until(lambda state: state.status == "ready" and state.part("tool-refund"))
    second = react.open(tool_server.url, room, auto=True, messages=history(tool_server, room))
    approval = state.part("tool-refund")["approval"]["id"]
    first.do("approve", id=approval, approved=True)
    second.do("approve", id=approval, approved=False)
    states = [tab.until(said(REFUND)) for tab in (first, second)]
    assert {state.part("tool-refund")["output"] for state in states} == {"order 7 refunded"}
    assert tool_server.call(room, "calls", "refund") == {"result": 1}


def test_a_request_that_asks_for_more_is_no_endless_loop(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """A client that takes the answer for unfinished is told that it has ended, once."""
    room = room_of("refund")
    tab = react.open(tool_server.url, room)
    tab.do("send", text="My money, please")
    messages = tab.until(lambda state: state.status == "ready" and state.part("tool-refund")).messages
    messages[-1]["parts"][-1] |= {"state": "output-available", "output": "forged"}
    page = react.open(tool_server.url, room, auto=True, messages=messages)
    page.do("send")
    state = page.until(lambda state: state.status == "error")
    assert state.error == "this answer still waits for a result"
    assert tool_server.call(room, "calls", "refund") == {"result": 0}


def test_all_kinds_of_parts(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """Reasoning, a source, data that is replaced, data that is only shown, a file, metadata with the usage."""
    room = room_of("rich")
    tab = react.open(tool_server.url, room)
    tab.do("send", text="All")
    state = tab.until(lambda state: state.status == "ready" and state.answer.endswith("Done."))
    answer = state.messages[-1]
    assert state.part("reasoning")["text"] == "thought1 thought2 thought3 thought4 thought5 "
    assert state.part("source-url")["url"] == "https://a.example"
    assert [part["data"] for part in answer["parts"] if part["type"] == "data-progress"] == [{"percent": 100}]
    assert state.part("data-note") == {}
    assert [part["type"] for part in state.data].count("data-note") == 1
    assert state.part("file")["url"] == "data:text/plain,hello"
    assert answer["metadata"]["usage"] == {"inputTokens": 3, "outputTokens": 5}
    assert history(tool_server, room)[-1]["metadata"] == answer["metadata"]
    assert state.finished == [{"isAbort": False, "isError": False, "isDisconnect": False, "finishReason": "stop"}]


def test_newer_chunks_are_for_those_who_ask(react: React, tool_server: Served, room_of: RoomOf) -> None:
    """By default they are left out; with `?target=ai7` they come, and only `ai` 7 can read them."""
    tab = react.open(tool_server.url, room_of("newer"))
    tab.do("send", text="Hi")
    assert [part["type"] for part in tab.until(said("Here.")).messages[-1]["parts"]] == ["step-start", "text"]
    tab = react.open(tool_server.url, room_of("newer"), query="?target=ai7")
    tab.do("send", text="Hi")
    if react.major == 6:
        assert tab.until(lambda state: state.status == "error")
    else:
        assert tab.until(said("Here.")).part("custom")["kind"] == "scripted.note"
