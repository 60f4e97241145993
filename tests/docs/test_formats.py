"""Frames, chunks and formats on the pages are those of the code."""

from __future__ import annotations

import json
import re
from inspect import cleandoc
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
from tests.docs.pages import REPOSITORY, rows, samples, sections

from perdure import ChatRoom, DurableObject
from perdure.agents import tables as agents
from perdure.client.core import RoomCore
from perdure.storage import record
from perdure.storage.journal import SqliteJournal
from perdure.storage.sql import READABLE_PRAGMAS, SWITCHABLE_PRAGMAS
from perdure.storage.template import build_template
from perdure.stream_hosts.host import StreamHost
from perdure.stream_hosts.subscriptions import Subscriptions
from perdure.testing.journal_contract import HeardListener
from perdure.wire.fold import MessageFold
from perdure.wire.room import Wait
from perdure.wire.room_client import parse_server_frame
from perdure.wire.room_commands import parse_room_frame
from perdure.wire.sse import SseParser
from perdure.wire.ui_chunks import decode_chunk

REFERENCE = REPOSITORY / "docs" / "reference"


def _frames() -> dict[str, list[dict[str, Any]]]:
    """The frames of room-protocol.md, by the heading that they stand under."""
    text = (REFERENCE / "room-protocol.md").read_text()
    found: dict[str, list[dict[str, Any]]] = {}
    for heading, section in sections(REFERENCE / "room-protocol.md").items():
        assert f" {heading}\n" in text
        blocks = re.findall(r"```json\n(.*?)```", section, re.DOTALL)
        found[heading] = [json.loads(block) for block in blocks]
    return found


def test_server_frames_are_frames() -> None:
    """Each frame that the server sends has a heading and an example that a client takes."""
    kinds = "init resume message update delta chunks complete remove presence error pong reconnect".split()
    frames = _frames()
    for kind in kinds:
        [example] = frames[kind]
        assert example["type"] == kind
        assert parse_server_frame(json.dumps(example)) is not None
    message_headings = [example for example in frames["Messages"] if "role" in example]
    assert [example["role"] for example in message_headings] == ["user", "assistant"]


def test_client_frames_are_taken() -> None:
    """Each frame that a client sends is one that the room takes."""
    frames = _frames()
    commands = "edit regenerate branch approve result typing stop retry ping".split()
    headings = {"Say something": "message", "Files": "message", **{kind.capitalize(): kind for kind in commands}}
    for heading, kind in headings.items():
        [example] = frames[heading]
        assert example["type"] == kind
        parse_room_frame(json.dumps(example), message_bytes_max=1_000)


def test_messages_with_parts_are_messages() -> None:
    """The example takes its next chunk, which is the one on the page; what it waits for is a wait."""
    frames = _frames()
    [with_parts] = frames["Parts"]
    [chunks] = frames["chunks"]
    core = RoomCore(lambda: "none", parts=True)
    core.receive(json.dumps({"type": "init", "messages": [with_parts], "offset": "1"}))
    core.receive(json.dumps(chunks))
    assert core.messages[0].content == "Your bike is ready."
    assert core.messages[0].parts[-1]["text"] == "Your bike is ready."
    [wait] = frames["What an answer waits for"]
    assert msgspec.convert(wait, Wait) == Wait("c1", "refund", "approval", {"order": 17})


def test_the_event_stream_is_an_answer() -> None:
    """The reply to `POST /api/chat` on the page folds to a finished answer."""
    [text] = [sample.text for sample in samples(REFERENCE / "http.md") if sample.text.startswith("data: ")]
    *events, done = SseParser().feed(f"{text}\n".encode())
    fold = MessageFold("1ee4f6bbef7f437582e2967b24c1bf52")
    for event in events:
        fold.push(decode_chunk(event.data))
    assert (fold.text, fold.status, done.data) == ("It is ready.", "finished", "[DONE]")


