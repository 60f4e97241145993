"""`PydanticAIModel`: ``"anthropic:…"``, ``"openai:…"``, any ``Model`` or ``Agent`` of pydantic-ai.

pydantic-ai's events become text and chunks (`translation`), our messages become its messages (`history`). Its
own wire encoder is not used: it makes a stream a request long, without a log to resume from.

**A model** is told of the room's tools and calls them; the room carries them out and asks again. **An agent** runs
its own tools, each through the room's ledger (`tools`), and may call the room's as well. A call of either kind
that waits for a person or a client ends the response; the agent goes on when it is asked again with what they said.

**Continuing after a crash.** A provider that takes a *prefill* is given the partial answer as the
beginning of its own message and goes on from there, mid-word if need be: Anthropic's models up to the 4.5
family. All others see the partial answer as a finished message, then `CONTINUE_INSTRUCTION` in the user's
name, and repeated words at the seam are taken off. A provider that turns out to refuse a prefill is asked
the second way in the same turn.

**Ends.** An answer is whole only when the provider said why it ended. A connection that was cut, also one
that was closed politely without that word, raises `ModelError`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_ai import exceptions
from pydantic_ai import messages as ai
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.capabilities import ReinjectSystemPrompt
from pydantic_ai.direct import model_request_stream
from pydantic_ai.models import Model as ProviderModel
from pydantic_ai.models import ModelRequestParameters, infer_model
from pydantic_ai.tools import DeferredToolRequests
from pydantic_ai.toolsets import ExternalToolset
from pydantic_ai.usage import RequestUsage, RunUsage

from ...errors import ConfigError, ModelError, ModelTimeout
from ...wire.ui_chunks import (
    Chunk,
    Finish,
    FinishReason,
    FinishStep,
    MessageMetadata,
    ToolInputAvailable,
    ToolInputError,
    ToolInputStart,
)
from ..continuation import AfterOverlap, AfterSpace
from .errors import model_error, was_cut
from .history import History, history_of, tool_name
from .tools import WORKING_TICK_MS, CallIds, OneTurn, tool_definitions
from .translation import Piece, Translation

if TYPE_CHECKING:
    from ...wire.messages import ChatMessage
    from ..base import TurnContext

SILENCE_TIMEOUT_MS = 180_000
"""Longest time between two events of a provider. Long: some models think for minutes without a word."""

_PREFILL_MODELS = re.compile(r"claude-(2|3|instant|(opus|sonnet|haiku)-4(-[015]\b|-\d{8}|@|$))")
"""Anthropic's models up to 4.5; later ones answer a prefill with status 400."""

_FINISH_REASONS: dict[str, FinishReason] = {"length": "length", "content_filter": "content-filter"}

_FINISHED = ("output-available", "output-error", "output-denied")


