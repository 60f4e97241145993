"""What a kill leaves of subscriptions: no work is forgotten, nothing that was acknowledged comes back."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.running import killed, until
from tests.server.clients import http
from tests.soak.server import ServerProcess

from perdure.stream_hosts.directory import home_of

from .receivers import DONE, OK, Call, Line, Receiver, hang, receiving
from .subscribing import JSON, Clock, at, site

pytestmark = pytest.mark.anyio


async def test_an_append_whose_wake_was_swallowed(tmp_path: Path) -> None:
    """Acknowledged, and killed before anyone was told: the next start tells, of new streams from their start."""
    clock = Clock()
    async with receiving() as receiver:
        async with site(tmp_path / "one", clock=clock) as here:
            await here.create("events/a", b"history")
            await here.hook("s", receiver.url)
            with here.news_held():
                await here.append("events/a")
                await here.create("events/new", b"1")
                left = await killed(here.app.runtime, tmp_path / "two")
        receiver.calls.clear()
        async with site(left, clock=clock) as here:
            await here.compared()
            await until(lambda: not here.subscriptions._all["s"].has_work)
            await here.settled("s")
            told: dict[str, Any] = {}
            for call in receiver.calls:
                told |= call.pending
            assert told == {"events/a": (at(1), at(2)), "events/new": (at(0), at(1))}
            assert await here.acked("s") == {"events/a": at(2), "events/new": at(1)}


async def test_a_stream_that_was_made_anew_unheard(tmp_path: Path) -> None:
    """Deleted, made again and longer than before, and killed before anyone was told: all of it is work."""
    clock = Clock()
    async with receiving() as receiver:
        async with site(tmp_path / "one", clock=clock) as here:
            await here.create("events/a", b"old")
            await here.hook("s", receiver.url)
            assert await here.acked("s") == {"events/a": at(1)}
            with here.news_held():
                await here.delete("events/a")
                await here.create("events/a", b"new")
                await here.append("events/a")
                left = await killed(here.app.runtime, tmp_path / "two")
        receiver.calls.clear()
        async with site(left, clock=clock) as here:
            await here.compared()
            await until(lambda: receiver.calls)
            assert receiver.calls[0].pending == {"events/a": (at(0), at(2))}


async def test_a_call_without_an_answer_is_made_again(tmp_path: Path) -> None:
    """At once, as the same wake of the same generation: its receiver can tell."""
    clock = Clock()
    async with receiving() as receiver:
        async with site(tmp_path / "one", clock=clock) as here:
            receiver.answer = hang
            await here.hook("s", receiver.url)
            await here.create("events/a", b"1")
            first = await receiver.next()
            left = await killed(here.app.runtime, tmp_path / "two")
        receiver.answer = DONE
        async with site(left, clock=clock) as here:
            again = await receiver.next()
            assert (again.wake["wake_id"], again.wake["generation"]) == (first.wake["wake_id"], 1)
            await here.settled("s")
            assert await receiver.silent()


async def test_a_wake_event_without_an_outcome_is_appended_again(tmp_path: Path) -> None:
    """Workers may see one generation twice, and never none."""
    clock = Clock()
    async with site(tmp_path / "one", clock=clock) as here:
        await here.create("wakes", content_type=JSON)
        await here.pull("s")
        slot = here.host(home_of("wakes"))
        slot.blocked += 1
        await here.create("events/a", b"1")
        await until(lambda: here.phase("s") == "sending")
        await here.document("s")  # that is durable
        left = await killed(here.app.runtime, tmp_path / "two")
        slot.blocked -= 1
        slot.deliver_waiting()
    async with site(left, clock=clock) as here:
        await until(lambda: here.instance is not None and here.phase("s") == "sent")
        assert [event["generation"] for event in await here.read("wakes")] == [1]


async def test_a_claim_outlives_the_server(tmp_path: Path) -> None:
    """Its token, its cursor and its lease go on where they were; a generation that ended has ended for ever."""
    clock = Clock()
    async with site(tmp_path / "one", clock=clock) as here:
        await here.create("wakes", content_type=JSON)
        await here.pull("s")
        await here.create("events/a", b"1")
        await here.append("events/a")
        await until(lambda: here.phase("s") == "sent")
        first = await here.claim("s")
        answer = await here.report("s", "ack", first, acks=[{"stream": "events/a", "offset": at(1)}])
        assert answer.status_code == 200
        left = await killed(here.app.runtime, tmp_path / "two")
    clock.pass_ms(29_000)
    async with site(left, clock=clock) as here:
        assert await here.acked("s") == {"events/a": at(1)}
        other = await here.ask("POST", "subscriptions/s/claim", {"worker": "w2"})
        assert (other.status_code, other.json()["error"]["code"]) == (409, "ALREADY_CLAIMED")
        assert (await here.report("s", "ack", first)).status_code == 200
        clock.pass_ms(30_000)  # the timer of the lease is there again, too
        await until(lambda: here.state("s").generation == 2)
        await until(lambda: here.phase("s") == "sent")
        second = await here.claim("s")
        left = await killed(here.app.runtime, tmp_path / "three")
    async with site(left, clock=clock) as here:
        late = await here.report("s", "ack", first, acks=[{"stream": "events/a", "offset": at(2)}], done=True)
        assert (late.status_code, late.json()["error"]["code"]) == (409, "FENCED")
        done = await here.report("s", "ack", second, acks=[{"stream": "events/a", "offset": at(2)}], done=True)
        assert done.json() == {"ok": True, "next_wake": False}
        clock.pass_ms(60_000)
        await asyncio.sleep(0.05)
        assert [event["generation"] for event in await here.read("wakes")] == [1, 2]


GONE = (httpx2.HTTPError, AttributeError)
"""What a client raises when the server dies under it; anyio asks a socket for its peer that is not there any more."""


class Worker:
    """A receiver that reports by callbacks, and remembers what was confirmed to it."""

    def __init__(self, receiver: Receiver) -> None:
        self.confirmed: dict[str, str] = {}
        self.wakes: dict[int, str] = {}
        self.calls = 0
        self.violations: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._receiver = receiver
        receiver.answer = self.answer

    async def answer(self, call: Call, line: Line) -> None:
        self.calls += 1
        wake = call.wake
        if self.wakes.setdefault(wake["generation"], wake["wake_id"]) != wake["wake_id"]:
            self.violations.append(f"generation {wake['generation']} was given out twice")
        for item in wake["streams"]:
            if item["acked_offset"] < self.confirmed.get(item["path"], "-1"):
                self.violations.append(f"{item['path']} went back to {item['acked_offset']}: {self.confirmed}")
        await OK(call, line)
        task = asyncio.create_task(self._work(wake))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, wake: dict[str, Any]) -> None:
        headers = {"authorization": f"Bearer {wake['callback_token']}"}
        acks = [{"stream": item["path"], "offset": item["tail_offset"]} for item in wake["streams"]]
        report = {"wake_id": wake["wake_id"], "generation": wake["generation"], "acks": acks, "done": True}
        with suppress(*GONE):
            async with httpx2.AsyncClient(trust_env=False) as web:
                answer = await web.post(wake["callback_url"], json=report, headers=headers)
            if answer.status_code == 200:
                for ack in acks:
                    self.confirmed[ack["stream"]] = max(ack["offset"], self.confirmed.get(ack["stream"], ""))


async def _write(web: httpx2.AsyncClient, path: str, tails: dict[str, str]) -> None:
    """Append to a stream until the server is gone; ``tails`` has where it ended for sure."""
    text = {"content-type": "text/plain"}
    with suppress(*GONE):
        await web.put(f"/v1/stream/{path}", headers=text)
        while True:
            answer = await web.post(f"/v1/stream/{path}", content=b"x", headers=text)
            if answer.status_code == 204:
                tails[path] = answer.headers["stream-next-offset"]
            await asyncio.sleep(0.001)


async def test_a_server_that_is_killed_again_and_again(tmp_path: Path) -> None:
    """With kill -9, while streams are made and written: in the end all of it is acknowledged, and nothing twice."""
    chance = random.Random(7)
    server = ServerProcess(tmp_path / "data", module="tests.stream_hosts.served")
    tails: dict[str, str] = defaultdict(str)
    async with receiving() as receiver:
        worker = Worker(receiver)
        server.start()
        try:
            for number in range(3):
                await server.ready()
                async with http(f"127.0.0.1:{server.port}") as web:
                    config = {
                        "type": "webhook",
                        "pattern": "events/*",
                        "webhook": {"url": receiver.url},
                        "lease_ttl_ms": 1_000,
                    }
                    made = await web.put("/v1/stream/__ds/subscriptions/s", json=config)
                    assert made.status_code == (200 if number else 201)
                    paths = [f"events/{serial}" for serial in range(4 * number + 4)]
                    writers = [asyncio.create_task(_write(web, path, tails)) for path in paths]
                    await asyncio.sleep(chance.uniform(0.3, 0.6))
                    if number == 2:
                        await until(lambda: len(tails) == 12)
                    await server.end(signal.SIGKILL)
                    await asyncio.gather(*writers)
                server.start()
            await server.ready()
            await until(lambda: all(worker.confirmed.get(path, "") >= tail for path, tail in tails.items()))
        finally:
            server.kill()
    assert worker.violations == []
    assert len(tails) == 12
    assert min(tails.values()) >= at(1)
    assert worker.calls < sum(int(tail) for tail in tails.values())
