"""Models of providers, through pydantic-ai: ``"anthropic:…"``, ``"openai:…"``, any ``Model`` or ``Agent``.

pydantic-ai's events become text and chunks: text deltas are text, thinking is reasoning chunks, an agent's
tool calls and their results are tool chunks. Its own wire encoder is not used: it makes a stream a request
long, without a log to resume from.

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
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic_ai import Agent, AgentRunResultEvent, exceptions
from pydantic_ai import messages as ai
from pydantic_ai.direct import model_request_stream
from pydantic_ai.models import Model as ProviderModel
from pydantic_ai.models import infer_model
from pydantic_core import to_json

from ..errors import ConfigError, ModelError, ModelOverloaded, ModelTimeout
from ..wire.ui_chunks import (
    Chunk,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    ToolInputAvailable,
    ToolOutputAvailable,
    ToolOutputError,
)
from .continuation import CONTINUE_INSTRUCTION, AfterOverlap, AfterSpace, prefill

if TYPE_CHECKING:
    from ..wire.messages import ChatMessage
    from .base import TurnContext

Piece = str | Chunk

SILENCE_TIMEOUT_MS = 180_000
"""Longest time between two events of a provider. Long: some models think for minutes without a word."""

_PREFILL_MODELS = re.compile(r"claude-(2|3|instant|(opus|sonnet|haiku)-4(-[015]\b|-\d{8}|@|$))")
"""Anthropic's models up to 4.5; later ones answer a prefill with status 400."""


class PydanticAIModel:
    """A pydantic-ai model or agent as a room's model."""

    def __init__(
        self,
        source: str | ProviderModel | Agent[Any, Any],
        *,
        settings: dict[str, Any] | None = None,
        silence_timeout_ms: int = SILENCE_TIMEOUT_MS,
    ) -> None:
        """``settings`` are pydantic-ai's `ModelSettings`. Raises `ConfigError` for an unknown or unset provider."""
        if isinstance(source, str):
            source = _inferred(source)
        elif not isinstance(source, (ProviderModel, Agent)):
            raise ConfigError(f"a {type(source).__name__} is neither a Model nor an Agent of pydantic-ai")
        self._source = source
        self._settings: Any = settings
        self._silence_timeout_ms = silence_timeout_ms
        model = source.model if isinstance(source, Agent) else source
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
                    raise _model_error(error, self.name) from error

    async def aclose(self) -> None:
        """Close the provider's HTTP client, unless it was given to the provider by its maker."""
        if self._provider_model is not None and self._entered:
            self._entered = False
            await self._provider_model.__aexit__(None, None, None)

    def _takes_prefill(self) -> bool:
        model = self._provider_model
        if model is None or isinstance(self._source, Agent) or model.system != "anthropic":
            return False
        thinking = (self._settings or {}).get("anthropic_thinking") or (self._settings or {}).get("thinking")
        return not thinking and bool(_PREFILL_MODELS.match(model.model_name))

    async def _attempt(self, turn: TurnContext, with_prefill: bool) -> AsyncGenerator[Piece, None]:
        history = _history(turn)
        seam: AfterSpace | AfterOverlap
        if with_prefill:
            history.append(ai.ModelResponse(parts=[ai.TextPart(prefill(turn.partial))]))
            seam = AfterSpace(turn.partial)
        elif turn.partial:
            history.append(ai.ModelResponse(parts=[ai.TextPart(turn.partial)]))
            history.append(_request([ai.UserPromptPart(CONTINUE_INSTRUCTION)], turn.instructions))
            seam = AfterOverlap(turn.partial)
        else:
            seam = AfterSpace("")
        translation = _Translation()
        async with AsyncExitStack() as open_events:
            # Opening counts as silence too: pydantic-ai waits for the first event there.
            events = await self._in_time(open_events.enter_async_context(self._events(history, turn.instructions)))
            while (event := await self._in_time(anext(events, None))) is not None:
                for piece in translation.pieces_of(event):
                    said = seam.feed(piece) if isinstance(piece, str) else piece
                    if said:
                        yield said
        for piece in (seam.end(), *translation.end()):
            if piece:
                yield piece

    @asynccontextmanager
    async def _events(self, history: list[ai.ModelMessage], instructions: str) -> AsyncIterator[Any]:
        """The run's events; `ModelError` on leaving when they stopped before the answer was whole."""
        if isinstance(self._source, Agent):
            async with self._source.run_stream_events(
                message_history=history, instructions=instructions or None, model_settings=self._settings
            ) as run:
                yield aiter(run)
                responses = run.new_messages()
        else:
            async with model_request_stream(self._source, history, model_settings=self._settings) as stream:
                yield aiter(stream)
                responses = [stream.get()]
        if any(isinstance(response, ai.ModelResponse) and _was_cut(response) for response in responses):
            raise ModelError(f"{self.name} ended its answer without saying that it is whole")

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


