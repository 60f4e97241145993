"""One turn: from a user's message to a settled answer.

::

    waiting --start--> streaming --the model is done--> complete
                          |  \\--stop, superseded-----> aborted
                          |   \\--the model failed----> failed
                          |--crash--> (interrupted: the row still says streaming)
                          <--on activation: continue, or retry, or fail

The turn runs in the object, whoever is connected. What the model says goes, as AI SDK UI
message chunks, into the turn's stream; deltas that arrive together are joined into one
append. The append and whatever shows it to clients leave in the same commit's shadow: first
durable, then visible.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Literal, Protocol

from ..errors import LocalProtocolError, ModelError, RemoteProtocolError
from ..models.base import TurnContext
from ..streams.stream import Stream
from ..wire.fold import MessageFold
from ..wire.ui_chunks import (
    Abort,
    Chunk,
    Error,
    Finish,
    FinishStep,
    ReasoningEnd,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    encode_chunk,
)
from .transcript import StoredMessage

Outcome = Literal["complete", "aborted", "failed"]

ANSWER_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of one answer: its text as UTF-8, its other chunks as JSON. A model that says more is stopped and the
turn fails."""


class TurnListener(Protocol):
    """Who shows a turn's progress to clients."""

    def on_text(self, turn: Turn, text: str) -> None:
        """The answer grew by ``text`` (uncommitted; what is sent now waits at the gate)."""

    def on_chunk(self, turn: Turn, chunk: Chunk) -> None:
        """A chunk was appended to the turn's stream."""

    def on_settled(self, turn: Turn, outcome: Outcome, error: str | None) -> None:
        """The answer has ended; its last chunks are appended and its stream is closed."""


