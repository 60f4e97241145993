"""One subscription as plain data, and what it asks of the object that runs it.

`SubscriptionState` is stored as JSON and comes back as it was::

    {"id": "sub-1", "created_at_ms": 1778324210000, "seed": "<32 hexadecimal digits>",
     "config": {"type": "webhook", "pattern": "events/*", "webhook_url": "https://...", ...},
     "links": {"events/a": {"glob": true, "acked": "0000000000000001", "tail": "0000000000000002",
                            "stream": "07.3"}},
     "generation": 7,
     "wake": {"wake_id": "w_...", "stream": "events/a", "phase": "sent", "lease_deadline_ms": ...,
              "snapshot": {"events/a": "0000000000000002"}},
     "retry_count": 0, "not_before_ms": null, "status": "active", "last_listed": ""}

With many links, store ``head()`` and each link by itself: `Subscription.take_changes` says which.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ..wire.subscriptions import (
    BEFORE_FIRST_OFFSET,
    LinkType,
    StreamInfo,
    SubscriptionConfig,
    SubscriptionStatus,
    is_after,
)

Phase = Literal["waiting", "sending", "sent"]
"""Of a wake: ``waiting`` for its next try, ``sending`` (asked for, no result yet), ``sent``."""


class Link(msgspec.Struct, omit_defaults=True):
    """A stream that is watched: by the pattern (``glob``), by name (``explicit``), or both.

    ``acked`` is what a worker is done with, ``tail`` the newest that is known of the stream. ``stream``
    tells it from others that had its path, or will have it; empty where nobody has said.
    """

    glob: bool = False
    explicit: bool = False
    acked: str = BEFORE_FIRST_OFFSET
    tail: str = BEFORE_FIRST_OFFSET
    stream: str = ""

    @property
    def pending(self) -> bool:
        """Whether there is something that no worker is done with."""
        return is_after(self.tail, self.acked)

    def info(self, path: str) -> StreamInfo:
        """The link as workers see it. By name counts more than by pattern."""
        link_type: LinkType = "explicit" if self.explicit else "glob"
        return StreamInfo(path, link_type, self.acked, self.tail, self.pending)


class Wake(msgspec.Struct, omit_defaults=True):
    """The wake that is out; there is one at most, and ``generation`` counts them.

    ``stream`` is the one that caused it. ``snapshot`` has the tails that the last webhook named,
    by path: what its receiver acknowledges by ``{"done": true}``. ``lease_deadline_ms`` is when the
    wake ends unless it is kept alive; none while it waits for its next try, and none for a wake
    in a wake stream that nobody has claimed yet.
    """

    wake_id: str
    stream: str
    phase: Phase = "waiting"
    holder: str | None = None
    lease_deadline_ms: int | None = None
    snapshot: dict[str, str] = {}


class SubscriptionState(msgspec.Struct, omit_defaults=True):
    """All that is to be kept of a subscription.

    ``seed`` is random and secret: wake ids and the jitter of retries come from it, so that a
    restored subscription goes on exactly as the one that was stored would have.
    ``not_before_ms`` is the retry schedule: no delivery before, whatever the generation.
    ``last_listed`` is where the last list of streams ended that was too short for all the work.
    """

    id: str
    config: SubscriptionConfig
    created_at_ms: int
    seed: str
    links: dict[str, Link] = {}
    generation: int = 0
    wake: Wake | None = None
    retry_count: int = 0
    not_before_ms: int | None = None
    status: SubscriptionStatus = "active"
    last_listed: str = ""

    def head(self) -> SubscriptionState:
        """The same without its links."""
        return msgspec.structs.replace(self, links={})


class DeliverWebhook(msgspec.Struct, frozen=True):
    """Post to ``url``. Report the outcome by `Subscription.delivered` or `Subscription.failed`.

    Give up after the lease's time at the latest: then the wake is over.
    """

    url: str
    wake_id: str
    generation: int
    streams: tuple[StreamInfo, ...]


class AppendWake(msgspec.Struct, frozen=True):
    """Append a wake event to ``wake_stream``, and report the outcome as for a webhook.

    The append is no news for subscriptions: two that watch each other's wake streams would wake
    each other for ever.
    """

    wake_stream: str
    wake_id: str
    generation: int
    stream: str


class SetTimer(msgspec.Struct, frozen=True):
    """Call `Subscription.time_passed` at that time, and forget the timer before; None: no timer."""

    at_ms: int | None


Effect = DeliverWebhook | AppendWake | SetTimer


class Changes(msgspec.Struct, frozen=True):
    """What differs from what was stored: ``head``, and links by path; those that are gone were removed."""

    head: bool
    links: frozenset[str]
