"""A turn: one leg of an answer, from its ``start`` chunk to its last.

::

    (question waits) --begin--> streaming --the model is done-----> complete
                                 |  |  \\--stop, superseded------> aborted
                                 |  |   \\--the model failed-----> failed
                                 |  \\--a person must agree, or a
                                 |      client give a result------> waiting --all are in--> the next leg
                                 |--crash--> (interrupted: the row still says streaming)
                                 <--on activation: continue, or retry, or fail

The turn runs in the object, whoever is connected. What the model says goes, as AI SDK UI
message chunks, into the leg's stream; deltas that arrive together are joined into one
append. The append and whatever shows it to clients leave in the same commit's shadow: first
durable, then visible. `Steps` decides what is said when; this writes it down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from ..errors import ModelError, RemoteProtocolError
from ..streams.stream import Stream
from ..wire.fold import MessageFold
from ..wire.ui_chunks import (
    Abort,
    Chunk,
    Error,
    Finish,
    FinishReason,
    FinishStep,
    MessageMetadata,
    ReasoningEnd,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputError,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputDenied,
    ToolOutputError,
    encode_chunk,
)
from .listener import RoomListener
from .transcript import StoredMessage

Outcome = Literal["complete", "aborted", "failed", "waiting"]

ToolChunk = (
    ToolInputStart
    | ToolInputDelta
    | ToolInputAvailable
    | ToolInputError
    | ToolApprovalRequest
    | ToolOutputAvailable
    | ToolOutputError
    | ToolOutputDenied
)

UNFINISHED_CALLS = frozenset({"input-streaming", "input-available", "approval-requested", "approval-responded"})
"""States of a tool part whose call has no result yet."""

ANSWER_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of one answer: its text as UTF-8, its other chunks as JSON. A model that says more is stopped and the
turn fails."""


