"""Tools over two hundred crashes: what a plain one does is done exactly once, what others do at most once."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.chat.tool_rooms import call, in_room, told
from tests.running import eventually, killed, running

from perdure import ChatRoom, ToolCall, TurnContext, tool
from perdure.chat.carrier import INTERRUPTED
from perdure.models.script_steps import Step
from perdure.models.scripted import ScriptedModel
from perdure.objects.runtime import Runtime
from perdure.wire.ui_chunks import Chunk

pytestmark = pytest.mark.anyio

CRASHES = 200


def _one(turn: TurnContext) -> list[str | Chunk]:
    return [
        "Counting. ",
        call("count", {}, "plain"),
        call("send", {}, "once"),
        call("pay", {}, "keyed"),
    ]


STEPS: list[Step] = [_one, ["Then ", "again: ", call("count", {}, "plain")], ["Done", "."]]


class Counted(ChatRoom):
    """Two steps of tools, each with a counter: in the room, or in the world outside."""

    model = ScriptedModel(steps=STEPS)
    migrations = (*ChatRoom.migrations, "CREATE TABLE effects(n INTEGER PRIMARY KEY)")
    sent: ClassVar[Counter[str]] = Counter()
    paid: ClassVar[dict[str, int]] = {}
    killed: ClassVar[list[Runtime]] = []
    """Processes that have been killed: what they still do, until the test has stopped them, is nothing."""

    async def on_interrupted(self, turn: Any) -> Any:
        return "continue"

    @tool
    def count(self) -> int:
        """Count one more."""
        self.storage.sql("INSERT INTO effects DEFAULT VALUES")
        return int(self.storage.sql("SELECT count(*) AS n FROM effects")[0]["n"])

    @tool
    async def send(self, call: ToolCall) -> str:
        """Do something in the world that cannot be done twice."""
        if self.context.runtime not in self.killed:
            self.sent[call.idempotency_key] += 1
        await asyncio.sleep(0.004)
        return "sent"

    @tool(idempotent=True)
    async def pay(self, call: ToolCall) -> AsyncIterator[int]:
        """Do something in a world that knows idempotency keys."""
        yield 0
        await asyncio.sleep(0.002)
        if self.context.runtime not in self.killed:
            self.paid.setdefault(call.idempotency_key, len(self.paid) + 1)
        yield self.paid.get(call.idempotency_key, 0)


async def test_no_call_is_carried_out_twice(tmp_path: Path) -> None:
    """Killed at random, also in the middle of a write, again and again; each room's answers end whole."""
    Counted.sent.clear()
    Counted.paid.clear()
    Counted.killed.clear()
    chance = random.Random(4)
    folder, asked = tmp_path / "0", 0
    for number in range(1, CRASHES + 1):
        async with running(folder, Counted) as runtime:
            if await in_room(runtime, Counted, _idle):
                asked += 1
                await runtime.get(Counted, "r").submit(f"Go {asked}", id=f"m{asked}")
            await asyncio.sleep(chance.choice([0, 0.002, 0.005, 0.01, 0.03]) * chance.random())
            after = await killed(runtime, tmp_path / str(number), mid_write=True)
            Counted.killed.append(runtime)
        shutil.rmtree(folder)
        folder = after
    async with running(folder, Counted) as runtime:
        await eventually(lambda: in_room(runtime, Counted, _idle))
        answers = await _answers(runtime)
        effects = await in_room(runtime, Counted, lambda it: it.storage.sql("SELECT count(*) AS n FROM effects"))
    assert len(answers) == asked > 10
    counted = [item[2] for said in answers for item in said if item[0] == "count"]
    assert counted == list(range(1, 2 * asked + 1))
    assert effects == [{"n": 2 * asked}]
    assert set(Counted.sent.values()) == {1}
    for said in answers:
        assert [item for item in said if isinstance(item, str)] == ["Counting. ", "Then again: ", "Done."]
        sent, paid = (next(item for item in said if item[0] == name) for name in ("send", "pay"))
        assert sent[1:] in (("output-available", "sent"), ("output-error", INTERRUPTED))
        assert paid[1] == "output-available"
    assert [next(item[2] for item in said if item[0] == "pay") for said in answers] == list(range(1, asked + 1))


def _idle(room: Any) -> bool:
    return room.turns.running is None and not room.transcript.count_waiting()


async def _answers(runtime: Runtime) -> list[list[Any]]:
    messages = await runtime.get(Counted, "r").messages(1_000)
    return [told(message) for message in messages if message.role == "assistant"]
