"""A subscription's life: wakes, leases, retries, fences; at no time is work forgotten."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from perdure.errors import LimitExceeded
from perdure.streams.subscription import RETRY_MS, RETRY_MS_MAX, WAKE_STREAMS_MAX, Subscription
from perdure.streams.subscription_state import (
    AppendWake,
    Changes,
    DeliverWebhook,
    Effect,
    Link,
    SetTimer,
    SubscriptionState,
)
from perdure.wire.subscriptions import (
    EXPLICIT_STREAMS_MAX,
    AckRequest,
    StreamInfo,
    SubscriptionConfig,
    SubscriptionError,
    is_after,
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


# --- links


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


# --- restarts


def restarted(subscription: Subscription) -> Subscription:
    return Subscription(msgspec.json.decode(stored(subscription), type=SubscriptionState))


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


# --- any story


PATHS = ["events/a", "events/b", "events/c/d", "manual/x", "wake/pool"]
COVERED = {"events/a", "events/b"}
CONFIGS = [
    HOOK,
    PULL,
    SubscriptionConfig("webhook", streams=("manual/x",), webhook_url=URL, lease_ttl_ms=1_000),
    SubscriptionConfig(
        "pull-wake", "events/*", ("manual/x", "events/a"), wake_stream="wake/pool", lease_ttl_ms=5_000
    ),
]


class SubscriptionStory(RuleBasedStateMachine):
    """Streams, workers, a network and a clock of their own, with a plain model of what is acknowledged.

    Each event goes to the subscription and to a twin that was restored just before from what
    `take_changes` had stored: both must do the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = NOW
        self.tails: dict[str, int] = {}
        self.acked: dict[str, str] = {}
        self.explicit: set[str] = set()
        self.sent: dict[str, dict[str, str]] = {}  # what each delivery named, by wake id
        self.right: tuple[str, int] | None = None  # the wake and generation that a worker has been given
        self.old_rights: list[tuple[str, int]] = []
        self.generations: list[int] = [0]
        self.timer_at_ms: int | None = None

    @initialize(config=st.sampled_from(CONFIGS), existing=st.sets(st.sampled_from(PATHS)))
    def create(self, config: SubscriptionConfig, existing: set[str]) -> None:
        self.tails = dict.fromkeys(sorted(existing), 3)
        tails = {path: at(3) for path in sorted(existing)}
        self.subscription = Subscription.create("sub-1", config, tails, seed=SEED, now_ms=self.now_ms)
        self.explicit = set(config.streams)
        for path in self.explicit:
            self.acked[path] = tails.get(path, "-1")
        for path in existing:
            if self._covered(path):
                self.acked[path] = at(3)
        self.head = b""
        self.links: dict[str, bytes] = {}
        self._store()

    # --- streams

    @rule(path=st.sampled_from(PATHS), count=st.integers(1, 3))
    def append(self, path: str, count: int) -> None:
        before = at(self.tails[path]) if path in self.tails else "-1"
        self.tails[path] = self.tails.get(path, 0) + count
        if self._covered(path):
            self.acked.setdefault(path, before)
        self._do("stream_appended", path, at(self.tails[path]), self.now_ms, before=before)

    @rule(path=st.sampled_from(PATHS))
    def tell_old_news(self, path: str) -> None:
        if path in self.tails and path in self.acked:
            self._do("stream_appended", path, at(max(0, self.tails[path] - 2)), self.now_ms, before="-1")
            self._do("streams_found", {path: at(self.tails[path])}, self.now_ms)

    @rule(path=st.sampled_from(PATHS))
    def appear(self, path: str) -> None:
        if path not in self.tails:
            self.tails[path] = 0
            if self._covered(path) or path in self.acked:
                self.acked[path] = at(0)
            self._do("stream_appeared", path, at(0))

    @rule(path=st.sampled_from(PATHS))
    def delete(self, path: str) -> None:
        self.tails.pop(path, None)
        self._forget(path)
        if path in self.explicit:
            self.acked[path] = "-1"
        self._do("stream_deleted", path)

    @rule(path=st.sampled_from(PATHS[:4]))
    def watch(self, path: str) -> None:
        tail = at(self.tails[path]) if path in self.tails else "-1"
        self.explicit.add(path)
        self.acked.setdefault(path, tail)
        self._do("links_added", {path: tail}, self.now_ms)

    @rule(path=st.sampled_from(PATHS))
    def stop_watching(self, path: str) -> None:
        link = self.subscription.state.links.get(path)
        self.explicit.discard(path)
        self._do("link_removed", path)
        if link is not None and path not in self.subscription.state.links:
            assert not self._covered(path) or link.tail == "-1"
            self._forget(path)

    # --- the network, workers, time

    @rule(data=st.data(), outcome=st.sampled_from(["ok", "done", "failed"]))
    def answer(self, data: st.DataObject, outcome: str) -> None:
        if self.sent:
            self._answer(data.draw(st.sampled_from(sorted(self.sent))), outcome)

    @rule(data=st.data(), done=st.booleans())
    def report(self, data: st.DataObject, done: bool) -> None:
        wake = self.subscription.state.wake
        if self.right is None or wake is None or wake.wake_id != self.right[0]:
            return
        acks = {}
        for path in data.draw(st.sets(st.sampled_from(sorted(self.acked))) if self.acked else st.just(set())):
            low = int(self.acked[path]) if self.acked[path] != "-1" else 0
            acks[path] = at(data.draw(st.integers(low, max(low, self.tails.get(path, 0)))))
        acks = {path: offset for path, offset in acks.items() if offset <= self.subscription.state.links[path].tail}
        self.acked.update(acks)
        request = AckRequest(*self.right, acks, done)
        next_wake, _ = self._do(self._report(), request, self.right[1], self.now_ms)
        assert next_wake is (done and self._work_left())

    @rule(data=st.data(), done=st.booleans())
    def report_too_late(self, data: st.DataObject, done: bool) -> None:
        if not self.old_rights:
            return
        wake_id, generation = data.draw(st.sampled_from(self.old_rights))
        acks = {path: at(tail) for path, tail in self.tails.items() if path in self.acked}
        before = stored(self.subscription)
        with pytest.raises(SubscriptionError) as caught:
            self._do(self._report(), AckRequest(wake_id, generation, acks, done), generation, self.now_ms)
        assert caught.value.code == "FENCED"
        assert stored(self.subscription) == before

    @precondition(lambda self: self.subscription.state.config.type == "pull-wake")
    @rule(worker=st.sampled_from(["ada", "bob"]))
    def claim(self, worker: str) -> None:
        wake = self.subscription.state.wake
        taken = wake is not None and wake.holder is not None and self.now_ms < (wake.lease_deadline_ms or 0)
        if taken or not self._work_left():
            with pytest.raises(SubscriptionError) as caught:
                self._do("claim", worker, self.now_ms)
            assert caught.value.code == ("ALREADY_CLAIMED" if taken else "NO_PENDING_WORK")
            return
        claim, _ = self._do("claim", worker, self.now_ms)
        assert {stream.path for stream in claim.streams if stream.has_pending} == self._paths_with_work()
        self.right = (claim.wake_id, claim.generation)

    @precondition(lambda self: self.subscription.state.config.type == "pull-wake")
    @rule()
    def release(self) -> None:
        wake = self.subscription.state.wake
        if self.right is not None and wake is not None and wake.wake_id == self.right[0]:
            self._do("release", AckRequest(*self.right), self.right[1], self.now_ms)

    @rule(ms=st.sampled_from([1, 500, 999, 5_000, 40_000]))
    def wait(self, ms: int) -> None:
        self.now_ms += ms
        if self.timer_at_ms is not None and self.now_ms >= self.timer_at_ms:
            self._do("time_passed", self.now_ms)

    @rule()
    def wait_for_the_timer(self) -> None:
        if self.timer_at_ms is not None:
            self.now_ms = max(self.now_ms, self.timer_at_ms)
            self._do("time_passed", self.now_ms)

    @rule(ms=st.sampled_from([0, 2_000, 100_000]))
    def restart(self, ms: int) -> None:
        self.now_ms += ms
        self.subscription = self._restored()
        self.timer_at_ms = None
        self._do("resumed", self.now_ms)

    # --- what holds at any time

    @invariant()
    def work_is_never_forgotten(self) -> None:
        wake = self.subscription.state.wake
        if self._work_left():
            assert wake is not None
            announced = self.subscription.state.config.type == "pull-wake" and wake.phase == "sent"
            assert self.timer_at_ms is not None or (announced and wake.holder is None)
        assert self.timer_at_ms == self.subscription.timer_at_ms

    @invariant()
    def acks_are_what_the_model_says(self) -> None:
        links = self.subscription.state.links
        assert {path: link.acked for path, link in links.items()} == self.acked
        assert {path for path, link in links.items() if link.explicit} == self.explicit
        assert self.subscription.has_work is self._work_left()

    @invariant()
    def generations_only_rise(self) -> None:
        assert self.generations == sorted(set(self.generations))

    def teardown(self) -> None:
        """Workers that answer get everything done, whatever happened before."""
        if not hasattr(self, "subscription"):
            return
        for _ in range(8):
            if not self._work_left():
                return
            wake = self.subscription.state.wake
            assert wake is not None
            if self.subscription.state.config.type == "pull-wake" and wake.holder is None:
                self.claim("last")
                assert self.right is not None
                acks = {path: at(self.tails[path]) for path in self._paths_with_work()}
                self.acked.update(acks)
                self._do("ack", AckRequest(*self.right, acks, True), self.right[1], self.now_ms)
            elif wake.phase == "sending" and wake.wake_id in self.sent:
                self._answer(wake.wake_id, "done")
            else:
                self.wait_for_the_timer()
        assert not self._work_left()

    # --- how

    def _covered(self, path: str) -> bool:
        return self.subscription.state.config.pattern is not None and path in COVERED

    def _paths_with_work(self) -> set[str]:
        return {
            path
            for path, acked in self.acked.items()
            if self.tails.get(path) and is_after(at(self.tails[path]), acked)
        }

    def _work_left(self) -> bool:
        return bool(self._paths_with_work())

    def _report(self) -> str:
        return "callback" if self.subscription.state.config.type == "webhook" else "ack"

    def _forget(self, path: str) -> None:
        self.acked.pop(path, None)
        for named in self.sent.values():
            named.pop(path, None)

    def _answer(self, wake_id: str, outcome: str) -> None:
        named = self.sent.pop(wake_id)
        wake = self.subscription.state.wake
        if outcome == "failed":
            self._do("failed", wake_id, self.now_ms)
            return
        if outcome == "done" and wake is not None and wake.wake_id == wake_id:
            for path, tail in named.items():
                if is_after(tail, self.acked[path]):
                    self.acked[path] = tail
        self._do("delivered", wake_id, self.now_ms, done=outcome == "done")

    def _do(self, method: str, *args: Any, **more: Any) -> Any:
        """Tell the subscription and its restored twin; carry out the effects."""
        twin = self._restored()
        before = stored(self.subscription)
        assert stored(twin) == before
        refusal = None
        try:
            result = getattr(self.subscription, method)(*args, **more)
        except SubscriptionError as error:
            refusal = error
        if refusal is not None:
            with pytest.raises(SubscriptionError) as caught:
                getattr(twin, method)(*args, **more)
            assert caught.value.as_json() == refusal.as_json()
            assert stored(self.subscription) == stored(twin) == before
            raise refusal
        twins = getattr(twin, method)(*args, **more)
        assert stored(twin) == stored(self.subscription)
        assert twin.timer_at_ms == self.subscription.timer_at_ms
        effects = result[1] if isinstance(result, tuple) else result
        others = twins[1] if isinstance(twins, tuple) else twins
        assert [one for one in effects if not isinstance(one, SetTimer)] == [
            one for one in others if not isinstance(one, SetTimer)
        ]
        self._store()
        for effect in effects:
            self._carry_out(effect)
        self._note_generation()
        return result

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, SetTimer):
            self.timer_at_ms = effect.at_ms
        elif isinstance(effect, DeliverWebhook):
            self.sent[effect.wake_id] = {one.path: one.tail_offset for one in effect.streams if one.has_pending}
            self._give_right((effect.wake_id, effect.generation))
        else:
            assert effect.stream in self._paths_with_work()
            self.sent[effect.wake_id] = {}

    def _give_right(self, right: tuple[str, int]) -> None:
        self.right = right

    def _note_generation(self) -> None:
        state = self.subscription.state
        if state.generation != self.generations[-1]:
            self.generations.append(state.generation)
        current = (state.wake.wake_id, state.generation) if state.wake is not None else None
        if self.right is not None and self.right != current:
            self.old_rights.append(self.right)
            self.right = None

    def _store(self) -> None:
        changes = self.subscription.take_changes()
        state = self.subscription.state
        if changes.head:
            self.head = msgspec.json.encode(state.head())
        for path in changes.links:
            if path in state.links:
                self.links[path] = msgspec.json.encode(state.links[path])
            else:
                self.links.pop(path, None)

    def _restored(self) -> Subscription:
        state = msgspec.json.decode(self.head, type=SubscriptionState)
        for path in self.subscription.state.links:
            state.links[path] = msgspec.json.decode(self.links[path], type=Link)
        assert len(state.links) == len(self.links)
        return Subscription(state)


def test_any_story_comes_to_its_end() -> None:
    """Work always has a wake or a timer, acks last, old generations change nothing, restarts neither."""
    run_state_machine_as_test(
        SubscriptionStory,
        settings=settings(
            max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
