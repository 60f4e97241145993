"""A turn's chunks as AG-UI events, the way TanStack AI's clients read them.

=================================  =====================================================================
chunk                              events
=================================  =====================================================================
start                              RUN_STARTED
the first part of any kind         TEXT_MESSAGE_START with the answer's id; its END comes with the end
text-*                             TEXT_MESSAGE_CONTENT
reasoning-*                        STEP_STARTED ``thinking-N``, REASONING_*, STEP_FINISHED
tool-input-*                       TOOL_CALL_START, _ARGS, _END
tool-output-*, tool-input-error    TOOL_CALL_RESULT; a failure has the state ``output-error``
tool-approval-request              CUSTOM ``approval-requested``
start-step, finish-step            STEP_STARTED ``step-N``, STEP_FINISHED; a step without parts is not told
source-*, file, data-*             CUSTOM, named like the chunk
message-metadata                   CUSTOM; what all metadata merge to is on the message's START and END
finish                             CUSTOM ``tool-input-available`` of each call that waits for the client,
                                   where the reason is ``tool-calls``; RUN_FINISHED
abort                              RUN_FINISHED with the result ``{"aborted": true}``
error                              RUN_ERROR
=================================  =====================================================================

What `@tanstack/ai` 0.58 makes of events, and so how they have to come:

- A message begins with TEXT_MESSAGE_START. Whatever else comes first makes a message with an id of the
  client's own, and the next START, be it a user's, takes that message over. A second START within a text makes a
  tab whose user has just posted forget that text.
- Text that follows a call is a text of its own, which clients before 0.48 only know by an END and a START before
  it. A run that goes on with a message of an earlier run begins it again, too.
- That tab has also forgotten which message is being told. Texts and calls name theirs; a thought or an error does
  not, and the rest of the answer would end up in a message of its own, or in the user's. So an empty text comes
  before each piece of a thought, and a further START before an error, which nothing follows.
- While a text grows, thoughts and results are held (`EventBuffer`).
- Thoughts of one step are one part there: each gets a step of its own.
- ``finishReason: "tool_calls"`` says that the run goes on. A client of a session stream that reads it waits
  for ever, so a turn that stops for its client ends with ``stop``.
- A stop is no error: RUN_ERROR would show one in every tab.
- Parts that are open at the same time are told one after the other, so that the text is that of the fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ..errors import RemoteProtocolError
from .agui_events import EventBuffer, Lane, client_metadata
from .agui_tools import ToolCalls
from .fold import MessageFold
from .ui_chunks import (
    Abort,
    Chunk,
    Custom,
    Data,
    Error,
    File,
    Finish,
    FinishReason,
    FinishStep,
    MessageMetadata,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningFile,
    ReasoningStart,
    SourceDocument,
    SourceUrl,
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
    chunk_type,
    decode_chunk,
)

_FINISH_REASONS: dict[FinishReason | None, str] = {"length": "length", "content-filter": "content_filter"}
"""All others are ``stop`` there."""


class AguiEncoder:
    """The events of one run, chunk by chunk.

    ``thread_id`` is the conversation's name, ``run_id`` the run's (the answer's id will do): both are in the run's
    first and last event. Same chunks, same events: an encoder that was `restore`-d with the chunks before a point
    goes on like the one that was there.
    """

    def __init__(self, thread_id: str, run_id: str) -> None:
        self.thread_id = thread_id
        self.run_id = run_id
        self.message_id: str | None = None
        self._running = False
        self._shown = False
        self._is_open = False
        self._buffer = EventBuffer()
        self._texts = Lane("text", self._show, self._say, lambda: None)
        self._thoughts = Lane("reasoning", self._begin_thought, self._think, self._end_thought)
        self._thought_count = 0
        self._tools = ToolCalls(self._buffer, self._show)
        self._step_count = 0
        self._step: str | None = None
        self._step_told = False
        self._metadata: MessageFold | None = None
        self._metadata_told = True

    def encode(self, chunk: bytes | str | Chunk) -> list[bytes]:
        """The events of the next chunk, each as compact JSON: often one, sometimes none.

        A ``start`` after an end begins another run of the same message: a tool's result came back.

        Raises:
            RemoteProtocolError: it is no chunk, or one that may not come here.
        """
        if isinstance(chunk, bytes | str):
            chunk = decode_chunk(chunk)
        if not self._running and type(chunk) is not Start:
            where = "before `start`" if self.message_id is None else "after the end of the stream"
            raise RemoteProtocolError(f"{chunk_type(chunk)} {where}")
        _HANDLERS[type(chunk)](self, chunk)
        return self._buffer.take()

    def restore(self, chunks: Iterable[bytes | str | Chunk]) -> None:
        """Take in chunks whose events were told before. Raises like `encode`."""
        for chunk in chunks:
            self.encode(chunk)

    def encode_earlier(self, chunk: bytes | str | Chunk) -> list[bytes]:
        """Like `encode`, for a chunk of a leg that is over and that this run goes on from: the run does not end
        with that leg, and nothing is asked that was answered since. Raises like `encode`."""
        if isinstance(chunk, bytes | str):
            chunk = decode_chunk(chunk)
        if isinstance(chunk, Finish):
            if chunk.message_metadata is not None:
                self._merge_metadata(MessageMetadata(chunk.message_metadata))
        elif isinstance(chunk, ToolApprovalRequest):
            self._tools.approval_given(chunk)
        elif not isinstance(chunk, Abort | Error):
            return self.encode(chunk)
        return self._buffer.take()

    def tell_given(self, parts: Iterable[dict[str, Any]]) -> list[bytes]:
        """The results that clients gave to calls while the answer waited for them, as its message has them: no
        chunk tells of those."""
        for part in parts:
            self._tools.given(part)
        return self._buffer.take()

    def pause(self) -> None:
        """The clients have been told so far, in a run that is over; where there was one."""
        if self._running:
            self._end_message()
        self._buffer.take()

    def end_message(self) -> list[bytes]:
        """The events that end the message without ending a run: for one that is told after the fact."""
        self._end_message()
        return self._buffer.take()

    # --- the message and its run

    def _on_start(self, chunk: Start) -> None:
        message_id = chunk.message_id or self.message_id or self.run_id
        if self.message_id not in (None, message_id):
            raise RemoteProtocolError(f"`start` of message {message_id!r} in that of message {self.message_id!r}")
        self.message_id = message_id
        if not self._running:
            self._running = True
            before = None if self._metadata is None else self._metadata.message()
            self._metadata = MessageFold(message_id, message=before)
            self._buffer.tell("RUN_STARTED", threadId=self.thread_id, runId=self.run_id)
            if self._shown:
                self._open_message()
        self._merge_metadata(chunk)

    def _on_finish(self, chunk: Finish) -> None:
        self._merge_metadata(chunk)
        self._end_message()
        if chunk.finish_reason == "tool-calls":
            self._tools.ask_client()
        self._finish_run(_FINISH_REASONS.get(chunk.finish_reason, "stop"))

    def _on_abort(self, _chunk: Abort) -> None:
        self._end_message()
        self._finish_run("stop", {"aborted": True})

    def _on_error(self, chunk: Error) -> None:
        self._end_message()
        self._buffer.tell("TEXT_MESSAGE_START", messageId=self.message_id, role="assistant")
        self._buffer.tell("TEXT_MESSAGE_END", messageId=self.message_id)
        # AG-UI's error names no run; this is where TanStack looks for it.
        run = {"threadId": self.thread_id, "runId": self.run_id}
        message = chunk.error_text or "the answer failed"
        self._buffer.tell("RUN_ERROR", message=message, metadata={"tanstack": run})

    def _finish_run(self, reason: str, result: dict[str, Any] | None = None) -> None:
        self._buffer.tell(
            "RUN_FINISHED",
            threadId=self.thread_id,
            runId=self.run_id,
            result=result,
            metadata={"tanstack": {"finishReason": reason}},
        )

    def _end_message(self) -> None:
        self._texts.end_all()
        self._thoughts.end_all()
        self._tools.end_inputs()
        # The text may still go on: in another run of this message.
        self._buffer.release(text_ended=False)
        self._end_step()
        if self._is_open:
            self._is_open = False
            self._buffer.tell("TEXT_MESSAGE_END", messageId=self.message_id, metadata=self._untold_metadata())
        self._running = False

    def _show(self) -> str | None:
        """Have clients know the message and the step that the next event belongs to; returns the message's id."""
        if not self._shown:
            self._shown = True
            self._open_message()
        if self._step is not None and not self._step_told:
            self._step_told = True
            self._buffer.tell("STEP_STARTED", stepName=self._step)
        return self.message_id

    def _open_message(self) -> None:
        self._is_open = True
        self._buffer.text_is_over()  # it is: by this
        metadata = self._untold_metadata()
        self._buffer.tell("TEXT_MESSAGE_START", messageId=self.message_id, role="assistant", metadata=metadata)

    # --- steps, texts, thoughts

    def _on_start_step(self, _chunk: StartStep) -> None:
        self._tools.end_inputs()
        self._end_step()
        self._step_count += 1
        self._step = f"step-{self._step_count}"

    def _on_finish_step(self, _chunk: FinishStep) -> None:
        self._end_step()

    def _end_step(self) -> None:
        if self._step is not None and self._step_told:
            self._buffer.tell("STEP_FINISHED", stepName=self._step)
        self._step, self._step_told = None, False

    def _say(self, text: str) -> None:
        if self._buffer.text_is_over():
            self._buffer.tell("TEXT_MESSAGE_END", messageId=self.message_id)
            self._open_message()
        self._buffer.tell_text(self.message_id, text)

    def _begin_thought(self) -> None:
        self._show()
        self._thought_count += 1
        self._buffer.tell_part("STEP_STARTED", stepName=f"thinking-{self._thought_count}")
        self._buffer.tell_part("REASONING_START", messageId=self._thought_id)
        self._buffer.tell_part("REASONING_MESSAGE_START", messageId=self._thought_id, role="reasoning")

    def _think(self, text: str) -> None:
        self._buffer.tell_part("TEXT_MESSAGE_CONTENT", messageId=self.message_id, delta="")
        self._buffer.tell_part("REASONING_MESSAGE_CONTENT", messageId=self._thought_id, delta=text)

    def _end_thought(self) -> None:
        self._buffer.tell_part("REASONING_MESSAGE_END", messageId=self._thought_id)
        self._buffer.tell_part("REASONING_END", messageId=self._thought_id)
        self._buffer.tell_part("STEP_FINISHED", stepName=f"thinking-{self._thought_count}")

    @property
    def _thought_id(self) -> str:
        return f"{self.message_id}-thinking-{self._thought_count}"

    # --- what has no part in TanStack's messages

    def _on_other(self, chunk: SourceUrl | SourceDocument | File | ReasoningFile | Custom | Data) -> None:
        value: dict[str, Any] = msgspec.to_builtins(chunk)
        name = value.pop("type")
        self._buffer.tell("CUSTOM", name=name, value={"messageId": self.message_id, **value})

    def _on_message_metadata(self, chunk: MessageMetadata) -> None:
        self._merge_metadata(chunk)
        value = {"messageId": self.message_id, "metadata": chunk.message_metadata}
        self._buffer.tell("CUSTOM", name="message-metadata", value=value)

    def _merge_metadata(self, chunk: Start | MessageMetadata | Finish) -> None:
        assert self._metadata is not None
        self._metadata.push(chunk)
        if chunk.message_metadata is not None:
            self._metadata_told = False

    def _untold_metadata(self) -> dict[str, Any] | None:
        """All of the message's metadata, where clients do not have them yet: they merge the top level only."""
        if self._metadata_told or self._metadata is None:
            return None
        self._metadata_told = True
        return client_metadata(self._metadata.message().metadata)


_HANDLERS: dict[type[Chunk], Callable[[AguiEncoder, Any], object]] = {
    Start: AguiEncoder._on_start,
    StartStep: AguiEncoder._on_start_step,
    FinishStep: AguiEncoder._on_finish_step,
    TextStart: lambda encoder, chunk: encoder._texts.start(chunk.id),
    TextDelta: lambda encoder, chunk: encoder._texts.grow(chunk.id, chunk.delta),
    TextEnd: lambda encoder, chunk: encoder._texts.end(chunk.id),
    ReasoningStart: lambda encoder, chunk: encoder._thoughts.start(chunk.id),
    ReasoningDelta: lambda encoder, chunk: encoder._thoughts.grow(chunk.id, chunk.delta),
    ReasoningEnd: lambda encoder, chunk: encoder._thoughts.end(chunk.id),
    ToolInputStart: lambda encoder, chunk: encoder._tools.input_start(chunk),
    ToolInputDelta: lambda encoder, chunk: encoder._tools.input_delta(chunk),
    ToolInputAvailable: lambda encoder, chunk: encoder._tools.input_available(chunk),
    ToolInputError: lambda encoder, chunk: encoder._tools.input_error(chunk),
    ToolApprovalRequest: lambda encoder, chunk: encoder._tools.approval_request(chunk),
    ToolOutputAvailable: lambda encoder, chunk: encoder._tools.output_available(chunk),
    ToolOutputError: lambda encoder, chunk: encoder._tools.output_error(chunk),
    ToolOutputDenied: lambda encoder, chunk: encoder._tools.output_denied(chunk),
    SourceUrl: AguiEncoder._on_other,
    SourceDocument: AguiEncoder._on_other,
    File: AguiEncoder._on_other,
    ReasoningFile: AguiEncoder._on_other,
    Custom: AguiEncoder._on_other,
    Data: AguiEncoder._on_other,
    MessageMetadata: AguiEncoder._on_message_metadata,
    Finish: AguiEncoder._on_finish,
    Abort: AguiEncoder._on_abort,
    Error: AguiEncoder._on_error,
}
