"""`perdure chat`, through pipes and in a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest

from perdure.cli.chat import room_url
from perdure.errors import ConfigError

from .commands import HERE, PERDURE, Serving, environment, perdure

TEN_WORDS = "word1 word2 word3 word4 word5 word6 word7 word8 word9 word10"
FORTY_WORDS = " ".join(f"word{number}" for number in range(1, 41))


@pytest.mark.parametrize(
    ("room", "url"),
    [
        ("general", "ws://127.0.0.1:8000/ws/general"),
        ("a room/50%", "ws://127.0.0.1:8000/ws/a%20room%2F50%25"),
        ("http://example.com", "ws://example.com/ws/general"),
        ("https://example.com/chat/general", "wss://example.com/ws/general"),
        ("https://example.com/team/chat/general", "wss://example.com/team/ws/general"),
        ("wss://example.com/ws/general?token=1", "wss://example.com/ws/general?token=1"),
    ],
)
def test_a_room_is_named_in_many_ways(room: str, url: str) -> None:
    """By its name, its page, its server or its own address."""
    assert room_url(room, "http://127.0.0.1:8000/") == url


@pytest.mark.parametrize("room", ["", "ftp://example.com/chat/general", "http://"])
def test_what_is_no_room_is_refused(room: str) -> None:
    """An address that can be none is an error of its own."""
    with pytest.raises(ConfigError):
        room_url(room, "http://127.0.0.1:8000")


def test_a_pipe_gets_the_answer(tmp_path: Path) -> None:
    """The input is one message; the output is its answer and nothing else."""
    with Serving("run", "apps:app", "--port", 0, "--data", tmp_path, variables={"WORDS": "10"}) as server:
        done = perdure("chat", "general", "--server", server.url, "--user", "Ann", input="two\nlines\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, TEN_WORDS + "\n", "")
        exported = perdure("export", "general", "--json", "--data", tmp_path).stdout
        assert '"text": "two\\nlines"' in exported
        assert '"user": "Ann"' in exported


def test_each_pipe_gets_its_own_answer(tmp_path: Path) -> None:
    """Two who ask at once wait for their own turn's answer, not for the next one."""
    with Serving(
        *("run", "apps:app", "--port", 0, "--data", tmp_path), variables={"WORDS": "10", "DELAY_MS": "30"}
    ) as server:
        command = [*PERDURE, "chat", f"{server.url}/chat/general"]
        asking = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), cwd=HERE
            )
            for _ in range(2)
        ]
        assert [one.communicate("hi", timeout=15)[0] for one in asking] == [TEN_WORDS + "\n"] * 2


def test_a_pipe_outlives_a_kill(tmp_path: Path) -> None:
    """The server is killed mid-answer and started again: the answer goes on, each word once."""
    slow = {"WORDS": "40", "DELAY_MS": "50"}
    with Serving("run", "apps:app", "--port", 0, "--data", tmp_path, variables=slow) as server:
        asking = subprocess.Popen(
            [*PERDURE, "chat", f"{server.url}/chat/general"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            bufsize=0,
        )
        assert asking.stdin is not None
        assert asking.stdout is not None
        asking.stdin.write(b"hi")
        asking.stdin.close()
        asking.stdin = None
        begun = asking.stdout.read(12)
        server.kill()
    port = server.url.rpartition(":")[2]
    with Serving("run", "apps:app", "--port", port, "--data", tmp_path, variables=slow):
        rest, errors = asking.communicate(timeout=20)
    assert ((begun + rest).decode(), errors) == (FORTY_WORDS + "\n", b"")
    assert asking.returncode == 0


def test_no_server_is_explained() -> None:
    """One sentence and code 1."""
    done = perdure("chat", "general", "--server", "http://127.0.0.1:9", input="hi")
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "perdure: cannot reach ws://127.0.0.1:9/ws/general: nothing listens there\n",
    )


def test_empty_input_is_explained() -> None:
    """There is nothing to ask."""
    done = perdure("chat", "general", input="\n")
    assert (done.returncode, done.stderr) == (2, "perdure: there is nothing to say: the input is empty\n")


