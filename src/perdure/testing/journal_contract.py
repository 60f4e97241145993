"""The contract of the `Journal` port, as tests that any implementation runs.

Derive a test class from `JournalContract` and say how to make a journal::

    class TestMyJournal(JournalContract):
        def make_journal(self, folder, listener, pending_bytes_max=1 << 20):
            return MyJournal(folder, listener, pending_bytes_max)

        def settle(self, journal):
            journal.wait_until_idle()

        def fail_writes(self, journal, failing):
            journal.disk.broken = failing
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import FencedError, StorageError, StorageFull
from ..storage.journal import Journal, JournalEntry, JournalListener


class HeardListener:
    """A listener that remembers what it was told."""

    def __init__(self) -> None:
        self.durable: list[int] = []
        self.failed: list[int] = []
        self.errors: list[StorageError] = []

    def on_durable(self, sequence: int) -> None:
        """From the journal."""
        self.durable.append(sequence)

    def on_failed(self, entries: Sequence[JournalEntry], error: StorageError) -> None:
        """From the journal."""
        self.failed += [entry.sequence for entry in entries]
        self.errors.append(error)


class JournalContract:
    """What every journal does. ``tmp_path`` is pytest's fixture."""

    def make_journal(self, folder: Path, listener: JournalListener, pending_bytes_max: int = 1024 * 1024) -> Journal:
        """Open the journal that is kept in ``folder`` (which exists)."""
        raise NotImplementedError

    def settle(self, journal: Journal) -> None:
        """Return when everything appended has become durable or has failed, and the listener knows."""
        raise NotImplementedError

    def fail_writes(self, journal: Journal, failing: bool) -> None:
        """Make every write fail from now on, or let them pass again. What a journal does then is half its worth."""
        raise NotImplementedError

    def append(self, journal: Journal, key: str, record: bytes, incarnation: int = 1) -> int:
        """Append with the journal's own epoch."""
        return journal.append(key, 7, journal.epoch, record, None, incarnation)

    def test_numbers_rise_and_are_durable_when_said_so(self, tmp_path: Path) -> None:
        """Sequence numbers rise by order of append; the listener hears of the last durable one."""
        heard = HeardListener()
        journal = self.make_journal(tmp_path, heard)
        before = journal.durable_sequence
        numbers = [self.append(journal, f"Room/{n}", b"record") for n in range(5)]
        assert numbers == [before + 1, before + 2, before + 3, before + 4, before + 5]
        self.settle(journal)
        assert heard.durable[-1] == numbers[-1] == journal.durable_sequence
        assert heard.durable == sorted(heard.durable)
        assert heard.failed == []
        journal.close()

    def test_replay_gives_entries_back_whole_and_in_order(self, tmp_path: Path) -> None:
        """Every field of an entry comes back, byte for byte, in order of its number."""
        journal = self.make_journal(tmp_path, HeardListener())
        first = journal.append("Room/ä", 3, journal.epoch, b"\x00\x01\xff")
        second = journal.append("Log/b", 255, journal.epoch, b"")
        self.settle(journal)
        found = [(e.sequence, e.shard, e.epoch, e.object_key, e.record) for e in journal.replay()]
        assert found == [
            (first, 3, journal.epoch, "Room/ä", b"\x00\x01\xff"),
            (second, 255, journal.epoch, "Log/b", b""),
        ]
        journal.close()

    def test_replay_can_start_later_and_follow_one_object(self, tmp_path: Path) -> None:
        """``after`` leaves out what is older; ``object_key`` all other objects."""
        journal = self.make_journal(tmp_path, HeardListener())
        numbers = [self.append(journal, f"Room/{n % 2}", bytes([n])) for n in range(6)]
        self.settle(journal)
        assert [e.record for e in journal.replay(numbers[3])] == [b"\x04", b"\x05"]
        assert [e.record for e in journal.replay(numbers[0], "Room/0")] == [b"\x02", b"\x04"]
        assert list(journal.replay(0, "Room/9")) == []
        journal.close()

    def test_entries_outlive_the_journal_object(self, tmp_path: Path) -> None:
        """A journal opened again has the entries, goes on counting, and has a newer epoch."""
        journal = self.make_journal(tmp_path, HeardListener())
        last = [self.append(journal, "Room/a", bytes([n])) for n in range(3)][-1]
        epoch = journal.epoch
        journal.close()
        again = self.make_journal(tmp_path, HeardListener())
        assert [e.record for e in again.replay()] == [b"\x00", b"\x01", b"\x02"]
        assert again.durable_sequence == last
        assert again.epoch > epoch
        assert self.append(again, "Room/a", b"next") == last + 1
        again.close()

    def test_close_finishes_what_was_appended(self, tmp_path: Path) -> None:
        """Entries that wait when `close` is called become durable, and their writer hears of it."""
        heard = HeardListener()
        journal = self.make_journal(tmp_path, heard)
        number = self.append(journal, "Room/a", b"last words")
        journal.close()
        journal.close()
        again = self.make_journal(tmp_path, HeardListener())
        assert [e.record for e in again.replay()] == [b"last words"]
        assert again.durable_sequence == number
        again.close()

    def test_nothing_is_appended_after_close(self, tmp_path: Path) -> None:
        """A closed journal refuses appends."""
        journal = self.make_journal(tmp_path, HeardListener())
        journal.close()
        _expect(StorageError, lambda: self.append(journal, "Room/a", b"late"))

    def test_trim_deletes_the_front_only(self, tmp_path: Path) -> None:
        """What is trimmed is not replayed (sooner or later); what is newer always is."""
        journal = self.make_journal(tmp_path, HeardListener())
        numbers = [self.append(journal, "Room/a", bytes([n])) for n in range(6)]
        self.settle(journal)
        journal.trim(numbers[2])
        self.settle(journal)
        assert [e.record for e in journal.replay()] == [b"\x03", b"\x04", b"\x05"]
        journal.close()

    def test_trim_spares_what_is_not_durable(self, tmp_path: Path) -> None:
        """Trimming past the durable end deletes nothing that becomes durable later."""
        journal = self.make_journal(tmp_path, HeardListener())
        self.settle(journal)
        number = self.append(journal, "Room/a", b"kept")
        journal.trim(number + 100)
        self.append(journal, "Room/a", b"kept, too")
        journal.close()
        again = self.make_journal(tmp_path, HeardListener())
        assert b"kept, too" in [e.record for e in again.replay()]
        again.close()

    def test_numbers_are_never_given_out_twice(self, tmp_path: Path) -> None:
        """An emptied journal goes on counting after it was closed and opened."""
        journal = self.make_journal(tmp_path, HeardListener())
        last = [self.append(journal, "Room/a", b"x") for _ in range(4)][-1]
        self.settle(journal)
        journal.trim(last)
        self.settle(journal)
        assert list(journal.replay()) == []
        journal.close()
        again = self.make_journal(tmp_path, HeardListener())
        assert self.append(again, "Room/a", b"y") == last + 1
        again.close()

    def test_an_older_owner_is_fenced(self, tmp_path: Path) -> None:
        """An append under an epoch older than the journal's is refused with both epochs."""
        self.make_journal(tmp_path, HeardListener()).close()
        journal = self.make_journal(tmp_path, HeardListener())
        epoch = journal.epoch
        error = _expect(FencedError, lambda: journal.append("Room/a", 0, epoch - 1, b"zombie"))
        assert isinstance(error, FencedError)
        assert (error.held, error.presented) == (epoch, epoch - 1)
        self.settle(journal)
        assert list(journal.replay()) == []
        journal.close()

    def test_a_failed_entry_takes_its_incarnation_along(self, tmp_path: Path) -> None:
        """After a failure exactly what failed is named; that incarnation is done for, others go on."""
        heard = HeardListener()
        journal = self.make_journal(tmp_path, heard)
        good = self.append(journal, "Room/a", b"good", incarnation=1)
        self.settle(journal)
        self.fail_writes(journal, True)
        lost = [
            self.append(journal, "Room/a", b"lost", incarnation=1),
            self.append(journal, "Room/b", b"lost, too", incarnation=2),
        ]
        self.settle(journal)
        assert heard.failed == lost
        self.fail_writes(journal, False)
        orphan = self.append(journal, "Room/a", b"built on what was lost", incarnation=1)
        fresh = self.append(journal, "Room/a", b"a new instance", incarnation=3)
        self.settle(journal)
        assert heard.failed == [*lost, orphan]
        assert heard.durable == [good, fresh]
        assert [e.record for e in journal.replay()] == [b"good", b"a new instance"]
        journal.close()

    def test_what_failed_does_not_come_back(self, tmp_path: Path) -> None:
        """A failed entry is not in the journal when it is opened again."""
        heard = HeardListener()
        journal = self.make_journal(tmp_path, heard)
        self.fail_writes(journal, True)
        self.append(journal, "Room/a", b"lost")
        self.settle(journal)
        self.fail_writes(journal, False)
        journal.close()
        again = self.make_journal(tmp_path, HeardListener())
        assert list(again.replay()) == []
        again.close()

    def test_what_waits_for_the_disk_is_bounded(self, tmp_path: Path) -> None:
        """More than ``pending_bytes_max`` waiting bytes are refused as retryable; later there is room again."""
        journal = self.make_journal(tmp_path, HeardListener(), pending_bytes_max=10_000)
        self.settle(journal)

        def fill() -> None:
            for _ in range(1_000_000):
                self.append(journal, "Room/a", bytes(4_000))

        error = _expect(StorageFull, fill)
        assert error.retryable
        self.settle(journal)
        self.append(journal, "Room/a", b"room again")
        self.settle(journal)
        assert [e.record for e in journal.replay()][-1] == b"room again"
        journal.close()


def _expect(kind: type[StorageError | FencedError], action: object) -> StorageError | FencedError:
    """The error that the action raises."""
    assert callable(action)
    try:
        action()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")
