"""``/api/chat`` for TanStack AI: what `fetchServerSentEvents` and `fetchHttpStream` send and read, byte for byte."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import HTTPConnection
from tests.chat.rooms import Echo, lead, led_room
from tests.running import eventually
from tests.server.apps import NOON_MS, counted, served, set_clock
from tests.server.clients import events, room, user_turn

from perdure import ChatRoom, User, tool
from perdure.models.base import TurnContext
from perdure.wire.agui import AguiEncoder
from perdure.wire.sse import SseParser
from perdure.wire.ui_chunks import Chunk, ToolInputAvailable

pytestmark = pytest.mark.anyio

ACCEPTED = 'id: 0.0\ndata: {"type":"CUSTOM","name":"run.accepted","value":{}}\n\n'

ECHO = (
    ACCEPTED
    + """\
id: 1.0
data: {"type":"RUN_STARTED","threadId":"r","runId":"run-1"}

id: 3.0
data: {"type":"TEXT_MESSAGE_START","messageId":"id1","role":"assistant"}

id: 3.1
data: {"type":"STEP_STARTED","stepName":"step-1"}

id: 4.0
data: {"type":"TEXT_MESSAGE_CONTENT","messageId":"id1","delta":"You said: Hi"}

id: 6.0
data: {"type":"STEP_FINISHED","stepName":"step-1"}

id: 7.0
data: {"type":"TEXT_MESSAGE_END","messageId":"id1"}

id: 7.1
data: {"type":"RUN_FINISHED","threadId":"r","runId":"run-1","metadata":{"tanstack":{"finishReason":"stop"}}}

"""
)


def message(message_id: str, text: str) -> dict[str, Any]:
    """A user's message on the wire."""
    return {"id": message_id, "role": "user", "content": text}


def run_input(*messages: dict[str, Any], run_id: str = "run-1", thread_id: str = "r", **more: Any) -> dict[str, Any]:
    """What a client posts."""
    fields = {"threadId": thread_id, "runId": run_id, "state": {}, "messages": list(messages)}
    return {**fields, "tools": [], "context": [], "forwardedProps": {}, "data": {}, **more}


async def post(client: httpx2.AsyncClient, body: dict[str, Any], after: str | None = None) -> httpx2.Response:
    """One POST of a run, read to its end."""
    headers = {"x-run-id": body["runId"]} | ({} if after is None else {"last-event-id": after})
    return await client.post("/api/chat", json=body, headers=headers)


def told(response: httpx2.Response) -> list[dict[str, Any]]:
    """The events of a run that was read to its end."""
    assert response.status_code == 200, response.text
    return [json.loads(event.data) for event in SseParser().feed(response.content)]


def said(response: httpx2.Response) -> str:
    """The text in them."""
    return "".join(event["delta"] for event in told(response) if event["type"] == "TEXT_MESSAGE_CONTENT")


async def roles(client: httpx2.AsyncClient) -> list[tuple[str, str]]:
    """Id and role of the room's messages."""
    return [(item["id"], item["role"]) for item in (await client.get("/api/chat/r/messages")).json()]


class Paying(ChatRoom):
    """Asks for an approval, until it gets one, then says what came of it."""

    async def respond(self, turn: TurnContext) -> Any:
        calls = [] if turn.answer is None else [part for part in turn.answer.parts if "toolCallId" in part]
        if not calls or "output" not in calls[-1]:
            yield "Well. "
            yield ToolInputAvailable(f"c{len(calls) + 1}", "pay", {"amount": 7})
        else:
            yield f"Done: {calls[-1]['output']}"

    @tool(approval=True)
    def pay(self, amount: int) -> str:
        """Pay."""
        return f"{amount} paid"


