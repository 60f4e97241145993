"""The crash simulator: cut a store off at any point, recover, and find every durable commit.

A *workload* (crash_workload.py) runs on a store whose every file operation is logged
(disk.py). Its log is then cut at many *points*. What a crash at a point leaves behind, by a
kill or by a power loss, goes into a new folder; a store opens it, recovers, and must hold
what crash_model.py says: every commit that was reported durable, whole, in order, and
nothing half. Then one of two things: the recovered store is worked on and checked again, or
the recovery itself is cut at a point, and recovered once more.

From a shell::

    python -m perdure.testing.crash --points 20000 --seed 1 --jobs 2

From a test::

    report = run_crash_points(2_000, seed=1)
    assert not report.failures, report

Every point is a function of the seed: a failure names itself and the command that repeats it.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from ..errors import PerdureError, StorageError
from ..storage import appends, database, journal, redo
from ..storage.store import Store
from ..values import ObjectId
from .crash_model import MIGRATIONS, History, ObjectState, difference, read_store
from .crash_workload import COMMITTED, OBJECT_IDS, StoreMaker, Workload
from .disk import Disk, Image, Operation, RecordingFiles, write_image

POINTS_PER_WORKLOAD = 40
WORKLOAD_STEPS = 140
"""Steps of a workload: some 1,500 file operations."""

STEPS_AFTER_RECOVERY = 12

SMALL_LIMITS: tuple[tuple[Any, str, int], ...] = (
    (appends, "TAIL_BYTES_MAX", 20_000),
    (database, "CACHE_KIBIBYTES", 64),
    (journal, "JOURNAL_WAL_FRAMES_MAX", 80),
    (journal, "TRIM_ROWS_MAX", 6),
    (redo, "REOPEN_BATCH", 2),
)
"""The engine's limits, so small that a short workload crosses them."""


class Lost(AssertionError):
    """A recovered store is not what it must be."""


@dataclass(frozen=True)
class Failure:
    """One point at which the store did not recover as it must."""

    point: str
    what: str
    command: str

    def __str__(self) -> str:
        return f"point {self.point}: {self.what}\n  repeat it: {self.command}"


@dataclass
class Report:
    """What a run found."""

    seed: int
    points: int = 0
    kills: int = 0
    power_losses: int = 0
    second_crashes: int = 0
    operations: int = 0
    commits: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Count another run's points with these."""
        self.points += other.points
        self.kills += other.kills
        self.power_losses += other.power_losses
        self.second_crashes += other.second_crashes
        self.operations += other.operations
        self.commits += other.commits
        self.failures += other.failures

    def __str__(self) -> str:
        line = (
            f"{self.points:,} points ({self.kills:,} kills, {self.power_losses:,} power losses, "
            f"{self.second_crashes:,} with a second crash during recovery), {self.commits:,} commits, "
            f"{self.operations:,} file operations, seed {self.seed}: {len(self.failures)} failures"
        )
        return "\n".join([line, *map(str, self.failures)])


def run_crash_points(
    points: int,
    seed: int,
    *,
    folder: Path | None = None,
    make_store: StoreMaker = Store,
    make_files: Callable[[Path], RecordingFiles] = RecordingFiles,
    on_progress: Callable[[Report], None] = lambda report: None,
    failures_max: int = 10,
) -> Report:
    """Try so many crash points; return what was found.

    ``folder`` is where the simulated disks are made (default: a temporary folder).
    ``make_store`` and ``make_files`` put an engine under test that differs from ours; they serve the
    workload only: recovery is always the real one. Stops early after ``failures_max`` failures.
    """
    report = Report(seed)
    for workload in itertools.count():
        if report.points >= points or len(report.failures) >= failures_max:
            return report
        count = min(POINTS_PER_WORKLOAD, points - report.points)
        report.add(run_workload(seed, workload, range(count), folder, make_store, make_files))
        on_progress(report)
    raise AssertionError("unreachable")


