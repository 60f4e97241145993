"""Edits and new answers keep what was there before as branches."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.chat.rooms import Echo, texts
from tests.chat.tool_rooms import answer, call, in_room, told, tooled
from tests.running import eventually, killed, running

from perdure import ChatMessage, ChatRoom, TurnContext
from perdure.chat.branches import BRANCHES_MAX, Alternatives
from perdure.chat.editing import REPLACED_MESSAGES_MAX
from perdure.errors import BadArguments, LimitExceeded
from perdure.objects.runtime import Runtime
from perdure.wire.messages import user_message

pytestmark = pytest.mark.anyio


class Counting(ChatRoom):
    """Numbers its answers, to tell them apart."""

    model = None

    async def respond(self, turn: TurnContext) -> Any:
        number = self.storage.get("number", 0) + 1
        self.storage.put("number", number)
        yield f"{turn.text} {number}"


async def idle(runtime: Runtime, room: type[ChatRoom]) -> None:
    """Until nothing is being answered."""

    def resting(it: Any) -> bool:
        return it.turns.running is None and not it.transcript.count_waiting()

    await eventually(lambda: in_room(runtime, room, resting))


async def say(runtime: Runtime, room: type[ChatRoom], text: str, id: str) -> None:
    """Say something and wait for the answer."""
    await runtime.get(room, "r").submit(text, id=id)
    await idle(runtime, room)


async def lines(runtime: Runtime, room: type[ChatRoom]) -> list[str]:
    """The texts of the room."""
    return [text for _, text in await texts(runtime, room)]


async def last_id(runtime: Runtime, room: type[ChatRoom]) -> str:
    """The id of the newest message."""
    return str((await runtime.get(room, "r").messages(1))[0].id)


async def test_an_old_answer_comes_back(tmp_path: Path) -> None:
    """With all that was said after it; and the new one again."""
    async with running(tmp_path, Counting) as runtime:
        stub = runtime.get(Counting, "r")
        await say(runtime, Counting, "a", "m1")
        await say(runtime, Counting, "b", "m2")
        first = (await stub.messages())[1].id
        await stub.answer_again(first)
        await idle(runtime, Counting)
        assert await lines(runtime, Counting) == ["a", "a 3"]
        second = await last_id(runtime, Counting)
        assert await in_room(runtime, Counting, lambda it: it.branches_of(second)) == Alternatives(1, 2)
        assert await stub.choose_branch(second, 0)
        assert await lines(runtime, Counting) == ["a", "a 1", "b", "b 2"]
        assert not await stub.choose_branch(first, 0)
        assert await in_room(runtime, Counting, lambda it: it.branches_of(first)) == Alternatives(0, 2)
        assert await stub.choose_branch(first, 1)
        assert await lines(runtime, Counting) == ["a", "a 3"]
        with pytest.raises(BadArguments, match=f"there is no alternative 2 of message {second}"):
            await stub.choose_branch(second, 2)
        with pytest.raises(BadArguments, match="there is no alternative 0 of message nobody"):
            await stub.choose_branch("nobody", 0)


async def test_an_edit_keeps_what_was_said_before(tmp_path: Path) -> None:
    """Under the same id: front ends keep it when a message is edited."""
    async with running(tmp_path, Counting) as runtime:
        await say(runtime, Counting, "a", "m1")
        await in_room(runtime, Counting, lambda it: it.edit(user_message("m1", "A")))
        await idle(runtime, Counting)
        assert await lines(runtime, Counting) == ["A", "A 2"]
        assert await in_room(runtime, Counting, lambda it: it.branches_of("m1")) == Alternatives(1, 2)
        await runtime.get(Counting, "r").choose_branch("m1", 0)
        assert await lines(runtime, Counting) == ["a", "a 1"]


async def test_branches_within_branches_come_back_whole(tmp_path: Path) -> None:
    """The alternatives of an answer belong to the version of the question that it answers."""
    async with running(tmp_path, Counting) as runtime:
        stub = runtime.get(Counting, "r")
        await say(runtime, Counting, "a", "m1")
        await stub.answer_again()
        await idle(runtime, Counting)
        await in_room(runtime, Counting, lambda it: it.edit(user_message("m1", "b")))
        await idle(runtime, Counting)
        newest = await last_id(runtime, Counting)
        assert await lines(runtime, Counting) == ["b", "b 3"]
        assert await in_room(runtime, Counting, lambda it: it.branches_of(newest)) == Alternatives(0, 1)
        await stub.choose_branch("m1", 0)
        newest = await last_id(runtime, Counting)
        assert await lines(runtime, Counting) == ["a", "a 2"]
        assert await in_room(runtime, Counting, lambda it: it.branches_of(newest)) == Alternatives(1, 2)
        await stub.choose_branch(newest, 0)
        assert await lines(runtime, Counting) == ["a", "a 1"]


async def test_branches_survive_a_crash(tmp_path: Path) -> None:
    """They are rows like any other."""
    async with running(tmp_path / "a", Counting) as runtime:
        await say(runtime, Counting, "a", "m1")
        await runtime.get(Counting, "r").answer_again()
        await idle(runtime, Counting)
        folder = await killed(runtime, tmp_path / "b")
    async with running(folder, Counting) as runtime:
        assert await runtime.get(Counting, "r").choose_branch(await last_id(runtime, Counting), 0)
        assert await lines(runtime, Counting) == ["a", "a 1"]


async def test_the_number_of_branches_is_limited(tmp_path: Path) -> None:
    """``branches_max`` alternatives of one place are kept: the newest."""
    async with running(tmp_path, Counting) as runtime:
        stub = runtime.get(Counting, "r")
        await say(runtime, Counting, "a", "m1")
        for _ in range(BRANCHES_MAX):
            await stub.answer_again()
            await idle(runtime, Counting)
        newest = await last_id(runtime, Counting)
        there = await in_room(runtime, Counting, lambda it: it.branches_of(newest))
        assert there == Alternatives(BRANCHES_MAX - 1, BRANCHES_MAX)
        await stub.choose_branch(newest, 0)
        assert await lines(runtime, Counting) == ["a", "a 2"]


async def test_a_waiting_answer_comes_back_as_it_waited(tmp_path: Path) -> None:
    """Its approval can still be given."""
    room = tooled([call("erase", {"path": "x"})], ["Gone."])
    async with running(tmp_path, room) as runtime:
        stub = runtime.get(room, "r")
        await stub.submit("Erase", id="m1")
        first = await answer(runtime, room, "waiting")
        await stub.answer_again()
        second = await answer(runtime, room, "waiting")
        assert second.id != first.id
        await stub.choose_branch(second.id, 0)
        assert await stub.approve(first.parts[1]["approval"]["id"])
        message = await answer(runtime, room)
        assert (message.id, told(message)[-1]) == (first.id, "Gone.")


async def test_clear_removes_everything(tmp_path: Path) -> None:
    """Messages and branches; the room can be used on."""
    async with running(tmp_path, Counting) as runtime:
        await say(runtime, Counting, "a", "m1")
        await runtime.get(Counting, "r").answer_again()
        await idle(runtime, Counting)
        await in_room(runtime, Counting, lambda it: it.clear())
        assert await lines(runtime, Counting) == []
        await say(runtime, Counting, "a", "m1")
        newest = await last_id(runtime, Counting)
        assert await in_room(runtime, Counting, lambda it: it.branches_of(newest)) == Alternatives(0, 1)


async def test_the_messages_can_be_replaced(tmp_path: Path) -> None:
    """By a client that brings its own; the next message is answered after them."""
    async with running(tmp_path, Echo) as runtime:
        await say(runtime, Echo, "a", "m1")
        answered = ChatMessage("a1", "assistant", [{"type": "text", "text": "Y"}])
        await in_room(runtime, Echo, lambda it: it.replace_messages([user_message("m2", "X"), answered]))
        await say(runtime, Echo, "Z", "m3")
        assert await lines(runtime, Echo) == ["X", "Y", "Z", "You said: Z"]
        with pytest.raises(BadArguments, match="each message needs an id of its own"):
            await in_room(runtime, Echo, lambda it: it.replace_messages([answered, answered]))


@pytest.mark.parametrize("more", [0, 1])
async def test_replacements_are_limited(tmp_path: Path, more: int) -> None:
    """``replaced_messages_max``; one more changes nothing."""
    async with running(tmp_path, Echo) as runtime:
        given = [user_message(f"m{number}", "x") for number in range(REPLACED_MESSAGES_MAX + more)]
        if more:
            with pytest.raises(LimitExceeded, match="replaced_messages_max allows 1,000 at most, this has 1,001"):
                await in_room(runtime, Echo, lambda it: it.replace_messages(given))
        else:
            await in_room(runtime, Echo, lambda it: it.replace_messages(given))
        found = await in_room(runtime, Echo, lambda it: it.transcript.last_seq)
        assert found == (0 if more else REPLACED_MESSAGES_MAX)


class _Tree:
    """What branches mean: each place has alternatives, each with what follows it."""

    def __init__(self) -> None:
        self.line: list[tuple[str, str]] = []
        self.places: dict[int, tuple[list[Any], int]] = {}

    def grow(self, *messages: tuple[str, str]) -> None:
        self.line += messages

    def cut(self, at: int) -> None:
        alternatives, shown = self.places.get(at, ([None], 0))
        alternatives = [*alternatives]
        alternatives[shown] = self._take(at)
        self.places[at] = ([*alternatives, None], len(alternatives))

    def choose(self, at: int, index: int) -> None:
        alternatives, shown = self.places[at]
        alternatives = [*alternatives]
        alternatives[shown] = self._take(at)
        tail, inner = alternatives[index]
        self.line += tail
        self.places.update(inner)
        self.places[at] = (alternatives, index)

    def _take(self, at: int) -> Any:
        inner = {place: self.places.pop(place) for place in list(self.places) if place > at}
        tail, self.line = self.line[at:], self.line[:at]
        return tail, inner


def _edit(room: ChatRoom, message: ChatMessage) -> None:
    room.edit(message)


def _branches_of(room: ChatRoom, id: str) -> Alternatives:
    return room.branches_of(id)


STEPS = st.sampled_from(["say", "edit", "again", "choose"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.sampled_from(["say", "edit", "again", "choose"]), st.integers(0, 99)), max_size=14)
)
async def test_any_history_of_edits_is_a_tree(tmp_path_factory: Any, steps: list[tuple[str, int]]) -> None:
    """Whatever is said, edited, made again and chosen: the line is the model's."""
    tree = _Tree()
    async with running(tmp_path_factory.mktemp("tree"), Counting) as runtime:
        stub = runtime.get(Counting, "r")
        number = 0
        for step, choice in steps:
            ids = [message.id for message in await stub.messages()]
            if step == "say" or not ids:
                number += 1
                await say(runtime, Counting, f"q{number}", f"m{number}")
                tree.grow(*(await texts(runtime, Counting))[-2:])
            elif step == "edit":
                at = choice % len(ids) // 2 * 2
                number += 1
                tree.cut(at)
                await in_room(runtime, Counting, partial(_edit, message=user_message(ids[at], f"q{number}")))
                await idle(runtime, Counting)
                tree.grow(*(await texts(runtime, Counting))[-2:])
            elif step == "again":
                at = choice % len(ids) // 2 * 2 + 1
                tree.cut(at)
                await stub.answer_again(ids[at])
                await idle(runtime, Counting)
                tree.grow((await texts(runtime, Counting))[-1])
            elif tree.places:
                at = sorted(tree.places)[choice % len(tree.places)]
                count = len(tree.places[at][0])
                there = await in_room(runtime, Counting, partial(_branches_of, id=ids[at]))
                assert there == Alternatives(tree.places[at][1], count)
                index = choice % count
                if index != there.index:
                    tree.choose(at, index)
                assert await stub.choose_branch(ids[at], index) == (index != there.index)
            assert await texts(runtime, Counting) == tree.line
