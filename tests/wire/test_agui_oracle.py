"""Our AG-UI events against TanStack AI itself: its clients show what our own fold of the chunks has."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.requirements import need
from tests.wire.chunk_sequences import MESSAGE_ID, chunk_sequences

from perdure.wire.agui import AguiEncoder
from perdure.wire.agui_messages import client_message, message_events, snapshot_event
from perdure.wire.agui_requests import parse_session_request
from perdure.wire.fold import MessageFold, fold
from perdure.wire.messages import ChatMessage, user_message
from perdure.wire.ui_chunks import (
    TERMINAL,
    Abort,
    Chunk,
    Error,
    Finish,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    Start,
    TextDelta,
    TextEnd,
    TextStart,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputDenied,
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
            ["node", "agui_fold.mjs"], cwd=NPM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The script's answer; AG-UI's own schema must have found the events good."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # ASCII only: node's readline also ends a line at U+2028.
        self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline(), parse_int=_javascript_number)
        assert "failure" not in answer, answer["failure"]
        assert answer["invalid"] == []
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=10)


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    for package in ("@tanstack/ai-client", "@durable-streams/tanstack-ai-transport"):
        need(
            f"the npm package `{package}`",
            (NPM / "node_modules" / package).is_dir(),
            "npm install --prefix tests/npm",
        )
    process = Oracle()
    yield process
    process.close()


def ended(chunks: list[Chunk]) -> list[Chunk]:
    """The chunks with an end: what a server that was stopped here would have appended."""
    return chunks if isinstance(chunks[-1], TERMINAL) else [*chunks, Abort()]


def encoded(chunks: list[Chunk]) -> list[bytes]:
    encoder = AguiEncoder("room", "run-1")
    return [event for chunk in chunks for event in encoder.encode(chunk)]


def as_json(events: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(event) for event in events]


def text_of(message: dict[str, Any]) -> str:
    return "".join(part["content"] for part in message["parts"] if part["type"] == "text")


def thoughts_of(message: dict[str, Any]) -> str:
    return "".join(part["content"] for part in message["parts"] if part["type"] == "thinking")


def our_thoughts(folded: MessageFold) -> str:
    return "".join(part["text"] for part in folded.message().parts if part["type"] == "reasoning")


def check_same(messages: list[dict[str, Any]], folded: MessageFold) -> None:
    """One message at most, and what it says is what we have. TanStack removes an answer of blanks alone."""
    if not messages:
        assert not folded.text.strip()
        assert our_thoughts(folded) == ""
        return
    assert [message["id"] for message in messages] == [MESSAGE_ID]
    assert text_of(messages[0]) == folded.text
    assert thoughts_of(messages[0]) == our_thoughts(folded)


@st.composite
def interleaved_sequences(draw: st.DrawFn) -> list[Chunk]:
    """Texts, thoughts, calls and results that interrupt each other all the time; `chunk_sequences` seldom does."""
    chunks: list[Chunk] = [Start(MESSAGE_ID)]
    is_open: set[str] = set()
    called: list[str] = []
    acts = st.sampled_from(["text t1", "text t1", "text t2", "think r1", "think r2", "end", "call", "result"])
    for number, act in enumerate(draw(st.lists(acts, min_size=3, max_size=20))):
        what, _, part_id = act.partition(" ")
        if what in ("text", "think"):
            start, delta = (TextStart, TextDelta) if what == "text" else (ReasoningStart, ReasoningDelta)
            if part_id not in is_open:
                is_open.add(part_id)
                chunks.append(start(part_id))
            chunks.append(delta(part_id, f"{part_id}:{number} "))
        elif what == "call":
            called.append(f"call_{number}")
            chunks.append(ToolInputAvailable(called[-1], "where", {"number": number}))
        elif what == "result" and called:
            chunks.append(ToolOutputAvailable(draw(st.sampled_from(called)), number))
        elif what == "end" and is_open:
            ending = draw(st.sampled_from(sorted(is_open)))
            is_open.remove(ending)
            chunks.append(TextEnd(ending) if ending.startswith("t") else ReasoningEnd(ending))
    ends: list[Chunk] = [Finish(), Abort(), Error("no model")]
    return [*chunks, draw(st.sampled_from(ends))]


sequences = chunk_sequences() | interleaved_sequences()
many_examples = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many_examples
@given(chunks=sequences)
def test_tanstack_shows_what_the_fold_has(oracle: Oracle, chunks: list[Chunk]) -> None:
    """Any stream, in any order that is legal: the tab has the text, thoughts and results of the stored message."""
    chunks = ended(chunks)
    answer = oracle.ask("fold", events=as_json(encoded(chunks)))
    check_same(answer["messages"], fold(chunks))
    theirs, ours = outcomes_of(answer["messages"]), outcomes_of([client_message(fold(chunks).message())])
    if not any("~" in call_id for call_id in theirs | ours):  # an id that comes again may be one call or two
        assert theirs == ours
    assert answer["errors"] == [chunk.error_text for chunk in chunks if isinstance(chunk, Error)]


@many_examples
@given(chunks=sequences, data=st.data())
def test_an_encoder_can_be_restored_anywhere(chunks: list[Chunk], data: st.DataObject) -> None:
    """The events after a cut are the same, whether the encoder was there before or took the chunks in afterwards."""
    cut = data.draw(st.integers(0, len(chunks)))
    first = encoded(chunks[:cut])
    restored = AguiEncoder("room", "run-1")
    restored.restore(encode_chunk(chunk) for chunk in chunks[:cut])
    rest = [event for chunk in chunks[cut:] for event in restored.encode(encode_chunk(chunk))]
    assert first + rest == encoded(chunks)


@many_examples
@given(chunks=sequences, data=st.data())
def test_a_tab_whose_user_posts_meanwhile_loses_nothing(
    oracle: Oracle, chunks: list[Chunk], data: st.DataObject
) -> None:
    """A post makes a tab forget where it was in the running answer; the answer stays one and its text whole."""
    chunks = ended(chunks)
    cuts = data.draw(st.lists(st.integers(0, len(chunks)), max_size=3))
    posts = [len(encoded(chunks[:cut])) for cut in cuts]
    messages = oracle.ask("fold", events=as_json(encoded(chunks)), posts=posts)["messages"]
    assert [message["id"] for message in messages] in ([MESSAGE_ID], [])
    said = "".join(map(text_of, messages))
    assert said == fold(chunks).text or not (said + fold(chunks).text).strip()


@many_examples
@given(chunks=sequences)
def test_the_session_transport_shows_the_text(oracle: Oracle, chunks: list[Chunk]) -> None:
    """After a reload the transport folds the stream by itself; it knows texts only, and gets them right."""
    chunks = ended(chunks)
    messages = oracle.ask("transport", events=as_json(encoded(chunks)))["messages"]
    if messages:
        assert [message["id"] for message in messages] == [MESSAGE_ID]
    assert "".join(map(text_of, messages)) == fold(chunks).text


@many_examples
@given(chunks=sequences)
def test_a_stored_answer_is_shown_alike(oracle: Oracle, chunks: list[Chunk]) -> None:
    """Told after the fact, part by part or in a snapshot, an answer is what it was when it was live."""
    folded = fold(chunks)
    assume(not any(part.get("state") == "input-streaming" for part in folded.message().parts))  # cut: no answer yet
    told = oracle.ask("fold", events=as_json(message_events(folded.message())))["messages"]
    check_same(told, folded)
    (replaced,) = oracle.ask("fold", events=as_json([snapshot_event([folded.message()])]))["messages"]
    check_same([replaced], folded)
    for kind in ("tool-call", "tool-result"):
        assert parts_of([replaced], kind) == parts_of(told, kind)


def outcomes_of(messages: list[dict[str, Any]]) -> dict[str, Any]:
    calls = parts_of(messages, "tool-call")
    outputs = {call["id"]: call.get("output") for call in calls if call["state"] in ("complete", "error")}
    return {call["id"]: (call["state"], outputs.get(call["id"])) for call in calls}


def parts_of(messages: list[dict[str, Any]], kind: str) -> list[Any]:
    return [part for message in messages for part in message["parts"] if part["type"] == kind]


# --- the chat client


WHERE: list[Chunk] = [
    Start("a1"),
    TextStart("t1"),
    TextDelta("t1", "Let me see."),
    ToolInputStart("c1", "where"),
    ToolInputDelta("c1", '{"who":'),
    ToolInputDelta("c1", '"me"}'),
    ToolInputAvailable("c1", "where", {"who": "me"}),
]
OSLO: list[Chunk] = [TextStart("t2"), TextDelta("t2", "You are in "), TextDelta("t2", "Oslo."), Finish("stop")]


def two_runs(first: list[Chunk], second: list[Chunk]) -> list[list[dict[str, Any]]]:
    """The events of an answer that stops for its client, and of the run in which it goes on."""
    resumed = AguiEncoder("room", "run-2")
    resumed.restore(first)
    return [as_json(encoded(first)), as_json([event for chunk in second for event in resumed.encode(chunk)])]


def posted_answer(answer: dict[str, Any]) -> ChatMessage:
    """The assistant's message in the client's second post, as a server reads it."""
    request = parse_session_request(json.dumps({"messages": answer["posted"][1]}).encode(), chat_id="room")
    assert request.new_message is None
    assert request.message_id == "a1"
    return request.messages[-1]


@pytest.mark.parametrize("session", [True, False])
def test_a_tool_of_the_client_is_carried_out(oracle: Oracle, session: bool) -> None:
    """The turn stops, the client runs its tool and posts the result, the answer goes on in the same message."""
    runs = two_runs([*WHERE, Finish("tool-calls")], [Start("a1"), ToolOutputAvailable("c1", {"city": "Oslo"}), *OSLO])
    answer = oracle.ask("chat", runs=runs, session=session, tools={"where": {"city": "Oslo"}})
    assert (answer["status"], answer["loading"], answer["errors"]) == ("ready", False, [])
    assert len(answer["posted"]) == 2
    assert posted_answer(answer).parts == [
        {"type": "text", "text": "Let me see."},
        {
            "type": "tool-where",
            "toolCallId": "c1",
            "state": "output-available",
            "output": {"city": "Oslo"},
            "input": {"who": "me"},
        },
    ]
    question, shown = answer["messages"]
    assert (question["role"], text_of(question)) == ("user", "hi")
    assert (shown["id"], text_of(shown)) == ("a1", "Let me see.You are in Oslo.")


@pytest.mark.parametrize("session", [True, False])
@pytest.mark.parametrize("approved", [True, False])
def test_a_call_is_approved_or_not(oracle: Oracle, session: bool, approved: bool) -> None:
    """The tab asks, its user's word is posted, and the outcome is shown in the call that was asked about."""
    outcome = ToolOutputAvailable("c1", {"city": "Oslo"}) if approved else ToolOutputDenied("c1")
    runs = two_runs([*WHERE, ToolApprovalRequest("p1", "c1"), Finish("tool-calls")], [Start("a1"), outcome, *OSLO])
    answer = oracle.ask("chat", runs=runs, session=session, tools={}, approve=approved)
    assert (answer["status"], answer["loading"], answer["errors"]) == ("ready", False, [])
    assert posted_answer(answer).parts[1] == {
        "type": "tool-where",
        "toolCallId": "c1",
        "state": "approval-responded",
        "input": {"who": "me"},
        "approval": {"id": "p1", "approved": approved},
    }
    shown = answer["messages"][1]
    (call,) = parts_of([shown], "tool-call")
    if approved:
        assert (call["state"], call["output"]) == ("complete", {"city": "Oslo"})
    else:
        assert (call["state"], call["output"]) == ("error", {"error": "the user did not allow this tool call"})
    assert text_of(shown) == "Let me see.You are in Oslo."


