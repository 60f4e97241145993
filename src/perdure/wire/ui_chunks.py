"""The chunks of a streamed answer: the AI SDK's UI message stream.

Every chunk is a JSON object with a ``type``. `ai` 6.0.0 refuses unknown fields, and all releases
refuse unknown types and ``null`` in an optional field and a ``__proto__`` key anywhere. So absent
fields are left out, and `decode_chunk` lets nothing through that no client knows. What came after
6.0.0 is marked "newer" below; `wire/target.py` leaves it out for clients that may not know it.

Field names are camelCase on the wire. `finish`, `abort` and `error` are `TERMINAL`: exactly one
of them ends a stream, and an end without one means that the stream was cut.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from ..errors import LocalProtocolError, RemoteProtocolError
from .json_text import decode_json, has_prototype_key

ProviderMetadata: TypeAlias = dict[str, dict[str, Any]]
"""Provider name -> what that provider wants back with the next request."""

FinishReason = Literal["stop", "length", "content-filter", "tool-calls", "error", "other", "interrupted"]
"""Why an answer ended. Newer: ``interrupted``."""


class _Chunk(
    msgspec.Struct,
    rename="camel",
    tag_field="type",
    omit_defaults=True,
    forbid_unknown_fields=True,
    frozen=True,
):
    """What all chunks share."""


class Start(_Chunk, tag="start", frozen=True):
    """The first chunk. ``message_id`` is the answer's id, the same in every replay."""

    message_id: str | None = None
    message_metadata: dict[str, Any] | None = None


class StartStep(_Chunk, tag="start-step", frozen=True):
    """One model call begins."""


class FinishStep(_Chunk, tag="finish-step", frozen=True):
    """One model call, with the results of its tools, is over."""


class TextStart(_Chunk, tag="text-start", frozen=True):
    id: str
    provider_metadata: ProviderMetadata | None = None


class TextDelta(_Chunk, tag="text-delta", frozen=True):
    id: str
    delta: str
    provider_metadata: ProviderMetadata | None = None


class TextEnd(_Chunk, tag="text-end", frozen=True):
    """Newer: ``citations``, what the text refers to."""

    id: str
    provider_metadata: ProviderMetadata | None = None
    citations: list[dict[str, Any]] | None = None


class ReasoningStart(_Chunk, tag="reasoning-start", frozen=True):
    id: str
    provider_metadata: ProviderMetadata | None = None


class ReasoningDelta(_Chunk, tag="reasoning-delta", frozen=True):
    id: str
    delta: str
    provider_metadata: ProviderMetadata | None = None


class ReasoningEnd(_Chunk, tag="reasoning-end", frozen=True):
    id: str
    provider_metadata: ProviderMetadata | None = None


class ToolInputStart(_Chunk, tag="tool-input-start", frozen=True):
    """The model begins to write a tool's input. ``dynamic``: the tool is not known in advance.

    Newer: ``provider_metadata``, ``tool_metadata`` and ``input_encoding`` (``text``: the input is no JSON).
    """

    tool_call_id: str
    tool_name: str
    provider_executed: bool | None = None
    dynamic: bool | None = None
    title: str | None = None
    provider_metadata: ProviderMetadata | None = None
    tool_metadata: dict[str, Any] | None = None
    input_encoding: Literal["json", "text"] | None = None


class ToolInputDelta(_Chunk, tag="tool-input-delta", frozen=True):
    """The next piece of the input's JSON text."""

    tool_call_id: str
    input_text_delta: str


class ToolInputAvailable(_Chunk, tag="tool-input-available", frozen=True):
    """The whole input. Needs no `ToolInputStart` before it. Newer: ``tool_metadata``."""

    tool_call_id: str
    tool_name: str
    input: Any
    provider_executed: bool | None = None
    provider_metadata: ProviderMetadata | None = None
    dynamic: bool | None = None
    title: str | None = None
    tool_metadata: dict[str, Any] | None = None


class ToolInputError(_Chunk, tag="tool-input-error", frozen=True):
    """The model wrote an input that the tool cannot take; the call is over. Newer: ``tool_metadata``."""

    tool_call_id: str
    tool_name: str
    input: Any
    error_text: str
    provider_executed: bool | None = None
    provider_metadata: ProviderMetadata | None = None
    dynamic: bool | None = None
    title: str | None = None
    tool_metadata: dict[str, Any] | None = None


