"""The crash simulator: cut a store off at any point, recover, and find every durable commit.

A *workload* runs on a store whose every file operation is logged (disk.py): ``objects`` uses a
store in every way that a runtime does (crash_workload.py), ``streams`` is a server with its
clients (crash_streams.py). The log is then cut at many *points*. What a crash at a point leaves behind,
by a kill or by a power loss, goes into a new folder; a store opens it, recovers, and must hold
what the workload's `History` says: every commit that was reported durable, whole, in order, and
nothing half. Then one of two things: the recovered store is worked on and checked again, now and
then with another crash while it is; or the recovery itself is cut at a point, and recovered once more.

From a shell::

    python -m perdure.testing.crash --points 20000 --seed 1 --jobs 2

From a test::

    report = run_crash_points(2_000, seed=1)
    assert not report.failures, report

Every point is a function of the seed: a failure names itself and the command that repeats it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple, Protocol

from ..errors import PerdureError, StorageError
from ..objects import housekeeping
from ..storage import appends, database, journal, redo
from ..storage.store import Store
from ..values import ObjectId
from .crash_model import COMMITTED, History, Lost, differences
from .crash_streams import streams_workload
from .crash_streams_history import StreamsHistory
from .crash_workload import objects_workload
from .disk import Disk, Image, Operation, RecordingFiles, write_image
from .patches import patched

POINTS_PER_WORKLOAD = 40


class Work(Protocol):
    """A workload that is being run."""

    def run(self, steps: int) -> None:
        """Do so many random things."""

    def check(self) -> None:
        """Raises AssertionError when what is in memory is not as the history says."""

    def close(self) -> None:
        """Commit what is pending and let go of the folder."""


class WorkloadKind(NamedTuple):
    """A kind of workload: ``begin(folder, files, random, history, make_store)`` runs one on a recording disk.

    ``steps`` make some 1,500 file operations; a recovered store is used for ``steps_after``.
    """

    begin: Callable[[Path, RecordingFiles, Random, Any, type[Store]], AbstractContextManager[Work]]
    history: Callable[[], History]
    steps: int
    steps_after: int


Workload = Literal["objects", "streams"]

KINDS: Mapping[Workload, WorkloadKind] = {
    "objects": WorkloadKind(objects_workload, History, 140, 12),
    "streams": WorkloadKind(streams_workload, StreamsHistory, 260, 16),
}

BOTH: tuple[Workload, ...] = ("objects", "streams")

SMALL_LIMITS: tuple[tuple[Any, str, int], ...] = (
    (appends, "TAIL_BYTES_MAX", 20_000),
    (database, "CACHE_KIBIBYTES", 64),
    (housekeeping, "OBJECT_LOG_FRAMES_MAX", 8),
    (journal, "JOURNAL_WAL_FRAMES_MAX", 80),
    (journal, "TRIM_ROWS_MAX", 6),
    (redo, "REOPEN_BATCH", 2),
)
"""The engine's limits, so small that a short workload crosses them."""

CRASHES_AFTER = 0.25
"""The part of the recovered stores that crash once more while they are worked on."""


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
    workloads: tuple[Workload, ...] = BOTH,
    folder: Path | None = None,
    make_store: type[Store] = Store,
    make_files: Callable[[Path], RecordingFiles] = RecordingFiles,
    on_progress: Callable[[Report], None] = lambda report: None,
    failures_max: int = 10,
) -> Report:
    """Try so many crash points, shared between the workloads; return what was found.

    ``folder`` is where the simulated disks are made (default: a temporary folder).
    ``make_store`` and ``make_files`` put an engine under test that differs from ours; they serve the
    workload only: recovery is always the real one. Stops early after ``failures_max`` failures.
    """
    report = Report(seed)
    for workload, number, count in _stories(points, workloads):
        if len(report.failures) >= failures_max:
            break
        report.add(run_workload(seed, workload, number, range(count), folder, make_store, make_files))
        on_progress(report)
    return report


def _stories(points: int, workloads: tuple[Workload, ...]) -> Iterator[tuple[Workload, int, int]]:
    """Which workloads are run for so many points: kind, number, points of it."""
    for index, start in enumerate(range(0, points, POINTS_PER_WORKLOAD)):
        number, kind = divmod(index, len(workloads))
        yield workloads[kind], number, min(POINTS_PER_WORKLOAD, points - start)