def test_the_record_is_drawn_as_in_the_module() -> None:
    """The drawing of a record is the one at the top of record.py."""
    [drawing] = [sample.text for sample in samples(REFERENCE / "on-disk.md") if sample.text.startswith("record ")]
    source = [" ".join(line.split()) for line in cleandoc(record.__doc__ or "").splitlines()]
    lines = [" ".join(line.split()) for line in drawing.splitlines() if line.strip()]
    assert [line for line in lines if not any(known.startswith(line) for known in source)] == []
    assert len(lines) == 13


def _columns(connection: apsw.Connection) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    tables: list[tuple[Any, ...]] = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
    ).fetchall()
    for (table,) in tables:
        found[table] = [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]
    return found


def _drawn(heading: str) -> dict[str, str]:
    return {row[0].strip("`"): " ".join(row[1:]) for row in rows(sections(REFERENCE / "on-disk.md")[heading])}


@pytest.mark.parametrize(
    ("object_class", "heading"),
    [(ChatRoom, None), (StreamHost, "Streams of their own"), (Subscriptions, "Subscriptions")],
    ids=lambda item: getattr(item, "__name__", ""),
)
def test_the_tables_of_an_objects_file_are_all_there(object_class: type[DurableObject], heading: str | None) -> None:
    """Each table of a file has its row, with each of its columns."""
    connection = apsw.Connection(":memory:")
    connection.deserialize("main", _plain(build_template(object_class.migrations).data))
    drawn = _drawn("An object's file")
    tables = _columns(connection)
    connection.close()
    if heading is not None:
        drawn = {name: text for name, text in drawn.items() if name.startswith("_perdure")} | _drawn(heading)
    assert sorted(name for name in drawn if _is_table(name)) == sorted(tables)
    for table in set(tables) - {"_perdure_meta"}:
        missing = [name for name in tables[table] if f"`{name}`" not in drawn[table]]
        assert missing in ([], ["id"]), table


def test_the_tables_of_agents_are_all_there() -> None:
    """Those that an agent makes as it needs them, too."""
    connection = apsw.Connection(":memory:")
    for statement in agents.SCHEMA.values():
        connection.execute(statement)
    tables = {name: columns for name, columns in _columns(connection).items() if name.startswith("agent_")}
    drawn = _drawn("Agents")
    assert sorted(drawn) == sorted(tables) == sorted(agents.SCHEMA)
    for table, columns in tables.items():
        assert [name for name in columns if f"`{name}`" not in drawn[table]] == [], table


def _is_table(name: str) -> bool:
    """Not a note's key."""
    return name.isidentifier()


def _plain(data: bytes) -> bytes:
    """Without the mark for write-ahead mode, which memory does not have."""
    return data[:18] + b"\x01\x01" + data[20:]


def test_the_tables_of_the_journal_are_all_there(tmp_path: Path) -> None:
    """Each table of journal.sqlite has its row, with each of its columns."""
    SqliteJournal(tmp_path / "journal.sqlite", HeardListener(), notify=lambda callback: callback()).close()
    connection = apsw.Connection(str(tmp_path / "journal.sqlite"))
    drawn, tables = _drawn("journal.sqlite"), _columns(connection)
    connection.close()
    assert sorted(drawn) == sorted(tables)
    for table, names in tables.items():
        assert [name for name in names if f"`{name}`" not in drawn[table]] == [], table


def test_the_pragmas_are_all_there() -> None:
    """storage.md lists the pragmas that an object may use, and no other."""
    section = sections(REFERENCE / "storage.md")["What is refused"]
    listed = section[section.index("Pragmas to read:") :].partition("\n\n")[0]
    read, _, switched = listed.partition("To set:")
    assert set(re.findall(r"`(\w+)`", read)) == READABLE_PRAGMAS
    assert set(re.findall(r"`(\w+)`", switched)) == SWITCHABLE_PRAGMAS
