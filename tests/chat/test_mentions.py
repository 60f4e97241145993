"""Several models in one room: those that a message names answer it, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.running import eventually, killed, running

from perdure import ChatRoom, TurnContext, tool
from perdure.chat.mentions import mentions, seen_by
from perdure.errors import ConfigError, ModelError
from perdure.models.scripted import ScriptedModel
from perdure.objects.runtime import Runtime
from perdure.wire.messages import ChatMessage, user_message
from perdure.wire.ui_chunks import Chunk, MessageMetadata

pytestmark = pytest.mark.anyio

NAMES = ["claude", "gpt", "gpt-4", "Dr. No"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("@claude hello", ["claude"]),
        ("hello @claude, and (@gpt)!", ["claude", "gpt"]),
        ("@GPT then @Claude then @gpt", ["gpt", "claude"]),
        ("what do you think, @claude?", ["claude"]),
        ("ask @claude.", ["claude"]),
        ("@claude: go", ["claude"]),
        ("@claude's idea", ["claude"]),
        ("@gpt-4 and @gpt", ["gpt-4", "gpt"]),
        ("*@claude*", ["claude"]),
        ("@Dr. No rules", ["Dr. No"]),
        ("@gpt-5", []),
        ("@claudette", []),
        ("ann@claude.ai", []),
        ("ann+x@claude", []),
        ("see @claude.ai", []),
        ("https://example.com/@claude", []),
        ("@claude/agents", []),
        ("claude", []),
        ("@ claude", []),
        ("@@claude", []),
        ("`@claude`", []),
        ("``a ` @claude`` and @gpt", ["gpt"]),
        ("```py\n@claude\ndef f(): ...\n```\n@gpt", ["gpt"]),
        ("~~~\n@claude\n~~~", []),
        ("```\n@claude", []),
        ("a ` tick @claude", ["claude"]),
        ("a ` tick @claude\n\nanother ` tick", ["claude"]),
        ("`@claude\nin two lines`", []),
        ("`a` @claude `b`", ["claude"]),
        ("``a` @claude", ["claude"]),
        ("", []),
    ],
)
def test_what_is_a_mention(text: str, named: list[str]) -> None:
    """A name behind an @: not in code, in addresses, or in longer names."""
    assert mentions(text, NAMES) == named


@pytest.mark.parametrize("piece", ["`", "`a", "``` ", "\n```\n", "@", "@claude", "~~~\n", "\n \n", " `@gpt"])
def test_no_text_holds_up_the_room(piece: str) -> None:
    """A megabyte of the worst is read in a moment."""
    started = time.process_time()
    mentions((piece * 1_000_000)[:1_000_000] + "@", NAMES)
    mentions("".join("`" * count + "a" for count in range(1_400)) + "@", NAMES)
    assert time.process_time() - started < 2


def test_names_are_looked_for_so_far() -> None:
    """``mention_characters_max``, to the character."""
    assert mentions("x" * (65_536 - 8) + " @claude", NAMES) == ["claude"]
    assert mentions("x" * (65_536 - 7) + " @claude", NAMES) == []


def test_nobody_is_named_where_there_is_nobody() -> None:
    """A room without names has no mentions."""
    assert mentions("@claude", []) == []


def test_each_model_sees_its_own_words() -> None:
    """What others said is told as theirs."""
    talk = [
        user_message("m1", "Hello", user="Ann"),
        ChatMessage("a1", "assistant", [{"type": "text", "text": "I am Claude"}], {"model": "claude"}),
        ChatMessage("a2", "assistant", [{"type": "text", "text": "I am nobody"}]),
    ]
    for name, roles in {
        "claude": ["user Ann", "assistant None", "user assistant"],
        "gpt": ["user Ann", "user claude", "user assistant"],
        "": ["user Ann", "user claude", "assistant None"],
    }.items():
        shown = seen_by(talk, name)
        assert [f"{message.role} {message.user}" for message in shown] == roles
        assert [message.text for message in shown] == ["Hello", "I am Claude", "I am nobody"]


# --- in a room


class Talker:
    """A model that says its name, and what it was shown; it may have to wait for its word."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turns: list[TurnContext] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.closed = 0

    async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        self.turns.append(turn)
        if not turn.partial:
            yield f"{self.name} says"
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        yield f" {len(turn.messages)}"

    async def aclose(self) -> None:
        self.closed += 1


