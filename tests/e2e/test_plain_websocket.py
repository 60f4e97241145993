"""Rooms over plain WebSockets, from real servers: the three kinds of clients, cut anywhere, in any mixture."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from tests.client_matrix import shows
from tests.e2e.conftest import OpenTab
from tests.e2e.plain_socket import PlainSocket, is_over, waits
from tests.e2e.served import Served
from tests.e2e.tab import words

RoomOf = Callable[[str], str]
Enter = Callable[..., PlainSocket]


@pytest.fixture
def enter() -> Iterator[Enter]:
    """Opens clients; all have left at the end."""
    with ExitStack() as stack:

        def opened(url: str, room: str, **query: str) -> PlainSocket:
            client = PlainSocket(url, room, **query)
            stack.callback(client.leave)
            return client

        yield opened


KINDS = pytest.mark.parametrize("kind", [{}, {"delta": "1"}, {"parts": "1"}], ids=["update", "delta", "parts"])


@shows("plain WebSocket", "send", "history")
@KINDS
def test_a_message_is_answered(enter: Enter, server: Served, room_of: RoomOf, kind: dict[str, str]) -> None:
    """Word by word; whoever comes later finds it."""
    room = room_of("brief")
    client = enter(server.url, room, **kind)
    client.send(type="message", content="Count", id="m1")
    client.until(is_over)
    said = [("user", "Count"), ("assistant", words(40))]
    assert client.texts == said
    assert len(set(client.texts_seen)) > 5
    assert enter(server.url, room).texts == said


@shows("plain WebSocket", "resume")
@KINDS
def test_each_word_comes_once_however_often_the_line_breaks(
    enter: Enter, server: Served, room_of: RoomOf, kind: dict[str, str]
) -> None:
    """Cut after any frame, away for a while; the text only ever grows."""
    dice = random.Random(4)
    client = enter(server.url, room_of("words"), **kind)
    client.send(type="message", content="Count", id="m1")
    for _ in range(8):
        for _ in range(dice.randrange(1, 6)):
            client.take()
        client.cut()
        client.come()
    client.until(is_over)
    assert client.texts == [("user", "Count"), ("assistant", words(80))]
    for before, after in zip(client.texts_seen, client.texts_seen[1:], strict=False):
        assert after.startswith(before)
    if "parts" in kind:
        assert "".join(chunk.get("delta", "") for chunk in client.chunks) == words(80)


@shows("plain WebSocket", "crash")
@KINDS
def test_an_answer_goes_on_after_a_kill(enter: Enter, mortal: Served, kind: dict[str, str]) -> None:
    """With the offset of the killed server; what was seen stays."""
    client = enter(mortal.url, "words-1", **kind)
    client.send(type="message", content="Count", id="m1")
    seen = client.until(lambda answer: "word9 " in answer["content"])["content"]
    mortal.restart_after_kill()
    client.come()
    assert client.until(is_over)["content"] == words(80)
    assert all(text.startswith(seen) for text in client.texts_seen[client.texts_seen.index(seen) :])


@shows("plain WebSocket", "families")
@shows("page", "families")
def test_all_kinds_and_the_page_see_the_same(
    enter: Enter, server: Served, room_of: RoomOf, open_tab: OpenTab
) -> None:
    """At once; a message of any of them is everybody's."""
    room = room_of("brief")
    clients = [enter(server.url, room, **kind) for kind in ({}, {"delta": "1"}, {"parts": "1"})]
    tab = open_tab(room)
    clients[0].send(type="message", content="One", id="m1")
    for client in clients:
        client.until(is_over)
    tab.wait_settled()
    tab.say("Two")
    tab.wait_settled(2)
    said = [("user", "One"), ("assistant", words(40)), ("user", "Two"), ("assistant", words(40))]
    for client in clients:
        client.until(lambda answer, client=client: len(client.messages) == 4 and is_over(answer))  # type: ignore[misc]
        assert client.texts == said
    assert tab.texts() == said


@shows("plain WebSocket", "stop")
def test_a_stop_from_another_client(enter: Enter, server: Served, room_of: RoomOf) -> None:
    """What was said stays."""
    room = room_of("slow")
    asking, stopping = enter(server.url, room), enter(server.url, room, delta="1")
    asking.send(type="message", content="Count", id="m1")
    stopping.until(lambda answer: "word5 " in answer["content"])
    stopping.send(type="stop")
    stopped = asking.until(is_over)
    assert stopped["status"] == "aborted"
    assert words(80).startswith(stopped["content"])
    assert stopping.until(is_over)["content"] == stopped["content"]


