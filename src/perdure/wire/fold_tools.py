"""The tool calls of a message that is being folded.

A tool part goes through these states (AI SDK names)::

    input-streaming ─> input-available ─> output-available | output-error
            │                 └─> approval-requested ─> output-available | output-denied
            └─> output-error  (the model wrote an input that the tool cannot take)

A call is looked up in the current step first, then in the whole message: models reuse the ids
of their calls between steps. Within a step, known tools (``tool-NAME``) and dynamic ones
(``dynamic-tool``) are kept apart, as clients do.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import UNSET

from ..errors import RemoteProtocolError
from .partial_json import parse_partial_json
from .ui_chunks import (
    ProviderMetadata,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputError,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputDenied,
    ToolOutputError,
)

Part: TypeAlias = dict[str, Any]

_DYNAMIC = "dynamic-tool"


class _OpenInput:
    """An input that is being written. Its text is joined and parsed only when someone looks."""

    __slots__ = ("changed", "part", "pieces")

    def __init__(self, part: Part) -> None:
        self.part = part
        self.pieces: list[str] = []
        self.changed = False

    def flush(self) -> None:
        if not self.changed:
            return
        text = "".join(self.pieces)
        self.pieces = [text]
        self.changed = False
        self.part["rawInput"] = text
        is_text = self.part.get("inputEncoding") == "text"
        _set(self.part, "input", text if is_text else parse_partial_json(text))


class ToolParts:
    """Applies tool chunks to ``parts``, the list that the fold owns."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts
        self._open: dict[str, _OpenInput] = {}
        self._in_step: dict[str, Part] = {}
        self._in_step_by_kind: dict[tuple[str, bool], Part] = {}
        self._newest: dict[str, Part] = {}
        for part in parts:
            if part.get("type") == "step-start":
                self.begin_step()
            elif is_tool_part(part):
                self._register(part)

    def reopen(self) -> None:
        """Inputs of this step that are not whole go on growing."""
        for part in self._in_step.values():
            if part.get("state") == "input-streaming":
                opened = self._open[part["toolCallId"]] = _OpenInput(part)
                opened.pieces.append(part.get("rawInput", ""))

    def begin_step(self) -> None:
        """What was open in the step before is closed as it is."""
        self.flush()
        self._open.clear()
        self._in_step.clear()
        self._in_step_by_kind.clear()

    def flush(self) -> None:
        """Bring the parts of open inputs up to date."""
        for opened in self._open.values():
            opened.flush()

    def input_start(self, chunk: ToolInputStart) -> None:
        if chunk.tool_call_id in self._open:
            raise RemoteProtocolError(f"the input of tool call {chunk.tool_call_id!r} is already open")
        part = self._begin(chunk.tool_call_id, chunk.tool_name, bool(chunk.dynamic))
        _update(
            part,
            "input-streaming",
            title=chunk.title,
            provider_executed=chunk.provider_executed,
            provider_metadata=chunk.provider_metadata,
            tool_metadata=chunk.tool_metadata,
        )
        if chunk.input_encoding is not None:
            part["inputEncoding"] = chunk.input_encoding
        self._open[chunk.tool_call_id] = _OpenInput(part)

    def input_delta(self, chunk: ToolInputDelta) -> None:
        opened = self._open.get(chunk.tool_call_id)
        if opened is None:
            raise RemoteProtocolError(
                f"tool-input-delta for {chunk.tool_call_id!r}, whose input is not open: "
                f"a tool-input-start in the same step must come before it"
            )
        opened.pieces.append(chunk.input_text_delta)
        opened.changed = True

    def input_available(self, chunk: ToolInputAvailable) -> None:
        self._close(chunk.tool_call_id)
        part = self._begin(chunk.tool_call_id, chunk.tool_name, bool(chunk.dynamic))
        _update(
            part,
            "input-available",
            input=chunk.input,
            title=chunk.title,
            provider_executed=chunk.provider_executed,
            provider_metadata=chunk.provider_metadata,
            tool_metadata=chunk.tool_metadata,
        )

    def input_error(self, chunk: ToolInputError) -> None:
        """A call that is already shown keeps its kind, whatever the chunk says.

        `ai` 6 keeps a known tool's bad input as ``rawInput``; this follows 7: ``input``.
        """
        self._close(chunk.tool_call_id)
        shown = self._in_step.get(chunk.tool_call_id)
        dynamic = bool(chunk.dynamic) if shown is None else shown["type"] == _DYNAMIC
        part = self._begin(chunk.tool_call_id, chunk.tool_name, dynamic)
        _update(
            part,
            "output-error",
            input=chunk.input,
            error_text=chunk.error_text,
            provider_executed=chunk.provider_executed,
            provider_metadata=chunk.provider_metadata,
            tool_metadata=chunk.tool_metadata,
        )

    def approval_request(self, chunk: ToolApprovalRequest) -> None:
        part = self._find(chunk.tool_call_id)
        part["state"] = "approval-requested"
        newer = {
            "descriptor": chunk.approval_descriptor,
            "requestReason": chunk.reason,
            "isAutomatic": chunk.is_automatic or None,
            "signature": chunk.signature,
        }
        told = {name: value for name, value in newer.items() if value is not None}
        part["approval"] = {"id": chunk.approval_id, **told}

    def output_available(self, chunk: ToolOutputAvailable) -> None:
        part = self._find(chunk.tool_call_id)
        _update(
            part,
            "output-available",
            input=part.get("input", UNSET),
            output=chunk.output,
            preliminary=chunk.preliminary,
            provider_executed=chunk.provider_executed,
            provider_metadata=chunk.provider_metadata,
            tool_metadata=chunk.tool_metadata,
        )

    def output_error(self, chunk: ToolOutputError) -> None:
        part = self._find(chunk.tool_call_id)
        _update(
            part,
            "output-error",
            input=part.get("input", UNSET),
            raw_input=UNSET if part["type"] == _DYNAMIC else part.get("rawInput", UNSET),
            error_text=chunk.error_text,
            provider_executed=chunk.provider_executed,
            provider_metadata=chunk.provider_metadata,
            tool_metadata=chunk.tool_metadata,
        )

    def output_denied(self, chunk: ToolOutputDenied) -> None:
        self._find(chunk.tool_call_id)["state"] = "output-denied"

    def _begin(self, tool_call_id: str, tool_name: str, dynamic: bool) -> Part:
        """The call's part in this step, made where there is none."""
        part = self._in_step_by_kind.get((tool_call_id, dynamic))
        if part is None:
            part = {"type": _DYNAMIC if dynamic else f"tool-{tool_name}", "toolCallId": tool_call_id}
            self._parts.append(part)
            self._register(part)
        if dynamic:
            part["toolName"] = tool_name
        else:
            part["type"] = f"tool-{tool_name}"
        return part

    def _register(self, part: Part) -> None:
        tool_call_id = part["toolCallId"]
        self._in_step.setdefault(tool_call_id, part)
        self._in_step_by_kind.setdefault((tool_call_id, part["type"] == _DYNAMIC), part)
        self._newest[tool_call_id] = part

    def _find(self, tool_call_id: str) -> Part:
        """The call that a result or an approval is for; its input is closed by it."""
        self._close(tool_call_id)
        part = self._in_step.get(tool_call_id) or self._newest.get(tool_call_id)
        if part is None:
            raise RemoteProtocolError(f"there is no tool call {tool_call_id!r} in this message")
        return part

    def _close(self, tool_call_id: str) -> None:
        opened = self._open.pop(tool_call_id, None)
        if opened is not None:
            opened.flush()


