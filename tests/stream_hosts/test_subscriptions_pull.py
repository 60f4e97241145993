"""Pull-wake subscriptions: events in a wake stream, and the workers that claim what they tell of."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.running import eventually, until

from .subscribing import JSON, NOON_MS, Clock, Site, at, site

pytestmark = pytest.mark.anyio


def _error(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def _wakes(here: Site, count: int, stream: str = "wakes") -> list[dict[str, Any]]:
    """The events of a wake stream, as soon as there are so many."""

    async def enough() -> bool:
        return len(await here.read(stream)) >= count

    await eventually(enough)
    return await here.read(stream)


def _event(stream: str, generation: int, ts: int = NOON_MS, id: str = "s") -> dict[str, Any]:
    return {"type": "wake", "subscription_id": id, "stream": stream, "generation": generation, "ts": ts}


async def test_a_worker_claims_and_acknowledges(tmp_path: Path) -> None:
    """One event for all that comes until somebody claims it; the claim lists the work, done ends it."""
    async with site(tmp_path, clock=Clock()) as here:
        await here.create("wakes", content_type=JSON)
        await here.pull("s")
        claim = await here.ask("POST", "subscriptions/s/claim", {"worker": "w1"})
        assert _error(claim) == (409, "NO_PENDING_WORK")
        await here.create("events/a", b"1")
        await here.append("events/a")
        await here.create("events/b", b"1")
        assert await _wakes(here, 1) == [_event("events/a", 1)]
        claimed = await here.claim("s")
        assert {key: claimed[key] for key in ("generation", "lease_ttl_ms", "streams")} == {
            "generation": 1,
            "lease_ttl_ms": 30_000,
            "streams": [
                {
                    "path": path,
                    "link_type": "glob",
                    "acked_offset": at(0),
                    "tail_offset": at(tail),
                    "has_pending": True,
                }
                for path, tail in (("events/a", 2), ("events/b", 1))
            ],
        }
        await here.append("events/a")
        answer = await here.report("s", "ack", claimed, acks=[{"stream": "events/a", "offset": at(2)}])
        assert (answer.status_code, answer.json()) == (200, {"ok": True, "next_wake": False})
        acks = [{"path": "/events/b", "offset": at(1)}]
        answer = await here.report("s", "ack", claimed, acks=acks, done=True)
        assert answer.json() == {"ok": True, "next_wake": True}
        assert await here.acked("s") == {"events/a": at(2), "events/b": at(1)}
        assert await _wakes(here, 2) == [_event("events/a", 1), _event("events/a", 2)]
        claimed = await here.claim("s")
        acks = [{"stream": "events/a", "offset": at(3)}]
        answer = await here.report("s", "ack", claimed, acks=acks, done=True)
        assert answer.json() == {"ok": True, "next_wake": False}
        assert _error(await here.report("s", "ack", claimed, done=True)) == (409, "FENCED")
        assert len(await here.read("wakes")) == 2


async def test_of_two_workers_one_gets_the_work(tmp_path: Path) -> None:
    """The other is told who has it, and may come back."""
    async with site(tmp_path, clock=Clock()) as here:
        await here.create("wakes", content_type=JSON)
        await here.pull("s")
        await here.create("events/a", b"1")
        await _wakes(here, 1)
        workers = [f"w{number}" for number in range(8)]
        answers = await asyncio.gather(
            *(here.ask("POST", "subscriptions/s/claim", {"worker": worker}) for worker in workers)
        )
        [winner] = [worker for worker, answer in zip(workers, answers, strict=True) if answer.status_code == 200]
        for worker, answer in zip(workers, answers, strict=True):
            if worker != winner:
                assert _error(answer) == (409, "ALREADY_CLAIMED")
                error = answer.json()["error"]
                assert (error["current_holder"], error["generation"]) == (winner, 1)
                assert answer.headers["retry-after"] == "1"


async def test_a_lease_that_ends_wakes_another(tmp_path: Path) -> None:
    """A new event, a new generation; the worker that was too slow is fenced, and has lost nothing for others."""
    clock = Clock()
    async with site(tmp_path, clock=clock) as here:
        await here.create("wakes", content_type=JSON)
        await here.pull("s", lease_ttl_ms=1_000)
        await here.create("events/a", b"1")
        await _wakes(here, 1)
        clock.pass_ms(3_600_000)  # nobody has to come in a hurry
        slow = await here.claim("s", "slow")
        clock.pass_ms(999)
        assert (await here.report("s", "ack", slow)).status_code == 200  # a heartbeat
        clock.pass_ms(999)
        assert _error(await here.ask("POST", "subscriptions/s/claim", {"worker": "b"})) == (409, "ALREADY_CLAIMED")
        clock.pass_ms(1)
        assert (await _wakes(here, 2))[1] == _event("events/a", 2, clock.now_ms)
        late = await here.report("s", "ack", slow, acks=[{"stream": "events/a", "offset": at(1)}], done=True)
        assert _error(late) == (409, "FENCED")
        quick = await here.claim("s", "quick")
        assert (quick["generation"], quick["streams"][0]["acked_offset"]) == (2, at(0))


async def test_a_claim_is_given_back(tmp_path: Path) -> None:
    """What is left of its work wakes the next worker at once."""
    async with site(tmp_path, clock=Clock()) as here:
        await here.create("wakes", content_type=JSON)
        await here.pull("s")
        await here.create("events/a", b"1")
        await here.append("events/a")
        await _wakes(here, 1)
        claimed = await here.claim("s")
        await here.report("s", "ack", claimed, acks=[{"stream": "events/a", "offset": at(1)}])
        released = await here.report("s", "release", claimed)
        assert (released.status_code, released.content) == (204, b"")
        assert _error(await here.report("s", "release", claimed)) == (409, "FENCED")
        assert (await _wakes(here, 2))[1] == _event("events/a", 2)
        claimed = await here.claim("s", "w2")
        assert (claimed["streams"][0]["acked_offset"], claimed["streams"][0]["tail_offset"]) == (at(1), at(2))


@pytest.mark.parametrize("trouble", ["missing", "text", "closed", "deleted"])
async def test_a_wake_stream_that_takes_no_event(tmp_path: Path, trouble: str) -> None:
    """Is tried again as a webhook would be; workers that come by themselves may claim meanwhile."""
    clock = Clock()
    async with site(tmp_path, clock=clock) as here:
        if trouble == "text":
            await here.create("wakes")
        elif trouble != "missing":
            await here.create("wakes", content_type=JSON)
        if trouble == "closed":
            await here.web.post("/v1/stream/wakes", headers={"stream-closed": "true"})
        elif trouble == "deleted":
            await here.delete("wakes")
        await here.pull("s")
        await here.create("events/a", b"1")
        await until(lambda: here.phase("s") == "waiting")
        assert (await here.document("s"))["status"] == "failed"
        claimed = await here.claim("s")
        await here.report("s", "release", claimed)
        await until(lambda: here.phase("s") == "waiting")
        if trouble not in ("missing", "deleted"):
            await here.delete("wakes")
        await here.create("wakes", content_type=f"{JSON}; charset=utf-8")
        clock.pass_ms(2_400)
        assert [event["generation"] for event in await _wakes(here, 1)] == [2]
        await until(lambda: here.phase("s") == "sent")
        assert (await here.document("s"))["status"] == "active"


async def test_a_wake_stream_lives_by_its_events(tmp_path: Path) -> None:
    """Each one renews its time to live, as anybody's append does."""
    clock = Clock()
    async with site(tmp_path, clock=clock) as here:
        await here.create("wakes", content_type=JSON, stream_ttl="10")
        await here.pull("s")
        for number in range(3):
            clock.pass_ms(9_000)
            await here.create(f"events/{number}", b"1")
            await until(lambda: here.phase("s") == "sent")
            claimed = await here.claim("s")
            acks = [{"stream": f"events/{number}", "offset": at(1)}]
            await here.report("s", "ack", claimed, acks=acks, done=True)
        assert len(await here.read("wakes")) == 3


