"""Producers of both shells against both servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.streams_client.servers import Cut, faulty_line

from perdure.errors import LimitExceeded, LocalProtocolError, StreamNotFound
from perdure.streams_client import (
    AsyncStreamClient,
    EpochReused,
    ProducerFenced,
    ProducerStopped,
    SequenceGap,
    StreamClosed,
    StreamUnreachable,
)

pytestmark = pytest.mark.anyio

JSON = "application/json"


async def test_many_messages_in_few_requests(server_url: str, shell: Any, path: str) -> None:
    """All of them, in order, when the flush returns."""
    requests = 0

    def counted() -> dict[str, str]:
        nonlocal requests
        requests += 1
        return {}

    async with shell(server_url, headers=counted) as client:
        stream = client.stream(path)
        await stream.create(content_type=JSON)
        async with stream.producer("p") as producer:
            for number in range(500):
                await producer.append({"n": number} if number % 2 else [number])
            offset = await producer.flush()
            assert producer.unacknowledged == []
            assert (producer.buffered_bytes, producer.epoch) == (0, 0)
        batch = await stream.read()
        assert batch.messages == [{"n": n} if n % 2 else [n] for n in range(500)]
        assert producer.offset == offset == batch.offset
        assert requests < 200


async def test_the_end_of_the_block_flushes(client: Any, path: str) -> None:
    """Also when the block fails; the stream stays open for others."""
    stream = client.stream(path)
    await stream.create(content_type="text/plain")
    async with stream.producer("p", linger_ms=60_000) as producer:
        await producer.append("a")
        await producer.append("b")
    with pytest.raises(ProducerStopped):
        await producer.append("c")
    with pytest.raises(ProducerStopped):
        await producer.close()
    await producer.detach()
    failing = stream.producer("p", epoch=1, linger_ms=60_000)
    with pytest.raises(ZeroDivisionError):
        await _divide_by_zero(failing)
    assert (await stream.read()).data == b"abc"
    assert not (await stream.head()).closed


async def _divide_by_zero(producer: Any) -> None:
    async with producer:
        await producer.append("c")
        raise ZeroDivisionError


async def test_closing_is_the_last_thing(client: Any, path: str) -> None:
    """Behind everything, with the last items; once."""
    stream = client.stream(path)
    await stream.create(content_type=JSON)
    producer = client.stream(path).producer("p", linger_ms=60_000)
    await producer.append(1)
    end = await producer.close("last", "words")
    assert await producer.close("more") == end
    batch = await stream.read()
    assert (batch.messages, batch.closed, batch.offset) == ([1, "last", "words"], True, end)
    with pytest.raises(ProducerStopped):
        await producer.append(2)
    late = stream.producer("late")
    await late.append(3)
    with pytest.raises(StreamClosed) as caught:
        await late.flush()
    assert caught.value.offset == end
    assert late.unacknowledged == [b"3"]
    with pytest.raises(StreamClosed):
        await late.detach()


async def test_closing_without_a_word(client: Any, path: str) -> None:
    """Nothing needs to be known of the stream."""
    await client.stream(path).create(content_type=JSON)
    producer = client.stream(path).producer("p")
    end = await producer.close()
    assert (await client.stream(path).read()).offset == end


async def test_a_newer_run_fences_the_older(client: Any, path: str) -> None:
    """By a higher epoch, given or claimed."""
    stream = client.stream(path)
    await stream.create(content_type=JSON)
    old = stream.producer("p", epoch=3)
    await old.append("old")
    await old.flush()
    async with stream.producer("p", auto_claim=True) as new:
        await new.append("new")
        await new.flush()
        await old.append("late")
        with pytest.raises(ProducerFenced) as caught:
            await old.flush()
        assert (caught.value.held, caught.value.presented) == (new.epoch, 3)
        with pytest.raises(ProducerFenced):
            await old.append("later")
    with pytest.raises(ProducerFenced):
        await old.detach()
    assert (await stream.read()).messages == ["old", "new"]


async def test_runs_may_claim_one_after_another(client: Any, path: str) -> None:
    """Each above the one before, also where an epoch of the future is in the way."""
    stream = client.stream(path)
    await stream.create(content_type=JSON)
    async with stream.producer("p", epoch=2**50) as first:
        await first.append(1)
    for number in (2, 3):
        async with stream.producer("p", auto_claim=True) as run:
            await run.append(number)
            await run.append(number)
        assert run.epoch == 2**50 + number - 1
    assert (await stream.read()).messages == [1, 2, 2, 3, 3]


async def test_an_epoch_that_is_used_again_is_noticed(client: Any, path: str) -> None:
    """The server would take what is new for a repetition, and say that all is well."""
    stream = client.stream(path)
    await stream.create(content_type=JSON)
    async with stream.producer("p") as first:
        await first.append("stored")
    second = stream.producer("p")
    await second.append("not stored")
    with pytest.raises(EpochReused):
        await second.flush()
    with pytest.raises(EpochReused):
        await second.detach()
    assert second.unacknowledged == [b'"not stored"']
    assert (await stream.read()).messages == ["stored"]


async def test_a_server_that_has_forgotten_is_noticed(client: Any, path: str) -> None:
    """What was acknowledged is gone: going on would hide it."""
    stream = client.stream(path)
    await stream.create(content_type=JSON)
    producer = stream.producer("p")
    await producer.append(1)
    await producer.flush()
    await stream.delete()
    await client.stream(path).create(content_type=JSON)
    await producer.append(2)
    with pytest.raises(SequenceGap):
        await producer.flush()
    with pytest.raises(SequenceGap):
        await producer.detach()


async def test_the_buffer_pushes_back(client: Any, path: str) -> None:
    """Appending waits for room; what never fits is an error, and so is what cannot be sent."""
    stream = client.stream(path)
    await stream.create(content_type="text/plain")
    async with stream.producer("p", buffer_bytes_max=64, batch_bytes_max=32) as producer:
        for number in range(100):
            await producer.append(f"{number:08d}")
            assert producer.buffered_bytes <= 64
        with pytest.raises(LimitExceeded, match="buffer_bytes_max allows 64 at most, this has 65"):
            await producer.append("x" * 65)
        with pytest.raises(LocalProtocolError):
            await producer.append(1)
        await producer.append("x" * 64)
    assert (await stream.read()).data == "".join(f"{n:08d}" for n in range(100)).encode() + b"x" * 64


async def test_producers_do_not_disturb_each_other(client: Any, path: str) -> None:
    """Each one's items are there once, in its order."""
    stream = client.stream(path)
    await stream.create(content_type=JSON)

    async def produce(name: str) -> None:
        async with client.stream(path).producer(name, linger_ms=1) as producer:
            for number in range(50):
                await producer.append([name, number])

    await asyncio.gather(*(produce(name) for name in "abc"))
    messages = (await stream.read()).messages
    for name in "abc":
        assert [number for who, number in messages if who == name] == list(range(50))


