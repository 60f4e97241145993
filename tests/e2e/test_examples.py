"""Every example with a front end, in a real browser: built by Vite, served by uvicorn, as its README says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from tests.e2e.conftest import run_served
from tests.e2e.examples import ExampleTab, build, dev_server, serve
from tests.e2e.served import Served
from tests.e2e.tab import words

PAGES = {
    "react-usechat": ("react-usechat", "?room={room}", True),
    "cloudflare-react": ("cloudflare-react", "?room={room}", True),
    "tanstack": ("tanstack", "?room={room}", False),
    "tanstack-session": ("tanstack", "?room={room}&live", True),
}
"""The folder of the example, what follows ``/app/`` in its address, whether it shows live what others do."""

Open = Callable[..., ExampleTab]
RunExample = Callable[[str], tuple[Path, Served]]

_rooms = count(1)


@dataclass(frozen=True)
class Example:
    """A running example."""

    name: str
    folder: Path
    server: Served
    query: str
    live: bool


@pytest.fixture(scope="session")
def run_example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunExample]:
    """Builds and starts an example when it is first asked for."""
    running: dict[str, tuple[Path, Served]] = {}
    with ExitStack() as stack:

        def run(name: str) -> tuple[Path, Served]:
            if name not in running:
                folder = tmp_path_factory.mktemp(name)
                built = build(name, folder)
                running[name] = built, stack.enter_context(contextmanager(run_served)(serve(built, folder)))
            return running[name]

        yield run


@pytest.fixture(params=PAGES, scope="module")
def example(request: pytest.FixtureRequest, run_example: RunExample) -> Example:
    """Each example, in each of its ways."""
    name, query, live = PAGES[request.param]
    return Example(request.param, *run_example(name), query, live)


@pytest.fixture
def room() -> str:
    """A room of the test's own."""
    return f"room-{next(_rooms)}"


@pytest.fixture
def open_example(browser: Browser, example: Example) -> Iterator[Open]:
    """Opens the example's page, each time in a browser of its own."""
    contexts = []
    tabs = []

    def opener(room: str, url: str = f"{example.server.url}/app/") -> ExampleTab:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 800}))
        tabs.append(ExampleTab(contexts[-1], url + example.query.format(room=room)))
        return tabs[-1]

    yield opener
    problems = [problem for tab in tabs for problem in tab.problems]
    for context in contexts:
        context.close()
    assert problems == []


def test_a_conversation(open_example: Open, example: Example, room: str) -> None:
    """Words, a tool's card, a refusal, an error; all of it is there when the page is opened again."""
    tab = open_example(room)
    tab.picture(f"{example.name}-empty")
    tab.say("Good morning")
    tab.wait_for_text("You said: Good morning")
    tab.say("How is the weather in Lisbon?")
    tab.wait_for_text("In Lisbon it is 21 degrees and sunny.")
    tab.wait_for_tool("done")
    tab.picture(f"{example.name}-tool")
    tab.assert_fits(320)
    tab.say("Please refund order 18")
    tab.wait_for_tool("needs your approval")
    tab.click("Refuse")
    tab.wait_for_tool("refused")
    tab.wait_for_text("You did not allow refund")
    tab.say("Please fail")
    tab.page.get_by_role("alert").wait_for()
    tab.picture(f"{example.name}-error")
    assert tab.answers()[-1] == words(8)
    tab.say("And good night")
    tab.wait_for_text("You said: And good night")
    assert tab.page.get_by_role("alert").count() == 0
    again = open_example(room)
    again.until(lambda: again.answers() == tab.answers())
    assert again.questions() == tab.questions()
    assert len(again.answers()) == 5
    cards = again.page.locator(".tool").all_inner_texts()
    assert [word for word in ("weather", "done", "Lisbon", "sunny") if word not in cards[0]] == []
    assert [word for word in ("refund", "18") if word not in cards[1]] == []
    assert "refused" in cards[1] or "the user did not allow this" in cards[1]  # TanStack keeps refusals as errors


def test_a_reload_amid_an_answer(open_example: Open, room: str) -> None:
    """The answer goes on, with each word once."""
    tab = open_example(room)
    tab.say("Please count")
    tab.wait_for_text("word15 ")
    tab.page.reload()
    tab.wait_for_text("word40 ")
    tab.page.reload()
    tab.wait_for_text("word80")
    tab.wait_ready()
    tab.assert_each_word_once(words(80))
    assert tab.questions() == ["Please count"]


