"""Clients of Cloudflare's Agents SDK: greeted, following the state, setting it, calling methods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.objects.clients import Client
from tests.running import eventually, hibernated, running, until

from perdure import Connection, callable
from perdure.agents.agent import Agent
from perdure.objects.arguments import CallerName
from perdure.objects.runtime import Runtime

pytestmark = pytest.mark.anyio

IDENTITY = '{"type":"cf_agent_identity","name":"a","agent":"counter"}'
IDENTITY_WITH_STATE = '{"type":"cf_agent_identity","name":"a","agent":"counter","stateFollows":true}'
NO_MCP = '{"type":"cf_agent_mcp_servers","mcp":{"servers":{},"tools":[],"prompts":[],"resources":[]}}'


class Counter(Agent):
    """Counts, and tells of every frame that reaches it."""

    def validate_state_change(self, state: Any, source: Connection | None) -> None:
        if not isinstance(state, dict) or state["count"] < 0:
            raise ValueError("a count is not negative")

    def should_connection_be_readonly(self, connection: Connection) -> bool:
        return connection.query.get("role") == "viewer"

    async def on_connect(self, connection: Connection) -> None:
        connection.send("welcome")

    async def on_message(self, connection: Connection, data: str | bytes) -> None:
        connection.send(data)

    @callable
    async def add(self, by: int = 1) -> int:
        count: int = (self.state or {"count": 0})["count"] + by
        self.set_state({"count": count})
        return count

    @callable
    def whoami(self, who: CallerName = None) -> str | None:
        return who

    @callable
    async def after(self, seconds: float, value: str) -> str:
        await asyncio.sleep(seconds)
        return value

    @callable
    async def fail(self) -> None:
        raise RuntimeError("the reason")

    @callable
    async def strange(self) -> Any:
        return object()

    @callable
    async def count_to(self, last: int) -> AsyncIterator[int]:
        for number in range(1, last + 1):
            yield number
            await asyncio.sleep(0)
        if last == 3:
            raise RuntimeError("not further")

    @callable
    async def forever(self) -> AsyncIterator[str]:
        try:
            yield "begun"
            await asyncio.sleep(3_600)
        finally:
            self.storage.put("ended", True)

    @callable
    async def ended(self) -> bool:
        return bool(self.storage.get("ended", False))

    async def secret(self) -> str:
        return "not marked"


class Shown(Counter):
    """The same with a state from the start."""

    initial_state = {"count": 0}  # noqa: RUF012 - as an application writes it


def client_of(runtime: Runtime, agent: type[Agent] = Counter, **options: Any) -> Client:
    """A client of the agent ``a``."""
    return Client.of(runtime, agent, "a", protocol="agents", **options)


async def greeted(runtime: Runtime, agent: type[Agent] = Counter, **options: Any) -> Client:
    """A client that has had its first frames, which are taken away."""
    client = client_of(runtime, agent, **options)
    await until(lambda: "welcome" in client.frames)
    client.frames.clear()
    return client


async def call(client: Client, method: str, *arguments: Any, call_id: str = "r1") -> list[Any]:
    """Call a method; the frames until its end."""
    client.say(msgspec.json.encode({"args": arguments, "id": call_id, "method": method, "type": "rpc"}).decode())
    await until(lambda: client.json and (client.json[-1].get("done") or client.json[-1].get("error")))
    frames = client.json
    client.frames.clear()
    return frames


async def test_a_client_is_told_whom_it_has_reached(tmp_path: Path) -> None:
    """First who, then which MCP servers; then the application has its turn. There is no state to tell."""
    async with running(tmp_path, Counter) as runtime:
        client = client_of(runtime)
        await until(lambda: "welcome" in client.frames)
        assert client.frames == [IDENTITY, NO_MCP, "welcome"]


async def test_a_client_is_told_the_state(tmp_path: Path) -> None:
    """It says so before, for clients that wait for both; and it is the state of now, not the first one."""
    async with running(tmp_path, Shown) as runtime:
        first = client_of(runtime, Shown)
        await until(lambda: "welcome" in first.frames)
        identity = IDENTITY_WITH_STATE.replace("counter", "shown")
        assert first.frames == [identity, '{"type":"cf_agent_state","state":{"count":0}}', NO_MCP, "welcome"]
        await runtime.get(Shown, "a").add(5)
        second = client_of(runtime, Shown)
        await until(lambda: "welcome" in second.frames)
        assert second.frames[:2] == [identity, '{"type":"cf_agent_state","state":{"count":5}}']


async def test_other_protocols_hear_nothing_of_it(tmp_path: Path) -> None:
    """A plain client of the same object gets the application's frames alone."""
    async with running(tmp_path, Shown) as runtime:
        plain = Client.of(runtime, Shown, "a")
        agents = await greeted(runtime, Shown)
        await call(agents, "add")
        plain.say('{"type":"cf_agent_state","state":{"count":9}}')
        await until(lambda: len(plain.frames) == 2)
        assert plain.frames == ["welcome", '{"type":"cf_agent_state","state":{"count":9}}']
        assert await runtime.get(Shown, "a").add() == 2


