"""What a room tells its `useAgentChat` clients, frame by frame."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.chat.cloudflare_clients import RESPONSE, Chat, texts, user
from tests.chat.rooms import Echo, lead, led_room
from tests.running import HURRIED, hibernated, running, until

from perdure import ChatRoom, TurnContext, tool
from perdure.chat.room import REQUEST_BODY_BYTES_MAX
from perdure.objects.connections import Connection
from perdure.wire.cloudflare_chat import Answer
from perdure.wire.ui_chunks import Chunk, ToolInputAvailable

pytestmark = pytest.mark.anyio

MESSAGES, RESUMING, NONE, PENDING = (
    "cf_agent_chat_messages",
    "cf_agent_stream_resuming",
    "cf_agent_stream_resume_none",
    "cf_agent_stream_pending",
)


async def test_a_turn_frame_by_frame(tmp_path: Path) -> None:
    """The others get the question, all get the chunks under the request's id, the end, and the messages."""
    async with running(tmp_path, Echo) as runtime:
        asking, watching = Chat(runtime, Echo), Chat(runtime, Echo)
        asking.post("R", "Hi")
        assert await asking.end("R") == ("completed", "")
        await watching.until(MESSAGES, 2)
        await asking.until(MESSAGES, 2)
        kinds = [frame["type"] for frame in watching.frames[2:]]
        assert kinds[0] == kinds[-1] == MESSAGES
        assert set(kinds[1:-1]) == {RESPONSE}
        assert [texts(frame) for frame in watching.of(MESSAGES)] == [["Hi"], ["Hi", "You said: Hi"]]
        types = [chunk["type"] for chunk in asking.chunks("R")]
        assert types[:3] == ["start", "start-step", "text-start"]
        assert types[-2:] == ["finish-step", "finish"]
        assert asking.chunks("R") == watching.chunks("R")
        assert [frame["seq"] for frame in asking.of(RESPONSE)[:-1]] == list(range(len(types)))
        assert asking.of(RESPONSE)[-1]["messageIds"] == ["Hi"]


async def test_who_is_told_of_a_question(tmp_path: Path) -> None:
    """Its sender shows it already, and gets the messages when all is said. The first time it gets them at once,
    since what it was told on its arrival may have crossed with it."""
    async with running(tmp_path, Echo) as runtime:
        asking = Chat(runtime, Echo)
        for number, text in enumerate(("one", "two"), start=1):
            asking.post(f"R{number}", text)
            await asking.until(MESSAGES, number + 1)
        assert [texts(frame) for frame in asking.of(MESSAGES)] == [
            ["one"],
            ["one", "You said: one"],
            ["one", "You said: one", "two", "You said: two"],
        ]


