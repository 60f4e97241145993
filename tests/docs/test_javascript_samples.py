"""Every JavaScript sample and React component of the documentation runs."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.types import ASGIApp
from tests.docs.pages import PAGES, REPOSITORY, samples, title
from tests.docs.test_samples import LISTENING, run_page
from tests.requirements import need
from tests.running import HURRIED, serving

from perdure import App, ChatRoom

pytestmark = pytest.mark.anyio

NPM = REPOSITORY / "tests" / "npm" / "node_modules"

_PRINTED = re.compile(r"console\.log\(.*\); // (.+)$", re.MULTILINE)


class Support(ChatRoom):
    """The room that samples talk to."""

    model = "scripted:echo"


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages under the names by which a reader installs them."""
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    need("the npm packages", (NPM / "@durable-streams").is_dir(), "npm install --prefix tests/npm")
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "node_modules"
    (here / "@ai-sdk").mkdir(parents=True)
    for package in NPM.iterdir():
        if package.name not in ("ai", "@ai-sdk") and package.name[0] != ".":
            (here / package.name).symlink_to(package)
    for package in (NPM / "@ai-sdk").iterdir():
        (here / "@ai-sdk" / package.name).symlink_to(package)
    (here / "ai").symlink_to(NPM / "ai6")
    (here / "@ai-sdk" / "react").symlink_to(NPM / "react-ai6")


def _code(page: Path, language: str) -> str:
    return "\n".join(
        sample.text for sample in samples(page) if sample.language == language and sample.not_run is None
    )


WITH_SCRIPTS = [page for page in PAGES if _code(page, "js")]


@pytest.mark.parametrize("page", WITH_SCRIPTS, ids=title)
async def test_scripts_run_and_print_what_the_page_says(page: Path, tmp_path: Path) -> None:
    """The blocks of a page, as one module."""
    code = _code(page, "js")
    async with serving(App([Support], data="data", limits=HURRIED)) as address:
        (tmp_path / "page.mjs").write_text(code.replace(LISTENING, address))
        output = await _node("page.mjs")
    assert output.splitlines() == _PRINTED.findall(code)


async def test_history_is_loaded_as_the_page_says(tmp_path: Path) -> None:
    """The one sample that stands inside of a page's own code."""
    code = _code(REPOSITORY / "docs/how-to/use-chat.md", "ts")
    app = App([Support], data="data", limits=HURRIED)
    async with serving(app) as address:
        await app.get(Support, "anna").submit("Is my bike ready?")
        (tmp_path / "page.mjs").write_text(
            f"const server = 'http://{address}', name = 'anna';\n{code}console.log(initial[0].parts[0].text);"
        )
        assert await _node("page.mjs") == "Is my bike ready?\n"


def test_no_other_page_has_such_a_sample() -> None:
    """Else it would not be run."""
    assert [title(page) for page in PAGES if _code(page, "ts")] == ["docs/how-to/use-chat.md"]


class Component(NamedTuple):
    """A component of a page, how it is used, and the app that it talks to: one of the page's, or a plain one."""

    page: str
    name: str
    props: dict[str, Any]
    app: str | Callable[[], App]
    change: tuple[str, str] = ("", "")
    until: str = "assistant: You said: Is my bike ready?"
    shows_questions: bool = True


def _plain() -> App:
    return App([Support], data="data", limits=HURRIED)


def _double() -> App:
    return App([Support], data="data", limits=HURRIED, double_answer=True)


AGENTS = "docs/how-to/cloudflare-agents.md"
DURABLE = "docs/how-to/ai-sdk-durable-transport.md"

COMPONENTS = {
    "Helix style": Component(
        "docs/how-to/helix.md",
        "Session",
        {"id": "anna", "snapshot": {"messages": [], "startSequence": 0, "status": "ended"}},
        _plain,
    ),
    "approvals": Component(
        *("docs/how-to/use-chat.md", "Desk", {"name": "anna"}, "app"),
        until="approval-requested AgreeRefuse",
        shows_questions=False,
    ),
    "useAgent": Component(AGENTS, "Board", {"name": "anna"}, "app", until="count: 1", shows_questions=False),
    "PartySocket": Component(AGENTS, "Party", {"name": "anna"}, "app", until="AI: You said: Is my bike ready?"),
    "useAgentChat": Component(AGENTS, "Room", {"name": "anna"}, "app"),
    "useChat": Component("docs/how-to/use-chat.md", "Room", {"name": "anna"}, _plain),
    "durable transport": Component(DURABLE, "Room", {"name": "anna"}, _plain),
    "double answer": Component(DURABLE, "Room", {"name": "anna"}, _double, ("/api/durable-chat", "/api/chat")),
    "own generator": Component("docs/how-to/durable-response.md", "Asking", {"name": "anna"}, "api"),
    "signed in": Component(DURABLE, "SignedInRoom", {"name": "anna", "token": "s3cret"}, "app"),
}


@pytest.mark.parametrize("component", COMPONENTS.values(), ids=COMPONENTS)
async def test_components_work(component: Component, tmp_path: Path) -> None:
    """Rendered, typed into and sent, a component shows the question and the room's answer."""
    page = REPOSITORY / component.page
    if isinstance(component.app, str):
        namespace = await asyncio.to_thread(run_page, page, "")
        app: ASGIApp = namespace[component.app]
    else:
        app = component.app()
    async with serving(app) as address:
        code = _code(page, "tsx").replace(LISTENING, address)
        if component.change[0]:
            code = code.replace(*component.change)
        (tmp_path / "page.tsx").write_text(code)
        shutil.copy(Path(__file__).with_name("component.mjs"), tmp_path)
        shutil.copy(NPM.with_name("cloudflare_versions.mjs"), tmp_path)
        asked = "Is my bike ready?"
        task = {
            "file": str(tmp_path / "page.tsx"),
            "component": component.name,
            "props": component.props,
            "say": asked,
            "until": component.until,
        }
        shown = await _node("--experimental-websocket", "component.mjs", json.dumps(task))
    assert component.until in shown
    assert (f"user: {asked}" in shown) == component.shows_questions


def test_every_component_is_used() -> None:
    """No page has a component that nothing renders."""
    for page in PAGES:
        exported = re.findall(r"export function (\w+)", _code(page, "tsx"))
        used = {item.name for item in COMPONENTS.values() if item.page == title(page)}
        assert set(exported) == used, title(page)


async def _node(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "node", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, f"{output.decode()}{errors.decode()}"
    return output.decode()