class Panel(ChatRoom):
    """Rooms of the tests; each test has a class of its own."""

    a: Talker
    b: Talker
    d: Talker


@pytest.fixture
def panel() -> type[Panel]:
    """A class with two named models and one for the rest."""
    a, b, d = Talker("a"), Talker("b"), Talker("default")
    fields = {"a": a, "b": b, "d": d, "model": d, "models": {"claude": a, "gpt": b}, "instructions": "Be kind."}
    return type("Panel", (Panel,), fields)


async def answers(runtime: Runtime, room: type[ChatRoom]) -> list[tuple[str, Any, str]]:
    """The answers in the room: their text, who they say gave them, their status."""

    async def read(instance: Any) -> list[tuple[str, Any, str]]:
        stored = [item for item in instance.object.transcript.newest(100) if item.role == "assistant"]
        return [(item.message.text, item.message.metadata, item.status) for item in stored]

    found: list[tuple[str, Any, str]] = await runtime.run_in(runtime.object_id(room, "r"), read)
    return found


async def all_answered(runtime: Runtime, room: type[ChatRoom]) -> None:
    """Wait until nothing runs or waits."""

    async def quiet() -> bool:
        async def ask(instance: Any) -> bool:
            room = instance.object
            return room.running is None and not room.transcript.waiting()

        return bool(await runtime.run_in(runtime.object_id(room, "r"), ask))

    await eventually(quiet)


async def plans(runtime: Runtime, room: type[ChatRoom]) -> dict[str, Any]:
    """What is stored of who is to answer."""

    async def read(instance: Any) -> dict[str, Any]:
        found: dict[str, Any] = instance.storage.list("_speakers/")
        return found

    return await runtime.run_in(runtime.object_id(room, "r"), read)


async def test_those_who_are_named_answer(tmp_path: Path, panel: type[Panel]) -> None:
    """One after the other, in order; the room's model answers what names nobody."""
    async with running(tmp_path, panel) as runtime:
        room = runtime.get(panel, "r")
        first = await room.submit("@gpt and @claude, hello", user="Ann")
        await all_answered(runtime, panel)
        assert await answers(runtime, panel) == [
            ("b says 1", {"model": "gpt"}, "complete"),
            ("a says 2", {"model": "claude"}, "complete"),
        ]
        stored = await room.messages()
        assert stored[1].id == first.answer_id
        await room.submit("And you?")
        await all_answered(runtime, panel)
        assert (await answers(runtime, panel))[2] == ("default says 4", None, "complete")
        assert await plans(runtime, panel) == {}
    assert (panel.a.closed, panel.b.closed, panel.d.closed) == (1, 1, 1)


async def test_what_each_is_told(tmp_path: Path, panel: type[Panel]) -> None:
    """Its name, the room's instructions, who else is there; and what the one before it said, as that one's."""
    async with running(tmp_path, panel) as runtime:
        await runtime.get(panel, "r").submit("@gpt @claude hello", user="Ann")
        await all_answered(runtime, panel)
    [turn] = panel.a.turns
    assert (turn.model, turn.text) == ("claude", "@gpt @claude hello")
    assert turn.instructions == (
        "Be kind.\n\nSeveral people and models talk here. You are claude. Other models: @gpt."
    )
    assert [(item.role, item.user, item.text) for item in turn.messages] == [
        ("user", "Ann", "@gpt @claude hello"),
        ("user", "gpt", "b says 1"),
    ]
    assert [(item.role, item.user) for item in panel.b.turns[0].messages] == [("user", "Ann")]


async def test_clients_see_who_speaks(tmp_path: Path, panel: type[Panel]) -> None:
    """From the first chunk on, as the message's metadata; plain clients see a name."""
    async with running(tmp_path, panel) as runtime:
        submitted = await runtime.get(panel, "r").submit("@gpt hello")
        await all_answered(runtime, panel)

        async def look(instance: Any) -> tuple[bytes, Any]:
            room = instance.object
            stream = room.streams.find(submitted.stream)
            return next(iter(stream.entries())), room.room_messages()[0][1]["user"]

        start, user = await runtime.run_in(runtime.object_id(panel, "r"), look)
        assert start == (
            b'{"type":"start","messageId":"%b","messageMetadata":{"model":"gpt"}}' % submitted.answer_id.encode()
        )
        assert user == "gpt"


