"""The npm suite `@durable-streams/server-conformance-tests`, unmodified, against a real server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import run_served
from tests.e2e.served import HERE, SOURCES, Served
from tests.requirements import need

SUBSCRIPTIONS = True
"""Whether the suite's tests of subscriptions are among those that must pass."""

TESTS = 338 if SUBSCRIPTIONS else 332

NPM = HERE.parent / "npm"
SUITE_S_MAX = 240.0

WAYS = {"asgi": "0", "accelerated": "1"}


class Run:
    """The suite at work on a server of its own. Most of its time it waits, so two runs go side by side."""

    def __init__(self, folder: Path, setting: str) -> None:
        folder.mkdir()
        self._result = folder / "result.json"
        self._output = (folder / "output").open("w+")
        path = os.pathsep.join((str(SOURCES), str(HERE.parents[1])))
        served = Served(folder, "tests.server.streams.app:app", PYTHONPATH=path, PERDURE_ACCELERATOR=setting)
        self._life = run_served(served)
        next(self._life)
        self._vitest = subprocess.Popen(
            [
                *(str(NPM / "node_modules" / ".bin" / "vitest"), "run", "stream_conformance.test.mjs"),
                *("--reporter=json", f"--outputFile={self._result}", "--no-cache"),
            ],
            cwd=NPM,
            env={**os.environ, "STREAMS_URL": served.url, "SUBSCRIPTIONS": str(int(SUBSCRIPTIONS))},
            stdout=self._output,
            stderr=self._output,
        )

    def result(self) -> dict[str, Any]:
        """What vitest reports at its end."""
        self._vitest.wait(SUITE_S_MAX)
        self._output.seek(0)
        assert self._result.exists(), self._output.read()
        result: dict[str, Any] = json.loads(self._result.read_text())
        return result

    def close(self) -> None:
        """End both; the server's log must tell of no error of ours."""
        self._vitest.kill()
        self._vitest.wait()
        self._output.close()
        next(self._life, None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """The suite over both ways, begun together."""
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    suite = NPM / "node_modules" / "@durable-streams" / "server-conformance-tests"
    need("the Durable Streams suite (npm packages)", suite.is_dir(), "npm install --prefix tests/npm")
    folder = tmp_path_factory.mktemp("conformance")
    begun = {way: Run(folder / way, setting) for way, setting in WAYS.items()}
    yield begun
    for run in begun.values():
        run.close()


@pytest.mark.timeout(SUITE_S_MAX + 30)
@pytest.mark.parametrize("way", WAYS)
def test_every_test_of_the_suite_passes(runs: dict[str, Run], way: str) -> None:
    """Each one, with the accelerator and without."""
    result = runs[way].result()
    failures = {
        test["fullName"]: "\n".join(test["failureMessages"])[:600]
        for file in result["testResults"]
        for test in file["assertionResults"]
        if test["status"] == "failed"
    }
    assert failures == {}
    assert (result["numPassedTests"], result["numFailedTests"]) == (TESTS, 0)
