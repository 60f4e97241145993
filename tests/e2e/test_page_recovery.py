"""The chat page when the network or the server goes away: nothing that was seen is lost."""

from __future__ import annotations

from collections.abc import Callable

from tests.client_matrix import shows
from tests.e2e.conftest import OpenTab
from tests.e2e.line import Line
from tests.e2e.served import Served
from tests.e2e.tab import Tab, words

RoomOf = Callable[[str], str]


def test_an_answer_goes_on_after_the_network_was_cut(open_tab: OpenTab, room_of: RoomOf, line: Line) -> None:
    """The answer grew meanwhile; what was missed comes, each word once."""
    tab = open_tab(room_of("words"), url=line.url)
    tab.say("Count")
    tab.wait_for_words(20)
    line.cut()
    tab.page.wait_for_selector("#app[data-connection=offline]")
    tab.page.wait_for_timeout(300)
    line.mend()
    tab.wait_settled()
    assert tab.texts() == [("user", "Count"), ("assistant", words(80))]
    tab.assert_only_grew_to(words(80))


def test_an_answer_survives_a_line_that_breaks_again_and_again(
    open_tab: OpenTab, room_of: RoomOf, line: Line
) -> None:
    """Five cuts amid one answer, each word once."""
    tab = open_tab(room_of("words"), url=line.url)
    tab.say("Count")
    for number in range(5):
        tab.wait_for_words(5 + 10 * number)
        line.drop()
    tab.wait_settled()
    assert tab.answers() == [words(80)]
    tab.assert_only_grew_to(words(80))


def test_an_answer_that_ended_meanwhile_is_there(open_tab: OpenTab, room_of: RoomOf, line: Line) -> None:
    """Away for longer than the answer takes; another person's message is there, too."""
    room = room_of("brief")
    away = open_tab(room, url=line.url)
    here = open_tab(room, name="Ada")
    away.say("Count")
    away.wait_for_words(20)
    line.cut()
    here.say("And again")
    here.wait_settled(2)
    line.mend()
    away.wait_settled(2)
    assert away.texts() == here.texts()
    assert away.answers() == [words(40), words(40)]


def test_a_message_that_was_written_without_a_network_is_sent(open_tab: OpenTab, room_of: RoomOf, line: Line) -> None:
    """The banner says what is the matter; the message goes when the line is back, once."""
    tab = open_tab(room_of("echo"), url=line.url)
    line.cut()
    tab.page.wait_for_selector("#banner", state="visible")
    tab.say("Are you there?")
    assert tab.page.get_attribute("#log .user", "data-pending") == ""
    tab.picture("reconnecting")
    line.mend()
    tab.page.dispatch_event("#reconnect", "click")  # it may be gone: the page tries again by itself, too
    tab.wait_settled()
    assert tab.texts() == [("user", "Are you there?"), ("assistant", "You said: Are you there?")]
    assert tab.page.is_hidden("#banner")


def test_the_banner_covers_no_message(open_tab: OpenTab, room_of: RoomOf, line: Line) -> None:
    """On a phone with a short conversation, the first message moves below it."""
    tab = open_tab(room_of("echo"), url=line.url)
    tab.page.set_viewport_size({"width": 390, "height": 844})
    tab.say("A first message that is long enough to be as wide as the screen")
    tab.wait_settled()
    line.cut()
    tab.page.wait_for_selector("#banner", state="visible")
    assert tab.page.evaluate(
        "banner.getBoundingClientRect().bottom <= document.querySelector('.bubble').getBoundingClientRect().top"
    )


def _cut_off_amid_an_answer(tab: Tab, end: Callable[[], None], start: Callable[[], None]) -> None:
    tab.say("Count")
    tab.wait_for_words(30)
    end()
    tab.page.wait_for_selector("#app[data-connection=offline]")
    start()
    tab.wait_settled()
    assert tab.texts() == [("user", "Count"), ("assistant", words(80))]
    assert tab.status() == "complete"
    tab.assert_only_grew_to(words(80))


@shows("page", "crash")
def test_a_killed_server_goes_on_with_the_answer(open_tab: OpenTab, mortal: Served) -> None:
    """``kill -9`` amid the answer, then a restart: the page comes back by itself, each word once."""
    tab = open_tab("words-killed", url=mortal.url)
    _cut_off_amid_an_answer(tab, mortal.kill, mortal.start)


def test_a_stopped_server_goes_on_with_the_answer(open_tab: OpenTab, mortal: Served) -> None:
    """A planned restart amid the answer: the same, each word once."""
    tab = open_tab("words-stopped", url=mortal.url)
    _cut_off_amid_an_answer(tab, mortal.stop, mortal.start)


def test_the_answer_is_completed_with_nobody_watching(open_tab: OpenTab, mortal: Served) -> None:
    """Killed and restarted while the tab is closed: no request is needed to go on."""
    tab = open_tab("words-alone", url=mortal.url)
    tab.say("Count")
    tab.wait_for_words(60)
    tab.page.goto("about:blank")
    mortal.restart_after_kill()
    tab.page.wait_for_timeout(600)
    tab.page.goto(f"{mortal.url}/chat/words-alone")
    assert tab.status() == "complete"
    assert tab.answers() == [words(80)]


def test_a_question_that_waited_is_answered_after_a_kill(open_tab: OpenTab, mortal: Served) -> None:
    """Two messages, killed amid the first answer: both are answered, in order."""
    tab = open_tab("brief-waiting", url=mortal.url)
    tab.say("First")
    tab.wait_for_words(10)
    tab.say("Second")
    tab.page.wait_for_selector(".user:not([data-pending]) .bubble:has-text('Second')")
    mortal.restart_after_kill()
    tab.wait_settled(2)
    assert tab.texts() == [
        ("user", "First"),
        ("assistant", words(40)),
        ("user", "Second"),
        ("assistant", words(40)),
    ]
