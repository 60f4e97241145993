"""Our messages as pydantic-ai knows them.

::

    user message      -> ModelRequest(UserPromptPart)         files as bytes or addresses
    assistant message -> for each step:
                           ModelResponse(text, thoughts with their signatures, calls, files)
                           ModelRequest(ToolReturnPart …)      results, errors, denials

Providers refuse a call without a result, so a call of an older answer that still waits, or was cut off, gets one
that says so. The calls of the answer that is being made are left open where they are to be carried out now:
see `History`.

Left out: what a provider's own tools did (its text tells it), thoughts that no provider signed or named, and data
parts except an agent's structured output.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic_ai import messages as ai
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.tools import DeferredToolResults, ToolApproved, ToolDenied

from ...wire.messages import ChatMessage
from ..continuation import CONTINUE_INSTRUCTION, prefill
from .files import load_content, user_files
from .metadata import canonical_system_of, fields_of
from .outputs import from_output_json

if TYPE_CHECKING:
    from ..base import TurnContext

Part = Mapping[str, Any]
Files = Mapping[str, ai.BinaryContent]

OUTPUT_TYPE = "data-output"
"""The part that holds an agent's structured output."""

DENIED = "The tool call was denied."

_NO_RESULT = {
    "approval-requested": "This call still waits for a person's approval. It has not been carried out.",
    "approval-responded": "This call was answered by a person, but has not been carried out.",
    "input-available": "This call has no result: it was interrupted, or still waits for one.",
}


@dataclass
class History:
    """The conversation for pydantic-ai.

    Attributes:
        messages: oldest first.
        deferred: what people said to the calls at its end; None where nobody was asked.
        results: calls of the answer that is being made and already have a result. Where other calls of the same
            step are to be carried out, an agent goes through the whole step again; these are not.
    """

    messages: list[ai.ModelMessage] = field(default_factory=list)
    deferred: DeferredToolResults | None = None
    results: dict[str, ai.ToolReturnPart] = field(default_factory=dict)


async def history_of(
    turn: TurnContext, *, runs_tools: bool, with_prefill: bool = False, makes_files: bool = True
) -> History:
    """The conversation of ``turn`` up to what the model is to say next.

    Args:
        turn: where several people talk, each text begins with its writer's name.
        runs_tools: the model carries tools out itself (an agent): open calls stay open.
        with_prefill: the partial answer is the beginning of the provider's own message; else it is a finished one,
            and the provider is asked to go on.
        makes_files: the model is shown the files that models made; others take none.
    """
    history = History()
    made_files = await _made_files(turn) if makes_files else {}
    names = {message.user for message in turn.messages if message.role == "user" and message.user}
    for message in turn.messages:
        if message.role == "assistant":
            history.messages += _answer(message, made_files)
        elif message.role == "system":
            history.messages.append(ai.ModelRequest(parts=[ai.SystemPromptPart(message.text)]))
        else:
            content = await _user_content(message, turn, named=len(names) > 1)
            history.messages.append(ai.ModelRequest(parts=[ai.UserPromptPart(content)]))
    if not history.messages or not isinstance(history.messages[-1], ai.ModelRequest):
        history.messages.append(ai.ModelRequest(parts=[ai.UserPromptPart(turn.text)]))
    if turn.answer is not None:
        _add_own_answer(history, turn.answer, made_files, runs_tools=runs_tools)
    if not runs_tools and not turn.tools:
        history.messages = calls_as_text(history.messages)
    _add_partial(history, turn, with_prefill=with_prefill)
    for message_ in history.messages:
        if isinstance(message_, ai.ModelRequest):
            message_.instructions = turn.instructions or None
    return history


def tool_name(part: Part) -> str | None:
    """The tool that a message's part is a call of; None where it is none."""
    kind = part.get("type")
    if not isinstance(kind, str) or not isinstance(part.get("toolCallId"), str):
        return None
    if kind == "dynamic-tool":
        return str(part.get("toolName", ""))
    return kind.removeprefix("tool-") if kind.startswith("tool-") else None


