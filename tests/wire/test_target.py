"""Chunks for clients of an older version: what 6.0.0 refuses is left out, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from tests.requirements import need
from tests.wire.chunk_sequences import chunk_sequences

from perdure.errors import BadArguments
from perdure.wire.target import for_target, parse_target
from perdure.wire.ui_chunks import (
    Abort,
    Chunk,
    Custom,
    Data,
    Finish,
    ReasoningFile,
    TextDelta,
    TextEnd,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputError,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputError,
    encode_chunk,
)

NPM = Path(__file__).parent.parent / "npm"

CITATION = {
    "source": {"type": "source", "sourceType": "url", "id": "s1", "url": "https://a.example"},
    "citedText": "a",
}

NEWER: list[tuple[Chunk, bytes | None]] = [
    (TextEnd("t1", citations=[CITATION]), b'{"type":"text-end","id":"t1"}'),
    (
        ToolInputStart("c1", "weather", None, True, None, {"a": {}}, {"b": 1}, "text"),
        b'{"type":"tool-input-start","toolCallId":"c1","toolName":"weather","dynamic":true}',
    ),
    (
        ToolInputAvailable("c1", "weather", {"toolMetadata": 1}, tool_metadata={"b": 1}),
        b'{"type":"tool-input-available","toolCallId":"c1","toolName":"weather","input":{"toolMetadata":1}}',
    ),
    (
        ToolInputError("c1", "weather", None, "bad", tool_metadata={"b": 1}),
        b'{"type":"tool-input-error","toolCallId":"c1","toolName":"weather","input":null,"errorText":"bad"}',
    ),
    (
        ToolApprovalRequest("a1", "c1", "It costs money", True, "s", {"scope": "all"}),
        b'{"type":"tool-approval-request","approvalId":"a1","toolCallId":"c1"}',
    ),
    (
        ToolOutputAvailable("c1", [1], provider_metadata={"a": {}}, tool_metadata={"b": 1}),
        b'{"type":"tool-output-available","toolCallId":"c1","output":[1]}',
    ),
    (
        ToolOutputError("c1", "down", provider_metadata={"a": {}}, tool_metadata={"b": 1}),
        b'{"type":"tool-output-error","toolCallId":"c1","errorText":"down"}',
    ),
    (Abort("too late"), b'{"type":"abort"}'),
    (
        Finish("interrupted", {"tokens": 3}),
        b'{"type":"finish","finishReason":"other","messageMetadata":{"tokens":3}}',
    ),
    (Custom("openai.compaction"), None),
    (ReasoningFile("data:,x", "text/plain"), None),
]


@pytest.mark.parametrize(("chunk", "safe"), NEWER)
def test_newer_fields_and_types_are_left_out(chunk: Chunk, safe: bytes | None) -> None:
    """For `ai6`; for `ai7` the chunk is sent as it is."""
    data = encode_chunk(chunk)
    assert for_target([data], "ai6") == ([] if safe is None else [safe])
    assert for_target([data], "ai7") == [data]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chunk_sequences())
def test_the_safe_subset_passes_as_it_is(chunks: list[Chunk]) -> None:
    """Whatever the application's own JSON holds."""
    data = [encode_chunk(chunk) for chunk in chunks]
    assert for_target(data, "ai6") == data


def test_names_in_the_applications_own_json_are_left_alone() -> None:
    """Only the chunk's own fields go; text that looks like them stays."""
    chunks: list[Chunk] = [
        TextDelta("t1", '"reason":"x"'),
        ToolOutputAvailable("c1", {"toolMetadata": {"a": 1}, "providerMetadata": None}),
        Finish("stop", {"finishReason": "interrupted"}),
        Data("data-custom", {"reason": 1}),
    ]
    data = [encode_chunk(chunk) for chunk in chunks]
    assert for_target(data, "ai6") == data


def test_a_request_may_name_its_target() -> None:
    """One of the known ones; the default where it names none."""
    assert parse_target(None, "ai6") == "ai6"
    assert parse_target("ai7", "ai6") == "ai7"
    with pytest.raises(BadArguments, match="`target` is one of ai6, ai7, not 'ai8'"):
        parse_target("ai8", "ai6")


def test_the_packages_take_what_they_are_sent() -> None:
    """`ai` 7 takes all of it. 6, which ignores unknown fields now, refuses the types; 6.0.0 refuses each of them."""
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    need("the npm package `ai`", (NPM / "node_modules" / "ai7").is_dir(), "npm install --prefix tests/npm")
    need("ai 6.0.0", (NPM / "node_modules" / "ai6-first").is_dir(), "npm install --prefix tests/npm")
    data = [encode_chunk(chunk) for chunk, _ in NEWER]
    assert _taken("6-first", data) == [False] * len(data)
    assert _taken("6-first", list(for_target(data, "ai6"))) == [True] * (len(data) - 2)
    assert _taken(7, list(for_target(data, "ai7"))) == [True] * len(data)
    assert _taken(6, list(for_target(data, "ai6"))) == [True] * (len(data) - 2)
    assert _taken(6, data).count(False) == 3  # `custom`, `reasoning-file`, the reason `interrupted`


def _taken(major: int | str, chunks: list[bytes]) -> list[bool]:
    script = f"""
    import {{ asSchema, uiMessageChunkSchema }} from "ai{major}";
    const schema = asSchema(uiMessageChunkSchema);
    const chunks = JSON.parse(process.argv[1]);
    const taken = [];
    for (const chunk of chunks) taken.push((await schema.validate(chunk)).success);
    process.stdout.write(JSON.stringify(taken));
    """
    command = ["node", "--input-type=module", "-e", script, f"[{','.join(data.decode() for data in chunks)}]"]
    process = subprocess.run(command, cwd=NPM, capture_output=True, check=True, text=True)
    taken: list[bool] = json.loads(process.stdout)
    return taken
