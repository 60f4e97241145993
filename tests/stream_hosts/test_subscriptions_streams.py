"""Which streams a subscription watches, and from where on: those that were there, and those that come and go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.objects.disks import Disk
from tests.running import until

from perdure.stream_hosts import stream_tails
from perdure.stream_hosts import subscriptions as module
from perdure.stream_hosts.directory import home_of

from .receivers import DONE, receiving, reply
from .subscribing import Clock, Site, at, paths_in, site

pytestmark = pytest.mark.anyio

TEXT = {"content-type": "text/plain"}


async def _links(here: Site, id: str = "s") -> dict[str, tuple[str, str]]:
    """By path: what kind of link, and what is acknowledged."""
    streams = (await here.document(id))["streams"]
    return {item["path"]: (item["link_type"], item["acked_offset"]) for item in streams}


def _block(here: Site, number: int) -> None:
    """From now on one of the hosts does not get to work."""
    here.host(number).blocked += 1


def _unblock(here: Site, number: int) -> None:
    here.host(number).blocked -= 1
    here.host(number).deliver_waiting()


# --- patterns


async def test_what_is_there_is_watched_from_its_tail_and_what_comes_from_its_start(tmp_path: Path) -> None:
    """An empty stream is no work, and the content that one begins with is."""
    async with receiving() as receiver, site(tmp_path, clock=Clock()) as here:
        for number in range(20):  # they live in many hosts
            await here.create(f"events/{number}", b"history")
        await here.create("other/a", b"history")
        await here.create("events/deep/a", b"history")
        await here.hook("s", receiver.url)
        assert await _links(here) == {f"events/{number}": ("glob", at(1)) for number in range(20)}
        await here.create("events/empty")
        await here.create("other/b", b"x")
        assert await receiver.silent()
        assert (await _links(here))["events/empty"] == ("glob", at(0))
        await here.create("events/later", b"its first")
        assert (await receiver.next()).pending == {"events/later": (at(0), at(1))}
        await here.settled("s")
        await here.append("events/empty")
        await here.append("events/7")
        calls = [await receiver.next(), await receiver.next()]
        assert [call.pending for call in calls] == [
            {"events/empty": (at(0), at(1))},
            {"events/7": (at(1), at(2))},
        ]


async def test_all_of_many_streams_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page, also where some of a page have expired or are only kept for their forks."""
    monkeypatch.setattr(stream_tails, "NAMES_AT_ONCE", 4)
    clock = Clock()
    async with receiving() as receiver, site(tmp_path, clock=clock) as here:
        paths = paths_in(3, 13)
        for number, path in enumerate(paths):
            await here.create(path, b"x", **({"stream_ttl": "5"} if number % 5 == 1 else {}))
        await here.create("elsewhere", stream_forked_from=f"/v1/stream/{paths[2]}")
        await here.delete(paths[2])
        clock.now_ms += 5_000  # they have expired, and nobody has noticed yet
        await here.hook("s", receiver.url)
        left = {path for number, path in enumerate(paths) if number % 5 != 1 and number != 2}
        assert set(await _links(here)) == left
        for count in (4, 5):  # a full last page, and one more
            await here.hook(f"s{count}", receiver.url, pattern=f"full{count}/*")
            for path in paths_in(4, count, f"full{count}/"):
                await here.create(path)
        for count in (4, 5):
            await here.hook(f"again{count}", receiver.url, pattern=f"full{count}/*")
            assert len(await _links(here, f"again{count}")) == count


async def test_a_fork_is_a_later_stream(tmp_path: Path) -> None:
    """It is read from its start, with what it shares; what its source gets then is not its own."""
    async with receiving() as receiver, site(tmp_path, clock=Clock()) as here:
        await here.create("source", b"shared")
        await here.hook("s", receiver.url)
        await here.create("events/fork", stream_forked_from="/v1/stream/source")
        assert home_of("events/fork") != home_of("source")
        assert (await receiver.next()).pending == {"events/fork": (at(0), at(1))}
        await here.settled("s")
        await here.append("source")
        assert await receiver.silent()
        await here.append("events/fork")
        assert (await receiver.next()).pending == {"events/fork": (at(1), at(2))}
        await here.settled("s")
        await here.create("events/early", stream_forked_from="/v1/stream/source", stream_fork_offset=at(0))
        assert await receiver.silent()
        assert (await _links(here))["events/early"] == ("glob", at(0))


