"""The applications that the commands are tried on. ``WORDS``, ``DELAY_MS`` and ``TOOL`` set how they answer."""

from __future__ import annotations

import os
from typing import ClassVar

from perdure import App, ChatRoom, Limits, User, tool

WORDS = os.environ.get("WORDS", "10")
DELAY_MS = os.environ.get("DELAY_MS", "0")


class Room(ChatRoom):
    """Answers with numbered words."""

    model = f"scripted:count={WORDS}&delay_ms={DELAY_MS}"


class Desk(ChatRoom):
    """Calls a tool, and says what it gave."""

    model = f"scripted:tool={os.environ.get('TOOL', 'refund')}"

    @tool(approval=True)
    def refund(self, order: int) -> str:
        """Give the money back."""
        return f"order {order} refunded"

    @tool(client=True)
    def locate(self) -> str:
        """Where the person is."""
        raise NotImplementedError


class Table(ChatRoom):
    """Has two models."""

    models: ClassVar[dict[str, str]] = dict.fromkeys(("one", "two"), f"scripted:count={WORDS}")


class Other(ChatRoom):
    """A second class, of rooms without a model."""


def _anyone(_connection: object) -> User:
    return User("someone")


LIMITS = Limits(drain_ms_max=200)

app = App([Room], limits=LIMITS)
desk = App([Desk], limits=LIMITS)
table = App([Table], limits=LIMITS)
two_classes = App([Room, Other], limits=LIMITS, data=os.environ.get("PERDURE_DATA"))
guarded = App([Room], limits=LIMITS, authenticate=_anyone)
not_an_app = 3