async def test_wake_streams_wake_no_one_else(tmp_path: Path) -> None:
    """Two subscriptions to everything, each other's wake streams too: an append makes one wake for each."""
    async with site(tmp_path, clock=Clock()) as here:
        for name in ("one", "two"):
            await here.create(f"wakes/{name}", content_type=JSON)
            await here.pull(name, f"wakes/{name}", pattern="**")
        await here.create("events/a", b"1")
        for name in ("one", "two"):
            assert await _wakes(here, 1, f"wakes/{name}") == [_event("events/a", 1, id=name)]
            claimed = await here.claim(name)
            acks = [{"stream": "events/a", "offset": at(1)}]
            assert (await here.report(name, "ack", claimed, acks=acks, done=True)).json()["next_wake"] is False
        await asyncio.sleep(0.1)
        assert [len(await here.read(f"wakes/{name}")) for name in ("one", "two")] == [1, 1]


async def test_each_kind_has_its_own_calls(tmp_path: Path) -> None:
    """A webhook is not claimed, a claim is not called back; nothing is acknowledged that is not watched."""
    async with site(tmp_path, clock=Clock()) as here:
        await here.create("wakes", content_type=JSON)
        await here.pull("s")
        await here.hook("h", "http://127.0.0.1:1/")
        assert _error(await here.ask("POST", "subscriptions/h/claim", {"worker": "w"})) == (400, "INVALID_REQUEST")
        await here.create("events/a", b"1")
        await _wakes(here, 1)
        claimed = await here.claim("s")
        assert _error(await here.report("s", "callback", claimed)) == (400, "INVALID_REQUEST")
        ack = {"stream": "events/a", "offset": at(1)}
        assert _error(await here.report("s", "release", claimed, acks=[ack])) == (400, "INVALID_REQUEST")
        for path, offset in (("other", at(0)), ("events/a", at(2))):
            refused = await here.report("s", "ack", claimed, acks=[ack, {"stream": path, "offset": offset}])
            assert _error(refused) == (409, "INVALID_OFFSET")
            assert await here.acked("s") == {"events/a": at(0)}  # all or nothing
        assert (await here.report("s", "ack", claimed, acks=[ack])).status_code == 200
        back = await here.report("s", "ack", claimed, acks=[{"stream": "events/a", "offset": at(0)}])
        assert _error(back) == (409, "INVALID_OFFSET")
        assert await here.acked("s") == {"events/a": at(1)}
