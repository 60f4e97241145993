"""`ChatClient` of `@tanstack/ai-client`, unmodified, the newest and a pinned one: over SSE, NDJSON and a session."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import count

import pytest
from tests.client_matrix import shows
from tests.e2e.conftest import run_served
from tests.e2e.line import Line
from tests.e2e.served import Served
from tests.e2e.tab import words
from tests.e2e.tanstack import (
    VERSIONS,
    TanStackNode,
    calls,
    grew,
    ids,
    outputs,
    parts,
    ran,
    stored,
    tanstack_server,
    texts,
)
from websockets.sync.client import connect

COUNTED = (("user", "Count"), ("assistant", words(80)))

_rooms = count(1)

every_way = pytest.mark.parametrize("via", ["sse", "ndjson", "session"])
both_ways = pytest.mark.parametrize("via", ["sse", "session"])


@pytest.fixture(scope="module", params=VERSIONS, ids=str)
def node(request: pytest.FixtureRequest) -> Iterator[TanStackNode]:
    """Clients of one version."""
    node = TanStackNode(VERSIONS[request.param])
    yield node
    node.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that the tests share; some kill it. It ends live reads of sessions every five seconds."""
    yield from run_served(tanstack_server(tmp_path_factory.mktemp("server")))


@pytest.fixture
def line(server: Served) -> Iterator[Line]:
    """A line to the server that can be cut."""
    line = Line(server.port)
    yield line
    line.close()


def new_room(script: str) -> str:
    """A room that is answered by the script of that name."""
    return f"{script}-{next(_rooms)}"


@shows("TanStack AI", "send")
@shows("TanStack AI, session", "send")
@every_way
def test_send_and_stream(node: TanStackNode, server: Served, via: str) -> None:
    """Two turns, word by word, with the room's ids; nothing is sent twice."""
    room = new_room("brief")
    tab = node.open(server.url, room, via)
    said = [("user", "Count"), ("assistant", words(40))]
    for turn in (1, 2):
        tab.do("say", content="Count")
        state = tab.until_texts(*said * turn)
        assert (state["status"], state["errors"], state["posts"]) == ("ready", [], turn)
    assert len(state["seen"]) > 20
    assert stored(server, room) == said * 2
    assert ids(state) == [message["id"] for message in server.get(f"/api/chat/{room}/messages")]


@shows("TanStack AI", "resume")
@shows("TanStack AI, session", "resume")
@every_way
def test_cut_at_random_places(node: TanStackNode, server: Served, line: Line, via: str) -> None:
    """Four cuts anywhere in the answer: each word is shown once, in order; the room has answered once."""
    room = new_room("words")
    tab = node.open(line.url, room, via)
    tab.do("say", content="Count")
    for place in sorted(random.sample(range(2, 78), 4)):
        tab.until_said(f"word{place} ")
        line.drop()
    state = tab.until_texts(*COUNTED)
    assert grew(state, words(80))
    if via != "session":  # a session's subscription is begun anew by its application, which hears of the error
        assert (state["errors"], state["posts"]) == ([], 5)
    assert stored(server, room) == list(COUNTED)


@shows("TanStack AI", "families")
@shows("TanStack AI, session", "families")
def test_different_families_in_one_room(node: TanStackNode, server: Served) -> None:
    """Who posts over SSE, who looks on in a session, who reads as `useChat` does and on a plain socket: one text."""
    room = new_room("words")
    with connect(f"ws://127.0.0.1:{server.port}/ws/{room}", proxy=None) as socket:
        watching = node.open(server.url, room, "session")
        asking = node.open(server.url, room, "sse")
        asking.do("say", content="Count")
        watching.until_said("word20 ")
        with server.open(f"/api/chat/{room}/stream") as response:
            assert b"data: [DONE]" in response.read()
        assert texts(asking.until_texts(*COUNTED)) == texts(watching.until_texts(*COUNTED)) == list(COUNTED)
        assert ids(asking.state) == ids(watching.state)
        heard = ""
        while '"complete"' not in heard:
            heard = str(socket.recv(10))
        assert words(80) in heard


