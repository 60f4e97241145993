"""What a room remembers of its clients' runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.chat.rooms import Echo
from tests.running import reset, running

from perdure.chat.runs import RUNS_KEPT_MAX, Run, Runs
from perdure.objects.instance import Instance
from perdure.objects.runtime import Runtime

pytestmark = pytest.mark.anyio


async def in_runs(runtime: Runtime, work: Any) -> Any:
    """What ``work`` makes of the room's runs."""

    async def call(instance: Instance) -> Any:
        return work(Runs(instance.object.storage))

    return await runtime.run_in(runtime.object_id(Echo, "r"), call)


async def test_a_run_is_found_again(tmp_path: Path) -> None:
    """After a reset of the room, too; with what came of it, which may be nothing."""
    async with running(tmp_path, Echo) as runtime:
        assert await in_runs(runtime, lambda runs: runs.find("run-1")) is None
        await in_runs(runtime, lambda runs: runs.add("run-1", "a1", 2))
        await in_runs(runtime, lambda runs: runs.add("run-2", None, 1))
        reset(runtime, Echo, "r")
        assert await in_runs(runtime, lambda runs: runs.find("run-1")) == Run("a1", 2)
        assert await in_runs(runtime, lambda runs: runs.find("run-2")) == Run(None, 1)
        assert await in_runs(runtime, lambda runs: runs.find("run-3")) is None


async def test_a_name_may_get_another_answer(tmp_path: Path) -> None:
    """The newest counts."""
    async with running(tmp_path, Echo) as runtime:
        for answer_id in ("a1", "a2"):
            await in_runs(runtime, lambda runs, answer_id=answer_id: runs.add("run", answer_id, 1))
        assert await in_runs(runtime, lambda runs: runs.find("run")) == Run("a2", 1)


async def test_the_newest_are_kept(tmp_path: Path) -> None:
    """As many as the limit says; the one before them is forgotten."""

    def fill(runs: Runs) -> None:
        for number in range(RUNS_KEPT_MAX + 1):
            runs.add(f"run-{number}", f"a{number}", 1)

    async with running(tmp_path, Echo) as runtime:
        await in_runs(runtime, fill)
        assert await in_runs(runtime, lambda runs: runs.find("run-0")) is None
        assert await in_runs(runtime, lambda runs: runs.find("run-1")) == Run("a1", 1)
        assert await in_runs(runtime, lambda runs: runs.find(f"run-{RUNS_KEPT_MAX}")) == Run("a1000", 1)
