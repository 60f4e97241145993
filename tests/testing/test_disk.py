"""What a simulated disk keeps over a crash."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random

import apsw
import pytest

from perdure.testing.disk import Disk, Image, Kind, Operation, RecordingFiles, write_image

SYNCED_FILE = [
    Operation("create", "a"),
    Operation("write", "a", 0, b"old old "),
    Operation("sync", "a"),
    Operation("sync_folder", ""),
]


def replay(*operations: Operation, image: Image | None = None) -> Disk:
    """A disk after these operations."""
    disk = Disk(image)
    for operation in operations:
        disk.apply(operation)
    return disk


def power_losses(disk: Disk, count: int = 200) -> list[Image]:
    """What many power losses at this moment leave."""
    return [disk.after_power_loss(Random(number)) for number in range(count)]


def test_what_was_synced_outlives_every_power_loss() -> None:
    """A synced file in a synced folder is always there, whole."""
    assert all(image == {"a": b"old old "} for image in power_losses(replay(*SYNCED_FILE)))


def test_a_file_that_was_made_past_it_is_as_any_other() -> None:
    """Its first write makes it: what was not synced may be lost, and with its folder's sync it is sure."""
    made = [Operation("write", "a", 0, b"new"), Operation("sync", "a")]
    assert {image.get("a") for image in power_losses(replay(*made))} == {None, b"new"}
    assert {image.get("a") for image in power_losses(replay(*made, Operation("sync_folder", "")))} == {b"new"}


def test_an_unsynced_write_is_kept_or_lost() -> None:
    """Both happen, and nothing else for a write within a sector."""
    disk = replay(*SYNCED_FILE, Operation("write", "a", 4, b"new!"))
    assert {image["a"] for image in power_losses(disk)} == {b"old old ", b"old new!"}


def test_unsynced_writes_are_lost_in_any_order() -> None:
    """The later of two writes may be kept when the earlier is lost."""
    disk = replay(*SYNCED_FILE, Operation("write", "a", 0, b"1111"), Operation("write", "a", 4, b"2222"))
    assert {image["a"] for image in power_losses(disk)} == {b"old old ", b"1111old ", b"old 2222", b"11112222"}


def test_a_large_write_is_torn_at_sectors() -> None:
    """Some sectors of it may be kept and others lost, never parts of one."""
    disk = replay(
        Operation("create", "a"),
        Operation("write", "a", 0, b"o" * 2048),
        Operation("sync", "a"),
        Operation("sync_folder", ""),
        Operation("write", "a", 0, b"n" * 2048),
    )
    found = {image["a"] for image in power_losses(disk)}
    assert len(found) > 4
    for content in found:
        assert content is not None
        assert {content[at : at + 512] for at in range(0, 2048, 512)} <= {b"o" * 512, b"n" * 512}


def test_a_new_name_is_sure_after_its_folder_was_synced() -> None:
    """Syncing a new file does not make its name durable."""
    disk = replay(Operation("create", "a"), Operation("write", "a", 0, b"x"), Operation("sync", "a"))
    assert {image.get("a") for image in power_losses(disk)} == {None, b"x"}
    disk.apply(Operation("sync_folder", ""))
    assert {image.get("a") for image in power_losses(disk)} == {b"x"}


def test_a_removed_file_may_come_back() -> None:
    """Until the folder is synced."""
    disk = replay(*SYNCED_FILE, Operation("remove", "a"))
    assert {image.get("a") for image in power_losses(disk)} == {None, b"old old "}
    disk.apply(Operation("sync_folder", ""))
    assert power_losses(disk)[0] == {}


def test_a_renamed_file_is_the_old_or_the_new_one() -> None:
    """A replacement is one step: there is always a whole file under the name."""
    disk = replay(
        *SYNCED_FILE,
        Operation("create", "a.new"),
        Operation("write", "a.new", 0, b"new new "),
        Operation("sync", "a.new"),
        Operation("rename", "a.new", 0, b"a"),
    )
    assert {image["a"] for image in power_losses(disk)} == {b"old old ", b"new new "}


