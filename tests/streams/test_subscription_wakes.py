"""A subscription's life: wakes, leases, retries, fences; at no time is work forgotten."""

from __future__ import annotations

import msgspec
import pytest
from tests.streams.subscriptions import (
    HOOK,
    LEASE,
    NOW,
    PULL,
    at,
    code,
    created,
    info,
    stored,
    woken,
)

from perdure.streams.subscription import RETRY_MS, RETRY_MS_MAX, WAKE_STREAMS_MAX, Subscription
from perdure.streams.subscription_state import (
    AppendWake,
    DeliverWebhook,
    SetTimer,
)
from perdure.wire.subscriptions import (
    AckRequest,
    SubscriptionError,
)

# --- webhooks


def test_appends_are_one_wake_until_it_is_answered() -> None:
    """What comes meanwhile is work for the next wake, with its own id and generation."""
    subscription = created(HOOK)
    [deliver, _] = subscription.stream_appended("events/a", at(1), NOW)
    assert isinstance(deliver, DeliverWebhook)
    assert subscription.stream_appended("events/a", at(2), NOW + 1) == []
    assert subscription.stream_appended("events/b", at(1), NOW + 1) == []
    [following, timer] = subscription.delivered(deliver.wake_id, NOW + 10, done=True)
    assert isinstance(following, DeliverWebhook)
    assert following.generation == 2
    assert following.wake_id != deliver.wake_id
    assert following.streams == (info("events/a", at(1), at(2)), info("events/b", "-1", at(1)))
    assert timer == SetTimer(NOW + 10 + LEASE)
    assert subscription.delivered(following.wake_id, NOW + 11, done=True) == [SetTimer(None)]
    assert list(subscription.streams()) == [info("events/a", at(2), at(2)), info("events/b", at(1), at(1))]


def test_a_callback_acknowledges() -> None:
    """`done` with nothing left ends the wake; the same request again is fenced (the suite's case)."""
    subscription, wake_id = woken(HOOK)
    request = AckRequest(wake_id, 1, {"events/a": at(2)}, True)
    assert subscription.callback(request, 1, NOW + 5) == (False, [SetTimer(None)])
    assert list(subscription.streams()) == [info("events/a", at(2), at(2))]
    with pytest.raises(SubscriptionError) as caught:
        subscription.callback(request, 1, NOW + 6)
    assert code(caught) == "FENCED"


def test_done_with_work_left() -> None:
    """The reply says that a new wake follows, and it does, at once."""
    subscription, wake_id = woken(HOOK)
    next_wake, effects = subscription.callback(AckRequest(wake_id, 1, {"events/a": at(1)}, True), 1, NOW + 5)
    assert next_wake
    [deliver, timer] = effects
    assert isinstance(deliver, DeliverWebhook)
    assert (deliver.generation, deliver.streams) == (2, (info("events/a", at(1), at(2)),))
    assert timer == SetTimer(NOW + 5 + LEASE)


def test_a_callback_keeps_the_lease_alive() -> None:
    """Each one gives the full time again; done is not assumed."""
    subscription, wake_id = woken(HOOK)
    assert subscription.timer_at_ms == NOW + LEASE
    next_wake, effects = subscription.callback(AckRequest(wake_id, 1), 1, NOW + 20_000)
    assert (next_wake, effects) == (False, [SetTimer(NOW + 20_000 + LEASE)])
    assert subscription.time_passed(NOW + LEASE) == []
    assert subscription.state.generation == 1


def test_the_end_of_a_lease() -> None:
    """One millisecond before, nothing; then somebody else is woken, and the late answer is fenced."""
    subscription, wake_id = woken(HOOK)
    subscription.callback(AckRequest(wake_id, 1, {"events/a": at(1)}), 1, NOW)
    assert subscription.time_passed(NOW + LEASE - 1) == []
    [deliver, timer] = subscription.time_passed(NOW + LEASE)
    assert isinstance(deliver, DeliverWebhook)
    assert (deliver.generation, deliver.streams) == (2, (info("events/a", at(1), at(2)),))
    assert timer == SetTimer(NOW + 2 * LEASE)
    before = stored(subscription)
    for request in (AckRequest(wake_id, 1, {"events/a": at(2)}, True), AckRequest(wake_id, 2, done=True)):
        with pytest.raises(SubscriptionError) as caught:
            subscription.callback(request, request.generation, NOW + LEASE)
        assert code(caught) == "FENCED"
    assert stored(subscription) == before


