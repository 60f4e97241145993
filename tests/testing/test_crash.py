"""The crash simulator finds nothing in the engine, and finds engines and servers that break a rule."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perdure.objects.instance import Instance
from perdure.server.streams.pending import PendingReply
from perdure.storage.appends import StreamTable
from perdure.storage.object_storage import Storage
from perdure.storage.record import Append, Note
from perdure.storage.store import Checkpoint, OpenObject, Store
from perdure.stream_hosts.host import StreamHost
from perdure.stream_hosts.subscriptions import Subscriptions
from perdure.streams.subscription import Subscription
from perdure.testing.crash import BOTH, Workload, main, run_crash_points, run_workload
from perdure.testing.disk import Kind, RecordingFiles


@pytest.mark.timeout(240)
@pytest.mark.parametrize("workload", BOTH)
@pytest.mark.parametrize("seed", [1, 2])
def test_no_durable_commit_is_lost_and_none_is_half_there(seed: int, workload: Workload) -> None:
    """After 500 crashes of each story: every durable commit is there, whole, in order; nothing else is."""
    report = run_crash_points(500, seed, workloads=(workload,))
    assert not report.failures, str(report)
    assert report.points == 500
    assert report.kills > 100
    assert report.power_losses > 100
    assert report.second_crashes > 100


@pytest.mark.parametrize("workload", BOTH)
def test_a_point_is_a_function_of_its_seed(workload: Workload) -> None:
    """The same seed tells the same story, so a failure can be repeated."""
    first, second = (run_workload(5, workload, 3, range(4)) for _ in range(2))
    assert first == second
    assert first.operations > 500
    assert run_workload(6, workload, 3, range(4)).operations != first.operations


@pytest.mark.parametrize("workload", BOTH)
def test_a_point_is_the_same_in_every_process(workload: Workload) -> None:
    """Nothing hangs on the order in which Python keeps its sets."""
    command = [sys.executable, "-m", "perdure.testing.crash", "--workload", workload, "--seed", "5", "--point", "3.1"]
    told = {
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


def test_both_workloads_share_the_points() -> None:
    """Half of the stories are a store's, half a server's."""
    report = run_crash_points(44, 5)
    parts = [run_workload(5, "objects", 0, range(40)), run_workload(5, "streams", 0, range(4))]
    assert (report.points, report.failures) == (44, [])
    assert report.operations == sum(part.operations for part in parts)


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
@pytest.mark.parametrize("workload", BOTH)
@pytest.mark.parametrize("make_store", [HastyStore, ForgetfulStore, SplitStore])
def test_an_engine_that_breaks_a_rule_is_found(make_store: type[Store], workload: Workload) -> None:
    """The simulator is worth something: it fails for engines that are wrong."""
    report = run_crash_points(400, 1, workloads=(workload,), make_store=make_store, failures_max=1)
    assert report.failures, f"{make_store.__name__} was not found out"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("workload", BOTH)
@pytest.mark.parametrize("make_files", [NeverSyncedFiles, NeverSyncedJournal])
def test_a_disk_that_does_not_sync_is_found(make_files: type[RecordingFiles], workload: Workload) -> None:
    """Power losses are simulated for real: what is never synced gets lost."""
    report = run_crash_points(400, 1, workloads=(workload,), make_files=make_files, failures_max=1)
    assert report.failures, f"{make_files.__name__} was not found out"


async def _forgets_what_it_wrote(self: StreamHost) -> None:
    """For `StreamHost.on_start`: what the last process was writing stays as it is."""


def _begins_effects_at_once(self: Instance, effect: Callable[..., object], *arguments: Any) -> None:
    """For `Instance.after_durable`."""
    effect(*arguments)


def _answers_at_once(self: PendingReply, exchange: Any, reply: Any) -> None:
    """For `PendingReply`: before what was written is durable."""
    exchange.reply(reply)
    self._exchange, self._reply = SimpleNamespace(reply=lambda reply: None), reply


def _loses_producers(self: StreamTable, item: Append | Note) -> None:
    """For `StreamTable.restore`: entries come back after a crash, and who appended them does not."""
    if isinstance(item, Append):
        _restore(self, item)


_restore = StreamTable.restore


def _never_answers(self: PendingReply) -> None:
    """For `PendingReply.__call__`."""


def _says_where_nothing_is(self: StreamHost, path: str, number: int | None) -> None:
    """For `StreamHost.set_pointer`: forks are not found where they live."""


def _looks_at_nothing(self: Subscriptions, paths: object) -> None:
    """For `Subscriptions._look_again`: news that a crash swallowed stays unheard."""


def _takes_all_for_one(self: Subscription, path: str, stream: str) -> None:
    """For `Subscription.stream_is`: a stream that was made anew is the one before it."""


BROKEN: list[tuple[type, str, Any]] = [
    (StreamHost, "on_start", _forgets_what_it_wrote),
    (StreamHost, "set_pointer", _says_where_nothing_is),
    (Instance, "after_durable", _begins_effects_at_once),
    (PendingReply, "__init__", _answers_at_once),
    (PendingReply, "__call__", _never_answers),
    (StreamTable, "restore", _loses_producers),
    (Subscriptions, "_look_again", _looks_at_nothing),
    (Subscription, "stream_is", _takes_all_for_one),
]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("broken", "name", "instead"), BROKEN, ids=[item[2].__name__[1:] for item in BROKEN])
def test_a_server_that_breaks_a_promise_is_found(
    broken: type, name: str, instead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each promise of a server of streams is asked for after a crash, and found broken where it is."""
    monkeypatch.setattr(broken, name, instead)
    report = run_crash_points(600, 7, workloads=("streams",), failures_max=1)
    assert report.failures, f"{broken.__name__}.{name} was not found out"


def test_a_failure_says_how_to_repeat_it() -> None:
    """The report names seed, point and command."""
    report = run_crash_points(400, 9, workloads=("objects",), make_files=NeverSyncedFiles, failures_max=1)
    failure = report.failures[0]
    workload, point = failure.point.split()
    assert workload == "objects"
    assert failure.command == f"python -m perdure.testing.crash --workload objects --seed 9 --point {point}"
    assert failure.command in str(report)


@pytest.mark.parametrize(("workload", "points"), [("objects", 1), ("streams", 1), ("both", 2)])
def test_the_command_tries_one_point(workload: str, points: int, capsys: pytest.CaptureFixture[str]) -> None:
    """``--point`` repeats a single one, of the workload that is named, or one of each."""
    assert main(["--seed", "1", "--workload", workload, "--point", "2.7"]) == 0
    assert capsys.readouterr().out.startswith(f"{points} points (")
