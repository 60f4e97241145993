"""Our messages as pydantic-ai knows them: files, thoughts, calls with and without results."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.models.answers import answered, folded

pytest.importorskip("pydantic_ai", reason="`pip install 'perdure[ai]'`")

from pydantic_ai import messages as ai
from pydantic_ai.messages import tool_return_ta
from pydantic_ai.tools import ToolApproved, ToolDenied

from perdure.errors import NoSuchFile
from perdure.models.base import ToolSpec, TurnContext
from perdure.models.pydantic_ai.history import History, history_of
from perdure.wire.messages import ChatMessage, user_message
from perdure.wire.ui_chunks import (
    Chunk,
    Data,
    File,
    ReasoningEnd,
    ReasoningStart,
    SourceUrl,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputDenied,
    ToolOutputError,
)

Piece = str | Chunk

PNG = "data:image/png;base64,aGk="


def _history(turn: TurnContext, *, runs_tools: bool = False) -> History:
    return asyncio.run(history_of(turn, runs_tools=runs_tools))


def _answer_history(message: ChatMessage, **more: Any) -> list[ai.ModelMessage]:
    """What becomes of an answer of the past."""
    messages = [user_message("1", "Hi"), message, user_message("2", "And?")]
    return _history(TurnContext(text="And?", messages=messages, tools=[ToolSpec("look")], **more)).messages[1:-1]


def _user(*parts: dict[str, Any]) -> ChatMessage:
    return ChatMessage("1", "user", list(parts))


def _prompt(message: ChatMessage, **more: Any) -> Any:
    request = _history(TurnContext(text="", messages=[message], **more)).messages[0]
    part = request.parts[0]
    assert isinstance(part, ai.UserPromptPart)
    return part.content


def _file(url: str, media_type: str = "image/png", **more: Any) -> dict[str, Any]:
    return {"type": "file", "url": url, "mediaType": media_type, **more}


async def _load(url: str) -> tuple[bytes, str]:
    if url != "/api/chat/r/files/f1":
        raise NoSuchFile("no such file")
    return b"hello", "text/plain"


@pytest.mark.parametrize(
    ("part", "content"),
    [
        (_file(PNG), ai.BinaryImage(b"hi", media_type="image/png")),
        (_file("/api/chat/r/files/f1"), ai.BinaryContent(b"hello", media_type="text/plain")),
        (_file("https://example.com/a.png"), ai.ImageUrl("https://example.com/a.png", media_type="image/png")),
        (_file("https://example.com/a", "audio/mpeg"), ai.AudioUrl("https://example.com/a", media_type="audio/mpeg")),
        (_file("https://example.com/a", "video/mp4"), ai.VideoUrl("https://example.com/a", media_type="video/mp4")),
        (
            _file("https://example.com/a", "application/pdf"),
            ai.DocumentUrl("https://example.com/a", media_type="application/pdf"),
        ),
    ],
)
def test_files_are_shown_to_the_provider(part: dict[str, Any], content: Any) -> None:
    """Data URLs and this server's own files as bytes, others by their address."""
    assert _prompt(_user({"type": "text", "text": "Look"}, part), load_file=_load) == ["Look", content]


@pytest.mark.parametrize(
    ("part", "note"),
    [
        (_file("/api/chat/r/files/f2", filename="a.png"), "[a.png (image/png): cannot be read]"),
        (_file("data:image/png", filename="a.png"), "[a.png (image/png): cannot be read]"),
        (_file("blob:abc"), "[a file (image/png): cannot be read]"),
        (_file("file:///etc/passwd"), "[a file (image/png): cannot be read]"),
        (_file("data:application/zip;base64,aGk=", "application/zip"), "[a file (application/zip): cannot be shown]"),
        (_file("https://example.com/a", "application/zip"), "[a file (application/zip): https://example.com/a]"),
    ],
)
def test_a_file_that_no_provider_takes_is_a_note(part: dict[str, Any], note: str) -> None:
    """It stays in the conversation, so it must not fail every later turn."""
    assert _prompt(_user(part), load_file=_load) == [note]


