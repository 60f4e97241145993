"""Tools: what a provider is told of the room's, and how an agent's own are carried out once.

An agent of pydantic-ai runs its tools itself. `OneTurn` is put around that as a *capability*, pydantic-ai's word
for what may wrap a run: each call goes through the room's ledger, so that a call which ended is not carried out
again when a crash or a resumed turn sends the agent through the same step.

What the ledger keeps is the tool's result as plain JSON. Where a result is more than a value (a request to try
again, a failure told to the model, content beside the value) it keeps ``{"perdure.kind": …}``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai import messages as ai
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import (
    ApprovalRequired,
    CallDeferred,
    ModelRetry,
    ToolFailed,
    ToolFailedError,
    ToolRetryError,
)
from pydantic_ai.messages import CapabilityEvent
from pydantic_ai.tools import RunContext, ToolDefinition

from ...errors import ToolInterrupted
from ...wire.ui_chunks import CHUNK_CLASSES, Chunk, decode_chunk, encode_chunk
from ..base import ToolCall, ToolLedger, ToolSpec
from .outputs import from_output_json, output_json

KIND = "perdure.kind"

_call: ContextVar[ToolCall] = ContextVar("perdure_tool_call")


def current_call() -> ToolCall:
    """The call that is being carried out, for a tool of an agent: its idempotency key, its turn, its room.

    Raises:
        LookupError: not inside of a tool, or outside of a room.
    """
    return _call.get()


def tool_definitions(tools: Sequence[ToolSpec]) -> list[ToolDefinition]:
    """What a provider is told of the room's tools."""
    return [
        ToolDefinition(
            name=tool.name, description=tool.description or None, parameters_json_schema=dict(tool.parameters)
        )
        for tool in tools
    ]


@dataclass(kw_only=True)
class ModelAsked(CapabilityEvent, namespace="perdure"):
    """The agent asks its model (again): what comes now is another step."""


@dataclass
class OneTurn(AbstractCapability[Any]):
    """What a room adds to an agent's run.

    Attributes:
        ledger: keeps a call from being carried out twice; None where there is no room.
        results: calls of this answer that have a result already.
        output_tools: the names of the tools that are no tools, but the agent's structured output.
    """

    ledger: ToolLedger | None = None
    results: Mapping[str, ai.ToolReturnPart] = field(default_factory=dict)
    output_tools: set[str] = field(default_factory=set)

    async def before_model_request(self, ctx: RunContext[Any], request_context: Any) -> Any:
        """Tell the stream of events where a step begins."""
        await ctx.emit(ModelAsked())
        return request_context

    async def prepare_output_tools(
        self, ctx: RunContext[Any], tool_defs: list[ToolDefinition]
    ) -> list[ToolDefinition]:
        """Learn which calls are the agent's output."""
        self.output_tools.update(definition.name for definition in tool_defs)
        return tool_defs

    async def wrap_tool_execute(
        self, ctx: RunContext[Any], *, call: ai.ToolCallPart, tool_def: ToolDefinition, args: Any, handler: Any
    ) -> Any:
        """Carry the call out, once."""
        known = self.results.get(call.tool_call_id)
        if known is not None:
            return _known_result(known)
        if self.ledger is None:
            return await handler(args)
        run = _Run(handler, args)
        idempotent = bool((tool_def.metadata or {}).get("idempotent"))
        given = call.args_as_dict()
        try:
            kept = await self.ledger.run(call.tool_call_id, call.tool_name, given, run.once, idempotent=idempotent)
            if ctx.tool_call_approved and _kind(kept) in _ASKED:
                # It asked a person the first time; what is carried out now is another piece of work.
                key = f"{call.tool_call_id}.approved"
                kept = await self.ledger.run(key, call.tool_name, given, run.once, idempotent=idempotent)
        except ToolInterrupted as error:
            raise ToolFailed(str(error)) from error
        return run.result() if run.ended else _from_ledger(kept)


def carried_chunks(carried: object) -> list[Chunk]:
    """The chunks among what a tool returned as metadata, or an event holds."""
    items = carried if isinstance(carried, (list, tuple)) else [carried]
    return [item for item in items if isinstance(item, CHUNK_CLASSES)]


class _Run:
    """One run of a tool in this process: what it did is given to the agent as it is, and to the ledger as JSON."""

    def __init__(self, handler: Callable[[Any], Awaitable[Any]], args: Any) -> None:
        self._handler, self._args = handler, args
        self._returned: Any = None
        self._raised: Exception | None = None
        self.ended = False

    async def once(self, tool_call: ToolCall) -> Any:
        """Do it. Only what ends the agent's run is raised; the rest is an outcome to keep."""
        token = _call.set(tool_call)
        try:
            self._returned = await self._handler(self._args)
        except _OUTCOMES as outcome:
            self._raised = outcome
        finally:
            _call.reset(token)
        self.ended = True
        return _for_ledger(self._returned) if self._raised is None else _raised_for_ledger(self._raised)

    def result(self) -> Any:
        """What the tool returned or raised."""
        if self._raised is not None:
            raise self._raised
        return self._returned


def _raised_for_ledger(outcome: Exception) -> dict[str, Any]:
    match outcome:
        case ApprovalRequired():
            return {KIND: "approval"}
        case CallDeferred():
            return {KIND: "deferred"}
        case ModelRetry():
            return {KIND: "retry", "message": outcome.message}
        case ToolRetryError():
            return {KIND: "retry", "message": str(outcome)}
    return {KIND: "failed", "message": str(outcome)}


def _for_ledger(result: Any) -> Any:
    if not isinstance(result, ai.ToolReturn):
        value = output_json(result)
        return value if _kind(value) is None else {KIND: "return", "value": value}
    kept = {KIND: "return", "value": output_json(result.return_value)}
    if result.content is not None:
        kept["content"] = _CONTENT.dump_python(result.content, mode="json")
    if chunks := carried_chunks(result.metadata):
        kept["chunks"] = [encode_chunk(chunk).decode() for chunk in chunks]
    return kept


def _from_ledger(kept: Any) -> Any:
    match _kind(kept):
        case None:
            return from_output_json(kept)
        case "approval":
            raise ApprovalRequired
        case "deferred":
            raise CallDeferred
        case "retry":
            raise ModelRetry(kept["message"])
        case "failed":
            raise ToolFailed(kept["message"])
    content = _CONTENT.validate_python(kept["content"]) if "content" in kept else None
    chunks = [decode_chunk(text) for text in kept.get("chunks", ())]
    return ai.ToolReturn(from_output_json(kept["value"]), content=content, metadata=chunks or None)


def _known_result(part: ai.ToolReturnPart) -> Any:
    if part.outcome == "success":
        return part.content
    raise ToolFailed(str(part.content))


def _kind(value: Any) -> str | None:
    kind = value.get(KIND) if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None


_ASKED = ("approval", "deferred")
_OUTCOMES = (ApprovalRequired, CallDeferred, ModelRetry, ToolRetryError, ToolFailed, ToolFailedError)
_CONTENT: TypeAdapter[Any] = TypeAdapter(str | list[ai.UserContent])
