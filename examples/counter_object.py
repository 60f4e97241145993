"""An object that is no chat: values by key, a table of its own, methods to call.

python counter_object.py                     calls it from Python
perdure run counter_object:app               serves it:

curl -d '[5]' http://127.0.0.1:8000/rpc/Counter/visits/add
curl -d '{"limit": 2}' http://127.0.0.1:8000/rpc/Counter/visits/biggest
curl -d '[]' http://127.0.0.1:8000/rpc/Counter/visits/countdown      (streams)
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from perdure import App, DurableObject, callable


class Counter(DurableObject):
    """A number that survives everything, and how it came about."""

    migrations = ("CREATE TABLE steps(at_ms INTEGER NOT NULL, amount INTEGER NOT NULL)",)

    @callable
    async def add(self, amount: int = 1) -> int:
        """Both writes are one commit, and the caller hears of it when that is on the disk."""
        value: int = self.storage.get("value", 0) + amount
        self.storage.put("value", value)
        self.storage.sql("INSERT INTO steps VALUES(?, ?)", self.now_ms(), amount)
        return value

    @callable
    async def biggest(self, limit: int = 3) -> list[dict[str, Any]]:
        return self.storage.sql("SELECT amount FROM steps ORDER BY amount DESC LIMIT ?", limit)

    @callable
    async def countdown(self) -> AsyncIterator[int]:
        for number in range(self.storage.get("value", 0), -1, -1):
            yield number


app = App([Counter])


async def main() -> None:
    async with app.lifespan():
        visits = app.get(Counter, "visits")
        print("now", await visits.add(2))
        print("biggest", await visits.biggest())
        async for number in visits.countdown():
            print(number)


if __name__ == "__main__":
    asyncio.run(main())