def approval(answer_id: str, approved: bool = True) -> list[dict[str, Any]]:
    """The answer of `Paying` as it comes back."""
    call = {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": '{"amount":7}'}}
    word = json.dumps({"approved": approved, "message": "x", **({"pendingExecution": True} if approved else {})})
    return [
        {"id": answer_id, "role": "assistant", "content": "Well. ", "toolCalls": [call]},
        {"role": "tool", "id": "tool-c1", "toolCallId": "c1", "content": word},
    ]


# --- a run


async def test_a_run_byte_for_byte(tmp_path: Path) -> None:
    """Events with ids, in the client's own name for the run."""
    async with served(counted(tmp_path, Echo)) as client:
        response = await post(client, run_input(message("m1", "Hi")))
        assert response.text == ECHO
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert await roles(client) == [("m1", "user"), ("id1", "assistant")]


async def test_ndjson_says_the_same(tmp_path: Path) -> None:
    """By the address or by what the client accepts: a line each, with the id beside the event."""
    async with served(counted(tmp_path, Echo)) as client:
        by_address = await client.post("/api/chat?format=ndjson", json=run_input(message("m1", "Hi")))
        assert by_address.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in by_address.text.splitlines()]
        parsed = SseParser().feed(ECHO.encode())
        assert lines == [{"id": event.id, "chunk": json.loads(event.data)} for event in parsed]
        by_header = await client.post(
            "/api/chat", json=run_input(message("m1", "Hi")), headers={"accept": "application/x-ndjson"}
        )
        assert by_header.text == by_address.text
        assert (await client.post("/api/chat?format=xml", json=run_input(message("m2", "Hi")))).status_code == 400


async def test_a_run_needs_no_header(tmp_path: Path) -> None:
    """Other clients of AG-UI name their run in the body alone; AI SDK clients at the same address name none."""
    async with served(counted(tmp_path, Echo)) as client:
        assert (await client.post("/api/chat", json=run_input(message("m1", "Hi")))).text == ECHO
        theirs = await client.post("/api/chat", json=user_turn('"threadId" and "runId"', message_id="m2"))
        assert theirs.headers["x-vercel-ai-ui-message-stream"] == "v1"
        assert theirs.text.startswith('data: {"type":"start"')


async def test_after_each_event_the_rest(tmp_path: Path) -> None:
    """``Last-Event-ID``: a read strictly after it, never a second turn; from the end, the end again."""
    async with served(counted(tmp_path, Echo)) as client:
        await post(client, run_input(message("m1", "Hi")))
        whole = SseParser().feed(ECHO.encode())
        for count, event in enumerate(whole[:-1], 1):
            rest = await post(client, run_input(message("m1", "Hi")), after=event.id)
            assert [item.data for item in SseParser().feed(rest.content)] == [item.data for item in whole[count:]]
        again = await post(client, run_input(message("m1", "Hi")), after="7.1")
        assert again.text.startswith('id: 8.0\ndata: {"type":"RUN_FINISHED"')
        assert await roles(client) == [("m1", "user"), ("id1", "assistant")]


async def test_the_same_run_again_is_read_again(tmp_path: Path) -> None:
    """A retry that has seen nothing: the whole run, once more; while it goes on, and after it."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        posts = [asyncio.create_task(post(client, run_input(message("m1", "Hi")))) for _ in range(3)]
        lead(led, "Hi", "Hel", "lo", None)
        bodies = {(await each).text for each in posts} | {(await post(client, run_input(message("m1", "Hi")))).text}
        assert len(bodies) == 1
        assert len(led.contexts) == 1


@pytest.mark.parametrize(
    ("run_id", "after", "code"),
    [("run-9", "1.0", "bad_request"), ("run-1", "nonsense", "bad_offset")],
)
async def test_what_cannot_be_gone_on_with(tmp_path: Path, run_id: str, after: str, code: str) -> None:
    """A run that the room does not know, an id that no event had: 400, and nothing is asked."""
    async with served(counted(tmp_path, Echo)) as client:
        await post(client, run_input(message("m1", "Hi")))
        response = await post(client, run_input(message("m2", "Hi"), run_id=run_id), after=after)
        assert (response.status_code, response.json()["error"]["code"]) == (400, code)
        assert len(await roles(client)) == 2


async def test_readers_share_the_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty who read one run: each chunk is encoded once."""
    encoded: list[Any] = []
    encode = AguiEncoder.encode

    def counting(self: AguiEncoder, chunk: bytes | str | Chunk) -> list[bytes]:
        encoded.append(chunk)
        return encode(self, chunk)

    monkeypatch.setattr(AguiEncoder, "encode", counting)
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        posts = [asyncio.create_task(post(client, run_input(message("m1", "Hi")))) for _ in range(20)]
        await eventually(lambda: _is(len(led.contexts) == 1))
        lead(led, "Hi", *[f"{number} " for number in range(50)], None)
        texts = {said(await each) for each in posts}
        assert texts == {"".join(f"{number} " for number in range(50))}
        assert len(encoded) < 60


