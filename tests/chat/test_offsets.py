"""Where a room client stands, and which older messages have changed since."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chat.rooms import Echo
from tests.chat.tool_rooms import call, tooled
from tests.objects.clients import Client
from tests.running import hibernated, running, until

from perdure.chat.changes import CHANGES_KEPT, Changes
from perdure.chat.offsets import RoomOffset, parse_room_offset
from perdure.objects.instance import Instance

pytestmark = pytest.mark.anyio


def test_an_offset_is_read_as_it_was_written() -> None:
    """Every part of it; later ones of one answer are greater as text."""
    offset = RoomOffset(last_seq=12, answer_seq=11, characters=345, cuts=2, changes=3, leg=4, position=56)
    assert str(offset) == "00002.000003.00000012.00000011.00000345.004.0000056"
    assert parse_room_offset(str(offset)) == offset
    assert parse_room_offset(str(offset.settled())) == RoomOffset(12, cuts=2, changes=3)
    growth = [(0, 1, 2), (0, 1, 3), (7, 1, 4), (7, 2, 0), (7, 2, 10), (80, 2, 11)]
    texts = [str(offset._replace(characters=a, leg=b, position=c)) for a, b, c in growth]
    assert texts == sorted(texts)


@pytest.mark.parametrize(
    "text",
    ["", "1.2.3.4", "1.2.3.4.5.6.7.8", "1.2.3.4.5.6.x", "1.2.3.4.5.6.-7", "1.2.3.4.5.6.²", f"{'1' * 16}.2.3.4.5.6.7"],
)
def test_what_is_no_offset_is_none(text: str) -> None:
    """Whoever comes with it gets everything."""
    assert parse_room_offset(text) is None


async def test_so_many_changes_are_known(tmp_path: Path) -> None:
    """One by one, the newest of each message; of one more nobody knows which it was. All of it outlives the room."""

    async with running(tmp_path, Echo) as runtime:

        async def begin(instance: Instance) -> None:
            changes = Changes(instance.storage)
            assert (changes.count, changes.since(0)) == (0, [])
            for seq in (5, 3, 5):
                changes.add(seq)
            assert (changes.since(0), changes.since(2), changes.since(3)) == ([3, 5], [5], [])
            assert (changes.since(4), changes.since(-1)) == (None, None)

        async def go_on(instance: Instance) -> None:
            changes = Changes(instance.storage)
            assert (changes.count, changes.since(1)) == (3, [3, 5])
            for seq in range(10, 10 + CHANGES_KEPT - 2):
                changes.add(seq)
            everything = [3, 5, *range(10, 10 + CHANGES_KEPT - 2)]
            assert changes.since(1) == everything
            changes.add(99)
            assert changes.since(1) is None
            assert changes.since(2) == [5, *everything[2:], 99]

        await runtime.run_in(runtime.object_id(Echo, "r"), begin)
        await hibernated(runtime, Echo, "r")
        await runtime.run_in(runtime.object_id(Echo, "r"), go_on)


@pytest.mark.parametrize("known", [True, False])
async def test_who_missed_a_change_is_told_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """As a message that has changed, as far back as changes are known; else with everything."""
    monkeypatch.setattr("perdure.chat.changes.CHANGES_KEPT", 2)
    steps = [call("erase", {"path": "/a"})], ["Gone."]
    room = tooled(*steps)
    async with running(tmp_path, room) as runtime:
        client = Client.of(runtime, room, "r")
        client.say('{"type":"message","content":"Erase it","id":"m1"}')
        await until(lambda: client.frames and client.json[-1]["type"] == "complete")
        offset = client.json[-1]["offset"]
        client.say('{"type":"approve","id":"c1","approved":true}')
        await until(lambda: client.json[-1].get("content") == "Gone.")
        if not known:

            async def change(instance: Instance) -> None:
                stored = instance.object.transcript.find("m1")  # type: ignore[attr-defined]
                instance.object.audience.on_updated(stored)  # type: ignore[attr-defined]

            await runtime.run_in(client.object_id, change)
        back = Client.of(runtime, room, "r", offset=offset)
        await until(lambda: back.frames)
        if known:
            await until(lambda: len(back.frames) == 2)
            assert back.json[0]["type"] == "resume"
            assert (back.json[1]["message"]["content"], back.json[1]["message"]["status"]) == ("Gone.", "complete")
        else:
            assert [frame["type"] for frame in back.json] == ["init"]
