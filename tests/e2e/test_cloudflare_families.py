"""Clients of different families in one room: the same messages on every screen, whoever asks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from tests.client_matrix import shows
from tests.e2e.cloudflare import Cloudflare, OpenChat, settled, whole
from tests.e2e.parties import newest, open_party, say
from tests.e2e.parties import texts as party_texts
from tests.e2e.served import Served
from tests.e2e.tab import words
from tests.e2e.use_chat import React
from tests.requirements import need


@pytest.fixture(scope="module")
def react7() -> Iterator[React]:
    """Node with ``useChat`` of ai 7."""
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    react = React(7)
    yield react
    react.close()


@shows("Cloudflare Agents", "families")
@shows("PartySocket", "families", "send")
def test_three_families_in_one_room(
    cloudflare: Cloudflare, open_chat: OpenChat, agents_server: Served, react7: React
) -> None:
    """`useChat`, `useAgentChat` and a PartySocket: each asks once, and all show the same."""
    room = f"echo-{cloudflare.sdk}-{id(cloudflare)}"
    agents, party, sdk = (
        open_chat(room),
        open_party(cloudflare, agents_server, room),
        react7.open(agents_server.url, room),
    )
    sdk.do("send", text="one")
    sdk.until_ready()
    agents.until(lambda shown: shown.ready and shown.answer == "You said: one")
    agents.do("say", text="two")
    agents.until(lambda shown: shown.ready and shown.answer == "You said: two")
    say(party, "m3", "three")
    agents.until(lambda shown: shown.ready and shown.answer == "You said: three")
    messages = settled(agents_server, room, agents)
    texts = ["".join(part.get("text", "") for part in message["parts"]) for message in messages]
    assert texts == ["one", "You said: one", "two", "You said: two", "three", "You said: three"]
    party.until(lambda shown: [text for _user, text in party_texts(shown)] == texts)
    again = react7.open(agents_server.url, room, messages=agents_server.get(f"/api/chat/{room}/messages"))
    assert [text for _role, text in again.state().texts] == texts


def test_one_answer_on_all_screens(
    cloudflare: Cloudflare, open_chat: OpenChat, agents_server: Served, react7: React
) -> None:
    """It is asked for with `useChat`, watched by the others as it grows, and stopped from one of them."""
    room = f"long-{cloudflare.sdk}-{id(cloudflare)}"
    agents, party, sdk = (
        open_chat(room),
        open_party(cloudflare, agents_server, room),
        react7.open(agents_server.url, room),
    )
    sdk.do("send", text="Count")
    agents.until_words(3)
    party.until(lambda shown: "word3 " in newest(shown)[1])
    late = open_chat(room)
    late.until_words(3)
    late.do("stop")
    said = sdk.until_ready().answer
    assert 3 <= len(said.split()) < 400
    settled(agents_server, room, agents, late)
    assert agents.shown().answer == late.shown().answer == said
    party.until(lambda shown: newest(shown) == ("AI", said))


@shows("PartySocket", "crash")
def test_a_server_killed_under_all_of_them(cloudflare: Cloudflare, mortal_agents: Served, react7: React) -> None:
    """The answer goes on, on every screen."""
    agents = cloudflare.open("chat", mortal_agents.url, "TalkRoom", "words-1")
    agents.until_identified()
    party = open_party(cloudflare, mortal_agents, "words-1")
    agents.do("say", text="Count")
    agents.until_words(20)
    mortal_agents.restart_after_kill()
    agents.until(whole, within_s=20)
    party.until(lambda shown: newest(shown) == ("AI", words(80)), within_s=20)
    sdk = react7.open(mortal_agents.url, "words-1", messages=mortal_agents.get("/api/chat/words-1/messages"))
    assert sdk.state().texts == agents.shown().texts == [("user", "Count"), ("assistant", words(80))]
