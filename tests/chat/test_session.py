"""A room's session stream: what it begins with, what it says after that, and that a crash changes neither."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.chat.rooms import texts
from tests.chat.sessions import PIXEL, Event, Guided, guided_room, in_room, question, session_events
from tests.running import killed, reset, running, until

from perdure import ChatRoom
from perdure.objects.runtime import Runtime
from perdure.wire.agui import AguiEncoder
from perdure.wire.messages import ChatMessage
from perdure.wire.ui_chunks import (
    Chunk,
    Finish,
    FinishStep,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolInputAvailable,
)

pytestmark = pytest.mark.anyio


def outline(events: list[Event]) -> list[str]:
    """Events in short: ``START m1``, ``m1: Hello``, ``END m1``, ``SNAPSHOT m1 a1``; others by their types."""
    return [_short(event) for event in events if not event["type"].startswith("STEP_")]


def _short(event: Event) -> str:
    match event["type"]:
        case "TEXT_MESSAGE_START":
            return f"START {event['messageId']}"
        case "TEXT_MESSAGE_CONTENT":
            return f"{event['messageId']}: {event['delta']}"
        case "TEXT_MESSAGE_END":
            return f"END {event['messageId']}"
        case "MESSAGES_SNAPSHOT":
            return " ".join(["SNAPSHOT", *(message["id"] for message in event["messages"])])
        case kind:
            return str(kind)


async def asked(runtime: Runtime, room: type[Guided], message_id: str, text: str = "Hi", *, files: int = 0) -> str:
    """Ask; the id that the answer has or will have."""
    submitted = await in_room(runtime, room, "submit_message", question(message_id, text, files=files))
    answer_id: str = submitted.answer_id
    return answer_id


async def says(runtime: Runtime, room: type[Guided], *pieces: str | None) -> None:
    """Let the running answer go on by these pieces, each in a chunk of its own; None: to its end."""
    for piece in pieces:
        before = await _state(runtime, room)
        room.line.put_nowait(piece)
        while await _state(runtime, room) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def _state(runtime: Runtime, room: type[Guided]) -> Any:
    """Which answer is running, and what the room says."""

    async def look(instance: Any) -> Any:
        turn = instance.object.running
        if turn is None:
            return None
        turn.flush()
        return turn.answer.id, turn.text

    return await runtime.run_in(runtime.object_id(room, "r"), look)


async def test_a_room_without_session_clients_has_no_session(tmp_path: Path) -> None:
    """Nothing is written for nobody."""
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        await asked(runtime, room, "m1")
        await says(runtime, room, "Hello", None)

        async def names(instance: Any) -> Any:
            return instance.streams.find("session")

        assert await runtime.run_in(runtime.object_id(room, "r"), names) is None


async def test_opened_amid_an_answer(tmp_path: Path) -> None:
    """In the order of the room: what was said, the answer so far, what waits; then it goes on."""
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        first = await asked(runtime, room, "m1")
        await says(runtime, room, "Hello ")
        second = await asked(runtime, room, "m2")
        history = ["START m1", "m1: Hi", "END m1", "RUN_STARTED", f"START {first}", f"{first}: Hello "]
        history += ["START m2", "m2: Hi", "END m2"]
        assert outline(await session_events(runtime, room)) == history
        assert outline(await session_events(runtime, room)) == history  # asked for again
        await says(runtime, room, "world", None)
        await says(runtime, room, "Bye", None)
        assert outline(await session_events(runtime, room)) == [
            *history,
            *(f"{first}: world", f"END {first}", "RUN_FINISHED"),
            *("RUN_STARTED", f"START {second}", f"{second}: Bye", f"END {second}", "RUN_FINISHED"),
        ]


async def test_an_answer_that_was_told_as_it_came_is_not_told_anew(tmp_path: Path) -> None:
    """Over a reset of the instance its events go on where they were."""
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        await in_room(runtime, room, "open_session")
        answer = await asked(runtime, room, "m1")
        await says(runtime, room, "Hello ")
        reset(runtime, room, "r")
        await says(runtime, room, "world", None)
        assert outline(await session_events(runtime, room)) == [
            *("START m1", "m1: Hi", "END m1"),
            *("RUN_STARTED", f"START {answer}", f"{answer}: Hello ", f"{answer}: world", f"END {answer}"),
            "RUN_FINISHED",
        ]


async def test_a_kill_leaves_room_and_session_alike(tmp_path: Path) -> None:
    """Each event is in the commit of its chunk: at whatever moment, the session's text is the stream's."""
    room = guided_room()
    async with running(tmp_path / "first", room) as runtime:
        await in_room(runtime, room, "open_session")
        answer = await asked(runtime, room, "m1")
        folders = []
        for number in range(6):
            room.line.put_nowait(f"word{number} ")
            folders.append(await killed(runtime, tmp_path / f"killed{number}"))
            await asyncio.sleep(0.003)
    said = []
    for folder in folders:
        silent = guided_room(recovery="fail")
        async with running(folder, silent) as runtime:
            (_, (_, text)) = await texts(runtime, silent)
            events = await session_events(runtime, silent)
            told = "".join(
                event["delta"] for event in events if event.get("messageId") == answer and "delta" in event
            )
            assert told == text
            assert outline(events)[-1] == "RUN_ERROR"
            said.append(text)
    assert said[-1].startswith("word0 ")


# --- snapshots


async def test_a_removal_is_told_with_what_is_left(tmp_path: Path) -> None:
    """Then the new answer; the old one's end comes before."""
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        await in_room(runtime, room, "open_session")
        first = await asked(runtime, room, "m1")
        await says(runtime, room, "One", None)
        second = await asked(runtime, room, "m2", "Bye")
        await says(runtime, room, "Two")
        before = len(outline(await session_events(runtime, room)))
        third = (await in_room(runtime, room, "regenerate", second)).answer_id
        await says(runtime, room, "Three", None)
        assert outline(await session_events(runtime, room))[before:] == [
            *(f"END {second}", "RUN_FINISHED"),
            f"SNAPSHOT m1 {first} m2",
            *("RUN_STARTED", f"START {third}", f"{third}: Three", f"END {third}", "RUN_FINISHED"),
        ]


