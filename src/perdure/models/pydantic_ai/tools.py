"""Tools: what a provider is told of the room's, and how an agent's own are carried out once.

An agent of pydantic-ai runs its tools itself. `OneTurn` is put around that as a *capability*, pydantic-ai's word
for what may wrap a run: each call goes through the room's ledger, so that a call which ended is not carried out
again when a crash or a resumed turn sends the agent through the same step.

The ledger keeps the tool's result as plain JSON, and what it told the model of a failure as an error. What a
`ToolReturn` holds beside its value (content for the model, chunks for people) is not kept: it is lost where a crash
comes between the tool's end and the next step.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

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

from ...errors import ToolError
from ...wire.ui_chunks import CHUNK_CLASSES, Chunk
from ..base import ToolCall, ToolLedger, ToolNotRun, ToolSpec
from .outputs import from_output_json, output_json

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

    A call is carried out only when the room has it in its log: else a crash could leave an effect whose call
    nobody knows, and the model would ask for it again.

    Attributes:
        ledger: keeps a call from being carried out twice; None where there is no room.
        results: calls of the step that is gone through again and have a result already.
        output_tools: the names of the tools that are no tools, but the agent's structured output.
        on_work: called with True when the first of some tools begins, with False when the last has ended.
    """

    ledger: ToolLedger | None = None
    results: Mapping[str, ai.ToolReturnPart] = field(default_factory=dict)
    output_tools: set[str] = field(default_factory=set)
    on_work: Callable[[bool], None] = lambda _working: None
    _shown: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    _working: int = 0

    def show(self, call_id: str) -> None:
        """The room has the call; it may be carried out."""
        self._shown[call_id].set()

    async def before_model_request(self, ctx: RunContext[Any], request_context: Any) -> Any:
        """Tell the stream of events where a step begins. Providers may use the ids of calls again in it."""
        self.results = {}
        self._shown.clear()
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
        if not _is_the_models(call, ctx.messages):
            return await handler(args)  # a tool that calls tools
        known = self.results.get(call.tool_call_id)
        if known is not None:
            return _known_result(known)
        await self._shown[call.tool_call_id].wait()
        self._work(1)
        try:
            return await self._once(call, tool_def, args, handler)
        finally:
            self._work(-1)

    async def _once(self, call: ai.ToolCallPart, tool_def: ToolDefinition, args: Any, handler: Any) -> Any:
        if self.ledger is None:
            try:
                return await handler(args)
            except ToolError as error:
                raise ToolFailed(str(error)) from error
        run = _Run(handler, args)
        idempotent = bool((tool_def.metadata or {}).get("idempotent"))
        try:
            kept = await self.ledger.run(
                call.tool_call_id, call.tool_name, call.args_as_dict(), run.once, idempotent=idempotent
            )
        except (ToolError, ToolNotRun) as error:
            if run.ended:
                return run.result()
            raise ToolFailed(str(error)) from error
        return run.result() if run.ended else from_output_json(kept)

    def _work(self, change: int) -> None:
        before, self._working = self._working, self._working + change
        if bool(before) != bool(self._working):
            self.on_work(bool(self._working))


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
        """Do it.

        Raises:
            ToolNotRun: the tool waits for somebody.
            ToolError: the model is to be told of a failure.
            Exception: what ends the agent's run.
        """
        token = _call.set(tool_call)
        try:
            self._returned = await self._handler(self._args)
        except (ApprovalRequired, CallDeferred) as asked:
            self._raised = asked
            raise ToolNotRun from asked
        except (ModelRetry, ToolRetryError, ToolFailed, ToolFailedError) as told:
            self._raised = told
            raise ToolError(told.message if isinstance(told, ModelRetry) else str(told)) from told
        finally:
            _call.reset(token)
            self.ended = self._raised is not None
        self.ended = True
        value = self._returned
        return output_json(value.return_value if isinstance(value, ai.ToolReturn) else value)

    def result(self) -> Any:
        """What the tool returned or raised."""
        if self._raised is not None:
            raise self._raised
        return self._returned


def _known_result(part: ai.ToolReturnPart) -> Any:
    if part.outcome == "success":
        return part.content
    raise ToolFailed(str(part.content))


def _is_the_models(call: ai.ToolCallPart, messages: Sequence[ai.ModelMessage]) -> bool:
    for message in reversed(messages):
        if isinstance(message, ai.ModelResponse):
            return any(part.tool_call_id == call.tool_call_id for part in message.tool_calls)
    return False