async def test_forks_are_found_where_they_live_now(tmp_path: Path) -> None:
    """One that was made anew from another source is not looked for where it was, and nobody loses it."""
    clock = Clock()
    (fork,), (one,), (two,) = paths_in(1, 1, "events/f"), paths_in(2, 1, "source/"), paths_in(3, 1, "source/")
    async with receiving() as receiver:
        async with site(tmp_path, clock=clock) as here:
            await here.create(one, b"1")
            await here.create(two, b"22")
            await here.append(two)
            await here.create(fork, stream_forked_from=f"/v1/stream/{one}")
            await here.subscribe("s", type="webhook", streams=[fork], webhook={"url": receiver.url})
            assert await _links(here) == {fork: ("explicit", at(1))}
            await here.delete(fork)
            await here.create(fork, stream_forked_from=f"/v1/stream/{two}")
            assert (await receiver.next()).pending == {fork: ("-1", at(2))}
            await here.settled("s")
            await here.subscribe("again", type="webhook", streams=[fork], webhook={"url": receiver.url})
            assert await _links(here, "again") == {fork: ("explicit", at(2))}
        async with site(tmp_path, clock=clock) as here:
            assert (await here.web.get(f"/v1/stream/{fork}")).content == b"22x"
            await here.compared()
            assert await _links(here) == {fork: ("explicit", at(2))}


# --- names


async def test_streams_are_watched_by_name(tmp_path: Path) -> None:
    """Added and removed at any time, and again; one that does not exist yet is awaited."""
    async with receiving() as receiver, site(tmp_path, clock=Clock()) as here:
        await here.create("manual/a", b"history")
        await here.create("events/a", b"history")
        made = await here.subscribe(
            "s", type="webhook", pattern="events/*", streams=["manual/a", "/awaited/"], webhook={"url": receiver.url}
        )
        assert {item["path"]: item["acked_offset"] for item in made["streams"]} == {
            "awaited": "-1",
            "manual/a": at(1),
            "events/a": at(1),
        }
        await here.create("awaited", b"1")
        assert (await receiver.next()).pending == {"awaited": ("-1", at(1))}
        await here.settled("s")
        await here.create("manual/b c", b"history")
        for _ in range(2):
            added = await here.ask("POST", "subscriptions/s/streams", {"streams": ["manual/b c", "events/a"]})
            assert (added.status_code, added.content) == (204, b"")
        links = await _links(here)
        assert (links["manual/b c"], links["events/a"]) == (("explicit", at(1)), ("explicit", at(1)))
        await here.append("manual/b%20c")
        assert (await receiver.next()).pending == {"manual/b c": (at(1), at(2))}
        await here.settled("s")
        for path in ("manual%2Fb%20c", "manual/b%20c", "events%2Fa", "events/a", "never/there"):
            assert (await here.ask("DELETE", f"subscriptions/s/streams/{path}")).status_code == 204
        await here.append("manual/b%20c")
        assert await receiver.silent()
        assert await _links(here) == {
            "awaited": ("explicit", at(1)),
            "manual/a": ("explicit", at(1)),
            "events/a": ("glob", at(1)),  # the pattern still covers it
        }