async def test_a_picture_amid_an_answer(tmp_path: Path) -> None:
    """The snapshot has the answer's place without its parts; they follow, and then the rest of them."""
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        await in_room(runtime, room, "open_session")
        answer = await asked(runtime, room, "m1")
        await says(runtime, room, "Hello ")
        before = len(outline(await session_events(runtime, room)))
        await asked(runtime, room, "m2", files=1)
        await says(runtime, room, "world")
        events = await session_events(runtime, room)
        assert outline(events)[before:] == [
            f"SNAPSHOT m1 {answer} m2",
            *("RUN_STARTED", f"START {answer}", f"{answer}: Hello ", f"{answer}: world"),
        ]
        (snapshot,) = [event for event in events if event["type"] == "MESSAGES_SNAPSHOT"]
        assert [message["parts"] for message in snapshot["messages"]] == [
            [{"type": "text", "content": "Hi"}],
            [],
            [
                {"type": "text", "content": "Hi"},
                {"type": "image", "source": {"type": "url", "value": PIXEL, "mimeType": "image/gif"}},
            ],
        ]


async def test_pictures_of_the_past(tmp_path: Path) -> None:
    """A session that begins with them begins with one snapshot, which tells each message once."""
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        first = await asked(runtime, room, "m1", files=1)
        await says(runtime, room, "One", None)
        second = await asked(runtime, room, "m2", files=2)
        await says(runtime, room, "Two")
        assert outline(await session_events(runtime, room)) == [
            f"SNAPSHOT m1 {first} m2 {second}",
            *("RUN_STARTED", f"START {second}", f"{second}: Two"),
        ]


# --- answers that wait


async def let_wait(runtime: Runtime, room: type[Guided], *calls: str) -> str:
    """Ask, and have the answer call these tools and wait; its id."""
    answer = await asked(runtime, room, "m1")
    await says(runtime, room, "Well. ")
    for name in calls:
        room.line.put_nowait(ToolInputAvailable(name, name, {}))
    room.line.put_nowait(None)
    await until(lambda: room.line.empty())
    while await in_room(runtime, room, "streaming_answer") is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.002)
    return answer


