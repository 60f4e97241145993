"""A room whose model is a pydantic-ai agent, with a tool, and one that a person must agree to. Needs ``perdure[ai]``.

    cd examples/pydantic-ai && perdure run app:app

Ask ``How many bells are there?``, then ``Order 3 bells``. Without a key the agent runs on a stand-in for a
provider, which understands little more than that; ``MODEL=anthropic:claude-haiku-4-5`` gives it a real one.
"""

import os

from pydantic_ai import Agent
from stand_in import stand_in

from perdure import App, ChatRoom
from perdure.models.pydantic_ai import current_call

STOCK = {"bell": 12, "pump": 0}
ORDERS: dict[str, tuple[str, int]] = {}

agent = Agent(os.environ.get("MODEL") or stand_in, instructions="You help the owner of a bicycle shop.")


@agent.tool_plain
def stock(article: str) -> int:
    """How many of an article the shop has."""
    return STOCK.get(article, 0)


@agent.tool_plain(requires_approval=True)
def order(article: str, count: int) -> str:
    """Order an article from the wholesaler."""
    ORDERS[current_call().idempotency_key] = (article, count)
    return f"ordered {count}"


class Shop(ChatRoom):
    model = agent


app = App([Shop])
