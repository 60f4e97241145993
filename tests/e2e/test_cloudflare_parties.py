"""Rooms with PartySocket and durable-chat's frames; and, beside them, the room's own frames for what those lack."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.client_matrix import shows
from tests.e2e.cloudflare import Cloudflare, Shown
from tests.e2e.parties import messages, newest, open_party, say, send, texts, waits
from tests.e2e.served import Served
from tests.e2e.tab import words

RoomOf = Callable[[str], str]

TWENTY_WORDS = "".join(f"word{number} " for number in range(1, 21))


def ended(note: str, result: str) -> Callable[[Shown], bool]:
    """Whether the answer tells what became of its call, to its end."""
    return lambda shown: newest(shown) == ("AI", f"Let me see. \n[{note}]\nIt said {result}: {TWENTY_WORDS}")


@shows("PartySocket", "resume", "history")
def test_cuts_and_reloads(cloudflare: Cloudflare, agents_server: Served, room_of: RoomOf) -> None:
    """A page that comes back needs nothing but the first frame: the answer so far is in it."""
    party = open_party(cloudflare, agents_server, room_of("words"))
    say(party, "m1", "Count")
    for count in (5, 20, 40):
        party.until(lambda shown, count=count: f"word{count} " in newest(shown)[1])  # type: ignore[misc]
        party.do("reconnect")
    shown = party.until(lambda shown: newest(shown) == ("AI", words(80)))
    assert texts(shown) == [("Ada", "Count"), ("AI", words(80))]
    assert len([data for [data] in shown.told("message") if '"type":"all"' in data]) == 4


@shows("PartySocket", "stop")
def test_stop(cloudflare: Cloudflare, agents_server: Served, room_of: RoomOf) -> None:
    """One frame of the room's; what was said stays."""
    room = room_of("long")
    asking, stopping = (open_party(cloudflare, agents_server, room) for _ in range(2))
    say(asking, "m1", "Count")
    stopping.until(lambda shown: "word3 " in newest(shown)[1])
    send(stopping, type="stop")
    said = asking.until(lambda shown: newest(shown)[1] and not newest(shown)[1].endswith("..."))
    assert 3 <= len(newest(said)[1].split()) < 400
    stopping.until(lambda shown: texts(shown) == texts(said))


@shows("PartySocket", "regenerate")
def test_another_answer(cloudflare: Cloudflare, agents_server: Served, room_of: RoomOf) -> None:
    """By the room's frame; or by saying the message again, as another or the same."""
    party = open_party(cloudflare, agents_server, room_of("echo"))
    say(party, "m1", "Good morning")
    first = party.until(lambda shown: newest(shown) == ("AI", "You said: Good morning"))
    send(party, type="regenerate")
    answers = {messages(first)[-1]["id"]}
    second = party.until(
        lambda shown: (
            newest(shown) == newest(first) and messages(shown)[-1]["id"] not in answers and len(texts(shown)) == 2
        )
    )
    answers.add(messages(second)[-1]["id"])
    say(party, "m1", "Good evening", kind="update")
    party.until(lambda shown: texts(shown) == [("Ada", "Good evening"), ("AI", "You said: Good evening")])


@shows("PartySocket", "error")
def test_an_answer_that_fails(cloudflare: Cloudflare, agents_server: Served, room_of: RoomOf) -> None:
    """Below what was said stands why."""
    party = open_party(cloudflare, agents_server, room_of("broken"))
    say(party, "m1", "Count")
    party.until(lambda shown: newest(shown)[1].endswith("\n[failed: scripted failure after 8 pieces]"))


@shows("PartySocket", "tool")
def test_a_tool_on_the_server(cloudflare: Cloudflare, agents_server: Served, room_of: RoomOf) -> None:
    """What it gave is a line of the answer."""
    party = open_party(cloudflare, agents_server, room_of("add"))
    say(party, "m1", "Go")
    party.until(ended("add: 3", "3"))


@shows("PartySocket", "client tool")
def test_a_tool_of_the_page(cloudflare: Cloudflare, agents_server: Served, room_of: RoomOf) -> None:
    """The answer says what it waits for, to people and to the page."""
    room = room_of("where")
    asking, giving = (open_party(cloudflare, agents_server, room) for _ in range(2))
    say(asking, "m1", "Go")
    shown = giving.until(waits)
    assert newest(shown) == ("AI", "Let me see. \n[where {} needs a result from its client]")
    send(giving, type="result", id=waits(shown)[0]["id"], output="Lisbon")
    for party in (asking, giving):
        assert not waits(party.until(ended("where: Lisbon", "Lisbon")))


@shows("PartySocket", "approval")
@pytest.mark.parametrize("approved", [True, False])
def test_an_approval_after_the_server_was_killed(
    cloudflare: Cloudflare, mortal_agents: Served, *, approved: bool
) -> None:
    """The answer waits over the kill; the tool runs once, or not at all."""
    party = open_party(cloudflare, mortal_agents, "launch-1")
    say(party, "m1", "Go")
    party.until(waits)
    mortal_agents.restart_after_kill()
    again = open_party(cloudflare, mortal_agents, "launch-1")
    shown = again.shown()
    assert newest(shown) == ("AI", 'Let me see. \n[launch {"rocket": "R7"} needs an approval]')
    [wait] = waits(shown)
    assert (wait["tool"], wait["kind"], wait["input"]) == ("launch", "approval", {"rocket": "R7"})
    send(again, type="approve", id=wait["id"], approved=approved)
    told = ("launch: R7 flies, launch 1", "R7 flies, launch 1") if approved else ("launch: refused", "output-denied")
    for tab in (again, party):
        tab.until(ended(*told), within_s=20)
    assert mortal_agents.post("/rpc/TalkRoom/launch-1/launched", []) == {"result": int(approved)}
