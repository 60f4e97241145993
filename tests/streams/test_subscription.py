"""What a subscription watches: patterns, named streams, streams that come and go."""

from __future__ import annotations

import msgspec
import pytest
from tests.streams.subscriptions import (
    HOOK,
    LEASE,
    NOW,
    PULL,
    SEED,
    URL,
    at,
    code,
    created,
    info,
    restarted,
    stored,
    woken,
)

from perdure.errors import LimitExceeded
from perdure.streams.subscription import Subscription
from perdure.streams.subscription_state import (
    AppendWake,
    Changes,
    DeliverWebhook,
    Link,
    SetTimer,
    SubscriptionState,
)
from perdure.wire.subscriptions import (
    EXPLICIT_STREAMS_MAX,
    SubscriptionConfig,
    SubscriptionError,
)


def test_what_exists_wakes_nobody() -> None:
    """Existing matches and named streams are linked at their tails; a stream that is not there yet at -1."""
    config = msgspec.structs.replace(HOOK, streams=("manual/a", "events/b"))
    tails = {"events/a": at(5), "events/b": at(6), "other/x": at(7)}
    subscription = Subscription.create("sub-1", config, tails, seed=SEED, now_ms=NOW)
    assert subscription.state.links == {
        "events/b": Link(glob=True, explicit=True, acked=at(6), tail=at(6)),
        "manual/a": Link(glob=False, explicit=True),
        "events/a": Link(glob=True, acked=at(5), tail=at(5)),
    }
    assert not subscription.has_work
    assert (subscription.state.wake, subscription.timer_at_ms) == (None, None)


def test_existing_streams_may_be_found_later() -> None:
    """One that has grown meanwhile was linked where it grew, so its history is not work and its growth is."""
    subscription = created(HOOK)
    assert subscription.stream_appended("events/a", at(9), NOW, before=at(8)) != []
    assert subscription.streams_found({"events/a": at(8), "events/b": at(3), "other/x": at(1)}, NOW) == []
    assert list(subscription.streams()) == [info("events/a", at(8), at(9)), info("events/b", at(3), at(3))]


def test_a_new_stream_is_linked_before_its_first_append() -> None:
    """Whether it appears empty or with content; an empty one wakes nobody."""
    subscription = created(HOOK)
    assert subscription.stream_appeared("events/a") == []
    assert subscription.stream_appeared("events/b", at(0)) == []
    assert subscription.stream_appeared("other/x", at(0)) == []
    assert list(subscription.streams()) == [info("events/a", "-1", "-1"), info("events/b", at(0), at(0))]
    assert subscription.streams_found({"events/b": at(0)}, NOW) == []
    [deliver, timer] = subscription.stream_appended("events/a", at(1), NOW)
    assert deliver == DeliverWebhook(
        url=URL,
        wake_id="w_efeeb111eda5f08fc0f0853e",
        generation=1,
        streams=(info("events/a", "-1", at(1)), info("events/b", at(0), at(0))),
    )
    assert timer == SetTimer(NOW + LEASE)


def test_streams_that_are_not_watched() -> None:
    """Nothing happens, and `watches` says so beforehand."""
    subscription = created(HOOK)
    assert not subscription.watches("other/x")
    assert subscription.stream_appended("other/x", at(1), NOW) == []
    assert subscription.watches("events/a")
    assert subscription.take_changes() == Changes(True, frozenset())
    assert subscription.take_changes() == Changes(False, frozenset())


def test_the_own_wake_stream_wakes_nobody() -> None:
    """Else each wake would cause the next one."""
    config = SubscriptionConfig("pull-wake", pattern="**", wake_stream="wake/pool")
    subscription = Subscription.create("sub-1", config, {"wake/pool": at(1)}, seed=SEED, now_ms=NOW)
    assert subscription.stream_appended("wake/pool", at(2), NOW) == []
    assert subscription.state.links == {}
    with pytest.raises(SubscriptionError, match="own wake_stream") as caught:
        subscription.links_added({"wake/pool": at(2)}, NOW)
    assert code(caught) == "INVALID_REQUEST"


def test_named_streams_come_and_go() -> None:
    """Adding is idempotent and keeps what is acknowledged; removing leaves what the pattern covers."""
    subscription = created(HOOK, a=5)
    subscription.links_added({"manual/x": at(1), "events/a": at(5)}, NOW)
    subscription.links_added({"manual/x": at(1)}, NOW)
    assert list(subscription.streams()) == [
        info("events/a", at(5), at(5), "explicit"),
        info("manual/x", at(1), at(1), "explicit"),
    ]
    for _ in range(2):
        subscription.link_removed("events/a")
        subscription.link_removed("manual/x")
    assert list(subscription.streams()) == [info("events/a", at(5), at(5))]


def test_adding_may_tell_of_work() -> None:
    """The tail that comes with a link is news like any other."""
    subscription = created(HOOK, a=5)
    [deliver, _] = subscription.links_added({"events/a": at(6)}, NOW)
    assert isinstance(deliver, DeliverWebhook)


def test_named_streams_have_a_limit() -> None:
    """`explicit_streams_max` over all requests; a refused request adds nothing."""
    subscription = created(HOOK)
    subscription.links_added({f"s{number}": "-1" for number in range(EXPLICIT_STREAMS_MAX)}, NOW)
    subscription.links_added({"s0": "-1"}, NOW)
    before = stored(subscription)
    with pytest.raises(LimitExceeded, match="explicit_streams_max"):
        subscription.links_added({"s0": "-1", "one more": "-1"}, NOW)
    assert stored(subscription) == before
    restored = Subscription(msgspec.json.decode(before, type=SubscriptionState))
    restored.link_removed("s0")
    restored.links_added({"one more": "-1"}, NOW)


def test_a_deleted_stream() -> None:
    """Its work is gone; one that is watched by name is awaited anew, from its new start."""
    subscription, wake_id = woken(msgspec.structs.replace(HOOK, streams=("manual/x",)))
    subscription.stream_appended("manual/x", at(4), NOW)
    subscription.delivered(wake_id, NOW, done=True)
    assert subscription.state.generation == 2  # for manual/x, which came after the first wake
    subscription.stream_deleted("events/a")
    subscription.stream_deleted("manual/x")
    assert subscription.state.links == {"manual/x": Link(explicit=True)}
    wake = subscription.state.wake
    assert wake is not None
    subscription.stream_appended("manual/x", at(1), NOW)
    subscription.delivered(wake.wake_id, NOW, done=True)
    assert list(subscription.streams()) == [info("manual/x", "-1", at(1), "explicit")]


def test_lost_work_gives_the_wake_back() -> None:
    """A wake that nobody has taken would keep the next stream's from being announced."""
    subscription, _ = woken(PULL)
    assert subscription.stream_deleted("events/a") == []
    assert subscription.state.wake is None
    [append, _] = subscription.stream_appended("events/b", at(1), NOW + 1)
    assert isinstance(append, AppendWake)
    assert (append.generation, append.stream) == (2, "events/b")


def test_a_wake_names_a_stream_with_work() -> None:
    """Also when the one that caused it is deleted before the wake is sent."""
    subscription = created(PULL)
    [first, _] = subscription.stream_appended("events/a", at(1), NOW)
    assert isinstance(first, AppendWake)
    subscription.stream_appended("events/b", at(1), NOW)
    subscription.stream_deleted("events/a")
    assert restarted(subscription).resumed(NOW)[0] == AppendWake("wake/pool", first.wake_id, 1, "events/b")