async def test_each_leg_is_a_run(tmp_path: Path) -> None:
    """Of the same message: the first ends with the question, the next begins with the result; over a reset, too."""
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        await in_room(runtime, room, "open_session")
        answer = await let_wait(runtime, room, "pay")
        asks = [
            *("START m1", "m1: Hi", "END m1", "RUN_STARTED", f"START {answer}", f"{answer}: Well. "),
            *("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "CUSTOM", f"END {answer}", "RUN_FINISHED"),
        ]
        assert outline(await session_events(runtime, room)) == asks
        reset(runtime, room, "r")
        assert await in_room(runtime, room, "answer_approval", "pay", True)
        await says(runtime, room, "Paid.", None)
        events = await session_events(runtime, room)
        assert outline(events) == [
            *asks,
            *("RUN_STARTED", f"START {answer}", "TOOL_CALL_RESULT", f"{answer}: Paid.", f"END {answer}"),
            "RUN_FINISHED",
        ]
        assert [event["runId"] for event in events if event["type"] == "RUN_STARTED"] == [answer, f"{answer}.2"]


async def test_a_result_among_others_is_told_by_a_snapshot(tmp_path: Path) -> None:
    """It settles its call for all who look on; the last result needs none, since the next leg tells it."""
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        await in_room(runtime, room, "open_session")
        answer = await let_wait(runtime, room, "where", "pay")
        before = len(outline(await session_events(runtime, room)))
        assert await in_room(runtime, room, "tool_result", "where", "here")
        events = await session_events(runtime, room)
        assert outline(events)[before:] == [f"SNAPSHOT m1 {answer}"]
        calls = [part for part in events[-1]["messages"][1]["parts"] if part["type"] == "tool-call"]
        assert [(call["id"], call["state"]) for call in calls] == [
            ("where", "complete"),
            ("pay", "approval-requested"),
        ]
        assert await in_room(runtime, room, "answer_approval", "pay", False)
        await says(runtime, room, "Fine.", None)
        assert outline(await session_events(runtime, room))[before + 1 :] == [
            *("RUN_STARTED", f"START {answer}", "TOOL_CALL_RESULT", "TOOL_CALL_RESULT", f"{answer}: Fine."),
            *(f"END {answer}", "RUN_FINISHED"),
        ]


async def test_who_comes_later_is_told_of_calls(tmp_path: Path) -> None:
    """By one snapshot, until there is more to tell; who only comes back needs none."""
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        await in_room(runtime, room, "open_session")
        answer = await let_wait(runtime, room, "pay")
        before = len(outline(await session_events(runtime, room)))
        for _ in range(2):
            reset(runtime, room, "r")
            events = await session_events(runtime, room, fresh=True)
            assert outline(events)[before:] == [f"SNAPSHOT m1 {answer}"]
        (call,) = [part for part in events[-1]["messages"][1]["parts"] if part["type"] == "tool-call"]
        assert (call["state"], call["approval"]["needsApproval"]) == ("approval-requested", True)
        await in_room(runtime, room, "answer_approval", "pay", True)
        await says(runtime, room, "Paid.", None)
        assert outline(await session_events(runtime, room, fresh=True))[-1] == f"SNAPSHOT m1 {answer}"


async def test_a_session_that_begins_with_calls(tmp_path: Path) -> None:
    """One snapshot; a leg that is under way is told after it, whole, and asks nothing again."""
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        answer = await let_wait(runtime, room, "pay")
        await in_room(runtime, room, "answer_approval", "pay", True)
        await says(runtime, room, "Paid. ")
        assert outline(await session_events(runtime, room)) == [
            f"SNAPSHOT m1 {answer}",
            *("RUN_STARTED", f"START {answer}", f"{answer}: Well. "),
            *("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"),
            *(f"END {answer}", f"START {answer}", f"{answer}: Paid. "),
        ]


async def test_a_branch_that_comes_back_is_told_once(tmp_path: Path) -> None:
    """By the snapshot that says what was removed."""
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        await in_room(runtime, room, "open_session")
        first = await asked(runtime, room, "m1")
        await says(runtime, room, "One", None)
        second = (await in_room(runtime, room, "regenerate", first)).answer_id
        await says(runtime, room, "Two", None)
        before = len(outline(await session_events(runtime, room)))
        assert await runtime.get(room, "r").choose_branch(second, 0)
        assert outline(await session_events(runtime, room))[before:] == [f"SNAPSHOT m1 {first}"]


async def test_messages_that_are_replaced(tmp_path: Path) -> None:
    """The old ones are gone by a snapshot; the new ones are told one by one, answers with what they did."""
    room = guided_room()
    call = {"type": "tool-pay", "toolCallId": "c1", "state": "output-available", "input": {}, "output": "paid"}
    answer = ChatMessage("a9", "assistant", [{"type": "text", "text": "Well."}, call])
    async with running(tmp_path, room) as runtime:
        await in_room(runtime, room, "open_session")
        await let_wait(runtime, room, "pay")
        before = len(outline(await session_events(runtime, room)))
        await in_room(runtime, room, "replace_messages", [question("m9", "Hi"), answer])
        assert outline(await session_events(runtime, room))[before:] == [
            *("SNAPSHOT", "START m9", "m9: Hi", "END m9", "START a9", "a9: Well."),
            *("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT", "END a9"),
        ]
        assert outline(await session_events(runtime, room, fresh=True))[-1] == "SNAPSHOT m9 a9"
        await in_room(runtime, room, "clear")
        assert outline(await session_events(runtime, room))[-1] == "SNAPSHOT"


# --- limits


@pytest.mark.parametrize(("history_max", "first"), [(4, "m1"), (3, "a1")])
async def test_a_session_begins_with_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history_max: int, first: str
) -> None:
    """At `SESSION_HISTORY_MAX` all are there, past it the oldest are left out."""
    monkeypatch.setattr("perdure.chat.session.SESSION_HISTORY_MAX", history_max)
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        ids = {}
        for number in (1, 2):
            ids[f"a{number}"] = await asked(runtime, room, f"m{number}")
            await says(runtime, room, "Well", None)
        assert outline(await session_events(runtime, room))[0] == f"START {ids.get(first, first)}"


