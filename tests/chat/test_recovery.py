"""A turn that a crash cut off is continued, retried or ended, without anyone asking (P5)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from tests.chat.rooms import TEN_WORDS, Echo, Hanging, lead, led_room, statuses, texts
from tests.objects.clients import Client
from tests.running import eventually, killed, reset, running, until

from perdure import ChatRoom, InterruptedTurn
from perdure.chat.turns import Recovery
from perdure.objects.cursor import StreamCursor
from perdure.objects.runtime import Runtime
from perdure.wire.fold import fold
from perdure.wire.ui_chunks import decode_chunk

pytestmark = pytest.mark.anyio


async def _chunks(runtime: Runtime, room: type[ChatRoom], answer_id: str) -> list[bytes]:
    entries: list[bytes] = []
    async with StreamCursor(runtime, runtime.object_id(room, "r"), f"turns/{answer_id}") as cursor:
        while not (batch := await cursor.next()).closed:
            entries += batch.entries
        return entries + batch.entries


async def _settled(runtime: Runtime, room: type[ChatRoom], count: int = 1) -> None:
    async def ended() -> bool:
        found = await statuses(runtime, room)
        return len(found) == count and all(status != "streaming" for status, _ in found)

    await eventually(ended)


async def _killed_mid_answer(folder: Path, room: type[ChatRoom], said: str) -> tuple[Path, str, list[str | bytes]]:
    """Ask, wait until the client has seen ``said``, kill: the folder, the answer's id, the frames seen."""
    async with running(folder / "first", room) as runtime:
        client = Client.of(runtime, room, "r", delta="1")
        answer_id = (await runtime.get(room, "r").submit("Hi", id="m1")).answer_id
        await until(lambda: _text(client) == said)
        seen = list(client.frames)
        return await killed(runtime, folder / "killed"), answer_id, seen


def _text(client: Client) -> str:
    return "".join(frame["delta"] for frame in client.json if frame["type"] == "delta")


FIVE_WORDS = "word1 word2 word3 word4 word5"


async def test_an_interrupted_answer_goes_on_by_itself(tmp_path: Path) -> None:
    """The room wakes at the start; what was seen stays, the rest follows, in one stream of legal chunks."""
    folder, answer_id, _ = await _killed_mid_answer(tmp_path, Hanging, FIVE_WORDS)
    async with running(folder, Hanging) as runtime:
        await until(lambda: runtime._slots)  # nobody has asked for the room
        await _settled(runtime, Hanging)
        assert await texts(runtime, Hanging) == [("user", "Hi"), ("assistant", TEN_WORDS)]
        assert await statuses(runtime, Hanging) == [("complete", None)]
        chunks = [decode_chunk(entry) for entry in await _chunks(runtime, Hanging, answer_id)]
        folded = fold(chunks)
        assert (folded.text, folded.status) == (TEN_WORDS, "finished")


async def test_a_client_resumes_over_the_crash(tmp_path: Path) -> None:
    """With its offset it gets exactly what it has not seen."""
    folder, answer_id, seen = await _killed_mid_answer(tmp_path, Hanging, FIVE_WORDS)
    first = Client()
    first.frames = seen
    offset = first.json[-1]["offset"]
    async with running(folder, Hanging) as runtime:
        second = Client.of(runtime, Hanging, "r", delta="1", offset=offset)
        await until(lambda: second.frames and second.json[-1]["type"] == "complete")
        assert second.json[0] == {"type": "resume", "offset": offset}
        assert _text(first) + _text(second) == TEN_WORDS
        assert second.json[-1]["content"] == TEN_WORDS
        assert second.json[-1]["messageId"] == answer_id
        assert {frame["type"] for frame in second.json} == {"resume", "delta", "complete"}


async def test_a_finished_answer_is_not_run_again(tmp_path: Path) -> None:
    """A kill after the end changes nothing."""
    async with running(tmp_path / "a", Echo) as runtime:
        await runtime.get(Echo, "r").submit("Hi")
        await _settled(runtime, Echo)
        folder = await killed(runtime, tmp_path / "b")
    async with running(folder, Echo) as runtime:
        assert runtime._slots == {}
        assert await texts(runtime, Echo) == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_a_turn_is_continued_three_times_at_most(tmp_path: Path) -> None:
    """Then it ends with an error that is stored and is the last chunk of its stream."""

    class Doomed(ChatRoom):
        model = "scripted:count=10&hang_at=5"

    folder, answer_id, _ = await _killed_mid_answer(tmp_path, Doomed, FIVE_WORDS)
    crashes: list[int] = []

    class Counted(Doomed):
        async def on_interrupted(self, turn: InterruptedTurn) -> Recovery:
            crashes.append(turn.crashes)
            return await super().on_interrupted(turn)

    Counted.__name__ = "Doomed"
    for number in range(4):
        async with running(folder, Counted) as runtime:
            await until(lambda: len(crashes) > number)  # noqa: B023 - asked at once
            if number < 3:
                assert await statuses(runtime, Counted) == [("streaming", None)]
                folder = await killed(runtime, tmp_path / f"killed{number}")
            else:
                await _settled(runtime, Counted)
                error = "the answer was interrupted and could not be continued"
                assert await statuses(runtime, Counted) == [("failed", error)]
                assert (await texts(runtime, Counted))[1] == ("assistant", FIVE_WORDS)
                chunks = await _chunks(runtime, Counted, answer_id)
                assert chunks[-1] == b'{"type":"error","errorText":"%s"}' % error.encode()
    assert crashes == [1, 2, 3, 4]