class ToolApprovalRequest(_Chunk, tag="tool-approval-request", frozen=True):
    """A person must agree before the call is carried out.

    Newer: ``reason`` (why a person is asked), ``is_automatic`` (nobody is asked: a rule answers), ``signature``
    and ``approval_descriptor`` (come back with the response).
    """

    approval_id: str
    tool_call_id: str
    reason: str | None = None
    is_automatic: bool | None = None
    signature: str | None = None
    approval_descriptor: dict[str, Any] | None = None


class ToolOutputAvailable(_Chunk, tag="tool-output-available", frozen=True):
    """The tool's result; ``preliminary`` ones are replaced by the next.

    Newer: ``provider_metadata``, ``tool_metadata``.
    """

    tool_call_id: str
    output: Any
    provider_executed: bool | None = None
    dynamic: bool | None = None
    preliminary: bool | None = None
    provider_metadata: ProviderMetadata | None = None
    tool_metadata: dict[str, Any] | None = None


class ToolOutputError(_Chunk, tag="tool-output-error", frozen=True):
    """Newer: ``provider_metadata``, ``tool_metadata``."""

    tool_call_id: str
    error_text: str
    provider_executed: bool | None = None
    dynamic: bool | None = None
    provider_metadata: ProviderMetadata | None = None
    tool_metadata: dict[str, Any] | None = None


class ToolOutputDenied(_Chunk, tag="tool-output-denied", frozen=True):
    """The person did not agree."""

    tool_call_id: str


class SourceUrl(_Chunk, tag="source-url", frozen=True):
    source_id: str
    url: str
    title: str | None = None
    provider_metadata: ProviderMetadata | None = None


class SourceDocument(_Chunk, tag="source-document", frozen=True):
    source_id: str
    media_type: str
    title: str
    filename: str | None = None
    provider_metadata: ProviderMetadata | None = None


class File(_Chunk, tag="file", frozen=True):
    """A file in the answer; ``url`` is a web address or a data URL."""

    url: str
    media_type: str
    provider_metadata: ProviderMetadata | None = None


class ReasoningFile(_Chunk, tag="reasoning-file", frozen=True):
    """Newer: a file that belongs to the model's reasoning."""

    url: str
    media_type: str
    provider_metadata: ProviderMetadata | None = None


class Custom(_Chunk, tag="custom", frozen=True):
    """Newer: a provider's own kind of content; ``kind`` is the provider and a name, like ``openai.compaction``."""

    kind: str
    provider_metadata: ProviderMetadata | None = None


class MessageMetadata(_Chunk, tag="message-metadata", frozen=True):
    """Merged deeply into the message's metadata."""

    message_metadata: dict[str, Any]


class Finish(_Chunk, tag="finish", frozen=True):
    """The answer is whole."""

    finish_reason: FinishReason | None = None
    message_metadata: dict[str, Any] | None = None


class Abort(_Chunk, tag="abort", frozen=True):
    """The answer was stopped; what was said stays. Newer: ``reason``."""

    reason: str | None = None


class Error(_Chunk, tag="error", frozen=True):
    """The answer failed; what was said stays."""

    error_text: str


class Data(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True):
    """A part of the application's own kind: ``type`` is ``data-`` and a name.

    The same type and ``id`` again replaces the data; a ``transient`` one is shown and not kept.
    """

    type: str
    data: Any
    id: str | None = None
    transient: bool | None = None

    def __post_init__(self) -> None:
        if not self.type.startswith("data-") or self.type == "data-":
            raise ValueError(f"a data chunk's type is `data-` and a name, not {self.type[:80]!r}")


_Tagged: TypeAlias = (
    Start
    | StartStep
    | FinishStep
    | TextStart
    | TextDelta
    | TextEnd
    | ReasoningStart
    | ReasoningDelta
    | ReasoningEnd
    | ToolInputStart
    | ToolInputDelta
    | ToolInputAvailable
    | ToolInputError
    | ToolApprovalRequest
    | ToolOutputAvailable
    | ToolOutputError
    | ToolOutputDenied
    | SourceUrl
    | SourceDocument
    | File
    | ReasoningFile
    | Custom
    | MessageMetadata
    | Finish
    | Abort
    | Error
)

Chunk: TypeAlias = _Tagged | Data

