"""Webhooks of subscriptions: when they are sent, who can tell that they are ours, what their answers do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.objects.disks import Disk
from tests.running import until

from perdure.errors import Unauthenticated
from perdure.stream_hosts import subscriptions as module
from perdure.stream_hosts.stream_news import News
from perdure.stream_hosts.webhook_delivery import REPLY_BYTES_MAX
from perdure.wire.webhooks import check_webhook_signature, parse_jwks

from .receivers import DONE, OK, Call, Line, Receiver, hang, receiving, reply
from .subscribing import NOON_MS, Clock, Site, at, site

pytestmark = pytest.mark.anyio

NOON_S = NOON_MS // 1000


async def _check(here: Site, call: Call, now_s: int = NOON_S) -> None:
    """Raise unless one of the published keys signed the call."""
    answer = await here.ask("GET", "jwks.json")
    check_webhook_signature(call.headers["webhook-signature"], call.body, parse_jwks(answer.content), now_s=now_s)


def _kid(call: Call) -> str:
    return call.headers["webhook-signature"].split(",")[1]


async def _status(here: Site, id: str = "s") -> str:
    status: str = (await here.document(id))["status"]
    return status


# --- sending


async def test_an_append_calls_the_receiver(tmp_path: Path) -> None:
    """With what there is to read, where to report, and a reply that acknowledges all of it."""
    async with receiving() as receiver, site(tmp_path, clock=Clock()) as here:
        await here.create("events/a", b"history")
        made = await here.hook("a sub/1", receiver.url)
        await here.append("events/a")
        call = await receiver.next()
        assert call.line == "POST /hook HTTP/1.1"
        assert (call.headers["content-type"], call.headers["host"]) == ("application/json", receiver.url[7:-5])
        wake = call.wake
        assert wake["subscription_id"] == "a sub/1"
        assert wake["generation"] == 1
        assert wake["callback_url"].endswith("/v1/stream/__ds/subscriptions/a%20sub%2F1/callback")
        assert wake["streams"] == [
            {
                "path": "events/a",
                "link_type": "glob",
                "acked_offset": at(1),
                "tail_offset": at(2),
                "has_pending": True,
            }
        ]
        await here.settled("a sub/1")
        assert await here.acked("a sub/1") == {"events/a": at(2)}
        assert made["streams"] == [{"path": "events/a", "link_type": "glob", "acked_offset": at(1)}]
        assert await receiver.silent()


async def test_nobody_is_called_before_the_append_is_durable(tmp_path: Path) -> None:
    """While the disk is busy there is nothing to tell; what it refused never is."""
    disk = Disk(tmp_path / "data")
    async with receiving() as receiver, site(tmp_path / "data", clock=Clock(), disk=disk) as here:
        await here.create("events/a")
        await here.hook("s", receiver.url)
        disk.hold()
        appending = asyncio.create_task(here.append("events/a"))
        assert await receiver.silent()
        assert not appending.done()
        disk.release()
        assert await appending == at(1)
        assert (await receiver.next()).pending == {"events/a": (at(0), at(1))}
        await here.settled("s")
        disk.fill()
        refused = await here.web.post("/v1/stream/events/a", content=b"x", headers={"content-type": "text/plain"})
        assert refused.status_code == 507
        disk.fail(0)
        await here.compared()  # the stream was looked at, and nothing has come of the append
        assert await receiver.silent()
        assert await here.append("events/a") == at(2)
        assert (await receiver.next()).pending == {"events/a": (at(1), at(2))}


async def test_a_call_is_sent_when_the_wake_is_durable(tmp_path: Path) -> None:
    """Else a restart could hand out its generation a second time."""
    disk = Disk(tmp_path / "data")
    async with receiving() as receiver, site(tmp_path / "data", clock=Clock(), disk=disk) as here:
        await here.create("events/a")
        await here.hook("s", receiver.url)
        here.subscriptions.on_news({"events/a": News(at(0))})  # nothing new: nothing happens
        assert await receiver.silent(0.02)
        disk.hold()
        here.subscriptions.on_news({"events/a": News(at(1))})
        assert here.state("s").generation == 1
        assert await receiver.silent()
        disk.release()
        assert (await receiver.next()).wake["generation"] == 1


# --- signatures


async def test_receivers_can_tell_that_it_is_us(tmp_path: Path) -> None:
    """By the published keys: after a restart by the same key, after a rotation by a new one, and by both."""
    clock = Clock()
    async with receiving() as receiver:
        async with site(tmp_path, clock=clock) as here:
            signing = (await here.hook("s", receiver.url))["webhook"]["signing"]
            assert signing["jwks_url"] == f"{here.web.base_url}/v1/stream/__ds/jwks.json"
            await here.create("events/a", b"1")
            first = await receiver.next()
            await _check(here, first)
            with pytest.raises(Unauthenticated, match="signature is wrong"):
                await _check(here, first._replace(body=first.body + b" "))
            with pytest.raises(Unauthenticated, match="signed more than 300 seconds ago"):
                await _check(here, first, NOON_S + 301)
        async with site(tmp_path, clock=clock) as here:
            await here.append("events/a")
            second = await receiver.next()
            assert _kid(second) == _kid(first) == f"kid={signing['kid']}"
            await _check(here, first)

            async def rotate(subscriptions: module.Subscriptions) -> str:
                return subscriptions.rotate_key()

            new_kid = await here.feed.run(rotate)
            await here.append("events/a")
            third = await receiver.next()
            assert _kid(third) == f"kid={new_kid}" != _kid(first)
        async with site(tmp_path, clock=clock) as here:
            for call in (first, second, third):
                await _check(here, call)
            assert [key["kid"] for key in (await here.ask("GET", "jwks.json")).json()["keys"]] == [
                new_kid,
                signing["kid"],
            ]
            assert (await here.document("s"))["webhook"]["signing"]["kid"] == new_kid


# --- failures


async def _wait_for_retry(clock: Clock, receiver: Receiver, expected_ms: int) -> None:
    """The next try comes after this time, a fifth more or less, and not before."""
    clock.pass_ms(expected_ms * 0.8 - 2)
    assert await receiver.silent(0.03)
    clock.pass_ms(expected_ms * 0.4 + 4)


async def test_a_receiver_that_fails_is_called_again(tmp_path: Path) -> None:
    """After a second, two, four ... a minute; the same wake each time, also over a restart; then all is well."""
    clock = Clock()
    async with receiving() as receiver:
        receiver.answer = reply(500)
        async with site(tmp_path, clock=clock) as here:
            await here.hook("s", receiver.url)
            assert await _status(here) == "active"
            await here.create("events/a", b"1")
            first = (await receiver.next()).wake
            for expected_ms in (1_000, 2_000):
                await until(lambda: here.state("s").not_before_ms)
                assert await _status(here) == "failed"
                await _wait_for_retry(clock, receiver, expected_ms)
                again = (await receiver.next()).wake
                assert (again["wake_id"], again["generation"]) == (first["wake_id"], 1)
            await until(lambda: here.state("s").not_before_ms)
        async with site(tmp_path, clock=clock) as here:
            await here.compared()
            assert await _status(here) == "failed"
            assert await receiver.silent()
            for expected_ms in (4_000, 8_000, 16_000, 32_000, 60_000, 60_000):
                await _wait_for_retry(clock, receiver, expected_ms)
                again = (await receiver.next()).wake
                assert (again["wake_id"], again["generation"]) == (first["wake_id"], 1)
                await until(lambda: here.state("s").not_before_ms)
            receiver.answer = DONE
            await _wait_for_retry(clock, receiver, 60_000)
            await receiver.next()
            await here.settled("s")
            assert (await _status(here), await here.acked("s")) == ("active", {"events/a": at(1)})


async def test_the_time_of_a_retry_may_pass_while_the_server_is_down(tmp_path: Path) -> None:
    """Then the call is made at once."""
    clock = Clock()
    async with receiving() as receiver:
        receiver.answer = reply(503)
        async with site(tmp_path, clock=clock) as here:
            await here.hook("s", receiver.url)
            await here.create("events/a", b"1")
            first = await receiver.next()
            await until(lambda: here.state("s").not_before_ms)
        clock.pass_ms(10_000)
        receiver.answer = DONE
        async with site(tmp_path, clock=clock):
            assert (await receiver.next()).wake["wake_id"] == first.wake["wake_id"]


async def _endless(_call: Call, line: Line) -> None:
    line.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
    while not line.writer.transport.is_closing():
        line.writer.write(b" " * 10_000)
        await line.writer.drain()


async def _rude(_call: Call, line: Line) -> None:
    line.writer.transport.abort()


ANSWERS = {
    "nothing": (reply(200), "active"),
    "no content": (reply(204), "active"),
    "done, as a text": (reply(200, b'{"done": "true"}'), "active"),
    "garbage": (reply(200, b"\xff{"), "active"),
    "more than is read": (reply(200, b" " * REPLY_BYTES_MAX + b'{"done": true}'), "active"),
    "without end": (_endless, "active"),
    "an error that says done": (reply(500, b'{"done": true}'), "failed"),
    "not found": (reply(404), "failed"),
    "a redirect": (reply(302, b"", "location: http://127.0.0.1:1/"), "failed"),
    "a redirect of the post": (reply(307, b"", "location: /elsewhere"), "failed"),
    "the end of the connection": (_rude, "failed"),
}


async def test_what_an_answer_means(tmp_path: Path) -> None:
    """2xx: it has arrived, and unless it says done the lease runs. Anything else is a failure, a redirect too."""
    async with receiving() as receiver, site(tmp_path, clock=Clock()) as here:

        async def by_name(call: Call, line: Line) -> None:
            await ANSWERS[call.wake["subscription_id"]][0](call, line)

        receiver.answer = by_name
        for name in ANSWERS:
            await here.hook(name, receiver.url)
        await here.create("events/a", b"1")
        for name, (_, status) in ANSWERS.items():
            wanted = "sent" if status == "active" else "waiting"
            await until(lambda name=name, wanted=wanted: here.phase(name) == wanted)  # type: ignore[misc]
            assert (name, await _status(here, name)) == (name, status)
            assert await here.acked(name) == {"events/a": at(0)}
            assert here.state(name).generation == 1
        assert len(receiver.calls) == len(ANSWERS)


async def test_a_receiver_that_hangs_is_given_up_with_its_lease(tmp_path: Path) -> None:
    """The next wake has a new generation, and comes no sooner than a retry would."""
    clock = Clock()
    async with receiving() as receiver, site(tmp_path, clock=clock) as here:
        receiver.answer = hang
        await here.hook("s", receiver.url, lease_ttl_ms=60_000)
        await here.create("events/a", b"1")
        first = (await receiver.next()).wake
        clock.pass_ms(60_000)
        await until(lambda: here.state("s").generation == 2)
        assert await receiver.silent(0.02)
        assert await _status(here) == "failed"
        late = await here.report("s", "callback", first, done=True)
        assert (late.status_code, late.json()["error"]["code"]) == (409, "FENCED")
        receiver.answer = DONE
        clock.pass_ms(1_200)
        second = await receiver.next()
        assert (second.wake["generation"], second.pending) == (2, {"events/a": (at(0), at(1))})


async def test_a_connection_that_hangs_ends_with_the_lease(tmp_path: Path) -> None:
    """Nobody's socket is held for longer than the lease says."""
    async with receiving() as receiver, site(tmp_path) as here:
        receiver.answer = hang
        await here.hook("s", receiver.url, lease_ttl_ms=1_000)
        await here.create("events/a", b"1")
        await receiver.next()
        assert receiver.at_work == 1
        await until(lambda: receiver.at_work == 0, timeout_s=3)
        assert await _status(here) == "failed"