def test_without_a_way_to_load_files_only_other_sites_files_are_seen() -> None:
    """A room without files has none."""
    parts = [_file("/api/chat/r/files/f1"), _file("https://example.com/a.png")]
    shown = _prompt(_user(*parts))
    assert shown[0] == "[a file (image/png): cannot be read]"
    assert isinstance(shown[1], ai.ImageUrl)


def test_steps_become_responses_and_results() -> None:
    """In the order in which they were."""
    first = folded(
        [
            "I look.",
            ToolInputAvailable("c1", "look", {"at": 1}),
            ToolInputAvailable("c2", "look", {"at": 2}),
            ToolInputAvailable("c3", "look", {"at": 3}),
            ToolOutputAvailable("c1", [1]),
            ToolOutputError("c2", "too dark"),
            ToolOutputDenied("c3"),
        ]
    )
    messages = _answer_history(folded(["Done."], first))
    assert [type(message).__name__ for message in messages] == ["ModelResponse", "ModelRequest", "ModelResponse"]
    said, *calls = messages[0].parts
    assert said == ai.TextPart("I look.")
    assert [(part.tool_call_id, part.args) for part in calls if isinstance(part, ai.ToolCallPart)] == [
        ("c1", {"at": 1}),
        ("c2", {"at": 2}),
        ("c3", {"at": 3}),
    ]
    results = [part for part in messages[1].parts if isinstance(part, ai.ToolReturnPart)]
    assert [(part.outcome, part.content) for part in results] == [
        ("success", [1]),
        ("failed", "too dark"),
        ("denied", "The tool call was denied."),
    ]
    assert messages[2].parts == [ai.TextPart("Done.")]


@pytest.mark.parametrize("runs_tools", [True, False])
def test_a_call_without_a_result_gets_one_in_the_past(runs_tools: bool) -> None:
    """Providers refuse one without; one that is still being written is left out."""
    pieces: list[Piece] = [
        ToolInputAvailable("c1", "look", {}),
        ToolInputAvailable("c2", "look", {}),
        ToolApprovalRequest("a", "c2"),
        ToolOutputAvailable("c1", "half", preliminary=True),
        ToolInputStart("c3", "look"),
    ]
    messages = [user_message("1", "Hi"), folded(pieces), user_message("2", "And?")]
    turn = TurnContext(text="And?", messages=messages, tools=[ToolSpec("look")])
    history = _history(turn, runs_tools=runs_tools)
    assert history.deferred is None
    results = [part for part in history.messages[2].parts if isinstance(part, ai.ToolReturnPart)]
    assert [(part.tool_call_id, part.outcome) for part in results] == [("c1", "interrupted"), ("c2", "interrupted")]
    assert "interrupted" in str(results[0].content)
    assert "waits for a person's approval" in str(results[1].content)


def test_an_agents_open_calls_stay_open() -> None:
    """With what people said; results beside them are results."""
    call = ToolInputAvailable
    pieces = [call("c1", "look", {}), call("c2", "buy", {}), call("c3", "buy", {}), call("c4", "look", {})]
    asked = folded([*pieces, ToolOutputAvailable("c1", 1), ToolApprovalRequest("a", "c2")])
    yes = answered(asked, "c2", state="approval-responded", approval={"id": "a", "approved": True})
    both = answered(yes, "c3", state="approval-responded", approval={"id": "b", "approved": False, "reason": "no"})
    turn = TurnContext(text="Hi", messages=[user_message("1", "Hi")], answer=both)
    history = _history(turn, runs_tools=True)
    assert history.deferred is not None
    assert history.deferred.approvals == {"c2": ToolApproved(), "c3": ToolDenied("no")}
    assert list(history.deferred.calls) == ["c4"]
    assert [type(message).__name__ for message in history.messages] == [
        "ModelRequest",
        "ModelResponse",
        "ModelRequest",
    ]
    assert _history(turn, runs_tools=False).deferred is None


