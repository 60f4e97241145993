"""docs/reference/python.md and the error table say what the source says."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.docs.pages import REPOSITORY, rows, sections

import perdure
from perdure import Agent, App, ChatRoom, Connection, DurableObject, ObjectStub, User, errors
from perdure.client import RoomClient
from perdure.storage.object_storage import Storage
from perdure.streams.stream import Stream
from perdure.streams.streams import Streams

PAGE = REPOSITORY / "docs" / "reference" / "python.md"
HTTP = REPOSITORY / "docs" / "reference" / "http.md"

ENGINES_OWN: dict[type, set[str]] = {
    ChatRoom: {
        "migrations",
        "auto_response",
        "room_messages",
        "room_message",
        "room_offset",
        "streaming_answer",
        "resumable_answer",
        "on_server_start",
        "on_server_stop",
        "open_session",
        "on_error",
        "handle_start",
        "handle_connect",
        "handle_message",
        "handle_close",
        "add_listener",
        "answer_approval",
        "answers",
        "ask_before_turn",
        "check_message",
        "choose_recovery",
        "client_tools",
        "go_on",
        "has_before_turn",
        "has_own_respond",
        "leg_of",
        "replay",
        "running",
        "request_body",
        "check_request_body",
        "keep_request_body",
        "set_client_tools",
        "speakers_for",
        "take_results",
        "tool_result",
    },
    Agent: {
        "agent_state",
        "agent_work",
        "agent_fibers",
        "agent_children",
        "hold_awake",
        "background",
        "set_alarm",
        "get_alarm",
        "delete_alarm",
        "handle_start",
        "handle_connect",
        "handle_message",
        "handle_close",
        "handle_alarm",
    },
    Connection: {"bind", "joined", "transport"},
    Storage: {"set_alarm", "read_meta", "write_meta", "mark_dirty", "dirty", "commit_turn", "materialise_tails"},
    DurableObject: {
        "internal",
        "handle_start",
        "handle_connect",
        "handle_message",
        "handle_close",
        "handle_alarm",
    },
    Stream: {
        "stored",
        "durable_position",
        "durable_closed",
        "readers",
        "tail_batch",
        "measure_durable",
        "extend",
        "set_options",
        "follow_with",
        "unfollow",
        "publish",
        "fail",
    },
    Streams: {"has_readers", "has_parting_readers", "take_touched", "fail"},
}
"""Names without an underscore that only other parts of perdure use, or that a base class documents."""


def _without_annotations(signature: inspect.Signature, *, method: bool) -> str:
    parameters = list(signature.parameters.values())[1 if method else 0 :]
    bare = [item.replace(annotation=inspect.Parameter.empty) for item in parameters]
    return str(inspect.Signature(bare)).replace("typing.Any", "Any")


def _shown(name: str, member: Any) -> str:
    """A member as the page writes it."""
    if isinstance(member, classmethod):
        member = member.__func__
    if not inspect.isfunction(member):
        return name
    prefix = "async " if inspect.iscoroutinefunction(member) else ""
    return f"{prefix}{name}{_without_annotations(inspect.signature(member), method=True)}"


CLASSES = [App, User, DurableObject, Agent, ObjectStub, Connection, Storage, Streams, Stream, ChatRoom, RoomClient]


@pytest.mark.parametrize("documented", CLASSES, ids=lambda item: item.__name__)
def test_members_are_the_sources(documented: type) -> None:
    """Each public member is on the page as its signature is, and nothing else is."""
    section = sections(PAGE)[documented.__name__]
    on_page = {name for row in rows(section) for name in re.findall(r"^`(.+)`$", row[0])}
    own = ENGINES_OWN.get(documented, set())
    members = {name: member for name, member in vars(documented).items() if name[0] != "_" and name not in own}
    if dataclasses.is_dataclass(documented):
        members = {name: member for name, member in members.items() if inspect.isfunction(member)}
    expected = {_shown(name, member) for name, member in members.items()}
    arguments = set(inspect.signature(documented).parameters) if documented is App else set()
    assert (expected | arguments) - on_page == set()
    assert on_page - expected - arguments - {"storage", "streams"} == set()


CONSTRUCTED = ["App", "User", "AlarmInfo", "Submitted", "InterruptedTurn", "ChatMessage", "TurnContext"]


@pytest.mark.parametrize("name", CONSTRUCTED)
def test_constructors_are_the_sources(name: str) -> None:
    """The way to make one is written as its signature is."""
    signature = _without_annotations(inspect.signature(getattr(perdure, name)), method=False)
    assert f"`{name}{signature}`" in sections(PAGE)[name]


def test_the_public_names_are_all_there() -> None:
    """What `perdure` exports has a section, or a page."""
    elsewhere = {"Limits": "limits.md", "StreamLimits": "limits.md", "PerdureError": "Errors"}
    headings = sections(PAGE)
    assert [name for name in perdure.__all__ if name not in headings and name not in elsewhere] == []
    assert "`Limits`](limits.md)" in PAGE.read_text()
    assert "`StreamLimits`](limits.md#durable-streams)" in PAGE.read_text()


def _errors() -> dict[str, type[errors.PerdureError]]:
    found = vars(errors).values()
    return {item.__name__: item for item in found if isinstance(item, type) and issubclass(item, errors.PerdureError)}


def test_errors_are_the_sources() -> None:
    """Each error has its row: its code, its status, and whether it is retryable."""
    listed = {row[0].strip("`"): row for row in rows(sections(PAGE)["Errors"])}
    assert list(listed) == list(_errors())
    for name, error in _errors().items():
        _, code, status, note = listed[name]
        assert (code.strip("`"), int(status), note.startswith("retryable")) == (
            error.code,
            error.status,
            error.retryable,
        ), name


NOT_SERVED = {
    "DeliveryFailed": "a webhook's receiver failed; nobody here is told but the log",
    "UnknownWebhookKey": "receivers of webhooks raise it",
}
"""Errors of the server's own modules that no client of it ever gets, with why."""


def served_errors(error: type[errors.PerdureError] = errors.PerdureError) -> Iterator[type[errors.PerdureError]]:
    """Every error that a client of the server may get."""
    clients_own = ("perdure.client", "perdure.streams_client", "perdure.cli")
    if error.__module__.startswith("perdure.") and not error.__module__.startswith(clients_own):
        if error.__name__ not in NOT_SERVED:
            yield error
    for derived in error.__subclasses__():
        yield from served_errors(derived)


def test_codes_stand_at_their_status() -> None:
    """The table of statuses in http.md has each error's code. Those in capitals are the subscriptions' own."""
    listed = {int(status): codes for status, codes in rows(sections(HTTP)["Errors"])}
    served = set(served_errors())
    assert {error.__name__ for error in served} >= {"PerdureError", "ProducerGap", "MethodNotAllowed", "NotFound"}
    for error in served:
        if not error.code.isupper():
            shown = f"`{error.code}`" + (" (retryable)" if error.retryable else "")
            assert shown in listed[error.status].split(", "), error.code