def run_workload(
    seed: int,
    workload: int,
    points: range,
    folder: Path | None = None,
    make_store: StoreMaker = Store,
    make_files: Callable[[Path], RecordingFiles] = RecordingFiles,
) -> Report:
    """Run one workload and try these points of it."""
    report = Report(seed)
    base = Path(tempfile.mkdtemp(prefix="perdure-crash-", dir=folder or _memory_folder()))
    try:
        with small_limits():
            try:
                log, history = _record(base, Random(f"{seed}.{workload}"), make_store, make_files)
            except (AssertionError, PerdureError) as error:
                report.points = len(points)
                report.failures.append(_failure(seed, f"{workload}", error))
                return report
            report.operations = len(log)
            report.commits = sum(len(commits) for commits in history.commits.values())
            for point, disk, cut in _walk(seed, workload, points, log):
                random = Random(f"{seed}.{workload}.{point}")
                try:
                    _Point(base / str(point), history, log, random, report).check(disk, cut)
                except Exception as error:  # whatever a recovery raises is a failure of it
                    report.failures.append(_failure(seed, f"{workload}.{point}", error))
                report.points += 1
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return report


def _record(
    base: Path, random: Random, make_store: StoreMaker, make_files: Callable[[Path], RecordingFiles]
) -> tuple[list[Operation], History]:
    folder = base / "workload"
    folder.mkdir()
    files = make_files(folder)
    try:
        workload = Workload(folder, files, random, make_store=make_store)
        workload.run(WORKLOAD_STEPS)
        workload.check()
        workload.close()
    finally:
        files.close()
    return files.log, workload.history


def _walk(seed: int, workload: int, points: range, log: list[Operation]) -> Iterator[tuple[int, Disk, int]]:
    """Replay the log once, stopping at each point: (point, disk, operations applied)."""
    cuts = sorted((Random(f"{seed}.{workload}.{point}.cut").randrange(len(log) + 1), point) for point in points)
    disk, applied = Disk(), 0
    for cut, point in cuts:
        for operation in log[applied:cut]:
            disk.apply(operation)
        applied = cut
        yield point, disk, cut


class _Point:
    """One crash, and what comes after it."""

    def __init__(self, folder: Path, history: History, log: list[Operation], random: Random, report: Report) -> None:
        self.folder = folder
        self.history = history
        self.log = log
        self.random = random
        self.report = report

    def check(self, disk: Disk, cut: int) -> None:
        if self.random.random() < 0.4:
            self.report.kills += 1
            image = disk.after_kill(self.log[cut] if cut < len(self.log) else None, self.random)
        else:
            self.report.power_losses += 1
            image = disk.after_power_loss(self.random)
        marks = [operation.number for operation in self.log[:cut] if operation.kind == "mark"]
        durable = max((mark for mark in marks if mark < COMMITTED), default=0)
        last = max((mark - COMMITTED for mark in marks if mark > COMMITTED), default=0)
        files, found, recovery = self._recover(image, self.folder / "first")
        expected = self._match(found, durable, last)
        if self.random.random() < 0.5:
            self._crash_again(image, files.log[: self.random.randrange(recovery + 1)], expected)
        else:
            self._work_on(expected)
        shutil.rmtree(self.folder)

    def _recover(self, image: Image, folder: Path) -> tuple[RecordingFiles, dict[ObjectId, ObjectState], int]:
        """Open a store on what is left; return what it holds and how many operations its recovery made."""
        write_image(image, folder)
        files = RecordingFiles(folder)
        try:
            store = _open(folder, files)
            recovery = len(files.log)
            try:
                return files, read_store(store, list(self.history.commits)), recovery
            finally:
                store.close()
        finally:
            files.close()

    def _match(self, found: dict[ObjectId, ObjectState], durable: int, last: int) -> dict[ObjectId, ObjectState]:
        """The moment of the history that was found.

        Raises:
            Lost: there is none.
        """
        moments = self.history.moments(durable, last)
        for moment in moments:
            expected = self.history.everything_at(moment)
            if found == expected:
                return expected
        nearest = max(
            (self.history.everything_at(moment) for moment in moments),
            key=lambda expected: sum(found[object_id] == expected[object_id] for object_id in found),
        )
        wrong = "; ".join(
            f"{object_id.key}: {difference(found[object_id], nearest[object_id])}"
            for object_id in found
            if found[object_id] != nearest[object_id]
        )
        raise Lost(f"durable up to {durable}, written up to {last}: {wrong}")

    def _crash_again(self, image: Image, log: list[Operation], expected: dict[ObjectId, ObjectState]) -> None:
        """The recovery was cut off, too: a second one must find the same."""
        self.report.second_crashes += 1
        disk = Disk(image)
        for operation in log:
            disk.apply(operation)
        kill = self.random.random() < 0.4
        second = disk.after_kill(None, self.random) if kill else disk.after_power_loss(self.random)
        _, found, _ = self._recover(second, self.folder / "second")
        if found != expected:
            wrong = {key.key: difference(found[key], expected[key]) for key in found if found[key] != expected[key]}
            raise Lost(f"after a second crash during recovery: {wrong}")

    def _work_on(self, expected: dict[ObjectId, ObjectState]) -> None:
        """The recovered store is used, closed and opened again."""
        folder = self.folder / "first"
        files = RecordingFiles(folder)
        try:
            workload = Workload(folder, files, self.random, History(expected))
            workload.run(STEPS_AFTER_RECOVERY)
            workload.check()
            workload.close()
            store = _open(folder, files)
            object_ids = list(workload.history.commits)
            found = read_store(store, object_ids)
            store.close()
        finally:
            files.close()
        expected = workload.history.everything_at(COMMITTED)
        for object_id in object_ids:
            if found[object_id] != expected[object_id]:
                what = difference(found[object_id], expected[object_id])
                raise Lost(f"after going on from the recovery: {object_id.key}: {what}")


