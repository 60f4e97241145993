"""What an agent tells about its durable work."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Schedule(msgspec.Struct, frozen=True):
    """A callback at a time.

    ``due_ms`` (Unix) is when it runs next, or is tried again after ``attempts`` failures; ``planned_ms`` is the time
    that this run is for. So ``id`` and ``planned_ms`` name a run, whatever crashes and retries it goes through.
    """

    id: str
    kind: Literal["once", "cron", "every"]
    callback: str
    payload: Any
    due_ms: int
    planned_ms: int
    attempts: int = 0
    cron: str | None = None
    time_zone: str | None = None
    interval_ms: int | None = None


class QueueItem(msgspec.Struct, frozen=True):
    """A callback that waits for those before it. ``due_ms`` is when it may be tried next."""

    id: str
    callback: str
    payload: Any
    created_ms: int
    due_ms: int
    attempts: int = 0


class DeadLetter(msgspec.Struct, frozen=True):
    """Work that failed as often as it may. ``source_id`` is the id of the schedule or the queue's item."""

    id: str
    source: Literal["schedule", "queue", "alarm"]
    source_id: str
    callback: str
    payload: Any
    attempts: int
    error: str
    died_ms: int


FiberStatus = Literal["running", "completed", "failed", "cancelled", "interrupted"]


class Fiber(msgspec.Struct, frozen=True):
    """Long work and where it stands. ``interruptions`` counts the crashes that it has been through."""

    id: str
    name: str
    status: FiberStatus
    payload: Any
    stash: Any
    interruptions: int
    created_ms: int
    ended_ms: int | None = None
    result: Any = None
    error: str | None = None
    idempotency_key: str | None = None
