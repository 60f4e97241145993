"""Both ways to the streams: over ASGI, and past it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count

import pytest

from .servers import ROOT, StreamClient, Way, serving_streams, stream_app

_tests = count(1)


@pytest.fixture(params=["asgi", "accelerated"], scope="module")
def way(request: pytest.FixtureRequest) -> Way:
    """How requests reach the streams."""
    found: Way = request.param
    return found


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, way: Way) -> AsyncIterator[StreamClient]:
    """A server that a module's tests share, over each way."""
    async with serving_streams(stream_app(tmp_path_factory.mktemp("streams")), way) as client:
        yield client


@pytest.fixture
def client(server: StreamClient) -> StreamClient:
    """A client of the shared server with a folder of its own."""
    return StreamClient(server.app, server.address, server.web, f"{ROOT}test-{next(_tests)}/")