def calls_as_text(messages: Sequence[ai.ModelMessage]) -> list[ai.ModelMessage]:
    """The messages for a provider that is told of no tools: such a one refuses calls and their results.

    Thoughts beside a call go with it, since they are signed together.
    """
    return [_as_text(message) for message in messages]


def _as_text(message: ai.ModelMessage) -> ai.ModelMessage:
    if isinstance(message, ai.ModelRequest):
        if not any(isinstance(part, ai.ToolReturnPart) for part in message.parts):
            return message
        requests = [_result_as_text(p) if isinstance(p, ai.ToolReturnPart) else p for p in message.parts]
        return replace(message, parts=requests)
    if not message.tool_calls:
        return message
    kept = [part for part in message.parts if not isinstance(part, ai.ThinkingPart)]
    parts = [_call_as_text(part) if isinstance(part, ai.ToolCallPart) else part for part in kept]
    return replace(message, parts=parts)


def _call_as_text(part: ai.ToolCallPart) -> ai.TextPart:
    return ai.TextPart(f"[I call {part.tool_name} with {part.args_as_json_str()}]")


def _result_as_text(part: ai.ToolReturnPart) -> ai.UserPromptPart:
    return ai.UserPromptPart(f"[{part.tool_name} says: {part.model_response_str()}]")


async def _user_content(message: ChatMessage, turn: TurnContext, *, named: bool) -> str | list[ai.UserContent]:
    text = f"{message.user}: {message.text}" if named and message.user else message.text
    files = await user_files(message, turn.load_file)
    if not files:
        return text
    return [text, *files] if text else list(files)


# --- answers


async def _made_files(turn: TurnContext) -> Files:
    """The files that models made in this conversation, by address."""
    answers = [*(message for message in turn.messages if message.role == "assistant"), turn.answer]
    urls = [
        str(part.get("url", ""))
        for message in answers
        if message is not None
        for part in message.parts
        if part.get("type") == "file"
    ]
    loaded = {url: await load_content(url, turn.load_file) for url in urls}
    return {url: content for url, content in loaded.items() if content is not None}


def _answer(message: ChatMessage, files: Files) -> Iterator[ai.ModelMessage]:
    """An answer of the past: every call has a result."""
    for step in _steps(message):
        response, returns = _step(step, files)
        if response.parts:
            yield response
        open_calls = [_no_result(part) for part in _open(step)]
        if returns or open_calls:
            yield ai.ModelRequest(parts=[*returns, *open_calls])


def _add_own_answer(history: History, answer: ChatMessage, files: Files, *, runs_tools: bool) -> None:
    """The answer that is being made: calls of its last step may still have to be carried out."""
    steps = list(_steps(answer))
    last = steps[-1] if steps else []
    open_calls = list(_open(last))
    if not (runs_tools and open_calls):
        history.messages += _answer(answer, files)
        return
    earlier: list[dict[str, Any]] = []
    for step in steps[:-1]:
        earlier += [{"type": "step-start"}, *map(dict, step)]
    history.messages += _answer(ChatMessage(id="", role="assistant", parts=earlier), files)
    response, returns = _step(last, files)
    history.messages.append(response)
    if any(part["state"] == "approval-responded" for part in open_calls):
        history.deferred = _what_people_said(open_calls)
        if returns:
            history.messages.append(ai.ModelRequest(parts=list(returns)))
    else:
        history.results = {part.tool_call_id: part for part in returns}


def _what_people_said(open_calls: Sequence[Part]) -> DeferredToolResults:
    results = DeferredToolResults()
    for part in open_calls:
        approval = part.get("approval") or {}
        if part["state"] != "approval-responded":
            results.calls[part["toolCallId"]] = ToolFailed(_NO_RESULT["input-available"])
        elif approval.get("approved"):
            results.approvals[part["toolCallId"]] = ToolApproved()
        else:
            results.approvals[part["toolCallId"]] = ToolDenied(approval.get("reason") or DENIED)
    return results


