"""docs/how-to/observe.md lists the metrics that a server has."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2
import pytest
from tests.docs.pages import REPOSITORY, rows, sections
from tests.running import HURRIED, serving

from perdure import App, ChatRoom

pytestmark = pytest.mark.anyio

PAGE = REPOSITORY / "docs" / "how-to" / "observe.md"


class Support(ChatRoom):
    """A room."""

    model = "scripted:echo"


async def test_the_metrics_are_all_there(tmp_path: Path) -> None:
    """Each has its row, and there is no other. (When each was created is told by the library, of itself.)"""
    async with serving(App([Support], data=tmp_path, limits=HURRIED)) as address:
        async with httpx2.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://{address}/metrics")).text
    listed = [row[0].strip("`") for row in rows(sections(PAGE)["Metrics"])]
    served = [name for name in re.findall(r"^# TYPE (perdure_\w+) ", text, re.MULTILINE) if name[-8:] != "_created"]
    assert sorted(listed) == sorted(served)