class _Translation:
    """pydantic-ai's events to text and chunks; keeps which reasoning is open."""

    def __init__(self) -> None:
        self._reasoning: str | None = None
        self._reasoning_count = 0
        self._spoke = False

    def pieces_of(self, event: object) -> list[Piece]:
        match event:
            case ai.PartStartEvent(part=ai.TextPart(content=text)):
                return self._text(text)
            case ai.PartDeltaEvent(delta=ai.TextPartDelta(content_delta=text)):
                return self._text(text)
            case ai.PartStartEvent(part=ai.ThinkingPart(content=text)):
                return [*self._end_reasoning(), *self._think(text)]
            case ai.PartDeltaEvent(delta=ai.ThinkingPartDelta(content_delta=text)):
                return self._think(text or "")
            case ai.FunctionToolCallEvent(part=part):
                return [*self._end_reasoning(), _tool_input(part)]
            case ai.FunctionToolResultEvent(part=part):
                return [_tool_output(part)]
            case AgentRunResultEvent(result=result) if not self._spoke and result.output is not None:
                output = result.output
                return self._text(output if isinstance(output, str) else to_json(output).decode())
        return []

    def end(self) -> list[Piece]:
        return self._end_reasoning()

    def _text(self, text: str) -> list[Piece]:
        if not text:
            return []
        self._spoke = True
        return [*self._end_reasoning(), text]

    def _think(self, text: str) -> list[Piece]:
        if not text:
            return []
        start: list[Piece] = []
        if self._reasoning is None:
            self._reasoning_count += 1
            self._reasoning = f"reasoning-{self._reasoning_count}"
            start = [ReasoningStart(self._reasoning)]
        return [*start, ReasoningDelta(self._reasoning, text)]

    def _end_reasoning(self) -> list[Piece]:
        if self._reasoning is None:
            return []
        ended, self._reasoning = self._reasoning, None
        return [ReasoningEnd(ended)]


def _tool_input(part: ai.ToolCallPart) -> Chunk:
    return ToolInputAvailable(part.tool_call_id, part.tool_name, _plain_json(part.args), dynamic=True)


def _tool_output(part: Any) -> Chunk:
    if part.outcome != "success":
        return ToolOutputError(part.tool_call_id, str(part.content), dynamic=True)
    return ToolOutputAvailable(part.tool_call_id, _plain_json(part.content), dynamic=True)


def _plain_json(value: object) -> Any:
    """``value`` as plain JSON; text that holds JSON (a model's arguments) is read."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return json.loads(to_json(value, fallback=str))


def _history(turn: TurnContext) -> list[ai.ModelMessage]:
    """The conversation as pydantic-ai knows it. Where several people talk, each text begins with its name."""
    names = {message.user for message in turn.messages if message.role == "user" and message.user}
    history: list[ai.ModelMessage] = []
    for message in turn.messages:
        if message.role == "assistant":
            if message.text:
                history.append(ai.ModelResponse(parts=[ai.TextPart(message.text)]))
        elif message.role == "system":
            history.append(_request([ai.SystemPromptPart(message.text)], turn.instructions))
        else:
            content = _user_content(message, named=len(names) > 1)
            history.append(_request([ai.UserPromptPart(content)], turn.instructions))
    if not history or not isinstance(history[-1], ai.ModelRequest):
        history.append(_request([ai.UserPromptPart(turn.text)], turn.instructions))
    return history


def _request(parts: Sequence[ai.ModelRequestPart], instructions: str) -> ai.ModelRequest:
    return ai.ModelRequest(parts=list(parts), instructions=instructions or None)


def _user_content(message: ChatMessage, *, named: bool) -> str | list[ai.UserContent]:
    text = f"{message.user}: {message.text}" if named and message.user else message.text
    files = [part for part in message.parts if part.get("type") == "file"]
    content: list[ai.UserContent] = [text] if text or not files else []
    for part in files:
        url, media_type = str(part.get("url", "")), str(part.get("mediaType", ""))
        if url.startswith("data:"):
            content.append(ai.BinaryContent.from_data_uri(url))
        elif media_type.startswith("image/"):
            content.append(ai.ImageUrl(url, media_type=media_type))
        elif url:
            content.append(ai.DocumentUrl(url, media_type=media_type or None))
    return text if not files else content


def _was_cut(response: ai.ModelResponse) -> bool:
    """Whether the provider never said why it ended.

    pydantic-ai fills in a reason for chat completions that end without one, so the provider's own word is
    looked for where it is always kept.
    """
    if response.state in ("incomplete", "interrupted"):
        return True
    said = response.finish_reason if response.provider_name != "openai" else _raw_finish_reason(response)
    return response.provider_name in ("anthropic", "openai") and said is None


def _raw_finish_reason(response: ai.ModelResponse) -> object:
    return (response.provider_details or {}).get("finish_reason")


def _inferred(name: str) -> ProviderModel:
    try:
        return infer_model(name)
    except exceptions.UserError as error:
        raise ConfigError(f"model {name!r}: {error}") from error
    except ImportError as error:
        raise ConfigError(f"model {name!r}: {error}; try `pip install 'perdure[ai]'`") from error


def _name(model: ProviderModel) -> str:
    return f"{model.system}:{model.model_name}"


def _model_error(error: Exception, name: str) -> ModelError:
    """The error of the tree that says whether to try again; the cause keeps the details."""
    status = error.status_code if isinstance(error, exceptions.ModelHTTPError) else None
    said = _provider_sentence(error)
    if isinstance(error, (exceptions.ModelTimeoutError, exceptions.ModelRequestTimeout, TimeoutError)):
        return ModelTimeout(f"{name} did not answer in time")
    if status in (408, 504):
        return ModelTimeout(f"{name} did not answer in time: {said}")
    overloaded = (exceptions.ModelRateLimitError, exceptions.ModelUnavailableError)
    if status in (429, 503, 529) and not isinstance(error, exceptions.ModelQuotaExceededError):
        return ModelOverloaded(f"{name} is overloaded: {said}")
    if isinstance(error, overloaded):
        return ModelOverloaded(f"{name} is overloaded: {said}")
    if isinstance(error, exceptions.ModelConnectionError):
        return ModelError(f"the connection to {name} broke: {said}")
    return ModelError(f"{name} failed: {said}")


def _provider_sentence(error: Exception) -> str:
    """The provider's own message, without the envelope around it."""
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict) and isinstance(inner.get("message"), str):
            return str(inner["message"])[:500]
    return (str(error) or type(error).__name__)[:500]