class Turn:
    """A running turn. `run` does it; `stop` ends it early."""

    def __init__(
        self,
        question: StoredMessage,
        answer: StoredMessage,
        stream: Stream,
        fold: MessageFold,
        listener: TurnListener,
        after_durable: Callable[..., None],
        join: Callable[[Callable[[], None]], None],
    ) -> None:
        self.question = question
        self.answer = answer
        self.stream = stream
        self.fold = fold
        self.characters = len(fold.text)
        self.outcome: Outcome | None = None
        self.task: asyncio.Task[None] | None = None
        self._listener = listener
        self._after_durable = after_durable
        self._join = join
        self._stop_reason: str | None = None
        self._buffer: list[str] = []
        self._bytes = len(fold.text.encode())
        self._text_id: str | None = next(iter(fold.open_text_ids), None)
        self._left_open = set(fold.open_text_ids)
        self._parts = 0
        self._in_flight = False
        self._gathering = False
        self._due = False

    @property
    def text(self) -> str:
        """What was said so far, appended or not."""
        return self.fold.text + "".join(self._buffer)

    def begin(self) -> None:
        """Append the opening chunks of a new answer."""
        self._append(Start(message_id=self.answer.id))
        self._append(StartStep())

    def go_on(self) -> None:
        """Take up an interrupted answer. Its text goes on where it was; a thought cannot, so it ends here."""
        for part_id in self.fold.open_reasoning_ids:
            self._append(ReasoningEnd(id=part_id))

    def stop(self, reason: str) -> bool:
        """End the turn early; what was said stays. False when it has ended already."""
        if self.outcome is not None or self._stop_reason is not None:
            return False
        self._stop_reason = reason
        if self.task is not None:
            self.task.cancel()
        return True

    async def run(self, response: Callable[[TurnContext], AsyncIterator[str | Chunk]], context: TurnContext) -> None:
        """Let the model speak; settle the turn. Cancelled without `stop`, it leaves the turn interrupted."""
        try:
            async with aclosing(response(context)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    if isinstance(piece, str):
                        self.push_text(piece)
                    else:
                        self.push_chunk(piece)
                    if self.outcome is not None:
                        return
        except asyncio.CancelledError:
            if self._stop_reason is None:
                raise
            self.settle("aborted", None)
        except (ModelError, RemoteProtocolError, LocalProtocolError) as error:
            self.settle("failed", str(error))
        except Exception as error:
            self.settle("failed", f"{type(error).__name__}: {error}")
            raise
        else:
            self.settle("complete", None)

    # --- what the model says

    def push_text(self, text: str) -> None:
        """Text of the answer. Joined with what else arrives before the next append."""
        if not text:
            return
        self._count(len(text) if text.isascii() else len(text.encode()))
        self._buffer.append(text)
        if not self._gathering:
            self._gathering = True
            self._join(self._on_due)

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > ANSWER_BYTES_MAX:
            raise ModelError(f"the answer is longer than {ANSWER_BYTES_MAX:,} bytes (answer_bytes_max)")

    def _on_due(self) -> None:
        """What gathers has waited as long as it may: it goes now, or behind the append that is under way."""
        self._gathering = False
        if self._in_flight:
            self._due = True
        else:
            self.flush()

    def push_chunk(self, chunk: Chunk) -> None:
        """A chunk of the model's own: tools, reasoning, sources, data, or text parts with ids."""
        if type(chunk) is TextDelta and chunk.id == self._text_id:
            self.push_text(chunk.delta)
            return
        self.flush()
        if isinstance(chunk, (Start, Finish)):
            return  # the envelope is the room's
        if isinstance(chunk, Error):
            raise ModelError(chunk.error_text)
        if isinstance(chunk, Abort):
            self.settle("aborted", None)
            return
        if type(chunk) is TextStart:
            if chunk.id in self._left_open:
                # The model, started again, begins the part that it was in when it was interrupted.
                self._left_open.discard(chunk.id)
                self._text_id = chunk.id
                return
            self._end_left_open()
            self._text_id = chunk.id
        elif type(chunk) is TextEnd:
            self._left_open.discard(chunk.id)
            self._text_id = None
        elif type(chunk) is TextDelta:
            raise RemoteProtocolError(f"the model spoke in a text part {chunk.id!r} that is not open")
        else:
            self._end_left_open()
            if self._text_id is not None and self._text_id.startswith("text-"):
                self._close_text()
            self._count(len(encode_chunk(chunk)))
        self._append(chunk)

    def flush(self) -> None:
        """Append what has gathered."""
        if not self._buffer or self.outcome is not None:
            return
        text = "".join(self._buffer)
        self._buffer.clear()
        if self._text_id is None:
            self._text_id = self._new_text_id()
            self._append(TextStart(id=self._text_id))
        delta = TextDelta(id=self._text_id, delta=text)
        self.fold.push(delta)
        self.stream.append(encode_chunk(delta))
        self._listener.on_chunk(self, delta)
        self.characters += len(text)
        self._listener.on_text(self, text)
        self._in_flight = True
        self._after_durable(self._landed)

    def _landed(self) -> None:
        """The last append is durable: what came due meanwhile follows."""
        self._in_flight = False
        if self._due:
            self._due = False
            asyncio.get_running_loop().call_soon(self.flush)

    def _new_text_id(self) -> str:
        self._parts += 1
        return f"text-{self.answer.attempt}-{self._parts}"

    def _append(self, chunk: Chunk) -> None:
        self.fold.push(chunk)
        self.stream.append(encode_chunk(chunk))
        self._listener.on_chunk(self, chunk)

    def _close_text(self) -> None:
        if self._text_id is not None:
            self._append(TextEnd(id=self._text_id))
            self._text_id = None

    def _end_left_open(self) -> None:
        """The model has gone on to something else than the part that it was interrupted in."""
        for part_id in self._left_open:
            self._append(TextEnd(id=part_id))
        if self._text_id in self._left_open:
            self._text_id = None
        self._left_open.clear()

    # --- the end

    def settle(self, outcome: Outcome, error: str | None) -> None:
        """Append the closing chunks, close the stream. Once."""
        if self.outcome is not None:
            return
        self.flush()
        for part_id in self.fold.open_text_ids:
            self._append(TextEnd(id=part_id))
        for part_id in self.fold.open_reasoning_ids:
            self._append(ReasoningEnd(id=part_id))
        if outcome == "complete":
            self._append(FinishStep())
            self._append(Finish(finish_reason=self.fold.finish_reason or "stop"))
        elif outcome == "aborted":
            self._append(Abort())
        else:
            self._append(Error(error_text=error or "the model failed"))
        self.outcome = outcome
        self.stream.close()
        self._listener.on_settled(self, outcome, error)
