"""Who is in a room: names over all their tabs, typing that passes by itself, reloads that nobody notices."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.chat.rooms import Echo
from tests.objects.clients import Client
from tests.running import hibernated, running, until

from perdure.chat import presence
from perdure.chat.presence import Here, PresenceState
from perdure.wire.room import Person

pytestmark = pytest.mark.anyio


# --- the rules


def test_tabs_of_a_name_are_one_person() -> None:
    """Sorted; those without a name are counted apart."""
    state = PresenceState()
    assert state.here([], 0) == Here((), 0, 0)
    here = state.here([("c1", "Bob"), ("c2", "Ada"), ("c3", "Bob"), ("c4", ""), ("c5", "")], 0)
    assert here == Here((Person("Ada"), Person("Bob", 2)), guests=2)


def test_one_who_left_is_shown_for_a_while() -> None:
    """Two seconds, in which a reload is back; a tab that is gone counts as long."""
    state = PresenceState()
    state.left("Ada", 1, 10.0)
    state.left("Bob", 2, 10.0)
    during, after = [("c2", "Bob")], [("c2", "Bob"), ("c3", "Ada")]
    assert state.here(during, 11.9) == Here((Person("Ada"), Person("Bob", 2)))
    assert state.here(after, 11.9) == Here((Person("Ada"), Person("Bob", 2)))
    assert state.next_expiry(11.9) == 12.0
    assert state.here(during, 12.0) == Here((Person("Bob"),))
    assert state.next_expiry(12.0) is None


def test_a_guest_who_takes_a_name_is_one_person() -> None:
    """They leave without a name and come with one."""
    state = PresenceState()
    state.left("", 1, 10.0)
    assert state.here([("c2", "Ada")], 10.1) == Here((Person("Ada"),))


def test_typing_passes_by_itself() -> None:
    """Six seconds after it was said last; of any of a person's tabs."""
    state = PresenceState()
    tabs = [("c1", "Ada"), ("c2", "Ada")]
    state.typing("c2", 0.0)
    state.typing("c2", 3.0)
    assert state.here(tabs, 8.9) == Here((Person("Ada", 2, typing=True),))
    assert state.here(tabs, 9.0) == Here((Person("Ada", 2),))
    state.typing("c1", 20.0)
    assert state.typed("c1")
    assert not state.typed("c1")
    assert state.here(tabs, 20.0) == Here((Person("Ada", 2),))


def test_so_many_names_are_told() -> None:
    """Of those beyond, the number."""
    connections = [(f"c{number}", f"p{number:03d}") for number in range(101)]
    assert PresenceState().here(connections[:100], 0).more == 0
    here = PresenceState().here(connections, 0)
    assert (len(here.people), here.people[-1].user, here.more) == (100, "p099", 1)


