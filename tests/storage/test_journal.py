"""The local journal: the port's contract, and what is its own: batches, threads, faults, the disk."""

from __future__ import annotations

import asyncio
import errno
import shutil
from pathlib import Path

import pytest

from perdure.errors import CorruptionError, StorageFull, SyncFailed
from perdure.storage import journal as journal_module
from perdure.storage.journal import IndexChange, Journal, JournalListener, SqliteJournal
from perdure.testing.disk import RecordingFiles
from perdure.testing.journal_contract import HeardListener, JournalContract


def call(callback: object) -> None:
    """Run a callback at once: what an unthreaded journal needs for ``notify``."""
    assert callable(callback)
    callback()


class TestSqliteJournal(JournalContract):
    """The contract, on the local journal, written by `pump`."""

    def make_journal(self, folder: Path, listener: JournalListener, pending_bytes_max: int = 1024 * 1024) -> Journal:
        self.files = RecordingFiles(folder)
        return SqliteJournal(
            folder / "journal.sqlite",
            listener,
            notify=call,
            vfs=self.files.vfs,
            pending_bytes_max=pending_bytes_max,
        )

    def settle(self, journal: Journal) -> None:
        assert isinstance(journal, SqliteJournal)
        journal.pump()

    def fail_writes(self, journal: Journal, failing: bool) -> None:
        def fault(kind: str, _path: str) -> None:
            if kind == "write":
                raise OSError(errno.ENOSPC, "no space")

        self.files.fault = fault if failing else None


class TestThreadedJournal(TestSqliteJournal):
    """The contract, on the local journal with its writer thread (callbacks on that thread)."""

    def make_journal(self, folder: Path, listener: JournalListener, pending_bytes_max: int = 1024 * 1024) -> Journal:
        journal = super().make_journal(folder, listener, pending_bytes_max)
        assert isinstance(journal, SqliteJournal)
        journal.start()
        return journal

    def settle(self, journal: Journal) -> None:
        """Let the thread do all that was asked of it, and end; start another."""
        assert isinstance(journal, SqliteJournal)
        assert journal._thread is not None
        journal._queue.put(None)
        journal._thread.join()
        journal.start()


def faulty(tmp_path: Path) -> tuple[SqliteJournal, HeardListener, RecordingFiles]:
    """A journal whose disk can be made to fail."""
    heard = HeardListener()
    files = RecordingFiles(tmp_path)
    return SqliteJournal(tmp_path / "journal.sqlite", heard, notify=call, vfs=files.vfs), heard, files


def test_a_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    """ENOSPC in the journal's log is `StorageFull`, which a caller may retry."""
    journal, heard, files = faulty(tmp_path)

    def fault(kind: str, _path: str) -> None:
        if kind == "write":
            raise OSError(errno.ENOSPC, "no space")

    files.fault = fault
    journal.append("Room/a", 0, journal.epoch, b"x" * 10_000)
    journal.pump()
    assert heard.failed == [1]
    assert isinstance(heard.errors[0], StorageFull)
    assert journal.pending_bytes == 0
    files.fault = None
    journal.append("Room/a", 0, journal.epoch, b"y")
    journal.pump()
    assert heard.durable == [2]
    journal.close()


def test_a_failed_sync_is_said_to_be_one(tmp_path: Path) -> None:
    """EIO in the commit's sync is `SyncFailed`, and the batch is not durable."""
    journal, heard, files = faulty(tmp_path)

    def fault(kind: str, _path: str) -> None:
        if kind == "sync":
            raise OSError(errno.EIO, "input/output error")

    files.fault = fault
    journal.append("Room/a", 0, journal.epoch, b"x")
    journal.pump()
    assert heard.failed == [1]
    assert isinstance(heard.errors[0], SyncFailed)
    assert list(journal.replay()) == []
    files.fault = None
    journal.close()


