"""A browser tab with the chat page, and a record of every text that it ever showed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import BrowserContext, Page

WITHIN_MS = 15_000

# Notes the text of the newest answer whenever it changed, in every frame and after every change of
# the document, over reloads too. A page that is still being parsed is not looked at: the browser
# has not painted it, or paints a part of it as it paints any document.
RECORDER = """
(() => {
  if (location.protocol === "about:") return;
  const seen = JSON.parse(sessionStorage.getItem("seen") ?? "[]");
  const look = () => {
    if (document.readyState === "loading") return;
    const answers = document.querySelectorAll("#log .assistant");
    if (answers.length === 0) return;
    const newest = answers[answers.length - 1];
    const texts = [...newest.querySelectorAll(".body")].map((body) => body.textContent.trim());
    const [status, text] = [newest.dataset.status, texts.join("\\n")];
    const last = seen.at(-1);
    if (last?.[0] !== status || last?.[1] !== text) seen.push([status, text]);
  };
  const frame = () => { look(); requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  new MutationObserver(look).observe(document, { childList: true, subtree: true, characterData: true });
  addEventListener("pagehide", () => sessionStorage.setItem("seen", JSON.stringify(seen)));
  window.seenTexts = seen;
})();
"""


def words(count: int) -> str:
    """What the script ``count=N`` says."""
    return " ".join(f"word{number}" for number in range(1, count + 1))


class Tab:
    """One tab in one room."""

    def __init__(self, context: BrowserContext, url: str, room: str) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(WITHIN_MS)
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.add_init_script(RECORDER)
        self.page.goto(f"{url}/chat/{room}")
        self.wait_online()

    # --- what a person does

    def say(self, text: str) -> None:
        """Type a message and press Enter."""
        self.page.fill("#draft", text)
        self.page.press("#draft", "Enter")

    def call_me(self, name: str) -> None:
        """Answer the page's question for a name."""
        self.page.fill("#name", name)
        self.page.press("#name", "Enter")

    def reload(self) -> None:
        """Reload the page."""
        self.page.reload()
        self.wait_online()

    # --- what a person sees

    def wait_online(self) -> None:
        """Until the page has its line to the room."""
        self.page.wait_for_selector("#app[data-connection=online]")

    def wait_settled(self, answers: int = 1) -> None:
        """Until that many answers are there, and none is being written."""
        self.page.wait_for_function(
            """count => {
              const all = [...document.querySelectorAll("#log .assistant")];
              return all.length >= count && all.every((each) => each.dataset.status !== "streaming");
            }""",
            arg=answers,
        )

    def wait_for_words(self, count: int) -> None:
        """Until the newest answer has got that far."""
        self.page.wait_for_function(
            "word => [...document.querySelectorAll('#log .assistant')].at(-1)?.textContent.includes(word)",
            arg=f"word{count} ",
        )

    def until(self, holds: Callable[[], object]) -> None:
        """Let the page run until something holds."""
        for _ in range(WITHIN_MS // 20):
            if holds():
                return
            self.page.wait_for_timeout(20)
        raise AssertionError("it never came to hold")

    def texts(self) -> list[tuple[str, str]]:
        """Role and text of every message on the page."""
        found: list[list[str]] = self.page.eval_on_selector_all(
            "#log > article",
            """all => all.map((a) => [
              a.dataset.role,
              [...a.querySelectorAll(".body, .bubble")].map((each) => each.textContent.trim()).join("\\n"),
            ])""",
        )
        return [(role, text) for role, text in found]

    def answers(self) -> list[str]:
        """The texts of the answers."""
        return [text for role, text in self.texts() if role == "assistant"]

    def status(self) -> str:
        """How the newest answer stands."""
        found: str = self.page.eval_on_selector_all("#log .assistant", "all => all.at(-1).dataset.status")
        return found

    def seen(self, status: str | None = None) -> list[str]:
        """Every text that the newest answer was ever seen with (while it had that status), in order."""
        found: list[list[str]] = self.page.evaluate("seenTexts")
        return [text for at, text in found if status in (None, at)]

    def assert_only_grew_to(self, final: str) -> None:
        """The answer's text never shrank, never held a word twice, and ended as ``final``."""
        seen = self.seen()
        assert len(seen) > 5
        for text, following in zip(seen, [*seen[1:], final], strict=True):
            assert following.startswith(text), f"{text!r} became {following!r}"
        assert seen[-1] == final

    def picture(self, name: str) -> None:
        """A screenshot for a person to look at, where ``PERDURE_SCREENSHOTS`` names a folder."""
        folder = os.environ.get("PERDURE_SCREENSHOTS")
        if folder:
            self.page.screenshot(path=Path(folder) / f"{name}.png")
