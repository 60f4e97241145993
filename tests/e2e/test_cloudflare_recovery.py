"""`useAgentChat` when the line, the page or the server goes away: each word once, whoever was there."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from tests.client_matrix import shows
from tests.e2e.cloudflare import Cloudflare, OpenChat, settled, whole
from tests.e2e.line import Line
from tests.e2e.served import Served
from tests.e2e.tab import words

RoomOf = Callable[[str], str]


@pytest.fixture
def agents_line(agents_server: Served) -> Iterator[Line]:
    """A line to the shared server that can be cut."""
    line = Line(agents_server.port)
    yield line
    line.close()


@shows("Cloudflare Agents", "resume")
def test_cuts_at_random_places(
    open_chat: OpenChat, agents_server: Served, agents_line: Line, room_of: RoomOf
) -> None:
    """Four cuts amid one answer: the client comes back by itself, and has each word once."""
    room = room_of("words")
    tab = open_chat(room, url=agents_line.url)
    tab.do("say", text="Count")
    tab.until_words(2)
    chance = random.Random(room)
    for _cut in range(4):
        tab.until_words(len(tab.shown().answer.split()) + chance.randrange(1, 12))
        agents_line.drop()
    shown = tab.until(whole)
    assert shown.texts == [("user", "Count"), ("assistant", words(80))]
    assert all(words(80).startswith(text or "") for _status, text in shown.seen)
    settled(agents_server, room, tab)


def test_a_cut_until_after_the_end(
    open_chat: OpenChat, agents_server: Served, agents_line: Line, room_of: RoomOf
) -> None:
    """The answer was finished while the client was away: it has it when it is back."""
    room = room_of("words")
    tab = open_chat(room, url=agents_line.url)
    tab.do("say", text="Count")
    tab.until_words(10)
    agents_line.cut()
    watching = open_chat(room)
    watching.until(whole)
    assert len(tab.shown().answer.split()) < 80
    agents_line.mend()
    tab.until(lambda shown: shown.answer == words(80) and not shown.streaming)
    tab.until(lambda shown: shown.texts == [("user", "Count"), ("assistant", words(80))])


def test_what_was_said_while_away(open_chat: OpenChat, agents_line: Line, room_of: RoomOf) -> None:
    """A client that was cut off between turns has the others' messages when it is back."""
    room = room_of("echo")
    away, here = open_chat(room, url=agents_line.url), open_chat(room)
    away.do("say", text="one")
    away.until_ready()
    here.until_ready()
    agents_line.cut()
    away.until(lambda shown: not shown.open)
    here.do("say", text="two")
    messages = here.until_ready(2).messages
    agents_line.mend()
    away.until(lambda shown: shown.ready and shown.messages == messages)


def test_leaving_stops_nothing(open_chat: OpenChat, room_of: RoomOf) -> None:
    """All pages close amid the answer; one that opens later has all of it."""
    room = room_of("words")
    tab = open_chat(room)
    tab.do("say", text="Count")
    tab.until_words(5)
    tab.close()
    again = open_chat(room)
    shown = again.until(whole)
    assert shown.texts == [("user", "Count"), ("assistant", words(80))]
    assert all(words(80).startswith(text or "") for _status, text in shown.seen)


@shows("Cloudflare Agents", "crash")
def test_a_server_killed_amid_an_answer(cloudflare: Cloudflare, mortal_agents: Served) -> None:
    """The answer goes on where it was, in the page that asked and in the one that looked on."""
    room = "words-1"
    asking, watching = (cloudflare.open("chat", mortal_agents.url, "TalkRoom", room) for _tab in range(2))
    asking.until_identified()
    watching.until_identified()
    asking.do("say", text="Count")
    asking.until_words(20)
    mortal_agents.restart_after_kill()
    for tab in (asking, watching):
        tab.until(whole, within_s=20)
        shown = tab.until(lambda shown: shown.texts == [("user", "Count"), ("assistant", words(80))])
        assert all(words(80).startswith(text or "") for _status, text in shown.seen)
    settled(mortal_agents, room, asking, watching)


def test_a_planned_restart_amid_an_answer(cloudflare: Cloudflare, mortal_agents: Served) -> None:
    """The same when the server is stopped and started again."""
    tab = cloudflare.open("chat", mortal_agents.url, "TalkRoom", "words-1")
    tab.until_identified()
    tab.do("say", text="Count")
    tab.until_words(20)
    mortal_agents.stop()
    mortal_agents.start()
    tab.until(whole, within_s=20)
    tab.until(lambda shown: shown.texts == [("user", "Count"), ("assistant", words(80))])
