"""`perdure repair` on folders that were damaged."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from .commands import Serving, perdure

WORDS = "word1 word2 word3\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of a server that was killed after two rooms had their answers."""
    folder = tmp_path / "data"
    with Serving("run", "apps:app", "--port", 0, "--data", folder, variables={"WORDS": "3"}) as server:
        for room in ("a", "b"):
            assert perdure("chat", f"{server.url}/chat/{room}", input="hi").stdout == WORDS
        server.kill()
    return folder


def _damage_a_record(folder: Path, room: str) -> int:
    """Spoil the newest record of a room."""
    connection = sqlite3.connect(folder / "journal.sqlite")
    try:
        with connection:
            ((sequence,),) = connection.execute("SELECT max(sequence) FROM journal WHERE object = ?", (room,))
            connection.execute("UPDATE journal SET record = x'63ff' WHERE sequence = ?", (sequence,))
    finally:
        connection.close()
    return int(sequence)


def test_a_sound_folder(data: Path) -> None:
    """Nothing is damaged: code 0, also right after a kill."""
    done = perdure("repair", "--data", data)
    assert (done.returncode, done.stdout) == (0, "Nothing is damaged.\n")
    assert perdure("repair", "--json", "--data", data).stdout == "[]\n"


def test_beside_a_running_server_it_refuses(tmp_path: Path) -> None:
    """The folder's lock is needed: code 3."""
    with Serving("run", "apps:app", "--port", 0, "--data", tmp_path):
        assert perdure("repair", "--data", tmp_path).returncode == 3


def test_a_damaged_record_stops_the_server_until_its_object_is_moved_aside(data: Path, tmp_path: Path) -> None:
    """The server names the record and this command, which frees the folder; the other room has everything."""
    sequence = _damage_a_record(data, "Room/a")
    refused = perdure("run", "apps:app", "--port", 0, "--data", data)
    assert refused.returncode == 5
    assert f"Room/a, record {sequence}" in refused.stderr
    assert "perdure repair" in refused.stderr

    found = perdure("repair", "--data", data)
    assert found.returncode == 5
    assert found.stdout == (
        f"Room/a, record {sequence}: the record does not decode (unknown version 99)\n"
        f"    `perdure repair --drop-record {sequence}` moves this write aside, "
        "`perdure repair --quarantine 'Room/a'` moves the object aside.\n"
    )
    moved = perdure("repair", "--quarantine", "Room/a", "--data", data)
    assert moved.returncode == 0
    (kept,) = (data / "quarantine").iterdir()
    assert moved.stdout == f"Room/a is in {kept}\n"
    about = json.loads((kept / "about.json").read_text())
    assert (about["class"], about["name"], about["records"][-1]["sequence"]) == ("Room", "a", sequence)
    assert (kept / f"{sequence}.record").read_bytes() == b"\x63\xff"
    assert (kept / "object.sqlite").read_bytes()[:15] == b"SQLite format 3"

    assert perdure("repair", "--data", data).returncode == 0
    with Serving("run", "apps:app", "--port", 0, "--data", data, variables={"WORDS": "3"}) as server:
        assert [room["name"] for room in json.loads(perdure("rooms", "--json", "--data", data).stdout)] == ["b"]
        assert perdure("chat", f"{server.url}/chat/a", input="hi").stdout == WORDS
        assert len(json.loads(perdure("export", "b", "--json", "--data", data).stdout)["messages"]) == 2


def test_a_single_record_can_be_moved_aside(data: Path) -> None:
    """What it wrote is lost, the object is not."""
    sequence = _damage_a_record(data, "Room/a")
    moved = perdure("repair", "--drop-record", sequence, "--data", data)
    (kept,) = (data / "quarantine").iterdir()
    assert moved.stdout == f"record {sequence} is in {kept}\n"
    assert (kept / f"{sequence}.record").read_bytes() == b"\x63\xff"
    with Serving("run", "apps:app", "--port", 0, "--data", data):
        names = {room["name"] for room in json.loads(perdure("rooms", "--json", "--data", data).stdout)}
    assert names == {"a", "b"}


def test_a_damaged_file_is_found(data: Path) -> None:
    """A page of zeros where a table was: found by SQLite's check, and named."""
    with Serving("run", "apps:app", "--port", 0, "--data", data) as server:
        server.end()  # everything is in the files now
    (path,) = (data / "objects" / "Room").glob("a-*.sqlite")
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 4] = bytes(4096)
    path.write_bytes(content)
    (found,) = json.loads(perdure("repair", "--json", "--data", data).stdout)
    assert (found["where"], found["object_key"], found["sequence"]) == (str(path), "Room/a", None)
    assert perdure("repair", "--quarantine", "Room/a", "--data", data).returncode == 0
    assert not path.exists()
    assert perdure("repair", "--data", data).returncode == 0


def test_a_lost_file_is_found(data: Path) -> None:
    """The node index lists an object whose file is gone."""
    with Serving("run", "apps:app", "--port", 0, "--data", data) as server:
        server.end()
    (path,) = (data / "objects" / "Room").glob("a-*.sqlite")
    path.unlink()
    (found,) = json.loads(perdure("repair", "--json", "--data", data).stdout)
    assert (found["what"], found["object_key"]) == ("the file of Room/a is gone", "Room/a")


def test_a_damaged_folder_is_said_to_be_one(data: Path) -> None:
    """Where the journal itself is no database, nothing can be moved."""
    (data / "journal.sqlite").write_bytes(b"not a database, " * 512)
    (data / "journal.sqlite-wal").unlink(missing_ok=True)
    done = perdure("repair", "--data", data)
    assert done.returncode == 5
    assert done.stdout == (
        f"{data}/journal.sqlite: file is not a database\n"
        "    This concerns the whole folder: restore it from a copy.\n"
    )


def test_wrong_wishes_are_explained(data: Path) -> None:
    """No such object, no such record, no class: code 2 and a sentence."""
    for arguments, sentence in (
        (("--quarantine", "Room/c"), f"there is no object Room/c in {data}"),
        (("--quarantine", "a"), "name the object as Class/name, not 'a'"),
        (("--drop-record", "999"), f"there is no record 999 in the journal of {data}"),
        (("--drop-record", "1", "--quarantine", "Room/a"), "one at a time: --drop-record or --quarantine"),
    ):
        done = perdure("repair", *arguments, "--data", data)
        assert (done.returncode, done.stderr) == (2, f"perdure: {sentence}\n")
    assert not (data / "quarantine").exists()
