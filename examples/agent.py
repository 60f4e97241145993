"""An agent that watches web addresses, whether anyone looks or not. Its state is what all its clients see.

perdure run agent:app

curl -d '["http://127.0.0.1:8000/healthz", 5]' http://127.0.0.1:8000/rpc/Watch/mine/watch
curl -d '[]' http://127.0.0.1:8000/rpc/Watch/mine/report

In React, with Cloudflare's `agents` package: useAgent({ agent: "watch", name: "mine", onStateUpdate })
"""

from typing import Any, ClassVar

import httpx2

from perdure import Agent, App, callable


class Watch(Agent):
    """One person's addresses, and how each was when it was last looked at."""

    initial_state: ClassVar[dict[str, Any]] = {}

    @callable
    async def watch(self, url: str, every_s: float = 60) -> None:
        """Look now, and again and again. Asked twice it watches once."""
        self.schedule_every(every_s, self.look, url)
        self.queue(self.look, url)

    @callable
    async def forget(self, url: str) -> None:
        for schedule in self.list_schedules("look"):
            if schedule.payload == url:
                self.cancel_schedule(schedule.id)
        self.set_state({known: found for known, found in self.state.items() if known != url})

    @callable
    async def report(self) -> dict[str, Any]:
        return dict(self.state)

    async def look(self, url: str) -> None:
        async def ask() -> int:
            async with httpx2.AsyncClient(timeout=10) as http:
                return (await http.get(url)).status_code

        try:
            found = f"answers {await self.retry(ask)}"
        except httpx2.HTTPError as error:
            found = f"does not answer: {type(error).__name__}"
        self.set_state({**self.state, url: {"found": found, "at_ms": self.now_ms()}})


app = App([Watch])