# --- answers


async def test_callbacks_acknowledge_and_extend_the_lease(tmp_path: Path) -> None:
    """Each one gives the lease's time anew; ``done`` ends it and says whether more is to be done."""
    clock = Clock()
    async with receiving() as receiver, site(tmp_path, clock=clock) as here:
        receiver.answer = OK
        await here.hook("s", receiver.url)
        await here.create("events/a", b"1")
        await here.create("events/b", b"1")
        wake = (await receiver.next()).wake
        for _ in range(3):
            clock.pass_ms(29_999)
            acks = [{"stream": "events/a", "offset": at(1)}]
            answer = await here.report("s", "callback", wake, acks=acks)
            assert (answer.status_code, answer.json()) == (200, {"ok": True, "next_wake": False})
        assert await receiver.silent(0.02)
        assert (await here.acked("s"))["events/a"] == at(1)
        answer = await here.report("s", "callback", wake, done=True)
        assert answer.json() == {"ok": True, "next_wake": True}
        following = await receiver.next()
        assert (following.wake["generation"], following.pending) == (2, {"events/b": (at(0), at(1))})
        answer = await here.report("s", "callback", wake, done=True)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "FENCED")
        acks = [{"stream": "events/b", "offset": at(1)}]
        answer = await here.report("s", "callback", following.wake, acks=acks, done=True)
        assert answer.json() == {"ok": True, "next_wake": False}
        assert await receiver.silent()


