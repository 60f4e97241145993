"""Any story of a subscription, beside a twin that is restored at each event."""

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
from tests.streams.subscriptions import (
    HOOK,
    NOW,
    PULL,
    SEED,
    URL,
    at,
    stored,
)

from perdure.streams.subscription import Subscription
from perdure.streams.subscription_state import (
    DeliverWebhook,
    Effect,
    Link,
    SetTimer,
    SubscriptionState,
)
from perdure.wire.subscriptions import (
    AckRequest,
    SubscriptionConfig,
    SubscriptionError,
    is_after,
)

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
