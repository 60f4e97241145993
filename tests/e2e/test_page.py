"""The chat page, served by a real server, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.client_matrix import shows
from tests.e2e.conftest import OpenTab
from tests.e2e.tab import words

RoomOf = Callable[[str], str]


@shows("page", "send")
def test_a_message_is_answered(open_tab: OpenTab, room_of: RoomOf) -> None:
    """The first message of a new room, word by word to its end."""
    tab = open_tab(room_of("words"))
    tab.say("Count for me")
    tab.wait_for_words(3)
    assert tab.status() == "streaming"
    tab.picture("streaming")
    tab.wait_settled()
    assert tab.texts() == [("user", "Count for me"), ("assistant", words(80))]
    tab.assert_only_grew_to(words(80))


@shows("page", "resume")
def test_a_reload_amid_an_answer_goes_on(open_tab: OpenTab, room_of: RoomOf) -> None:
    """The text that was seen is there again at once, and every word comes once."""
    tab = open_tab(room_of("words"))
    tab.say("Count")
    tab.wait_for_words(20)
    tab.reload()
    tab.wait_for_words(40)
    tab.reload()
    assert tab.status() == "streaming"
    tab.wait_settled()
    assert tab.texts() == [("user", "Count"), ("assistant", words(80))]
    tab.assert_only_grew_to(words(80))


def test_a_second_tab_shows_the_same(open_tab: OpenTab, room_of: RoomOf) -> None:
    """Opened amid an answer; both end with the same words."""
    room = room_of("words")
    first = open_tab(room)
    first.say("Count")
    first.wait_for_words(20)
    second = open_tab(room, beside=first)
    first.wait_settled()
    second.wait_settled()
    assert first.texts() == second.texts() == [("user", "Count"), ("assistant", words(80))]
    second.assert_only_grew_to(words(80))


def test_two_people_see_each_other(open_tab: OpenTab, room_of: RoomOf) -> None:
    """With their names, at once, and both see the answers."""
    room = room_of("echo")
    ada = open_tab(room, name="Ada")
    bob = open_tab(room, name="Bob")
    ada.say("Hello Bob")
    bob.page.wait_for_selector(".theirs .bubble:has-text('Hello Bob')")
    assert bob.page.inner_text(".theirs .who") == "Ada"
    bob.wait_settled(1)
    bob.say("Hello Ada")
    ada.page.wait_for_selector(".theirs .bubble:has-text('Hello Ada')")
    assert ada.page.inner_text(".theirs .who") == "Bob"
    ada.wait_settled(2)
    bob.wait_settled(2)
    assert (
        ada.texts()
        == bob.texts()
        == [
            ("user", "Hello Bob"),
            ("assistant", "You said: Hello Bob"),
            ("user", "Hello Ada"),
            ("assistant", "You said: Hello Ada"),
        ]
    )
    assert ada.page.locator(".user:not(.theirs)").count() == 1
    ada.picture("two-people")


def test_a_follow_up_during_an_answer_waits_its_turn(open_tab: OpenTab, room_of: RoomOf) -> None:
    """It is shown at once, and answered after the running answer."""
    tab = open_tab(room_of("brief"))
    tab.say("First")
    tab.wait_for_words(10)
    tab.say("Second")
    tab.page.wait_for_selector(".user:not([data-pending]) .bubble:has-text('Second')")
    assert tab.status() == "streaming"
    tab.wait_settled(2)
    assert tab.texts() == [
        ("user", "First"),
        ("assistant", words(40)),
        ("user", "Second"),
        ("assistant", words(40)),
    ]


@shows("page", "stop", "history")
def test_a_stop_from_another_tab_stops_for_all(open_tab: OpenTab, room_of: RoomOf) -> None:
    """What was said stays, in both; nothing more comes."""
    room = room_of("slow")
    asking = open_tab(room)
    watching = open_tab(room)
    asking.say("Count")
    watching.wait_for_words(10)
    watching.page.click("#stop")
    asking.page.wait_for_selector(".assistant[data-status=aborted] .outcome:has-text('Stopped')")
    watching.wait_settled()
    stopped = asking.answers()
    assert watching.answers() == stopped
    assert words(80).startswith(stopped[0])
    assert 10 <= len(stopped[0].split()) < 80
    asking.page.wait_for_timeout(100)
    assert asking.answers() == stopped
    asking.reload()
    assert asking.answers() == stopped
    assert asking.status() == "aborted"


@shows("page", "error")
def test_a_failed_answer_says_why_and_can_be_tried_again(open_tab: OpenTab, room_of: RoomOf) -> None:
    """The failed attempt goes, a new one comes."""
    tab = open_tab(room_of("broken"))
    tab.say("Please")
    tab.page.wait_for_selector(".assistant[data-status=failed]")
    assert tab.page.inner_text(".assistant .outcome-text") == "scripted failure after 8 pieces"
    assert tab.answers() == [words(8)]
    tab.picture("error")
    tab.page.click(".retry")
    tab.page.wait_for_selector(".assistant[data-status=complete]")
    assert tab.texts() == [("user", "Please"), ("assistant", words(10))]


def test_a_failed_answer_is_still_told_after_a_reload(open_tab: OpenTab, room_of: RoomOf) -> None:
    """With its words, its reason and its button."""
    tab = open_tab(room_of("broken"))
    tab.say("Please")
    tab.page.wait_for_selector(".assistant[data-status=failed]")
    tab.reload()
    assert tab.page.inner_text(".assistant .outcome-text") == "scripted failure after 8 pieces"
    assert tab.page.is_visible(".retry")
    assert tab.answers() == [words(8)]


def test_a_message_that_the_server_refuses_is_kept(open_tab: OpenTab, room_of: RoomOf) -> None:
    """A message above the limit is told to its sender, who still has the words; the room goes on."""
    tab = open_tab(room_of("echo"))
    tab.page.evaluate("app.dataset.messageBytesMax = '9000000'")
    tab.page.evaluate("draft.value = 'x'.repeat(1_048_577)")
    tab.page.press("#draft", "Enter")
    tab.page.wait_for_selector(".outcome-text:has-text('Not sent: ')")
    tab.page.click(".discard")
    tab.say("short")
    tab.wait_settled()
    assert tab.texts() == [("user", "short"), ("assistant", "You said: short")]


def test_markdown_settles_without_a_change_of_text(open_tab: OpenTab, room_of: RoomOf) -> None:
    """Between the last streamed frame and the settled one no text changes; the code gets its colours."""
    tab = open_tab(room_of("code"))
    tab.say("Explain generators")
    tab.page.wait_for_selector(".code code:has-text('yield')")
    tab.picture("streaming-code")
    tab.page.wait_for_selector(".code .hl-k")
    tab.picture("settled-code")
    assert len(set(map(visible, tab.seen("complete")))) == 1
    assert visible(tab.answers()[0]).startswith(visible(tab.seen("streaming")[-1]))
    assert tab.page.inner_text(".code code").rstrip().endswith("yield number  # and waits here")
    assert tab.page.locator(".assistant table tr").count() == 3
    settled = tab.page.inner_html(".assistant .body")
    tab.reload()
    assert without_gaps(tab.page.inner_html(".assistant .body")) == without_gaps(settled)


def visible(text: str) -> str:
    """The text without the line breaks between blocks, which a page does not show."""
    return "".join(text.split())


def without_gaps(html: str) -> str:
    """HTML without the line breaks between blocks."""
    return re.sub(r">\s+<", "><", html).strip()


def test_the_keyboard_is_enough(open_tab: OpenTab, room_of: RoomOf) -> None:
    """From the list of rooms to a stopped answer and its second attempt, without a mouse."""
    room = room_of("slow")
    tab = open_tab(room)
    page = tab.page
    page.goto(page.url.partition("/chat/")[0])
    page.focus("#room")
    page.keyboard.type(room)
    page.keyboard.press("Enter")
    tab.wait_online()
    assert page.evaluate("document.activeElement.id") == "draft"
    page.keyboard.type("Count")
    page.keyboard.press("Enter")
    tab.wait_for_words(3)
    page.keyboard.press("Escape")
    page.wait_for_selector(".assistant[data-status=aborted]")
    for _ in range(8):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.className") == "retry":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(".assistant[data-status=streaming]")
    tab.wait_for_words(3)
    page.focus("#stop")
    page.keyboard.press("Enter")
    page.wait_for_selector(".assistant[data-status=aborted]")
    assert page.evaluate("document.activeElement.id") == "draft"