async def test_a_silent_worker_loses_its_wake(tmp_path: Path) -> None:
    """When the lease ends somebody is woken anew, and the late one is told."""
    clock = Clock()
    async with receiving() as receiver, site(tmp_path, clock=clock) as here:
        receiver.answer = OK
        await here.hook("s", receiver.url)
        await here.create("events/a", b"1")
        first = (await receiver.next()).wake
        await until(lambda: here.phase("s") == "sent")
        clock.pass_ms(29_999)
        assert await receiver.silent(0.03)
        clock.pass_ms(1)
        second = (await receiver.next()).wake
        assert second["generation"] == 2
        late = await here.report("s", "callback", first, acks=[{"stream": "events/a", "offset": at(1)}])
        assert (late.status_code, late.json()["error"]["code"]) == (409, "FENCED")
        assert await here.acked("s") == {"events/a": at(0)}


async def test_what_comes_during_a_wake_makes_the_next(tmp_path: Path) -> None:
    """``done`` acknowledges what the call had named and nothing that came since."""
    async with receiving() as receiver, site(tmp_path, clock=Clock()) as here:
        gate = asyncio.Event()

        async def when_told(call: Call, line: Line) -> None:
            await gate.wait()
            await DONE(call, line)

        receiver.answer = when_told
        await here.hook("s", receiver.url)
        await here.create("events/a", b"1")
        assert (await receiver.next()).pending == {"events/a": (at(0), at(1))}
        for _ in range(20):
            await here.append("events/a")
        assert not receiver.calls
        gate.set()
        assert (await receiver.next()).pending == {"events/a": (at(1), at(21))}
        await here.settled("s")
        assert await receiver.silent()