async def test_a_chunk_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clients there are."""
    encoded = 0
    chunk = Answer.chunk

    def counting(answer: Answer, data: bytes, seq: int) -> bytes:
        nonlocal encoded
        encoded += 1
        return chunk(answer, data, seq)

    monkeypatch.setattr(Answer, "chunk", counting)
    async with running(tmp_path, Echo) as runtime:
        clients = [Chat(runtime, Echo) for _client in range(20)]
        clients[0].post("R", "Hi")
        for client in clients:
            await client.end("R")
        assert {len(client.chunks("R")) for client in clients} == {encoded}
        frames = [[frame for frame in client.client.frames if isinstance(frame, str)] for client in clients]
        assert encoded > 3
        assert all(frames)


async def test_others_turns_have_an_id_of_the_room(tmp_path: Path) -> None:
    """An answer that no such client asked for."""
    async with running(tmp_path, Echo) as runtime:
        chat = Chat(runtime, Echo)
        submitted = await runtime.get(Echo, "r").submit("Hi")
        assert await chat.end(submitted.answer_id) == ("completed", "")
        assert chat.text(submitted.answer_id) == "You said: Hi"


async def test_the_handshake(tmp_path: Path) -> None:
    """Offered on arrival and when it asks; left out until it takes the offer; then all of it, then live."""
    room = led_room()
    async with running(tmp_path, room) as runtime:
        asking = Chat(runtime, room)
        asking.post("R", "Hi")
        lead(room, "Hi", "one ")
        await until(lambda: asking.text("R") == "one ")
        late = Chat(runtime, room)
        assert await late.until(RESUMING) == [{"type": RESUMING, "id": "R"}]
        late.send("cf_agent_stream_resume_request", probeId="P")
        assert (await late.until(RESUMING, 2))[1] == {"type": RESUMING, "id": "R", "probeId": "P"}
        lead(room, "Hi", "two ")
        await until(lambda: asking.text("R") == "one two ")
        assert late.of(RESPONSE) == []
        late.send("cf_agent_stream_resume_ack", id="R")
        await until(lambda: late.of(RESPONSE)[-1:] and late.of(RESPONSE)[-1].get("replayComplete"))
        assert late.text("R", replay=True) == "one two "
        assert late.chunks("R", replay=True)[0] == asking.chunks("R")[0]
        lead(room, "Hi", "three", None)
        assert await late.end("R") == ("completed", "")
        assert late.text("R") == "three"
        late.send("cf_agent_stream_resume_request", probeId="Q")
        assert (await late.until(NONE))[0] == {"type": NONE, "reason": "idle", "probeId": "Q"}


async def test_an_offer_taken_too_late(tmp_path: Path) -> None:
    """The answer has ended: all of it, and its end. An id that the room never offered just ends."""
    room = led_room()
    async with running(tmp_path, room) as runtime:
        asking = Chat(runtime, room)
        asking.post("R", "Hi")
        lead(room, "Hi", "one ")
        await until(lambda: asking.text("R") == "one ")
        late = Chat(runtime, room)
        await late.until(RESUMING)
        lead(room, "Hi", "two", None)
        await asking.end("R")
        assert late.ends() == []
        late.send("cf_agent_stream_resume_ack", id="R")
        assert await late.end("R") == ("completed", "")
        assert late.text("R", replay=True) == "one two"
        late.send("cf_agent_stream_resume_ack", id="never")
        assert await late.end("never") == ("completed", "")


async def test_a_question_that_waits(tmp_path: Path) -> None:
    """Its client is told to wait, then offered the answer; one who asks when all is said is told that, too."""
    room = led_room()
    async with running(tmp_path, room) as runtime:
        first, second = Chat(runtime, room), Chat(runtime, room)
        first.post("R1", "one")
        second.post("R2", "two")
        lead(room, "one", "1", None)
        assert await first.end("R1") == ("completed", "")
        lead(room, "two", "2", None)
        assert await second.end("R2") == ("completed", "")
        assert (first.text("R2"), second.text("R1")) == ("2", "1")
        await until(lambda: texts(first.of(MESSAGES)[-1]) == ["one", "1", "two", "2"])
        assert [texts(frame) for frame in second.of(MESSAGES)][:2] == [["one"], ["one", "two"]]


async def test_a_cancelled_request(tmp_path: Path) -> None:
    """The running one ends, and what was said stays; one that waits never begins; other ids stop nothing."""
    room = led_room()
    async with running(tmp_path, room) as runtime:
        chat = Chat(runtime, room)
        chat.post("R1", "one")
        chat.post("R2", "two")
        lead(room, "one", "said")
        await until(lambda: chat.text("R1") == "said")
        chat.send("cf_agent_chat_request_cancel", id="R3")
        chat.send("cf_agent_chat_request_cancel", id="R2")
        assert await chat.end("R2") == ("aborted", "")
        chat.send("cf_agent_chat_request_cancel", id="R1")
        assert await chat.end("R1") == ("aborted", "")
        await chat.until(MESSAGES)
        assert [message.text for message in await runtime.get(room, "r").messages()] == ["one", "said", "two"]
        assert len(room.contexts) == 1


async def test_a_request_that_comes_twice(tmp_path: Path) -> None:
    """While the answer is made, and after it: said once, and told under both ids."""
    room = led_room()
    async with running(tmp_path, room) as runtime:
        chat = Chat(runtime, room)
        chat.post("R1", "Hi")
        lead(room, "Hi", "one ")
        await until(lambda: chat.text("R1") == "one ")
        other = Chat(runtime, room)
        await other.until(RESUMING)
        other.post("R2", "Hi")
        await until(lambda: other.text("R2") == "one ")
        lead(room, "Hi", "two", None)
        assert await other.end("R2") == ("completed", "")
        assert (other.text("R2"), chat.text("R1")) == ("one two", "one two")
        other.post("R3", "Hi")
        assert await other.end("R3") == ("completed", "")
        assert other.text("R3") == "one two"
        assert len(room.contexts) == 1


class Dropping(Echo):
    """Takes nothing while it answers."""

    policy = "drop"


@pytest.mark.parametrize("policy", ["drop", "latest", "merge"])
async def test_requests_that_overlap(tmp_path: Path, policy: str) -> None:
    """Each gets an end: what is dropped or skipped, what is interrupted, what is answered together."""
    room = led_room()
    room.policy = policy  # type: ignore[assignment]
    async with running(tmp_path, room) as runtime:
        chat = Chat(runtime, room)
        chat.post("R1", "one")
        lead(room, "one", "1")
        await until(lambda: chat.text("R1") == "1")
        chat.post("R2", "two")
        if policy == "drop":
            assert await chat.end("R2") == ("skipped", "")
            assert texts(chat.of(MESSAGES)[-1]) == ["one"]
            return
        chat.post("R3", "three")
        if policy == "latest":
            assert await chat.end("R1") == ("aborted", "")
            assert await chat.end("R2") == ("skipped", "")
            lead(room, "three", "3", None)
        else:
            lead(room, "one", None)
            assert await chat.end("R1") == ("completed", "")
            lead(room, "two\n\nthree", "23", None)
            assert await chat.end("R2") == ("skipped", "")
        assert await chat.end("R3") == ("completed", "")


async def test_a_question_that_is_removed(tmp_path: Path) -> None:
    """Somebody else empties the room: the request that waits ends, and so does the one that is answered."""
    room = led_room()
    async with running(tmp_path, room) as runtime:
        first, second, other = (Chat(runtime, room) for _client in range(3))
        first.post("R1", "one")
        lead(room, "one", "1")
        await until(lambda: first.text("R1") == "1")
        second.post("R2", "two")
        await until(lambda: texts(other.of(MESSAGES)[-1]) == ["one", "two"])
        other.send("cf_agent_chat_clear")
        assert await first.end("R1") == ("aborted", "")
        assert await second.end("R2") == ("skipped", "")
        assert first.of("cf_agent_chat_clear") == [{"type": "cf_agent_chat_clear"}]
        assert other.of("cf_agent_chat_clear") == []
        assert await runtime.get(room, "r").messages() == []


async def test_refused_requests(tmp_path: Path) -> None:
    """The sender is told why, under the request's id, and nothing is said."""
    async with running(tmp_path, Echo) as runtime:
        chat = Chat(runtime, Echo)
        chat.post("R1", {**user("Hi"), "parts": [{"type": "text", "text": " "}]})
        assert await chat.end("R1") == ("error", "a message must not be empty")
        chat.post("R2")
        assert await chat.end("R2") == ("error", "the request holds no message to answer")
        chat.send("cf_agent_use_chat_request", id="R3", init={"method": "POST", "body": "[]"})
        assert await chat.end("R3") == ("error", "the request's body is not a JSON object")
        chat.post("R4", "Hi", trigger="sing")
        outcome, error = await chat.end("R4")
        assert outcome == "error"
        assert "`trigger`" in error
        assert await runtime.get(Echo, "r").messages() == []