CHUNK_CLASSES: tuple[type[Chunk], ...] = get_args(Chunk)
"""For ``isinstance(thing, CHUNK_CLASSES)``."""

TERMINAL: tuple[type[Finish], type[Abort], type[Error]] = (Finish, Abort, Error)
"""The chunks that end a stream, for ``isinstance(chunk, TERMINAL)``."""

_ENCODER = msgspec.json.Encoder()
_TAGGED_DECODER: msgspec.json.Decoder[_Tagged] = msgspec.json.Decoder(_Tagged)
_DATA_DECODER = msgspec.json.Decoder(Data)

_ANY_JSON_FIELDS = frozenset({"input", "output", "data"})
"""The fields whose value may be ``null``: they carry the application's own JSON."""

_SUSPECT_KEY = re.compile(rb"__proto__|constructor")

_SUSPECT = re.compile(rb"null|__proto__|constructor|\\u00")
"""What is worth a second look; an escape may hide the letters of a key."""

_PROTOTYPE_KEY = "has a `__proto__` or `constructor.prototype` key, which every client refuses"


def chunk_type(chunk: Chunk) -> str:
    """The chunk's ``type`` on the wire: ``text-delta``."""
    if isinstance(chunk, Data):
        return chunk.type
    tag = chunk.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def encode_chunk(chunk: Chunk) -> bytes:
    """The chunk as one line of compact JSON.

    Raises:
        LocalProtocolError: it holds something that has no JSON, such as half a surrogate pair, or
            a key that ends the stream of every JavaScript client.
    """
    try:
        data = _ENCODER.encode(chunk)
    except (TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"a {chunk_type(chunk)} chunk cannot be sent as JSON: {error}") from error
    if type(chunk) is TextDelta and chunk.provider_metadata is None:
        return data  # the commonest; it has no keys of its own
    if _SUSPECT_KEY.search(data) and has_prototype_key(msgspec.json.decode(data)):
        raise LocalProtocolError(f"a {chunk_type(chunk)} chunk {_PROTOTYPE_KEY}")
    return data


def text_delta_bytes(id: str, delta: str) -> bytes:
    """``encode_chunk(TextDelta(id, delta))``: most of what a server ever sends, in 0.15 µs.

    (msgspec's struct encoder beats gluing bytes by hand; measure before changing this.)
    """
    try:
        return _ENCODER.encode(TextDelta(id, delta))
    except ValueError as error:
        raise LocalProtocolError(f"a text-delta chunk cannot be sent as JSON: {error}") from error


def decode_chunk(data: bytes | str) -> Chunk:
    """The chunk in ``data``.

    Raises:
        RemoteProtocolError: an unknown type or field, a missing or wrongly typed field, a ``null``
            in an optional field, a ``__proto__`` key, no JSON.
    """
    try:
        chunk: Chunk = _TAGGED_DECODER.decode(data)
    except (ValueError, RecursionError):
        # Rare: a data chunk, whose type the union cannot know, or a bad one. Both can be slow.
        chunk = _decode_unusual(data)
    raw = data.encode() if isinstance(data, str) else data
    if _SUSPECT.search(raw):
        _look_closely(raw)
    return chunk


def _decode_unusual(data: bytes | str) -> Chunk:
    fields = decode_json(data, "the chunk")
    if not isinstance(fields, dict):
        raise RemoteProtocolError("a chunk is a JSON object")
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise RemoteProtocolError("a chunk has a `type`, and it is text")
    if kind.startswith("data-"):
        return decode_json(data, f"the {kind[:80]} chunk", _DATA_DECODER)
    if kind not in _KNOWN_TYPES:
        raise RemoteProtocolError(f"there is no chunk of type {kind[:80]!r}")
    return decode_json(data, f"the {kind} chunk", _TAGGED_DECODER)


def _look_closely(data: bytes) -> None:
    """What clients refuse and msgspec does not: it reads ``null`` as a field's default."""
    fields = msgspec.json.decode(data)
    for name, value in fields.items():
        if value is None and name not in _ANY_JSON_FIELDS:
            raise RemoteProtocolError(f"`{name}` of a chunk is null; an absent field must be left out")
    if has_prototype_key(fields):
        raise RemoteProtocolError(f"a {fields['type'][:80]} chunk {_PROTOTYPE_KEY}")


_KNOWN_TYPES = frozenset(str(kind.__struct_config__.tag) for kind in get_args(_Tagged))
