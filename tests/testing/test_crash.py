"""The crash simulator finds nothing in the engine, and finds engines that break a rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.storage.object_storage import Storage
from perdure.storage.store import Checkpoint, OpenObject, Store
from perdure.testing.crash import main, run_crash_points, run_workload
from perdure.testing.disk import Kind, RecordingFiles


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_no_durable_commit_is_lost_and_none_is_half_there(seed: int) -> None:
    """After 500 crashes of each story: every durable commit is there, whole, in order; nothing else is."""
    report = run_crash_points(500, seed)
    assert not report.failures, str(report)
    assert report.points == 500
    assert report.kills > 100
    assert report.power_losses > 100
    assert report.second_crashes > 100


def test_a_point_is_a_function_of_its_seed() -> None:
    """The same seed tells the same story, so a failure can be repeated."""
    first, second = run_workload(5, 3, range(4)), run_workload(5, 3, range(4))
    assert first == second
    assert first.operations > 500
    assert run_workload(6, 3, range(4)).operations != first.operations


class HastyStore(Store):
    """Moves pages into the file before their commits are durable."""

    def begin_checkpoint(self, opened: OpenObject) -> Checkpoint | None:
        opened.storage.database.mark()
        opened.storage.database.checkpoint()
        return Checkpoint(opened.key, opened.path, self.files, set(), 0)


class ForgetfulStore(Store):
    """Takes a checkpoint for done without having put the tails of the streams into rows."""

    def materialise(self, opened: OpenObject) -> int:
        sequence = self.commit(opened)
        opened.storage.database.mark()
        opened.marked_sequence = opened.last_page_sequence
        self._next_live[opened.key] = None
        return sequence


class SplitStore(Store):
    """Leaves the pages of every third commit out of its record."""

    def commit(self, opened: OpenObject) -> int:
        if opened.last_sequence % 3 == 2:
            storage: Storage = opened.storage
            storage.stream_table.materialise_large()
            storage.database.commit()
            storage.database.begin()
        return super().commit(opened)


class NeverSyncedFiles(RecordingFiles):
    """A disk whose syncs of objects' files do nothing."""

    def sync(self, path: Path) -> None:
        """Nothing."""


class NeverSyncedJournal(RecordingFiles):
    """A disk that syncs nothing that SQLite asks it to."""

    def note(self, kind: Kind, path: Path | str, number: int = 0, data: bytes = b"") -> None:
        if kind != "sync" or not str(path).endswith("journal.sqlite-wal"):
            super().note(kind, path, number, data)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("make_store", [HastyStore, ForgetfulStore, SplitStore])
def test_an_engine_that_breaks_a_rule_is_found(make_store: type[Store]) -> None:
    """The simulator is worth something: it fails for engines that are wrong."""
    report = run_crash_points(400, 1, make_store=make_store, failures_max=1)
    assert report.failures, f"{make_store.__name__} was not found out"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("make_files", [NeverSyncedFiles, NeverSyncedJournal])
def test_a_disk_that_does_not_sync_is_found(make_files: type[RecordingFiles]) -> None:
    """Power losses are simulated for real: what is never synced gets lost."""
    report = run_crash_points(400, 1, make_files=make_files, failures_max=1)
    assert report.failures, f"{make_files.__name__} was not found out"


def test_a_failure_says_how_to_repeat_it() -> None:
    """The report names seed, point and command."""
    report = run_crash_points(400, 9, make_files=NeverSyncedFiles, failures_max=1)
    failure = report.failures[0]
    assert failure.command == f"python -m perdure.testing.crash --seed 9 --point {failure.point}"
    assert failure.command in str(report)


def test_the_command_tries_one_point(capsys: pytest.CaptureFixture[str]) -> None:
    """``--point`` repeats a single one."""
    assert main(["--seed", "1", "--point", "2.7"]) == 0
    assert capsys.readouterr().out.startswith("1 points (")