class _Deaf:
    """A journal's listener that needs to know nothing."""

    def on_durable(self, sequence: int) -> None:
        """Nothing waits."""

    def on_failed(self, entries: object, error: StorageError) -> None:
        raise AssertionError("nothing may fail") from error


def _open(folder: Path, files: RecordingFiles) -> Store:
    store = Store(folder, _Deaf(), notify=lambda callback: callback(), files=files, threaded=False)
    for class_name in sorted({object_id.class_name for object_id in OBJECT_IDS}):
        store.prepare_class(class_name, MIGRATIONS)
    return store


@contextmanager
def small_limits() -> Iterator[None]:
    """Run the engine with `SMALL_LIMITS`."""
    before = [getattr(module, name) for module, name, _ in SMALL_LIMITS]
    try:
        for module, name, value in SMALL_LIMITS:
            setattr(module, name, value)
        yield
    finally:
        for (module, name, _), value in zip(SMALL_LIMITS, before, strict=True):
            setattr(module, name, value)


def _memory_folder() -> Path | None:
    """A folder in memory, where there is one: the simulated disk is a log, not a disk."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() and os.access(folder, os.W_OK) else None


def _failure(seed: int, point: str, error: BaseException) -> Failure:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if isinstance(error, Lost) else f" ({Path(frame.filename).name}:{frame.lineno})"
    command = f"python -m perdure.testing.crash --seed {seed} --point {point}"
    return Failure(point, f"{type(error).__name__}: {error}{where}", command)


# --- the command


def _run_job(arguments: tuple[int, int, int]) -> Report:
    seed, workload, count = arguments
    return run_workload(seed, workload, range(count))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m perdure.testing.crash", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--points", type=int, default=2_000, help="how many crash points to try")
    parser.add_argument("--seed", type=int, default=1, help="what decides everything")
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    parser.add_argument("--point", help="try only this point, as a failure names it: WORKLOAD.POINT")
    options = parser.parse_args(arguments)
    if options.point:
        workload, _, point = options.point.partition(".")
        only = range(int(point), int(point) + 1) if point else range(0)
        report = run_workload(options.seed, int(workload), only)
    else:
        report = _run_jobs(options.points, options.seed, options.jobs)
    sys.stdout.write(f"{report}\n")
    return 1 if report.failures else 0


def _run_jobs(points: int, seed: int, jobs: int) -> Report:
    counts = [min(POINTS_PER_WORKLOAD, points - start) for start in range(0, points, POINTS_PER_WORKLOAD)]
    tasks = [(seed, workload, count) for workload, count in enumerate(counts)]
    report, started = Report(seed), time.monotonic()
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs) as pool:
        for part in pool.imap_unordered(_run_job, tasks):
            report.add(part)
            if sys.stderr.isatty():
                rate = report.points / (time.monotonic() - started)
                sys.stderr.write(f"\r{report.points:,} points, {len(report.failures)} failures, {rate:.0f}/s ")
                sys.stderr.flush()
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    return report


if __name__ == "__main__":
    raise SystemExit(main())
