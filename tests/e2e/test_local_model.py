"""The whole path with a real language model: a browser, a server, SmolLM2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import OpenTab, run_served
from tests.e2e.served import Served
from tests.requirements import need

from perdure.models.local import HOW_TO_INSTALL, missing_for_local

# Looked for here: while Playwright's loop runs, code of ours that touches files counts as blocking it.
MISSING = missing_for_local()


@pytest.fixture
def speaking(tmp_path: Path) -> Iterator[Served]:
    """A server whose rooms the local model answers."""
    need("the local model", MISSING is None, HOW_TO_INSTALL)
    yield from run_served(Served(tmp_path, "local_room:app"))


def test_a_language_model_answers_over_a_reload(open_tab: OpenTab, speaking: Served) -> None:
    """It speaks of what it was asked; what was seen before the reload is the beginning of what is there at last."""
    tab = open_tab("hello", url=speaking.url)
    tab.say("Tell me about Paris, the capital of France.")
    tab.until(lambda: len(tab.answers()[-1:]) == 1 and len(tab.answers()[-1].split()) >= 5)
    before = tab.answers()[-1]
    tab.reload()
    tab.wait_settled()
    tab.picture("local-model")
    assert tab.status() == "complete"
    assert "Paris" in tab.answers()[0]
    assert tab.answers()[0].startswith(before)
