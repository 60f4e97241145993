"""Every example runs as it says, on a real server."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.requirements import need
from tests.running import eventually, serving
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from perdure.client import Added, RoomClient, Settled

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[2] / "examples"


@asynccontextmanager
async def _example(name: str, served: str = "app") -> AsyncIterator[tuple[str, httpx2.AsyncClient]]:
    namespace = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name=name)
    async with serving(namespace[served]) as address:
        async with httpx2.AsyncClient(base_url=f"http://{address}", timeout=10) as http:
            yield address, http


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_DATA", str(tmp_path / "data"))


async def _ask(address: str, room: str, text: str) -> str:
    async with RoomClient(f"ws://{address}/ws/{room}") as client:
        await client.say(text)
        async for event in client:
            if isinstance(event, Settled):
                return client.messages[-1].content
    raise AssertionError("the events ended")


async def _frame(socket: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        frame: dict[str, Any] = json.loads(await socket.recv())
        if frame["type"] == kind:
            return frame


def test_every_example_is_listed_and_tested() -> None:
    """The table in examples/README.md has each file, and so has this module."""
    listed, tested = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()
    names = sorted(path.stem for path in EXAMPLES.glob("*.py"))
    assert len(names) == 9
    assert [name for name in names if f"({name}.py)" not in listed or f'"{name}' not in tested] == []


async def test_hello_room() -> None:
    """The page opens and the room begins to answer."""
    async with _example("hello_room") as (address, http):
        assert (await http.get("/", headers={"accept": "text/html"})).status_code == 200
        async with connect(f"ws://{address}/ws/first?delta=1") as socket:
            await socket.send('{"type":"message","content":"Hello"}')
            assert (await _frame(socket, "delta"))["delta"] != ""


async def test_own_model() -> None:
    """`respond` decides what is said."""
    async with _example("own_model") as (address, _):
        assert await _ask(address, "r", "one two three") == "three two one"


async def test_lobby() -> None:
    """What Ann says, Ben sees, with her name and no answer."""
    async with _example("lobby") as (address, http):
        lobby = f"ws://{address}/ws/lobby"
        async with RoomClient(lobby, user="Ben") as ben, RoomClient(lobby, user="Ann") as ann:
            await ann.say("Hello")
            async for _ in ann:
                if not ann.unacknowledged:
                    break
            async for event in ben:
                if isinstance(event, Added) or ben.messages:
                    break
            assert [(message.user, message.content) for message in ben.messages] == [("Ann", "Hello")]
        assert len((await http.get("/api/chat/lobby/messages")).json()) == 1


async def test_pydantic_ai_room() -> None:
    """The agent uses its tool, then speaks; both are in the stored message."""
    try:
        import pydantic_ai  # noqa: F401
    except ImportError:
        need("pydantic-ai", False, "pip install 'perdure[ai]'")
    async with _example("pydantic_ai_room") as (address, http):
        assert await _ask(address, "shop", "How many bells?") == "There are 12 bells left."
        answer = (await http.get("/api/chat/shop/messages")).json()[1]
        outputs = [part["output"] for part in answer["parts"] if "output" in part]
        assert outputs == [{"bell": 12, "pump": 0}]


async def test_fastapi_mount() -> None:
    """A FastAPI route speaks in a room, and the room answers; the pages are there, too."""
    async with _example("fastapi_mount", "api") as (_, http):
        reply = await http.post("/orders", json={"order": "A-7", "status": "has shipped"})
        assert reply.status_code == 200

        async def answered() -> bool:
            texts = [item["parts"] for item in (await http.get("/api/chat/order-A-7/messages")).json()]
            return "You said: Order A-7 has shipped." in json.dumps(texts)

        await eventually(answered)
        assert (await http.get("/chat/order-A-7", headers={"accept": "text/html"})).status_code == 200


async def test_authenticate() -> None:
    """No token: 401. A token: its rooms and no others, over HTTP and WebSockets."""
    async with _example("authenticate") as (address, http):
        ann = {"authorization": "Bearer ann-secret"}
        assert (await http.get("/api/chat/team-red/messages")).status_code == 401
        assert (await http.get("/api/chat/team-red/messages", headers=ann)).status_code == 200
        assert (await http.get("/api/chat/ben/messages", headers=ann)).status_code == 403
        cookie = {"cookie": "token=ben-secret"}
        async with connect(f"ws://{address}/ws/team-blue", additional_headers=cookie) as socket:
            await socket.send('{"type":"message","content":"Hello","user":"Ann"}')
            assert (await _frame(socket, "message"))["message"]["user"] == "Ben"
        async with connect(f"ws://{address}/ws/team-red", additional_headers=cookie) as socket:
            assert json.loads(await socket.recv())["code"] == "forbidden"
            with pytest.raises(ConnectionClosed, match="1008"):
                await socket.recv()


async def test_counter_object() -> None:
    """Values, rows and a stream over RPC, as the file's first lines say."""
    async with _example("counter_object") as (_, http):
        assert (await http.post("/rpc/Counter/visits/add", content="[2]")).json() == {"result": 2}
        assert (await http.post("/rpc/Counter/visits/add", json={"amount": -1})).json() == {"result": 1}
        biggest = await http.post("/rpc/Counter/visits/biggest", json={"limit": 1})
        assert biggest.json() == {"result": [{"amount": 2}]}
        countdown = await http.post("/rpc/Counter/visits/countdown")
        assert countdown.text == "data: 1\n\ndata: 0\n\nevent: done\ndata: {}\n\n"
        assert (await http.post("/rpc/Counter/visits/add", content='["x"]')).status_code == 422