@pytest.mark.parametrize(("query", "keep_alive"), [("", b": keep-alive\n\n"), ("?format=ndjson", b"\n")])
async def test_silence_is_kept_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str, keep_alive: bytes
) -> None:
    """By what clients of the format skip."""
    monkeypatch.setattr("perdure.server.sse.KEEP_ALIVE_MS", 20)
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        body = b""
        async with client.stream("POST", f"/api/chat{query}", json=run_input(message("m1", "Hi"))) as response:
            async for piece in response.aiter_bytes():
                body += piece
                if body.endswith(keep_alive * 2):
                    break
        assert b"RUN_STARTED" in body


async def test_a_failed_answer(tmp_path: Path) -> None:
    """An error in words, as the run's end."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        lead(led, "Hi", "Hel", RuntimeError("no model"))
        assert told(await post(client, run_input(message("m1", "Hi"))))[-1] == {
            "type": "RUN_ERROR",
            "message": "RuntimeError: no model",
            "metadata": {"tanstack": {"threadId": "r", "runId": "run-1"}},
        }


async def test_a_room_of_people(tmp_path: Path) -> None:
    """The message is taken, the run ends without a word."""
    people = type("People", (ChatRoom,), {"model": None})
    async with served(counted(tmp_path, people)) as client:
        response = await post(client, run_input(message("m1", "Hi")))
        assert [event["type"] for event in told(response)] == ["CUSTOM", "RUN_STARTED", "RUN_FINISHED"]
        assert (await post(client, run_input(message("m1", "Hi")))).text == response.text
        assert await roles(client) == [("m1", "user")]


# --- reload, edit


async def test_another_run_makes_the_answer_again(tmp_path: Path) -> None:
    """What `reload()` posts; amid the answer, too."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        first = asyncio.create_task(post(client, run_input(message("m1", "Hi"))))
        lead(led, "Hi", "Hel")
        await eventually(lambda: _is(len(led.contexts) == 1 and led.script["Hi"].empty()))
        again = asyncio.create_task(post(client, run_input(message("m1", "Hi"), run_id="run-2")))
        assert told(await first)[-1]["result"] == {"aborted": True}
        lead(led, "Hi", "Hello", None)
        assert said(await again) == "Hello"
        assert await roles(client) == [("m1", "user"), ("id2", "assistant")]


async def test_a_reload_removes_nothing_that_others_said(tmp_path: Path) -> None:
    """The answer that there is, is read."""
    async with served(counted(tmp_path, Echo)) as client:
        await post(client, run_input(message("m1", "Hi")))
        await client.post("/api/chat", json=user_turn("Bye", message_id="m2"))
        assert said(await post(client, run_input(message("m1", "Hi"), run_id="run-2"))) == "You said: Hi"
        assert len(await roles(client)) == 4


async def test_an_answer_of_several_legs_is_read_as_a_whole(tmp_path: Path) -> None:
    """After such a `reload()` the client has none of it; and it is not asked again what was answered."""
    async with served(counted(tmp_path, Paying)) as client:
        await post(client, run_input(message("m1", "Pay")))
        await post(client, run_input(message("m1", "Pay"), *approval("id1"), run_id="run-2"))
        await client.post("/api/chat", json=user_turn("Bye", message_id="m2"))
        for _ in range(2):
            response = await post(client, run_input(message("m1", "Pay"), run_id="run-3"))
            assert said(response) == "Well. Done: 7 paid"
            assert "approval-requested" not in response.text


async def test_a_changed_message_is_an_edit(tmp_path: Path) -> None:
    """Known by its id: it is answered anew, without what came after it."""
    async with served(counted(tmp_path, Echo)) as client:
        await post(client, run_input(message("m1", "Hi")))
        await post(client, run_input(message("m1", "Hi"), message("m2", "Bye"), run_id="run-2"))
        assert said(await post(client, run_input(message("m1", "Hello"), run_id="run-3"))) == "You said: Hello"
        assert await roles(client) == [("m1", "user"), ("id3", "assistant")]


# --- answers that wait