def is_tool_part(part: Part) -> bool:
    """Whether the part is a tool call."""
    kind = part.get("type")
    return isinstance(kind, str) and (kind == _DYNAMIC or kind.startswith("tool-")) and "toolCallId" in part


def _update(
    part: Part,
    state: str,
    *,
    input: Any = UNSET,
    output: Any = UNSET,
    raw_input: Any = UNSET,
    error_text: str | None = None,
    preliminary: bool | None = None,
    title: str | None = None,
    provider_executed: bool | None = None,
    provider_metadata: ProviderMetadata | None = None,
    tool_metadata: dict[str, Any] | None = None,
) -> None:
    """The state and what belongs to it are replaced; the rest stays unless something new is said."""
    part["state"] = state
    _set(part, "input", input)
    _set(part, "output", output)
    _set(part, "rawInput", raw_input)
    _set(part, "errorText", UNSET if error_text is None else error_text)
    _set(part, "preliminary", UNSET if preliminary is None else preliminary)
    part.pop("inputEncoding", None)
    if tool_metadata is not None:
        part["toolMetadata"] = tool_metadata
    if title is not None:
        part["title"] = title
    if provider_executed is not None:
        part["providerExecuted"] = provider_executed
    if provider_metadata is not None:
        result = state in ("output-available", "output-error")
        part["resultProviderMetadata" if result else "callProviderMetadata"] = provider_metadata


def _set(part: Part, name: str, value: Any) -> None:
    if value is UNSET:
        part.pop(name, None)
    else:
        part[name] = value