@shows("TanStack AI", "stop")
@shows("TanStack AI, session", "stop")
@both_ways
def test_stop(node: TanStackNode, server: Served, via: str) -> None:
    """By a request, from anywhere: the client is ready, with the words that the room has kept, without an error."""
    room = new_room("slow")
    tab = node.open(server.url, room, via)
    tab.do("say", content="Count")
    tab.until_said("word10 ")
    assert server.post(f"/api/chat/{room}/stop", {}) == {"success": True, "stopped": True}
    kept = stored(server, room)
    assert words(80).startswith(kept[1][1])
    state = tab.until_texts(*kept)
    assert (state["status"], state["errors"]) == ("ready", [])


def test_leaving_stops_nothing(node: TanStackNode, server: Served) -> None:
    """The client's own `stop()` ends its reading; the answer is made to its end."""
    room = new_room("brief")
    tab = node.open(server.url, room, "sse")
    tab.do("say", content="Count")
    tab.until_said("word5 ")
    tab.do("stop")
    assert tab.state["status"] == "ready"
    other = node.open(server.url, room, "session")
    other.until_texts(("user", "Count"), ("assistant", words(40)))


@shows("TanStack AI", "tool")
@shows("TanStack AI, session", "tool")
@every_way
def test_a_tool_of_the_server(node: TanStackNode, server: Served, via: str) -> None:
    """Its call and its result are shown, and what the model makes of it; it ran once."""
    room = new_room("weather")
    tab = node.open(server.url, room, via)
    tab.do("say", content="Weather?")
    said = "Let me see. It is sunny in Oslo."
    state = tab.until_texts(("user", "Weather?"), ("assistant", said))
    (call,) = parts(state, "tool-call")
    assert (call["name"], call["state"], call["input"], call["output"]) == (
        "weather",
        "complete",
        {"city": "Oslo"},
        "sunny in Oslo",
    )
    assert [part["content"] for part in parts(state, "thinking")] == ["A tool would help."]
    assert (state["posts"], ran(server, room, "weathers")) == (1, 1)


@shows("TanStack AI", "client tool")
@shows("TanStack AI, session", "client tool")
@every_way
@pytest.mark.parametrize(
    ("output", "said"),
    [({"city": "Oslo"}, "It is {'city': 'Oslo'}."), ({"throws": "no gps"}, "It is wrong: no gps.")],
    ids=["works", "fails"],
)
def test_a_tool_of_the_client(
    node: TanStackNode, server: Served, via: str, output: dict[str, str], said: str
) -> None:
    """It is carried out by the client, once, and the answer goes on in the same message."""
    room = new_room("where")
    watching = node.open(server.url, room, "session")
    tab = node.open(server.url, room, via, tools={"where": output})
    tab.do("say", content="Where?")
    state = tab.until_texts(("user", "Where?"), ("assistant", f"Let me see. {said}"))
    assert state["executed"] == [["where", {"precise": True}]]
    assert (state["posts"], state["errors"], state["status"]) == (2, [], "ready")
    assert stored(server, room) == [("user", "Where?"), ("assistant", f"Let me see. {said}")]
    state = watching.until_texts(*stored(server, room))
    assert (outputs(state), state["executed"]) == ({"c1": output if "city" in output else {"error": "no gps"}}, [])


@shows("TanStack AI", "approval")
@shows("TanStack AI, session", "approval")
@both_ways
@pytest.mark.parametrize(("approved", "said"), [(True, "It is 7 paid."), (False, "It is not allowed.")])
def test_an_approval_over_a_restart(node: TanStackNode, server: Served, via: str, approved: bool, said: str) -> None:
    """The server is killed while a person thinks; the word counts, and the tool has run once, or not at all."""
    room = new_room("pay")
    tab = node.open(server.url, room, via)
    tab.do("say", content="Pay")
    state = tab.until_call("approval-requested")
    server.restart_after_kill()
    (call,) = parts(state, "tool-call")
    tab.until(lambda state: via == "sse" or state["joined"])
    tab.do("approve", id=call["approval"]["id"], approved=approved)
    state = tab.until_texts(("user", "Pay"), ("assistant", f"Let me see. {said}"))
    if node.shows_late_results:
        assert outputs(state) == {"c1": "7 paid" if approved else {"error": "the user did not allow this tool call"}}
    assert ran(server, room, "paid") == (1 if approved else 0)
    assert state["status"] == "ready"