def run_workload(
    seed: int,
    workload: Workload,
    number: int,
    points: range,
    folder: Path | None = None,
    make_store: type[Store] = Store,
    make_files: Callable[[Path], RecordingFiles] = RecordingFiles,
) -> Report:
    """Run one workload and try these points of it."""
    report = Report(seed)
    story = f"{seed}.{number}"
    base = Path(tempfile.mkdtemp(prefix="perdure-crash-", dir=folder or _memory_folder()))
    try:
        with patched(*SMALL_LIMITS):
            try:
                log, history = _record(base, KINDS[workload], Random(story), make_store, make_files)
            except (AssertionError, PerdureError) as error:
                report.points = len(points)
                report.failures.append(_failure(seed, workload, f"{number}", error))
                return report
            report.operations = len(log)
            report.commits = sum(len(commits) for commits in history.commits.values())
            for point, disk, cut in _walk(story, points, log):
                random = Random(f"{story}.{point}")
                try:
                    _Point(base / str(point), KINDS[workload], random, report).check(history, log, disk, cut)
                except Exception as error:  # whatever a recovery raises is a failure of it
                    report.failures.append(_failure(seed, workload, f"{number}.{point}", error))
                report.points += 1
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return report


def _record(
    base: Path,
    kind: WorkloadKind,
    random: Random,
    make_store: type[Store],
    make_files: Callable[[Path], RecordingFiles],
) -> tuple[list[Operation], History]:
    folder = base / "workload"
    folder.mkdir()
    files, history = make_files(folder), kind.history()
    try:
        with kind.begin(folder, files, random, history, make_store) as work:
            work.run(kind.steps)
            work.check()
            work.close()
    finally:
        files.close()
    return files.log, history


def _walk(story: str, points: range, log: list[Operation]) -> Iterator[tuple[int, Disk, int]]:
    """Replay the log once, stopping at each point: (point, disk, operations applied)."""
    cuts = sorted((Random(f"{story}.{point}.cut").randrange(len(log) + 1), point) for point in points)
    disk, applied = Disk(), 0
    for cut, point in cuts:
        for operation in log[applied:cut]:
            disk.apply(operation)
        applied = cut
        yield point, disk, cut


class _Point:
    """One crash, and what comes after it."""

    def __init__(self, folder: Path, kind: WorkloadKind, random: Random, report: Report) -> None:
        self.folder = folder
        self.kind = kind
        self.random = random
        self.report = report

    def check(self, history: History, log: list[Operation], disk: Disk, cut: int) -> None:
        is_kill = self.random.random() < 0.4
        self.report.kills += is_kill
        self.report.power_losses += not is_kill
        image = self._image(disk, log, cut, is_kill=is_kill)
        files, found, recovery = self._recover(image, self.folder / "first", history, log, cut)
        expected = history.match(found, log, cut)
        if self.random.random() < 0.5:
            self._crash_in_recovery(
                image, files.log[: self.random.randrange(recovery + 1)], expected, history, log, cut
            )
        else:
            self._work_on(image, files.log, history.after(expected, log, cut))
        shutil.rmtree(self.folder)

    def _image(self, disk: Disk, log: list[Operation], cut: int, *, is_kill: bool) -> Image:
        """What a crash leaves when the log was applied to the disk up to ``cut``."""
        if is_kill:
            return disk.after_kill(log[cut] if cut < len(log) else None, self.random)
        return disk.after_power_loss(self.random)

    def _recover(
        self, image: Image, folder: Path, history: History, log: list[Operation], cut: int
    ) -> tuple[RecordingFiles, dict[ObjectId, Any], int]:
        """Open a store on what is left; return what it holds and how many operations its recovery made."""
        write_image(image, folder)
        files = RecordingFiles(folder)
        try:
            store = _open(folder, files, history)
            recovery = len(files.log)
            try:
                return files, history.read(store, log, cut), recovery
            finally:
                store.close()
        finally:
            files.close()

    def _crash_in_recovery(
        self,
        image: Image,
        recovery: list[Operation],
        expected: dict[ObjectId, Any],
        history: History,
        log: list[Operation],
        cut: int,
    ) -> None:
        """The recovery was cut off, too: a second one must find the same."""
        self.report.second_crashes += 1
        disk = Disk(image)
        for operation in recovery:
            disk.apply(operation)
        second = self._image(disk, [], 0, is_kill=self.random.random() < 0.4)
        _, found, _ = self._recover(second, self.folder / "second", history, log, cut)
        if found != expected:
            raise Lost(f"after a second crash during recovery: {differences(found, expected)}")

    def _work_on(self, image: Image, recovery: list[Operation], history: History) -> None:
        """The recovered store is used, closed and opened again; or it crashes again while it is used."""
        folder = self.folder / "first"
        files = RecordingFiles(folder)
        try:
            with self.kind.begin(folder, files, self.random, history, Store) as work:
                work.run(self.kind.steps_after)
                work.check()
                work.close()
            log, cut = files.log[:], len(files.log)
            store = _open(folder, files, history)
            found = history.read(store, log, cut)
            store.close()
        finally:
            files.close()
        expected = history.expected(COMMITTED, cut)
        if found != expected:
            raise Lost(f"after going on from the recovery: {differences(found, expected)}")
        if self.random.random() < CRASHES_AFTER:
            self._crash_at_work(image, recovery, log, history)

    def _crash_at_work(self, image: Image, recovery: list[Operation], log: list[Operation], history: History) -> None:
        self.report.second_crashes += 1
        cut = self.random.randrange(len(log) + 1)
        disk = Disk(image)
        for operation in [*recovery, *log[:cut]]:
            disk.apply(operation)
        second = self._image(disk, log, cut, is_kill=self.random.random() < 0.4)
        _, found, _ = self._recover(second, self.folder / "second", history, log, cut)
        history.match(found, log, cut)


