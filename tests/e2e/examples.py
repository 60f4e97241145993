"""The examples with a front end of their own: built once, served as their README says, opened in a browser."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import BrowserContext, Locator, Page
from tests.e2e.served import SOURCES, UVICORN, Served, free_port
from tests.e2e.use_chat import NPM
from tests.requirements import need

EXAMPLES = Path(__file__).parents[2] / "examples"
WITHIN_MS = 15_000

# Notes what the newest answer says whenever it changed, over reloads too.
RECORDER = """
(() => {
  if (location.protocol === "about:") return;
  const seen = JSON.parse(sessionStorage.getItem("seen") ?? "[]");
  const look = () => {
    const newest = [...document.querySelectorAll("article.assistant")].at(-1);
    if (!newest) return;
    const text = [...newest.querySelectorAll(":scope > p")].map((each) => each.textContent).join("\\n");
    if (text && seen.at(-1) !== text) seen.push(text);
  };
  new MutationObserver(look).observe(document, { childList: true, subtree: true, characterData: true });
  addEventListener("pagehide", () => sessionStorage.setItem("seen", JSON.stringify(seen)));
  window.seenTexts = seen;
})();
"""


def build(name: str, folder: Path) -> Path:
    """A copy of the example in ``folder``, with its page built; skips where it cannot be."""
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    for package in ("vite", "@vitejs/plugin-react", "@tanstack/ai-react", "agents", "react-ai7"):
        installed = (NPM / "node_modules" / package).is_dir()
        need(f"the npm package `{package}`", installed, "npm install --prefix tests/npm")
    copy = folder / name
    made = shutil.ignore_patterns("node_modules", "dist", "data", "__pycache__")
    shutil.copytree(EXAMPLES / name, copy, ignore=made)
    built = subprocess.run(
        ["node", "example.mjs", "build", str(copy)], cwd=NPM, capture_output=True, text=True, timeout=50, check=False
    )
    assert built.returncode == 0, built.stderr
    return copy


def serve(example: Path, folder: Path) -> Served:
    """``uvicorn app:app`` in the example's folder."""
    path = os.pathsep.join((str(example), str(SOURCES)))
    return Served(folder, "app:app", command=UVICORN, PYTHONPATH=path)


@contextmanager
def dev_server(example: Path, server: Served) -> Iterator[str]:
    """``npm run dev`` in a built example, beside its server; the address of the page."""
    port = free_port()
    command = ["node", "example.mjs", "dev", str(example), str(port)]
    environment = {**os.environ, "PERDURE_URL": server.url}
    with subprocess.Popen(command, cwd=NPM, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield f"http://127.0.0.1:{port}/app/"
        process.terminate()


class ExampleTab:
    """One tab with an example's page. All of them have the same parts: articles, tool cards, a message field."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(WITHIN_MS)
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.add_init_script(RECORDER)
        self.page.goto(url)
        self.page.get_by_label("Message", exact=True).wait_for()

    # --- what a person does

    def say(self, text: str) -> None:
        """Type a message and press Enter, once the page lets one send."""
        self.button("Send").wait_for()
        field = self.page.get_by_label("Message", exact=True)
        field.fill(text)
        field.press("Enter")

    def click(self, name: str) -> None:
        """Click a button."""
        self.button(name).click()

    def button(self, name: str) -> Locator:
        """The button of that name."""
        return self.page.get_by_role("button", name=name, exact=True)

    # --- what a person sees

    def wait_for_text(self, text: str) -> None:
        """Until the newest answer has it."""
        self.until(lambda: text in (self.answers() or [""])[-1])

    def wait_for_tool(self, state: str) -> None:
        """Until the newest tool card says so."""
        self.page.locator(".tool").last.get_by_text(state, exact=True).wait_for()

    def wait_ready(self) -> None:
        """Until no answer is being made."""
        self.button("Send").wait_for()

    def until(self, holds: Callable[[], object]) -> None:
        """Let the page run until something holds."""
        for _ in range(WITHIN_MS // 50):
            if holds():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"it never came to hold; the page shows {self.page.inner_text('body')}")

    def questions(self) -> list[str]:
        """The texts of the users' messages."""
        return self._texts("user")

    def answers(self) -> list[str]:
        """The texts of the answers."""
        return self._texts("assistant")

    def _texts(self, role: str) -> list[str]:
        texts: list[str] = self.page.eval_on_selector_all(
            f"article.{role}",
            """all => all.map((each) =>
              [...each.querySelectorAll(":scope > p")].map((p) => p.textContent.trim()).join("\\n"))""",
        )
        return texts

    def seen(self) -> list[str]:
        """Every text that the newest answer was ever seen with, in order."""
        seen: list[str] = self.page.evaluate("seenTexts")
        return seen

    def assert_each_word_once(self, final: str) -> None:
        """The newest answer ended as ``final`` and was never seen with anything but its beginning."""
        seen = self.seen()
        assert len(seen) > 5
        assert [text for text in seen if not final.startswith(text.strip())] == []
        assert self.answers()[-1] == final

    def assert_fits(self, width: int) -> None:
        """Nothing is wider than a screen of so many pixels."""
        self.page.set_viewport_size({"width": width, "height": 700})
        assert self.page.evaluate("document.documentElement.scrollWidth") == width
        self.page.set_viewport_size({"width": 1280, "height": 800})

    def picture(self, name: str) -> None:
        """Screenshots for a person to look at."""
        picture(self.page, name)


def picture(page: Page, name: str) -> None:
    """Screenshots to look at, where ``PERDURE_SCREENSHOTS`` names a folder: wide and narrow, light and dark."""
    folder = os.environ.get("PERDURE_SCREENSHOTS")
    if not folder:
        return
    for width, scheme in ((1280, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        page.wait_for_timeout(100)
        page.screenshot(path=Path(folder) / f"{name}-{width}.png")
    page.set_viewport_size({"width": 1280, "height": 800})