async def test_a_client_sets_the_state(tmp_path: Path) -> None:
    """All others get it; the one that set it does not, since it shows it already."""
    async with running(tmp_path, Counter) as runtime:
        setter, other = await greeted(runtime), await greeted(runtime)
        setter.say('{"state":{"count":7},"type":"cf_agent_state"}')
        await until(lambda: other.frames)
        assert other.frames == ['{"type":"cf_agent_state","state":{"count":7}}']
        assert await call(setter, "add") == [
            {"type": "cf_agent_state", "state": {"count": 8}},
            {"type": "rpc", "id": "r1", "success": True, "result": 8, "done": True},
        ]


async def test_a_state_that_is_refused(tmp_path: Path) -> None:
    """The sender is told, nobody else hears of it, and nothing is kept."""
    async with running(tmp_path, Shown) as runtime:
        setter, other = await greeted(runtime, Shown), await greeted(runtime, Shown)
        setter.say('{"state":{"count":-1},"type":"cf_agent_state"}')
        await until(lambda: setter.frames)
        assert setter.frames == ['{"type":"cf_agent_state_error","error":"State update rejected"}']
        assert await runtime.get(Shown, "a").add() == 1
        await until(lambda: other.frames)
        assert other.frames == ['{"type":"cf_agent_state","state":{"count":1}}']


async def test_read_only_clients(tmp_path: Path) -> None:
    """They follow the state and call methods; neither way can they change it."""
    async with running(tmp_path, Shown) as runtime:
        viewer, other = await greeted(runtime, Shown, role="viewer"), await greeted(runtime, Shown)
        viewer.say('{"state":{"count":7},"type":"cf_agent_state"}')
        await until(lambda: viewer.frames)
        assert viewer.frames == ['{"type":"cf_agent_state_error","error":"Connection is readonly"}']
        viewer.frames.clear()
        assert await call(viewer, "add") == [
            {"type": "rpc", "id": "r1", "success": False, "error": "Connection is readonly"}
        ]
        assert (await call(viewer, "whoami"))[0]["success"]
        assert (await call(other, "add"))[-1]["result"] == 1
        await until(lambda: viewer.frames)
        assert viewer.frames == ['{"type":"cf_agent_state","state":{"count":1}}']


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("nothing", [], "Method nothing does not exist"),
        ("secret", [], "Method secret is not callable"),
        ("set_state", [{"count": 1}], "Method set_state is not callable"),
        ("_state", [], "Method _state does not exist"),
        ("state", [], "Method state does not exist"),
        ("fail", [], "the reason"),
        ("add", ["one"], "add: argument by: Expected `int`, got `str`"),
        ("add", [1, 2], "add: too many positional arguments"),
        ("strange", [], "this cannot be sent as JSON: Encoding objects of type object is unsupported"),
    ],
)
async def test_calls_that_fail(tmp_path: Path, method: str, arguments: list[Any], error: str) -> None:
    """The caller is told why, and the agent lives on."""
    async with running(tmp_path, Counter) as runtime:
        client = await greeted(runtime)
        assert await call(client, method, *arguments) == [
            {"type": "rpc", "id": "r1", "success": False, "error": error}
        ]
        assert (await call(client, "add"))[-1]["result"] == 1


