"""Tools: what a provider is told of the room's, and how an agent's own are carried out once.

An agent of pydantic-ai runs its tools itself. `OneTurn` is put around that as a *capability*, pydantic-ai's word
for what may wrap a run: each call goes through the room's ledger, so that a call which ended is not carried out
again when a crash or a resumed turn sends the agent through the same step.

The ledger keeps the tool's result as plain JSON, and what it told the model of a failure as an error. What a
`ToolReturn` holds beside its value (content for the model, chunks for people) is not kept: it is lost where a crash
comes between the tool's end and the next step. Its key is the call's id and ``.run``, or ``.approved`` when a person
has agreed: a tool that asks by itself has run before, and is to run again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
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
from pydantic_ai.messages import CapabilityEvent, CustomEvent
from pydantic_ai.tools import RunContext, ToolDefinition

from ...errors import ToolError
from ...wire.ui_chunks import Chunk, Data, File, SourceDocument, SourceUrl
from ..base import ToolCall, ToolLedger, ToolSpec
from .history import calls_as_text
from .outputs import from_output_json, output_json

_NEEDS_APPROVAL = "the tool was not carried out: it waits for a person's approval"
_NEEDS_RESULT = "the tool was not carried out: it waits for a result"

_ASKED: dict[str, type[ApprovalRequired] | type[CallDeferred]] = {
    _NEEDS_APPROVAL: ApprovalRequired,
    _NEEDS_RESULT: CallDeferred,
}
"""What the ledger keeps of a tool that asked, and what that means."""

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


WORKING_TICK_MS = 5_000
"""How often a tool that takes its time says that it is at work, so that nobody takes its agent for dead."""


@dataclass(kw_only=True)
class ModelAsked(CapabilityEvent, namespace="perdure"):
    """The agent asks its model (again): what comes now is another step."""


@dataclass(kw_only=True)
class PreliminaryResult(CustomEvent, name="perdure_preliminary_result"):
    """What a tool of an agent has so far: ``await ctx.emit(PreliminaryResult(output=...))``.

    Clients show it in the result's place until the next one, or the result, comes. Only while the tool runs.
    """

    output: Any


@dataclass(kw_only=True)
class StillWorking(CapabilityEvent, namespace="perdure"):
    """A tool is at work."""


class CallIds:
    """Gives an agent's calls ids of their own in the whole answer: providers use theirs again in later steps."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        """``taken``: the ids in the answer so far."""
        self._taken = set(taken)
        self._own: dict[tuple[int, str], str] = {}

    def own(self, step: int, raw: str) -> str:
        """The id for the provider's ``raw`` in that request to it; before the first (0) the ids are the answer's."""
        if step == 0:
            return raw
        if (step, raw) not in self._own:
            own, number = raw, 1
            while own in self._taken:
                number += 1
                own = f"{raw}-{number}"
            self._taken.add(own)
            self._own[step, raw] = own
        return self._own[step, raw]


@dataclass
class OneTurn(AbstractCapability[Any]):
    """What a room adds to an agent's run.

    A call is carried out only when the room has it in its log: else a crash could leave an effect whose call
    nobody knows, and the model would ask for it again.

    Attributes:
        ids: of this answer's calls.
        ledger: keeps a call from being carried out twice; None where there is no room.
        results: calls of the step that is gone through again and have a result already.
        output_tools: the names of the tools that are no tools, but the agent's structured output.
        tick_ms: how often tools at work say so.
    """

    ids: CallIds = field(default_factory=CallIds)
    ledger: ToolLedger | None = None
    results: Mapping[str, ai.ToolReturnPart] = field(default_factory=dict)
    output_tools: set[str] = field(default_factory=set)
    tick_ms: int = WORKING_TICK_MS
    _shown: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    _step: int = 0

    def show(self, call_id: str) -> None:
        """The room has the call; it may be carried out."""
        self._shown[call_id].set()

    async def before_model_request(self, ctx: RunContext[Any], request_context: Any) -> Any:
        """Tell the stream of events where a step begins; keep calls from a model that has no tools."""
        self._step += 1
        await ctx.emit(ModelAsked())
        told = request_context.model_request_parameters
        if not told.function_tools and not told.output_tools:
            return replace(request_context, messages=calls_as_text(request_context.messages))
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
        call_id = self.ids.own(self._step, call.tool_call_id)
        if self._step == 0 and call_id in self.results:
            return _known_result(self.results[call_id])
        await self._shown[call_id].wait()
        ticking = asyncio.create_task(self._tick(ctx))
        try:
            if self.ledger is None:
                return await _told(handler(args))
            run = _Run(call_id, handler, args)
            return await self._once(run, call, tool_def, approved=ctx.tool_call_approved)
        finally:
            ticking.cancel()

    async def _once(self, run: _Run, call: ai.ToolCallPart, tool_def: ToolDefinition, *, approved: bool) -> Any:
        assert self.ledger is not None
        key = f"{run.call_id}.{'approved' if approved else 'run'}"
        idempotent = bool((tool_def.metadata or {}).get("idempotent"))
        try:
            kept = await self.ledger.run(key, call.tool_name, call.args_as_dict(), run.once, idempotent=idempotent)
        except ToolError as error:
            if run.ended:
                return run.result()
            if str(error) in _ASKED:
                raise _ASKED[str(error)]() from error
            raise ToolFailed(str(error)) from error
        return run.result() if run.ended else from_output_json(kept)

    async def _tick(self, ctx: RunContext[Any]) -> None:
        while True:
            await asyncio.sleep(self.tick_ms / 1000)
            await ctx.emit(StillWorking())


def carried_chunks(carried: object) -> list[Chunk]:
    """The parts for people among what a tool returned as metadata, or an event holds."""
    items = carried if isinstance(carried, (list, tuple)) else [carried]
    return [item for item in items if isinstance(item, (Data, File, SourceUrl, SourceDocument))]


async def _told(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except ToolError as error:
        raise ToolFailed(str(error)) from error


class _Run:
    """One run of a tool in this process: what it did is given to the agent as it is, and to the ledger as JSON."""

    def __init__(self, call_id: str, handler: Callable[[Any], Awaitable[Any]], args: Any) -> None:
        self.call_id = call_id
        self.ended = False
        self._handler, self._args = handler, args
        self._returned: Any = None
        self._raised: Exception | None = None

    async def once(self, tool_call: ToolCall) -> Any:
        """Do it.

        Raises:
            ToolError: the tool waits for somebody, or the model is to be told of a failure.
            Exception: what ends the agent's run.
        """
        token = _call.set(replace(tool_call, id=self.call_id))
        try:
            self._returned = await _told(self._handler(self._args))
        except (ApprovalRequired, CallDeferred) as asked:
            self._raised = asked
            raise ToolError(_NEEDS_APPROVAL if isinstance(asked, ApprovalRequired) else _NEEDS_RESULT) from asked
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
