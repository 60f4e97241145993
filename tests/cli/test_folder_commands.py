"""`perdure rooms`, `inspect` and `export`, beside a running server and after a kill."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .commands import PERDURE, Serving, environment, perdure

ENDLESS = {"WORDS": "2000", "DELAY_MS": "20"}


@pytest.fixture
def talking(tmp_path: Path) -> Iterator[Serving]:
    """A server whose room ``general`` is in the middle of a long answer."""
    with Serving("run", "apps:app", "--port", 0, "--data", tmp_path / "data", variables=ENDLESS) as server:
        asking = subprocess.Popen(
            [*PERDURE, "chat", f"{server.url}/chat/general"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            bufsize=0,
        )
        assert asking.stdin is not None
        assert asking.stdout is not None
        asking.stdin.write(b"hi")
        asking.stdin.close()
        heard = b""
        while b"word20 " not in heard:
            heard += asking.stdout.read(100)
        yield server
        asking.kill()
        asking.wait()
        asking.stdout.close()


def _check(tmp_path: Path) -> None:
    """All three commands show what the client of `talking` has heard."""
    data = ("--data", tmp_path / "data")
    (room,) = json.loads(perdure("rooms", "--json", *data).stdout)
    assert (room["class"], room["name"]) == ("Room", "general")
    assert room["createdMs"] <= room["activeMs"]

    facts = json.loads(perdure("inspect", "general", "--json", *data).stdout)
    tables = {table["name"]: table["rows"] for table in facts["tables"]}
    assert (tables["messages"], tables["room"], tables["tool_calls"]) == (2, 1, 0)
    (stream,) = facts["streams"]
    assert stream["position"] > 20
    assert not stream["closed"]
    assert facts["alarmMs"] == 0
    assert facts["journal"]["records"] > 20

    conversation = json.loads(perdure("export", "general", "--json", *data).stdout)
    question, answer = conversation["messages"]
    assert (question["role"], question["parts"], question["status"]) == (
        "user",
        [{"type": "text", "text": "hi"}],
        "answered",
    )
    assert (answer["status"], answer["answers"]) == ("streaming", question["id"])
    assert answer["parts"][-1]["text"].startswith("word1 word2 word3 ")
    assert "word20" in answer["parts"][-1]["text"]

    copy = tmp_path / "copy.sqlite"
    copy.unlink(missing_ok=True)
    done = perdure("export", "Room/general", "-o", copy, *data)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"Room/general is in {copy}\n")
    connection = sqlite3.connect(copy)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("delete",)]
        assert connection.execute("SELECT position > 20 FROM _perdure_streams").fetchall() == [(1,)]
    finally:
        connection.close()


def test_beside_a_running_server(talking: Serving, tmp_path: Path) -> None:
    """They show what is durable now, and the server goes on."""
    _check(tmp_path)
    assert talking.end()[0] == 0


def test_after_a_kill(talking: Serving, tmp_path: Path) -> None:
    """They show what is durable, and leave the recovery to the next server."""
    talking.kill()
    _check(tmp_path)
    with Serving("run", "apps:app", "--port", 0, "--data", tmp_path / "data", variables=ENDLESS) as server:
        assert server.end()[0] == 0
    assert json.loads(perdure("inspect", "general", "--json", "--data", tmp_path / "data").stdout)["journal"] == {
        "first": None,
        "last": None,
        "records": 0,
        "bytes": 0,
    }


def test_tables_for_people(talking: Serving, tmp_path: Path) -> None:
    """Without ``--json`` there is a table with a line for each."""
    data = ("--data", tmp_path / "data")
    listed = perdure("rooms", *data).stdout.splitlines()
    assert listed[0].split() == ["name", "class", "last", "active", "created"]
    assert listed[1].split()[:2] == ["general", "Room"]
    shown = perdure("inspect", "general", *data).stdout
    assert shown.startswith("Room/general\n")
    assert "at the next start: work was under way" in shown
    assert re.search(r"messages +2\b", shown)
    assert "open at" in shown


def test_a_name_that_two_classes_have(tmp_path: Path) -> None:
    """Then the class must be said; elsewhere the name alone will do."""
    with Serving("run", "apps:two_classes", "--port", 0, "--data", tmp_path) as server:
        assert perdure("chat", f"{server.url}/chat/a", input="hi").returncode == 0
        for room in ("a", "b"):
            call = f"{server.url}/rpc/Other/{room}/submit"
            subprocess.run(["curl", "-sf", call, "-d", '{"text": "hi"}', "-o", "/dev/null"], check=True)
    assert json.loads(perdure("inspect", "b", "--json", "--data", tmp_path).stdout)["class"] == "Other"
    assert json.loads(perdure("inspect", "Room/a", "--json", "--data", tmp_path).stdout)["class"] == "Room"
    done = perdure("inspect", "a", "--data", tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "perdure: several classes have a 'a': Other/a, Room/a; name one so\n",
    )
    rooms = json.loads(perdure("rooms", "--class", "Other", "--json", "--data", tmp_path).stdout)
    assert {room["name"] for room in rooms} == {"a", "b"}


def test_what_is_not_there_is_explained(tmp_path: Path) -> None:
    """No folder, no room, a file that is there already: one sentence and code 2."""
    done = perdure("rooms", "--data", tmp_path / "none")
    assert (done.returncode, done.stderr) == (
        2,
        f"perdure: there is no data folder at {tmp_path / 'none'}; name it with --data\n",
    )
    assert not (tmp_path / "none").exists()
    with Serving("run", "apps:app", "--port", 0, "--data", tmp_path / "data") as server:
        assert perdure("rooms", "--data", tmp_path / "data").stdout == "No rooms yet.\n"
        assert perdure("chat", f"{server.url}/chat/a", input="hi").returncode == 0
    done = perdure("export", "b", "--data", tmp_path / "data")
    assert (done.returncode, done.stderr) == (
        2,
        f"perdure: there is no object 'b' in {tmp_path / 'data'}; `perdure rooms` lists them\n",
    )
    (tmp_path / "mine").write_text("precious")
    done = perdure("export", "a", "-o", tmp_path / "mine", "--data", tmp_path / "data")
    assert (done.returncode, done.stderr) == (
        2,
        f"perdure: {tmp_path / 'mine'} exists already; choose another name with -o\n",
    )
    assert (tmp_path / "mine").read_text() == "precious"