@both_ways
def test_who_comes_back_may_approve(node: TanStackNode, server: Served, via: str) -> None:
    """After a reload of the page the question is still there, with what was said before it; anyone may answer."""
    room = new_room("pay")
    first = node.open(server.url, room, via)
    first.do("say", content="Pay")
    first.until_call("approval-requested")
    first.close()
    later = node.open(server.url, room, via, hydrate=via == "sse")
    state = later.until_call("approval-requested")
    assert texts(state) == [("user", "Pay"), ("assistant", "Let me see. ")]
    later.do("approve", id=parts(state, "tool-call")[0]["approval"]["id"], approved=True)
    state = later.until_texts(("user", "Pay"), ("assistant", "Let me see. It is 7 paid."))
    if node.shows_late_results:
        assert outputs(state) == {"c1": "7 paid"}
    assert ran(server, room, "paid") == 1


def test_two_questions_in_one_answer(node: TanStackNode, server: Served) -> None:
    """The client's tool and an approval: the answer goes on when both are in, for all who look on."""
    room = new_room("both")
    watching = node.open(server.url, room, "session")
    asking = node.open(server.url, room, "session", tools={"where": "Oslo"})
    asking.do("say", content="Both")
    state = asking.until(
        lambda state: calls(state) == {"c1": "complete", "c2": "approval-requested"} and not state["loading"]
    )
    approval = next(part["approval"]["id"] for part in parts(state, "tool-call") if part["id"] == "c2")
    asking.do("approve", id=approval, approved=True)
    said = [("user", "Both"), ("assistant", "Let me see. It is Oslo and 1 paid.")]
    for tab in (asking, watching):
        state = tab.until_texts(*said)
        if node.shows_late_results:
            assert outputs(state) == {"c1": "Oslo", "c2": "1 paid"}
    assert ran(server, room, "paid") == 1


@shows("TanStack AI", "regenerate")
@shows("TanStack AI, session", "regenerate")
@both_ways
def test_reload_makes_the_answer_again(node: TanStackNode, server: Served, via: str) -> None:
    """Twice: one question, another answer each time, for the room as well."""
    room = new_room("echo")
    tab = node.open(server.url, room, via)
    tab.do("say", content="Hi")
    said = [("user", "Hi"), ("assistant", "You said: Hi")]
    known = {ids(tab.until_texts(*said))[1]}
    for _ in range(2):
        tab.do("reload")
        state = tab.until(lambda state: texts(state) == said and not state["loading"] and ids(state)[1] not in known)
        known.add(ids(state)[1])
        assert state["errors"] == []
    assert stored(server, room) == said


@shows("TanStack AI", "error")
@shows("TanStack AI, session", "error")
@both_ways
def test_an_error_is_shown(node: TanStackNode, server: Served, via: str) -> None:
    """The model's own words; `reload` then gets an answer."""
    room = new_room("broken")
    tab = node.open(server.url, room, via)
    tab.do("say", content="Hi")
    state = tab.until(lambda state: state["status"] == "error" and not state["loading"])
    assert len(state["errors"]) == 1
    assert "scripted" in state["errors"][0]
    tab.do("reload")
    tab.until_texts(("user", "Hi"), ("assistant", words(10)))


@shows("TanStack AI", "history")
@shows("TanStack AI, session", "history")
@both_ways
def test_history_after_a_reload_of_the_page(node: TanStackNode, server: Served, via: str) -> None:
    """All that was said, tools and thoughts included, in order."""
    room = new_room("weather")
    tab = node.open(server.url, room, via)
    said = [("user", "Weather?"), ("assistant", "Let me see. It is sunny in Oslo.")]
    for turn in (1, 2):
        tab.do("say", content="Weather?")
        tab.until_texts(*said * turn)
    tab.close()
    state = node.open(server.url, room, via, hydrate=via == "sse").until(
        lambda state: texts(state) == said * 2 and len(parts(state, "tool-call")) == 2
    )
    assert [part["output"] for part in parts(state, "tool-call")] == ["sunny in Oslo"] * 2
    assert len(parts(state, "thinking")) == 2


