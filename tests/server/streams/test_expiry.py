"""The life of a stream: renewed by use, kept over restarts, and its rows leave the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.running import killed, until
from tests.server.apps import NOON_MS, counted, set_clock

from perdure import App
from perdure.objects.instance import Instance
from perdure.wire.durable_streams import format_time

from .servers import JSON, TEXT, StreamClient, Way, limited, serving_streams

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def way() -> Way:
    """Life and death are the same over both ways, but for what renews."""
    return "accelerated"


TTL_S = 160
SLACK_S = TTL_S // 16
"""How much longer a stream may live that was not used since it was loaded: so old may the kept time of use be."""


def _app(folder: Path) -> App:
    """An application whose clock stands at noon, in ``folder / "data"``."""
    return counted(folder / "data", stream_limits=limited(long_poll_ms=50))


def _later(client: StreamClient, seconds: float) -> None:
    """Let it be so long after noon."""
    set_clock(client.app, NOON_MS + int(seconds * 1_000))


async def _lives(client: StreamClient, path: str) -> bool:
    """Whether the stream is there; asking does not renew it."""
    status = (await client.ask("HEAD", path)).status_code
    assert status in (200, 404)
    return status == 200


RENEWS = {
    **{"read": True, "now": True, "not modified": True, "poll": True, "events": True, "append": True},
    **{"close": True, "close as a producer": True, "create again": True, "head": False, "refused": False},
}


async def _use(client: StreamClient, path: str) -> int:
    """Use a stream in the way that it is called after."""
    producer = {"producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}
    match path:
        case "read":
            answer = await client.read(path)
        case "now":
            answer = await client.read(path, "now")
        case "not modified":
            answer = await client.read(path, headers={"if-none-match": "*"})
        case "poll":
            answer = await client.read(path, "now", live="long-poll")
        case "events":
            async with client.events(path) as events:
                await events.next()
            answer = events.response
        case "append":
            answer = await client.append(path, b"2")
        case "close":
            answer = await client.close(path)
        case "close as a producer":
            answer = await client.ask("POST", path, headers={"stream-closed": "true", **producer})
        case "create again":
            answer = await client.create(path, stream_ttl=str(TTL_S))
        case "head":
            answer = await client.ask("HEAD", path)
        case _:
            answer = await client.append(path, b"{}", JSON)
    return answer.status_code


@pytest.mark.parametrize("over", ["asgi", "accelerated"])
async def test_use_renews_a_life(tmp_path: Path, over: Way) -> None:
    """Each read and write does, however short; HEAD does not, nor does what is refused."""
    async with serving_streams(_app(tmp_path), over) as client:
        for path in RENEWS:
            await client.create(path, b"1", stream_ttl=str(TTL_S))
        _later(client, TTL_S - 1)
        assert {path: await _use(client, path) for path in RENEWS} == {
            **{"read": 200, "now": 200, "not modified": 304, "poll": 204, "events": 200, "append": 204},
            **{"close": 204, "close as a producer": 204, "create again": 200, "head": 200, "refused": 409},
        }
        for later_s in (TTL_S + SLACK_S, 2 * TTL_S - 1 - 0.001):
            _later(client, later_s)
            assert {path: await _lives(client, path) for path in RENEWS} == RENEWS
        _later(client, 2 * TTL_S - 1)
        assert not any([await _lives(client, path) for path in RENEWS])
        for path in RENEWS:
            assert (await client.create(path, b"new")).status_code == 201
            assert (await client.read(path)).content == b"new"


@pytest.mark.parametrize("ttl_s", [TTL_S, 0])
async def test_a_new_stream_lives_no_longer_than_it_should(tmp_path: Path, way: Way, ttl_s: int) -> None:
    """Nobody knows better when it was used."""
    async with serving_streams(_app(tmp_path), way) as client:
        await client.create("a", stream_ttl=str(ttl_s))
        _later(client, ttl_s)
        assert not await _lives(client, "a")


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_life_is_kept_over_a_restart(tmp_path: Path, way: Way, end: str) -> None:
    """A stream lives as long after its last use as it should, and not much longer."""
    app = _app(tmp_path)
    folder = tmp_path
    async with serving_streams(app, way) as client:
        for path in ("used", "just-used", "unused"):
            await client.create(path, b"1", stream_ttl=str(TTL_S))
        _later(client, SLACK_S - 1)
        await client.read("just-used")
        _later(client, 100)
        await client.read("used")
        if end == "kill":
            folder = tmp_path / "copy"
            await killed(app.runtime, folder / "data")
    async with serving_streams(_app(folder), way) as client:
        for path, used_s in (("unused", 0), ("just-used", SLACK_S - 1), ("used", 100)):
            _later(client, used_s + TTL_S - 0.001)
            assert await _lives(client, path)
            _later(client, used_s + TTL_S + SLACK_S)
            assert not await _lives(client, path)


async def test_an_expiry_is_not_renewed(tmp_path: Path, way: Way) -> None:
    """Whatever is done with the stream; over a restart, too."""
    async with serving_streams(_app(tmp_path), way) as client:
        await client.create("a", b"1", stream_expires_at="2023-11-14T22:23:20Z")  # 600 s after noon
        _later(client, 599)
        await client.read("a")
        await client.append("a", b"2")
    async with serving_streams(_app(tmp_path), way) as client:
        _later(client, 599.999)
        assert (await client.ask("HEAD", "a")).headers["stream-expires-at"] == "2023-11-14T22:23:20.000Z"
        assert (await client.read("a")).content == b"12"
        _later(client, 600)
        for method in ("GET", "HEAD", "POST", "DELETE"):
            assert (await client.ask(method, "a", b"x", {"content-type": "text/plain"})).status_code == 404


async def test_a_life_that_is_over_already(tmp_path: Path, way: Way) -> None:
    """The stream is made, and gone at once."""
    async with serving_streams(_app(tmp_path), way) as client:
        assert (await client.create("a", stream_expires_at="1969-12-31T23:59:59Z")).status_code == 201
        assert not await _lives(client, "a")


async def test_a_source_that_expires_lives_on_in_its_forks(tmp_path: Path, way: Way) -> None:
    """It is gone for others (410), and its path is taken until the last fork is gone."""
    async with serving_streams(_app(tmp_path), way) as client:
        await client.create("a", b"1", stream_ttl=str(TTL_S))
        await client.create("fork", stream_forked_from="/v1/stream/a", stream_ttl="1000")
        _later(client, TTL_S + SLACK_S)
        gone = await client.read("a")
        assert (gone.status_code, gone.json()["error"]["code"]) == (410, "stream_gone")
        assert (await client.ask("PUT", "a")).status_code == 409
        assert (await client.ask("PUT", "b", headers={"stream-forked-from": "/v1/stream/a"})).status_code == 409
        assert (await client.read("fork")).content == b"1"
        _later(client, TTL_S + SLACK_S + 1_000)
        assert not await _lives(client, "fork")
        assert (await client.create("a", b"new")).status_code == 201


async def test_a_fork_has_its_sources_life_unless_it_says_otherwise(tmp_path: Path, way: Way) -> None:
    """A time to live begins with the fork; an expiry is the same moment."""
    async with serving_streams(_app(tmp_path), way) as client:
        await client.create("a", stream_ttl=str(TTL_S))
        await client.create("b", stream_expires_at="2023-11-14T22:23:20Z")
        _later(client, 100)
        lives = {}
        for path, headers in (
            ("a1", {"stream_forked_from": "/v1/stream/a"}),
            ("a2", {"stream_forked_from": "/v1/stream/a", "stream_ttl": "7"}),
            ("b1", {"stream_forked_from": "/v1/stream/b"}),
            ("b2", {"stream_forked_from": "/v1/stream/b", "stream_ttl": "9"}),
        ):
            await client.create(path, b"", TEXT, **headers)
            head = await client.ask("HEAD", path)
            lives[path] = (head.headers.get("stream-ttl"), head.headers.get("stream-expires-at"))
        assert lives == {
            "a1": ("160", None),
            "a2": ("7", None),
            "b1": (None, "2023-11-14T22:23:20.000Z"),
            "b2": ("9", None),
        }
        _later(client, 100 + TTL_S - 1)
        found = [(await client.ask("HEAD", path)).status_code for path in ("a", "a1", "a2")]
        assert found == [410, 200, 404]


TABLES = ("_perdure_streams", "_perdure_segments", "_perdure_notes", "expiring")


async def _rows(instance: Instance) -> list[int]:
    # The database itself: objects may not look into the engine's tables.
    database = instance.storage.database
    return [database.execute(f"SELECT count(*) FROM {table}")[0][0] for table in TABLES]


async def _emptied(client: StreamClient, path: str) -> list[int]:
    """The rows of the stream's host once its alarm has woken it (nothing else does) and it holds no stream."""

    def empty() -> bool:
        instance = client.slot(path).instance
        return instance is not None and not instance.storage.stream_table.count()

    await until(empty)
    instance = client.slot(path).instance
    assert instance is not None
    return await _rows(instance)


