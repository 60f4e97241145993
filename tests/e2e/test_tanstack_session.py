"""`@durable-streams/tanstack-ai-transport` with `ChatClient` of `@tanstack/ai-client`, unmodified: one session."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from tests.e2e.conftest import run_served
from tests.e2e.durable_clients import Actor, Node, State, durable_server
from tests.e2e.line import Line
from tests.e2e.served import Served
from tests.e2e.tab import words
from websockets.sync.client import connect

PIXEL = "R0lGODlhAQABAAAAACw="

_rooms = count(1)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """The npm packages."""
    node = Node()
    yield node
    node.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that the tests share; the last one kills it. It ends live connections every 700 ms."""
    yield from run_served(durable_server(tmp_path_factory.mktemp("server"), ROTATE_MS="700", LONG_POLL_MS="300"))


@pytest.fixture
def line(server: Served) -> Iterator[Line]:
    """A line to the server that can be cut."""
    line = Line(server.port)
    yield line
    line.close()


def new_room(script: str) -> str:
    """A room that is answered by the script of that name."""
    return f"{script}-{next(_rooms)}"


def join(node: Node, url: str, room: str) -> Actor:
    """A client of the room's session, whose subscription has begun."""
    tab = node.start("joinSession", f"{url}/api/chat/{room}/session")
    tab.until(lambda state: state["joined"])
    return tab


def texts(state: State) -> list[tuple[str, str]]:
    """Role and text of the client's messages."""
    return [
        (message["role"], "".join(part["content"] for part in message["parts"] if part["type"] == "text"))
        for message in state["messages"]
    ]


def stored(server: Served, room: str) -> list[tuple[str, str]]:
    """Role and text of the room's messages."""
    messages: list[dict[str, Any]] = server.get(f"/api/chat/{room}/messages")
    return [
        (message["role"], "".join(part["text"] for part in message["parts"] if part["type"] == "text"))
        for message in messages
    ]


def ids(state: State) -> list[str]:
    """The ids of the client's messages."""
    return [message["id"] for message in state["messages"]]


def until_texts(tab: Actor, *expected: tuple[str, str]) -> State:
    """Wait until the client shows these, and waits for nothing."""
    return tab.until(lambda state: texts(state) == list(expected) and not state["loading"])


def until_said(tab: Actor, said: str) -> None:
    """Wait until the client shows that."""
    tab.until(lambda state: said in str(state["messages"]))


def grew(state: State, answer: str) -> bool:
    """Whether all that was ever shown as the last message was a beginning of the answer."""
    return all(answer.startswith(shown[-1]) for shown in state["seen"] if len(shown) >= 2)


def post(server: Served, room: str, text: str, message_id: str, **more: str) -> None:
    """A message as `useChat` posts it; returns when it is answered."""
    message = {"id": message_id, "role": "user", "parts": [{"type": "text", "text": text}]}
    body = {"id": room, "messages": [message], "trigger": "submit-message", **more}
    with server.open("/api/chat", body) as response:
        assert response.read().endswith(b"data: [DONE]\n\n")


COUNTED = (("user", "Count"), ("assistant", words(80)))


def test_all_clients_see_the_same(node: Node, server: Served) -> None:
    """Who asks, who looks on, who comes amid the answer and who comes after it; with the room's ids, word by word."""
    room = new_room("words")
    asking, watching = (join(node, server.url, room) for _ in range(2))
    asking.do("say", content="Count")
    until_said(watching, "word20 ")
    late = join(node, server.url, room)
    states = [until_texts(tab, *COUNTED) for tab in (asking, watching, late)]
    states.append(until_texts(join(node, server.url, room), *COUNTED))
    assert stored(server, room) == list(COUNTED)
    known = [message["id"] for message in server.get(f"/api/chat/{room}/messages")]
    assert all(ids(state) == known for state in states)
    assert all(len(state["seen"]) > 20 and grew(state, words(80)) for state in states[:2])
    assert all(state["errors"] == [] for state in states)


def test_a_cut_line(node: Node, server: Served, line: Line) -> None:
    """Twice amid the answer, for who asked and who looks on: both go on where they were, each word once."""
    room = new_room("words")
    asking, watching = (join(node, line.url, room) for _ in range(2))
    asking.do("say", content="Count")
    for so_far in ("word15 ", "word40 "):
        until_said(watching, so_far)
        line.drop()
    for tab in (asking, watching):
        state = until_texts(tab, *COUNTED)
        assert grew(state, words(80))
        assert set(state["errors"]) <= {"terminated"}  # none, where a cut came between two polls
        assert len(state["errors"]) <= 2
    assert stored(server, room) == list(COUNTED)