# --- in a room


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with less waiting."""
    monkeypatch.setattr(presence, "JOIN_MS", 20)
    monkeypatch.setattr(presence, "LEAVE_MS", 120)
    monkeypatch.setattr(presence, "TYPING_MS", 150)


def told(client: Client) -> list[Any]:
    """What a client was told of who is here."""
    return [frame for frame in client.json if frame["type"] == "presence"]


@pytest.mark.usefixtures("quick")
async def test_those_who_listen_are_told_of_all(tmp_path: Path) -> None:
    """Whatever the others listen to; joins that come together in one frame."""
    async with running(tmp_path, Echo) as runtime:
        listener = Client.of(runtime, Echo, "r", user="Ada", presence="1", parts="1")
        await until(lambda: told(listener))
        assert told(listener) == [{"type": "presence", "people": [{"user": "Ada"}]}]
        others = [Client.of(runtime, Echo, "r", user="Bob"), Client.of(runtime, Echo, "r", delta="1")]
        await until(lambda: len(told(listener)) > 1)
        assert told(listener)[1:] == [{"type": "presence", "people": [{"user": "Ada"}, {"user": "Bob"}], "guests": 1}]
        assert [frame["type"] for other in others for frame in other.json] == ["init", "init"]


@pytest.mark.usefixtures("quick")
async def test_a_reload_is_not_noticed_and_a_leave_is(tmp_path: Path) -> None:
    """The one who comes back is told all the same."""
    async with running(tmp_path, Echo) as runtime:
        ada = Client.of(runtime, Echo, "r", user="Ada", presence="1")
        bob = Client.of(runtime, Echo, "r", user="Bob", presence="1")
        both = {"type": "presence", "people": [{"user": "Ada"}, {"user": "Bob"}]}
        await until(lambda: told(ada) == [both] and told(bob) == [both])
        bob.leave()
        back = Client.of(runtime, Echo, "r", user="Bob", presence="1")
        await until(lambda: told(back) == [both])
        await asyncio.sleep(0.2)
        assert told(ada) == [both]
        back.leave()
        await until(lambda: told(ada) == [both, {"type": "presence", "people": [{"user": "Ada"}]}])


@pytest.mark.usefixtures("quick")
async def test_typing_ends_with_the_message(tmp_path: Path) -> None:
    """Or when it is taken back, or by itself."""
    async with running(tmp_path, Echo) as runtime:
        ada = Client.of(runtime, Echo, "r", user="Ada", presence="1")
        bob = Client.of(runtime, Echo, "r", user="Bob")
        idle: dict[str, Any] = {"type": "presence", "people": [{"user": "Ada"}, {"user": "Bob"}]}
        writing = {"type": "presence", "people": [{"user": "Ada"}, {"user": "Bob", "typing": True}]}
        await until(lambda: told(ada) == [idle])
        for ending in ('{"type":"message","content":"Hi"}', '{"type":"typing","typing":false}', None):
            before = len(told(ada))
            bob.say('{"type":"typing"}')
            await until(lambda before=before: len(told(ada)) > before)  # type: ignore[misc]
            if ending is not None:
                bob.say(ending)
            await until(lambda before=before: len(told(ada)) > before + 1)  # type: ignore[misc]
        assert told(ada) == [idle, *[writing, idle] * 3]


async def test_nothing_is_done_where_nobody_listens(tmp_path: Path) -> None:
    """No task, nothing remembered."""
    async with running(tmp_path, Echo) as runtime:
        client = Client.of(runtime, Echo, "r", user="Ada")
        await until(lambda: client.frames)
        client.say('{"type":"typing"}')
        client.say('{"type":"ping"}')
        await until(lambda: len(client.frames) == 2)
        instance = runtime.slot(client.object_id).instance
        assert instance is not None
        assert [task for task in instance.tasks if "presence" in task.get_name()] == []


@pytest.mark.usefixtures("quick")
async def test_a_crowd_is_told_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The more listen, the longer is the time between two frames; the last state is always told."""
    monkeypatch.setattr(presence, "LISTENER_MS", 20)
    async with running(tmp_path, Echo) as runtime:
        crowd = [Client.of(runtime, Echo, "r", user=f"p{number}", presence="1") for number in range(10)]
        await until(lambda: told(crowd[0]) and len(told(crowd[0])[-1]["people"]) == 10)
        before = len(told(crowd[0]))
        for number in range(5):
            Client.of(runtime, Echo, "r", user=f"q{number}")
            await asyncio.sleep(0.03)
        await until(lambda: len(told(crowd[0])[-1]["people"]) == 15)
        assert len(told(crowd[0])) - before <= 2  # 10 x 20 ms between two of them


@pytest.mark.usefixtures("quick")
async def test_a_name_is_shown_as_far_as_one_may_be_long(tmp_path: Path) -> None:
    """Under a longer one nobody may say anything."""
    async with running(tmp_path, Echo) as runtime:
        listener = Client.of(runtime, Echo, "r", user="x" * 10_000, presence="1")
        await until(lambda: told(listener))
        assert told(listener)[0]["people"] == [{"user": "x" * 256}]


@pytest.mark.usefixtures("quick")
async def test_a_room_that_slept_knows_who_is_here(tmp_path: Path) -> None:
    """Presence is what the connections are; they outlive the instance."""
    async with running(tmp_path, Echo) as runtime:
        ada = Client.of(runtime, Echo, "r", user="Ada", presence="1")
        await until(lambda: told(ada))
        await hibernated(runtime, Echo, "r")
        Client.of(runtime, Echo, "r", user="Bob")
        await until(lambda: len(told(ada)) > 1)
        assert told(ada)[-1]["people"] == [{"user": "Ada"}, {"user": "Bob"}]


@pytest.mark.usefixtures("quick")
async def test_other_surfaces_can_listen(tmp_path: Path) -> None:
    """They are told at once, and until they do not want it any more."""
    async with running(tmp_path, Echo) as runtime:
        ada = Client.of(runtime, Echo, "r", user="Ada")
        await until(lambda: ada.frames)
        heard: list[Here] = []
        instance = runtime.slot(ada.object_id).instance
        assert instance is not None
        room = instance.object
        assert isinstance(room, Echo)
        room.presence.add_listener(heard.append)
        await until(lambda: heard == [Here((Person("Ada"),))])
        Client.of(runtime, Echo, "r", user="Bob")
        await until(lambda: len(heard) == 2)
        assert room.presence.here == heard[-1] == Here((Person("Ada"), Person("Bob")))
        room.presence.remove_listener(heard.append)
        ada.leave()
        await asyncio.sleep(0.2)
        assert len(heard) == 2