@shows("plain WebSocket", "tool")
def test_a_tool_is_shown_as_it_works(enter: Enter, server: Served, room_of: RoomOf) -> None:
    """Its input, what it says on its way, its output, as chunks; clients of text see the text."""
    room = room_of("weather")
    client, plain = enter(server.url, room, parts="1"), enter(server.url, room)
    client.send(type="message", content="How is it in Lisbon?", id="m1")
    client.until(is_over)
    outputs = [chunk for chunk in client.chunks if chunk["type"] == "tool-output-available"]
    assert [(chunk["output"], chunk.get("preliminary", False)) for chunk in outputs] == [
        ({"progress": "asking about Lisbon"}, True),
        ({"city": "Lisbon", "degrees": 21, "sky": "sunny"}, True),
        ({"city": "Lisbon", "degrees": 21, "sky": "sunny"}, False),
    ]
    text = "Let me ask `weather`.\n\nIn Lisbon it is 21 degrees and sunny."
    assert client.answer is not None
    assert client.answer["content"] == plain.until(is_over)["content"] == text


@shows("plain WebSocket", "client tool")
def test_a_client_gives_the_result_of_its_tool(enter: Enter, server: Served, room_of: RoomOf) -> None:
    """The plainest client can: the wait says what for."""
    client = enter(server.url, room_of("locate"))
    client.send(type="message", content="Where am I?", id="m1")
    [wait] = client.until(waits)["waits"]
    assert (wait["tool"], wait["kind"]) == ("locate", "result")
    client.send(type="result", id=wait["id"], output={"city": "Lisbon"})
    assert client.until(is_over)["content"] == 'Let me ask `locate`.\n\n`locate` says: `{"city": "Lisbon"}`.'


@shows("plain WebSocket", "approval")
def test_an_approval_after_a_restart(enter: Enter, mortal: Served) -> None:
    """It is asked for again, by another client; the tool does its work once."""
    client = enter(mortal.url, "refund-1")
    client.send(type="message", content="Refund order 17", id="m1")
    [wait] = client.until(waits)["waits"]
    assert wait == {"id": wait["id"], "tool": "refund", "kind": "approval", "input": {"order": 17}}
    mortal.restart_after_kill()
    other = enter(mortal.url, "refund-1", delta="1")
    assert other.answer is not None
    assert other.answer["waits"] == [wait]
    for _ in range(2):
        other.send(type="approve", id=wait["id"], approved=True)
    client.come()
    for each in (client, other):
        done = each.until(is_over)
        assert done["content"] == 'Let me ask `refund`.\n\n`refund` says: `{"order": 17, "refunds": 1}`.'


@shows("plain WebSocket", "regenerate")
def test_an_answer_is_made_again(enter: Enter, server: Served, room_of: RoomOf) -> None:
    """In place of the first, for all; the first comes back when it is chosen."""
    room = room_of("quick")
    client, other = enter(server.url, room, parts="1"), enter(server.url, room)
    client.send(type="message", content="Count", id="m1")
    first = client.until(is_over)["id"]
    client.send(type="regenerate", id=first)
    second = client.until(lambda answer: answer["id"] != first and is_over(answer))
    assert second["branches"] == {"index": 1, "count": 2}
    other.until(lambda answer: answer["id"] == second["id"] and is_over(answer))
    assert other.texts == [("user", "Count"), ("assistant", words(10))]
    other.send(type="branch", id=second["id"], index=0)
    assert client.until(lambda answer: answer["id"] == first)["content"] == words(10)


@shows("plain WebSocket", "error")
def test_a_failure_says_why(enter: Enter, server: Served, room_of: RoomOf) -> None:
    """And may be tried again."""
    client = enter(server.url, room_of("broken"))
    client.send(type="message", content="Please", id="m1")
    failed = client.until(is_over)
    assert (failed["status"], failed["error"]) == ("failed", "scripted failure after 8 pieces")
    client.send(type="retry")
    again = client.until(lambda answer: answer["id"] != failed["id"] and is_over(answer))
    assert (again["status"], again["content"]) == ("complete", words(10))
