"""What `scripted:tool=NAME` and `scripted:tour` say: turns with tools and everything else a page can show.

They let a front end be built and tested without a model or a line of Python. A room that has a tool of that
name carries it out itself, as it would for a real model; otherwise the script plays the tool, the way an
agent brings its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..wire.ui_chunks import (
    Data,
    File,
    FinishStep,
    MessageMetadata,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    SourceDocument,
    SourceUrl,
    StartStep,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputDenied,
)
from .script_steps import Piece, Step, tool_part

if TYPE_CHECKING:
    from .base import ToolSpec, TurnContext

CALL_ID = "call-{turn_id}"
APPROVAL_ID = "approval-{turn_id}"

INPUT_DELTA_CHARACTERS = 8
"""How much of a tool's input comes at once."""

_WORDS = re.compile(r"\s*\S+|\s+\Z")
_PLACE = re.compile(r"(?<!^)\b[A-Z][a-z]+\b")

_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFklEQVR42mP4ssCBJMQwqmFUw/DVAA"
    "CBE9QQ28KelgAAAABJRU5ErkJggg=="
)
"""16 by 16 points of orange."""


def tool_steps(tool: str, *, approval: bool = False) -> list[Step]:
    """A thought, a call of ``tool``, and a sentence about what it said.

    ``approval``: the tool that the script plays asks before it does anything; a room's own tool knows itself.
    """

    def ask(turn: TurnContext) -> list[Piece]:
        spec = next((spec for spec in turn.tools if spec.name == tool), None)
        asked = [*_thought(f"`{tool}` knows more about this."), *words(f"Let me ask `{tool}`.\n\n")]
        asked += _call(tool, _input(turn, tool, spec))
        if spec is not None:
            return asked
        if approval:
            return [*asked, ToolApprovalRequest(APPROVAL_ID, CALL_ID)]
        output = played_output(tool, _input(turn, tool, None))
        return [
            *asked,
            ToolOutputAvailable(CALL_ID, output),
            FinishStep(),
            StartStep(),
            *words(_report(tool, output)),
        ]

    def tell(turn: TurnContext) -> list[Piece]:
        part = tool_part(turn, tool)
        match part["state"]:
            case "approval-responded" if part["approval"].get("approved"):
                output = played_output(tool, part.get("input"))
                return [ToolOutputAvailable(CALL_ID, output), *words(_report(tool, output))]
            case "approval-responded":
                return [ToolOutputDenied(CALL_ID), *words(_refusal(tool))]
            case "output-denied":
                return [*words(_refusal(tool))]
            case "output-error":
                return [*words(f"`{tool}` failed: {part.get('errorText', 'nobody knows why')}")]
        return [*words(_report(tool, part.get("output")))]

    return [ask, tell]


def tour_steps() -> list[Step]:
    """One answer with all kinds of parts: thought, progress, sources, a tool, a file, data, text, usage."""

    def show(turn: TurnContext) -> list[Piece]:
        given = _input(turn, "weather", None)
        output = played_output("weather", given)
        return [
            *_thought(
                "They want to see everything: a source, a tool, a picture, data and text. One after the other."
            ),
            Data("data-progress", {"done": 1, "of": 3}, transient=True),
            *words("First I look where such things are known.\n\n"),
            SourceUrl("source-1", "https://en.wikipedia.org/wiki/Weather", title="Weather"),
            SourceDocument("source-2", "application/pdf", "A short history of weather", filename="weather.pdf"),
            Data("data-progress", {"done": 2, "of": 3}, transient=True),
            *_call("weather", given),
            ToolOutputAvailable(CALL_ID, {"progress": "asking the clouds"}, preliminary=True),
            ToolOutputAvailable(CALL_ID, output),
            FinishStep(),
            StartStep(),
            Data("data-progress", {"done": 3, "of": 3}, transient=True),
            Data("data-weather", output, id="weather"),
            *words(_report("weather", output) + " This is the sky:\n\n"),
            File(_IMAGE, "image/png"),
            *words("That was **all**: `reasoning`, sources, a tool, data, a file and text."),
            MessageMetadata({"usage": {"inputTokens": 12, "outputTokens": 34, "totalTokens": 46}}),
        ]

    return [show]


def words(text: str) -> list[Piece]:
    """``text`` in pieces of a word."""
    return [*_WORDS.findall(text)]


def played_output(tool: str, given: Any) -> Any:
    """What a played tool says: about the weather, or ``{"ok": true, "asked": …}``."""
    if tool == "weather":
        city = given.get("city", "Paris") if isinstance(given, dict) else "Paris"
        return {"city": city, "degrees": 15 + len(city) % 12, "sky": "sunny"}
    return {"ok": True, "asked": given}


def _report(tool: str, output: Any) -> str:
    if isinstance(output, dict) and {"city", "degrees", "sky"} <= output.keys():
        return f"In {output['city']} it is {output['degrees']} degrees and {output['sky']}."
    return f"`{tool}` says: `{json.dumps(output, ensure_ascii=False)}`."


def _refusal(tool: str) -> str:
    return f"You did not allow `{tool}`, so I cannot say."


def _thought(text: str) -> list[Piece]:
    deltas: list[Piece] = [ReasoningDelta("thought", word) for word in _WORDS.findall(text)]
    return [ReasoningStart("thought"), *deltas, ReasoningEnd("thought")]


def _call(tool: str, given: Any) -> list[Piece]:
    text = json.dumps(given, ensure_ascii=False)
    starts = range(0, len(text), INPUT_DELTA_CHARACTERS)
    deltas: list[Piece] = [ToolInputDelta(CALL_ID, text[at : at + INPUT_DELTA_CHARACTERS]) for at in starts]
    return [ToolInputStart(CALL_ID, tool), *deltas, ToolInputAvailable(CALL_ID, tool, given)]


def _input(turn: TurnContext, tool: str, spec: ToolSpec | None) -> dict[str, Any]:
    """What the tool is asked: the place that the question names, or something that its schema takes."""
    if spec is not None:
        properties: Mapping[str, Any] = spec.parameters.get("properties", {})
        required = spec.parameters.get("required", ())
        return {name: _value(name, schema, turn.text) for name, schema in properties.items() if name in required}
    return {"city": _place(turn.text)} if tool == "weather" else {"text": turn.text}


def _value(name: str, schema: Mapping[str, Any], text: str) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    if name == "city":
        return _place(text)
    numbers = re.findall(r"\d+", text)
    examples = {
        "string": text,
        "integer": int(numbers[0][:9]) if numbers else 1,
        "number": float(numbers[0][:9]) if numbers else 1.0,
        "boolean": True,
        "array": [],
        "object": {},
    }
    return examples.get(schema.get("type", "string"))


def _place(text: str) -> str:
    places: list[str] = _PLACE.findall(text)
    return places[-1] if places else "Paris"
