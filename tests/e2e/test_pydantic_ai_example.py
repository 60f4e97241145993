"""`examples/pydantic-ai` in a real browser: the agent's tool, its question, a kill between question and answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import OpenTab, run_served
from tests.e2e.served import SOURCES, Served

pytest.importorskip("pydantic_ai", reason="`pip install 'perdure[ai]'`")

EXAMPLE = Path(__file__).parents[2] / "examples" / "pydantic-ai"
COMPLETE = ".assistant[data-status=complete]"
WAITING = ".assistant[data-status=waiting]"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Served]:
    """The example's server."""
    path = os.pathsep.join((str(EXAMPLE), str(SOURCES)))
    yield from run_served(Served(tmp_path, "app:app", PYTHONPATH=path, MODEL=""))


def test_an_agents_tool_and_its_approval(open_tab: OpenTab, shop: Served) -> None:
    """What the README says: bells are counted, an order waits over the kill, and is made when somebody agrees."""
    tab = open_tab("shop", url=shop.url)
    page = tab.page
    tab.say("How many bells are there?")
    page.wait_for_selector(COMPLETE)
    assert page.inner_text(".tool-name") == "stock"
    assert page.text_content(".tool-output") == "12"
    assert tab.answers() == ["The tool stock says: 12."]
    tab.say("Order 3 bells")
    page.wait_for_selector(WAITING)
    assert page.inner_text(f"{WAITING} .tool-state") == "Needs approval"
    tab.picture("agent-approval")
    shop.restart_after_kill()
    tab.wait_online()
    page.click(".approve:visible")
    tab.until(lambda: tab.answers()[-1] == "The tool order says: ordered 3.")
    assert page.inner_text(f"{COMPLETE} >> nth=1 >> .tool-state") == "Done"
