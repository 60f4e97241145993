"""The chat page with all that an answer may hold: thoughts, tools that ask, files, versions; and who is here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.client_matrix import shows
from tests.e2e.conftest import OpenTab
from tests.e2e.served import Served
from tests.e2e.tab import Tab

RoomOf = Callable[[str], str]

PICTURE = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="6"><rect width="9" height="6"/></svg>'
WAITING = ".assistant[data-status=waiting]"
COMPLETE = ".assistant[data-status=complete]"


# --- tools that need someone


@shows("page", "approval")
def test_an_approval_outlives_the_server(open_tab: OpenTab, mortal: Served) -> None:
    """It waits over a kill; a click lets the tool do its work, once, and the answer goes on below it."""
    tab = open_tab("refund-1", url=mortal.url)
    page = tab.page
    tab.say("Refund order 17")
    page.wait_for_selector(WAITING)
    assert page.inner_text(".tool-state") == "Needs approval"
    assert page.is_visible("text=May this be done?")
    tab.picture("approval")
    mortal.restart_after_kill()
    tab.wait_online()
    other = open_tab("refund-1", url=mortal.url)
    assert other.page.is_visible(".approve")
    page.click(".approve")
    for each in (tab, other):
        each.page.wait_for_selector(COMPLETE)
        assert each.page.is_hidden(".tool-ask")
        assert each.answers() == ['Let me ask refund.\nrefund says: {"order": 17, "refunds": 1}.']
    mortal.restart_after_kill()
    tab.wait_online()
    tab.reload()
    assert tab.page.inner_text(".tool-state") == "Done"


def test_what_was_refused_is_not_done(open_tab: OpenTab, room_of: RoomOf) -> None:
    """For all who look; the room is not held up meanwhile."""
    room = room_of("refund")
    asking, deciding = open_tab(room), open_tab(room)
    asking.say("Refund order 3")
    deciding.page.wait_for_selector(WAITING)
    deciding.page.click(".refuse")
    for tab in (asking, deciding):
        tab.page.wait_for_selector(COMPLETE)
        assert tab.page.inner_text(".tool-state") == "Refused"
        assert tab.answers() == ["Let me ask refund.\nYou did not allow refund, so I cannot say."]


@shows("page", "client tool")
def test_a_tool_of_the_clients_is_answered_by_hand(open_tab: OpenTab, room_of: RoomOf) -> None:
    """By keyboard; the result is text, or JSON where it is some."""
    tab = open_tab(room_of("locate"))
    page = tab.page
    tab.say("Where am I?")
    page.wait_for_selector(WAITING)
    assert page.inner_text(".tool-state") == "Waits for a result"
    tab.picture("client-tool")
    page.focus(".tool-give input")
    page.keyboard.type('{"city": "Lisbon"}')
    page.keyboard.press("Enter")
    page.wait_for_selector(COMPLETE)
    assert page.text_content(".tool-output") == '{\n  "city": "Lisbon"\n}'
    assert tab.answers() == ['Let me ask locate.\nlocate says: {"city": "Lisbon"}.']


def test_a_tool_that_failed_says_why(open_tab: OpenTab, room_of: RoomOf) -> None:
    """The answer goes on, and can tell."""
    tab = open_tab(room_of("fragile"))
    tab.say("Lisbon")
    tab.page.wait_for_selector(COMPLETE)
    assert tab.page.inner_text(".tool-state") == "Failed"
    assert tab.page.inner_text(".tool-error") == "there is no line to Lisbon"
    tab.picture("tool-error")


# --- everything else in an answer


def test_thoughts_are_folded(open_tab: OpenTab, room_of: RoomOf) -> None:
    """While they are thought and afterwards, until someone unfolds them, by mouse or by key."""
    tab = open_tab(room_of("tour"))
    page = tab.page
    tab.say("Show me Lisbon")
    page.wait_for_selector(".reasoning")
    assert page.is_hidden(".reasoning-text")
    tab.wait_settled()
    assert page.inner_text(".reasoning-label") == "Thoughts"
    assert page.is_hidden(".reasoning-text")
    page.focus(".reasoning summary")
    page.keyboard.press("Enter")
    assert page.inner_text(".reasoning-text").startswith("They want to see everything")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_all_kinds_of_parts_fit(open_tab: OpenTab, room_of: RoomOf, width: int, scheme: str) -> None:
    """Sources together at the end, a picture, data; as the server draws it, and nothing wider than the screen."""
    tab = open_tab(room_of("tour"), name="Ada Lovelace")
    page = tab.page
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    tab.say("Show me Lisbon")
    page.wait_for_selector(".tool")
    tab.picture(f"parts-{width}-{scheme}-streaming")
    tab.wait_settled()
    kinds = "[...document.querySelectorAll('.assistant .parts > *')].map((each) => each.dataset.kind)"
    expected = ["reasoning", "text", "tool", "data", "text", "picture", "text", "sources"]
    assert page.evaluate(kinds) == expected
    assert page.eval_on_selector_all(".sources li", "all => all.map((each) => each.textContent)") == [
        "Weather",
        "A short history of weather",
    ]
    assert page.get_attribute(".sources a", "href") == "https://en.wikipedia.org/wiki/Weather"
    assert page.evaluate("document.querySelector('.picture img').naturalWidth") == 16
    assert page.text_content(".usage") == "46 tokens"
    tab.picture(f"parts-{width}-{scheme}")
    widths = page.evaluate("[innerWidth, document.documentElement.scrollWidth, scroller.scrollWidth]")
    assert max(widths) == widths[0]
    tab.reload()
    assert page.evaluate(kinds) == expected
    assert page.text_content(".usage") == "46 tokens"


def test_files_go_with_a_message(open_tab: OpenTab, room_of: RoomOf, tmp_path: Path) -> None:
    """Shown to all: a picture as one, anything else by name; one that was taken out again is not sent."""
    (tmp_path / "flag.svg").write_bytes(PICTURE)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "other.txt").write_text("no")
    room = room_of("echo")
    tab, other = open_tab(room, name="Ada"), open_tab(room, name="Bob")
    page = tab.page
    page.set_input_files("#files", [tmp_path / name for name in ("flag.svg", "other.txt", "notes.txt")])
    page.click("[aria-label='Remove other.txt']")
    tab.picture("attached")
    tab.say("Look")
    for each in (tab, other):
        each.wait_settled()
        assert each.texts() == [("user", "Look"), ("assistant", "You said: Look")]
        each.page.wait_for_function("() => document.querySelector('.user .picture img')?.naturalWidth === 9")
        assert each.page.inner_text(".user .file-name") == "notes.txt"
    assert page.get_attribute(".user .file a", "href") == "data:text/plain;base64,aGVsbG8="
    assert page.is_hidden("#attached")
    tab.picture("files")


def test_a_large_file_is_uploaded_first(open_tab: OpenTab, room_of: RoomOf, server: Served, tmp_path: Path) -> None:
    """Too large to travel inside of a message; it is there for all under an address of the room."""
    content = b"%PDF-1.4\n" + bytes(range(256)) * 4_000
    (tmp_path / "plan.pdf").write_bytes(content)
    tab = open_tab(room_of("echo"))
    page = tab.page
    page.set_input_files("#files", tmp_path / "plan.pdf")
    page.wait_for_selector("#attached li:not([data-busy])")
    tab.say("The plan")
    tab.wait_settled()
    address = page.get_attribute(".user .file a", "href")
    assert address is not None
    assert address.startswith("/api/chat/echo-")
    with server.open(address) as reply:
        assert reply.read() == content
    tab.reload()
    assert page.inner_text(".user .file-name") == "plan.pdf"


def test_a_file_that_the_room_does_not_take_is_told(open_tab: OpenTab, room_of: RoomOf, tmp_path: Path) -> None:
    """The message is kept, with what was wrong with it."""
    (tmp_path / "program.exe").write_bytes(b"MZ")
    tab = open_tab(room_of("echo"))
    tab.page.set_input_files("#files", tmp_path / "program.exe")
    tab.say("Run this")
    tab.page.wait_for_selector(".user[data-failed] .outcome-text:has-text('this room takes no files of type')")
    tab.page.click(".discard")
    tab.say("Never mind")
    tab.wait_settled()
    assert tab.texts() == [("user", "Never mind"), ("assistant", "You said: Never mind")]


# --- versions


def test_an_edit_leaves_the_earlier_version(open_tab: OpenTab, room_of: RoomOf) -> None:
    """Both versions with what followed them, one click apart, in every tab and after a reload."""
    room = room_of("echo")
    tab, other = open_tab(room), open_tab(room)
    page = tab.page
    tab.say("Good morning")
    tab.wait_settled()
    page.hover(".user")
    page.click(".user .edit")
    tab.picture("editing")
    page.fill(".edit-form textarea", "Good evening")
    page.press(".edit-form textarea", "Enter")
    evening = [("user", "Good evening"), ("assistant", "You said: Good evening")]
    morning = [("user", "Good morning"), ("assistant", "You said: Good morning")]
    for each in (tab, other):
        each.until(lambda each=each: each.texts() == evening)  # type: ignore[misc]
        assert each.page.inner_text(".user .version") == "2/2"
    other.page.click(".user .older-version")
    for each in (tab, other):
        each.until(lambda each=each: each.texts() == morning)  # type: ignore[misc]
        assert each.page.inner_text(".user .version") == "1/2"
    tab.reload()
    assert tab.texts() == morning
    assert page.inner_text(".user .version") == "1/2"
    page.click(".user .newer-version")
    tab.until(lambda: tab.texts() == evening)
    tab.picture("versions")


def test_an_edit_can_be_left(open_tab: OpenTab, room_of: RoomOf) -> None:
    """Escape changes nothing, and the keyboard is where it was."""
    tab = open_tab(room_of("echo"))
    tab.say("Good morning")
    tab.wait_settled()
    page = tab.page
    page.focus(".user .edit")
    page.keyboard.press("Enter")
    page.keyboard.type("!")
    page.keyboard.press("Escape")
    assert page.query_selector(".edit-form") is None
    assert page.evaluate("document.activeElement.className") == "edit"
    assert tab.texts() == [("user", "Good morning"), ("assistant", "You said: Good morning")]


@shows("page", "regenerate")
def test_another_answer_is_another_version(open_tab: OpenTab, room_of: RoomOf) -> None:
    """The first one comes back with a click."""
    tab = open_tab(room_of("quick"))
    page = tab.page
    tab.say("Count")
    tab.wait_settled()
    first = page.get_attribute(".assistant", "data-id")
    page.click(".regenerate")
    page.wait_for_selector(f".assistant[data-status=complete]:not([data-id='{first}'])")
    assert page.inner_text(".assistant .version") == "2/2"
    page.click(".assistant .older-version")
    page.wait_for_selector(f".assistant[data-id='{first}']")
    assert page.inner_text(".assistant .version") == "1/2"
    assert page.locator("#log > article").count() == 2


# --- who is here


def people(tab: Tab) -> list[tuple[str, str]]:
    """The names on the page, with the number of their tabs."""
    found: list[list[str]] = tab.page.eval_on_selector_all(
        "#people > li", "all => all.map((each) => [each.dataset.user ?? each.textContent, each.dataset.tabs ?? ''])"
    )
    return [(name, tabs) for name, tabs in found]


def test_two_tabs_are_one_person(open_tab: OpenTab, room_of: RoomOf) -> None:
    """Who is here, over all their tabs; a reload is no leave, a closed tab is one."""
    room = room_of("echo")
    ada = open_tab(room, name="Ada")
    assert ada.page.is_hidden("#people")
    bob = open_tab(room, name="Bob")
    open_tab(room, beside=bob)
    ada.until(lambda: people(ada) == [("Ada", "1"), ("Bob", "2")])
    bob.until(lambda: people(bob) == [("Ada", "1"), ("Bob", "2")])
    bob.page.evaluate("""() => {
      window.counts = [];
      new MutationObserver(() => counts.push(people.children.length)).observe(people, { childList: true });
    }""")
    ada.reload()
    bob.page.wait_for_timeout(2_500)
    assert set(bob.page.evaluate("counts")) <= {2}
    ada.picture("presence")
    bob.page.close()
    ada.until(lambda: people(ada) == [("Ada", "1"), ("Bob", "1")])


def test_typing_is_seen_and_passes(open_tab: OpenTab, room_of: RoomOf) -> None:
    """Until the message is there; one's own is not shown."""
    room = room_of("echo")
    ada, bob = open_tab(room, name="Ada"), open_tab(room, name="Bob")
    bob.page.focus("#draft")
    bob.page.keyboard.type("Hel")
    ada.page.wait_for_selector("#typists:has-text('Bob is typing…')")
    assert bob.page.inner_text("#typists") == ""
    ada.picture("typing")
    bob.page.keyboard.press("Enter")
    ada.page.wait_for_selector(".bubble:has-text('Hel')")
    ada.until(lambda: ada.page.text_content("#typists") == "")
