"""The output gate: nothing leaves an object before the writes that it depends on are durable.

Each effect (a frame to a client, a reply, the publishing of stream entries) is tied to the
newest commit of its object at that moment:

    turn's effects      after writes that are not committed yet
    waiting effects     committed with a sequence number that is not durable yet
    free                nothing before it is unsaved: the effect happens at once

Effects happen in the order in which they were given, also across the three. When storage
fails the gate breaks: what waited never happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

Effect = Callable[..., object]


class Answer:
    """An effect that someone waits for: it is told when it will never happen."""

    __slots__ = ()

    def __call__(self) -> None:
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """The writes before it were lost."""
        raise NotImplementedError


class OutputGate:
    """The gate of one instance."""

    __slots__ = ("_turn", "_waiting", "broken")

    def __init__(self) -> None:
        self._turn: list[tuple[Effect, tuple[Any, ...]]] = []
        self._waiting: deque[tuple[int, list[tuple[Effect, tuple[Any, ...]]]]] = deque()
        self.broken = False

    def submit(self, dirty: bool, effect: Effect, *arguments: Any) -> None:
        """Let ``effect`` happen when everything written before it is durable; ``dirty``: something is uncommitted."""
        if self.broken:
            return
        if dirty or self._turn:
            self._turn.append((effect, arguments))
        elif self._waiting:
            self._waiting[-1][1].append((effect, arguments))
        else:
            effect(*arguments)

    def commit(self, sequence: int) -> None:
        """The turn was committed with this sequence number."""
        self._waiting.append((sequence, self._turn))
        self._turn = []

    def release(self, durable_sequence: int) -> None:
        """Commits up to ``durable_sequence`` are durable."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= durable_sequence:
            # The entry stays at the front while its effects happen: what they submit queues behind them.
            effects = waiting[0][1]
            for effect, arguments in effects:
                effect(*arguments)
            waiting.popleft()

    def discard(self) -> list[tuple[Effect, tuple[Any, ...]]]:
        """Break the gate; return what will never happen (so that waiting callers can be told)."""
        self.broken = True
        lost = [item for _, effects in self._waiting for item in effects] + self._turn
        self._waiting.clear()
        self._turn = []
        return lost

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting and not self._turn
