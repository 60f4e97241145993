"""The example of a pydantic-ai agent in a room, as its README says: a tool, an approval, a restart between."""

from __future__ import annotations

import runpy
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.running import eventually, serving

pytest.importorskip("pydantic_ai", reason="`pip install 'perdure[ai]'`")

pytestmark = pytest.mark.anyio

EXAMPLE = Path(__file__).parents[2] / "examples" / "pydantic-ai"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MODEL", raising=False)
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.delitem(sys.modules, "stand_in", raising=False)


@asynccontextmanager
async def _served() -> AsyncIterator[tuple[httpx2.AsyncClient, dict[str, Any]]]:
    """A server of its own, with nothing in memory of the one before."""
    namespace = runpy.run_path(str(EXAMPLE / "app.py"), run_name="app")
    async with serving(namespace["app"]) as address:
        async with httpx2.AsyncClient(base_url=f"http://{address}", timeout=10) as http:
            yield http, namespace


async def _parts(http: httpx2.AsyncClient) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = (await http.get("/api/chat/shop/messages")).json()[-1]["parts"]
    return parts


async def _say(http: httpx2.AsyncClient, text: str) -> None:
    assert (await http.post("/rpc/Shop/shop/submit", json=[text])).status_code == 200


async def _until(http: httpx2.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    """The newest message's parts, when one of them has these fields."""

    async def there() -> bool:
        return any(fields.items() <= part.items() for part in await _parts(http))

    await eventually(there)
    return await _parts(http)


async def test_a_tool_an_approval_and_a_restart() -> None:
    """The order waits for a person over the restart, and is carried out once."""
    async with _served() as (http, namespace):
        await _say(http, "How many bells are there?")
        parts = await _until(http, type="text", text="The tool stock says: 12.")
        calls = [(part["toolName"], part["input"], part["output"]) for part in parts if "output" in part]
        assert calls == [("stock", {"article": "bell"}, 12)]
        await _say(http, "Order 3 bells")
        asked = [part for part in await _until(http, state="approval-requested") if "approval" in part]
        assert namespace["ORDERS"] == {}
    async with _served() as (http, namespace):
        assert (await _parts(http))[-1]["state"] == "approval-requested"
        for _ in range(2):
            reply = await http.post("/rpc/Shop/shop/approve", json=[asked[0]["approval"]["id"]])
            assert reply.status_code == 200
        await _until(http, type="text", text="The tool order says: ordered 3.")
        assert list(namespace["ORDERS"].values()) == [("bell", 3)]


async def test_a_denied_order_is_not_made() -> None:
    """The agent is told why."""
    async with _served() as (http, namespace):
        await _say(http, "Order 3 bells")
        asked = [part for part in await _until(http, state="approval-requested") if "approval" in part]
        await http.post("/rpc/Shop/shop/approve", json=[asked[0]["approval"]["id"], False, "too dear"])
        await _until(http, type="text", text="The tool order says: too dear.")
        assert namespace["ORDERS"] == {}