async def test_a_room_may_have_named_models_only(tmp_path: Path, panel: type[Panel]) -> None:
    """Then what names nobody is said to people, and nobody answers."""
    panel.model = None
    async with running(tmp_path, panel) as runtime:
        room = runtime.get(panel, "r")
        assert (await room.submit("Hello all")).answer_id is None
        assert (await room.submit("@claude?")).answer_id is not None
        await all_answered(runtime, panel)
        assert [text for text, _, _ in await answers(runtime, panel)] == ["a says 2"]
        assert (await room.answer_again()) is not None


async def test_people_talk_on_while_a_model_answers(tmp_path: Path, panel: type[Panel]) -> None:
    """A message that asks nobody waits for nothing, whatever the policy; one that asks comes after all that were
    asked before."""
    panel.model = None
    panel.policy = "drop"
    panel.a.gate.clear()
    async with running(tmp_path, panel) as runtime:
        room = runtime.get(panel, "r")
        await room.submit("@claude @gpt hello")
        assert (await room.submit("Ann, are you there?")).answer_id is None
        panel.policy = "queue"
        await room.submit("@gpt and you?")
        panel.a.gate.set()
        await all_answered(runtime, panel)
        assert [metadata["model"] for _, metadata, _ in await answers(runtime, panel)] == ["claude", "gpt", "gpt"]
        assert panel.b.turns[0].text == "@claude @gpt hello"


async def test_an_error_of_one_does_not_silence_the_next(tmp_path: Path, panel: type[Panel]) -> None:
    """The first fails, the second answers."""
    panel.a.error = ModelError("no luck")
    async with running(tmp_path, panel) as runtime:
        await runtime.get(panel, "r").submit("@claude @gpt hello")
        await all_answered(runtime, panel)
        assert [status for _, _, status in await answers(runtime, panel)] == ["failed", "complete"]


async def test_a_stop_is_for_all(tmp_path: Path, panel: type[Panel]) -> None:
    """Whoever was still to answer does not."""
    panel.a.gate.clear()
    async with running(tmp_path, panel) as runtime:
        room = runtime.get(panel, "r")
        await room.submit("@claude @gpt hello")

        async def begun() -> bool:
            return bool(panel.a.turns)

        await eventually(begun)
        assert await room.stop()
        await all_answered(runtime, panel)
        assert [(metadata, status) for _, metadata, status in await answers(runtime, panel)] == [
            ({"model": "claude"}, "aborted")
        ]
        assert await plans(runtime, panel) == {}


async def test_a_newer_message_ends_all(tmp_path: Path, panel: type[Panel]) -> None:
    """Policy ``latest``: neither the running nor those still to come go on."""
    panel.policy = "latest"
    panel.a.gate.clear()
    async with running(tmp_path, panel) as runtime:
        room = runtime.get(panel, "r")
        await room.submit("@claude @gpt hello")
        await room.submit("never mind")
        await all_answered(runtime, panel)
        assert [metadata for _, metadata, _ in await answers(runtime, panel)] == [{"model": "claude"}, None]
        assert await plans(runtime, panel) == {}


async def test_messages_that_are_answered_together(tmp_path: Path, panel: type[Panel]) -> None:
    """Policy ``merge``: everyone that one of them names answers, once."""
    panel.policy = "merge"
    panel.d.gate.clear()
    async with running(tmp_path, panel) as runtime:
        room = runtime.get(panel, "r")
        await room.submit("one")
        for text in ("@gpt two", "three", "@claude @gpt four"):
            await room.submit(text)
        panel.d.gate.set()
        await all_answered(runtime, panel)
        said = [metadata for _, metadata, _ in await answers(runtime, panel)]
        assert said == [None, {"model": "gpt"}, None, {"model": "claude"}]
        assert await plans(runtime, panel) == {}


async def test_edits_and_new_answers_ask_anew(tmp_path: Path, panel: type[Panel]) -> None:
    """An edited message asks those that it names now; a new answer is one of all that were asked."""
    async with running(tmp_path, panel) as runtime:
        room = runtime.get(panel, "r")
        first = await room.submit("@claude hello", id="m1")
        await all_answered(runtime, panel)

        async def edit(instance: Any) -> None:
            instance.object.edit(user_message("m1", "@gpt @claude hello"))

        await runtime.run_in(runtime.object_id(panel, "r"), edit)
        await all_answered(runtime, panel)
        assert [metadata["model"] for _, metadata, _ in await answers(runtime, panel)] == ["gpt", "claude"]
        await room.answer_again()
        await all_answered(runtime, panel)
        assert [metadata["model"] for _, metadata, _ in await answers(runtime, panel)] == ["gpt", "claude"]
        assert first.answer_id not in [message.id for message in await room.messages()]


