"""Answer with code of your own: `respond` yields text.

    perdure run own_model:app

After a crash `respond` runs again with ``turn.partial``, what was already said and seen: go on after it.
"""

import asyncio
from collections.abc import AsyncIterator

from perdure import App, ChatRoom, TurnContext


class Backwards(ChatRoom):
    """Says every word in reverse order."""

    async def respond(self, turn: TurnContext) -> AsyncIterator[str]:
        answer = " ".join(reversed(turn.text.split()))
        rest = answer.removeprefix(turn.partial)
        for at in range(0, len(rest), 4):
            await asyncio.sleep(0.02)
            yield rest[at : at + 4]


app = App([Backwards])
