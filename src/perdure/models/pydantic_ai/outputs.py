"""Results of tools as JSON and back."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from pydantic_ai import messages as ai
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
            data = b64decode(output["data"], validate=True)
            return ai.BinaryContent.narrow_type(ai.BinaryContent(data, media_type=str(output["media_type"])))
        except (KeyError, TypeError, ValueError):
            return output
    return output