@pytest.mark.parametrize("session", [True, False])
@pytest.mark.parametrize(
    ("end", "status", "errors"),
    [
        (Finish("length"), "ready", []),
        (Abort(), "ready", []),
        (Error("no model"), "error", ["no model"]),
    ],
)
def test_each_end_is_one_for_the_client(
    oracle: Oracle, session: bool, end: Chunk, status: str, errors: list[str]
) -> None:
    """A finished and a stopped answer leave the client ready; a failed one shows its error. None keeps it waiting."""
    runs = [as_json(encoded([Start("a1"), TextStart("t1"), TextDelta("t1", "Hello"), end]))]
    answer = oracle.ask("chat", runs=runs, session=session, tools={})
    assert (answer["status"], answer["loading"], answer["errors"]) == (status, False, errors)
    assert [text_of(message) for message in answer["messages"]] == ["hi", "Hello"]


def test_another_tab_sees_each_message_in_its_place(oracle: Oracle) -> None:
    """A tab that only watches: answers that begin with a thought, a call, an error or nothing take no one's place."""
    turns: list[list[Chunk]] = [
        [ReasoningStart("r1"), ReasoningDelta("r1", "Hm"), Finish()],
        [ToolInputAvailable("c1", "where", {}), ToolOutputAvailable("c1", "here"), Finish()],
        [Error("no model")],
        [Abort()],
        [TextStart("t1"), TextDelta("t1", "Yes."), Finish()],
    ]
    events: list[bytes] = []
    for number, turn in enumerate(turns):
        events += message_events(user_message(f"u{number}", f"Question {number}", user="Ada"))
        events += encoded([Start(f"a{number}"), *turn])
    messages = oracle.ask("fold", events=as_json(events))["messages"]
    assert [(message["id"], message["role"]) for message in messages] == [
        ("u0", "user"),
        ("a0", "assistant"),
        ("u1", "user"),
        ("a1", "assistant"),
        ("u2", "user"),
        ("a2", "assistant"),
        ("u3", "user"),
        ("u4", "user"),
        ("a4", "assistant"),
    ]
    assert [text_of(message) for message in messages if message["role"] == "user"] == [
        f"Question {number}" for number in range(5)
    ]
    assert messages[0]["metadata"] == {"user": "Ada"}
    assert thoughts_of(messages[1]) == "Hm"
    assert messages[3]["parts"][0]["output"] == "here"
    assert text_of(messages[-1]) == "Yes."


