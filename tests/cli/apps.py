"""The applications that the commands are tried on. ``WORDS`` and ``DELAY_MS`` set how they answer."""

from __future__ import annotations

import os

from perdure import App, ChatRoom, Limits, User

WORDS = os.environ.get("WORDS", "10")
DELAY_MS = os.environ.get("DELAY_MS", "0")


class Room(ChatRoom):
    """Answers with numbered words."""

    model = f"scripted:count={WORDS}&delay_ms={DELAY_MS}"


class Other(ChatRoom):
    """A second class, of rooms without a model."""


def _anyone(_connection: object) -> User:
    return User("someone")


LIMITS = Limits(drain_ms_max=200)

app = App([Room], limits=LIMITS)
two_classes = App([Room, Other], limits=LIMITS, data=os.environ.get("PERDURE_DATA"))
guarded = App([Room], limits=LIMITS, authenticate=_anyone)
not_an_app = 3