def test_a_lease_that_ends_without_work() -> None:
    """Nobody is woken for nothing."""
    subscription, wake_id = woken(HOOK)
    subscription.callback(AckRequest(wake_id, 1, {"events/a": at(2)}), 1, NOW)
    assert subscription.time_passed(NOW + LEASE) == [SetTimer(None)]
    assert (subscription.state.wake, subscription.state.generation) == (None, 1)


def test_the_fence() -> None:
    """The token's generation, the request's generation and the wake's id have to be the current ones, all three."""
    subscription, wake_id = woken(HOOK)
    for request, token_generation in (
        (AckRequest(wake_id, 1), 0),
        (AckRequest(wake_id, 0), 1),
        (AckRequest(wake_id, 2), 2),
        (AckRequest("w_other", 1), 1),
    ):
        with pytest.raises(SubscriptionError) as caught:
            subscription.callback(request, token_generation, NOW)
        assert code(caught) == "FENCED"
    assert subscription.callback(AckRequest(wake_id, 1), 1, NOW)[0] is False


@pytest.mark.parametrize(
    ("acks", "message"),
    [
        ({"events/b": at(1)}, "does not watch"),
        ({"events/a": at(0)}, "acknowledged up to 0000000000000001"),
        ({"events/a": "-1"}, "acknowledged up to 0000000000000001"),
        ({"events/a": at(3)}, "ends at 0000000000000002"),
        ({"events/a": at(2), "events/b": at(1)}, "does not watch"),
    ],
)
def test_acks_that_cannot_be(acks: dict[str, str], message: str) -> None:
    """Back, past the tail, or of another stream; then none of the request's acks counts."""
    subscription, wake_id = woken(HOOK)
    subscription.callback(AckRequest(wake_id, 1, {"events/a": at(1)}), 1, NOW)
    before = stored(subscription)
    with pytest.raises(SubscriptionError, match=message) as caught:
        subscription.callback(AckRequest(wake_id, 1, acks, True), 1, NOW)
    assert code(caught) == "INVALID_OFFSET"
    assert stored(subscription) == before


def test_acks_that_change_nothing() -> None:
    """What is acknowledged may be acknowledged again, also the start of a stream without content."""
    subscription, wake_id = woken(HOOK)
    subscription.stream_appeared("events/b")
    for _ in range(2):
        subscription.callback(AckRequest(wake_id, 1, {"events/a": at(2), "events/b": "-1"}), 1, NOW)
    assert list(subscription.streams()) == [info("events/a", at(2), at(2)), info("events/b", "-1", "-1")]


def test_a_worker_may_have_read_more_than_was_told() -> None:
    """`past_tail` names the streams to ask about first."""
    subscription, wake_id = woken(HOOK)
    request = AckRequest(wake_id, 1, {"events/a": at(3), "events/z": at(1)}, True)
    assert subscription.past_tail(request) == ["events/a"]
    subscription.stream_appended("events/a", at(3), NOW)
    assert subscription.past_tail(request) == []
    assert subscription.past_tail(AckRequest(wake_id, 1, {"events/a": at(2)})) == []


def test_done_acknowledges_what_the_webhook_named() -> None:
    """Not what came after it was sent, and never less than the callback has acknowledged already."""
    subscription, wake_id = woken(HOOK)
    subscription.stream_appended("events/a", at(7), NOW)
    subscription.callback(AckRequest(wake_id, 1, {"events/a": at(5)}), 1, NOW)
    subscription.stream_appended("events/b", at(1), NOW)
    subscription.delivered(wake_id, NOW, done=True)
    assert list(subscription.streams()) == [info("events/a", at(5), at(7)), info("events/b", "-1", at(1))]


