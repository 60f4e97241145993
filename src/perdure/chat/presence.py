"""Who is in a room just now, and who is typing.

Presence is what the connections say, and nothing of it is stored: a room that wakes looks at the connections
that it has. It costs nothing while nobody listens: room clients listen with ``?presence=1``, other surfaces
with `Presence.add_listener`.

A reload is a leave and a join within a second. So a name (or a second tab) that is gone is shown for another
`LEAVE_MS`, and joins that come together are told together. Who is typing says so again and again; `TYPING_MS`
after the last time it is over.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from ..objects.connections import Connection
from ..wire.room import USER_NAME_BYTES_MAX, Person, presence_frame

JOIN_MS = 150
"""Joins within this time are told in one frame."""

LEAVE_MS = 2_000
"""How long one who has left is still shown: a reload takes less."""

TYPING_MS = 6_000
"""How long one "I am typing" holds; clients say it again every three seconds or so."""

LISTENER_MS = 1
"""Time between two frames, for each client that listens: a crowd is told less often, so that it costs the same."""

PEOPLE_MAX = 100
"""Names in one presence frame; of those beyond it only the number is told."""

PRESENCE = "presence"
"""The tag of room clients that listen."""


class Here(NamedTuple):
    """Who is here: names, sorted; ``guests`` without a name; ``more`` names beyond `PEOPLE_MAX`."""

    people: tuple[Person, ...] = ()
    guests: int = 0
    more: int = 0


def name_of(connection: Connection) -> str:
    """The name that a connection goes by: the authenticated one, else the one it gave itself; "" for none.

    Nobody may say anything under a longer name (``user_name_bytes_max``), so no more of it is shown.
    """
    return (connection.user or connection.query.get("user") or "")[:USER_NAME_BYTES_MAX]


class PresenceState:
    """The rules, without a clock: ``now_s`` is any clock in seconds that never goes back."""

    def __init__(self) -> None:
        self._typing: dict[str, float] = {}
        self._held: dict[str, tuple[int, float]] = {}

    def typing(self, connection_id: str, now_s: float) -> None:
        """This connection's person is typing."""
        self._typing[connection_id] = now_s + TYPING_MS / 1000

    def typed(self, connection_id: str) -> bool:
        """They are not any more; whether they were."""
        return self._typing.pop(connection_id, None) is not None

    def left(self, name: str, before: int, now_s: float) -> None:
        """One of ``before`` connections of that name is gone; it is shown for a while.

        One without a name is not: they may be back in a moment, with a name that they have given themselves.
        """
        if not name:
            return
        held = self._held.get(name)
        count = before if held is None or held[1] <= now_s else max(before, held[0])
        self._held[name] = (count, now_s + LEAVE_MS / 1000)

    def here(self, connections: Iterable[tuple[str, str]], now_s: float) -> Here:
        """Who is shown, given the connections' ids and names."""
        tabs: Counter[str] = Counter()
        writing: set[str] = set()
        for connection_id, name in connections:
            tabs[name] += 1
            if self._typing.get(connection_id, 0.0) > now_s:
                writing.add(name)
        for name, (count, until_s) in self._held.items():
            if until_s > now_s:
                tabs[name] = max(tabs[name], count)
        guests = tabs.pop("", 0)
        people = [Person(name, count, name in writing) for name, count in sorted(tabs.items())]
        return Here(tuple(people[:PEOPLE_MAX]), guests, max(0, len(people) - PEOPLE_MAX))

    def next_expiry(self, now_s: float) -> float | None:
        """When someone stops being shown or typing by themselves; what is over already is forgotten."""
        self._typing = {key: until_s for key, until_s in self._typing.items() if until_s > now_s}
        self._held = {name: held for name, held in self._held.items() if held[1] > now_s}
        return min([*self._typing.values(), *(until_s for _, until_s in self._held.values())], default=None)


class PresenceContext(Protocol):
    """What presence needs of the room's instance."""

    def connections(self, tag: str | None = None) -> tuple[Connection, ...]: ...
    def broadcast(self, frame: bytes, text: bool, tag: str | None, without: Connection | None) -> None: ...
    def background(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]: ...


class Presence:
    """Watches a room's connections, whatever protocol they speak, and tells those that listen."""

    def __init__(self, context: PresenceContext) -> None:
        self._context = context
        self._state = PresenceState()
        self._listeners: list[Callable[[Here], None]] = []
        self._new: list[Connection] = []
        self._told: Here | None = None
        self._at_s: float | None = None
        self._not_before_s = 0.0
        self._sooner = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add_listener(self, listener: Callable[[Here], None]) -> None:
        """Call ``listener`` with who is here, now and whenever it changes."""
        self._listeners.append(listener)
        self._told = None
        self._tell_in(0)

    def remove_listener(self, listener: Callable[[Here], None]) -> None:
        """Call it no more."""
        self._listeners.remove(listener)

    @property
    def here(self) -> Here:
        """Who is here now."""
        found = ((connection.id, name_of(connection)) for connection in self._context.connections())
        return self._state.here(found, _now_s())

    # --- what the room's surfaces report

    def joined(self, connection: Connection) -> None:
        """A connection of any protocol has come."""
        if PRESENCE in connection.tags:
            self._new.append(connection)
        if self._listening:
            self._tell_in(JOIN_MS)

    def left(self, connection: Connection) -> None:
        """A connection of any protocol is gone."""
        if not self._listening:
            return
        name = name_of(connection)
        remaining = sum(name_of(other) == name for other in self._context.connections() if other is not connection)
        self._state.typed(connection.id)
        self._state.left(name, remaining + 1, _now_s())
        self._tell_in(LEAVE_MS)

    def typing(self, connection: Connection, typing: bool = True) -> None:
        """The connection's person is typing, or not any more. A message that is sent ends it, too."""
        if not self._listening:
            return
        if typing:
            self._state.typing(connection.id, _now_s())
        elif not self._state.typed(connection.id):
            return
        self._tell_in(JOIN_MS)

    # --- telling

    @property
    def _listening(self) -> bool:
        return bool(self._listeners or self._context.connections(PRESENCE))

    def _tell_in(self, delay_ms: int) -> None:
        self._tell_at(_now_s() + delay_ms / 1000)
        if self._task is None or self._task.done():
            # In the background: what is due is told before the room sleeps.
            self._task = self._context.background(self._run(), "presence")

    def _tell_at(self, at_s: float) -> None:
        at_s = max(at_s, self._not_before_s)
        if self._at_s is None or at_s < self._at_s:
            self._at_s = at_s
            self._sooner.set()

    async def _run(self) -> None:
        while self._at_s is not None:
            if self._at_s > _now_s():
                self._sooner.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self._at_s):
                        await self._sooner.wait()
                continue
            self._at_s = None
            self._tell()
            expiry_s = self._state.next_expiry(_now_s())
            if expiry_s is not None:
                self._tell_at(expiry_s)

    def _tell(self) -> None:
        here = self.here
        new, self._new = self._new, []
        if here == self._told:
            for connection in new:
                connection.send_frame(_frame(here))
            return
        self._told = here
        listening = len(self._context.connections(PRESENCE))
        if listening:
            self._not_before_s = _now_s() + listening * LISTENER_MS / 1000
            self._context.broadcast(_frame(here), True, PRESENCE, None)
        for listener in self._listeners:
            listener(here)


def _frame(here: Here) -> bytes:
    return presence_frame(here.people, guests=here.guests, more=here.more)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
