"""The scripted models say the same thing every time, go on where they stopped, and fail on demand."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.models.answers import answer

from perdure.errors import ConfigError, ModelError, ModelOverloaded, ModelTimeout
from perdure.models.base import TurnContext
from perdure.models.demo_answer import demo_answer
from perdure.models.scripted import Piece, ScriptedModel
from perdure.wire.ui_chunks import ReasoningDelta, ReasoningEnd, ReasoningStart, TextDelta, TextEnd, TextStart


async def _pieces(model: ScriptedModel, turn: TurnContext) -> list[Piece]:
    return [piece async for piece in model.respond(turn)]


def _said(script: str, text: str = "Hi", *, partial: str = "") -> list[Piece]:
    turn = TurnContext(text=text, partial=partial)
    return asyncio.run(_pieces(ScriptedModel.from_text(script), turn))


def test_echo_answers_from_the_text() -> None:
    """White space of the question is kept."""
    assert _said("echo", "one  two\nthree") == ["You", " said:", " one", "  two", "\nthree"]
    assert _said("", " ") == ["You", " said", " nothing."]


def test_count_speaks_numbered_words() -> None:
    """One word a piece, numbered from 1."""
    assert _said("count=3") == ["word1", " word2", " word3"]


def test_pieces_can_have_a_fixed_size() -> None:
    """Benchmarks need pieces of one size."""
    assert _said("count=2&piece_bytes=10") == ["word1.....", " word2...."]


@pytest.mark.parametrize(
    ("partial", "rest"),
    [
        ("word1", [" word2", " word3"]),
        ("word1 wo", ["rd2", " word3"]),
        ("word1 word2 word3", []),
        ("Something else", ["\n\n", "word1", " word2", " word3"]),
    ],
)
def test_an_answer_is_continued_where_it_stopped(partial: str, rest: list[Piece]) -> None:
    """Also in the middle of a word; a text that is not the script's stays, and the script follows."""
    assert _said("count=3", partial=partial) == rest


def test_every_cut_of_the_paced_answer_continues_to_the_same_text() -> None:
    """Partial and rest are the whole answer, wherever the cut is."""
    whole = demo_answer("How do I bake bread?")
    for cut in range(0, len(whole), 37):
        rest = _said("paced&speed=100000", "How do I bake bread?", partial=whole[:cut])
        assert whole[:cut] + "".join(str(piece) for piece in rest) == whole


def test_the_paced_answer_is_markdown_about_the_question() -> None:
    """Several paragraphs, a list, bold text and a code fence; it says that it is no model."""
    answer = demo_answer("How do I bake *bread*?")
    assert "**How do I bake bread**" in answer
    assert "```python\n" in answer
    assert answer.count("\n\n") >= 6
    assert "not a language model" in answer
    assert "\n1. **" in answer or "\n- **" in answer
    assert answer == demo_answer("How do I bake *bread*?")


def test_a_greeting_is_greeted() -> None:
    """A short question has a short answer."""
    assert demo_answer("Hello there!").startswith("Hello! **Nice to meet you.**")


def test_a_delay_is_kept_on_average() -> None:
    """Late wake-ups are made up for."""
    started = time.monotonic()
    _said("count=21&delay_ms=5")
    assert 0.1 <= time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("count=9&error_at=2", ModelError),
        ("count=9&error_at=2&error=overloaded", ModelOverloaded),
        ("count=9&error_at=2&error=timeout", ModelTimeout),
    ],
)
def test_failure_on_demand(script: str, error: type[ModelError]) -> None:
    """Exactly the pieces before the failure are said."""

    said, failure = asyncio.run(answer(ScriptedModel.from_text(script), TurnContext(text="Hi")))
    assert said == ["word1", " word2"]
    assert type(failure) is error
    assert str(failure) == "scripted failure after 2 pieces"


def test_failure_in_the_first_attempts_only() -> None:
    """With `attempts=1` the second attempt goes through."""

    async def run(attempt: int) -> list[Piece]:
        turn = TurnContext(text="Hi", attempt=attempt, partial="word1")
        return await _pieces(ScriptedModel.from_text("count=2&error_at=1&attempts=1"), turn)

    with pytest.raises(ModelError):
        asyncio.run(run(1))
    assert asyncio.run(run(2)) == [" word2"]


def test_a_hang_is_ended_by_cancelling() -> None:
    """A script that hangs says nothing more and can be stopped."""

    async def run() -> None:
        response = ScriptedModel.from_text("count=9&hang_at=1").respond(TurnContext(text="Hi"))
        assert await anext(response) == "word1"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(response), 0.05)

    asyncio.run(run())


RECORDED: list[Piece] = [
    ReasoningStart("r"),
    ReasoningDelta("r", "Hm."),
    ReasoningEnd("r"),
    TextStart("t"),
    TextDelta("t", "Hello"),
    TextDelta("t", " world"),
    TextEnd("t"),
]


def test_recorded_chunks_are_replayed() -> None:
    """Chunk for chunk."""
    assert asyncio.run(_pieces(ScriptedModel(chunks=RECORDED), TurnContext(text=""))) == RECORDED


def test_recorded_chunks_are_continued_as_text() -> None:
    """The part that was open is not opened again."""
    turn = TurnContext(text="", partial="Hello wo")
    assert asyncio.run(_pieces(ScriptedModel(chunks=RECORDED), turn)) == ["rld"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("shout", "echo, count=N, paced, tool=NAME and tour"),
        ("count=x", "count=x: a script's count is a whole number"),
        ("count=-1", "from 0 to a billion"),
        ("echo&delay_ms=x", "delay_ms=x: a script's delay_ms is a number"),
        ("echo&volume=3", "'volume' is no option of a script"),
        ("echo&error=odd", "error=odd: a script can fail with error, overloaded, timeout"),
        ("paced&speed=0", "speed is above 0"),
        ("tool=", "a tool's name has letters"),
        ("tool=x y", "a tool's name has letters"),
        ("tool=" + "x" * 65, "64 at most"),
    ],
)
def test_a_wrong_script_says_what_is_wrong(script: str, words: str) -> None:
    """With the options that there are."""
    with pytest.raises(ConfigError, match=words):
        ScriptedModel.from_text(script)
