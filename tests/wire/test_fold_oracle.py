"""Our fold against the npm package `ai`, 6 and 7: the same chunks make the same message."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.requirements import need
from tests.wire.chunk_sequences import MESSAGE_ID, chunk_sequences

from perdure.wire.fold import MessageFold, fold
from perdure.wire.messages import encode_message
from perdure.wire.ui_chunks import (
    Chunk,
    Error,
    Finish,
    Start,
    TextDelta,
    TextStart,
    ToolInputAvailable,
    ToolInputError,
    ToolInputStart,
    ToolOutputAvailable,
    encode_chunk,
)

NPM = Path(__file__).parent.parent / "npm"


def _javascript_number(digits: str) -> int | float:
    """JavaScript writes large floats without an exponent, with zeros for the digits it does not know."""
    return int(digits) if abs(int(digits)) < 2**53 else float(digits)


class Oracle:
    """One long-lived node process; it answers a line with a line."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["node", "fold_oracle.mjs"], cwd=NPM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def fold(self, major: int, chunks: list[Chunk], message: dict[str, Any] | None = None) -> dict[str, Any]:
        """The message that `ai` of this major version makes, and the errors that it reports."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request: dict[str, Any] = {
            "major": major,
            "messageId": MESSAGE_ID,
            "chunks": [json.loads(encode_chunk(chunk)) for chunk in chunks],
        }
        if message is not None:
            request["message"] = message
        # ASCII only: node's readline also ends a line at U+2028.
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline(), parse_int=_javascript_number)
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=10)


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    need("the npm package `ai`", (NPM / "node_modules" / "ai7").is_dir(), "npm install --prefix tests/npm")
    process = Oracle()
    yield process
    process.close()


def as_json(result: MessageFold) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(encode_message(result.message()))
    return message


def as_version_7(message: dict[str, Any], chunks: list[Chunk]) -> dict[str, Any]:
    """The one difference between the versions: 6 keeps a known tool's bad input as ``rawInput``."""
    refused = {chunk.tool_call_id for chunk in chunks if isinstance(chunk, ToolInputError)}
    for part in message["parts"]:
        if (
            part["type"].startswith("tool-")
            and part["toolCallId"] in refused
            and part["state"] == "output-error"
            and "rawInput" in part
        ):
            part["input"] = part.pop("rawInput")
    return message


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chunks=chunk_sequences())
def test_any_legal_sequence_folds_as_in_the_package(oracle: Oracle, chunks: list[Chunk]) -> None:
    """Whatever a server may stream, whole or cut anywhere, the stored message is what clients show."""
    ours = as_json(fold(chunks))
    reported = [chunk.error_text for chunk in chunks if isinstance(chunk, Error)]
    version_6 = oracle.fold(6, chunks)
    assert version_6["errors"] == reported
    assert ours == as_version_7(version_6["message"], chunks)
    version_7 = oracle.fold(7, chunks)
    assert version_7["errors"] == reported
    assert ours == version_7["message"]


@pytest.mark.parametrize("major", [6, 7])
def test_a_continued_message_folds_as_in_the_package(oracle: Oracle, major: int) -> None:
    """When a tool's result comes back, the next stream goes on in the same message."""
    first = fold(
        [
            Start(MESSAGE_ID, {"model": "m"}),
            ToolInputStart("call_0", "weather"),
            ToolInputAvailable("call_0", "weather", {"city": "Oslo"}),
            Finish("tool-calls"),
        ]
    )
    rest: list[Chunk] = [
        Start(MESSAGE_ID, {"tokens": 3}),
        ToolOutputAvailable("call_0", {"celsius": -4}),
        TextStart("t1"),
        TextDelta("t1", "Cold."),
        Finish("stop"),
    ]
    ours = MessageFold(MESSAGE_ID, message=first.message())
    for chunk in rest:
        ours.push(chunk)
    theirs = oracle.fold(major, rest, as_json(first))
    assert theirs["errors"] == []
    assert as_json(ours) == theirs["message"]
    assert as_json(ours)["metadata"] == {"model": "m", "tokens": 3}
    assert as_json(ours)["parts"][0]["output"] == {"celsius": -4}


@pytest.mark.parametrize("major", [6, 7])
def test_the_oracle_refuses_what_clients_refuse(oracle: Oracle, major: int) -> None:
    """The oracle is no rubber stamp: a delta for a part that was never opened is an error there too."""
    answer = oracle.fold(major, [Start(MESSAGE_ID), TextDelta("t1", "lost")])
    assert answer["message"]["parts"] == []
    assert answer["errors"] == [
        'Received text-delta for missing text part with ID "t1". '
        'Ensure a "text-start" chunk is sent before any "text-delta" chunks.'
    ]
