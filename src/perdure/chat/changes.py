"""Which older messages have changed lately: an approval came in, a result, another leg of an answer began.

A client's offset says up to which change it knows the room. The newest `CHANGES_KEPT` are kept, so one that was
away for longer gets everything instead of what it missed.

Stored under one key: ``{"count": 7, "messages": [[seq, change], ...]}``, oldest change first, each message once.
"""

from __future__ import annotations

from functools import cached_property

import msgspec

from ..storage.object_storage import Storage

CHANGES_KEPT = 64
"""Changed messages that are remembered one by one."""

_KEY = "_room_changes"


class _Stored(msgspec.Struct):
    count: int = 0
    messages: list[tuple[int, int]] = []


class Changes:
    """The room's changes of older messages, counted."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @cached_property
    def _stored(self) -> _Stored:
        return self._storage.get(_KEY, None, type=_Stored) or _Stored()

    @property
    def count(self) -> int:
        """How many there were."""
        return self._stored.count

    def add(self, seq: int) -> None:
        """The message with that number has changed."""
        stored = self._stored
        stored.count += 1
        others = [item for item in stored.messages if item[0] != seq]
        stored.messages = [*others, (seq, stored.count)][-CHANGES_KEPT:]
        self._storage.put(_KEY, stored)

    def since(self, count: int) -> list[int] | None:
        """The messages that changed after the first ``count`` changes, oldest first; None where that is not known."""
        stored = self._stored
        if not 0 <= count <= stored.count:
            return None
        if len(stored.messages) == CHANGES_KEPT and count < stored.messages[0][1] - 1:
            return None
        return sorted(seq for seq, change in stored.messages if change > count)