class Turn:
    """A running leg of an answer. `stop` ends it early; the rest is for `Steps`, which runs it."""

    def __init__(
        self,
        question: StoredMessage,
        answer: StoredMessage,
        stream: Stream,
        fold: MessageFold,
        listener: RoomListener,
        on_settled: Callable[[Turn, Outcome, str | None], None],
        after_durable: Callable[..., None],
        join: Callable[[Callable[[], None]], None],
    ) -> None:
        self.question = question
        self.answer = answer
        self.stream = stream
        self.fold = fold
        self.characters = len(fold.text)
        self.outcome: Outcome | None = None
        self.stop_reason: str | None = None
        self.task: asyncio.Task[None] | None = None
        self.has_results = False
        """Whether the model has yet to see results of its calls in this step."""
        self._listener = listener
        self._on_settled = on_settled
        self._after_durable = after_durable
        self._join = join
        self._buffer: list[str] = []
        self._bytes = len(fold.text.encode())
        self._text_id: str | None = next(iter(fold.open_text_ids), None)
        self._left_open = set(fold.open_text_ids)
        self._parts = 0
        self._in_flight = False
        self._gathering = False
        self._due = False
        self._finish_reason: FinishReason | None = None
        self._earlier_calls: frozenset[str] = frozenset()
        self._renamed: dict[str, str] = {}

    @property
    def leg(self) -> int:
        """Which leg of its answer this is; 1 is the first."""
        return self.answer.leg

    @property
    def position(self) -> int:
        """Chunks in the leg's stream: the number of the next one."""
        return self.stream.position

    @property
    def text(self) -> str:
        """What was said so far, appended or not."""
        return self.fold.text + "".join(self._buffer)

    def begin(self) -> None:
        """Append the opening chunk of a new leg."""
        about = self.answer.message.metadata if self.leg == 1 else None
        self._append(Start(message_id=self.answer.id, message_metadata=about))

    def go_on(self) -> None:
        """Take up an interrupted leg. Its text goes on where it was; a thought cannot, so it ends here."""
        self.flush()
        self._left_open = set(self.fold.open_text_ids)
        self._text_id = next(iter(self._left_open), None)
        for part_id in self.fold.open_reasoning_ids:
            self._append(ReasoningEnd(id=part_id))

    def begin_step(self) -> None:
        """The model is asked (again): what it says now is a step of its own."""
        self.end_step()
        self._earlier_calls = frozenset(part["toolCallId"] for part in self.fold.tool_parts)
        self._renamed.clear()
        self._append(StartStep())
        self.has_results = False

    def end_step(self) -> None:
        """Close what is open; the step is over, its tools have their results."""
        if self.fold.in_step:
            self.close_parts()
            self._append(FinishStep())

    def close_parts(self) -> None:
        """The model has said all that it has to say in this step."""
        self.flush()
        for part_id in self.fold.open_text_ids:
            self._append(TextEnd(id=part_id))
        for part_id in self.fold.open_reasoning_ids:
            self._append(ReasoningEnd(id=part_id))
        self._text_id = None
        self._left_open.clear()

    def stop(self, reason: str) -> bool:
        """End the turn early; what was said stays. False when it has ended already."""
        if self.outcome is not None or self.stop_reason is not None:
            return False
        self.stop_reason = reason
        if self.task is not None:
            self.task.cancel()
        return True

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
        """A chunk of the model's own: tools, reasoning, sources, data, or text parts with ids.

        Raises:
            ModelError: it is an ``error`` chunk, or the answer is longer than `ANSWER_BYTES_MAX`.
            RemoteProtocolError: it may not come here.
        """
        if type(chunk) is TextDelta and chunk.id == self._text_id:
            self.push_text(chunk.delta)
            return
        self.flush()
        if isinstance(chunk, (Start, Finish, Abort, Error, StartStep, FinishStep)):
            self._push_envelope(chunk)
            return
        data = None
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
            if isinstance(chunk, ToolChunk):
                chunk = self._with_own_id(chunk)
            data = encode_chunk(chunk)
            self._count(len(data))
        self._append(chunk, data)

    def _push_envelope(self, chunk: Start | Finish | Abort | Error | StartStep | FinishStep) -> None:
        """The envelope is the room's; what a model says of it counts where it tells something."""
        if isinstance(chunk, Error):
            raise ModelError(chunk.error_text)
        if isinstance(chunk, Abort):
            self.settle("aborted", None)
        elif isinstance(chunk, StartStep):
            if not self.fold.in_step or len(self.fold.step_parts) > 1:
                self.begin_step()
        elif isinstance(chunk, (Start, Finish)):
            if isinstance(chunk, Finish):
                self._finish_reason = chunk.finish_reason
            if chunk.message_metadata is not None:
                self._append(MessageMetadata(chunk.message_metadata))

    def _with_own_id(self, chunk: ToolChunk) -> ToolChunk:
        raw = chunk.tool_call_id
        # Calls that the model carries out itself are its own to number.
        begins = isinstance(chunk, (ToolInputStart, ToolInputAvailable, ToolInputError)) and not chunk.dynamic
        if begins and raw in self._earlier_calls and raw not in self._renamed:
            taken, number = self._earlier_calls, 2
            while f"{raw}-{number}" in taken:
                number += 1
            self._renamed[raw] = f"{raw}-{number}"
        own = self._renamed.get(raw)
        return chunk if own is None else msgspec.structs.replace(chunk, tool_call_id=own)

    def append(self, chunk: Chunk) -> None:
        """A chunk of the room's own: results of tools, requests for approval."""
        self.flush()
        self._append(chunk)
        self.has_results = True

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
        self._append(delta)
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
        start = self.answer.attempt if self.leg == 1 else f"{self.leg}-{self.answer.attempt}"
        return f"text-{start}-{self._parts}"

    def _append(self, chunk: Chunk, data: bytes | None = None) -> None:
        data = encode_chunk(chunk) if data is None else data
        self.fold.push(chunk)
        self.stream.append(data)
        self._listener.on_chunk(self, chunk, data)

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

    def unfinished_calls(self) -> Iterator[dict[str, Any]]:
        """The tool parts of this step whose calls have no result, or only a preliminary one; those that a provider
        carries out are its own."""
        for part in self.fold.step_parts:
            unfinished = part.get("state") in UNFINISHED_CALLS or part.get("preliminary")
            if unfinished and not part.get("providerExecuted"):
                yield part

    def settle(self, outcome: Outcome, error: str | None, *, finish_reason: FinishReason | None = None) -> None:
        """Append the closing chunks, close the stream. Once."""
        if self.outcome is not None:
            return
        self.close_parts()
        if outcome in ("complete", "waiting"):
            self.end_step()
            self._append(Finish(finish_reason=finish_reason or self._finish_reason or "stop"))
        else:
            for part in list(self.unfinished_calls()):
                why = "the answer was stopped" if outcome == "aborted" else "the answer failed"
                dynamic = True if part["type"] == "dynamic-tool" else None
                if part.get("preliminary"):
                    self._append(ToolOutputAvailable(part["toolCallId"], part["output"], dynamic=dynamic))
                else:
                    self._append(ToolOutputError(part["toolCallId"], f"no result: {why}", dynamic=dynamic))
            self._append(Abort() if outcome == "aborted" else Error(error_text=error or "the model failed"))
        self.outcome = outcome
        self.stream.close()
        self._on_settled(self, outcome, error)