async def test_a_thousand_names(tmp_path: Path) -> None:
    """They are looked up group by group, and one more is refused."""
    async with receiving() as receiver, site(tmp_path, clock=Clock()) as here:
        await here.create("n/7", b"history")
        names = [f"n/{number}" for number in range(1_000)]
        await here.subscribe("s", type="webhook", streams=names[:500], webhook={"url": receiver.url})
        added = await here.ask("POST", "subscriptions/s/streams", {"streams": names[500:]})
        assert added.status_code == 204
        links = await _links(here)
        assert links == dict.fromkeys(names, ("explicit", "-1")) | {"n/7": ("explicit", at(1))}
        refused = await here.ask("POST", "subscriptions/s/streams", {"streams": ["one/more"]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "limit_exceeded")
        assert await _links(here) == links
        await here.create("n/999", b"1")
        assert (await receiver.next()).pending == {"n/999": ("-1", at(1))}


# --- ends


async def test_a_deleted_stream_takes_its_work_with_it(tmp_path: Path) -> None:
    """By a pattern it is watched no more, by name it is awaited; one of the same name is a new one."""
    clock = Clock()
    async with receiving() as receiver, site(tmp_path, clock=clock) as here:
        await here.subscribe(
            "s", type="webhook", pattern="events/*", streams=["named"], webhook={"url": receiver.url}
        )
        receiver.answer = reply(500)
        for path in ("events/a", "named"):
            await here.create(path, b"1")
            await here.append(path)
        await receiver.next()
        await until(lambda: here.phase("s") == "waiting")
        await here.delete("events/a")
        await here.delete("named")
        await until(lambda: here.phase("s") is None)
        assert await _links(here) == {"named": ("explicit", "-1")}
        receiver.answer = DONE
        clock.pass_ms(2_000)
        assert await receiver.silent()
        await here.create("events/a", b"1")
        await here.create("named")
        assert (await receiver.next()).pending == {"events/a": (at(0), at(1))}
        await here.settled("s")
        assert await _links(here) == {"events/a": ("glob", at(1)), "named": ("explicit", at(0))}


async def test_a_stream_that_expired_and_is_made_again(tmp_path: Path) -> None:
    """Nobody tells of the end of a stream that expires; the next of its name is work from its start."""
    clock = Clock()
    async with receiving() as receiver, site(tmp_path, clock=clock) as here:
        await here.hook("s", receiver.url)
        await here.create("events/a", b"1", stream_ttl="5")
        assert (await receiver.next()).pending == {"events/a": (at(0), at(1))}
        await here.settled("s")
        clock.pass_ms(6_000)
        await here.create("events/a", b"1")  # it ends where the other one did
        assert (await receiver.next()).pending == {"events/a": (at(0), at(1))}
        await here.settled("s")
        assert await _links(here) == {"events/a": ("glob", at(1))}


async def test_an_end_and_a_beginning_in_one(tmp_path: Path) -> None:
    """News that comes together is not mixed up: the new stream is work from its start, whatever the old one had."""
    async with receiving() as receiver, site(tmp_path, clock=Clock()) as here:
        await here.hook("s", receiver.url)
        for path in ("events/a", "events/b", "events/c"):
            with here.news_held():
                await here.create(path, b"1")
                await here.append(path)
            assert (await receiver.next()).pending == {path: (at(0), at(2))}
            await here.settled("s")
        assert {acked for _, acked in (await _links(here)).values()} == {at(2)}
        with here.news_held():
            await here.append("events/a")
            await here.delete("events/a")
            await here.create("events/a", b"1")
            await here.delete("events/b")
            await here.create("events/b")
            await here.append("events/c")
            await here.delete("events/c")
        assert (await receiver.next()).pending == {"events/a": (at(0), at(1))}
        await here.settled("s")
        assert await _links(here) == {"events/a": ("glob", at(1)), "events/b": ("glob", at(0))}
        assert await receiver.silent()


# --- races


async def test_an_append_that_is_under_way_is_not_lost(tmp_path: Path) -> None:
    """A subscription that is made while the disk is busy begins before it or after it, and not in between."""
    disk = Disk(tmp_path / "data")
    async with receiving() as receiver, site(tmp_path / "data", clock=Clock(), disk=disk) as here:
        await here.create("events/a")
        for count, id in ((1, "first"), (2, "second")):  # the first one ever, and one beside it
            disk.hold()
            appending = asyncio.create_task(here.append("events/a"))
            await asyncio.sleep(0.05)
            subscribing = asyncio.create_task(here.hook(id, receiver.url))
            await asyncio.sleep(0.05)
            disk.release()
            await appending
            await subscribing
            for call in [await receiver.next()] if count == 2 else []:
                assert (call.wake["subscription_id"], call.pending) == ("first", {"events/a": (at(1), at(2))})
            assert await _links(here, id) == {"events/a": ("glob", at(count))}
        assert await receiver.silent()


async def test_appends_while_subscriptions_are_made(tmp_path: Path) -> None:
    """Whatever comes when: in the end each has acknowledged all that there is."""
    async with receiving() as receiver, site(tmp_path, clock=Clock()) as here:
        paths = [f"events/{number}" for number in range(4)]
        for path in paths:
            await here.create(path)
        ids = [f"s{number}" for number in range(12)]
        made = asyncio.Event()

        async def writer(path: str) -> None:
            while not made.is_set():
                await here.append(path)

        writers = [asyncio.create_task(writer(path)) for path in paths]
        for number, id in enumerate(ids):
            if number % 2:
                await here.hook(id, receiver.url)
            else:
                await here.hook(id, receiver.url, pattern="nothing")
                await here.ask("POST", f"subscriptions/{id}/streams", {"streams": paths})
        made.set()
        await asyncio.gather(*writers)
        tails = {path: (await here.web.head(f"/v1/stream/{path}")).headers["stream-next-offset"] for path in paths}
        for id in ids:
            await until(lambda id=id: {p: k.acked for p, k in here.state(id).links.items()} == tails)  # type: ignore[misc]


async def test_what_a_host_wrote_before_it_failed(tmp_path: Path) -> None:
    """Nobody knows whether it is durable, so it is looked up: what is there is told, what is gone is not."""
    disk = Disk(tmp_path / "data")
    grows, goes, comes, stays = paths_in(3, 4)
    async with receiving() as receiver, site(tmp_path / "data", clock=Clock(), disk=disk) as here:
        for path in (grows, goes, stays):
            await here.create(path, b"1")
        await here.hook("s", receiver.url)
        append = ("POST", grows, {**TEXT, "producer-id": "p", "producer-epoch": "0", "producer-seq": "0"})
        journal = here.app.runtime.store.journal
        for method, path, headers in (append, ("DELETE", goes, {}), ("PUT", comes, TEXT)):
            await here.compared()
            await here.settled("s")
            instance = here.host(3).instance
            assert instance is not None
            disk.hold()
            request = here.web.request(method, f"/v1/stream/{path}", content=b"2", headers=headers)
            asking = asyncio.create_task(request)
            await until(lambda at=instance.opened: at.last_sequence > journal.durable_sequence)  # type: ignore[misc]
            here.host(3).discard_instance(instance, RuntimeError("a test"))
            disk.release()
            assert (await asking).status_code == 503
            await until(lambda gone=instance: here.host(3).instance not in (None, gone))  # type: ignore[misc]
        method, path, headers = append
        again = await here.web.request(method, f"/v1/stream/{path}", content=b"2", headers=headers)
        assert (again.status_code, again.headers["stream-next-offset"]) == (204, at(2))  # a duplicate: it is there
        await until(lambda: here.state("s").links.keys() == {grows, comes, stays})
        await until(lambda: not here.subscriptions._all["s"].has_work)
        await here.settled("s")
        assert await _links(here) == dict.fromkeys((comes, stays), ("glob", at(1))) | {grows: ("glob", at(2))}
        told: dict[str, tuple[str, str]] = {}
        for call in receiver.calls:
            told |= call.pending
        assert told == {grows: (at(1), at(2)), comes: (at(0), at(1))}


async def test_a_host_that_cannot_be_asked_refuses_a_subscription(tmp_path: Path) -> None:
    """Rather than have it believe that there are no streams."""
    async with receiving() as receiver, site(tmp_path, clock=Clock()) as here:
        (path,) = paths_in(5, 1)
        await here.create(path, b"history")
        await here.hook("other", receiver.url, pattern="nothing")
        slot = here.host(5)
        instance = slot.instance
        assert instance is not None
        slot.discard_instance(instance, RuntimeError("a test"))
        slot._running += 1_000  # inbox_events_max
        for fields in ({"pattern": "events/*"}, {"streams": [path]}):
            refused = await here.ask(
                "PUT", "subscriptions/s", {"type": "webhook", "webhook": {"url": receiver.url}, **fields}
            )
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        refused = await here.ask("POST", "subscriptions/other/streams", {"streams": [path]})
        assert refused.status_code == 503
        assert await _links(here, "other") == {}
        assert (await here.ask("GET", "subscriptions/s")).status_code == 404
        slot._running -= 1_000
        await here.hook("s", receiver.url)
        assert await _links(here) == {path: ("glob", at(1))}


# --- starts


async def test_streams_go_on_while_a_start_compares_them(tmp_path: Path) -> None:
    """What comes, grows, goes, or is newly watched during it is judged by its news, not by an old look."""
    clock = Clock()
    slow = 15  # the last host that is asked
    (there, late), (grows, goes, anew, fresh) = paths_in(slow, 2), paths_in(0, 4)
    async with receiving() as receiver:
        async with site(tmp_path, clock=clock) as here:
            for path in (there, grows, goes, anew):
                await here.create(path, b"1")
                await here.append(path)
            await here.hook("s", receiver.url)
            assert set(await _links(here)) == {there, grows, goes, anew}
        async with site(tmp_path, clock=clock, prepare=lambda here: _block(here, slow)) as here:
            await until(lambda: here.host(slow).instance is not None)
            assert here.subscriptions._surveys
            await here.append(grows)
            assert (await receiver.next()).pending == {grows: (at(2), at(3))}
            await here.settled("s")
            await here.delete(goes)
            await here.delete(anew)
            await here.create(anew, b"1")
            assert (await receiver.next()).pending == {anew: (at(0), at(1))}
            await here.settled("s")
            await here.create(fresh, b"1")
            assert (await receiver.next()).pending == {fresh: (at(0), at(1))}
            await here.settled("s")
            await here.subscribe("new", type="webhook", streams=[grows], webhook={"url": receiver.url})
            assert here.subscriptions._surveys
            _unblock(here, slow)
            await here.compared()
            assert await _links(here) == {
                there: ("glob", at(2)),
                grows: ("glob", at(3)),
                anew: ("glob", at(1)),
                fresh: ("glob", at(1)),
            }
            assert await _links(here, "new") == {grows: ("explicit", at(3))}
            assert await receiver.silent()
            await here.create(late, b"1")
            assert (await receiver.next()).pending == {late: (at(0), at(1))}


async def test_a_start_waits_for_hosts_that_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their streams are not taken for deleted, and the others' wakes do not wait for them."""
    monkeypatch.setattr(module, "AGAIN_MS", 30)
    clock = Clock()
    (one,), (two,) = paths_in(5, 1), paths_in(6, 1)

    def fill(here: Site) -> None:
        here.host(5)._running += 1_000  # inbox_events_max

    async with receiving() as receiver:
        async with site(tmp_path, clock=clock) as here:
            await here.create(one, b"1")
            await here.create(two, b"1")
            await here.hook("s", receiver.url)
            here.feed._active = False  # as if the process had died before it could tell
            await here.append(one)
            await here.append(two)
        async with site(tmp_path, clock=clock, prepare=fill) as here:
            assert (await receiver.next()).pending == {two: (at(1), at(2))}
            await here.settled("s")
            assert await receiver.silent()
            assert await _links(here) == {one: ("glob", at(1)), two: ("glob", at(2))}
            here.host(5)._running -= 1_000
            assert (await receiver.next()).pending == {one: (at(1), at(2))}
            await here.compared()


async def test_a_start_finds_what_changed_unseen(tmp_path: Path) -> None:
    """New streams from their start, grown ones, ended ones; one that is shorter than it was is another."""
    clock = Clock()
    async with receiving() as receiver:
        async with site(tmp_path, clock=clock) as here:
            for path in ("events/grows", "events/goes", "events/anew", "events/same"):
                await here.create(path, b"1")
                await here.append(path)
            await here.subscribe(
                "s",
                type="webhook",
                pattern="events/*",
                streams=["awaited", "awaited/empty", "events/anew"],
                webhook={"url": receiver.url},
            )
            here.feed._active = False  # as if the process had died before it could tell
            await here.append("events/grows")
            await here.delete("events/goes")
            await here.delete("events/anew")
            await here.create("events/anew", b"1")
            await here.create("events/new", b"1")
            await here.create("events/empty")
            await here.create("awaited", b"1")
            await here.create("awaited/empty")
            await here.create("other/new", b"1")
        async with site(tmp_path, clock=clock) as here:
            await here.compared()
            await until(lambda: not here.subscriptions._all["s"].has_work)
            await here.settled("s")
            told: dict[str, tuple[str, str]] = {}
            for call in receiver.calls:
                told |= call.pending
            assert told == {
                "events/grows": (at(2), at(3)),
                "events/anew": ("-1", at(1)),
                "events/new": (at(0), at(1)),
                "awaited": ("-1", at(1)),
            }
            assert await _links(here) == {
                "events/grows": ("glob", at(3)),
                "events/anew": ("explicit", at(1)),
                "events/same": ("glob", at(2)),
                "events/new": ("glob", at(1)),
                "events/empty": ("glob", at(0)),
                "awaited": ("explicit", at(1)),
                "awaited/empty": ("explicit", at(0)),
            }