@shows("TanStack AI", "resume")
@shows("TanStack AI, session", "resume")
@pytest.mark.parametrize("via", ["sse", "ndjson", "session"])
def test_a_page_that_is_reloaded_amid_the_answer(node: TanStackNode, server: Served, via: str) -> None:
    """It shows the answer from its first word on, and goes on with it to its last, each word once."""
    room = new_room("words")
    tab = node.open(server.url, room, via)
    tab.do("say", content="Count")
    tab.until_said("word20 ")
    tab.close()
    state = node.open(server.url, room, via, hydrate=via != "session").until_texts(*COUNTED)
    assert grew(state, words(80))
    assert state["errors"] == []


@pytest.mark.parametrize(("via", "killed"), [("sse", True), ("ndjson", False)])
def test_a_page_that_keeps_its_history_itself(node: TanStackNode, server: Served, via: str, killed: bool) -> None:
    """It joins its own run again, also after a restart of the server where its address names the room."""
    room = new_room("words")
    tab = node.open(server.url, room, via, store=room)
    tab.do("say", content="Count")
    tab.until_said("word20 ")
    tab.close()
    if killed:
        server.restart_after_kill()
    state = node.open(server.url, room, via, store=room).until_texts(*COUNTED)
    assert grew(state, words(80))
    assert (state["errors"], stored(server, room)) == ([], list(COUNTED))


def until_settled(server: Served, room: str) -> str:
    """Wait until the room's answer grows no more; what it says."""
    before = ""
    while (said := stored(server, room)[1][1]) != before:
        before = said
        time.sleep(0.3)
    return said


@pytest.fixture
def newest(node: TanStackNode) -> TanStackNode:
    """Clients of the newest version, which alone has `webSocket`."""
    if not node.is_newest:
        pytest.skip("the pinned version has no webSocket")
    return node


def test_over_a_socket(newest: TanStackNode, server: Served, line: Line) -> None:
    """Cut at random places each word is there once; then a tool of the client, an approval, `reload`, a stop."""
    room = new_room("words")
    tab = newest.open(line.url, room, "socket")
    tab.do("say", content="Count")
    for place in sorted(random.sample(range(2, 78), 4)):
        tab.until_said(f"word{place} ")
        line.drop()
    state = tab.until_texts(*COUNTED)
    assert (grew(state, words(80)), state["errors"]) == (True, [])
    room = new_room("both")
    tab = newest.open(server.url, room, "socket", tools={"where": "Oslo"})
    tab.do("say", content="Both")
    state = tab.until_call("approval-requested", "c2")
    approval = next(part["approval"]["id"] for part in parts(state, "tool-call") if part["id"] == "c2")
    tab.do("approve", id=approval, approved=True)
    said = [("user", "Both"), ("assistant", "Let me see. It is Oslo and 1 paid.")]
    assert outputs(tab.until_texts(*said)) == {"c1": "Oslo", "c2": "1 paid"}
    room = new_room("slow")
    tab = newest.open(server.url, room, "socket")
    for action in ("say", "reload"):
        tab.do(action, content="Count")
        tab.until_said("word10 ")
        tab.do("stop")
        kept = until_settled(server, room)
        assert words(80) != kept
        assert words(80).startswith(kept)
    assert stored(server, room)[0] == ("user", "Count")


@shows("TanStack AI", "crash")
@shows("TanStack AI, session", "crash")
@both_ways
def test_a_killed_server(node: TanStackNode, server: Served, via: str) -> None:
    """``kill -9`` amid the answer: the client asks again until it is there, and shows each word once."""
    room = new_room("words")
    tab = node.open(server.url, room, via)
    tab.do("say", content="Count")
    tab.until_said("word30 ")
    server.restart_after_kill()
    state = tab.until(lambda state: texts(state) == list(COUNTED))
    assert grew(state, words(80))
    assert stored(server, room) == list(COUNTED)
    if via == "sse":  # a session's application hears of each break
        assert tab.until_texts(*COUNTED)["errors"] == []
