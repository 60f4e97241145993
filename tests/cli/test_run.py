"""`perdure run`, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import urllib.request
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from .commands import Serving, perdure

SLOW = {"WORDS": "2000", "DELAY_MS": "20"}


def test_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    """It prints its address, answers there, and a SIGTERM ends it with code 0."""
    with Serving("run", "apps:app", "--port", 0, "--data", tmp_path) as server:
        assert server.said == f"Serving on {server.url}\n"
        with urllib.request.urlopen(f"{server.url}/healthz") as answer:
            assert json.load(answer) == {"status": "ready"}
        code, _ = server.end()
        assert code == 0


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    """A SIGINT is a wish to end, not a failure."""
    with Serving("run", "apps:app", "--port", 0, "--data", tmp_path) as server:
        code, errors = server.end(signal.SIGINT)
        assert code == 0
        assert "Traceback" not in errors


def test_a_module_alone_means_its_app(tmp_path: Path) -> None:
    """``perdure run apps`` is ``perdure run apps:app``."""
    with Serving("run", "apps", "--port", 0, "--data", tmp_path) as server:
        assert server.end()[0] == 0


@pytest.mark.anyio
async def test_clients_are_told_to_come_back(tmp_path: Path) -> None:
    """A drain sends ``reconnect``, then closes with 1012."""
    with Serving("run", "apps:app", "--port", 0, "--data", tmp_path, variables=SLOW) as server:
        frames: list[str | bytes] = []
        async with connect(server.url.replace("http", "ws") + "/ws/a?delta=1") as socket_:
            await socket_.send('{"type":"message","content":"hi"}')
            while not frames or '"delta"' not in str(frames[-1]):
                frames.append(await socket_.recv())
            ended = asyncio.create_task(asyncio.to_thread(server.end))
            with contextlib.suppress(ConnectionClosedError):
                async for frame in socket_:
                    frames.append(frame)  # noqa: PERF401
        assert json.loads(frames[-1]) == {"type": "reconnect"}
        assert socket_.close_code == 1012
        assert (await ended)[0] == 0


@pytest.mark.anyio
async def test_an_event_stream_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """A reader of a running answer is cut without a polite end, so that it resumes; nothing is logged as an error."""
    body = json.dumps(
        {"id": "a", "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]}
    ).encode()
    with Serving(
        "run", "apps:app", "--port", 0, "--data", tmp_path, "--log-format", "json", variables=SLOW
    ) as server:
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /api/chat HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await reader.readuntil(b"text-delta")
        code, errors = await asyncio.wait_for(asyncio.to_thread(server.end), 5)
        rest = await reader.read()
        writer.close()
    assert code == 0
    assert b"[DONE]" not in rest
    assert not rest.endswith(b"0\r\n\r\n")
    assert [json.loads(line)["level"] for line in errors.splitlines()] == ["info"] * len(errors.splitlines())


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("nowhere:app", "there is no module 'nowhere' here"),
        ("apps:nothing", "apps has no 'nothing'; it has app, desk, table, two_classes, guarded"),
        ("apps:not_an_app", "apps:not_an_app is a int, not a perdure App"),
        ("apps.py", "'apps.py' is a file; name the module instead: `perdure run apps:app`"),
    ],
)
def test_a_wrong_target_is_explained(target: str, sentence: str) -> None:
    """One sentence and code 2, whatever is wrong with ``module:app``."""
    done = perdure("run", target, "--port", 0)
    assert done.returncode == 2
    assert done.stderr.startswith(f"perdure: {sentence}")
    assert done.stderr.count("\n") == 1


def test_an_error_inside_the_module_is_its_own(tmp_path: Path) -> None:
    """A module that imports what is not there fails with that, not with "there is no module"."""
    (tmp_path / "broken.py").write_text("import not_installed_anywhere\n")
    done = perdure("run", "broken:app", cwd=tmp_path)
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'not_installed_anywhere'" in done.stderr


def test_a_taken_port_is_explained(tmp_path: Path) -> None:
    """The address is tried before the data folder is opened: code 4, and no folder is made."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = perdure("run", "apps:app", "--port", port, "--data", tmp_path / "data")
    assert done.returncode == 4
    assert done.stderr.startswith(f"perdure: cannot listen on 127.0.0.1:{port} (Address already in use)")
    assert not (tmp_path / "data").exists()