def test_counter_object_from_python(tmp_path: Path) -> None:
    """The script counts on where its last run ended."""
    environment = {**os.environ, "PERDURE_DATA": str(tmp_path / "script")}
    outputs = []
    for _ in range(2):
        command = [sys.executable, str(EXAMPLES / "counter_object.py")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=30)
        outputs.append([line for line in done.stdout.splitlines() if line.startswith("now")])
    assert outputs == [["now 2"], ["now 4"]]


async def test_alarms() -> None:
    """A reminder is told when its time has come."""
    async with _example("alarms") as (_, http):
        await http.post("/rpc/Reminders/ann/remind", json=["tea", 0.2])
        await http.post("/rpc/Reminders/ann/remind", json=["bed", 60])
        assert (await http.post("/rpc/Reminders/ann/told")).json() == {"result": []}

        async def told() -> bool:
            result: bool = (await http.post("/rpc/Reminders/ann/told")).json()["result"] == ["tea"]
            return result

        await eventually(told)


async def test_agent() -> None:
    """It looks at once and then again and again, and says what it saw; what is forgotten is not looked at."""
    async with _example("agent") as (address, http):
        url, gone = f"http://{address}/healthz", "http://127.0.0.1:9/"

        async def report() -> dict[str, Any]:
            reply = await http.post("/rpc/Watch/mine/report", json=[])
            return dict(reply.json()["result"])

        for watched in (url, url, gone):
            assert (await http.post("/rpc/Watch/mine/watch", json=[watched, 1])).status_code == 200
        await eventually(lambda: _holds(report, url, "answers 200"))
        first_ms = (await report())[url]["at_ms"]
        await eventually(lambda: _holds(report, gone, "does not answer: ConnectError"))

        async def again() -> bool:
            return bool((await report())[url]["at_ms"] > first_ms)

        await eventually(again)
        await http.post("/rpc/Watch/mine/forget", json=[gone])
        assert list(await report()) == [url]


async def _holds(report: Callable[[], Awaitable[dict[str, Any]]], url: str, found: str) -> bool:
    return bool((await report()).get(url, {}).get("found") == found)
