"""Real servers and a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright
from tests.e2e.cloudflare import Cloudflare, OpenChat
from tests.e2e.cloudflare import Tab as CloudflareTab
from tests.e2e.line import Line
from tests.e2e.served import UVICORN, Served
from tests.e2e.tab import Tab
from tests.e2e.use_chat import NPM, React
from tests.requirements import need
from tests.web.conftest import BROWSERS, QUIET

OpenTab = Callable[..., Tab]

_rooms = count(1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. For one module only: while it runs, ``asyncio.run`` cannot be used beside it."""
    executable = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    need("Chromium", executable is not None, "apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that the tests share, in rooms of their own. It is never killed."""
    yield from run_served(Served(tmp_path_factory.mktemp("shared")))


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Served]:
    """A server for one test, to be killed and restarted. Stopped, it parks running answers at once."""
    yield from run_served(Served(tmp_path))


@pytest.fixture
def under_uvicorn(tmp_path: Path) -> Iterator[Served]:
    """The same under plain uvicorn, which closes sockets before the app hears of the end."""
    served = Served(tmp_path, command=UVICORN)
    served.start()
    yield served
    served.stop()


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Served]:
    """A server that gives running answers five seconds when it is stopped, as it does by default."""
    yield from run_served(Served(tmp_path, DRAIN_MS="5000"))


@pytest.fixture
def commenting(tmp_path: Path) -> Iterator[Served]:
    """A server that sends keep-alive comments after 50 ms of silence instead of 15 s."""
    yield from run_served(Served(tmp_path, KEEP_ALIVE_MS="50"))


@pytest.fixture(scope="session")
def tool_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of rooms with tools that the tests share, in rooms of their own. It is never killed."""
    yield from run_served(Served(tmp_path_factory.mktemp("tools"), "tool_app:app"))


@pytest.fixture
def mortal_tools(tmp_path: Path) -> Iterator[Served]:
    """A server of rooms with tools for one test, to be killed and restarted."""
    yield from run_served(Served(tmp_path, "tool_app:app"))


def run_served(served: Served) -> Iterator[Served]:
    """The life of a server in a fixture; its log must not tell of an error of ours."""
    served.start()
    yield served
    served.stop()
    assert "Traceback" not in served.log.read_text(), served.log.read_text()


@pytest.fixture
def line(server: Served) -> Iterator[Line]:
    """A line to the shared server that can be cut."""
    line = Line(server.port)
    yield line
    line.close()


@pytest.fixture
def room_of() -> Callable[[str], str]:
    """Names a new room that is answered by the script of that name."""
    return lambda script: f"{script}-{next(_rooms)}"


@pytest.fixture
def open_tab(browser: Browser, server: Served) -> Iterator[OpenTab]:
    """Opens a room, each time as another person with a browser of their own."""
    contexts = []
    tabs = []

    def opener(room: str, *, url: str | None = None, name: str | None = None, beside: Tab | None = None) -> Tab:
        """``name`` None: the person does not want one. ``beside``: a second tab in that tab's browser."""
        if beside is None:
            contexts.append(browser.new_context(viewport={"width": 1280, "height": 800}))
        context = contexts[-1] if beside is None else beside.page.context
        tab = Tab(context, url or server.url, room)
        tabs.append(tab)
        if name is not None:
            tab.call_me(name)
        elif tab.page.is_visible("#name-skip"):
            tab.page.click("#name-skip")
        return tab

    yield opener
    problems = [problem for tab in tabs for problem in tab.problems]
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="session", params=[6, 7], ids=["ai6", "ai7"])
def react(request: pytest.FixtureRequest) -> Iterator[React]:
    """Node with ``useChat``, once with ai 6 and once with ai 7."""
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    installed = all((NPM / "node_modules" / f"react-ai{major}").is_dir() for major in (6, 7))
    need("useChat (npm packages)", installed, "npm install --prefix tests/npm")
    react = React(request.param)
    yield react
    react.close()


SDKS = [("newest", 6), ("newest", 7), ("pinned", 6)]
"""Cloudflare's Agents SDK (0.32 and later, 0.21.0) and the ai beside it."""


@pytest.fixture(scope="session", params=SDKS, ids=[f"{sdk}-ai{ai}" for sdk, ai in SDKS])
def cloudflare_browsers(request: pytest.FixtureRequest) -> Iterator[Cloudflare]:
    """Node with the clients of Cloudflare's Agents SDK, for each of the versions."""
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    installed = all((NPM / "node_modules" / name).is_dir() for name in ("agents", "agents-pinned", "partysocket"))
    need("Cloudflare's clients (npm packages)", installed, "npm install --prefix tests/npm")
    browsers = Cloudflare(*request.param)
    yield browsers
    browsers.close()


@pytest.fixture
def cloudflare(cloudflare_browsers: Cloudflare) -> Iterator[Cloudflare]:
    """The same, for one test: its tabs are closed at the end."""
    yield cloudflare_browsers
    cloudflare_browsers.close_tabs()


@pytest.fixture
def open_chat(cloudflare: Cloudflare, agents_server: Served) -> OpenChat:
    """Opens a page with ``useAgent`` and ``useAgentChat``, and waits for its socket; the options are the latter's."""

    def opener(room: str, *, url: str = agents_server.url, **options: Any) -> CloudflareTab:
        tab = cloudflare.open("chat", url, "TalkRoom", room, options=options)
        tab.until_identified()
        return tab

    return opener


@pytest.fixture(scope="session")
def agents_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of agents that the tests share."""
    yield from run_served(Served(tmp_path_factory.mktemp("agents"), "cloudflare_app:app"))


@pytest.fixture
def mortal_agents(tmp_path: Path) -> Iterator[Served]:
    """A server of agents for one test, to be killed and restarted."""
    yield from run_served(Served(tmp_path, "cloudflare_app:app"))