async def test_a_method_knows_who_calls(tmp_path: Path) -> None:
    """An authenticated user cannot give another name; who is unknown may."""
    async with running(tmp_path, Counter) as runtime:
        assert (await call(await greeted(runtime, user="Ada"), "whoami", "Bob"))[0]["result"] == "Ada"
        assert (await call(await greeted(runtime), "whoami", "Bob"))[0]["result"] == "Bob"


async def test_calls_interleave(tmp_path: Path) -> None:
    """A slow one does not hold up a quick one."""
    async with running(tmp_path, Counter) as runtime:
        client = await greeted(runtime)
        client.say('{"args":[0.05,"slow"],"id":"r1","method":"after","type":"rpc"}')
        client.say('{"args":[0,"quick"],"id":"r2","method":"after","type":"rpc"}')
        await until(lambda: len(client.frames) == 2)
        assert [(frame["id"], frame["result"]) for frame in client.json] == [("r2", "quick"), ("r1", "slow")]


async def test_a_generator_s_values_stream(tmp_path: Path) -> None:
    """Each as it comes, then the end; an error after some of them ends it, too."""
    async with running(tmp_path, Counter) as runtime:
        client = await greeted(runtime)
        assert await call(client, "count_to", 2) == [
            {"type": "rpc", "id": "r1", "success": True, "result": 1, "done": False},
            {"type": "rpc", "id": "r1", "success": True, "result": 2, "done": False},
            {"type": "rpc", "id": "r1", "success": True, "result": None, "done": True},
        ]
        failed = await call(client, "count_to", 3)
        assert [frame.get("result") for frame in failed[:3]] == [1, 2, 3]
        assert failed[3:] == [{"type": "rpc", "id": "r1", "success": False, "error": "not further"}]


async def test_a_client_that_leaves_ends_its_streams(tmp_path: Path) -> None:
    """Its generator is closed; another client's goes on."""
    async with running(tmp_path, Counter) as runtime:
        leaving, other = await greeted(runtime), await greeted(runtime)
        for client in (leaving, other):
            client.say('{"args":[],"id":"r1","method":"forever","type":"rpc"}')
        await until(lambda: leaving.frames and other.frames)
        other.frames.clear()
        assert (await call(other, "ended", call_id="r2"))[0]["result"] is False
        leaving.leave()

        async def ended() -> bool:
            result: bool = (await call(other, "ended", call_id="r2"))[0]["result"]
            return result

        await eventually(ended)
        assert leaving.json == [{"type": "rpc", "id": "r1", "success": True, "result": "begun", "done": False}]
        other.leave()


async def test_unknown_frames_are_the_application_s(tmp_path: Path) -> None:
    """Text, JSON of other types, binary data: none closes the connection."""
    async with running(tmp_path, Counter) as runtime:
        client = await greeted(runtime)
        frames: list[str | bytes] = ["hello", '{"type":"mine"}', b"\x00\x01", '{"type":"rpc","method":"add"}']
        for frame in frames:
            client.say(frame)
        await until(lambda: len(client.frames) == len(frames))
        assert client.frames == frames


async def test_clients_stay_while_the_agent_hibernates(tmp_path: Path) -> None:
    """They are not greeted again, and hear of the next change of state."""
    async with running(tmp_path, Counter) as runtime:
        client, other = await greeted(runtime), await greeted(runtime)
        await hibernated(runtime, Counter, "a")
        client.say('{"state":{"count":7},"type":"cf_agent_state"}')
        await until(lambda: other.frames)
        assert (client.frames, other.frames) == ([], ['{"type":"cf_agent_state","state":{"count":7}}'])
