"""Every Python sample of the documentation runs."""

from __future__ import annotations

import asyncio
import shlex
import textwrap
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.docs.pages import PAGES, REPOSITORY, samples, title
from tests.running import HURRIED, serving, until

from perdure import App, ChatRoom
from perdure.cli.main import commands

pytestmark = pytest.mark.anyio

WITH_PYTHON = [page for page in PAGES if any(sample.language == "python" for sample in samples(page))]

LISTENING = "127.0.0.1:8000"
"""Where a reader's own server is; samples that name it get one."""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none-is-needed-to-make-a-model")


class Echo(ChatRoom):
    """What clients in the documentation talk to."""

    model = "scripted:echo"


@asynccontextmanager
async def _server(code: str) -> AsyncIterator[str]:
    if LISTENING not in code:
        yield ""
        return
    async with serving(App([Echo], data="server-data", limits=HURRIED)) as address:
        yield address


@contextmanager
def _libraries_may_warn() -> Iterator[None]:
    """Providers' libraries have deprecations of their own at import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def run_page(page: Path, address: str) -> dict[str, Any]:
    """The page's samples as one module; lines in tracebacks are those of the page."""
    namespace: dict[str, Any] = {"__name__": page.stem.replace("-", "_")}
    for sample in samples(page):
        if sample.language == "python" and sample.not_run is None:
            text = sample.text.replace(LISTENING, address) if address else sample.text
            exec(compile("\n" * (sample.line - 1) + text, str(page), "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", WITH_PYTHON, ids=title)
async def test_samples_run(page: Path) -> None:
    """The blocks of a page run one after another, as one module; its apps start."""
    code = "".join(sample.text for sample in samples(page) if sample.language == "python")
    async with _server(code) as address:
        with _libraries_may_warn():
            namespace = await asyncio.to_thread(run_page, page, address)
    for name, app in namespace.items():
        if isinstance(app, App) and not app.runtime.draining:  # a sample may have run it
            app.runtime.folder = Path(f"data of {name}")
            with _libraries_may_warn():
                async with app.lifespan():
                    await until(lambda: app.runtime.ready)  # noqa: B023 - awaited here


def test_few_samples_are_not_run() -> None:
    """Each sample that cannot run says why, and there are few of them."""
    marked = [sample.not_run for page in WITH_PYTHON for sample in samples(page) if sample.not_run]
    assert len(marked) <= 3
    assert len(WITH_PYTHON) >= 8


def _commands() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        for sample in samples(page):
            for line in sample.text.replace("\\\n", " ").splitlines() if sample.language == "sh" else ():
                words = shlex.split(line, comments=True)
                if words and words[0].endswith("perdure"):
                    yield f"{title(page)}:{sample.line}", words[1:]


def test_commands_are_there() -> None:
    """Every `perdure` command on the pages parses: the command, its options and its arguments."""
    group = typer.main.get_command(commands)
    count = 0
    for where, words in _commands():
        words = words[: words.index(">")] if ">" in words else words
        name, command = "perdure", group
        while there_are := getattr(command, "commands", None):  # a group of commands
            name, *words = words
            assert name in there_are, f"{where}: there is no command {name!r}"
            command = there_are[name]
        command.make_context(name, words)
        count += 1
    assert count >= 5


def _make_targets() -> set[str]:
    lines = (REPOSITORY / "Makefile").read_text().splitlines()
    return {line.partition(":")[0] for line in lines if ":" in line and line[:1].isalpha()}


def test_make_targets_are_there() -> None:
    """Every `make` target on the pages is in the Makefile."""
    targets = _make_targets()
    for page in PAGES:
        for sample in samples(page):
            for line in textwrap.dedent(sample.text).splitlines():
                words = line.split()
                if words[:1] == ["make"]:
                    assert words[1] in targets, f"{title(page)}: make {words[1]}"