class Terminal:
    """A person at a terminal."""

    def __init__(self, *arguments: str) -> None:
        self._mine, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*PERDURE, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(),
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._mine, text.encode())

    def wait_for(self, text: str, *, times: int = 1) -> None:
        """Until the screen has shown it."""
        deadline = time.monotonic() + 15
        while self.seen.count(text) < times:
            assert time.monotonic() < deadline, self.seen
            assert self._read(deadline), f"it ended: {self.seen}"

    def leave(self) -> int:
        """Ctrl-C at the prompt: while an answer is still ending it would stop that."""
        deadline = time.monotonic() + 15
        while not self.seen.endswith("› "):
            assert time.monotonic() < deadline, self.seen
            self._read(deadline)
        self.type("\x03")
        return self.close()

    def close(self) -> int:
        """The code with which it ends by itself."""
        deadline = time.monotonic() + 15
        while self._read(deadline):
            assert time.monotonic() < deadline, self.seen
        os.close(self._mine)
        return self.process.wait(10)

    def _read(self, deadline: float) -> bool:
        """What has come until the deadline; False at the end."""
        if not select.select([self._mine], [], [], max(0, deadline - time.monotonic()))[0]:
            return True
        try:
            data = os.read(self._mine, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_ctrl_c_stops_the_answer_then_leaves(tmp_path: Path) -> None:
    """In a terminal: history, an answer as it comes, a stop, and the way out."""
    slow = {"WORDS": "2000", "DELAY_MS": "20"}
    with Serving("run", "apps:app", "--port", 0, "--data", tmp_path, variables=slow) as server:
        terminal = Terminal("chat", f"{server.url}/chat/general")
        terminal.wait_for("› ")
        terminal.type("hello\n")
        terminal.wait_for("word5 ")
        terminal.type("\x03")
        terminal.wait_for("(stopped)")
        terminal.wait_for("› ", times=2)
        assert terminal.leave() == 0
        assert "answer: word1 word2 word3" in terminal.seen.replace("\x1b[1m", "").replace("\x1b[0m", "")
        again = Terminal("chat", f"{server.url}/chat/general")
        again.wait_for("(stopped)")
        again.type("\x04")
        assert again.close() == 0
        assert "hello" in again.seen


def test_a_terminal_shows_what_others_say(tmp_path: Path) -> None:
    """Another person's message appears with their name."""
    with Serving("run", "apps:app", "--port", 0, "--data", tmp_path) as server:
        terminal = Terminal("chat", f"{server.url}/chat/general", "--user", "Bob")
        terminal.wait_for("› ")
        assert perdure("chat", f"{server.url}/chat/general", "--user", "Ann", input="good day").returncode == 0
        terminal.wait_for("Ann: good day")
        terminal.wait_for("word10")
        assert terminal.leave() == 0


def test_a_terminal_shows_which_model_answers(tmp_path: Path) -> None:
    """Where a message names several."""
    with Serving("run", "apps:table", "--port", 0, "--data", tmp_path) as server:
        terminal = Terminal("chat", f"{server.url}/chat/general")
        terminal.wait_for("› ")
        terminal.type("@one @two\n")
        terminal.wait_for("word10", times=2)
        assert terminal.leave() == 0
        seen = terminal.seen.replace("\x1b[1m", "").replace("\x1b[0m", "")
        assert seen.index("one: word1 ") < seen.index("two: word1 ")


def test_a_tool_is_allowed_or_not(tmp_path: Path) -> None:
    """In a terminal with y and n; the call and what came of it are shown."""
    with Serving("run", "apps:desk", "--port", 0, "--data", tmp_path) as server:
        terminal = Terminal("chat", f"{server.url}/chat/general")
        terminal.wait_for("› ")
        terminal.type("Refund order 17\n")
        terminal.wait_for("Allow it? [y/n] ")
        assert 'refund {"order": 17} needs an approval.' in terminal.seen
        terminal.type("y\n")
        terminal.wait_for("[refund: order 17 refunded]")
        terminal.wait_for('says: `"order 17 refunded"`.')
        terminal.type("Refund order 18\n")
        terminal.wait_for("Allow it? [y/n] ", times=2)
        terminal.type("n\n")
        terminal.wait_for("[refund: refused]")
        terminal.wait_for("so I cannot say.")
        assert terminal.leave() == 0
        done = perdure("chat", "general", "--server", server.url, input="Refund order 19")
        assert done.returncode == 1
        assert done.stdout.startswith("Let me ask `refund`.")
        assert done.stderr == 'perdure: the answer waits: refund {"order": 19} needs an approval\n'


def test_a_result_is_typed(tmp_path: Path) -> None:
    """What a tool of the client's wants; JSON where it is some. Those who are here are told."""
    with Serving("run", "apps:desk", "--port", 0, "--data", tmp_path, variables={"TOOL": "locate"}) as server:
        terminal = Terminal("chat", f"{server.url}/chat/general", "--user", "Ann")
        terminal.wait_for("› ")
        other = Terminal("chat", f"{server.url}/chat/general", "--user", "Bob")
        terminal.wait_for("(here: Ann, Bob)")
        assert other.leave() == 0
        terminal.type("Where am I?\n")
        terminal.wait_for("Its result: ")
        terminal.type('{"city": "Lisbon"}\n')
        terminal.wait_for('`locate` says: `{"city": "Lisbon"}`.')
        assert terminal.leave() == 0