async def test_an_approval_comes_back(tmp_path: Path) -> None:
    """The run asks and ends; the next goes on in the same message; sent twice, it is done once."""
    async with served(counted(tmp_path, Paying)) as client:
        asked = told(await post(client, run_input(message("m1", "Pay"))))
        value = next(event["value"] for event in asked if event.get("name") == "approval-requested")
        assert (value["toolCallId"], value["approval"]["needsApproval"]) == ("c1", True)
        assert asked[-1]["type"] == "RUN_FINISHED"
        back = run_input(message("m1", "Pay"), *approval("id1"), run_id="run-2")
        for _ in range(2):
            response = await post(client, back)
            assert said(response) == "Done: 7 paid"
            assert {event.get("messageId") for event in told(response)} - {None} == {"id1", "c1-result"}
        assert await roles(client) == [("m1", "user"), ("id1", "assistant")]


async def test_an_approval_that_somebody_else_gave(tmp_path: Path) -> None:
    """Who is late reads what came of it."""
    async with served(counted(tmp_path, Paying)) as client:
        await post(client, run_input(message("m1", "Pay")))
        assert (await client.post("/rpc/Paying/r/approve", json=["c1", False])).json()["result"] is True
        late = await post(client, run_input(message("m1", "Pay"), *approval("id1"), run_id="run-2"))
        (result,) = [event for event in told(late) if event["type"] == "TOOL_CALL_RESULT"]
        assert result["content"] == '{"error":"the user did not allow this tool call"}'
        (question,) = [event["value"] for event in told(late) if event.get("name") == "approval-requested"]
        assert question["toolCallId"] == "c2"


async def test_an_approval_after_a_week(tmp_path: Path) -> None:
    """The chunks of what was said before are gone by then: the message has them, the run goes on in it."""
    app = counted(tmp_path, Paying)
    async with served(app) as client:
        await post(client, run_input(message("m1", "Pay")))
        set_clock(app, NOON_MS + 7 * 24 * 3600 * 1000)
        await post(client, run_input(message("m2", "Pay"), run_id="run-2"))  # a turn that begins tidies up
        assert (await post(client, run_input(message("m1", "Pay")))).status_code == 400
        joined = await client.get("/api/chat?offset=-1&runId=run-1&threadId=r")
        assert said(joined) == "Well. "
        assert joined.text.count("approval-requested") == 1
        response = await post(client, run_input(message("m1", "Pay"), *approval("id1"), run_id="run-3"))
        assert said(response) == "Done: 7 paid"
        (result,) = [event for event in told(response) if event["type"] == "TOOL_CALL_RESULT"]
        assert (result["toolCallId"], result["content"]) == ("c1", "7 paid")
        for _ in range(2):
            whole = await client.get("/api/chat?offset=-1&runId=run-3&threadId=r")
            assert (said(whole), told(whole)[-1]["type"]) == ("Well. Done: 7 paid", "RUN_FINISHED")
            assert "approval-requested" not in whole.text


async def test_results_of_an_answer_that_is_gone(tmp_path: Path) -> None:
    """Nothing comes of them, and the run ends."""
    async with served(counted(tmp_path, Paying)) as client:
        await post(client, run_input(message("m1", "Pay")))
        response = await post(client, run_input(message("m1", "Pay"), *approval("other"), run_id="run-2"))
        assert [event["type"] for event in told(response)] == ["CUSTOM", "RUN_STARTED", "RUN_FINISHED"]


async def test_a_new_message_brings_results_along(tmp_path: Path) -> None:
    """The list has both: the old answer goes on, the new message is answered."""
    async with served(counted(tmp_path, Paying)) as client:
        await post(client, run_input(message("m1", "Pay")))
        body = run_input(message("m1", "Pay"), *approval("id1"), message("m2", "Again"), run_id="run-2")
        assert said(await post(client, body)) == "Well. "
        messages = (await client.get("/api/chat/r/messages")).json()
        assert [part["text"] for part in messages[1]["parts"] if part["type"] == "text"] == ["Well. ", "Done: 7 paid"]


# --- join and hydrate


