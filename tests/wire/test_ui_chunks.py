"""UI message chunks: literal bytes of every type, and the strictness of the strictest client."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from tests.wire.chunk_sequences import chunk_sequences

from perdure.errors import LocalProtocolError, RemoteProtocolError
from perdure.wire.ui_chunks import (
    CHUNK_CLASSES,
    TERMINAL,
    Abort,
    Chunk,
    Custom,
    Data,
    Error,
    File,
    Finish,
    FinishReason,
    FinishStep,
    MessageMetadata,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningFile,
    ReasoningStart,
    SourceDocument,
    SourceUrl,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputError,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputDenied,
    ToolOutputError,
    chunk_type,
    decode_chunk,
    encode_chunk,
    text_delta_bytes,
)

EVERY_CHUNK: list[tuple[Chunk, bytes]] = [
    (Start(), b'{"type":"start"}'),
    (
        Start(message_id="m1", message_metadata={"model": "x"}),
        b'{"type":"start","messageId":"m1","messageMetadata":{"model":"x"}}',
    ),
    (StartStep(), b'{"type":"start-step"}'),
    (FinishStep(), b'{"type":"finish-step"}'),
    (TextStart("t1"), b'{"type":"text-start","id":"t1"}'),
    (TextDelta("t1", "Grüße \n"), '{"type":"text-delta","id":"t1","delta":"Grüße \\n"}'.encode()),
    (
        TextEnd("t1", provider_metadata={"openai": {"itemId": None}}),
        b'{"type":"text-end","id":"t1","providerMetadata":{"openai":{"itemId":null}}}',
    ),
    (ReasoningStart("r1"), b'{"type":"reasoning-start","id":"r1"}'),
    (ReasoningDelta("r1", "hm"), b'{"type":"reasoning-delta","id":"r1","delta":"hm"}'),
    (ReasoningEnd("r1"), b'{"type":"reasoning-end","id":"r1"}'),
    (
        ToolInputStart("c1", "weather", dynamic=False, title="Weather"),
        b'{"type":"tool-input-start","toolCallId":"c1","toolName":"weather","dynamic":false,"title":"Weather"}',
    ),
    (
        ToolInputDelta("c1", '{"a'),
        b'{"type":"tool-input-delta","toolCallId":"c1","inputTextDelta":"{\\"a"}',
    ),
    (
        ToolInputAvailable("c1", "weather", None, provider_executed=True),
        b'{"type":"tool-input-available","toolCallId":"c1","toolName":"weather","input":null,'
        b'"providerExecuted":true}',
    ),
    (
        ToolInputError("c1", "weather", "{", "no JSON"),
        b'{"type":"tool-input-error","toolCallId":"c1","toolName":"weather","input":"{","errorText":"no JSON"}',
    ),
    (
        ToolApprovalRequest("a1", "c1"),
        b'{"type":"tool-approval-request","approvalId":"a1","toolCallId":"c1"}',
    ),
    (
        ToolOutputAvailable("c1", [1], preliminary=True),
        b'{"type":"tool-output-available","toolCallId":"c1","output":[1],"preliminary":true}',
    ),
    (ToolOutputError("c1", "down"), b'{"type":"tool-output-error","toolCallId":"c1","errorText":"down"}'),
    (ToolOutputDenied("c1"), b'{"type":"tool-output-denied","toolCallId":"c1"}'),
    (SourceUrl("s1", "https://a.example"), b'{"type":"source-url","sourceId":"s1","url":"https://a.example"}'),
    (
        SourceDocument("s1", "text/plain", "Notes", filename="n.txt"),
        b'{"type":"source-document","sourceId":"s1","mediaType":"text/plain","title":"Notes","filename":"n.txt"}',
    ),
    (File("data:,x", "text/plain"), b'{"type":"file","url":"data:,x","mediaType":"text/plain"}'),
    (
        Data("data-progress", None, id="p", transient=False),
        b'{"type":"data-progress","data":null,"id":"p","transient":false}',
    ),
    (ReasoningFile("data:,x", "text/plain"), b'{"type":"reasoning-file","url":"data:,x","mediaType":"text/plain"}'),
    (Custom("openai.compaction"), b'{"type":"custom","kind":"openai.compaction"}'),
    (MessageMetadata({"a": 1}), b'{"type":"message-metadata","messageMetadata":{"a":1}}'),
    (Finish(), b'{"type":"finish"}'),
    (Finish(finish_reason="tool-calls"), b'{"type":"finish","finishReason":"tool-calls"}'),
    (Finish(finish_reason="interrupted"), b'{"type":"finish","finishReason":"interrupted"}'),
    (Abort(), b'{"type":"abort"}'),
    (Abort("too late"), b'{"type":"abort","reason":"too late"}'),
    (TextEnd("t1", citations=[{"citedText": "a"}]), b'{"type":"text-end","id":"t1","citations":[{"citedText":"a"}]}'),
    (
        ToolInputStart("c1", "weather", provider_metadata={"a": {}}, tool_metadata={"b": 1}, input_encoding="text"),
        b'{"type":"tool-input-start","toolCallId":"c1","toolName":"weather","providerMetadata":{"a":{}},'
        b'"toolMetadata":{"b":1},"inputEncoding":"text"}',
    ),
    (
        ToolApprovalRequest("a1", "c1", "It costs money", False, "s", {"scope": "all"}),
        b'{"type":"tool-approval-request","approvalId":"a1","toolCallId":"c1","reason":"It costs money",'
        b'"isAutomatic":false,"signature":"s","approvalDescriptor":{"scope":"all"}}',
    ),
    (
        ToolOutputAvailable("c1", 1, tool_metadata={"b": 1}),
        b'{"type":"tool-output-available","toolCallId":"c1","output":1,"toolMetadata":{"b":1}}',
    ),
    (Error("no model"), b'{"type":"error","errorText":"no model"}'),
]


@pytest.mark.parametrize(("chunk", "data"), EVERY_CHUNK)
def test_every_chunk_has_these_bytes(chunk: Chunk, data: bytes) -> None:
    """Fields are camelCase, absent ones are left out, and the bytes decode to the same chunk."""
    assert encode_chunk(chunk) == data
    assert decode_chunk(data) == chunk
    assert decode_chunk(data.decode()) == chunk


def test_the_table_above_misses_no_class() -> None:
    """Every class of the union has its literal bytes."""
    assert {type(chunk) for chunk, _ in EVERY_CHUNK} == set(CHUNK_CLASSES)


@given(chunk_sequences())
def test_decoding_undoes_encoding(chunks: list[Chunk]) -> None:
    """Any chunk comes back equal."""
    assert [decode_chunk(encode_chunk(chunk)) for chunk in chunks] == chunks


def test_the_fast_path_writes_the_same_bytes() -> None:
    """A text delta's fast path is the encoder's twin."""
    assert text_delta_bytes("t1", 'a"b') == b'{"type":"text-delta","id":"t1","delta":"a\\"b"}'


def test_terminal_chunks_are_these() -> None:
    """finish, abort and error end a stream; nothing else does."""
    ends = {chunk_type(chunk) for chunk, _ in EVERY_CHUNK if isinstance(chunk, TERMINAL)}
    assert ends == {"finish", "abort", "error"}


def test_finish_reasons_are_these() -> None:
    """`interrupted` came with version 7 and is an error in 6: `wire/target.py` sees to that."""
    assert get_args(FinishReason) == (
        *("stop", "length", "content-filter", "tool-calls", "error", "other"),
        "interrupted",
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('{"type":"reset-step"}', "there is no chunk of type 'reset-step'"),
        ('{"type":"data-","data":1}', "the data- chunk is not what it should be: "),
        ('{"type":"data-x"}', "the data-x chunk is not what it should be: Object missing required field `data`"),
        ('{"type":"abort","because":"user"}', "the abort chunk is not what it should be: Object contains unknown"),
        ('{"type":"data-x","data":1,"name":"n"}', "the data-x chunk is not what it should be: Object contains"),
        ('{"type":"text-delta","id":"t"}', "the text-delta chunk is not what it should be: Object missing required"),
        ('{"type":"text-delta","id":7,"delta":""}', "the text-delta chunk is not what it should be: Expected `str`"),
        ('{"type":"finish","finishReason":"bored"}', "the finish chunk is not what it should be: Invalid enum"),
        ('{"type":"start","messageId":null}', "`messageId` of a chunk is null; an absent field must be left out"),
        ('{"type":"data-x","data":1,"id":null}', "`id` of a chunk is null; an absent field must be left out"),
        ('{"type":"tool-input-available","toolCallId":"c","toolName":"t"}', "the tool-input-available chunk is not"),
        ('{"messageId":"m"}', "a chunk has a `type`, and it is text"),
        ('{"type":1}', "a chunk has a `type`, and it is text"),
        ('[{"type":"start"}]', "a chunk is a JSON object"),
        ("{", "the chunk is not valid JSON: Input data was truncated"),
        (b'{"type":"text-start","id":"\xff"}', "the chunk is not valid UTF-8 text"),
        pytest.param("[" * 100_000, "the chunk is nested too deeply", id="deep"),
        ('{"type":"data-x","data":[{"__proto__":1}]}', "a data-x chunk has a `__proto__`"),
        ('{"type":"data-x","data":{"\\u005f_proto__":1}}', "a data-x chunk has a `__proto__`"),
        ('{"type":"data-x","data":{"constructor":{"prototype":1}}}', "a data-x chunk has a `__proto__`"),
    ],
)
def test_what_no_client_takes_is_refused(data: bytes | str, message: str) -> None:
    """Unknown types and fields, nulls, missing and wrongly typed fields: each with its reason."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode_chunk(data)
    assert str(caught.value).startswith(message)


