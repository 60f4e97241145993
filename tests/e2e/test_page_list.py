"""The chat page: what every resumable chat has to show, by the names that such lists give it."""

from __future__ import annotations

from collections.abc import Callable

from tests.client_matrix import shows
from tests.e2e.conftest import OpenTab
from tests.e2e.tab import words

RoomOf = Callable[[str], str]


def test_basic_chat_functionality(open_tab: OpenTab, room_of: RoomOf) -> None:
    """A question, its answer, and the next ones."""
    tab = open_tab(room_of("echo"))
    for number, text in enumerate(("Hello", "And again"), 1):
        tab.say(text)
        tab.wait_settled(number)
    assert tab.texts() == [
        ("user", "Hello"),
        ("assistant", "You said: Hello"),
        ("user", "And again"),
        ("assistant", "You said: And again"),
    ]


def test_mid_stream_page_refresh(open_tab: OpenTab, room_of: RoomOf) -> None:
    """The answer goes on where it was: no word is missing, none comes twice, none is gone for a moment."""
    tab = open_tab(room_of("words"))
    tab.say("Count")
    tab.wait_for_words(15)
    tab.reload()
    assert tab.status() == "streaming"
    tab.wait_settled()
    assert tab.answers() == [words(80)]
    tab.assert_only_grew_to(words(80))


def test_follow_up_message_streaming(open_tab: OpenTab, room_of: RoomOf) -> None:
    """The second answer streams for itself; the first one is not touched."""
    tab = open_tab(room_of("brief"))
    tab.say("First")
    tab.wait_settled()
    first = tab.page.query_selector(".assistant")
    assert first is not None
    first.evaluate("node => { node.mine = true; node.before = node.innerHTML; }")
    tab.page.evaluate("seenTexts.length = 0")
    tab.say("Second")
    tab.page.wait_for_function("() => document.querySelectorAll('#log .assistant').length === 2")
    tab.wait_for_words(10)
    assert tab.status() == "streaming"
    tab.wait_settled(2)
    assert tab.answers() == [words(40), words(40)]
    assert first.evaluate("node => node.mine && node.isConnected && node.innerHTML === node.before") is True
    assert words(40).startswith(tab.seen("streaming")[-1])


@shows("page", "tool")
def test_tool_call_rendering(open_tab: OpenTab, room_of: RoomOf) -> None:
    """The call with its input, what it says on its way, its output; the same again after a reload."""
    tab = open_tab(room_of("weather"))
    page = tab.page
    tab.say("How is it in Lisbon?")
    page.wait_for_selector(".tool[data-preliminary]")
    assert page.inner_text(".tool-state") == "Running…"
    assert page.text_content(".tool-output") == '{\n  "progress": "asking about Lisbon"\n}'
    page.wait_for_selector(".tool[data-state=output-available]:not([data-preliminary])")
    tab.wait_settled()
    page.click(".tool summary")
    drawn = page.inner_text(".assistant .parts")
    for text in ('"city": "Lisbon"', '"degrees": 21', "In Lisbon it is 21 degrees and sunny."):
        assert text in drawn
    tab.picture("tool")
    html = page.inner_html(".assistant .parts")
    tab.reload()
    page.click(".tool summary")
    assert page.inner_text(".assistant .parts") == drawn
    assert same(page.inner_html(".assistant .parts")) == same(html)


def same(html: str) -> str:
    """HTML without a template's line breaks, and without what is open or measured."""
    return "".join(html.split()).replace('open=""', "").replace('style=""', "")


def test_content_replay(open_tab: OpenTab, room_of: RoomOf) -> None:
    """Whoever comes later, with a tool at work, sees all that was said so far, then the rest."""
    room = room_of("weather")
    first = open_tab(room)
    first.say("How is it in Porto?")
    first.page.wait_for_selector(".tool[data-preliminary]")
    second = open_tab(room)
    second.page.wait_for_selector(".tool")
    assert second.page.text_content(".tool-input") == '{\n  "city": "Porto"\n}'
    first.wait_settled()
    second.wait_settled()
    assert first.texts() == second.texts()
    assert same(first.page.inner_html(".assistant .parts")) == same(second.page.inner_html(".assistant .parts"))
    first.reload()
    assert first.texts() == second.texts()
