"""`@durable-streams/client` of npm and `durable-streams` of PyPI, unmodified, against a real server."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import durable_streams
import httpx
import pytest
from durable_streams import AsyncDurableStream, DurableStream
from tests.e2e.conftest import run_served
from tests.e2e.durable_clients import Node, State, durable_server
from tests.e2e.line import Line
from tests.e2e.served import Served

UrlOf = Callable[..., str]

_streams = count(1)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """The npm packages."""
    node = Node()
    yield node
    node.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that the tests share. It is never killed."""
    yield from run_served(durable_server(tmp_path_factory.mktemp("server")))


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Served]:
    """A server to be killed, which ends live connections again and again."""
    yield from run_served(durable_server(tmp_path, ROTATE_MS="150", LONG_POLL_MS="100"))


@pytest.fixture
def line(server: Served) -> Iterator[Line]:
    """A line to the shared server that can be cut."""
    line = Line(server.port)
    yield line
    line.close()


@pytest.fixture
def path() -> str:
    """A stream that nobody has used."""
    return f"/v1/stream/tests/{next(_streams)}"


def numbers(state: State) -> list[int]:
    """The numbers that a reader has read."""
    return [item["number"] for item in state["items"]]


def has(*expected: int) -> Callable[[State], bool]:
    """Whether a reader has read these, and the end."""
    return lambda state: bool(state["ended"]) and len(state["items"]) >= len(expected)


# --- npm


def test_write_tail_and_close(node: Node, server: Served, path: str) -> None:
    """What was there, what comes, and the end; a reader that comes later has the same."""
    url = server.url + path
    node.do("write", url=url, contentType="application/json", pieces=['{"number":0}', '{"number":1}'], close=False)
    readers = [node.start("read", url, live=live) for live in ("sse", "long-poll")]
    for reader in readers:
        assert numbers(reader.until_read(2)) == [0, 1]
    writer = node.start("produce", url, first=2, count=40, pause=2)
    for reader in (*readers, node.start("read", url, live="sse")):
        state = reader.until(has(*range(42)))
        assert numbers(state) == list(range(42))
        assert (state["offset"], state["breaks"]) == ("0000000000000042", 0)
    assert writer.state == {"sent": 40, "done": True, "errors": []}


def test_a_cut_line(node: Node, server: Served, line: Line, path: str) -> None:
    """Four times amid it, for the writer and both readers: each message is there once, in order."""
    node.do("write", url=server.url + path, contentType="application/json", pieces=[], close=False)
    url = line.url + path
    readers = {live: node.start("read", url, live=live) for live in ("sse", "long-poll")}
    writer = node.start("produce", url, count=200, pause=2)
    for before in (20, 60, 100, 140):
        readers["sse"].until_read(before)
        line.drop()
    for reader in (*readers.values(), node.start("read", server.url + path, live="sse")):
        assert numbers(reader.until(has(*range(200)))) == list(range(200))
    assert writer.until(lambda state: state["done"])["errors"] == []
    assert readers["sse"].state["breaks"] == 4
    assert readers["long-poll"].state["breaks"] == 0  # the package asks again by itself


def test_a_killed_server(node: Node, mortal: Served, path: str) -> None:
    """``kill -9`` amid it, and connections that end every 150 ms: each message once, and the end."""
    url = mortal.url + path
    node.do("write", url=url, contentType="application/json", pieces=[], close=False)
    readers = [node.start("read", url, live=live) for live in ("sse", "long-poll")]
    writer = node.start("produce", url, count=150, pause=3)
    readers[0].until_read(50)
    mortal.restart_after_kill()
    for reader in readers:
        assert numbers(reader.until(has(*range(150)))) == list(range(150))
    assert writer.until(lambda state: state["done"])["errors"] == []
    assert numbers(node.start("read", url, live="sse").until(has(*range(150)))) == list(range(150))


def test_a_newer_writer_takes_over(node: Node, server: Served, path: str) -> None:
    """What the older one says after that is refused, and not stored."""
    url = server.url + path
    node.do("write", url=url, contentType="application/json", pieces=[], close=False)
    older = node.start("produce", url, count=10_000, pause=1)
    reader = node.start("read", url, live="sse")
    reader.until_read(10)
    node.start("produce", url, epoch=1, first=1_000_000, count=3)
    state = reader.until(lambda state: state["ended"] and 1_000_002 in numbers(state))
    end = numbers(state).index(1_000_000)
    assert numbers(state) == [*range(end), 1_000_000, 1_000_001, 1_000_002]
    assert "epoch" in older.until(lambda state: state["errors"])["errors"][0]
    older.do("leave")