def test_a_data_chunk_has_a_name() -> None:
    """A wrong type is a programmer's error at once, not a client's later."""
    with pytest.raises(ValueError, match="a data chunk's type is `data-` and a name, not 'progress'"):
        Data("progress", 1)


def test_half_a_surrogate_pair_cannot_be_sent() -> None:
    """No UTF-8 can carry it; the error names the chunk."""
    with pytest.raises(LocalProtocolError, match="a text-delta chunk cannot be sent as JSON"):
        encode_chunk(TextDelta("t1", "\ud83d"))
    with pytest.raises(LocalProtocolError, match="a text-delta chunk cannot be sent as JSON"):
        text_delta_bytes("t1", "\ud83d")


def test_a_key_that_ends_every_clients_stream_cannot_be_sent() -> None:
    """A tool's input with such a key would make the chat unreadable at every replay."""
    with pytest.raises(LocalProtocolError, match="a tool-input-available chunk has a `__proto__`"):
        encode_chunk(ToolInputAvailable("c1", "t", {"a": {"__proto__": 1}}))
    assert encode_chunk(ToolOutputAvailable("c1", {"constructor": "Ford"})) == (
        b'{"type":"tool-output-available","toolCallId":"c1","output":{"constructor":"Ford"}}'
    )
    assert encode_chunk(TextDelta("t1", '"__proto__":')) == (
        b'{"type":"text-delta","id":"t1","delta":"\\"__proto__\\":"}'
    )
