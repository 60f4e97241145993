"""Which agent the running code belongs to, where a task does not end as tasks do."""

from __future__ import annotations

import asyncio
import contextvars
from typing import cast

from perdure.agents.agent import Agent
from perdure.agents.current import acting, current_agent


def test_work_that_was_thrown_away() -> None:
    """A coroutine whose loop is gone may be closed from any context: nothing of its own is undone there."""
    agent = cast("Agent", object())

    async def work() -> None:
        with acting(agent):
            await asyncio.sleep(0)

    coroutine = work()
    contextvars.copy_context().run(coroutine.send, None)
    coroutine.close()
    assert current_agent() is None