async def test_a_running_answer_is_told_whatever_came_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More messages wait behind it than a session begins with, or a snapshot holds."""
    monkeypatch.setattr("perdure.chat.session.SESSION_HISTORY_MAX", 2)
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        answer = await asked(runtime, room, "m1")
        await says(runtime, room, "Hello ")
        for number in (2, 3, 4):
            await asked(runtime, room, f"m{number}")
        assert outline(await session_events(runtime, room)) == [
            *("RUN_STARTED", f"START {answer}", f"{answer}: Hello "),
            *("START m3", "m3: Hi", "END m3", "START m4", "m4: Hi", "END m4"),
        ]
        await asked(runtime, room, "m5", files=1)
        assert outline(await session_events(runtime, room))[9:] == [
            f"SNAPSHOT {answer} m4 m5",
            *("RUN_STARTED", f"START {answer}", f"{answer}: Hello "),
        ]


async def test_a_snapshot_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message with a picture is told by events then, like any other."""
    monkeypatch.setattr("perdure.streams.stream.ENTRY_BYTES_MAX", 1_200)
    people: type[ChatRoom] = type("People", (ChatRoom,), {"model": None})
    async with running(tmp_path, people) as runtime:
        await in_room(runtime, people, "open_session")
        for number in range(1, 5):
            await in_room(runtime, people, "submit_message", question(f"m{number}", "x" * 300))
        before = len(await session_events(runtime, people))
        await in_room(runtime, people, "submit_message", question("m5", "Look", files=1))
        assert outline((await session_events(runtime, people))[before:]) == [
            *("START m5", "m5: Look", "END m5", "CUSTOM"),
        ]


async def test_a_removal_from_a_long_conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshot has as many of the newest as fit into an entry."""
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        await in_room(runtime, room, "open_session")
        answers = []
        for number in range(1, 5):
            answers.append(await asked(runtime, room, f"m{number}", "x" * 300))
            await says(runtime, room, "y" * 300, None)
        monkeypatch.setattr("perdure.streams.stream.ENTRY_BYTES_MAX", 2_500)
        await in_room(runtime, room, "regenerate", answers[3])
        snapshots = [line for line in outline(await session_events(runtime, room)) if line.startswith("SNAPSHOT")]
        assert snapshots == [f"SNAPSHOT m3 {answers[2]} m4"]


async def test_a_session_opens_on_messages_that_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no room in an entry is left out; the rest is told."""
    people: type[ChatRoom] = type("People", (ChatRoom,), {"model": None})
    async with running(tmp_path, people) as runtime:
        await in_room(runtime, people, "submit_message", question("m1", "x" * 2_000))
        await in_room(runtime, people, "submit_message", question("m2", "Hi"))
        monkeypatch.setattr("perdure.streams.stream.ENTRY_BYTES_MAX", 1_000)
        assert outline(await session_events(runtime, people)) == ["START m2", "m2: Hi", "END m2"]


async def test_the_events_are_the_encoders(tmp_path: Path) -> None:
    """All of them, with the room's name and the answer's id."""
    room = guided_room()
    async with running(tmp_path, room) as runtime:
        await in_room(runtime, room, "open_session")
        answer = await asked(runtime, room, "m1")
        await says(runtime, room, "Hello", None)
        await until(lambda: room.line.empty())
        chunks: list[Chunk] = [Start(answer), StartStep(), TextStart("text-1-1"), TextDelta("text-1-1", "Hello")]
        chunks += [TextEnd("text-1-1"), FinishStep(), Finish("stop")]
        encoder = AguiEncoder("r", answer)
        encoded = [event for chunk in chunks for event in encoder.encode(chunk)]

        async def entries(instance: Any) -> Any:
            return instance.streams.get("session").read("0000000000000003").entries

        assert await runtime.run_in(runtime.object_id(room, "r"), entries) == encoded