async def test_a_run_is_joined(tmp_path: Path) -> None:
    """From its beginning, under the name that the joiner gave; by our id, or by the client's own."""
    async with served(counted(tmp_path, Paying)) as client:
        await post(client, run_input(message("m1", "Pay")))
        await post(client, run_input(message("m1", "Pay"), *approval("id1"), run_id="run-2"))
        for address in ("runId=id1@r", "runId=run-2&threadId=r", "runId=run-1", "runId=id1&threadId=r"):
            response = await client.get(f"/api/chat?offset=-1&{address}")
            kinds = [event["type"] for event in told(response)]
            assert (kinds[:3], kinds.count("RUN_FINISHED")) == (["CUSTOM", "RUN_STARTED", "TEXT_MESSAGE_START"], 1)
            assert "approval-requested" not in response.text
            assert said(response) == "Well. Done: 7 paid"
        whole = SseParser().feed(response.content)
        for count, event in enumerate(whole, 1):
            rest = await client.get(f"/api/chat?offset=-1&{address}", headers={"last-event-id": event.id})
            expected = [item.data for item in whole[count:]] or [whole[-1].data]
            assert [item.data for item in SseParser().feed(rest.content)] == expected


@pytest.mark.parametrize("address", ["runId=x", "runId=x@r", "runId=x@nowhere", "runId=x&threadId=r", "offset=-1"])
async def test_what_cannot_be_joined(tmp_path: Path, address: str) -> None:
    """400: the client then forgets the run."""
    async with served(counted(tmp_path, Echo)) as client:
        await post(client, run_input(message("m1", "Hi")))
        response = await client.get(f"/api/chat?{address}")
        assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_request")


async def test_a_joiner_hears_of_a_run_that_has_not_begun(tmp_path: Path) -> None:
    """At once: a client gives up when nothing comes."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        first = asyncio.create_task(post(client, run_input(message("m1", "Hi"))))
        second = asyncio.create_task(
            post(client, run_input(message("m1", "Hi"), message("m2", "Bye"), run_id="run-2"))
        )
        await eventually(lambda: _has_messages(client, 3))
        async with client.stream("GET", "/api/chat?offset=-1&runId=run-2&threadId=r") as response:
            assert response.status_code == 200
            event = await anext(events(response))
            assert json.loads(event.data)["name"] == "run.accepted"
        lead(led, "Hi", None)
        lead(led, "Bye", None)
        await asyncio.gather(first, second)


async def test_a_thread_is_hydrated(tmp_path: Path) -> None:
    """Its messages in TanStack's form, oldest first, in pages; and nothing of a thread that is not there."""
    async with served(counted(tmp_path, Echo)) as client:
        nothing: dict[str, Any] = {
            "messages": [],
            "activeRun": None,
            "interrupts": None,
            "page": {"truncated": False},
        }
        assert (await client.get("/api/chat?threadId=r")).json() == nothing
        for number in (1, 2):
            await post(client, run_input(message(f"m{number}", "Hi"), run_id=f"run-{number}"))
        created = "2023-11-14T22:13:20.000Z"
        assert NOON_MS == 1_700_000_000_000
        expected = [
            {"id": "m1", "role": "user", "parts": [{"type": "text", "content": "Hi"}], "createdAt": created},
            {
                "id": "id1",
                "role": "assistant",
                "parts": [{"type": "text", "content": "You said: Hi"}],
                "createdAt": created,
            },
        ]
        found = (await client.get("/api/chat?threadId=r")).json()
        assert [item["id"] for item in found["messages"]] == ["m1", "id1", "m2", "id2"]
        assert found["messages"][:2] == expected
        assert (found["activeRun"], found["interrupts"], found["page"]) == (None, None, {"truncated": False})
        newest = (await client.get("/api/chat?threadId=r&limit=2")).json()
        assert [item["id"] for item in newest["messages"]] == ["m2", "id2"]
        assert newest["page"] == {"truncated": True, "cursor": "m2"}
        older = (await client.get("/api/chat?threadId=r&limit=2&before=m2")).json()
        assert (older["messages"], older["page"]) == (expected, {"truncated": False})


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "before=nobody"])
async def test_what_cannot_be_hydrated(tmp_path: Path, query: str) -> None:
    """Pages have one to a thousand messages, and end before one that is there."""
    async with served(counted(tmp_path, Echo)) as client:
        await post(client, run_input(message("m1", "Hi")))
        assert (await client.get("/api/chat?threadId=r&limit=1000")).status_code == 200
        response = await client.get(f"/api/chat?threadId=r&{query}")
        assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_request")