def test_a_file_goes_with_its_folder() -> None:
    """A folder that may be lost takes along what is in it, synced or not."""
    disk = replay(
        Operation("folder", "f"),
        Operation("create", "f/a"),
        Operation("write", "f/a", 0, b"x"),
        Operation("sync", "f/a"),
        Operation("sync_folder", "f"),
    )
    images = power_losses(disk)
    assert {} in images
    assert {"f": None, "f/a": b"x"} in images
    assert all("f" in image or "f/a" not in image for image in images)


def test_a_kill_keeps_everything_up_to_a_part_of_the_last_write() -> None:
    """The process dies within a write: a beginning of it is there."""
    disk = replay(*SYNCED_FILE, Operation("write", "a", 0, b"1"))
    torn = Operation("write", "a", 4, b"2345")
    found = {disk.after_kill(torn, Random(number))["a"] for number in range(100)}
    assert found == {b"1ld old ", b"1ld 2ld ", b"1ld 23d ", b"1ld 234 ", b"1ld 2345"}


def test_the_log_of_sqlite_rebuilds_its_files(tmp_path: Path) -> None:
    """Replaying everything that SQLite did gives the same bytes as it wrote."""
    files = RecordingFiles(tmp_path)
    connection = apsw.Connection(str(tmp_path / "db"), vfs=files.vfs)
    connection.pragma("journal_mode", "WAL")
    connection.execute("CREATE TABLE t(x)")
    connection.execute("INSERT INTO t VALUES(randomblob(50000))")
    image = replay(*files.log).after_kill(None, Random(1))
    assert image["db"] == (tmp_path / "db").read_bytes()
    assert image["db-wal"] == (tmp_path / "db-wal").read_bytes()
    connection.close()
    assert replay(*files.log).after_kill(None, Random(1)) == {"db": (tmp_path / "db").read_bytes()}
    files.close()


def test_every_file_operation_is_carried_out_and_logged(tmp_path: Path) -> None:
    """The engine's own operations do what `Files` does."""
    files = RecordingFiles(tmp_path)
    files.make_folder(tmp_path / "f")
    files.write_new(tmp_path / "f" / "a", b"12345678")
    files.write_at(tmp_path / "f" / "a", [(2, b"ab")], 6)
    files.replace(tmp_path / "b", b"whole")
    files.write_new(tmp_path / "c", b"gone")
    files.remove(tmp_path / "c")
    files.remove(tmp_path / "never there")
    image = replay(*files.log).after_kill(None, Random(1))
    assert image == {"f": None, "f/a": b"12ab56", "b": b"whole"}
    assert (tmp_path / "f" / "a").read_bytes() == b"12ab56"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "f"]
    with pytest.raises(FileNotFoundError):
        files.sync(tmp_path / "never there")
    write_image(image, tmp_path / "again")
    assert (tmp_path / "again" / "f" / "a").read_bytes() == b"12ab56"
    files.close()


@pytest.mark.parametrize(
    ("number", "kind", "error"),
    [(errno.ENOSPC, "write", apsw.FullError), (errno.EIO, "write", apsw.IOError), (errno.EIO, "sync", apsw.IOError)],
)
def test_a_fault_is_what_sqlite_knows(tmp_path: Path, number: int, kind: Kind, error: type[apsw.Error]) -> None:
    """An injected OSError reaches the caller of SQLite as its own error."""
    files = RecordingFiles(tmp_path)
    connection = apsw.Connection(str(tmp_path / "db"), vfs=files.vfs)
    connection.pragma("journal_mode", "WAL")
    connection.execute("CREATE TABLE t(x)")

    def fault(at: Kind, _path: str) -> None:
        if at == kind:
            raise OSError(number, "injected")

    files.fault = fault
    connection.pragma("synchronous", "FULL")
    with pytest.raises(error):
        connection.execute("INSERT INTO t VALUES(1)")
    files.fault = None
    connection.execute("INSERT INTO t VALUES(2)")
    assert connection.execute("SELECT x FROM t").fetchall() == [(2,)]
    connection.close()
    files.close()
