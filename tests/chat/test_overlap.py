"""What a message does that comes while an answer is being made: the room's policy, or the call's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.chat.rooms import Led, lead, led_room, statuses, texts
from tests.chat.tool_rooms import answer, chunks, in_room, newest
from tests.running import eventually, killed, running, until

from perdure import BeforeTurn, ChatRoom, InterruptedTurn, TurnContext
from perdure.chat.room import Policy
from perdure.chat.submitted import Submitted
from perdure.chat.turns import Recovery
from perdure.errors import Busy
from perdure.objects.runtime import Runtime
from perdure.wire.messages import user_message
from perdure.wire.ui_chunks import Abort, Start

pytestmark = pytest.mark.anyio


def led(policy: Policy = "queue", **attributes: Any) -> type[Led]:
    """A class of its own, led by the test."""
    return type("Led", (Led,), {"script": {}, "contexts": [], "policy": policy, **attributes})


async def say(runtime: Runtime, room: type[ChatRoom], text: str, policy: Policy | None = None) -> Submitted:
    """Say something."""
    submitted: Submitted = await runtime.get(room, "r").submit(text, policy=policy)
    return submitted


async def all_settled(runtime: Runtime, room: type[ChatRoom], count: int) -> list[tuple[str, str | None]]:
    """The statuses of so many answers, when none is being made."""

    async def ended() -> bool:
        found = await statuses(runtime, room)
        return len(found) == count and all(status != "streaming" for status, _ in found)

    await eventually(ended)
    return await statuses(runtime, room)


async def test_queue_answers_one_after_the_other(tmp_path: Path) -> None:
    """Each message gets an answer of its own."""
    room = led("queue")
    async with running(tmp_path, room) as runtime:
        first, second = await say(runtime, room, "a"), await say(runtime, room, "b")
        assert first.answer_id != second.answer_id
        lead(room, "b", "B", None)
        lead(room, "a", "A", None)
        await all_settled(runtime, room, 2)
        assert [turn.text for turn in room.contexts] == ["a", "b"]


async def test_latest_ends_the_running_answer(tmp_path: Path) -> None:
    """What was said stays; messages that waited get no answer, and their readers an end."""
    room = led("latest")
    async with running(tmp_path, room) as runtime:
        await say(runtime, room, "a")
        lead(room, "a", "half")
        await until(lambda: room.contexts)
        second = await say(runtime, room, "b", "queue")
        await say(runtime, room, "c")
        lead(room, "c", "C", None)
        assert await all_settled(runtime, room, 2) == [("aborted", None), ("complete", None)]
        assert [turn.text for turn in room.contexts] == ["a", "c"]
        assert second.stream is not None
        assert await chunks(runtime, room, second.stream) == [Start(message_id=second.answer_id), Abort()]


async def test_merge_answers_all_that_waited_together(tmp_path: Path) -> None:
    """They have one answer, which sees all of them."""
    room = led("merge")
    async with running(tmp_path, room) as runtime:
        await say(runtime, room, "a")
        waiting = [await say(runtime, room, text) for text in ("b", "c", "d")]
        assert len({submitted.answer_id for submitted in waiting}) == 1
        lead(room, "a", "A", None)
        lead(room, "b\n\nc\n\nd", "BCD", None)
        await all_settled(runtime, room, 2)
        assert await texts(runtime, room) == [
            ("user", "a"),
            ("assistant", "A"),
            ("user", "b"),
            ("user", "c"),
            ("user", "d"),
            ("assistant", "BCD"),
        ]
        assert [message.text for message in room.contexts[1].messages] == ["a", "A", "b", "c", "d"]


async def test_merged_messages_stay_together_over_a_crash(tmp_path: Path) -> None:
    """They wait for one answer, and get it."""
    room = led("merge")
    async with running(tmp_path / "a", room) as runtime:
        await say(runtime, room, "a")
        await say(runtime, room, "b")
        submitted = await say(runtime, room, "c")
        folder = await killed(runtime, tmp_path / "b")
    room = led("merge")
    lead(room, "a", "A", None)
    lead(room, "b\n\nc", "BC", None)
    async with running(folder, room) as runtime:
        await all_settled(runtime, room, 2)
        found = await newest(runtime, room)
        assert found is not None
        assert (found[1].id, found[1].text) == (submitted.answer_id, "BC")


async def test_drop_refuses_while_an_answer_is_made(tmp_path: Path) -> None:
    """Nothing of the message is stored; afterwards it is taken."""
    room = led("drop")
    async with running(tmp_path, room) as runtime:
        await say(runtime, room, "a")
        with pytest.raises(Busy, match="The room is answering"):
            await say(runtime, room, "b")
        assert len(await texts(runtime, room)) == 2
        lead(room, "a", "A", None)
        await all_settled(runtime, room, 1)
        lead(room, "b", "B", None)
        await say(runtime, room, "b")
        await all_settled(runtime, room, 2)


async def test_a_call_has_a_policy_of_its_own(tmp_path: Path) -> None:
    """It goes before the room's."""
    room = led("queue")
    async with running(tmp_path, room) as runtime:
        await say(runtime, room, "a")
        with pytest.raises(Busy):
            await say(runtime, room, "b", "drop")
        await say(runtime, room, "c", "latest")
        lead(room, "c", "C", None)
        assert await all_settled(runtime, room, 2) == [("aborted", None), ("complete", None)]


