"""What a room knows of its `useAgentChat` clients: who they are, what they asked for, what they get of a leg."""

from __future__ import annotations

import msgspec

from ..objects.connections import Connection
from ..wire.cloudflare_chat import Answer
from .turn import Turn

REMEMBERED_MAX = 256
"""Ids of ended legs, and of clients that left amid one, that are remembered for when they come back."""


class Peer:
    """What the room knows of one client.

    ``offered``: it was offered an answer and has not taken it; until then it gets no live chunks. ``parked``: it has
    asked for an answer that is still to begin, ``probe_id`` being the name of its question. ``expects`` is an answer
    that it has given a result for, whose next leg it awaits. ``fresh``: it may have loaded the conversation before
    it came. ``asked``: it has changed the conversation.
    """

    __slots__ = ("asked", "connection", "expects", "fresh", "offered", "parked", "probe_id")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.offered = False
        self.parked = False
        self.probe_id: str | None = None
        self.expects: str | None = None
        self.fresh = False
        self.asked = False


class Request(msgspec.Struct, frozen=True):
    """A client's request, and what came of it: the leg of an answer.

    ``whole``: the client has nothing of the answer yet, so it gets it from its start; else it gets the leg alone.
    ``message_ids`` are those of the messages that are answered.
    """

    id: str
    connection: Connection
    question_id: str
    answer_id: str
    leg: int = 1
    whole: bool = True
    message_ids: tuple[str, ...] = ()


class Direct:
    """A client that gets the running leg under the id of a request of its own."""

    __slots__ = ("answer", "request", "skip")

    def __init__(self, request: Request, skip: int) -> None:
        self.request = request
        self.answer = Answer(request.id)
        self.skip = skip


class Live:
    """The running leg, as it is shown: ``earlier`` chunks of the legs before it stand in for its ``start``."""

    __slots__ = ("answer", "direct", "earlier", "message_ids", "taken", "turn")

    def __init__(self, turn: Turn, answer: Answer, message_ids: tuple[str, ...], earlier: int) -> None:
        self.turn = turn
        self.answer = answer
        self.message_ids = message_ids
        self.earlier = earlier
        self.direct: dict[Connection, Direct] = {}
        self.taken: set[Peer] = set()
        """Who has taken the offer of it."""

    @property
    def skip(self) -> int:
        """Chunks of the leg that are not shown to all: its ``start``, where earlier ones have been."""
        return 1 if self.turn.leg > 1 else 0

    @property
    def names(self) -> tuple[str, str]:
        """The ids that anyone may know it by."""
        return self.answer.request_id, self.turn.answer.id


def remember(memory: dict[str, str], name: str, value: str) -> None:
    """Keep the newest."""
    memory.pop(name, None)
    memory[name] = value
    if len(memory) > REMEMBERED_MAX:
        del memory[next(iter(memory))]