@pytest.mark.parametrize("recovery", ["continue", "retry"])
async def test_a_crash_between_two_answers(tmp_path: Path, panel: type[Panel], recovery: str) -> None:
    """Killed while the first speaks: after it is continued, or made again by the same, the second speaks."""

    async def on_interrupted(self: ChatRoom, turn: object) -> str:
        return recovery

    panel.on_interrupted = on_interrupted  # type: ignore[assignment,method-assign]
    panel.a.gate.clear()
    async with running(tmp_path / "a", panel) as runtime:
        await runtime.get(panel, "r").submit("@claude @gpt hello")

        async def speaking() -> bool:
            return [text for text, _, _ in await answers(runtime, panel)] == [""] and bool(panel.a.turns)

        await eventually(speaking)
        await asyncio.sleep(0.05)
        folder = await killed(runtime, tmp_path / "b")
    panel.a.gate.set()
    async with running(folder, panel) as runtime:
        await all_answered(runtime, panel)
        said = [(text, metadata["model"]) for text, metadata, _ in await answers(runtime, panel)]
        if recovery == "continue":
            assert said == [("a says 1", "claude"), ("b says 2", "gpt")]
        else:
            assert said == [("a says", "claude"), ("a says 1", "claude"), ("b says 2", "gpt")]
        assert await plans(runtime, panel) == {}


async def test_the_application_decides(tmp_path: Path, panel: type[Panel]) -> None:
    """`who_answers` may name anyone, whatever the text says; or nobody."""

    class Chaired(panel):  # type: ignore[valid-type,misc]
        def who_answers(self, message: ChatMessage) -> Sequence[str]:
            return {"all": ["claude", "gpt", ""], "none": []}.get(message.text, ["unknown"])

    async with running(tmp_path, Chaired) as runtime:
        room = runtime.get(Chaired, "r")
        await room.submit("all")
        await all_answered(runtime, Chaired)
        assert [text.split()[0] for text, _, _ in await answers(runtime, Chaired)] == ["a", "b", "default"]
        assert (await room.submit("none")).answer_id is None
        with pytest.raises(ValueError, match="'unknown'"):
            await room.submit("else")


async def test_wrong_models_are_told_at_the_start(tmp_path: Path) -> None:
    """All of them are made then."""

    class Wrong(ChatRoom):
        models: ClassVar[dict[str, Any]] = {"claude": "nonsense"}

    with pytest.raises(ConfigError, match="nonsense"):
        async with running(tmp_path, Wrong):
            pass


async def test_models_may_say_more_of_themselves(tmp_path: Path) -> None:
    """Metadata of a model's own is beside its name."""

    class Counting(ChatRoom):
        models: ClassVar[dict[str, Any]] = {"claude": ScriptedModel.from_text("echo")}

        async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
            yield "yes"
            yield MessageMetadata({"tokens": 3})

    async with running(tmp_path, Counting) as runtime:
        await runtime.get(Counting, "r").submit("@claude?")
        await all_answered(runtime, Counting)
        assert await answers(runtime, Counting) == [("yes", {"model": "claude", "tokens": 3}, "complete")]


async def test_one_that_waits_does_not_hold_up_the_next(tmp_path: Path) -> None:
    """The first asks for an approval; the second answers meanwhile; the first goes on as itself."""

    class Shop(ChatRoom):
        models: ClassVar[dict[str, Any]] = {"claude": "scripted:tool=refund", "gpt": "scripted:echo"}

        @tool(approval=True)
        def refund(self, order: int) -> str:
            """Give the money back."""
            return f"order {order} refunded"

    async with running(tmp_path, Shop) as runtime:
        room = runtime.get(Shop, "r")
        await room.submit("@claude @gpt help")
        await all_answered(runtime, Shop)
        said = [(metadata["model"], status) for _, metadata, status in await answers(runtime, Shop)]
        assert said == [("claude", "waiting"), ("gpt", "complete")]
        [call] = [part for part in (await room.messages())[1].parts if "toolCallId" in part]
        assert await room.approve(call["toolCallId"])
        await all_answered(runtime, Shop)
        said = [(metadata["model"], status) for _, metadata, status in await answers(runtime, Shop)]
        assert said == [("claude", "complete"), ("gpt", "complete")]