def test_a_kill_amid_an_answer(open_example: Open, example: Example, room: str) -> None:
    """The server comes back, the page finds it by itself, and the answer goes on with each word once."""
    tab = open_example(room)
    tab.say("Please count")
    tab.wait_for_text("word15 ")
    example.server.restart_after_kill()
    tab.wait_for_text("word80")
    tab.wait_ready()
    tab.assert_each_word_once(words(80))
    assert tab.page.get_by_role("alert").count() == 0


@pytest.mark.parametrize("example", [name for name, (_, _, live) in PAGES.items() if live], indirect=True)
def test_two_browsers_in_one_room(open_example: Open, room: str) -> None:
    """Each sees what the other asks, and the answer while it is made; both end with the same messages."""
    asking, watching = open_example(room), open_example(room)
    asking.say("Please count")
    watching.wait_for_text("word10 ")
    assert watching.questions() == ["Please count"]
    assert len(watching.answers()[-1].split()) < 80
    watching.wait_for_text("word80")
    watching.say("Thank you")
    for tab in (asking, watching):
        tab.wait_for_text("You said: Thank you")
        tab.wait_ready()
        assert tab.questions() == ["Please count", "Thank you"]
        assert tab.answers() == [words(80), "You said: Thank you"]


def test_an_approval_over_a_restart(open_example: Open, example: Example, room: str) -> None:
    """The question waits while the server is killed and started; a click lets the refund be made, for all to see."""
    tab = open_example(room)
    other = open_example(room) if example.live else tab
    tab.say("Please refund order 17")
    tab.wait_for_tool("needs your approval")
    other.wait_for_tool("needs your approval")
    tab.picture(f"{example.name}-approval")
    tab.assert_fits(320)
    example.server.restart_after_kill()
    tab.click("Approve")
    for each in (tab, other):
        each.wait_for_tool("done")
        each.wait_for_text("Order 17 is refunded.")
    tab.picture(f"{example.name}-approved")


def test_stop_and_regenerate(open_example: Open, example: Example, room: str) -> None:
    """Anyone stops it for everyone, and what was said stays; until the answer is made anew, in its place."""
    tab = open_example(room)
    other = open_example(room) if example.live else tab
    tab.say("Please count")
    other.wait_for_text("word10 ")
    other.click("Stop")
    for each in (tab, other):
        each.wait_ready()
    said = tab.answers()[-1]
    assert words(80).startswith(said)
    assert 10 <= len(said.split()) < 80
    other.until(lambda: other.answers()[-1] == said)
    tab.page.reload()
    tab.until(lambda: tab.answers() == [said])
    tab.click("Regenerate")
    for each in (tab, other):
        each.wait_for_text("word80")
        each.wait_ready()
        assert (each.questions(), each.answers()) == (["Please count"], [words(80)])


# --- what only one of them has


@pytest.mark.parametrize("example", ["react-usechat"], indirect=True)
def test_npm_run_dev(open_example: Open, example: Example, room: str) -> None:
    """The page comes from Vite, which hands on what is the room's: requests, and the socket that tells of others."""
    other = open_example(room)
    with dev_server(example.folder, example.server) as url:
        tab = open_example(room, url)
        tab.say("Good morning")
        tab.wait_for_text("You said: Good morning")
        other.say("Good night")
        tab.wait_for_text("You said: Good night")
        tab.page.context.close()


@pytest.mark.parametrize("example", ["cloudflare-react"], indirect=True)
def test_state_is_shared(open_example: Open, room: str) -> None:
    """Both ways: a page writes the note, the server counts refunds; every browser has both, also after a reload."""
    tab, other = open_example(room), open_example(room)
    tab.page.get_by_label("Note for everyone").fill("Be kind to Ada")
    other.until(lambda: other.page.get_by_label("Note for everyone").input_value() == "Be kind to Ada")
    other.say("Please refund order 3")
    tab.wait_for_tool("needs your approval")
    tab.click("Approve")
    for each in (tab, other):
        each.page.get_by_text("1 refund", exact=True).wait_for()
    tab.page.reload()
    tab.page.get_by_text("1 refund", exact=True).wait_for()
    assert tab.page.get_by_label("Note for everyone").input_value() == "Be kind to Ada"
