"""`perdure streams`, against a running server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import httpx2
import pytest

from .commands import PERDURE, Serving, environment, perdure


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server's address."""
    with Serving("run", "apps:app", "--port", 0, "--data", tmp_path_factory.mktemp("streams") / "data") as serving:
        yield serving.url


def test_messages_are_appended_read_and_listed(server: str) -> None:
    """Arguments are messages of their own; each command also speaks JSON."""
    to = ("--server", server)
    made = perdure("streams", "append", "orders/1", '{"n": 1}', "[2]", "--create", "application/json", *to)
    assert (made.returncode, made.stdout, made.stderr) == (0, "0000000000000002\n", "")
    ended = perdure("streams", "append", "orders/1", '"end"', "--close", "--json", *to)
    assert json.loads(ended.stdout) == {"path": "orders/1", "next_offset": "0000000000000003", "closed": True}
    assert perdure("streams", "read", "orders/1", *to).stdout == '{"n":1}\n[2]\n"end"\n'
    assert perdure("streams", "read", "orders/1", "--offset", "0000000000000002", *to).stdout == '"end"\n'
    assert perdure("streams", "tail", "orders/1", "--offset", "-1", *to).stdout == '{"n":1}\n[2]\n"end"\n'
    (listed,) = json.loads(perdure("streams", "ls", "orders/", "--json", *to).stdout)
    assert listed.pop("created_at").endswith("Z")
    assert listed == {
        "path": "orders/1",
        "content_type": "application/json",
        "next_offset": "0000000000000003",
        "first_offset": "0000000000000000",
        "bytes": 16,
        "closed": True,
        "readers": 0,
    }


def test_a_pipe_is_appended(server: str) -> None:
    """A line is a message of a JSON stream; the whole input is one entry of others."""
    to = ("--server", server)
    lines = perdure("streams", "append", "lines", "--create", "application/json", *to, input="1\n\n[2]\n")
    assert lines.stdout == "0000000000000002\n"
    text = perdure("streams", "append", "text", "--create", "text/plain", *to, input="one\ntwo\n")
    assert text.stdout == "0000000000000001\n"
    assert perdure("streams", "read", "text", *to).stdout == "one\ntwo\n"


def test_tail_shows_what_comes(server: str) -> None:
    """From now on, as it comes, until the stream ends."""
    to = ("--server", server)
    perdure("streams", "append", "live", '"old"', "--create", "application/json", *to)
    command = [*PERDURE, "streams", "tail", "live", "--json", *to]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as tail:
        assert tail.stdout is not None
        assert json.loads(tail.stdout.readline()) == {"offset": "0000000000000001", "closed": False, "data": []}
        perdure("streams", "append", "live", '"new"', *to)
        assert json.loads(tail.stdout.readline())["data"] == ["new"]
        perdure("streams", "append", "live", "--close", *to)
        assert json.loads(tail.stdout.readline())["closed"] is True
        assert tail.wait(10) == 0


def test_listing_goes_on_where_a_page_ended(server: str) -> None:
    """Streams of all hosts, in order of their paths, some at a time."""
    to = ("--server", server)
    for number in range(12):
        httpx2.put(f"{server}/v1/stream/page/{number:02}", headers={"content-type": "text/plain"})
    listed = perdure("streams", "ls", "page/", "--limit", "7", "--json", *to)
    assert [item["path"] for item in json.loads(listed.stdout)] == [f"page/{number:02}" for number in range(7)]
    assert perdure("streams", "rm", "page/00", "page/01", *to).returncode == 0
    left = json.loads(perdure("streams", "ls", "page/", "--json", *to).stdout)
    assert [item["path"] for item in left] == [f"page/{number:02}" for number in range(2, 12)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("read", "nothing-here"), "there is no stream at "),
        (("append", "nothing-here", "x"), "there is no stream at "),
        (("ls", "--server", "http://127.0.0.1:9"), "cannot be reached"),
        (("ls", "--server", "example.com"), "is no server's address"),
    ],
)
def test_failures_are_one_sentence(server: str, arguments: tuple[str, ...], said: str) -> None:
    """On standard error, with a code that is not 0."""
    to = () if "--server" in arguments else ("--server", server)
    failed = perdure("streams", *arguments, *to)
    assert failed.returncode != 0
    assert said in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
