"""Tools and approvals with `useAgentChat`: the server's, the browser's, and those that a person must agree to."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.client_matrix import shows
from tests.e2e.cloudflare import Cloudflare, OpenChat, Shown, settled
from tests.e2e.served import Served

RoomOf = Callable[[str], str]


def said(result: str) -> str:
    """The answer's whole text."""
    return f"Let me see. It said {result}: " + "".join(f"word{number} " for number in range(1, 21))


def ended(result: str) -> Callable[[Shown], bool]:
    """Whether the answer tells the result, to its end."""
    return lambda shown: shown.ready and shown.answer == said(result)


def assert_called(cloudflare: Cloudflare, shown: Shown, call: list[Any]) -> None:
    """The page was asked to carry out this call, once; agents 0.21.0 may ask it again (the first result counts)."""
    calls = shown.told("tool")
    assert calls == [call] * (len(calls) if cloudflare.sdk == "pinned" else 1)


@shows("Cloudflare Agents", "tool")
def test_a_tool_on_the_server(open_chat: OpenChat, agents_server: Served, room_of: RoomOf) -> None:
    """Its call and its result are parts of the answer, in every tab."""
    room = room_of("add")
    tab, other = open_chat(room), open_chat(room)
    tab.do("say", text="Go")
    shown = tab.until(ended("3"))
    [part] = shown.parts("tool-add")
    assert (part["state"], part["input"], part["output"]) == ("output-available", {"a": 1, "b": 2}, 3)
    settled(agents_server, room, tab, other)


@shows("Cloudflare Agents", "client tool")
def test_a_tool_in_the_browser(
    cloudflare: Cloudflare, open_chat: OpenChat, agents_server: Served, room_of: RoomOf
) -> None:
    """`onToolCall` gives its result, and the answer goes on by itself."""
    room = room_of("where")
    tab, other = open_chat(room, tool="Paris"), open_chat(room)
    tab.do("say", text="Go")
    shown = tab.until(ended("Paris"))
    assert_called(cloudflare, shown, ["where", {}])
    assert [role for role, _text in shown.texts] == ["user", "assistant"]
    [part] = shown.parts("tool-where")
    assert (part["state"], part["output"]) == ("output-available", "Paris")
    settled(agents_server, room, tab, other)
    assert ended("Paris")(other.shown())


def test_a_tool_that_the_browser_brings(cloudflare: Cloudflare, open_chat: OpenChat, room_of: RoomOf) -> None:
    """Its schema comes with the request."""
    tool = {"name": "brought", "description": "Ask the page", "parameters": {"type": "object", "properties": {}}}
    tab = open_chat(room_of("brought"), tool=7, body={"clientTools": [tool]})
    tab.do("say", text="Go")
    shown = tab.until(ended("7"))
    assert_called(cloudflare, shown, ["brought", {"question": "which"}])


def test_two_tabs_that_give_a_result(open_chat: OpenChat, agents_server: Served, room_of: RoomOf) -> None:
    """Both carry the tool out; the first result counts, and the answer goes on once."""
    room = room_of("where")
    tabs = [open_chat(room, tool=place) for place in ("Paris", "Rome")]
    tabs[0].do("say", text="Go")
    ends = [tab.until(lambda shown: ended("Paris")(shown) or ended("Rome")(shown)) for tab in tabs]
    assert ends[0].answer == ends[1].answer
    assert len(ends[0].messages) == 2
    settled(agents_server, room, *tabs)


def test_a_tool_that_fails_in_the_browser(open_chat: OpenChat, agents_server: Served, room_of: RoomOf) -> None:
    """The reason is its result. The client does not ask to go on then; the next request does."""
    room = room_of("where")
    tab = open_chat(room)
    tab.do("say", text="Go")
    part = tab.until(lambda shown: shown.ready and shown.parts("tool-where")).parts("tool-where")[0]
    tab.do("tool-output", toolCallId=part["toolCallId"], toolName="where", state="output-error", errorText="no GPS")
    # The page shows it before it has sent it.
    tab.until(lambda _: "no GPS" in json.dumps(agents_server.get(f"/api/chat/{room}/messages")))
    tab.do("say")
    shown = tab.until(ended("no GPS"))
    assert shown.parts("tool-where")[0]["errorText"] == "no GPS"
    assert len(shown.messages) == 2