def test_others_speak_in_the_session(node: Node, server: Served) -> None:
    """Messages by `useChat` and by a plain socket appear, with their answers, and the other way round."""
    room = new_room("echo")
    tab = join(node, server.url, room)
    post(server, room, "one", "m1")
    with connect(f"ws://127.0.0.1:{server.port}/ws/{room}", proxy=None) as socket:
        socket.send('{"type":"message","content":"two"}')
        tab.until(lambda state: len(state["messages"]) == 4)
        tab.do("say", content="three")
        said = [
            pair for text in ("one", "two", "three") for pair in (("user", text), ("assistant", f"You said: {text}"))
        ]
        until_texts(tab, *said)
        while "You said: three" not in str(socket.recv(10)):
            pass
    assert stored(server, room) == said


def test_edits_and_reloads(node: Node, server: Served) -> None:
    """An edit by `useChat`, a `reload()` by one of the clients: all show what is left, and the new answer."""
    room = new_room("echo")
    tabs = [join(node, server.url, room) for _ in range(2)]
    tabs[0].do("say", content="one")
    for tab in tabs:
        until_texts(tab, ("user", "one"), ("assistant", "You said: one"))
    post(server, room, "two", "m2")
    post(server, room, "deux", "m2", messageId="m2")
    expected = [("user", "one"), ("assistant", "You said: one"), ("user", "deux"), ("assistant", "You said: deux")]
    before = [ids(until_texts(tab, *expected)) for tab in tabs]
    tabs[1].do("reload")
    for tab in tabs:
        tab.until(lambda state: texts(state) == expected and ids(state)[-1] != before[0][-1])
    assert ids(until_texts(tabs[0], *expected)) == ids(until_texts(tabs[1], *expected))
    assert stored(server, room) == expected


def test_a_picture(node: Node, server: Served) -> None:
    """Sent amid an answer: who looks on sees it, too; the answer goes on."""
    room = new_room("brief")
    tabs = [join(node, server.url, room) for _ in range(2)]
    tabs[0].do("say", content="Count")
    until_said(tabs[1], "word10 ")
    image = {"type": "image", "source": {"type": "data", "value": PIXEL, "mimeType": "image/gif"}}
    looking = join(node, server.url, room)
    looking.do("say", content={"content": [{"type": "text", "content": "Look"}, image]})
    expected = [("user", "Count"), ("assistant", words(40)), ("user", "Look"), ("assistant", words(40))]
    for tab in (*tabs, looking, join(node, server.url, room)):
        shown = until_texts(tab, *expected)["messages"][2]["parts"]
        assert [part["type"] for part in shown] == ["text", "image"]
        assert shown[1]["source"]["value"].endswith(PIXEL)
    file = {"type": "file", "mediaType": "image/gif", "url": f"data:image/gif;base64,{PIXEL}"}
    assert server.get(f"/api/chat/{room}/messages")[2]["parts"] == [{"type": "text", "text": "Look"}, file]


def test_a_stop_by_request(node: Node, server: Served) -> None:
    """Both clients are ready, with the words that the room has kept, and without an error."""
    room = new_room("slow")
    tabs = [join(node, server.url, room) for _ in range(2)]
    tabs[0].do("say", content="Count")
    until_said(tabs[1], "word10 ")
    assert server.post(f"/api/chat/{room}/stop", {}) == {"success": True, "stopped": True}
    kept = stored(server, room)
    assert words(80).startswith(kept[1][1])
    for tab in tabs:
        state = until_texts(tab, *kept)
        assert (state["status"], state["errors"]) == ("ready", [])


def test_a_refusal_is_told(node: Node, server: Served) -> None:
    """In words."""
    tab = join(node, server.url, new_room("echo"))
    tab.do("say", content="x" * 1_048_577)
    state = tab.until(lambda state: state["errors"])
    assert state["errors"] == ["message_bytes_max allows 1,048,576 at most, this has 1,048,577"]


def test_a_killed_server(node: Node, server: Served) -> None:
    """``kill -9`` amid the answer: after it all clients, old and new, say what the room says, word for word."""
    room = new_room("words")
    tabs = [join(node, server.url, room) for _ in range(2)]
    tabs[0].do("say", content="Count")
    until_said(tabs[1], "word30 ")
    server.restart_after_kill()
    for tab in (*tabs, join(node, server.url, room)):
        state = tab.until(lambda state: texts(state) == list(COUNTED))
        assert grew(state, words(80))
    assert stored(server, room) == list(COUNTED)