async def test_a_running_answer_comes_last(tmp_path: Path) -> None:
    """Its client drops the last message and joins the run; a message that waits behind it is there."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        first = asyncio.create_task(post(client, run_input(message("m1", "Hi"))))
        lead(led, "Hi", "Hel")
        await eventually(lambda: _hydrates(client, "Hel"))
        second = asyncio.create_task(post(client, run_input(message("m2", "Bye"), run_id="run-2")))
        await eventually(lambda: _has_messages(client, 3))
        found = (await client.get("/api/chat?threadId=r")).json()
        assert [item["id"] for item in found["messages"]] == ["m1", "m2", "id1"]
        assert found["activeRun"] == {"runId": "id1@r"}
        joined = asyncio.create_task(client.get("/api/chat?offset=-1&runId=id1@r"))
        lead(led, "Hi", "lo", None)
        lead(led, "Bye", None)
        assert said(await joined) == said(await first) == "Hello"
        await second


async def test_what_waits_is_shown(tmp_path: Path) -> None:
    """The call with its question, so that a client can ask it; there is no run to join."""
    async with served(counted(tmp_path, Paying)) as client:
        await post(client, run_input(message("m1", "Pay")))
        found = (await client.get("/api/chat?threadId=r")).json()
        call = found["messages"][1]["parts"][1]
        assert (call["state"], call["approval"]["needsApproval"]) == ("approval-requested", True)
        assert found["activeRun"] is None


# --- who may


def _by_header(connection: HTTPConnection) -> User | None:
    return {"ann": User("Ann", rooms=["r"]), "bob": User("Bob", rooms=["s"])}.get(
        connection.headers.get("authorization", "")
    )


async def test_the_door_is_kept(tmp_path: Path) -> None:
    """Posting, joining, hydrating: 401 for strangers, 403 for those of other rooms; messages carry the name."""
    async with served(counted(tmp_path, Echo, authenticate=_by_header)) as client:
        body = run_input(message("m1", "Hi"))
        for user, status in (("", 401), ("bob", 403)):
            headers = {"authorization": user}
            assert (await client.post("/api/chat", json=body, headers=headers)).status_code == status
            for query in ("threadId=r", "offset=-1&runId=id1@r"):
                assert (await client.get(f"/api/chat?{query}", headers=headers)).status_code == status
        ann = {"authorization": "ann"}
        assert (await client.post("/api/chat", json=body, headers=ann)).status_code == 200
        assert (await client.get("/api/chat/r/messages", headers=ann)).json()[0]["metadata"] == {"user": "Ann"}


async def test_other_sites_may_send_what_clients_send(tmp_path: Path) -> None:
    """A listed page's preflight allows the run's headers."""
    async with served(counted(tmp_path, Echo, origins=["https://friend.example"])) as client:
        headers = {
            "origin": "https://friend.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,last-event-id,x-run-id",
        }
        assert (await client.options("/api/chat", headers=headers)).status_code == 200


async def test_the_tools_of_the_client_are_told_to_the_model(tmp_path: Path) -> None:
    """By name, with what they are for and the schema of their input."""
    led = led_room()
    async with served(counted(tmp_path, led)) as client:
        lead(led, "Hi", None)
        schema = {"type": "object", "properties": {"who": {"type": "string"}}}
        offered = [{"name": "where", "description": "Where somebody is", "parameters": schema}]
        await post(client, run_input(message("m1", "Hi"), tools=offered))
        (told_tool,) = led.contexts[0].tools
        assert (told_tool.name, told_tool.description, dict(told_tool.parameters)) == (
            "where",
            "Where somebody is",
            schema,
        )


async def test_messages_are_seen_by_all(tmp_path: Path) -> None:
    """By a plain socket in the same room, with the same ids."""
    app = counted(tmp_path, Echo)
    async with served(app) as client, room(str(client.base_url).removeprefix("http://")) as socket:
        await post(client, run_input(message("m1", "Hi")))
        frame = await socket.next("complete")
        assert frame["content"] == "You said: Hi"
        assert await roles(client) == [("m1", "user"), (frame["messageId"], "assistant")]


async def _is(holds: bool) -> bool:
    return holds


async def _has_messages(client: httpx2.AsyncClient, count: int) -> bool:
    return len(await roles(client)) == count


async def _hydrates(client: httpx2.AsyncClient, text: str) -> bool:
    return text in (await client.get("/api/chat?threadId=r")).text
