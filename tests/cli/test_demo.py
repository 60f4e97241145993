"""`perdure demo`: the best model at hand, and a page."""

from __future__ import annotations

import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.requirements import need

from perdure.cli import demo
from perdure.cli.demo import ModelChoice, choose_model

from .commands import Serving, perdure

WITHOUT_A_LOCAL_MODEL = (
    sys.executable,
    "-c",
    "from perdure.cli import demo, main; demo.missing_for_local = lambda: 'no local model'; main()",
)


def test_it_opens_a_page_and_answers(tmp_path: Path) -> None:
    """Without a key and without a local model a script answers; it says so, and where the page is."""
    with Serving("demo", "--port", 0, "--data", tmp_path, command=WITHOUT_A_LOCAL_MODEL) as server:
        assert server.said == (
            "Model: scripted:paced (no provider's key is set; no local model; until then answers are from a script)\n"
            f"\n  Chat at  {server.url}/chat/general\n"
        )
        with urllib.request.urlopen(f"{server.url}/chat/general") as page:
            assert b"general" in page.read()
        asked = perdure("chat", "general", "--server", server.url, input="hi")
        assert asked.returncode == 0
        assert len(asked.stdout) > 50
        assert server.end()[0] == 0


def test_an_open_demo_is_refused_beyond_this_machine() -> None:
    """The demo has no authenticator, so it stays on this machine."""
    done = perdure("demo", "--host", "0.0.0.0", "--port", 0)
    assert done.returncode == 2
    assert "0.0.0.0 can be reached from other machines" in done.stderr


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_a_key_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider's key in the environment chooses its model."""
    need("the extra `ai`", find_spec("pydantic_ai") is not None, "pip install 'perdure[ai]'")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key")
    assert choose_model() == ModelChoice("anthropic:claude-haiku-4-5", "ANTHROPIC_API_KEY is set")


def test_a_key_without_its_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra is missing the next best is taken, and the reason names the extra."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key")
    monkeypatch.setattr(demo, "find_spec", lambda _name: None)
    monkeypatch.setattr(demo, "missing_for_local", lambda: None)
    assert choose_model() == ModelChoice(
        "local:smollm2",
        "ANTHROPIC_API_KEY is set, but models of providers need an extra: `pip install 'perdure[ai]'`; "
        "it runs on this machine, without a network",
    )


def test_the_local_model_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key the local model answers, where it is installed."""
    monkeypatch.setattr(demo, "missing_for_local", lambda: None)
    assert choose_model() == ModelChoice(
        "local:smollm2", "no provider's key is set; it runs on this machine, without a network"
    )