def test_an_approval(open_chat: OpenChat, agents_server: Served, room_of: RoomOf) -> None:
    """The turn waits; another tab agrees; the tool runs once, and both tabs see the rest."""
    room = room_of("launch")
    asking, other = open_chat(room), open_chat(room)
    asking.do("say", text="Go")
    part = other.until(lambda shown: shown.ready and shown.parts("tool-launch")).parts("tool-launch")[0]
    assert part["state"] == "approval-requested"
    asking.until(lambda shown: shown.ready and shown.parts("tool-launch"))
    other.do("approve", id=part["approval"]["id"], approved=True)
    shown = other.until(ended("R7 flies, launch 1"))
    assert shown.parts("tool-launch")[0]["state"] == "output-available"
    asking.until(ended("R7 flies, launch 1"))
    settled(agents_server, room, asking, other)
    assert agents_server.post(f"/rpc/TalkRoom/{room}/launched", []) == {"result": 1}


def test_a_denial(open_chat: OpenChat, agents_server: Served, room_of: RoomOf) -> None:
    """The tool does not run; the answer tells so."""
    room = room_of("launch")
    tab = open_chat(room)
    tab.do("say", text="Go")
    part = tab.until(lambda shown: shown.ready and shown.parts("tool-launch")).parts("tool-launch")[0]
    tab.do("approve", id=part["approval"]["id"], approved=False)
    shown = tab.until(ended("output-denied"))
    assert shown.parts("tool-launch")[0]["state"] == "output-denied"
    assert agents_server.post(f"/rpc/TalkRoom/{room}/launched", []) == {"result": 0}


@shows("Cloudflare Agents", "approval")
def test_an_approval_after_the_server_was_killed(cloudflare: Cloudflare, mortal_agents: Served) -> None:
    """The turn waits over the kill; a page that is opened afterwards agrees, and the tool runs once."""
    tab = cloudflare.open("chat", mortal_agents.url, "TalkRoom", "launch-1")
    tab.until_identified()
    tab.do("say", text="Go")
    tab.until(lambda shown: shown.ready and shown.parts("tool-launch"))
    mortal_agents.restart_after_kill()
    tab.close()
    again = cloudflare.open("chat", mortal_agents.url, "TalkRoom", "launch-1")
    part = again.until(lambda shown: shown.identified and shown.parts("tool-launch")).parts("tool-launch")[0]
    assert part["state"] == "approval-requested"
    again.do("approve", id=part["approval"]["id"], approved=True)
    shown = again.until(ended("R7 flies, launch 1"))
    assert len(shown.messages) == 2
    assert mortal_agents.post("/rpc/TalkRoom/launch-1/launched", []) == {"result": 1}


def test_other_questions_while_an_answer_waits(open_chat: OpenChat, agents_server: Served, room_of: RoomOf) -> None:
    """They are answered, and the waiting answer goes on in its place when someone agrees."""
    room = room_of("launch")
    tab, other = open_chat(room), open_chat(room)
    tab.do("say", text="Go")
    part = tab.until(lambda shown: shown.ready and shown.parts("tool-launch")).parts("tool-launch")[0]
    tab.do("say", text="And again")
    tab.until(lambda shown: shown.ready and len(shown.messages) == 4)
    tab.do("approve", id=part["approval"]["id"], approved=True)
    shown = tab.until(lambda shown: shown.ready and shown.texts[1] == ("assistant", said("R7 flies, launch 1")))
    assert shown.texts[2:] == [("user", "And again"), ("assistant", "Let me see. ")]
    settled(agents_server, room, tab, other)