async def test_what_expires_leaves_the_disk(tmp_path: Path, way: Way) -> None:
    """Without anyone asking for it, in hosts that are awake, that sleep, and after a restart."""
    app = App([], data=tmp_path / "data", pages=False)
    async with serving_streams(app, way) as client:
        for path, lasts_ms in (("awake", 500), ("hibernated", 600), ("restarted", 1_200)):
            await client.create(path, bytes(300_000), stream_expires_at=format_time(app.runtime.now_ms() + lasts_ms))
            await client.produce(path, b"x", ("p", 0, 0))
            await client.hibernate(path)
        assert await app.runtime.run_in(client.slot("awake").object_id, _rows) == [1, 2, 1, 1]
        for path in ("awake", "hibernated"):
            assert await _emptied(client, path) == [0, 0, 0, 0]
    async with serving_streams(App([], data=tmp_path / "data", pages=False), way) as client:
        assert await _emptied(client, "restarted") == [0, 0, 0, 0]


async def test_what_is_used_outlives_its_alarm(tmp_path: Path, way: Way) -> None:
    """The alarm of the first life finds a second one."""
    app = App([], data=tmp_path / "data", pages=False)
    async with serving_streams(app, way) as client:
        await client.create("a", b"1", stream_ttl="1")
        fired: list[bool] = []
        instance = client.slot("a").instance
        assert instance is not None
        ring = instance.object.on_alarm

        async def watched(info: object) -> None:
            await ring(info)  # type: ignore[arg-type]
            fired.append(True)

        instance.object.on_alarm = watched  # type: ignore[method-assign]
        while not fired:
            assert (await client.read("a")).content == b"1"
        assert await _lives(client, "a")
        await until(lambda: len(fired) > 1 and not instance.storage.stream_table.count())
