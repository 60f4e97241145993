"""A pydantic-ai Agent with a tool as a room's model. Needs ``perdure[ai]``.

    perdure run pydantic_ai_room:app

The agent here runs on pydantic-ai's own stand-in for a provider, so that it needs no key. For a real
one write `Agent("anthropic:claude-haiku-4-5", ...)`; nothing else changes.
"""

from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from perdure import App, ChatRoom

STOCK = {"bell": 12, "pump": 0}

agent = Agent(
    TestModel(custom_output_text="There are 12 bells left."),
    instructions="You help customers of a bicycle shop.",
)


@agent.tool_plain
def stock() -> dict[str, int]:
    """What the shop has, by article."""
    return STOCK


class Shop(ChatRoom):
    model = agent


app = App([Shop])
