"""A room in which the local language model answers."""

from __future__ import annotations

from perdure import App, ChatRoom


class Room(ChatRoom):
    """Answers briefly, without a key and without a network."""

    model = "local:smollm2?max_tokens=48"


app = App([Room])