def test_a_commit_whose_sync_failed_does_not_come_back_after_a_crash(tmp_path: Path) -> None:
    """The frames of a failed commit are whole in the log: they must be gone before anyone hears of the failure."""
    (tmp_path / "before").mkdir()
    journal, heard, files = faulty(tmp_path / "before")
    journal.append("Room/a", 0, journal.epoch, b"durable")
    journal.pump()
    faults = [OSError(errno.EIO, "input/output error")]

    def fault(kind: str, _path: str) -> None:
        if kind == "sync" and faults:
            raise faults.pop()

    files.fault = fault
    journal.append("Room/a", 0, journal.epoch, b"said to have failed")
    journal.pump()
    assert heard.failed == [2]
    (tmp_path / "after").mkdir()
    for name in ("journal.sqlite", "journal.sqlite-wal"):
        shutil.copy(tmp_path / "before" / name, tmp_path / "after" / name)
    again = SqliteJournal(tmp_path / "after" / "journal.sqlite", HeardListener(), notify=call)
    assert [entry.record for entry in again.replay()] == [b"durable"]
    again.close()
    journal.close()


def test_a_failed_fold_is_no_failure_of_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the log cannot be folded into the file the batch is durable all the same, and folded later."""
    monkeypatch.setattr(journal_module, "JOURNAL_WAL_FRAMES_MAX", 4)
    journal, heard, files = faulty(tmp_path)

    def fault(kind: str, path: str) -> None:
        if kind == "write" and path == "journal.sqlite":
            raise OSError(errno.EIO, "input/output error")

    files.fault = fault
    journal.append("Room/a", 0, journal.epoch, b"x" * 30_000)
    journal.pump()
    assert (heard.durable, heard.failed) == ([1], [])
    files.fault = None
    journal.append("Room/a", 0, journal.epoch, b"y")
    journal.pump()
    assert [len(entry.record) for entry in journal.replay()] == [30_000, 1]
    journal.close()


def test_the_index_is_written_with_its_cause(tmp_path: Path) -> None:
    """A failed commit leaves no trace in the index either."""
    journal, heard, files = faulty(tmp_path)

    def fault(kind: str, _path: str) -> None:
        if kind == "write":
            raise OSError(errno.ENOSPC, "no space")

    files.fault = fault
    journal.append("Room/a", 0, journal.epoch, b"x", IndexChange(created=True, alarm_ms=5))
    journal.pump()
    files.fault = None
    journal.append("Room/b", 0, journal.epoch, b"x", IndexChange(created=True, alarm_ms=6))
    journal.pump()
    assert heard.failed == [1]
    connection = journal_module._open(tmp_path / "journal.sqlite", "")
    assert connection.execute("SELECT class, name FROM objects").fetchall() == [("Room", "b")]
    assert connection.execute("SELECT object, at_ms FROM alarms").fetchall() == [("Room/b", 6)]
    connection.close()
    journal.close()


def test_a_file_that_is_no_database_is_corruption(tmp_path: Path) -> None:
    """The file is named, and kept as it is."""
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"this is no database" * 1_000)
    with pytest.raises(CorruptionError, match=r"journal\.sqlite.*every file is kept"):
        SqliteJournal(path, HeardListener(), notify=call)
    assert path.read_bytes() == b"this is no database" * 1_000


@pytest.mark.anyio
async def test_ten_thousand_appends_from_a_loop_are_all_durable_in_order(tmp_path: Path) -> None:
    """With the writer's thread and a real loop: every append is acknowledged, in order, in few batches."""
    heard = HeardListener()
    loop = asyncio.get_running_loop()
    journal = SqliteJournal(tmp_path / "journal.sqlite", heard, notify=loop.call_soon_threadsafe)
    journal.start()
    for number in range(10_000):
        journal.append(f"Room/{number % 50}", 0, journal.epoch, number.to_bytes(4, "big"))
        if number % 100 == 99:
            await asyncio.sleep(0)
    async with asyncio.timeout(30):
        while journal.durable_sequence < 10_000:  # noqa: ASYNC110 - what is awaited is another thread's work
            await asyncio.sleep(0.001)
    assert heard.durable == sorted(heard.durable)
    assert heard.durable[-1] == 10_000
    assert heard.failed == []
    assert journal.pending_bytes == 0
    assert journal.commits == 10_000
    assert len(heard.durable) < 5_000
    await asyncio.to_thread(journal.close)
    again = SqliteJournal(tmp_path / "journal.sqlite", HeardListener(), notify=call)
    assert [entry.record for entry in again.replay()] == [n.to_bytes(4, "big") for n in range(10_000)]
    again.close()
