"""`@durable-streams/aisdk-transport` in `useChat` of ai 6 and 7, unmodified: at its own address, and a shared one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, pairwise

import pytest
from tests.client_matrix import shows
from tests.e2e.conftest import run_served
from tests.e2e.durable_clients import DurableReact, durable_server
from tests.e2e.line import Line
from tests.e2e.served import Served
from tests.e2e.tab import words
from tests.e2e.use_chat import React, State

OWN = "/api/durable-chat"
SHARED = "/api/chat"

_rooms = count(1)


@pytest.fixture(scope="module", params=[6, 7], ids=["ai6", "ai7"])
def durable(request: pytest.FixtureRequest) -> Iterator[React]:
    """Node with ``useChat`` over the Durable Streams transport."""
    react = DurableReact(request.param)
    yield react
    react.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that the tests share. It is never killed."""
    yield from run_served(durable_server(tmp_path_factory.mktemp("server")))


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that is killed and started again, and ends live connections every 1.1 s.

    After three that last less than a second the npm client takes to long polls.
    """
    yield from run_served(durable_server(tmp_path_factory.mktemp("mortal"), ROTATE_MS="1100"))


@pytest.fixture
def line(server: Served) -> Iterator[Line]:
    """A line to the shared server that can be cut."""
    line = Line(server.port)
    yield line
    line.close()


def new_room(script: str) -> str:
    """A room that is answered by the script of that name."""
    return f"{script}-{next(_rooms)}"


def whole(state: State, length: int = 40) -> bool:
    """Whether the answer is complete and settled."""
    return state.status == "ready" and state.answer == words(length)


def grew(state: State, length: int = 40) -> bool:
    """Whether all that was ever shown of the answer was a beginning of it."""
    return all(words(length).startswith(text or "") for _status, text in state.seen)


@shows("useChat, Durable Streams", "send", "history")
@pytest.mark.parametrize("api", [OWN, SHARED])
def test_a_message_is_answered(durable: React, server: Served, api: str) -> None:
    """Word by word, and then once more; both sides hold the same messages under the same ids."""
    room = new_room("brief")
    tab = durable.open(server.url + api, room)
    tab.do("send", text="Count")
    tab.until_words(5)
    state = tab.until(whole)
    assert state.texts == [("user", "Count"), ("assistant", words(40))]
    growing = [text or "" for _status, text in state.seen]
    assert len(growing) > 10
    assert all(after.startswith(before) for before, after in pairwise(growing))
    tab.do("send", text="Again")
    tab.until(lambda state: len(state.texts) == 4 and whole(state))
    stored = server.get(f"/api/chat/{room}/messages")
    assert [(each["id"], each["role"]) for each in stored] == [
        (each["id"], each["role"]) for each in tab.state().messages
    ]


@shows("useChat, Durable Streams", "regenerate")
@pytest.mark.parametrize("api", [OWN, SHARED])
def test_regenerate_and_edit(durable: React, server: Served, api: str) -> None:
    """As over any other transport."""
    tab = durable.open(server.url + api, new_room("quick"))
    tab.do("send", text="Count")
    first = tab.until(lambda state: whole(state, 10)).messages
    tab.do("regenerate")
    second = tab.until(lambda state: whole(state, 10) and state.messages[-1]["id"] != first[-1]["id"]).messages
    assert [each["id"] for each in second][:-1] == [each["id"] for each in first][:-1]
    tab.do("send", text="Count anew", messageId=first[0]["id"])
    state = tab.until(lambda state: whole(state, 10) and state.messages[-1]["id"] != second[-1]["id"])
    assert state.texts == [("user", "Count anew"), ("assistant", words(10))]


@shows("useChat, Durable Streams", "resume")
@pytest.mark.parametrize("api", [OWN, SHARED])
def test_a_cut_line_is_an_error_and_resumes(durable: React, server: Served, line: Line, api: str) -> None:
    """Twice amid one answer; after each, what was there stays, and no word comes twice."""
    tab = durable.open(line.url + api, new_room("words"))
    tab.do("send", text="Count")
    for so_far in (10, 30):
        tab.until_words(so_far)
        line.drop()
        tab.until(lambda state: state.status == "error")
        tab.do("resume")
    state = tab.until(lambda state: whole(state, 80))
    assert state.texts == [("user", "Count"), ("assistant", words(80))]
    assert grew(state, 80)


def test_other_tabs(durable: React, server: Served) -> None:
    """One that is reloaded amid the answer, with nothing kept, and a second one: both have it from its first word."""
    room = new_room("words")
    tab = durable.open(server.url + OWN, room)
    tab.do("send", text="Count")
    tab.until_words(15)
    second = durable.open(server.url + OWN, room, resume=True, messages=server.get(f"/api/chat/{room}/messages"))
    tab.close()
    again = durable.open(server.url + OWN, room, resume=True)
    states = [each.until(lambda state: whole(state, 80)) for each in (second, again)]
    assert states[0].texts == [("user", "Count"), ("assistant", words(80))]
    assert states[1].texts == [("assistant", words(80))]
    assert all(grew(state, 80) for state in states)


@shows("useChat, Durable Streams", "stop")
def test_a_stop_by_request_ends_the_answer(durable: React, server: Served) -> None:
    """The stream is closed, so the tab is ready, with the words that the room kept. Its own stop only looks away."""
    room = new_room("slow")
    tab = durable.open(server.url + OWN, room)
    tab.do("send", text="Count")
    tab.until_words(5)
    tab.do("stop")
    assert len(tab.until_ready().answer.split()) < 40
    tab.do("resume")
    tab.until_words(20)
    assert server.post(f"/api/chat/{room}/stop", {}) == {"success": True, "stopped": True}
    state = tab.until_ready()
    assert (state.error, len(state.texts)) == (None, 2)
    stored = server.get(f"/api/chat/{room}/messages")[-1]
    assert "".join(part.get("text", "") for part in stored["parts"]) == state.answer
    assert grew(state, 80)


def test_there_is_nothing_to_resume(durable: React, server: Served) -> None:
    """In an unknown room: ready, without a message and without an error."""
    tab = durable.open(server.url + OWN, new_room("quick"), resume=True)
    state = tab.until_ready(0)
    assert (state.error, state.messages) == (None, [])


@shows("useChat, Durable Streams", "error")
def test_what_goes_wrong_is_told(durable: React, server: Served) -> None:
    """A refusal, and a model that fails: errors that say why; the words so far stay."""
    tab = durable.open(server.url + OWN, new_room("echo"))
    tab.do("send", text="x" * 1_048_577)
    assert "message_bytes_max" in (tab.until(lambda state: state.status == "error").error or "")
    tab = durable.open(server.url + OWN, new_room("broken"))
    tab.do("send", text="Please")
    state = tab.until(lambda state: state.status == "error")
    assert (state.error, state.answer) == ("scripted failure after 8 pieces", words(8))


@shows("useChat, Durable Streams", "crash")
def test_a_killed_server(durable: React, mortal: Served) -> None:
    """``kill -9`` amid the answer: an error, no false end; after the restart the whole, once.

    Connections that end politely meanwhile are not noticed.
    """
    tab = durable.open(mortal.url + OWN, new_room("words"))
    tab.do("send", text="Count")
    tab.until_words(30)
    mortal.kill()
    state = tab.until(lambda state: state.status == "error")
    assert words(80).startswith(state.answer)
    mortal.start()
    tab.do("resume")
    state = tab.until(lambda state: whole(state, 80))
    assert state.texts == [("user", "Count"), ("assistant", words(80))]
    assert grew(state, 80)


def test_use_chat_at_the_same_address(react: React, server: Served) -> None:
    """`useChat` with its own transport, where posts are answered in both ways: an answer, a reload, a second tab."""
    room = new_room("brief")
    tab = react.open(server.url, room)
    tab.do("send", text="Count")
    tab.until_words(10)
    second = react.open(server.url, room, resume=True)
    for each in (tab, second):
        state = each.until(whole)
        assert state.texts[-1] == ("assistant", words(40))
        assert grew(state)
