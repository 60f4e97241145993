"""Two servers and two shells: what holds for one holds for all four pairs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import pytest
from tests.streams_client.servers import own_server, reference_server

from perdure.streams_client import AsyncStreamClient, StreamClient

SERVERS = ["reference", "perdure"]

_numbers = count(1)


@pytest.fixture(scope="session")
def _reference_url() -> Iterator[str]:
    with reference_server() as url:
        yield url


@pytest.fixture(scope="module", params=SERVERS)
async def server_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address that a server's streams are below."""
    if request.param == "reference":
        yield request.getfixturevalue("_reference_url")
        return
    async with own_server(tmp_path_factory.mktemp("data")) as url:
        yield url


@pytest.fixture
def path() -> str:
    """A stream that nobody has used."""
    return f"tests/{next(_numbers)}"


class OnThreads:
    """The blocking client's objects with the asynchronous ones' methods: each call runs on a thread."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._wrapped, "close" if name == "aclose" else name)
        if name in ("stream", "follow", "producer"):
            return lambda *arguments, **named: OnThreads(value(*arguments, **named))
        if not callable(value) or name == "as_source":
            return value

        async def call(*arguments: Any, **named: Any) -> Any:
            return await asyncio.to_thread(value, *arguments, **named)

        return call

    async def __aenter__(self) -> OnThreads:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self._wrapped.__exit__, *error)

    def __aiter__(self) -> OnThreads:
        return self

    async def __anext__(self) -> Any:
        batch = await asyncio.to_thread(next, self._wrapped, None)
        if batch is None:
            raise StopAsyncIteration
        return batch


SHELLS: dict[str, Any] = {
    "asynchronous": AsyncStreamClient,
    "blocking": lambda *arguments, **named: OnThreads(StreamClient(*arguments, **named)),
}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> Any:
    """Makes clients: of the asynchronous shell, or of the blocking one on threads."""
    return SHELLS[request.param]


@pytest.fixture
async def client(server_url: str, shell: Any) -> AsyncIterator[Any]:
    """A client of the server."""
    async with shell(server_url) as client:
        yield client