class PydanticAIModel:
    """A pydantic-ai model or agent as a room's model."""

    def __init__(
        self,
        source: str | ProviderModel | AbstractAgent[Any, Any],
        *,
        settings: dict[str, Any] | None = None,
        deps: Callable[[TurnContext], Any] | None = None,
        silence_timeout_ms: int = SILENCE_TIMEOUT_MS,
    ) -> None:
        """
        Args:
            source: a provider's name, a model or an agent.
            settings: pydantic-ai's `ModelSettings`.
            deps: makes an agent's dependencies for each turn.
            silence_timeout_ms: longest time between two events of a provider; an agent's tools take what they take.

        Raises:
            ConfigError: an unknown or unset provider.
        """
        if isinstance(source, str):
            source = _inferred(source)
        elif not isinstance(source, (ProviderModel, AbstractAgent)):
            raise ConfigError(f"a {type(source).__name__} is neither a Model nor an Agent of pydantic-ai")
        self._source = source
        self._settings: Any = settings
        self._deps = deps
        self._silence_timeout_ms = silence_timeout_ms
        model = source.model if isinstance(source, AbstractAgent) else source
        self._provider_model = _inferred(model) if isinstance(model, str) else model
        self._entered = False
        self.name = "agent" if self._provider_model is None else _name(self._provider_model)

    async def respond(self, turn: TurnContext) -> AsyncGenerator[Piece, None]:
        """Answer with the provider's events; closing the iterator closes the provider's connection."""
        await self._enter()
        ways = [True, False] if turn.partial and self._takes_prefill() else [False]
        for with_prefill in ways:
            spoke = False
            try:
                async with aclosing(self._attempt(turn, with_prefill)) as pieces:
                    async for piece in pieces:
                        spoke = True
                        yield piece
                return
            except ModelError:
                raise
            except Exception as error:  # the border to other people's code: SDKs, HTTP clients, an agent's tools
                refused = isinstance(error, exceptions.ModelHTTPError) and error.status_code == 400
                if not (with_prefill and refused and not spoke):
                    raise model_error(error, self.name) from error

    async def aclose(self) -> None:
        """Close the provider's HTTP client, unless it was given to the provider by its maker."""
        if self._provider_model is not None and self._entered:
            self._entered = False
            await self._provider_model.__aexit__(None, None, None)

    def _takes_prefill(self) -> bool:
        model = self._provider_model
        if model is None or isinstance(self._source, AbstractAgent) or model.system != "anthropic":
            return False
        thinking = (self._settings or {}).get("anthropic_thinking") or (self._settings or {}).get("thinking")
        return not thinking and bool(_PREFILL_MODELS.match(model.model_name))

    def _makes_files(self) -> bool:
        model = self._provider_model
        return model is None or bool(model.profile.get("supports_image_output"))

    async def _attempt(self, turn: TurnContext, with_prefill: bool) -> AsyncGenerator[Piece, None]:
        is_agent = isinstance(self._source, AbstractAgent)
        history = await history_of(
            turn, runs_tools=is_agent, with_prefill=with_prefill, makes_files=self._makes_files()
        )
        known = dict(_calls(turn.answer)) if is_agent else {}
        ids = CallIds(known)
        wraps = OneTurn(
            ids=ids,
            ledger=turn.ledger,
            results=history.results,
            tick_ms=min(WORKING_TICK_MS, self._silence_timeout_ms // 2),
        )
        seam = AfterSpace(turn.partial) if with_prefill or not turn.partial else AfterOverlap(turn.partial)
        for call_id in known:
            wraps.show(call_id)
        translation = Translation(
            ids=ids,
            room_tools={tool.name for tool in turn.tools} if is_agent else None,
            output_tools=wraps.output_tools,
            known=known,
            settled={id for id, state in known.items() if state in _FINISHED},
            sources=_sources(turn.answer),
            step_begun=turn.answer is None or bool(turn.partial),
        )
        end = _End()
        async with AsyncExitStack() as open_events:
            # Opening counts as silence too: pydantic-ai waits for the first event there.
            events = await self._in_time(open_events.enter_async_context(self._events(turn, history, wraps, end)))
            while (event := await self._in_time(anext(events, None))) is not None:
                for piece in translation.pieces_of(event):
                    if isinstance(piece, (ToolInputStart, FinishStep)) and (held := seam.end()):
                        yield held
                    said = seam.feed(piece) if isinstance(piece, str) else piece
                    if said or not piece:
                        yield said
                    if isinstance(piece, (ToolInputAvailable, ToolInputError)):
                        wraps.show(piece.tool_call_id)
        for piece in (seam.end(), *translation.end(), *end.chunks(turn.answer)):
            if piece:
                yield piece

    @asynccontextmanager
    async def _events(
        self, turn: TurnContext, history: History, wraps: OneTurn, end: _End
    ) -> AsyncIterator[AsyncIterator[Any]]:
        """The response's events; `ModelError` on leaving when they stopped before the answer was whole."""
        if isinstance(self._source, AbstractAgent):
            async with self._source.run_stream_events(**self._run_arguments(turn, history, wraps)) as run:
                yield aiter(run)
                responses = [message for message in run.new_messages() if isinstance(message, ai.ModelResponse)]
                end.usage = run.usage
        else:
            tools = ModelRequestParameters(function_tools=tool_definitions(turn.tools))
            async with model_request_stream(
                self._source, history.messages, model_settings=self._settings, model_request_parameters=tools
            ) as stream:
                yield aiter(stream)
                responses = [stream.get()]
                end.usage = stream.usage
        if any(was_cut(response) for response in responses):
            raise ModelError(f"{self.name} ended its answer without saying that it is whole")
        if responses:
            end.reason = responses[-1].finish_reason
        if end.reason == "error":
            raise ModelError(f"{self.name} ended its answer with an error")

    def _run_arguments(self, turn: TurnContext, history: History, wraps: OneTurn) -> dict[str, Any]:
        agent = self._source
        assert isinstance(agent, AbstractAgent)
        arguments: dict[str, Any] = {
            "message_history": history.messages,
            "deferred_tool_results": history.deferred,
            "instructions": turn.instructions or None,
            "model_settings": self._settings,
            "conversation_id": turn.room or None,
            # The conversation comes from the room, which does not keep an agent's `system_prompt`.
            "capabilities": [ReinjectSystemPrompt(), wraps],
        }
        if self._deps is not None:
            arguments["deps"] = self._deps(turn)
        if turn.tools:
            arguments["toolsets"] = [ExternalToolset(tool_definitions(turn.tools), id="room")]
        output_type = agent.output_type
        outputs = list(output_type) if isinstance(output_type, (list, tuple)) else [output_type]
        # A run that may wait must say so. Where an agent has output validators, its own output type has to.
        if DeferredToolRequests not in outputs and not getattr(agent, "_output_validators", None):
            arguments["output_type"] = [*outputs, DeferredToolRequests]
        return arguments

    async def _in_time(self, wait: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._silence_timeout_ms / 1000):
                return await wait
        except TimeoutError as error:
            raise ModelTimeout(f"{self.name} said nothing for {self._silence_timeout_ms / 1000:g} s") from error

    async def _enter(self) -> None:
        """Take the provider's HTTP client, once: it is closed by `aclose`, if the provider made it itself."""
        if self._provider_model is not None and not self._entered:
            self._entered = True
            await self._provider_model.__aenter__()


@dataclass
class _End:
    """What is known when a response has ended."""

    usage: RequestUsage | RunUsage | None = None
    reason: str | None = None

    def chunks(self, answer: ChatMessage | None) -> Iterator[Chunk]:
        """The usage of the whole answer so far, and why it ended where that is worth a word."""
        if self.usage is not None and (counts := _counts(self.usage)):
            before = ((answer and answer.metadata) or {}).get("usage")
            held = before if isinstance(before, dict) else {}
            yield MessageMetadata({"usage": {name: count + _number(held, name) for name, count in counts.items()}})
        if self.reason in _FINISH_REASONS:
            yield Finish(finish_reason=_FINISH_REASONS[self.reason])


def _counts(usage: RequestUsage | RunUsage) -> dict[str, int]:
    """Tokens under the AI SDK's names; empty where the provider told none."""
    if not (usage.input_tokens or usage.output_tokens):
        return {}
    counts = {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
    }
    rare = {
        "cachedInputTokens": usage.cache_read_tokens,
        "reasoningTokens": usage.details.get("reasoning_tokens", 0),
    }
    return counts | {name: count for name, count in rare.items() if count}


def _number(held: dict[str, Any], name: str) -> int:
    value = held.get(name)
    return value if isinstance(value, int) else 0


def _calls(answer: ChatMessage | None) -> Iterator[tuple[str, str]]:
    """The calls of an answer, each with the state of its part."""
    for part in answer.parts if answer is not None else ():
        if tool_name(part) is not None:
            finished = "" if part.get("preliminary") else str(part.get("state", ""))
            yield part["toolCallId"], finished


def _sources(answer: ChatMessage | None) -> set[str]:
    parts = answer.parts if answer is not None else []
    return {str(part["sourceId"]) for part in parts if "sourceId" in part}


def _inferred(name: str) -> ProviderModel:
    try:
        return infer_model(name)
    except exceptions.UserError as error:
        raise ConfigError(f"model {name!r}: {error}") from error
    except ImportError as error:
        raise ConfigError(f"model {name!r}: {error}; try `pip install 'perdure[ai]'`") from error


def _name(model: ProviderModel) -> str:
    return f"{model.system}:{model.model_name}"