async def test_an_ack_may_be_ahead_of_the_news(tmp_path: Path) -> None:
    """A worker that has read on acknowledges what it read; more than there is is refused."""
    async with receiving() as receiver, site(tmp_path, clock=Clock()) as here:
        receiver.answer = OK
        await here.hook("s", receiver.url)
        await here.create("events/a", b"1")
        wake = (await receiver.next()).wake
        # An append that the feed has not told of: as if it were still on its way.
        here.feed._telling, here.feed._active = True, False
        await here.append("events/a")
        here.feed._telling, here.feed._active = False, True
        refused = await here.report("s", "callback", wake, acks=[{"stream": "events/a", "offset": at(3)}])
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "INVALID_OFFSET")
        taken = await here.report("s", "callback", wake, acks=[{"stream": "events/a", "offset": at(2)}], done=True)
        assert taken.json() == {"ok": True, "next_wake": False}
        back = await here.acked("s")
        assert back == {"events/a": at(2)}


# --- many


async def test_many_subscriptions_to_a_busy_stream(tmp_path: Path) -> None:
    """100 of them and 1,000 appends: each is told of all, in far fewer calls, and no append waits for them."""
    async with receiving() as receiver, site(tmp_path, clock=Clock()) as here:
        for number in range(100):
            await here.hook(f"s{number}", receiver.url, pattern="**" if number % 2 else "events/*")
        await here.create("events/a")

        async def writer() -> None:
            for _ in range(50):
                await here.append("events/a")

        await asyncio.gather(*(writer() for _ in range(20)))
        states = [item.state for item in here.subscriptions._all.values()]
        await until(lambda: all(state.links["events/a"].acked == at(1_000) for state in states), timeout_s=20)
        await until(lambda: all(state.wake is None for state in states))
        assert 100 <= len(receiver.calls) < 10_000
        last: dict[str, str] = {}
        for call in receiver.calls:
            id, (acked, tail) = call.wake["subscription_id"], call.pending["events/a"]
            assert acked == last.get(id, at(0)) < tail  # each wake goes on where the one before ended
            last[id] = tail
        assert set(last.values()) == {at(1_000)}