async def test_frames_larger_than_messages(tmp_path: Path) -> None:
    """``chat_frame_bytes_max``, on both sides: a long conversation in a request is no long message."""
    limits = replace(HURRIED, message_bytes_max=1_000, chat_frame_bytes_max=5_000)
    async with running(tmp_path, Echo, limits=limits) as runtime:
        chat = Chat(runtime, Echo)
        chat.post("R1", user("x" * 900), user("y" * 900), "Hi")
        assert await chat.end("R1") == ("completed", "")
        assert chat.text("R1") == "You said: Hi"
        with pytest.raises(Exception, match="chat_frame_bytes_max allows 5,000"):
            chat.post("R2", "z" * 5_000)


class Styled(ChatRoom):
    """Answers as the page wishes."""

    async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        yield str(self.request_body(turn.turn_id))


async def test_what_a_page_sends_beside_its_messages(tmp_path: Path) -> None:
    """It is there for the turn that answers the request. ``request_body_bytes_max``, on both sides."""
    async with running(tmp_path, Styled) as runtime:
        chat = Chat(runtime, Styled)
        chat.post("R1", "one", style="short", clientTools=[])
        assert await chat.end("R1") == ("completed", "")
        chat.post("R2", "two")
        await chat.end("R2")
        chat.post("R3", "three", style="x" * (REQUEST_BODY_BYTES_MAX - len('{"style":""}')))
        assert await chat.end("R3") == ("completed", "")
        chat.post("R4", "four", style="x" * REQUEST_BODY_BYTES_MAX)
        outcome, error = await chat.end("R4")
        assert (chat.text("R1"), chat.text("R2")) == ("{'style': 'short'}", "{}")
        assert outcome == "error"
        assert "request_body_bytes_max allows 65,536" in error
        assert [message.id for message in await runtime.get(Styled, "r").messages() if message.role == "user"] == [
            "one",
            "two",
            "three",
        ]


async def test_a_room_without_a_model(tmp_path: Path) -> None:
    """People only: the request ends at once, and the others have the message."""

    class Lounge(ChatRoom):
        """Nobody answers."""

    async with running(tmp_path, Lounge) as runtime:
        chat, other = Chat(runtime, Lounge), Chat(runtime, Lounge)
        chat.post("R", "Hi")
        assert await chat.end("R") == ("completed", "")
        assert texts((await other.until(MESSAGES))[0]) == ["Hi"]


