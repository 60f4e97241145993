"""A store in a temporary folder, pumped by hand, and an object of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from perdure.errors import StorageError
from perdure.storage.journal import JournalEntry
from perdure.storage.object_storage import Storage
from perdure.storage.store import OpenObject, Store
from perdure.testing.crash_model import Silent
from perdure.testing.disk import RecordingFiles
from perdure.values import ObjectId


class Node:
    """A store whose journal is written when a test says so, on a disk that can fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = RecordingFiles(folder)
        self.durable: list[int] = []
        self.failed: list[tuple[str, bytes]] = []
        self.errors: list[StorageError] = []
        self.store = self.start()

    def on_durable(self, sequence: int) -> None:
        """From the journal."""
        self.durable.append(sequence)

    def on_failed(self, entries: Sequence[JournalEntry], error: StorageError) -> None:
        """From the journal."""
        self.failed += [(entry.object_key, entry.record) for entry in entries]
        self.errors.append(error)
        self.store.on_failed(entries)

    def start(self) -> Store:
        """Open the folder (again)."""
        self.store = Store(self.folder, self, notify=lambda callback: callback(), files=self.files, threaded=False)
        return self.store

    def open(self, name: str, migrations: tuple[str, ...] = ()) -> OpenObject:
        """Open an object of class Room."""
        self.store.prepare_class("Room", migrations)
        return self.store.open(ObjectId("Room", name), Silent(), migrations)

    def save(self, opened: OpenObject) -> int:
        """Commit and make durable."""
        sequence = self.store.commit(opened)
        self.store.journal.pump()
        return sequence

    def checkpoint(self, opened: OpenObject) -> None:
        """All steps of a checkpoint."""
        self.store.materialise(opened)
        self.store.journal.pump()
        checkpoint = self.store.begin_checkpoint(opened)
        assert checkpoint is not None
        checkpoint.run()
        self.store.finish_checkpoint(checkpoint)

    def fail(self, error_number: int, *kinds: str, path: str = "") -> None:
        """Let operations of these kinds fail on paths that hold ``path``."""

        def fault(kind: str, name: str) -> None:
            if kind in kinds and path in name:
                raise OSError(error_number, "injected")

        self.files.fault = fault

    def heal(self) -> None:
        """The disk works again."""
        self.files.fault = None


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A store in a new folder."""
    node = Node(tmp_path / "data")
    yield node
    node.heal()
    node.store.close()
    node.files.close()


@pytest.fixture
def storage(node: Node) -> Iterator[Storage]:
    """The storage of a new object with one table of its own."""
    opened = node.open("one", ("CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)",))
    yield opened.storage
    node.store.close_object(opened)


NodeMaker = Callable[[Path], Node]
