"""Agents behind a real server: called over HTTP, stopped, killed and started again on real files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.running import eventually, killed, running, serving

from perdure import Agent, App, Limits, callable, current_agent
from perdure.agents import FiberContext

pytestmark = pytest.mark.anyio


class Kitchen(Agent):
    """Cooks what is ordered."""

    @callable
    async def order(self, dish: str, after_s: float) -> None:
        self.queue(self.note_down, dish)
        self.schedule(after_s, self.cook, dish)
        self.start_fiber("stew", self.stew, dish)

    @callable
    async def follow(self, count: int) -> AsyncIterator[int]:
        """Counts, as long as someone listens."""
        try:
            for number in range(count):
                yield number
                await asyncio.sleep(0.01)
        finally:
            self.storage.put("left", True)

    @callable
    async def done(self) -> dict[str, str]:
        return self.storage.list()

    @callable
    async def assistant(self, name: str) -> list[str]:
        await (await self.sub_agent(Kitchen, name)).order("bread", 0)
        return [child.name for child in self.list_sub_agents()]

    def note_down(self, dish: str) -> None:
        self.storage.put("noted", dish)

    def cook(self, dish: str) -> None:
        current = current_agent()
        assert current is not None
        self.storage.put("cooked", f"{dish} by {current.agent.name}")

    async def stew(self, fiber: FiberContext) -> None:
        for hour in range(fiber.stashed or 0, 5):
            await asyncio.sleep(0.1)
            self.storage.put(f"hour {hour}", fiber.payload)
            fiber.stash(hour + 1)


async def _post(address: str, path: str, arguments: list[object]) -> Any:
    async with httpx2.AsyncClient(base_url=f"http://{address}", timeout=20) as http:
        reply = await http.post(path, json=arguments)
        assert reply.status_code == 200, reply.text
        return reply.json()["result"]


async def test_work_goes_on_after_a_stop(tmp_path: Path) -> None:
    """What was ordered over HTTP is done, whether the server is stopped between or not."""
    limits = Limits(drain_ms_max=50)
    async with serving(App([Kitchen], data=tmp_path, limits=limits)) as address:
        await _post(address, "/rpc/Kitchen/a/order", ["soup", 0.6])
        await asyncio.sleep(0.15)
    async with serving(App([Kitchen], data=tmp_path, limits=limits)) as address:

        async def all_done() -> bool:
            return len(await _post(address, "/rpc/Kitchen/a/done", [])) == 7

        await eventually(all_done)
        done = await _post(address, "/rpc/Kitchen/a/done", [])
        assert done == {"cooked": "soup by a", **{f"hour {hour}": "soup" for hour in range(5)}, "noted": "soup"}


async def test_a_child_has_an_address(tmp_path: Path) -> None:
    """The name of the parent, a slash, its own name."""
    async with serving(App([Kitchen], data=tmp_path)) as address:
        assert await _post(address, "/rpc/Kitchen/a/assistant", ["b"]) == ["b"]

        async def cooked() -> bool:
            done = await _post(address, "/rpc/Kitchen/a%2Fb/done", [])
            return bool(done.get("cooked") == "bread by a/b")

        await eventually(cooked)


async def test_values_stream(tmp_path: Path) -> None:
    """An async generator's values are events; when its reader leaves, it is closed."""
    async with serving(App([Kitchen], data=tmp_path)) as address, httpx2.AsyncClient(timeout=20) as http:
        url = f"http://{address}/rpc/Kitchen/a/follow"
        reply = await http.post(url, json=[3])
        assert reply.text == "data: 0\n\ndata: 1\n\ndata: 2\n\nevent: done\ndata: {}\n\n"
        async with http.stream("POST", url, json=[100_000]) as streaming:
            async for _ in streaming.aiter_lines():
                break

        async def left() -> bool:
            return bool((await _post(address, "/rpc/Kitchen/a/done", [])).get("left"))

        await eventually(left)


async def test_work_goes_on_after_a_kill(tmp_path: Path) -> None:
    """On uvloop, with the journal's own thread."""
    async with running(tmp_path / "a", Kitchen) as runtime:
        await runtime.get(Kitchen, "a").order("soup", 0.3)
        await asyncio.sleep(0.12)
        folder = await killed(runtime, tmp_path / "b")
    async with running(folder, Kitchen) as runtime:

        async def all_done() -> bool:
            return len(await runtime.get(Kitchen, "a").done()) == 7

        await eventually(all_done)
