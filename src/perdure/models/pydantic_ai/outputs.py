"""Results of tools as JSON and back."""

from __future__ import annotations

from typing import Any

from pydantic_ai.messages import tool_return_ta
from pydantic_core import PydanticSerializationError

from .metadata import plain_json


def output_json(result: object) -> Any:
    """A tool's result as plain JSON; a file is ``{"kind": "binary", "data": base64, …}``."""
    try:
        return tool_return_ta.dump_python(result, mode="json", by_alias=True)
    except PydanticSerializationError:
        return plain_json(result)


def from_output_json(output: Any) -> Any:
    """A result as a model is told it: files come back as files.

    Addresses do not become downloads: a client may have given them.
    """
    if isinstance(output, list):
        return [from_output_json(item) for item in output]
    if isinstance(output, dict) and output.get("kind") == "binary":
        try:
            return tool_return_ta.validate_python(output)
        except ValueError:
            return output
    return output