async def test_users_names(tmp_path: Path) -> None:
    """An authenticated user's message bears the name."""
    async with running(tmp_path, Echo) as runtime:
        chat, other = Chat(runtime, Echo, user="Ada"), Chat(runtime, Echo)
        chat.post("R", "Hi")
        [frame, *_rest] = await other.until(MESSAGES)
        assert frame["messages"][0]["metadata"] == {"user": "Ada"}


async def test_clients_stay_while_the_room_hibernates(tmp_path: Path) -> None:
    """The next answer, whoever asks for it, is shown to them."""
    async with running(tmp_path, Echo) as runtime:
        chat = Chat(runtime, Echo)
        chat.post("R", "one")
        await chat.end("R")
        await hibernated(runtime, Echo, "r")
        submitted = await runtime.get(Echo, "r").submit("two")
        assert await chat.end(submitted.answer_id) == ("completed", "")
        assert chat.text(submitted.answer_id) == "You said: two"


class Asking(ChatRoom):
    """Asks where the client is, and says it."""

    async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        parts = [] if turn.answer is None else [part for part in turn.answer.parts if part["type"] == "tool-where"]
        if parts:
            yield f"You are in {parts[0]['output']}"
        else:
            yield "Where? "
            yield ToolInputAvailable("call-1", "where", {})

    @tool(client=True)
    async def where(self) -> str:
        """Where the client is."""
        raise NotImplementedError

    def may_answer(self, user: str | None, tool: str) -> bool:
        return user != "Eve"

    async def on_message(self, connection: Connection, data: str | bytes) -> None:
        connection.send(f'{{"type":"heard","data":{data!r}}}'.replace("'", '"'))


async def waiting(chat: Chat) -> str:
    """Ask; the id of the answer that waits."""
    chat.post("R", "Hi")
    await chat.end("R")
    answer_id: str = chat.chunks("R")[0]["messageId"]
    return answer_id


async def test_a_result_with_the_next_leg(tmp_path: Path) -> None:
    """All are told of the result; all are offered the leg, from the answer's start, under an id of its own."""
    async with running(tmp_path, Asking) as runtime:
        chat, other = Chat(runtime, Asking), Chat(runtime, Asking)
        leg = f"{await waiting(chat)}.2"
        chat.send("cf_agent_tool_result", toolCallId="call-1", toolName="where", output="Rome", autoContinue=True)
        for client in (chat, other):
            updated = (await client.until("cf_agent_message_updated"))[0]["message"]
            assert [part.get("output") for part in updated["parts"] if part["type"] == "tool-where"] == ["Rome"]
            await until(lambda client=client: client.of(RESUMING))  # type: ignore[misc]
            assert client.of(RESUMING)[-1]["id"] == leg
            client.send("cf_agent_stream_resume_ack", id=leg)
            assert await client.end(leg) == ("completed", "")
            said = client.text(leg, replay=True) + client.text(leg)
            assert said == "Where? You are in Rome"
        chat.send("cf_agent_tool_result", toolCallId="call-1", toolName="where", output="Oslo", autoContinue=True)
        [message] = [item for item in await runtime.get(Asking, "r").messages() if item.role == "assistant"]
        assert message.text == "Where? You are in Rome"


async def test_a_result_in_a_request(tmp_path: Path) -> None:
    """The answer came back with it in a list of messages: its sender gets the leg alone, under the request's id."""
    async with running(tmp_path, Asking) as runtime:
        chat = Chat(runtime, Asking)
        await waiting(chat)
        chat.send("cf_agent_tool_result", toolCallId="call-1", toolName="where", output="Rome", autoContinue=False)
        [updated] = await chat.until("cf_agent_message_updated")
        assert chat.of(RESUMING) == []
        chat.post("R2", "Hi", updated["message"])
        assert await chat.end("R2") == ("completed", "")
        assert chat.text("R2") == "You are in Rome"


async def test_a_result_that_may_not_be_given(tmp_path: Path) -> None:
    """Its sender, who shows it already, is told the message as it is."""
    async with running(tmp_path, Asking) as runtime:
        chat = Chat(runtime, Asking, user="Eve")
        await waiting(chat)
        chat.send("cf_agent_tool_result", toolCallId="call-1", toolName="where", output="Rome", autoContinue=True)
        [updated] = await chat.until("cf_agent_message_updated")
        [part] = [part for part in updated["message"]["parts"] if part["type"] == "tool-where"]
        assert part["state"] == "input-available"


async def test_other_frames_are_the_application_s(tmp_path: Path) -> None:
    """They reach `on_message`."""
    async with running(tmp_path, Asking) as runtime:
        chat = Chat(runtime, Asking)
        chat.client.say("hello")
        assert await chat.until("heard") == [{"type": "heard", "data": "hello"}]