@pytest.mark.parametrize("live", ["sse", "long-poll"])
def test_text_and_bytes(node: Node, server: Served, path: str, live: str) -> None:
    """Line ends, blanks and other alphabets arrive as they were sent; bytes that are no text do, too."""
    pieces = ["one\n", " two\r\n", "\n\n", "\r\nthree\r", " data: vier ü 語 🎉", "event: control\n"]
    url = server.url + path
    node.do("write", url=url, contentType="text/plain", pieces=pieces[:3], close=False)
    reader = node.start("read", url, live=live, **{"as": "text"})
    reader.until(lambda state: state["items"])
    node.do("write", url=url, contentType="text/plain", pieces=pieces[3:], close=True)
    state = reader.until(lambda state: state["ended"] and "control" in "".join(state["items"]))
    if live == "sse":  # events have lines; which way the ends of those were written is not told
        pieces[3] = "\nthree\n"
    assert "".join(state["items"]) == "".join(pieces)

    whole = bytes(range(256))
    _append(url + "/bytes", whole, "PUT")
    reader = node.start("read", url + "/bytes", live=live, **{"as": "bytes"})
    reader.until(lambda state: state["items"])
    _append(url + "/bytes", whole[::-1], "POST", close=True)
    state = reader.until(lambda state: state["ended"] and len(_decoded(state)) == 512)
    assert _decoded(state) == whole + whole[::-1]


def _decoded(state: State) -> bytes:
    return b"".join(base64.b64decode(item) for item in state["items"])


def _append(url: str, body: bytes, method: str, *, close: bool = False) -> None:
    headers = {"content-type": "application/octet-stream"} | ({"stream-closed": "true"} if close else {})
    assert httpx.request(method, url, content=body, headers=headers, trust_env=False).is_success


# --- PyPI


def test_the_python_client(server: Served, path: str) -> None:
    """Make, append, ask, read, go on from an offset, delete; what is gone or there is told by the right error."""
    url = server.url + path
    with DurableStream.create(url, content_type="application/json") as stream:
        assert stream.append({"number": 0}).next_offset == "0000000000000001"
        for number in range(1, 5):
            stream.append({"number": number})
        head = stream.head()
        assert (head.exists, head.content_type, head.offset) == (True, "application/json", "0000000000000005")
        with stream.stream(live=False) as response:
            assert [item["number"] for item in response.read_json()] == [0, 1, 2, 3, 4]
            assert (response.offset, response.up_to_date) == ("0000000000000005", True)
        with durable_streams.stream(url, offset="0000000000000003", live=False) as response:
            assert [item["number"] for item in response.read_json()] == [3, 4]
        with pytest.raises(durable_streams.StreamExistsError):
            DurableStream.create(url, content_type="text/plain")
        stream.delete()
    with pytest.raises(durable_streams.StreamNotFoundError):
        durable_streams.stream(url, live=False)


@pytest.mark.parametrize("live", ["sse", "long-poll"])
def test_the_python_client_tails(server: Served, line: Line, path: str, live: Any) -> None:
    """Three cuts amid it: begun again from the offset it had, it has each message once."""
    with DurableStream.create(server.url + path, content_type="application/json") as stream:
        reader = PythonReader(line.url + path, live)
        for number in range(120):
            stream.append({"number": number})
            if number in (30, 60, 90):
                reader.wait_for(number)
                line.drop()
        reader.wait_for(120)
        reader.leave()
        assert reader.numbers == list(range(120))
        assert reader.breaks >= (3 if live == "sse" else 1)  # a cut between two long-polls is none


class PythonReader:
    """Tails a stream in a thread; when its connection breaks it begins again where it was."""

    def __init__(self, url: str, live: Any) -> None:
        self.numbers: list[int] = []
        self.breaks = 0
        self._offset = "-1"
        self._url, self._live = url, live
        self._left = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._left:
            try:
                with durable_streams.stream(self._url, offset=self._offset, live=self._live, timeout=5) as response:
                    for event in response.iter_events(mode="json"):
                        self.numbers += [item["number"] for item in event.data]
                        self._offset = event.next_offset
                        if self._left:
                            return
            except (httpx.HTTPError, durable_streams.DurableStreamError):
                self.breaks += 1
                time.sleep(0.02)

    def wait_for(self, count: int) -> None:
        """Until so many messages are here."""
        deadline = time.monotonic() + 10
        while len(self.numbers) < count:
            assert time.monotonic() < deadline, self.numbers
            time.sleep(0.005)

    def leave(self) -> None:
        """Stop reading; the server's next answer ends the thread."""
        self._left = True


def test_the_asynchronous_python_client(server: Served, path: str) -> None:
    """Appends that come together go together; a tail has them all; what is closed can still be read."""

    async def story() -> list[int]:
        async with await AsyncDurableStream.create(server.url + path, content_type="application/json") as stream:
            await asyncio.gather(*(stream.append({"number": number}) for number in range(50)))
            found: list[int] = []
            async with durable_streams.astream(server.url + path, offset="-1", live="sse") as response:
                await stream.append({"number": 50})
                async for item in response.iter_json():
                    found.append(item["number"])
                    if len(found) == 51:
                        break
            return found

    assert sorted(asyncio.run(story())) == list(range(51))
    assert httpx.post(server.url + path, headers={"stream-closed": "true"}, trust_env=False).status_code == 204
    with durable_streams.stream(server.url + path, live=False) as response:
        assert len(response.read_json()) == 51
        assert response.headers["stream-closed"] == "true"