def test_retries_wait_longer_and_longer() -> None:
    """1 s doubling to 60 s, each a fifth more or less, the same wake all the time; success forgets it all."""
    assert (RETRY_MS, RETRY_MS_MAX) == (1_000, 60_000)
    subscription = created(HOOK)
    subscription.stream_appended("events/a", at(1), NOW)
    wake = subscription.state.wake
    assert wake is not None
    now, delays = NOW, []
    for _ in range(9):
        [timer] = subscription.failed(wake.wake_id, now)
        assert isinstance(timer, SetTimer)
        assert timer.at_ms is not None
        assert subscription.state.status == "failed"
        assert subscription.time_passed(timer.at_ms - 1) == []
        delays.append(timer.at_ms - now)
        now = timer.at_ms
        [deliver, lease] = subscription.time_passed(now)
        assert isinstance(deliver, DeliverWebhook)
        assert (deliver.wake_id, deliver.generation) == (wake.wake_id, 1)
        assert subscription.state.not_before_ms is None
        assert lease == SetTimer(now + LEASE)
    for delay, middle in zip(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert 800 * middle <= delay <= 1_200 * middle
    assert len({delay / middle for delay, middle in zip(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True)}) > 5
    subscription.delivered(wake.wake_id, now)
    state = subscription.state
    assert (state.status, state.retry_count, state.not_before_ms) == ("active", 0, None)


def test_subscriptions_do_not_retry_in_step() -> None:
    """The jitter is each one's own, over the whole range."""
    delays = set()
    for number in range(200):
        subscription = Subscription.create("s", HOOK, {}, seed=number.to_bytes(16, "big"), now_ms=NOW)
        subscription.stream_appended("events/a", at(1), NOW)
        wake = subscription.state.wake
        assert wake is not None
        subscription.failed(wake.wake_id, NOW)
        assert subscription.timer_at_ms is not None
        delays.add(subscription.timer_at_ms - NOW)
    assert 800 <= min(delays) < 820
    assert 1_180 < max(delays) <= 1_200
    with pytest.raises(ValueError, match="16 random bytes"):
        Subscription.create("s", HOOK, {}, seed=bytes(15), now_ms=NOW)


def test_a_retry_names_what_came_meanwhile() -> None:
    """And done acknowledges it."""
    subscription = created(HOOK)
    [first, _] = subscription.stream_appended("events/a", at(1), NOW)
    assert isinstance(first, DeliverWebhook)
    subscription.failed(first.wake_id, NOW)
    subscription.stream_appended("events/a", at(2), NOW)
    [second, _] = subscription.time_passed(NOW + 1_200)
    assert isinstance(second, DeliverWebhook)
    assert second.streams == (info("events/a", "-1", at(2)),)
    assert subscription.delivered(second.wake_id, NOW + 1_300, done=True) == [SetTimer(None)]
    assert not subscription.has_work


def test_no_answer_in_the_leases_time() -> None:
    """Counts as a failure: the next wake has a new generation, and waits like any retry."""
    subscription = created(HOOK)
    [first, _] = subscription.stream_appended("events/a", at(1), NOW)
    assert isinstance(first, DeliverWebhook)
    [timer] = subscription.time_passed(NOW + LEASE)
    assert isinstance(timer, SetTimer)
    assert timer.at_ms is not None
    assert NOW + LEASE + 800 <= timer.at_ms <= NOW + LEASE + 1_200
    state = subscription.state
    assert (state.generation, state.status, state.retry_count) == (2, "failed", 1)
    assert subscription.delivered(first.wake_id, NOW + LEASE, done=True) == []  # too late
    assert subscription.failed(first.wake_id, NOW + LEASE) == []
    [second, _] = subscription.time_passed(timer.at_ms)
    assert isinstance(second, DeliverWebhook)
    assert second.generation == 2


def test_the_schedule_outlives_the_wake() -> None:
    """A receiver that fails is not called sooner because the work changed."""
    subscription = created(HOOK)
    subscription.stream_appended("events/a", at(1), NOW)
    wake = subscription.state.wake
    assert wake is not None
    [timer] = subscription.failed(wake.wake_id, NOW)
    assert subscription.stream_deleted("events/a") == [SetTimer(None)]
    assert subscription.stream_appended("events/b", at(1), NOW + 1) == [timer]
    assert subscription.state.generation == 2


def test_who_calls_back_was_reached() -> None:
    """Whatever became of the request: a lost reply does not cause a second delivery."""
    subscription = created(HOOK)
    [deliver, _] = subscription.stream_appended("events/a", at(2), NOW)
    assert isinstance(deliver, DeliverWebhook)
    subscription.failed(deliver.wake_id, NOW + 10)
    request = AckRequest(deliver.wake_id, 1, {"events/a": at(1)})
    assert subscription.callback(request, 1, NOW + 20) == (False, [SetTimer(NOW + 20 + LEASE)])
    assert subscription.state.status == "active"
    assert subscription.failed(deliver.wake_id, NOW + 30) == []
    assert subscription.time_passed(NOW + 5_000) == []


def test_a_late_success() -> None:
    """A delivery that was given up and did work: the lease begins."""
    subscription = created(HOOK)
    [deliver, _] = subscription.stream_appended("events/a", at(2), NOW)
    assert isinstance(deliver, DeliverWebhook)
    subscription.failed(deliver.wake_id, NOW + 10)
    assert subscription.delivered(deliver.wake_id, NOW + 20) == [SetTimer(NOW + 20 + LEASE)]


# --- pull-wake


def test_a_wake_in_the_wake_stream() -> None:
    """One event; then it waits for a claim as long as it takes."""
    subscription = created(PULL)
    [append, _] = subscription.stream_appended("events/a", at(1), NOW)
    assert append == AppendWake("wake/pool", "w_efeeb111eda5f08fc0f0853e", 1, "events/a")
    assert subscription.delivered(append.wake_id, NOW + 1) == [SetTimer(None)]
    assert subscription.stream_appended("events/b", at(1), NOW + 2) == []
    assert subscription.time_passed(NOW + 10**9) == []


def test_claim_ack_and_release() -> None:
    """The suite's story, with its leases of a second."""
    subscription, wake_id = woken(msgspec.structs.replace(PULL, lease_ttl_ms=1_000))
    claim, effects = subscription.claim("worker-1", NOW + 5)
    assert claim == (wake_id, 1, (info("events/a", "-1", at(2)),))
    assert effects == [SetTimer(NOW + 1_005)]
    with pytest.raises(SubscriptionError) as caught:
        subscription.claim("worker-2", NOW + 6)
    assert code(caught) == "ALREADY_CLAIMED"
    assert (caught.value.current_holder, caught.value.generation) == ("worker-1", 1)
    acked = subscription.ack(AckRequest(wake_id, 1, {"events/a": at(2)}, True), 1, NOW + 7)
    assert acked == (False, [SetTimer(None)])
    with pytest.raises(SubscriptionError) as caught:
        subscription.claim("worker-1", NOW + 8)
    assert code(caught) == "NO_PENDING_WORK"

    subscription.stream_appended("events/a", at(3), NOW + 9)
    claim, _ = subscription.claim("worker-1", NOW + 10)
    assert claim.generation == 2
    [append, _] = subscription.release(AckRequest(claim.wake_id, 2), 2, NOW + 11)
    assert isinstance(append, AppendWake)
    assert (append.generation, append.stream) == (3, "events/a")
    with pytest.raises(SubscriptionError) as caught:
        subscription.release(AckRequest(claim.wake_id, 2), 2, NOW + 12)
    assert code(caught) == "FENCED"


def test_a_claim_lists_what_has_come_since_the_wake() -> None:
    """Work first, then the other streams."""
    subscription = created(PULL, a=1, b=1, c=1)
    subscription.stream_appended("events/c", at(2), NOW)
    subscription.stream_appended("events/b", at(3), NOW)
    claim, _ = subscription.claim("w", NOW)
    assert claim.streams == (
        info("events/b", at(1), at(3)),
        info("events/c", at(1), at(2)),
        info("events/a", at(1), at(1)),
    )


def test_a_claims_lease_ends() -> None:
    """At its time, whether the timer or another worker comes first; the work goes to a new generation."""
    for timer_first in (True, False):
        subscription, wake_id = woken(PULL)
        subscription.claim("worker-1", NOW)
        with pytest.raises(SubscriptionError, match="'worker-1' has claimed generation 1"):
            subscription.claim("worker-2", NOW + LEASE - 1)
        if timer_first:
            [append, _] = subscription.time_passed(NOW + LEASE)
            assert isinstance(append, AppendWake)
        claim, effects = subscription.claim("worker-2", NOW + LEASE)
        assert claim.generation == 2
        assert [effect for effect in effects if not isinstance(effect, SetTimer)] == []
        with pytest.raises(SubscriptionError) as caught:
            subscription.ack(AckRequest(wake_id, 1, {"events/a": at(2)}), 1, NOW + LEASE)
        assert code(caught) == "FENCED"


def test_an_ended_claim_without_work() -> None:
    """There is nothing to claim, also before the timer has cleared it away."""
    subscription, wake_id = woken(PULL)
    subscription.claim("worker-1", NOW)
    subscription.ack(AckRequest(wake_id, 1, {"events/a": at(2)}), 1, NOW)
    with pytest.raises(SubscriptionError) as caught:
        subscription.claim("worker-2", NOW + LEASE)
    assert code(caught) == "NO_PENDING_WORK"
    assert subscription.time_passed(NOW + LEASE) == [SetTimer(None)]


def test_a_wake_stream_that_is_not_there() -> None:
    """The event is tried again on the same schedule as a webhook; a worker may claim without it."""
    subscription = created(PULL)
    [append, _] = subscription.stream_appended("events/a", at(1), NOW)
    assert isinstance(append, AppendWake)
    subscription.failed(append.wake_id, NOW)
    assert subscription.state.status == "failed"
    assert subscription.time_passed(NOW + 1_200) == [append, SetTimer(NOW + 1_200 + LEASE)]
    claim, _ = subscription.claim("worker-1", NOW + 1_300)
    assert claim.wake_id == append.wake_id
    assert subscription.failed(append.wake_id, NOW + 1_400) == []
    assert subscription.delivered(append.wake_id, NOW + 1_400) == []
    assert subscription.timer_at_ms == NOW + 1_300 + LEASE


def test_the_wrong_kind() -> None:
    """Claims, acks and releases are for pull-wake, callbacks for webhooks; a release acknowledges nothing."""
    hook, hook_id = woken(HOOK)
    pull, pull_id = woken(PULL)
    pull.claim("w", NOW)
    for call in (
        lambda: hook.claim("w", NOW),
        lambda: hook.ack(AckRequest(hook_id, 1), 1, NOW),
        lambda: hook.release(AckRequest(hook_id, 1), 1, NOW),
        lambda: pull.callback(AckRequest(pull_id, 1), 1, NOW),
        lambda: pull.release(AckRequest(pull_id, 1, {"events/a": at(1)}), 1, NOW),
    ):
        with pytest.raises(SubscriptionError) as caught:
            call()
        assert code(caught) == "INVALID_REQUEST"
    assert pull.ack(AckRequest(pull_id, 1), 1, NOW)[0] is False


# --- many streams


def test_a_wake_lists_so_many_streams() -> None:
    """Up to `WAKE_STREAMS_MAX` at once, and all in turn, also while the first ones keep growing."""
    subscription = created(HOOK)
    paths = [f"events/{number:04d}" for number in range(WAKE_STREAMS_MAX + 1)]
    effects = [effect for path in paths for effect in subscription.stream_appended(path, at(1), NOW)]
    seen: list[str] = []
    for turn in range(4):
        [deliver] = [effect for effect in effects if isinstance(effect, DeliverWebhook)]
        assert len(deliver.streams) == (1 if turn == 0 else WAKE_STREAMS_MAX)
        seen += [stream.path for stream in deliver.streams]
        for path in paths:
            subscription.stream_appended(path, at(turn + 2), NOW)
        effects = subscription.delivered(deliver.wake_id, NOW, done=True)
    counts = [seen.count(path) for path in paths]
    assert (min(counts[1:]), max(counts)) == (2, 4)
    assert sum(counts) == 3 * WAKE_STREAMS_MAX + 1