def test_a_host_that_is_not_ours_is_explained(tmp_path: Path) -> None:
    """A name that stands for no address of this machine is code 4."""
    done = perdure("run", "apps:app", "--host", "no such host", "--data", tmp_path)
    assert (done.returncode, done.stderr) == (
        4,
        "perdure: 'no such host' is no address of this machine; try --host 127.0.0.1\n",
    )


def test_a_locked_folder_is_explained(tmp_path: Path) -> None:
    """A second server on one data folder: code 3, and the first one's process id."""
    with Serving("run", "apps:app", "--port", 0, "--data", tmp_path):
        done = perdure("run", "apps:app", "--port", 0, "--data", tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith(f"perdure: the data folder {tmp_path} is in use by process ")
    assert done.stderr.count("\n") == 1


def test_an_open_app_is_refused_beyond_this_machine(tmp_path: Path) -> None:
    """Without ``authenticate=`` nobody from outside can be let in: code 2, and what to do."""
    done = perdure("run", "apps:app", "--host", "0.0.0.0", "--port", 0, "--data", tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "perdure: 0.0.0.0 can be reached from other machines, and this app lets everyone in: "
        "give it an authenticator, App(..., authenticate=...), or listen on 127.0.0.1\n",
    )


def test_a_guarded_app_may_listen_everywhere(tmp_path: Path) -> None:
    """With ``authenticate=`` the address is the owner's business."""
    with Serving("run", "apps:guarded", "--host", "0.0.0.0", "--port", 0, "--data", tmp_path) as server:
        assert server.said.startswith("Serving on http://0.0.0.0:")


def test_the_environment_names_the_folder(tmp_path: Path) -> None:
    """``PERDURE_DATA`` does where ``--data`` is not given."""
    with Serving("run", "apps:app", "--port", 0, variables={"PERDURE_DATA": str(tmp_path / "named")}):
        assert (tmp_path / "named" / "perdure.json").exists()


def test_an_option_goes_before_the_app(tmp_path: Path) -> None:
    """``--data`` is used even where the app names a folder itself."""
    with Serving(
        "run",
        "apps:two_classes",
        "--port",
        0,
        "--data",
        tmp_path / "option",
        variables={"PERDURE_DATA": str(tmp_path / "app")},
    ):
        assert (tmp_path / "option" / "perdure.json").exists()
        assert not (tmp_path / "app").exists()


def test_logs_are_json_on_demand(tmp_path: Path) -> None:
    """Each line of ``--log-format json`` is an object with its event, level and time; requests only on demand."""
    with Serving(
        "run", "apps:app", "--port", 0, "--data", tmp_path, "--log-format", "json", "--access-log"
    ) as server:
        urllib.request.urlopen(f"{server.url}/healthz").close()
        _, errors = server.end()
    lines = [json.loads(line) for line in errors.splitlines()]
    assert lines[0]["event"] == "ready"
    assert lines[0]["level"] == "info"
    assert lines[0]["data"] == str(tmp_path)
    assert any("/healthz" in line["event"] for line in lines)


def test_a_change_starts_it_again(tmp_path: Path) -> None:
    """With ``--reload`` a changed source file takes effect, on the same address."""
    source = "from perdure import App, ChatRoom\nclass {name}(ChatRoom):\n    pass\napp = App([{name}])\n"
    module = tmp_path / "changing.py"
    module.write_text(source.format(name="Before"))
    with Serving("run", "changing", "--port", 0, "--data", tmp_path / "data", "--reload", cwd=tmp_path) as server:
        module.write_text(source.format(name="After"))
        for _ in range(100):
            if (tmp_path / "data" / "objects" / "After").exists():
                break
            signal.sigtimedwait([], 0.1)
        assert (tmp_path / "data" / "objects" / "After").exists()
        assert server.end()[0] == 0
