"""`StoredStream`: one stream of an object as the storage knows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

COLUMNS = "id, name, content_type, position, first, bytes, closed, created_ms, options, base, base_end, forks, hidden"


class StoredStream:
    """One stream of an object. Positions count entries from 0.

    ::

        first ...... base_end ........................ materialised ............ position
        | the base's entries | rows in _perdure_segments |  entries in the tail  |

    A stream that is no fork has ``base`` None and ``base_end`` 0.
    """

    __slots__ = (
        "__weakref__",
        "base",
        "base_end",
        "bytes",
        "closed",
        "content_type",
        "created_ms",
        "first",
        "forks",
        "gone",
        "hidden",
        "materialised",
        "name",
        "notes",
        "number",
        "options",
        "position",
        "tail",
        "tail_bytes",
    )

    def __init__(
        self,
        number: int,
        name: str,
        content_type: str,
        position: int = 0,
        first: int = 0,
        size: int = 0,
        closed: int = 0,
        created_ms: int = 0,
        options: bytes | None = None,
        base: StoredStream | None = None,
        base_end: int = 0,
        forks: int = 0,
        hidden: int = 0,
    ) -> None:
        self.number = number
        self.name = name
        self.content_type = content_type
        self.materialised = position
        self.position = position
        self.first = first
        self.bytes = size
        self.closed = bool(closed)
        self.created_ms = created_ms
        self.options = options
        self.base = base
        self.base_end = base_end
        self.forks = forks
        self.hidden = bool(hidden)
        self.tail: list[bytes] = []
        self.tail_bytes = 0
        self.notes: dict[str, bytes] = {}
        """Notes that the rows lack."""
        self.gone = False
        """Whether the stream was deleted, or its creation undone: this handle is of no use any more."""

    def owner_of(self, position: int) -> tuple[StoredStream, int]:
        """Which stream of the chain of bases holds the entry at ``position``, and where its part ends."""
        stream, end = self, self.position
        while stream.base is not None and position < stream.base_end:
            end = min(end, stream.base_end)
            stream = stream.base
        return stream, end

    def bases(self) -> Iterator[StoredStream]:
        """The streams that this one was forked from, nearest first."""
        base = self.base
        while base is not None:
            yield base
            base = base.base

    def saved(self) -> tuple[Any, ...]:
        """What `restore_saved` needs to come back to this moment."""
        return (
            self.position,
            self.materialised,
            self.first,
            self.bytes,
            self.tail[:],
            self.tail_bytes,
            self.closed,
            self.options,
            self.forks,
            self.hidden,
            dict(self.notes),
        )

    def restore_saved(self, saved: tuple[Any, ...]) -> None:
        """Come back to the moment of `saved`."""
        (
            self.position,
            self.materialised,
            self.first,
            self.bytes,
            self.tail,
            self.tail_bytes,
            self.closed,
            self.options,
            self.forks,
            self.hidden,
            self.notes,
        ) = saved
        self.gone = False