async def test_calls_wait_for_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more are under way than `DELIVERIES_AT_ONCE`, and that many are; the rest follows."""
    monkeypatch.setattr(module, "DELIVERIES_AT_ONCE", 3)
    async with receiving() as receiver, site(tmp_path, clock=Clock()) as here:
        gate = asyncio.Event()

        async def when_told(call: Call, line: Line) -> None:
            await gate.wait()
            await DONE(call, line)

        receiver.answer = when_told
        for number in range(8):
            await here.hook(f"s{number}", receiver.url)
        await here.create("events/a", b"1")
        await until(lambda: receiver.at_work == 3)
        assert not await receiver.silent()
        assert receiver.at_work == 3
        await here.ask("DELETE", "subscriptions/s7")  # what is over is not sent any more
        gate.set()
        await until(lambda: len(receiver.calls) == 7)
        assert receiver.at_work_max == 3
        assert {call.wake["subscription_id"] for call in receiver.calls} == {f"s{number}" for number in range(7)}
        await until(lambda: not receiver.at_work)


# --- ends


async def test_a_subscription_is_deleted_while_its_receiver_works(tmp_path: Path) -> None:
    """Nothing of it is left, whatever the receiver says then; one of the same name starts anew."""
    async with receiving() as receiver:
        async with site(tmp_path, clock=Clock()) as here:
            gate = asyncio.Event()

            async def when_told(call: Call, line: Line) -> None:
                await gate.wait()
                await DONE(call, line)

            receiver.answer = when_told
            await here.hook("s", receiver.url)
            await here.create("events/a", b"1")
            old = (await receiver.next()).wake
            assert (await here.ask("DELETE", "subscriptions/s")).status_code == 204
            assert (await here.report("s", "callback", old, done=True)).status_code == 404
            await here.hook("s", receiver.url)
            gate.set()
            await until(lambda: not receiver.at_work)
            fenced = await here.report("s", "callback", old, acks=[{"stream": "events/a", "offset": at(1)}])
            assert (fenced.status_code, fenced.json()["error"]["code"]) == (409, "FENCED")
            await here.append("events/a")
            again = await receiver.next()
            assert (again.wake["generation"], again.pending) == (1, {"events/a": (at(1), at(2))})
            assert again.wake["wake_id"] != old["wake_id"]
            await here.settled("s")
            assert (await here.ask("DELETE", "subscriptions/s")).status_code == 204
        async with site(tmp_path, clock=Clock()) as here:
            assert (await here.ask("GET", "subscriptions/s")).status_code == 404
            await here.append("events/a")
            assert await receiver.silent()


async def test_without_subscriptions_nothing_is_made(tmp_path: Path) -> None:
    """No object for streams, nor for questions about subscriptions that are not there."""
    async with site(tmp_path, clock=Clock()) as here:
        await here.create("events/a")
        await here.append("events/a")
        for method, path in (
            ("GET", "subscriptions/s"),
            ("DELETE", "subscriptions/s"),
            ("DELETE", "subscriptions/s/streams/a"),
        ):
            await here.ask(method, path)
        assert (await here.ask("POST", "subscriptions/s/claim", {"worker": "w"})).status_code == 404
        assert (await here.ask("POST", "subscriptions/s/streams", {"streams": ["a"]})).status_code == 404
        assert (await here.ask("POST", "subscriptions/s/ack", {}, token="x.y")).status_code == 404
        await here.delete("events/a")
        assert here.instance is None
        assert not here.app.runtime.exists(here.feed.object_id)


async def test_after_the_last_subscription_streams_are_alone_again(tmp_path: Path) -> None:
    """The object hears of no append any more, and may sleep; after a restart, too."""
    async with receiving() as receiver:
        async with site(tmp_path, clock=Clock()) as here:
            await here.hook("s", receiver.url)
            await here.create("events/a", b"1")
            await receiver.next()
            assert here.instance is not None
            assert not here.instance.idle
            assert here.feed.active
            await here.ask("DELETE", "subscriptions/s")
            assert not here.feed.active
            await until(lambda: here.instance is not None and here.instance.idle)
        async with site(tmp_path, clock=Clock()) as here:
            assert here.instance is None
            await here.append("events/a")  # it is asked once whether it cares
            await until(lambda: not here.feed.active)
            assert (await here.ask("GET", "jwks.json")).status_code == 200
            assert not here.feed.active
            await here.hook("s", receiver.url)
            assert here.feed.active
            await here.append("events/a")
            assert (await receiver.next()).pending == {"events/a": (at(2), at(3))}


async def test_the_object_starts_again_after_a_failure_of_the_disk(tmp_path: Path) -> None:
    """What it had not saved is asked for again; nothing that was appended meanwhile is forgotten."""
    disk = Disk(tmp_path / "data")
    async with receiving() as receiver, site(tmp_path / "data", clock=Clock(), disk=disk) as here:
        await here.hook("s", receiver.url)
        await here.create("events/a", b"1")
        await receiver.next()
        await here.settled("s")
        before = here.instance
        assert before is not None
        disk.fill()
        here.subscriptions.on_news({"events/a": News(at(2))})
        await until(lambda: here.instance is not before)
        disk.fail(0)
        assert not receiver.calls
        await until(lambda: here.instance is not None, timeout_s=3)
        await here.compared()
        assert await here.acked("s") == {"events/a": at(1)}
        await here.append("events/a")
        assert (await receiver.next()).pending == {"events/a": (at(1), at(2))}


async def test_news_waits_while_the_object_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An inbox that is full loses nothing: the news is told again."""
    monkeypatch.setattr(module, "AGAIN_MS", 50)
    async with receiving() as receiver, site(tmp_path, clock=Clock()) as here:
        await here.hook("s", receiver.url)
        slot = here.app.runtime.slot(here.feed.object_id)
        slot._running += 1_000  # inbox_events_max
        await here.create("events/a", b"1")
        await here.append("events/a")
        assert await receiver.silent(0.12)
        slot._running -= 1_000
        assert (await receiver.next()).pending == {"events/a": (at(0), at(2))}
