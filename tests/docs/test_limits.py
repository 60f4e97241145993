"""docs/reference/limits.md says what the source says."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pkgutil import resolve_name

import pytest
from tests.docs.pages import REPOSITORY, rows, sections

from perdure import Limits
from perdure.server.streams.limits import StreamLimits

PAGE = REPOSITORY / "docs" / "reference" / "limits.md"
SOURCE = REPOSITORY / "src" / "perdure"

NO_LIMITS_OF_USERS = {
    "perdure.models.pydantic_ai.errors.ERROR_CHARACTERS_MAX": "how much of a provider's sentence is told",
    "perdure.models.continuation.OVERLAP_CHARACTERS_MAX": "how far back repeated words are looked for",
    "perdure.models.demo_answer.TOPIC_CHARACTERS_MAX": "how much of a question the demo's script repeats",
    "perdure.server.streams.accelerator.PLAIN_PATHS_MAX": "a cache",
    "perdure.server.streams.catch_up.BLOCKS_AT_ONCE_MAX": "how large reads take turns",
    "perdure.server.streams.live.BLOCKS_AT_ONCE_MAX": "how readers that are behind take turns",
    "perdure.server.streams.reads.HUBS_KEPT_MAX": "a cache",
    "perdure.server.tanstack.RUN_ROOMS_KEPT_MAX": "a cache",
    "perdure.server.websocket.CLOSE_REASON_BYTES_MAX": "what a close frame holds of its reason (RFC 6455)",
    "perdure.storage.appends.SEGMENT_BYTES_MAX": "how entries are laid out in rows",
    "perdure.storage.journal.JOURNAL_WAL_FRAMES_MAX": "when the journal folds its own log",
    "perdure.storage.journal.TRIM_ROWS_MAX": "how many dead rows are deleted at once",
    "perdure.stream_hosts.directory.MOVED_MAX": "a cache",
    "perdure.stream_hosts.host.EXPIRED_AT_ONCE_MAX": "how many expired streams are removed at once",
    "perdure.stream_hosts.host.HOSTED_MAX": "a cache",
    "perdure.stream_hosts.host.MAPPED_BYTES_MAX": "how much of a file is read without copying",
    "perdure.stream_hosts.hosted.PRODUCERS_CACHED_MAX": "a cache",
    "perdure.streams.streams.RECENT_MAX": "a cache",
    "perdure.web.markdown._CACHED_TEXTS_MAX": "a cache",
    "perdure.web.pages._MESSAGE_BYTES_MAX": "stands in for the room's limit in tests of pages",
    "perdure.wire.multipart.PADDING_BYTES_MAX": "white space that nobody sends",
    "perdure.wire.room_commands.ESCAPED_BYTES_PER_BYTE_MAX": "what JSON may do to a byte",
    "perdure.wire.room_commands.FRAME_OVERHEAD_BYTES_MAX": "a bound on the parser's work, past message_bytes_max",
}
"""Constants that bound something inside, with what; nobody meets them."""


LIMITS_TYPES: dict[str, type] = {
    "Of a process": Limits,
    "Durable Streams": StreamLimits,
}
"""By heading: whose fields the rows without a column for the source are."""


@pytest.fixture(autouse=True)
def _patient_requests() -> None:
    """Takes the place of what lengthens a limit in the other tests: here they are as users meet them."""


def _documented() -> dict[str, tuple[str, str]]:
    """By source: the limit's name on the page and its default."""
    found = {}
    for heading, text in sections(PAGE).items():
        for name, default, *others in rows(text):
            source = others[-1].strip("`") if len(others) == 3 else _field(LIMITS_TYPES[heading], name.strip("`"))
            assert source not in found, f"{source} is listed twice"
            found[source] = (name, default)
    return found


def _field(limits: type, name: str) -> str:
    return f"{limits.__module__}.{limits.__name__}({name})"


def _value(source: str) -> object:
    path, _, argument = source.rstrip(")").partition("(")
    found = resolve_name(path)
    return inspect.signature(found).parameters[argument].default if argument else found


def _number(default: str) -> int | None:
    return None if default == "none" else int(default.replace(",", ""))


def _constants() -> Iterator[str]:
    """Every constant of a module whose name says that it is a maximum."""
    for path in SOURCE.rglob("*.py"):
        module = ".".join(("perdure", *path.relative_to(SOURCE).with_suffix("").parts))
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                if isinstance(target, ast.Name) and target.id.isupper() and target.id.endswith("_MAX"):
                    yield f"{module}.{target.id}"


def test_every_default_is_the_sources() -> None:
    """A default on the page is the one that the code has."""
    wrong = {
        source: (default, _value(source))
        for source, (_, default) in _documented().items()
        if _number(default) != _value(source)
    }
    assert wrong == {}


@pytest.mark.parametrize("limits", LIMITS_TYPES.values(), ids=lambda item: item.__name__)
def test_every_field_is_listed(limits: type) -> None:
    """The tables have the fields of `Limits` and `StreamLimits`, in their order."""
    fields = [_field(limits, field.name) for field in dataclasses.fields(limits)]
    assert [source for source in _documented() if source.startswith(_field(limits, "")[:-1])] == fields
    assert len(fields) >= 11


def test_every_maximum_is_listed() -> None:
    """A new ``..._MAX`` comes with a row, or with a reason why nobody meets it."""
    known = {*_documented(), *NO_LIMITS_OF_USERS}
    constants = set(_constants())
    assert sorted(constants - known) == []
    assert sorted(set(NO_LIMITS_OF_USERS) - constants) == []


def test_names_are_the_constants_own() -> None:
    """A limit is called on the page what its constant is called, and what errors call it."""
    for source, (name, _) in _documented().items():
        last = re.split(r"[.(]", source.rstrip(")"))[-1].lower()
        assert name.split("`")[1].endswith(last), source
