"""Running `perdure` as people do: in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

HERE = Path(__file__).parent
SOURCES = HERE.parent.parent / "src"
START_WITHIN_S = 20
END_WITHIN_S = 15

PERDURE = (sys.executable, "-m", "perdure")


def environment(**changes: str) -> dict[str, str]:
    """This process's, without what would change a command's mind."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    kept.pop("PERDURE_DATA", None)
    path = os.pathsep.join(filter(None, (str(SOURCES), os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "COLUMNS": "120", "NO_COLOR": "1", **changes}


def perdure(
    *arguments: object, input: str = "", cwd: Path = HERE, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*PERDURE, *map(str, arguments)],
        input=input,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(**changes),
        timeout=START_WITHIN_S,
        check=False,
    )


class Serving:
    """A command that serves until it is told to end. Use it with ``with``; leaving it kills."""

    def __init__(
        self,
        *arguments: object,
        cwd: Path = HERE,
        command: tuple[str, ...] = PERDURE,
        variables: dict[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=environment(**(variables or {})),
        )
        self.said = ""
        self.url = ""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said += line
            if "http://" in line:
                self.url = "http://" + line.split("http://")[1].split("/")[0].strip()
                return
        raise AssertionError(f"it ended with {self._process.wait()}: {self._process.communicate()[1]}")

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self._process.communicate()

    def end(self, sent: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Ask it to end; return its exit code and what it said on standard error."""
        self._process.send_signal(sent)
        _, errors = self._process.communicate(timeout=END_WITHIN_S)
        return self._process.returncode, errors

    def __enter__(self) -> Serving:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()
