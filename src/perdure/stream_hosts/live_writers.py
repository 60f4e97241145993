"""Which streams this process itself is writing."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakKeyDictionary

from ..objects.runtime import Runtime


class Stoppable(Protocol):
    """A writer, as far as others care."""

    def stop(self) -> None:
        """End the stream early."""


_WRITERS: WeakKeyDictionary[Runtime, dict[str, Stoppable]] = WeakKeyDictionary()


def live_writers(runtime: Runtime) -> dict[str, Stoppable]:
    """The writers at work, by the paths of their streams."""
    return _WRITERS.setdefault(runtime, {})
