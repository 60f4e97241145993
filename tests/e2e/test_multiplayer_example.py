"""The example with several people and two models, as its README says, in a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from tests.e2e.served import UVICORN, Served
from tests.e2e.tab import WITHIN_MS

EXAMPLE = Path(__file__).parents[2] / "examples" / "multiplayer"


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Served]:
    """The example's server."""
    served = Served(tmp_path, "app:site", command=(*UVICORN[:-1], "--app-dir", str(EXAMPLE), "--port"))
    served.start()
    yield served
    served.stop()
    assert "Traceback" not in served.log.read_text(), served.log.read_text()


class Guest:
    """One person with a browser of their own."""

    def __init__(self, browser: Browser, url: str, name: str) -> None:
        self.page: Page = browser.new_context(viewport={"width": 720, "height": 900}).new_page()
        self.page.set_default_timeout(WITHIN_MS)
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.goto(f"{url}/?name={name}")

    def say(self, text: str) -> None:
        self.page.fill("#draft", text)
        self.page.press("#draft", "Enter")

    def wait_for(self, *entries: tuple[str, str]) -> None:
        """Until exactly these messages are shown, whole: who, and what."""
        self.page.wait_for_function(
            """(wanted) => {
                const items = [...document.querySelectorAll("#log li")];
                const shown = items.map((item) => [item.querySelector("b").textContent,
                                                   item.querySelector("span").textContent.trim()]);
                return items.every((item) => item.dataset.status !== "streaming")
                    && JSON.stringify(shown) === JSON.stringify(wanted);
            }""",
            arg=[list(entry) for entry in entries],
        )


def test_two_people_two_models(browser: Browser, example: Served) -> None:
    """Both see who is here, who types, what is said to people only, and the answers of those that are named; after a
    kill of the server, the same."""
    ann, ben = Guest(browser, example.url, "Ann"), Guest(browser, example.url, "Ben")
    for guest in (ann, ben):
        guest.page.wait_for_function("document.querySelector('#people').textContent === 'Here: Ann, Ben'")
    ann.page.type("#draft", "Hi")
    ben.page.wait_for_function("document.querySelector('#typing').textContent === 'Ann …'")
    ann.page.press("#draft", "Enter")
    said = [("Ann", "Hi")]
    ben.wait_for(*said)
    ben.say("@claude @gpt hello")
    asked = "@claude @gpt hello"
    said += [
        ("Ben", asked),
        ("claude", f"claude here. I heard Ben say: {asked}"),
        ("gpt", f"gpt here. I heard claude say: claude here. I heard Ben say: {asked}"),
    ]
    for guest in (ann, ben):
        guest.wait_for(*said)
    example.kill()
    ann.say("@gpt still there?")
    example.start()
    said += [("Ann", "@gpt still there?"), ("gpt", "gpt here. I heard Ann say: @gpt still there?")]
    for guest in (ann, ben):
        guest.wait_for(*said)
    ann.page.reload()
    ann.wait_for(*said)
    if folder := os.environ.get("PERDURE_SCREENSHOTS"):
        ann.page.screenshot(path=str(Path(folder) / "multiplayer.png"))
    assert ann.problems == ben.problems == []
