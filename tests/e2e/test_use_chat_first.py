"""``useChat`` of the oldest ``ai`` 6, 6.0.0: it refuses every field and type that it does not know."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from tests.client_matrix import shows
from tests.e2e.served import Served
from tests.e2e.tab import words
from tests.e2e.use_chat import NPM, React
from tests.requirements import need

RoomOf = Callable[[str], str]

MORE = "".join(f"more{number} " for number in range(1, 21)) + "end"


@pytest.fixture(scope="module")
def oldest() -> Iterator[React]:
    """Node with ``useChat`` of @ai-sdk/react 3.0.0 and ai 6.0.0."""
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    need("ai 6.0.0", (NPM / "node_modules" / "react-ai6-first").is_dir(), "npm install --prefix tests/npm")
    react = React("6-first")
    yield react
    react.close()


@shows("useChat", "send", "history")
def test_a_message_is_answered(oldest: React, server: Served, room_of: RoomOf) -> None:
    """Word by word; both sides then hold the same messages under the same ids."""
    room = room_of("words")
    tab = oldest.open(server.url, room)
    tab.do("send", text="Count")
    state = tab.until(lambda state: state.status == "ready" and state.answer == words(80))
    assert state.texts == [("user", "Count"), ("assistant", words(80))]
    stored = server.get(f"/api/chat/{room}/messages")
    assert [each["id"] for each in stored] == [each["id"] for each in state.messages]


def test_a_page_is_opened_amid_an_answer(oldest: React, server: Served, room_of: RoomOf) -> None:
    """With the finished messages alone, as this version appends what is replayed to a partial one."""
    room = room_of("words")
    first = oldest.open(server.url, room)
    first.do("send", text="Count")
    first.until_words(10)
    page = oldest.open(server.url, room, resume=True, messages=server.get(f"/api/chat/{room}/messages")[:-1])
    state = page.until(lambda state: state.status == "ready" and state.answer == words(80))
    assert state.texts == [("user", "Count"), ("assistant", words(80))]


def test_an_error_and_another_answer(oldest: React, server: Served, room_of: RoomOf) -> None:
    """The reason is told, and regenerate helps."""
    tab = oldest.open(server.url, room_of("broken"))
    tab.do("send", text="Please")
    assert tab.until(lambda state: state.status == "error").error == "scripted failure after 8 pieces"
    tab.do("regenerate")
    assert tab.until_ready().texts == [("user", "Please"), ("assistant", words(10))]


def test_a_stopped_answer(oldest: React, server: Served, room_of: RoomOf) -> None:
    """`abort` has no reason here."""
    room = room_of("slow")
    tab = oldest.open(server.url, room)
    tab.do("send", text="Count")
    tab.until_words(5)
    server.post(f"/api/chat/{room}/stop", {})
    state = tab.until_ready()
    assert (state.error, state.answer in words(80)) == (None, True)


def test_every_kind_of_part(oldest: React, tool_server: Served, room_of: RoomOf) -> None:
    """Reasoning, sources, data, files, metadata; what came later is left out."""
    tab = oldest.open(tool_server.url, room_of("rich"))
    tab.do("send", text="All")
    state = tab.until(lambda state: state.status == "ready" and state.answer.endswith("Done."))
    assert state.error is None
    assert state.messages[-1]["metadata"]["usage"] == {"inputTokens": 3, "outputTokens": 5}
    tab = oldest.open(tool_server.url, room_of("newer"))
    tab.do("send", text="Hi")
    assert tab.until_ready().answer == "Here."


def test_tools_and_approvals(oldest: React, tool_server: Served, room_of: RoomOf) -> None:
    """First a person agrees, then the client gives a result: one message all along."""
    room = room_of("twice")
    tab = oldest.open(tool_server.url, room, auto=True)
    tab.do("send", text="Both")
    state = tab.until(lambda state: state.status == "ready" and state.part("tool-refund"))
    tab.do("approve", id=state.part("tool-refund")["approval"]["id"], approved=True)
    state = tab.until(lambda state: state.status == "ready" and state.part("tool-locate"))
    tab.do("output", tool="locate", toolCallId=state.part("tool-locate")["toolCallId"], output="Oslo")
    state = tab.until(lambda state: state.status == "ready" and state.answer.endswith("end"))
    assert state.answer == f"First you. Now the place. It is output-available: Oslo. {MORE}"
    assert [message["role"] for message in state.messages] == ["user", "assistant"]
    assert tool_server.call(room, "calls", "refund") == {"result": 1}