async def test_debounce_waits_for_the_last_message(tmp_path: Path) -> None:
    """The turn begins ``debounce_ms`` after it, and answers all of them."""
    room = led("debounce", debounce_ms=400)
    lead(room, "a\n\nb\n\nc", "ABC", None)
    async with running(tmp_path, room) as runtime:
        loop = asyncio.get_running_loop()
        for text in "abc":
            said_at = loop.time()
            await say(runtime, room, text)
            await asyncio.sleep(0.05)
        assert room.contexts == []
        await all_settled(runtime, room, 1)
        assert loop.time() - said_at >= 0.4
        assert [turn.text for turn in room.contexts] == ["a\n\nb\n\nc"]


async def test_a_debounced_message_is_answered_after_a_crash(tmp_path: Path) -> None:
    """When its time has come; the room wakes by itself."""
    room = led("debounce", debounce_ms=60_000)
    now = [1_700_000_000_000]
    async with running(tmp_path / "a", room, clock_ms=lambda: now[0]) as runtime:
        await say(runtime, room, "a")
        folder = await killed(runtime, tmp_path / "b")
    now[0] += 60_000
    lead(room, "a", "A", None)
    async with running(folder, room, clock_ms=lambda: now[0]) as runtime:
        await until(lambda: runtime._slots)
        await all_settled(runtime, room, 1)


# --- before_turn


async def test_the_room_may_interrupt_before_a_turn(tmp_path: Path) -> None:
    """``before_turn`` sees the message and what runs, and the turn begins after it."""
    seen: list[tuple[str, str | None]] = []

    class Last(Led):
        async def before_turn(self, event: BeforeTurn) -> None:
            seen.append((event.message.text, event.running))
            await asyncio.sleep(0.2)
            if event.running is not None:
                assert event.interrupt("superseded")

    room: type[Led] = type("Last", (Last,), {"script": {}, "contexts": []})
    async with running(tmp_path, room) as runtime:
        first = await say(runtime, room, "a")
        assert room.contexts == []
        await until(lambda: room.contexts)
        await say(runtime, room, "b")
        lead(room, "b", "B", None)
        assert await all_settled(runtime, room, 2) == [("aborted", None), ("complete", None)]
        assert seen == [("a", None), ("b", first.answer_id)]


async def test_a_message_that_before_turn_refuses_is_not_answered(tmp_path: Path) -> None:
    """It stays; the readers of its answer get an end, and the next one is answered."""

    class Choosy(Led):
        async def before_turn(self, event: BeforeTurn) -> None:
            if event.message.text == "bad":
                raise ValueError("no")

    room: type[Led] = type("Choosy", (Choosy,), {"script": {}, "contexts": []})
    async with running(tmp_path, room) as runtime:
        refused = await say(runtime, room, "bad")
        assert refused.stream is not None
        assert await chunks(runtime, room, refused.stream) == [Start(message_id=refused.answer_id), Abort()]
        lead(room, "good", "G", None)
        await say(runtime, room, "good")
        await all_settled(runtime, room, 1)
        assert await texts(runtime, room) == [("user", "bad"), ("user", "good"), ("assistant", "G")]


