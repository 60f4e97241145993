"""What of a subscription is stored, and how it goes on after a restart."""

from __future__ import annotations

import msgspec
from tests.streams.subscriptions import (
    HOOK,
    LEASE,
    NOW,
    PULL,
    at,
    created,
    restarted,
    stored,
    woken,
)

from perdure.streams.subscription_state import (
    AppendWake,
    DeliverWebhook,
    SetTimer,
)
from perdure.wire.subscriptions import (
    AckRequest,
)


def test_the_stored_form() -> None:
    """What is on disk; a change of it needs a migration."""
    subscription, _ = woken(HOOK)
    subscription.stream_appended("events/b", at(1), NOW, before=at(0))
    assert stored(subscription) == (
        b'{"id":"sub-1","config":{"type":"webhook","pattern":"events/*","streams":[],'
        b'"webhook_url":"https://worker.example/hooks","wake_stream":null,"lease_ttl_ms":30000,"description":null},'
        b'"created_at_ms":1778324210000,"seed":"000102030405060708090a0b0c0d0e0f",'
        b'"links":{"events/a":{"glob":true,"tail":"0000000000000002"},'
        b'"events/b":{"glob":true,"acked":"0000000000000000","tail":"0000000000000001"}},"generation":1,'
        b'"wake":{"wake_id":"w_efeeb111eda5f08fc0f0853e","stream":"events/a","phase":"sent","lease_deadline_ms":1778324240000,'
        b'"snapshot":{"events/a":"0000000000000002"}}}'
    )
    assert msgspec.json.encode(subscription.state.head()) == stored(subscription).replace(
        b'"links":{"events/a":{"glob":true,"tail":"0000000000000002"},'
        b'"events/b":{"glob":true,"acked":"0000000000000000","tail":"0000000000000001"}},',
        b"",
    )


def test_a_delivery_without_an_outcome_is_made_again() -> None:
    """The same wake; its lease begins anew, as its receiver's time does."""
    subscription = created(HOOK)
    [first, _] = subscription.stream_appended("events/a", at(1), NOW)
    assert restarted(subscription).resumed(NOW + 10**6) == [first, SetTimer(NOW + 10**6 + LEASE)]


def test_a_delivery_of_nothing_is_not_made_again() -> None:
    """Its streams were deleted before it failed, or before the restart."""
    subscription = created(HOOK)
    subscription.stream_appended("events/a", at(1), NOW)
    assert subscription.stream_deleted("events/a") == []
    assert subscription.state.wake is not None  # its receiver may be at work
    again = restarted(subscription)
    assert again.resumed(NOW) == []
    assert again.state.wake is None
    assert subscription.failed(subscription.state.wake.wake_id, NOW) == [SetTimer(None)]
    assert subscription.state.wake is None


def test_a_lease_keeps_its_deadline() -> None:
    """Neither longer nor shorter for the restart; if it ended meanwhile, the next wake comes at once."""
    subscription, wake_id = woken(PULL)
    subscription.claim("worker-1", NOW)
    assert restarted(subscription).resumed(NOW + LEASE - 1) == [SetTimer(NOW + LEASE)]
    [append, _] = restarted(subscription).resumed(NOW + LEASE)
    assert isinstance(append, AppendWake)
    assert append.generation == 2
    again = restarted(subscription)
    again.resumed(NOW + 1)
    assert again.ack(AckRequest(wake_id, 1, {"events/a": at(2)}, True), 1, NOW + 2)[0] is False


def test_a_retry_keeps_its_time() -> None:
    """Restarting does not hammer a receiver that fails."""
    subscription = created(HOOK)
    [first, _] = subscription.stream_appended("events/a", at(1), NOW)
    assert isinstance(first, DeliverWebhook)
    [timer] = subscription.failed(first.wake_id, NOW)
    again = restarted(subscription)
    assert again.resumed(NOW + 1) == [timer]
    assert isinstance(timer, SetTimer)
    assert timer.at_ms is not None
    assert again.time_passed(timer.at_ms)[0] == first


def test_a_clock_that_was_set_back() -> None:
    """Nothing takes longer than it ever may: a lease its time, a retry 72 seconds."""
    claimed, _ = woken(PULL)
    claimed.claim("worker-1", NOW)
    assert restarted(claimed).resumed(NOW - 10**9) == [SetTimer(NOW - 10**9 + LEASE)]
    failing = created(HOOK)
    [first, _] = failing.stream_appended("events/a", at(1), NOW)
    assert isinstance(first, DeliverWebhook)
    failing.failed(first.wake_id, NOW)
    assert restarted(failing).resumed(NOW - 10**9) == [SetTimer(NOW - 10**9 + 72_000)]
