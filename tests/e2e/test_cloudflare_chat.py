"""`useAgentChat` of npm ``@cloudflare/ai-chat`` against a real server: turns, other tabs, history."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from tests.client_matrix import shows
from tests.e2e.cloudflare import Cloudflare, OpenChat, settled, stored, whole
from tests.e2e.served import Served
from tests.e2e.tab import words


@shows("Cloudflare Agents", "send")
def test_a_message_is_answered(open_chat: OpenChat, agents_server: Served, room_of: Callable[[str], str]) -> None:
    """Word by word; both sides then hold the same messages under the same ids."""
    room = room_of("words")
    tab = open_chat(room)
    tab.do("say", text="Count")
    shown = tab.until(whole)
    assert shown.texts == [("user", "Count"), ("assistant", words(80))]
    growing = [text or "" for _status, text in shown.seen]
    assert len(growing) > 10
    assert all(after.startswith(before) for before, after in pairwise(growing))
    settled(agents_server, room, tab)


def test_a_follow_up_is_answered(open_chat: OpenChat, room_of: Callable[[str], str]) -> None:
    """The second turn of a conversation."""
    tab = open_chat(room_of("echo"))
    tab.do("say", text="one")
    tab.until_ready()
    tab.do("say", text="two")
    assert tab.until_ready(2).texts == [
        ("user", "one"),
        ("assistant", "You said: one"),
        ("user", "two"),
        ("assistant", "You said: two"),
    ]


def test_other_tabs_see_it_live(open_chat: OpenChat, agents_server: Served, room_of: Callable[[str], str]) -> None:
    """The question at once, the answer as it grows, and at the end the same messages."""
    room = room_of("words")
    asking, watching = open_chat(room), open_chat(room)
    asking.do("say", text="Count")
    amid = watching.until_words(10)
    assert amid.texts[0] == ("user", "Count")
    assert amid.streaming
    assert len(amid.answer.split()) < 80
    for tab in (asking, watching):
        tab.until(whole)
    settled(agents_server, room, asking, watching)
    growing = [text or "" for _status, text in watching.shown().seen]
    assert all(after.startswith(before) for before, after in pairwise(growing))


def test_a_page_that_is_opened_amid_an_answer(
    open_chat: OpenChat, agents_server: Served, room_of: Callable[[str], str]
) -> None:
    """It has the question from the history and the answer from its first word, each word once."""
    room = room_of("words")
    first = open_chat(room)
    first.do("say", text="Count")
    first.until_words(20)
    second = open_chat(room)
    shown = second.until(whole)
    assert shown.texts == [("user", "Count"), ("assistant", words(80))]
    assert all(words(80).startswith(text or "") for _status, text in shown.seen)
    first.until(whole)
    settled(agents_server, room, first, second)


@shows("Cloudflare Agents", "stop")
def test_stop(open_chat: OpenChat, agents_server: Served, room_of: Callable[[str], str]) -> None:
    """What was said stays, in every tab and in the room."""
    room = room_of("long")
    tab, other = open_chat(room), open_chat(room)
    tab.do("say", text="Count")
    tab.until_words(10)
    tab.do("stop")
    other.until(lambda shown: shown.ready and shown.answer)
    shown = tab.until(lambda shown: shown.ready)
    settled(agents_server, room, tab, other)
    assert words(400).startswith(shown.answer)
    assert 10 <= len(shown.answer.split()) < 400
    settled(agents_server, room, tab)


def test_another_tab_stops(open_chat: OpenChat, room_of: Callable[[str], str]) -> None:
    """One that was opened amid the answer, too."""
    room = room_of("long")
    asking = open_chat(room)
    asking.do("say", text="Count")
    asking.until_words(5)
    other = open_chat(room)
    other.until_words(5)
    other.do("stop")
    shown = asking.until(lambda shown: shown.ready)
    assert len(shown.answer.split()) < 400


@shows("Cloudflare Agents", "regenerate")
def test_regenerate(open_chat: OpenChat, agents_server: Served, room_of: Callable[[str], str]) -> None:
    """One question, one answer, another id than before, everywhere."""
    room = room_of("quick")
    tab, other = open_chat(room), open_chat(room)
    tab.do("say", text="Count")
    before = tab.until_ready().messages[-1]["id"]
    tab.do("regenerate")
    shown = tab.until(lambda shown: shown.ready and shown.answer and shown.messages[-1]["id"] != before)
    assert shown.texts == [("user", "Count"), ("assistant", words(10))]
    settled(agents_server, room, tab, other)


def test_regenerate_cuts_what_came_after(open_chat: OpenChat, room_of: Callable[[str], str]) -> None:
    """An earlier answer: all that was said since goes."""
    room = room_of("echo")
    tab, other = open_chat(room), open_chat(room)
    tab.do("say", text="one")
    answer = tab.until_ready().messages[1]["id"]
    tab.do("say", text="two")
    tab.until_ready(2)
    tab.do("regenerate", messageId=answer)
    shown = tab.until(lambda shown: shown.ready and len(shown.messages) == 2 and shown.messages[1]["id"] != answer)
    assert shown.texts == [("user", "one"), ("assistant", "You said: one")]
    other.until(lambda other: other.messages == shown.messages)


def test_an_edited_message_is_answered_anew(open_chat: OpenChat, room_of: Callable[[str], str]) -> None:
    """All that came after it goes, here and there."""
    room = room_of("echo")
    tab, other = open_chat(room), open_chat(room)
    tab.do("say", text="one")
    question = tab.until_ready().messages[0]["id"]
    tab.do("say", text="two")
    tab.until_ready(2)
    tab.do("say", text="three", messageId=question)
    shown = tab.until(lambda shown: shown.ready and shown.answer == "You said: three")
    assert shown.texts == [("user", "three"), ("assistant", "You said: three")]
    other.until(lambda other: other.messages == shown.messages)


@shows("Cloudflare Agents", "error")
def test_a_model_s_error_is_the_client_s(open_chat: OpenChat, room_of: Callable[[str], str]) -> None:
    """The reason is told, the words so far stay, a page that is opened afterwards knows it too; regenerate helps."""
    room = room_of("broken")
    tab = open_chat(room)
    tab.do("say", text="Please")
    shown = tab.until(lambda shown: shown.status == "error")
    assert shown.error == "scripted failure after 8 pieces"
    tab.until(lambda shown: shown.answer == words(8))
    late = open_chat(room).until(lambda shown: shown.status == "error" and shown.answer == words(8))
    assert late.error == "scripted failure after 8 pieces"
    tab.do("regenerate")
    assert tab.until_ready().texts == [("user", "Please"), ("assistant", words(10))]


def test_a_refusal_is_the_client_s_error(
    open_chat: OpenChat, agents_server: Served, room_of: Callable[[str], str]
) -> None:
    """A message above the limit: an error that says so; the room goes on."""
    room = room_of("echo")
    tab = open_chat(room)
    tab.do("say", text="x" * 1_048_577)
    shown = tab.until(lambda shown: shown.status == "error")
    assert "message_bytes_max" in (shown.error or "")
    assert stored(agents_server, room) == []
    tab.do("say", text="short")
    tab.until(lambda shown: shown.ready and shown.answer == "You said: short")


def test_clear(open_chat: OpenChat, agents_server: Served, room_of: Callable[[str], str]) -> None:
    """Every tab and the room are empty."""
    room = room_of("echo")
    tab, other = open_chat(room), open_chat(room)
    tab.do("say", text="one")
    tab.until_ready()
    other.until_ready()
    tab.do("clear")
    other.until(lambda shown: shown.messages == [])
    assert stored(agents_server, room) == tab.shown().messages == []
    tab.do("say", text="two")
    assert tab.until_ready().texts == other.until_ready().texts == [("user", "two"), ("assistant", "You said: two")]


def test_set_messages(open_chat: OpenChat, agents_server: Served, room_of: Callable[[str], str]) -> None:
    """The list takes the place of the conversation, everywhere."""
    room = room_of("echo")
    tab, other = open_chat(room), open_chat(room)
    tab.do("say", text="one")
    kept = tab.until_ready().messages[:1]
    tab.do("set-messages", messages=kept)
    other.until(lambda shown: shown.messages == kept)
    assert stored(agents_server, room) == kept


@shows("Cloudflare Agents", "history")
def test_history_after_a_reload(open_chat: OpenChat, agents_server: Served, room_of: Callable[[str], str]) -> None:
    """A page that opens has the messages, by its hook and by ``getAgentMessages``."""
    room = room_of("echo")
    tab = open_chat(room)
    tab.do("say", text="one")
    messages = tab.until_ready().messages
    tab.close()
    again = open_chat(room)
    assert again.until_ready().messages == messages
    again.do("history", key="all", url=agents_server.url, agent="TalkRoom", name=room)
    assert again.until(lambda shown: "all" in shown.results).results["all"] == {"value": messages}
    again.do("history", key="none", url=agents_server.url, agent="TalkRoom", name=room_of("echo"))
    assert again.until(lambda shown: "none" in shown.results).results["none"] == {"value": []}


def test_how_turns_end_is_told(open_chat: OpenChat, cloudflare: Cloudflare, room_of: Callable[[str], str]) -> None:
    """Newer clients have an event for it, with the reason of a failure; every tab has it."""
    if cloudflare.sdk == "pinned":
        pytest.skip("agents 0.21.0 has no onTurnEnd")
    ends = []
    for script in ("quick", "long", "broken"):
        room = room_of(script)
        asking, watching = open_chat(room), open_chat(room)
        asking.do("say", text="Count")
        if script == "long":
            asking.until_words(3)
            asking.do("stop")
        ends += [tab.until(lambda shown: shown.told("turn")).told("turn") for tab in (asking, watching)]
    failed = ["error", "scripted failure after 8 pieces", False]
    completed, aborted = ["completed", None, False], ["aborted", None, False]
    assert ends == [[completed], [completed], [aborted], [aborted], [failed], [failed]]
