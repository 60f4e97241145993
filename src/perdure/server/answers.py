"""Reading an answer for a client: its chunks, from where that client needs them to the end.

Every surface that speaks the AI SDK's chunks is a view of the same log: server-sent events, the frames of a
socket, resumption by number. An answer has a stream for each of its legs; which of them a client needs, and from
where on, follows from what it holds:

- It has nothing: the whole answer, earlier legs first (`whole_answer`).
- It sent an answer back with results in it: what came after the steps that it holds (`rest_of_answer`). Such a
  client appends, so it must be told nothing twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from ..chat.room import ChatRoom
from ..chat.transcript import StoredMessage, stream_name
from ..objects.cursor import StreamCursor
from ..objects.runtime import Runtime
from ..values import ObjectId
from ..wire.fold_tools import is_tool_part
from ..wire.messages import ChatMessage
from ..wire.target import Target, for_target
from ..wire.ui_chunks import (
    Abort,
    Chunk,
    Error,
    Finish,
    FinishStep,
    Start,
    ToolOutputAvailable,
    ToolOutputDenied,
    ToolOutputError,
    encode_chunk,
)
from ..wire.unfold import unfold

_STEP_END = encode_chunk(FinishStep())
_ENDS = (b'{"type":"finish"', b'{"type":"abort"', b'{"type":"error"')


@dataclass(frozen=True, slots=True)
class AnswerSource:
    """Where to read what a client is to be told: ``prefix``, then the room's stream from entry ``skip`` on.

    ``stream`` None: the prefix is all of it. ``skip_steps``: of the stream, so many steps are left out, too.
    """

    object_id: ObjectId
    answer_id: str
    stream: str | None
    prefix: tuple[bytes, ...] = ()
    skip: int = 0
    skip_steps: int = 0

    @property
    def is_stream(self) -> bool:
        """Whether all that is to be told is the stream, from its start."""
        return self.stream is not None and not self.prefix and not self.skip


def whole_answer(room: ChatRoom, object_id: ObjectId, answer_id: str) -> AnswerSource:
    """An answer from its start chunk, also one whose turn has not begun."""
    replay = room.replay(answer_id)
    if replay is None:
        return AnswerSource(object_id, answer_id, stream_name(answer_id))
    return AnswerSource(object_id, answer_id, replay.stream, replay.prefix, replay.skip)


def rest_of_answer(room: ChatRoom, object_id: ObjectId, held: ChatMessage) -> AnswerSource:
    """What comes after the steps of an answer that a client holds and has sent back."""
    answer = room.transcript.find(held.id)
    if answer is None:
        return whole_answer(room, object_id, held.id)
    steps = _count_steps(held)
    told = _count_steps(answer.message)  # where it is being made: before its newest leg
    if answer.status != "streaming":
        chunks = [*_after_steps(answer.message, steps), _end_for(answer, held, anything_new=steps < told)]
        return AnswerSource(object_id, answer.id, None, tuple(map(encode_chunk, chunks)))
    if steps >= told:
        skipped = steps - told
        prefix: tuple[bytes, ...] = (encode_chunk(Start(message_id=answer.id)),) if skipped else ()
        return AnswerSource(object_id, answer.id, answer.stream_name, prefix, skip=len(prefix), skip_steps=skipped)
    prefix = tuple(map(encode_chunk, _after_steps(answer.message, steps)))
    return AnswerSource(object_id, answer.id, answer.stream_name, prefix, skip=1)


def _count_steps(message: ChatMessage) -> int:
    return sum(part.get("type") == "step-start" for part in message.parts)


def _after_steps(message: ChatMessage, steps: int) -> list[Chunk]:
    """``start``, the results of the calls in the first ``steps`` steps, and all that comes after those."""
    start, *chunks = unfold(message)
    shown: list[Chunk] = [start]
    left = steps
    for chunk in chunks:
        if left == 0 or isinstance(chunk, ToolOutputAvailable | ToolOutputError | ToolOutputDenied):
            shown.append(chunk)
        if left and isinstance(chunk, FinishStep):
            left -= 1
    return shown


def _end_for(answer: StoredMessage, held: ChatMessage, *, anything_new: bool) -> Chunk:
    """How an answer that is not being made ends, for a client that wants it to go on."""
    if answer.status == "failed":
        return Error(error_text=answer.error or "the answer failed")
    if answer.status == "aborted":
        return Abort()
    if not anything_new and _asks_again(held):
        # A polite end would be answered with the same request, again and again.
        waits = answer.status == "waiting"
        return Error(error_text="this answer still waits for a result" if waits else "this answer has ended")
    return Finish(finish_reason="tool-calls" if answer.status == "waiting" else "stop")


def _asks_again(held: ChatMessage) -> bool:
    """Whether a client sends the answer back by itself, as `sendAutomaticallyWhen` of the AI SDK has it."""
    starts = [index for index, part in enumerate(held.parts) if part.get("type") == "step-start"]
    calls = [part for part in held.parts[starts[-1] + 1 if starts else 0 :] if is_tool_part(part)]
    settled = ("output-available", "output-error", "output-denied", "approval-responded")
    return bool(calls) and all(part.get("state") in settled for part in calls)


def turn_of(stream: str) -> str:
    """The last segment of the address under which the stream is read by the Durable Streams protocol."""
    return stream.removeprefix("turns/")


async def read_chunks(
    runtime: Runtime, source: AnswerSource, target: Target
) -> AsyncGenerator[Sequence[bytes], None]:
    """The chunks as JSON, in batches as they become durable, to the answer's end. No batch is empty.

    Raises:
        StreamNotFound: the stream is gone.
        ObjectReset: the room was reset again and again.
    """
    if source.prefix and (shown := for_target(source.prefix, target)):
        yield shown
    if source.stream is None:
        return
    skip, skip_steps = source.skip, source.skip_steps
    async with StreamCursor(runtime, source.object_id, source.stream) as cursor:
        while True:
            batch = await cursor.next()
            entries = batch.entries[skip:] if skip else batch.entries
            skip = max(0, skip - len(batch.entries))
            if skip_steps:
                entries, skip_steps = _without_steps(entries, skip_steps)
            if entries and (shown := for_target(entries, target)):
                yield shown
            if batch.closed:
                return


def _without_steps(entries: list[bytes], steps: int) -> tuple[list[bytes], int]:
    """The entries after so many steps, and how many are still to come; the end of the answer is always among them."""
    for index, entry in enumerate(entries):
        if entry.startswith(_ENDS):
            return entries[index:], 0
        steps -= entry == _STEP_END
        if not steps:
            return entries[index + 1 :], 0
    return [], steps