def test_a_snapshot_replaces_the_conversation(oracle: Oracle) -> None:
    """After an edit the old question and its answer are gone from every tab; the new answer goes on live."""
    before = message_events(user_message("u1", "Old")) + encoded(
        [Start("a1"), TextStart("t1"), TextDelta("t1", "Old answer"), Finish()]
    )
    snapshot = snapshot_event([user_message("u1", "New", user="Ada")])
    after = encoded([Start("a2"), TextStart("t1"), TextDelta("t1", "New answer"), Finish()])
    events = as_json([*before, snapshot, *after])
    for do in ("fold", "transport"):
        messages = oracle.ask(do, events=events)["messages"]
        assert [(message["id"], text_of(message)) for message in messages] == [("u1", "New"), ("a2", "New answer")]
        assert messages[0]["metadata"] == {"user": "Ada"}


def test_metadata_arrive_in_the_message(oracle: Oracle) -> None:
    """What the chunks' metadata merge to is the message's; parts that TanStack has no place for are custom events."""
    chunks: list[Chunk] = [
        Start("a1", {"usage": {"input": 1}, "tanstack": {"model": "x"}}),
        TextStart("t1"),
        TextDelta("t1", "Hi"),
        Finish("stop", {"usage": {"output": 2}}),
    ]
    (message,) = oracle.ask("fold", events=as_json(encoded(chunks)))["messages"]
    assert message["metadata"] == {"usage": {"input": 1, "output": 2}}


def test_the_oracle_is_no_rubber_stamp(oracle: Oracle) -> None:
    """The same events in the chunks' own order: TanStack shows the first text twice, so the order is ours to keep."""
    events = as_json(encoded([Start("a1"), TextStart("t1"), TextDelta("t1", "One. ")]))
    thought = {"type": "REASONING_MESSAGE_CONTENT", "messageId": "x", "delta": "Hm"}
    rest = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "a1", "delta": "Two."}
    (message,) = oracle.ask("fold", events=[*events, thought, rest])["messages"]
    assert text_of(message) == "One. One. Two."