async def test_before_turn_is_asked_again_after_a_crash(tmp_path: Path) -> None:
    """A message that it was asked about is not answered without its word."""
    asked: list[str] = []

    class Slow(Led):
        async def before_turn(self, event: BeforeTurn) -> None:
            asked.append(event.message.text)
            if len(asked) == 1:
                await asyncio.Event().wait()

    room: type[Led] = type("Slow", (Slow,), {"script": {}, "contexts": []})
    async with running(tmp_path / "a", room) as runtime:
        await say(runtime, room, "a")
        await until(lambda: asked)
        folder = await killed(runtime, tmp_path / "b")
    lead(room, "a", "A", None)
    async with running(folder, room) as runtime:
        await all_settled(runtime, room, 1)
        assert asked == ["a", "a"]


# --- a model that falls silent


def silent(times: int, **attributes: Any) -> type[ChatRoom]:
    """A room whose model says two words, then nothing, so often; then the rest."""

    class Silent(ChatRoom):
        model = None
        stall_timeout_ms = 250
        attempts: int = 0

        async def respond(self, turn: TurnContext) -> Any:
            type(self).attempts += 1
            if not turn.partial:
                yield "one two"
            if turn.attempt <= times:
                await asyncio.Event().wait()
            yield " three"

    return type("Silent", (Silent,), attributes)


async def test_a_silent_model_is_asked_to_go_on(tmp_path: Path) -> None:
    """What it had said stays, as after a crash."""
    room = silent(2)
    async with running(tmp_path, room) as runtime:
        await say(runtime, room, "Hi")
        assert (await answer(runtime, room)).text == "one two three"
        assert room.attempts == 3  # type: ignore[attr-defined]


async def test_a_model_that_stays_silent_fails(tmp_path: Path) -> None:
    """After as many attempts as crashes would be forgiven."""
    room = silent(99)
    async with running(tmp_path, room) as runtime:
        await say(runtime, room, "Hi")
        message = await answer(runtime, room, "failed")
        assert message.text == "one two"
        assert await statuses(runtime, room) == [("failed", "the model said nothing for 0.25 s (stall_timeout_ms)")]


async def test_the_room_decides_about_a_silent_model(tmp_path: Path) -> None:
    """``on_interrupted`` may have the answer made again."""
    told: list[InterruptedTurn] = []

    async def on_interrupted(self: Any, turn: InterruptedTurn) -> Recovery:
        told.append(turn)
        return "retry" if len(told) == 1 else "fail"

    room = silent(99, on_interrupted=on_interrupted)
    async with running(tmp_path, room) as runtime:
        await say(runtime, room, "Hi")
        assert await all_settled(runtime, room, 2) == [
            ("aborted", None),
            ("failed", "the model said nothing for 0.25 s (stall_timeout_ms)"),
        ]
        assert [turn.partial for turn in told] == ["one two", "one two"]


async def test_a_model_that_speaks_now_and_then_is_not_silent(tmp_path: Path) -> None:
    """Each piece counts."""

    class Slow(ChatRoom):
        model = None
        stall_timeout_ms = 700

        async def respond(self, turn: TurnContext) -> Any:
            assert turn.attempt == 1
            for number in range(8):
                await asyncio.sleep(0.1)
                yield f"{number} "

    async with running(tmp_path, Slow) as runtime:
        await say(runtime, Slow, "Hi")
        assert (await answer(runtime, Slow)).text == "0 1 2 3 4 5 6 7 "


async def test_stop_reaches_a_turn_from_anywhere(tmp_path: Path) -> None:
    """Over the object's own call, whoever started the turn."""
    room = led_room()
    async with running(tmp_path, room) as runtime:
        await in_room(runtime, room, lambda it: it.submit_message(user_message("m1", "a")))
        lead(room, "a", "half")
        await until(lambda: room.contexts)
        assert await runtime.get(room, "r").stop()
        assert not await runtime.get(room, "r").stop()
        await all_settled(runtime, room, 1)