def test_thoughts_go_back_to_who_had_them() -> None:
    """With signature and the system that checks it; others are left out."""
    kept = {
        "pydantic_ai": {
            "signature": "c2ln",
            "provider_name": "google",
            "canonical_system": "google-gla",
            "provider_details": {"a": 1},
        }
    }
    forged = {"pydantic_ai": {"signature": 7, "provider_name": ["x"]}}
    parts: list[dict[str, Any]] = [
        {"type": "reasoning", "text": "Hm.", "providerMetadata": kept},
        {"type": "reasoning", "text": "Nobody's."},
        {"type": "reasoning", "text": "Odd.", "providerMetadata": forged},
        {"type": "reasoning", "text": "Odd.", "providerMetadata": {"pydantic_ai": "x"}},
        {"type": "text", "text": "Yes."},
    ]
    [response] = _answer_history(ChatMessage("a", "assistant", parts))
    assert isinstance(response, ai.ModelResponse)
    thought = ai.ThinkingPart("Hm.", signature="c2ln", provider_name="google", provider_details={"a": 1})
    assert response.parts == [thought, ai.TextPart("Yes.")]
    assert (response.provider_name, response.canonical_system) == ("google", "google-gla")


def test_what_is_for_people_only_is_left_out() -> None:
    """Sources, data, what a provider's own tools did; an agent's structured output stays."""
    native = ToolInputAvailable("n1", "web_search", {"query": "x"}, provider_executed=True)
    pieces: list[Piece] = [
        ReasoningStart("r"),
        ReasoningEnd("r"),
        native,
        ToolOutputAvailable("n1", [], provider_executed=True),
        SourceUrl("s", "https://example.com"),
        Data("data-progress", 1),
        Data("data-output", {"a": 1}),
    ]
    [response] = _answer_history(folded(pieces))
    assert response.parts == [ai.TextPart('{"a": 1}')]
    assert _answer_history(folded(pieces[:-1])) == []
    assert _answer_history(folded(['It is {"a": 1}.', pieces[-1]]))[0].parts == [ai.TextPart('It is {"a": 1}.')]


def test_files_that_a_model_made_stay_its_own() -> None:
    """Also where the room keeps them; those that are gone are left out."""
    pieces: list[Piece] = [
        File(PNG, "image/png"),
        File("/api/chat/r/files/f1", "text/plain"),
        File("/gone", "text/plain"),
    ]
    [response] = _answer_history(folded(pieces), load_file=_load)
    assert [part.content.data for part in response.parts if isinstance(part, ai.FilePart)] == [b"hi", b"hello"]


def test_a_tools_files_come_back_and_addresses_do_not_become_downloads() -> None:
    """A client may have given the result."""
    image = tool_return_ta.dump_python(ai.BinaryContent(b"hi", media_type="image/png"), mode="json")
    address = {"kind": "image-url", "url": "http://localhost/secret", "force_download": True}
    pieces: list[Piece] = [ToolInputAvailable("c1", "look", {}), ToolOutputAvailable("c1", [image, address])]
    result = _answer_history(folded(pieces))[1].parts[0]
    assert isinstance(result, ai.ToolReturnPart)
    assert result.content == [ai.BinaryImage(b"hi", media_type="image/png"), address]


def test_odd_inputs_do_not_break_the_conversation() -> None:
    """A call whose input was no object or no JSON, as any client may have sent it in a message."""
    for given in (None, "{", [1], 7):
        part = {"type": "tool-look", "toolCallId": "c", "state": "output-error", "input": given, "errorText": "bad"}
        response, results = _answer_history(ChatMessage("a", "assistant", [part]))
        assert isinstance(response.parts[0], ai.ToolCallPart)
        assert response.parts[0].args_as_dict() is not None
        assert len(results.parts) == 1