async def test_planned_stops_wear_no_answer_out(tmp_path: Path) -> None:
    """However often the server is restarted, the answer goes on; only crashes count."""

    class Deployed(ChatRoom):
        model = "scripted:count=10&hang_at=5&attempts=6"
        told: ClassVar[list[InterruptedTurn]] = []

        async def on_interrupted(self, turn: InterruptedTurn) -> Recovery:
            self.told.append(turn)
            return await super().on_interrupted(turn)

    folder, answer_id, _ = await _killed_mid_answer(tmp_path, Deployed, FIVE_WORDS)
    for number in range(5):
        async with running(folder, Deployed) as runtime:
            await until(lambda: len(Deployed.told) > number)  # noqa: B023 - asked at once
            assert await statuses(runtime, Deployed) == [("streaming", None)]
    async with running(folder, Deployed) as runtime:
        await _settled(runtime, Deployed)
        assert await statuses(runtime, Deployed) == [("complete", None)]
    assert Deployed.told == [InterruptedTurn(answer_id, FIVE_WORDS, 1)] * 6


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ("fail", [("failed", "the answer was interrupted and could not be continued")]),
        ("retry", [("aborted", None), ("complete", None)]),
        ("continue", [("complete", None)]),
    ],
)
async def test_the_room_decides(tmp_path: Path, choice: Recovery, found: list[tuple[str, str | None]]) -> None:
    """``on_interrupted`` is told what was said, and its choice is carried out."""
    told: list[InterruptedTurn] = []

    class Deciding(Hanging):
        async def on_interrupted(self, turn: InterruptedTurn) -> Recovery:
            told.append(turn)
            return choice

    class Retrying(Deciding):
        # A new answer begins with attempt 1 again, at which the other script hangs.
        model = "scripted:count=10"

    folder, answer_id, _ = await _killed_mid_answer(tmp_path, Deciding, FIVE_WORDS)
    after = Retrying if choice == "retry" else Deciding
    after.__name__ = "Deciding"
    async with running(folder, after) as runtime:
        await _settled(runtime, after, len(found))
        assert told == [InterruptedTurn(answer_id, FIVE_WORDS, 1)]
        assert await statuses(runtime, after) == found


async def test_waiting_messages_run_after_a_restart(tmp_path: Path) -> None:
    """In their order, after the answer that was cut off."""
    room = led_room()
    async with running(tmp_path / "a", room) as runtime:
        stub = runtime.get(room, "r")
        for text in ("one", "two", "three"):
            await stub.submit(text)
        folder = await killed(runtime, tmp_path / "b")
    room = led_room()
    for text in ("one", "two", "three"):
        lead(room, text, f"re: {text}", None)
    async with running(folder, room) as runtime:
        await _settled(runtime, room, 3)
        assert sorted(await texts(runtime, room)) == [
            ("assistant", "re: one"),
            ("assistant", "re: three"),
            ("assistant", "re: two"),
            ("user", "one"),
            ("user", "three"),
            ("user", "two"),
        ]
        assert [context.text for context in room.contexts] == ["one", "two", "three"]


async def test_a_planned_stop_parks_a_turn_and_the_next_start_continues_it(tmp_path: Path) -> None:
    """Stopping the server is no stop of the answer."""
    room = led_room()
    lead(room, "Hi", "Hello, ")
    async with running(tmp_path, room) as runtime:
        client = Client.of(runtime, room, "r", delta="1")
        await runtime.get(room, "r").submit("Hi")
        await until(lambda: _text(client) == "Hello, ")
    assert client.closed_with == (1012, "the server is restarting; reconnect and resume")
    room = led_room()
    lead(room, "Hi", "World!", None)
    async with running(tmp_path, room) as runtime:
        await _settled(runtime, room)
        assert await texts(runtime, room) == [("user", "Hi"), ("assistant", "Hello, World!")]
        assert (room.contexts[0].partial, room.contexts[0].attempt) == ("Hello, ", 2)


async def test_a_reset_mid_answer_continues_it(tmp_path: Path) -> None:
    """An instance that is discarded is started again by itself; clients resume."""
    folder = tmp_path
    async with running(folder, Hanging) as runtime:
        client = Client.of(runtime, Hanging, "r", delta="1")
        await runtime.get(Hanging, "r").submit("Hi")
        await until(lambda: _text(client) == FIVE_WORDS)
        reset(runtime, Hanging, "r")
        assert client.closed_with == (1012, "the room was reset; reconnect and resume")
        client.leave()
        again = Client.of(runtime, Hanging, "r", delta="1", offset=client.json[-1]["offset"])
        await until(lambda: again.frames and again.json[-1]["type"] == "complete")
        assert _text(client) + _text(again) == TEN_WORDS
