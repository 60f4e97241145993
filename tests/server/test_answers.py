"""An assistant message that comes back to ``POST /api/chat``: what it changes, and what its client is told then."""

from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.chat.rooms import Echo
from tests.chat.tool_rooms import call
from tests.running import eventually
from tests.server.apps import counted, served
from tests.server.clients import user_turn

from perdure import ChatRoom, tool
from perdure.models.scripted import ScriptedModel, Until
from perdure.wire.fold import MessageFold
from perdure.wire.messages import ChatMessage
from perdure.wire.ui_chunks import decode_chunk

pytestmark = pytest.mark.anyio


def asking_room(*, gated: bool = False) -> type[ChatRoom]:
    """Three legs: a person agrees, the client gives two results, and it is done."""
    gate = asyncio.Event()

    class Asking(ChatRoom):
        opened = gate
        model = ScriptedModel(
            steps=[
                ["May I? ", call("refund", {}, "c1")],
                ["Where? ", call("locate", {}, "c2"), call("locate", {}, "c3")],
                ["Now ", *([Until(gate.wait)] if gated else []), "done."],
            ]
        )

        @tool(approval=True)
        def refund(self) -> str:
            """Give the money back."""
            self.storage.put("refunds", self.storage.get("refunds", 0) + 1)
            return "refunded"

        @tool(client=True)
        def locate(self) -> str:
            """Where the user is."""
            raise NotImplementedError

    return Asking


