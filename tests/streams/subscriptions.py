"""Subscriptions in the states that tests begin with."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perdure.streams.subscription import Subscription
from perdure.streams.subscription_state import (
    SubscriptionState,
)
from perdure.wire.subscriptions import (
    StreamInfo,
    SubscriptionConfig,
    SubscriptionError,
)

NOW = 1_778_324_210_000
LEASE = 30_000
URL = "https://worker.example/hooks"
HOOK = SubscriptionConfig("webhook", pattern="events/*", webhook_url=URL)
PULL = SubscriptionConfig("pull-wake", pattern="events/*", wake_stream="wake/pool")
SEED = bytes(range(16))


def at(position: int) -> str:
    return f"{position:016d}"


def created(config: SubscriptionConfig, **tails: int) -> Subscription:
    existing = {f"events/{name}": at(tail) for name, tail in tails.items()}
    return Subscription.create("sub-1", config, existing, seed=SEED, now_ms=NOW)


def woken(config: SubscriptionConfig) -> tuple[Subscription, str]:
    """A subscription whose first wake has been delivered, for events/a up to 2; and the wake's id."""
    subscription = created(config)
    subscription.stream_appended("events/a", at(2), NOW)
    wake = subscription.state.wake
    assert wake is not None
    subscription.delivered(wake.wake_id, NOW)
    return subscription, wake.wake_id


def info(path: str, acked: str, tail: str, link_type: Any = "glob") -> StreamInfo:
    return StreamInfo(path, link_type, acked, tail, acked != tail)


def stored(subscription: Subscription) -> bytes:
    return msgspec.json.encode(subscription.state)


def code(caught: pytest.ExceptionInfo[SubscriptionError]) -> str:
    return caught.value.code


def restarted(subscription: Subscription) -> Subscription:
    return Subscription(msgspec.json.decode(stored(subscription), type=SubscriptionState))
