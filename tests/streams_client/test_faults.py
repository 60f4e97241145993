"""Both shells against both servers over a line that is cut, and servers that are busy or go away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import httpx2
import pytest
from tests.streams_client.servers import ROTATE_MS, Cut, faulty_line, own_server, reference_server

from perdure.streams_client import StreamUnreachable

pytestmark = pytest.mark.anyio

JSON = "application/json"


def any_cuts(seed: int, to_server_max: int, from_server_max: int, *, ms_max: int = 60_000) -> Callable[[], Cut]:
    """Every connection ends after so many bytes in one direction or in the other, or after a while."""
    random = Random(seed)
    return lambda: Cut(random.randrange(to_server_max), random.randrange(from_server_max), random.randrange(ms_max))


async def test_reading_over_a_line_that_is_cut(server_url: str, shell: Any, path: str) -> None:
    """Everything once, however often it begins again."""
    data = Random(1).randbytes(100_000)
    async with shell(server_url) as client:
        await client.stream(path).create(items=[data[at : at + 5_000] for at in range(0, 100_000, 5_000)])
    async with faulty_line(server_url, any_cuts(2, 1_500, 150_000)) as (line, url), shell(url) as client:
        for _ in range(5):
            assert (await client.stream(path).read()).data == data
    assert line.cuts > 5


@pytest.mark.parametrize("live", ["sse", "long-poll"])
async def test_following_over_a_line_that_is_cut(server_url: str, shell: Any, path: str, live: str) -> None:
    """Each message once and in order, while they come."""
    async with (
        shell(server_url) as writer,
        faulty_line(server_url, any_cuts(3, 3_000, 40_000, ms_max=100)) as (line, url),
        shell(url) as client,
    ):
        stream = writer.stream(path)
        await stream.create(content_type=JSON)
        messages: list[Any] = []

        async def follow() -> None:
            async with client.stream(path).follow(live=live) as batches:
                async for batch in batches:
                    messages.extend(batch.messages)

        following = asyncio.create_task(follow())
        for number in range(60):
            await stream.append({"n": number, "text": "x" * (number * 7 % 300)})
            await asyncio.sleep(0.01)
        await stream.close()
        async with asyncio.timeout(30):
            await following
    assert [message["n"] for message in messages] == list(range(60))
    assert line.cuts > 3


async def test_producing_over_a_line_that_is_cut(server_url: str, shell: Any, path: str) -> None:
    """Each item once and in order, and one end."""
    async with shell(server_url) as client:
        await client.stream(path).create(content_type=JSON)
    async with faulty_line(server_url, any_cuts(4, 4_000, 5_000)) as (line, url), shell(url) as client:
        stream = client.stream(path, content_type=JSON)
        async with asyncio.timeout(40), stream.producer("p", linger_ms=1, batch_bytes_max=300) as producer:
            for number in range(400):
                await producer.append({"n": number})
                if number % 25 == 0:
                    await asyncio.sleep(0.01)
            end = await producer.close("end")
    assert line.cuts > 5
    async with shell(server_url) as client:
        batch = await client.stream(path).read()
    assert batch.messages == [*({"n": number} for number in range(400)), "end"]
    assert (batch.closed, batch.offset) == (True, end)


async def test_everything_else_over_a_line_that_is_cut(server_url: str, shell: Any, path: str) -> None:
    """Creating, closing with a last item, and deleting may be tried as often as it takes."""
    async with (
        faulty_line(server_url, any_cuts(5, 3_000, 4_000)) as (line, url),
        shell(url) as client,
        asyncio.timeout(40),
    ):
        for number in range(10):
            stream = client.stream(f"{path}/{number}")
            await stream.create(content_type=JSON, items=["first"])
            end = await stream.close("last")
            assert (await stream.head()).offset == end
            assert (await stream.read()).messages == ["first", "last"]
            await stream.delete()
    assert line.cuts > 5


async def test_a_plain_append_is_made_at_least_once(server_url: str, shell: Any, path: str) -> None:
    """A lost answer doubles it: that is what producers are for."""
    async with shell(server_url) as client:
        await client.stream(path).create(content_type=JSON)
    cuts = iter([Cut(from_server=0)])
    async with faulty_line(server_url, lambda: next(cuts, Cut())) as (line, url), shell(url) as client:
        await client.stream(path, content_type=JSON).append("once or twice")
    assert line.accepted == 2
    async with shell(server_url) as client:
        assert (await client.stream(path).read()).messages == ["once or twice"] * 2


async def test_without_time_to_try_a_cut_is_an_error(server_url: str, shell: Any, path: str) -> None:
    """The application decides then."""
    async with (
        faulty_line(server_url, lambda: Cut(from_server=0)) as (line, url),
        shell(url, retry_for_s=0) as client,
    ):
        with pytest.raises(StreamUnreachable) as caught:
            await client.stream(path).create()
        assert caught.value.retryable
    assert line.accepted == 1


async def test_nobody_there(shell: Any) -> None:
    """Tried for a while; the error names the address and the reason."""
    async with shell("http://127.0.0.1:9/v1/stream", retry_for_s=0.2) as client:
        with pytest.raises(StreamUnreachable, match=r"HEAD http://127\.0\.0\.1:9/v1/stream/a: ") as caught:
            await client.stream("a").head()
        assert caught.value.last_status is None
        with pytest.raises(StreamUnreachable, match=r"GET http://127\.0\.0\.1:9/v1/stream/a: "):
            await client.stream("a").read()


async def test_rotated_connections_go_on(tmp_path: Any, shell: Any, path: str) -> None:
    """A server that ends connections for events after a while loses nobody; no poll takes their place."""
    async with (
        own_server(tmp_path) as base_url,
        faulty_line(base_url, Cut) as (line, url),
        shell(url) as client,
    ):
        stream = client.stream(path)
        await stream.create(content_type=JSON)
        follow = client.stream(path).follow(live="sse")

        async def numbers() -> list[Any]:
            async with follow:
                return [message async for batch in follow for message in batch.messages]

        following = asyncio.create_task(numbers())
        for number in range(10):
            await stream.append(number)
            await asyncio.sleep(ROTATE_MS / 4 / 1000)
        await stream.close()
        async with asyncio.timeout(20):
            assert await following == list(range(10))
    live = [asked for asked in line.asked if "live=" in asked]
    assert len(live) >= 3
    assert all("live=sse" in asked for asked in live)
    assert all("cursor=" in asked for asked in live[1:])


@pytest.fixture(scope="module")
def reference_url() -> Any:
    """The reference server, which makes faults to order."""
    with reference_server() as url:
        yield url


async def _order(url: str, path: str, **fault: Any) -> None:
    """Let the reference server answer the next requests for a stream so."""
    root, _, rest = url.partition("/v1/stream")
    async with httpx2.AsyncClient() as http:
        answer = await http.post(f"{root}/_test/inject-error", json={"path": f"/v1/stream{rest}/{path}", **fault})
        assert answer.status_code == 200


async def test_a_busy_server_is_asked_again_when_it_says(reference_url: str, shell: Any, path: str) -> None:
    """`Retry-After` is waited for; other answers that pass are tried sooner."""
    async with shell(reference_url) as client:
        stream = client.stream(path)
        await stream.create(content_type=JSON)
        await _order(reference_url, path, status=503, retryAfter=1)
        started = asyncio.get_running_loop().time()
        await stream.append(1)
        assert 1 <= asyncio.get_running_loop().time() - started < 5
        for status in (429, 500, 502):
            await _order(reference_url, path, status=status, count=2)
            assert (await stream.read()).messages == [1]
        await _order(reference_url, path, dropConnection=True, count=2)
        assert (await stream.read()).messages == [1]


async def test_a_server_that_is_busy_for_too_long(reference_url: str, shell: Any, path: str) -> None:
    """Its own demand is in the error."""
    async with shell(reference_url, retry_for_s=2) as client:
        stream = client.stream(path)
        await stream.create(content_type=JSON)
        await _order(reference_url, path, status=429, retryAfter=3)
        with pytest.raises(StreamUnreachable) as caught:
            await stream.append(1)
        assert (caught.value.last_status, caught.value.retry_after_s) == (429, 3)


async def test_events_of_other_kinds_are_skipped(reference_url: str, shell: Any, path: str) -> None:
    """The protocol may grow."""
    async with shell(reference_url) as client:
        stream = client.stream(path)
        await stream.create(content_type=JSON)
        async with client.stream(path).follow(live="sse") as follow:
            assert (await anext(aiter(follow))).up_to_date
            await _order(reference_url, path, injectSseEvent={"eventType": "news", "data": "[7]"})
            following = asyncio.create_task(anext(aiter(follow)))
            await asyncio.sleep(0.1)
            await stream.append(1)
            assert (await following).messages == [1]