def _add_partial(history: History, turn: TurnContext, *, with_prefill: bool) -> None:
    if not turn.partial:
        return
    text = prefill(turn.partial) if with_prefill else turn.partial
    history.messages.append(ai.ModelResponse(parts=[ai.TextPart(text)]))
    if not with_prefill:
        history.messages.append(ai.ModelRequest(parts=[ai.UserPromptPart(CONTINUE_INSTRUCTION)]))


def _steps(message: ChatMessage) -> Iterator[list[Part]]:
    step: list[Part] = []
    for part in message.parts:
        if part.get("type") == "step-start":
            if step:
                yield step
            step = []
        else:
            step.append(part)
    if step:
        yield step


def _open(step: Sequence[Part]) -> Iterator[Part]:
    """The calls of a step that have no result yet, and whose input is whole."""
    for part in step:
        if tool_name(part) is not None and _is_open(part) and not part.get("providerExecuted"):
            yield part


def _is_open(part: Part) -> bool:
    return part.get("state") in _NO_RESULT or bool(part.get("preliminary"))


def _no_result(part: Part) -> ai.ToolReturnPart:
    said = _NO_RESULT.get(str(part.get("state")), _NO_RESULT["input-available"])
    return ai.ToolReturnPart(tool_name(part) or "", said, part["toolCallId"], outcome="interrupted")


def _step(step: Sequence[Part], files: Files) -> tuple[ai.ModelResponse, list[ai.ToolReturnPart]]:
    response = ai.ModelResponse(parts=[])
    returns: list[ai.ToolReturnPart] = []
    said = "".join(str(part.get("text", "")) for part in step if part.get("type") == "text")
    for part in step:
        name = tool_name(part)
        made: ai.ModelResponsePart | None
        if name is None:
            made = _other_part(part, files, said)
        elif part.get("providerExecuted") or part.get("state") == "input-streaming":
            made = None
        else:
            made = _call(part, name)
            if (result := _result(part, name)) is not None:
                returns.append(result)
        if made is not None:
            response.parts = [*response.parts, made]
            metadata = "callProviderMetadata" if name is not None else "providerMetadata"
            response.provider_name = response.provider_name or getattr(made, "provider_name", None)
            response.canonical_system = response.canonical_system or canonical_system_of(part, metadata)
    return response, returns


def _other_part(part: Part, files: Files, said: str) -> ai.ModelResponsePart | None:
    kind = part.get("type")
    if kind == "text" and part.get("text"):
        return ai.TextPart(str(part["text"]))
    if kind == "reasoning" and (fields := fields_of(part)):
        return ai.ThinkingPart(str(part.get("text", "")), **fields)
    if kind == "file" and (content := files.get(str(part.get("url", "")))) is not None:
        fields = fields_of(part)
        fields.pop("signature", None)
        return ai.FilePart(content, **fields)
    if kind == OUTPUT_TYPE and (text := json.dumps(part.get("data"), ensure_ascii=False)) not in said:
        return ai.TextPart(text)
    return None


def _call(part: Part, name: str) -> ai.ToolCallPart:
    given = part.get("input", part.get("rawInput"))
    fields = fields_of(part, "callProviderMetadata")
    fields.pop("signature", None)
    args = given if isinstance(given, (dict, str)) else json.dumps(given)
    return ai.ToolCallPart(name, args, part["toolCallId"], **fields)


def _result(part: Part, name: str) -> ai.ToolReturnPart | None:
    outcome: Literal["success", "failed", "denied"]
    if _is_open(part):
        return None
    match part.get("state"):
        case "output-available":
            content, outcome = from_output_json(part.get("output")), "success"
        case "output-error":
            content, outcome = str(part.get("errorText", "")), "failed"
        case "output-denied":
            content, outcome = (part.get("approval") or {}).get("reason") or DENIED, "denied"
        case _:
            return None
    return ai.ToolReturnPart(name, content, part["toolCallId"], outcome=outcome)
