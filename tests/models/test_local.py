"""The local model: real answers from SmolLM2, prompt stops, and a child process that does not leak."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.models.answers import answer, said
from tests.requirements import need

from perdure.errors import ConfigError, ModelError, ModelOverloaded, ModelTimeout
from perdure.models.base import TurnContext
from perdure.models.local import HOW_TO_INSTALL, LocalModel, LocalOptions, missing_for_local
from perdure.wire.messages import ChatMessage, user_message

FRANCE = TurnContext(text="What is the capital of France?")
STORY = TurnContext(text="Tell me a long story about a dragon and a knight.")


@pytest.fixture(autouse=True)
def _wheels() -> None:
    need("the local model", missing_for_local() is None, HOW_TO_INSTALL)


def _with_model(run: Callable[[LocalModel], Awaitable[Any]], text: str = "smollm2?max_tokens=64") -> Any:
    async def main() -> Any:
        model = LocalModel.from_text(text)
        try:
            return await run(model)
        finally:
            await model.aclose()

    return asyncio.run(main())


def _child_of(model: LocalModel) -> int:
    assert model._worker is not None
    return model._worker.process.pid


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_it_answers_a_question() -> None:
    """Coherently, in several pieces, without special tokens."""

    async def run(model: LocalModel) -> None:
        pieces, error = await answer(model, FRANCE)
        text = "".join(map(str, pieces))
        assert error is None
        assert "Paris" in text
        assert "<|" not in text
        assert len(pieces) > 3
        assert text == text.lstrip()

    _with_model(run)


def test_it_goes_on_after_a_partial_answer() -> None:
    """The prompt holds what was said; only what follows comes out, and no space twice."""

    async def run(model: LocalModel) -> None:
        rest = await said(model, TurnContext(text=FRANCE.text, partial="The capital of France is"))
        assert rest.startswith(" ")
        assert "Paris" in rest[:20]
        rest = await said(model, TurnContext(text=FRANCE.text, partial="The capital of France is "))
        assert not rest.startswith(" ")
        assert "Paris" in rest[:20]

    _with_model(run)


def test_it_stops_at_once() -> None:
    """Closing the iterator frees the model within half a second, so the next answer starts."""

    async def run(model: LocalModel) -> None:
        await said(model, FRANCE)
        response = model.respond(STORY)
        await anext(response)
        started = time.monotonic()
        await response.aclose()
        assert time.monotonic() - started < 0.5
        await anext(second := model.respond(FRANCE))
        assert time.monotonic() - started < 5  # the story would take longer
        await second.aclose()

    _with_model(run, "smollm2?turns_at_once=1")


def test_a_cancelled_task_stops_it_too() -> None:
    """The child is told, and lives on."""

    async def run(model: LocalModel) -> None:
        await said(model, FRANCE)
        pid = _child_of(model)
        task = asyncio.create_task(said(model, STORY))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "Paris" in await said(model, FRANCE)
        assert _child_of(model) == pid

    _with_model(run)


def test_several_turns_share_one_process() -> None:
    """Turns beyond `turns_at_once` wait for their place, and all are answered."""

    async def run(model: LocalModel) -> None:
        texts = await asyncio.gather(*(said(model, FRANCE) for _ in range(4)))
        assert len(texts) == 4
        assert all(texts)

    _with_model(run, "smollm2?max_tokens=16")


def test_too_many_waiting_turns_are_refused() -> None:
    """With an error that can be tried again."""

    async def run(model: LocalModel) -> None:
        results = await asyncio.gather(*(answer(model, FRANCE) for _ in range(4)))
        refused = [error for _, error in results if error is not None]
        assert refused
        assert all(isinstance(error, ModelOverloaded) for error in refused)

    _with_model(run, "smollm2?max_tokens=8&turns_at_once=1&turns_waiting_max=1")


def test_a_long_conversation_is_trimmed() -> None:
    """More than the context holds is no error; neither is text of which the estimate is wrong."""

    async def run(model: LocalModel) -> None:
        messages: list[ChatMessage] = []
        for number in range(60):
            messages.append(user_message(f"u{number}", f"Question {number}: " + "why? " * 30))
            messages.append(
                ChatMessage(id=f"a{number}", role="assistant", parts=[{"type": "text", "text": "So. " * 30}])
            )
        messages.append(user_message("last", FRANCE.text))
        assert await said(model, TurnContext(text=FRANCE.text, messages=messages))
        assert await said(model, TurnContext(text="1 2 3 4 5 6 7 8 9 0 " * 400))

    _with_model(run, "smollm2?max_tokens=8&context_tokens=512&threads=2")


def test_a_killed_child_is_an_error_and_is_replaced() -> None:
    """The answer fails with a clear sentence; the next turn starts a new process."""

    async def run(model: LocalModel) -> None:
        response = model.respond(STORY)
        await anext(response)
        pid = _child_of(model)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ModelError, match=r"the local model failed: its process ended \(signal 9\)"):
            async for _ in response:
                pass
        assert "Paris" in await said(model, FRANCE)
        assert _child_of(model) != pid

    _with_model(run)


def test_a_child_that_says_nothing_is_killed() -> None:
    """A stopped process is found out, and the turn ends with a timeout."""

    async def run(model: LocalModel) -> None:
        await said(model, FRANCE)
        pid = _child_of(model)
        os.kill(pid, signal.SIGSTOP)
        _, error = await answer(model, FRANCE)
        assert isinstance(error, ModelTimeout)
        assert str(error) == "the local model said nothing for 5 s and was stopped"
        await model.aclose()
        assert not _is_alive(pid)

    _with_model(run, "smollm2?max_tokens=16&silence_timeout_ms=5000")


def test_closing_ends_the_child() -> None:
    """Within a second, and twice is once."""

    async def run(model: LocalModel) -> int:
        await said(model, FRANCE)
        return _child_of(model)

    assert not _is_alive(_with_model(run))


def test_the_child_does_not_outlive_a_killed_server() -> None:
    """A server that ended by kill -9 leaves no process behind."""
    program = (
        "import asyncio\n"
        "from perdure.models.local import LocalModel\n"
        "from perdure.models.base import TurnContext\n"
        "async def main():\n"
        "    model = LocalModel()\n"
        "    async for _ in model.respond(TurnContext(text='Tell me a long story.')):\n"
        "        print(model._worker.process.pid, flush=True)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        child = int(server.stdout.readline())
        assert _is_alive(child)
        server.kill()
    deadline = time.monotonic() + 2
    while _is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_alive(child)


def test_a_broken_file_is_an_error(tmp_path: Path) -> None:
    """It ends the child and not this process."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\xff" * 100)

    async def run(model: LocalModel) -> None:
        for _ in range(2):
            _, error = await answer(model, FRANCE)
            assert type(error) is ModelError
            assert "the local model cannot be loaded" in str(error)

    _with_model(run, str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("smollm2?speed=3", "'speed' is no option of the local model; there are threads, max_tokens"),
        ("smollm2?threads=many", "threads=many: the local model's threads is a whole number"),
        ("smollm2?threads=0", "threads of the local model must be 1 at least"),
        ("smollm2?context_tokens=600", "must be max_tokens and 256 more at least"),
        ("gpt", "there is `local:smollm2`, or the path of a .gguf file"),
    ],
)
def test_a_wrong_name_says_what_is_wrong(text: str, words: str) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigError, match=words):
        LocalModel.from_text(text)


def test_the_empty_name_is_the_packaged_model() -> None:
    """With one thread and answers of 512 tokens at most."""
    assert LocalModel.from_text("").name == "local:smollm2"
    assert (LocalOptions().threads, LocalOptions().max_tokens) == (1, 512)