class _Deaf:
    """A journal's listener that needs to know nothing."""

    def on_durable(self, sequence: int) -> None:
        """Nothing waits."""

    def on_failed(self, entries: object, error: StorageError) -> None:
        raise AssertionError("nothing may fail") from error


def _open(folder: Path, files: RecordingFiles, history: History) -> Store:
    store = Store(folder, _Deaf(), notify=lambda callback: callback(), files=files, threaded=False)
    for class_name, migrations in sorted(history.migrations.items()):
        store.prepare_class(class_name, migrations)
    return store


def _memory_folder() -> Path | None:
    """A folder in memory, where there is one: the simulated disk is a log, not a disk."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() and os.access(folder, os.W_OK) else None


def _failure(seed: int, workload: Workload, point: str, error: BaseException) -> Failure:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if isinstance(error, Lost) else f" ({Path(frame.filename).name}:{frame.lineno})"
    command = f"python -m perdure.testing.crash --workload {workload} --seed {seed} --point {point}"
    return Failure(f"{workload} {point}", f"{type(error).__name__}: {error}{where}", command)


# --- the command


def _run_job(arguments: tuple[int, Workload, int, int]) -> Report:
    seed, workload, number, count = arguments
    return run_workload(seed, workload, number, range(count))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m perdure.testing.crash", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--points", type=int, default=2_000, help="how many crash points to try")
    parser.add_argument("--seed", type=int, default=1, help="what decides everything")
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    parser.add_argument(
        "--workload", choices=[*BOTH, "both"], default="both", help="what is cut off; both share the points"
    )
    parser.add_argument("--point", help="try only this point, as a failure names it: NUMBER.POINT")
    options = parser.parse_args(arguments)
    workloads = BOTH if options.workload == "both" else (options.workload,)
    if options.point:
        number, _, point = options.point.partition(".")
        only = range(int(point), int(point) + 1) if point else range(0)
        report = Report(options.seed)
        for workload in workloads:
            report.add(run_workload(options.seed, workload, int(number), only))
    else:
        report = _run_jobs(options.points, options.seed, workloads, options.jobs)
    sys.stdout.write(f"{report}\n")
    return 1 if report.failures else 0


def _run_jobs(points: int, seed: int, workloads: tuple[Workload, ...], jobs: int) -> Report:
    tasks = [(seed, *story) for story in _stories(points, workloads)]
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
