"""pydantic-ai's events as text and chunks.

::

    text                              str
    thinking                          reasoning-start / -delta / -end, its signature in the end's providerMetadata
    a call, as the provider writes it tool-input-start / -delta / -available
    what an agent's tool did          tool-output-available / -error / -denied, and chunks that it carried
    a call that waits for a person    tool-approval-request
    a provider's own tool             the same chunks with providerExecuted
    citations                         source-url, source-document, at the end of the response: text is not torn
    a file that the model made        file, as a data URL
    an agent's structured output      data-output, and JSON as text where the agent said nothing
    the next request of an agent      finish-step, start-step
    PreliminaryResult                 tool-output-available, preliminary
    any other CustomEvent             data-NAME
    a tool that takes its time        "", now and then
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from pydantic_ai import AgentRunResultEvent
from pydantic_ai import messages as ai
from pydantic_ai.tools import DeferredToolRequests
from pydantic_core import to_json

from ...wire.ui_chunks import (
    Chunk,
    Data,
    File,
    FinishStep,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    SourceDocument,
    SourceUrl,
    StartStep,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputError,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputDenied,
    ToolOutputError,
)
from .history import OUTPUT_TYPE
from .metadata import metadata_of, plain_json
from .outputs import output_json
from .tools import CallIds, ModelAsked, PreliminaryResult, StillWorking, carried_chunks

Piece = str | Chunk

NO_JSON = "the model wrote an input that is no JSON object"


class Translation:
    """The events of one response of a model, or one run of an agent."""

    def __init__(
        self,
        *,
        ids: CallIds | None = None,
        room_tools: Collection[str] | None = None,
        output_tools: Collection[str] = (),
        known: Collection[str] = (),
        settled: Collection[str] = (),
        sources: Collection[str] = (),
        step_begun: bool = True,
    ) -> None:
        """
        Args:
            ids: of the answer's calls.
            room_tools: the tools that are not the model's own; None where it has none of its own. Calls of its
                own are ``dynamic``: the room neither knows nor carries them out.
            output_tools: tools whose calls are an agent's structured output, and not shown; may still grow.
            known: calls that the answer shows already.
            settled: those of them whose result it shows.
            sources: addresses that the answer lists already.
            step_begun: whether the first request's step is the one that the room has begun.
        """
        self._ids = ids or CallIds()
        self._step = 0
        self._room_tools, self._output_tools = room_tools, output_tools
        self._settled = settled
        self._sources = set(sources)
        self._cited: list[Chunk] = []
        self._step_begun = step_begun
        self._thinking: str | None = None
        self._thought_count = 0
        self._calls: dict[int, str] = {}
        self._step_has_calls = False
        self._shown = {(0, id) for id in known}
        self._spoke = False

    def pieces_of(self, event: object) -> Iterator[Piece]:
        """What ``event`` makes known."""
        match event:
            case ai.PartStartEvent(index=index, part=part):
                yield from self._part_start(index, part)
            case ai.PartDeltaEvent(index=index, delta=delta):
                yield from self._part_delta(index, delta)
            case ai.PartEndEvent(index=index, part=part):
                yield from self._part_end(index, part, event.canonical_system)
            case ai.FunctionToolCallEvent(part=part):
                yield from self._input(part)
            case ai.FunctionToolResultEvent(part=part):
                yield from self._output(part)
            case ModelAsked():
                yield from self._next_step()
            case PreliminaryResult(output=output, tool_call_id=str(raw)):
                id = self._ids.own(self._step, raw)
                yield ToolOutputAvailable(id, output_json(output), dynamic=True, preliminary=True)
            case StillWorking():
                yield ""
            case ai.CustomEvent():
                yield from _custom(event)
            case AgentRunResultEvent(result=result):
                yield from self._result(result.output)

    def end(self) -> Iterator[Piece]:
        """What was still held back when the events ended."""
        yield from self._end_thinking(None)
        yield from self._flush_cited()

    # --- parts of a response

    def _part_start(self, index: int, part: ai.ModelResponsePart) -> Iterator[Piece]:
        match part:
            case ai.TextPart(content=text):
                yield from self._text(text)
            case ai.ThinkingPart(content=text):
                yield from self._end_thinking(None)
                yield from self._think(text)
            case ai.ToolCallPart() | ai.NativeToolCallPart():
                yield from self._end_thinking(None)
                if part.tool_name not in self._output_tools:
                    self._calls[index] = self._id(part)
                    self._step_has_calls |= not _native(part)
                    yield ToolInputStart(self._calls[index], part.tool_name, _native(part), self._dynamic(part))
                    yield from self._input_delta(index, part.args)
            case ai.FilePart(content=file):
                yield from self._end_thinking(None)
                yield File(file.data_uri, file.media_type, provider_metadata=metadata_of(part))

    def _part_delta(self, index: int, delta: ai.ModelResponsePartDelta) -> Iterator[Piece]:
        match delta:
            case ai.TextPartDelta(content_delta=text):
                yield from self._text(text)
            case ai.ThinkingPartDelta(content_delta=text):
                yield from self._think(text or "")
            case ai.ToolCallPartDelta(args_delta=args) if index in self._calls:
                yield from self._input_delta(index, args)

    def _part_end(self, index: int, part: ai.ModelResponsePart, canonical_system: str | None) -> Iterator[Piece]:
        match part:
            case ai.TextPart(citations=list(citations)):
                self._cite(citations)
            case ai.ThinkingPart():
                metadata = metadata_of(part, canonical_system)
                if self._thinking is None and metadata is not None:
                    yield self._begin_thinking()  # nothing to read, but the provider wants its signature back
                yield from self._end_thinking(metadata)
            case ai.ToolCallPart() | ai.NativeToolCallPart() if index in self._calls:
                yield from self._input(part, canonical_system)
            case ai.NativeToolReturnPart():
                yield from self._output(part)

    def _text(self, text: str) -> Iterator[Piece]:
        if text:
            self._spoke = True
            yield from self._end_thinking(None)
            yield text

    def _think(self, text: str) -> Iterator[Piece]:
        if not text:
            return
        if self._thinking is None:
            yield self._begin_thinking()
        assert self._thinking is not None
        yield ReasoningDelta(self._thinking, text)

    def _begin_thinking(self) -> Chunk:
        self._thought_count += 1
        self._thinking = f"reasoning-{self._thought_count}"
        return ReasoningStart(self._thinking)

    def _end_thinking(self, metadata: dict[str, dict[str, Any]] | None) -> Iterator[Piece]:
        if self._thinking is not None:
            ended, self._thinking = self._thinking, None
            yield ReasoningEnd(ended, provider_metadata=metadata)

    # --- tools

    def _input(
        self, part: ai.ToolCallPart | ai.NativeToolCallPart, canonical_system: str | None = None
    ) -> Iterator[Piece]:
        """The whole input, once: when it has been written, or when the agent takes the call up."""
        id = self._id(part)
        if (self._step, id) in self._shown or part.tool_name in self._output_tools:
            return
        self._shown.add((self._step, id))
        more: dict[str, Any] = {
            "provider_executed": _native(part),
            "provider_metadata": metadata_of(part, canonical_system),
            "dynamic": self._dynamic(part),
        }
        try:
            given = part.args_as_dict(raise_if_invalid=True)
        except (ValueError, AssertionError):
            yield ToolInputError(id, part.tool_name, part.args, NO_JSON, **more)
            return
        yield ToolInputAvailable(id, part.tool_name, given, **more)

    def _input_delta(self, index: int, args: object) -> Iterator[Piece]:
        text = args if isinstance(args, str) else "" if args is None else json.dumps(args)
        if text:
            yield ToolInputDelta(self._calls[index], text)

    def _output(self, part: ai.ToolReturnPart | ai.NativeToolReturnPart) -> Iterator[Piece]:
        id = self._id(part)
        if (self._step == 0 and id in self._settled) or part.tool_name in self._output_tools:
            return
        if part.outcome == "denied":
            yield ToolOutputDenied(id)
        elif part.outcome == "success":
            yield ToolOutputAvailable(id, output_json(part.content), _native(part), self._dynamic(part))
        else:
            text = part.model_response_str(wrap_if_error=False)
            yield ToolOutputError(id, text, _native(part), self._dynamic(part))
        yield from carried_chunks(part.metadata)

    def _id(self, part: ai.BaseToolCallPart | ai.BaseToolReturnPart) -> str:
        """The room numbers the calls that it carries out; an agent's are its own to number."""
        return self._ids.own(self._step, part.tool_call_id) if self._dynamic(part) else part.tool_call_id

    def _dynamic(self, part: ai.BaseToolCallPart | ai.BaseToolReturnPart) -> bool | None:
        own = self._room_tools is not None and part.tool_name not in self._room_tools
        return True if own and _native(part) is None else None

    # --- an agent's run

    def _next_step(self) -> Iterator[Piece]:
        """The model is asked (again)."""
        self._step += 1
        if self._step_begun:
            self._step_begun = False  # that was the room's
            return
        yield from self._new_step()

    def _new_step(self) -> Iterator[Piece]:
        yield from self.end()
        self._calls.clear()
        self._step_has_calls = False
        yield FinishStep()
        yield StartStep()

    def _result(self, output: object) -> Iterator[Piece]:
        if isinstance(output, DeferredToolRequests):
            for part in output.approvals:
                yield ToolApprovalRequest(self._id(part), self._id(part))
            return
        if self._step_has_calls:
            # A step with calls is one that goes on; this is the end.
            yield from self._new_step()
        if output is not None and not isinstance(output, str):
            yield Data(OUTPUT_TYPE, plain_json(output))
            if not self._spoke:
                yield from self._text(to_json(output, fallback=str).decode())
        elif output and not self._spoke:
            yield from self._text(output)  # an output function made it

    # --- sources

    def _cite(self, citations: list[ai.Citation]) -> None:
        for source in (source for citation in citations for source in citation.sources):
            if isinstance(source, ai.WebCitationSource):
                self._cite_once(source.url, SourceUrl(source.url, source.url, title=source.title))
            elif source.title:
                id = source.document_id or source.title
                self._cite_once(id, SourceDocument(id, "application/octet-stream", source.title))

    def _cite_once(self, id: str, chunk: Chunk) -> None:
        if id not in self._sources:
            self._sources.add(id)
            self._cited.append(chunk)

    def _flush_cited(self) -> Iterator[Piece]:
        yield from self._cited
        self._cited.clear()


def _native(part: ai.BaseToolCallPart | ai.BaseToolReturnPart) -> bool | None:
    """Whether the provider carries the call out itself, as chunks say it."""
    return isinstance(part, (ai.NativeToolCallPart, ai.NativeToolReturnPart)) or None


def _custom(event: ai.CustomEvent) -> Iterator[Piece]:
    payload = event.to_payload()
    chunks = carried_chunks(payload)
    yield from chunks
    if not chunks and type(event).ui:
        yield Data(f"data-{event.name}", plain_json(payload))