async def post(client: httpx2.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    """The chunks that a request is answered with."""
    response = await client.post("/api/chat", json={"id": "r", **fields})
    assert response.status_code == 200, response.text
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


async def history(client: httpx2.AsyncClient) -> list[dict[str, Any]]:
    """The room's messages."""
    messages: list[dict[str, Any]] = (await client.get("/api/chat/r/messages")).json()
    return messages


def told(chunks: list[dict[str, Any]]) -> list[str]:
    """The types of chunks; of results with their call's id."""
    return [chunk["type"] + (f" {chunk['toolCallId']}" if "output" in chunk else "") for chunk in chunks]


def held(message: dict[str, Any], chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client shows that holds the message and is told these chunks; it appends."""
    fold = MessageFold(message["id"], message=ChatMessage(**message))
    for chunk in chunks:
        fold.push(decode_chunk(json.dumps(chunk)))
    shown = fold.message()
    return {"id": shown.id, "role": "assistant", "parts": shown.parts}


def with_part(message: dict[str, Any], call_id: str, **changes: Any) -> dict[str, Any]:
    """The message with a result in it."""
    changed = copy.deepcopy(message)
    for part in changed["parts"]:
        if part.get("toolCallId") == call_id:
            part |= changes
    return changed


def agreed(message: dict[str, Any]) -> dict[str, Any]:
    """The message of a client that agrees."""
    approval = next(part["approval"] for part in message["parts"] if part.get("toolCallId") == "c1")
    return with_part(message, "c1", state="approval-responded", approval={**approval, "approved": True})


def located(message: dict[str, Any], *call_ids: str) -> dict[str, Any]:
    """The message of a client that has carried these calls out."""
    for call_id in call_ids:
        message = with_part(message, call_id, state="output-available", output="Oslo")
    return message


async def test_each_result_is_answered_with_what_is_new(tmp_path: Path) -> None:
    """Leg by leg: appended to what the client holds, it is what the room stores."""
    async with served(counted(tmp_path, asking_room())) as client:
        question = user_turn("Please")["messages"]
        first = await post(client, messages=question)
        assert told(first)[-3:] == ["tool-approval-request", "finish-step", "finish"]
        message = (await history(client))[-1]
        second = await post(client, messages=[*question, agreed(message)], messageId="id1")
        assert told(second)[:3] == ["start", "tool-output-available c1", "start-step"]
        assert second[-1] == {"type": "finish", "finishReason": "tool-calls"}
        message = held(agreed(message), second)
        third = await post(client, messages=[*question, located(message, "c2", "c3")], messageId="id1")
        assert third[-1] == {"type": "finish", "finishReason": "stop"}
        message = held(located(message, "c2", "c3"), third)
        stored = (await history(client))[-1]
        assert [part.get("text", part.get("output")) for part in message["parts"]] == [
            part.get("text", part.get("output")) for part in stored["parts"]
        ]
        assert stored["parts"][-1]["text"] == "Now done."


async def test_one_of_two_results_is_not_enough(tmp_path: Path) -> None:
    """It is kept; the answer goes on when the other one is in."""
    async with served(counted(tmp_path, asking_room())) as client:
        await post(client, messages=user_turn("Please")["messages"])
        await post(client, messages=[agreed((await history(client))[-1])])
        message = (await history(client))[-1]
        some = await post(client, messages=[located(message, "c3")])
        assert told(some) == ["start", "tool-output-available c1", "tool-output-available c3", "finish"]
        assert some[-1]["finishReason"] == "tool-calls"
        rest = await post(client, messages=[located(message, "c2")])
        assert rest[-1]["finishReason"] == "stop"
        outputs = {
            part["toolCallId"]: part.get("output")
            for part in (await history(client))[-1]["parts"]
            if "toolCallId" in part
        }
        assert outputs == {"c1": "refunded", "c2": "Oslo", "c3": "Oslo"}


async def test_who_is_two_legs_behind_is_told_both(tmp_path: Path) -> None:
    """The results of the steps that it holds, then the steps that it lacks; during the last leg and after it."""
    asking = asking_room(gated=True)
    async with served(counted(tmp_path, asking)) as client:
        await post(client, messages=user_turn("Please")["messages"])
        stale = agreed((await history(client))[-1])
        await post(client, messages=[stale])
        running = asyncio.create_task(post(client, messages=[located((await history(client))[-1], "c2", "c3")]))
        await eventually(lambda: _says(client, "Now "))
        reading = asyncio.create_task(post(client, messages=[stale]))
        await asyncio.sleep(0.05)
        asking.opened.set()  # type: ignore[attr-defined]
        texts = []
        for chunks in (await reading, await post(client, messages=[stale])):
            assert told(chunks)[:3] == ["start", "tool-output-available c1", "start-step"]
            assert told(chunks).count("tool-output-available c2") == 1
            shown = held(stale, chunks)
            texts.append([part["text"] for part in shown["parts"] if part["type"] == "text"])
        assert texts == [["May I? ", "Where? ", "Now done."]] * 2
        await running


async def _says(client: httpx2.AsyncClient, text: str) -> bool:
    return bool((await history(client))[-1]["parts"][-1].get("text") == text)


async def test_the_same_result_again_changes_nothing(tmp_path: Path) -> None:
    """During the leg that it began, and after it: the same chunks; the tool was carried out once."""
    asking = asking_room()
    app = counted(tmp_path, asking)
    async with served(app) as client:
        await post(client, messages=user_turn("Please")["messages"])
        message = agreed((await history(client))[-1])
        answers = await asyncio.gather(*(post(client, messages=[message]) for _ in range(3)))
        answers.append(await post(client, messages=[message]))
        assert [chunks[1] for chunks in answers] == [answers[0][1]] * 4
        assert all(chunks[-1]["finishReason"] == "tool-calls" for chunks in answers)
        denied = with_part(message, "c1", approval={**message["parts"][-1]["approval"], "approved": False})
        assert told(await post(client, messages=[denied]))[1] == "tool-output-available c1"
        refunds = await app.runtime.run_in(app.runtime.object_id(asking, "r"), _refunds)
        assert refunds == 1


async def _refunds(instance: Any) -> int:
    count: int = instance.object.storage.get("refunds", 0)
    return count


async def test_a_question_sent_again_is_told_all_legs(tmp_path: Path) -> None:
    """Its client has none of the answer yet."""
    async with served(counted(tmp_path, asking_room())) as client:
        turn = user_turn("Please")
        await post(client, **{name: turn[name] for name in ("messages", "trigger")})
        await post(client, messages=[agreed((await history(client))[-1])])
        chunks = await post(client, messages=turn["messages"])
        assert told(chunks).count("start-step") == 2
        assert told(chunks).count("finish") == 1
        assert chunks[0] == {"type": "start", "messageId": "id1"}


async def test_a_client_that_asks_for_more_for_ever_is_stopped(tmp_path: Path) -> None:
    """An answer that it takes for unfinished, and that has ended or waits for someone else: an error, not an end."""
    async with served(counted(tmp_path, asking_room())) as client:
        await post(client, messages=user_turn("Please")["messages"])
        message = (await history(client))[-1]
        forged = with_part(message, "c1", state="output-available", output="forged")
        assert (await post(client, messages=[forged]))[-1] == {
            "type": "error",
            "errorText": "this answer still waits for a result",
        }
        unfinished = await post(client, messages=[message])
        assert unfinished[-1] == {"type": "finish", "finishReason": "tool-calls"}
    async with served(counted(tmp_path / "other", Echo)) as client:
        await post(client, messages=user_turn("Hi")["messages"])
        message = (await history(client))[-1]
        forged = {**message, "parts": [{"type": "tool-x", "toolCallId": "c", "state": "output-available"}]}
        again = {**forged, "parts": [*message["parts"], {"type": "step-start"}, *forged["parts"]]}
        assert (await post(client, messages=[again]))[-1] == {
            "type": "error",
            "errorText": "this answer has ended",
        }
        assert told(await post(client, messages=[message])) == ["start", "finish"]