async def test_there_must_be_a_stream(client: Any, path: str) -> None:
    """The first append asks for its content type."""
    producer = client.stream(path).producer("p")
    with pytest.raises(StreamNotFound):
        await producer.append(1)
    await producer.detach()


async def test_a_failing_function_for_headers_is_the_applications(server_url: str, shell: Any, path: str) -> None:
    """Its error comes out where the items are waited for."""
    working = True

    def headers() -> dict[str, str]:
        if not working:
            raise KeyError("token")
        return {}

    async with shell(server_url, headers=headers) as client:
        await client.stream(path).create(content_type=JSON)
        producer = client.stream(path, content_type=JSON).producer("p")
        working = False
        await producer.append(1)
        with pytest.raises(KeyError, match="token"):
            await producer.flush()
        with pytest.raises(KeyError):
            await producer.detach()


async def test_going_on_after_the_server_was_away(shell: Any, server_url: str, path: str) -> None:
    """`StreamUnreachable` loses nothing: a flush tries anew."""
    here = True

    def cut() -> Cut:
        return Cut() if here else Cut(to_server=0)

    async with faulty_line(server_url, cut) as (_, url), shell(url, retry_for_s=0.05) as client:
        stream = client.stream(path)
        await stream.create(content_type=JSON)
    async with faulty_line(server_url, cut) as (_, url), shell(url, retry_for_s=0.05) as client:
        here = False
        producer = client.stream(path, content_type=JSON).producer("p")
        await producer.append(1)
        for _ in range(2):
            with pytest.raises(StreamUnreachable):
                await producer.flush()
        assert producer.unacknowledged == [b"1"]
        with pytest.raises(StreamUnreachable):
            await producer.append(2)
        here = True
        await producer.flush()
        await producer.append(3)
        await producer.detach()
        assert (await client.stream(path).read()).messages == [1, 3]


async def test_a_cancelled_block_waits_for_nobody(server_url: str, path: str) -> None:
    """What is on its way may be stored, what lingers is not."""
    async with AsyncStreamClient(server_url) as client:
        stream = client.stream(path)
        await stream.create(content_type=JSON)
        entered = asyncio.Event()

        async def produce() -> None:
            async with stream.producer("p", linger_ms=60_000) as producer:
                await producer.append(1)
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(produce())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await stream.read()).messages == []
