"""A disk whose journal can be held back, or be full, or break."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from perdure.testing.disk import RecordingFiles


class Disk:
    """File operations of a runtime, and the switch that holds the journal's sync."""

    def __init__(self, folder: Path) -> None:
        self._open = threading.Event()
        self._open.set()
        self._failure = 0
        self.files = RecordingFiles(folder, fault=self._fault)

    def hold(self) -> None:
        """From now on the journal's syncs do not return."""
        self._open.clear()

    def release(self) -> None:
        """Let them return."""
        self._open.set()

    def fail(self, number: int) -> None:
        """From now on writing to the journal fails with this error number; 0 heals the disk."""
        self._failure = number

    def fill(self) -> None:
        """There is no room for the journal any more."""
        self.fail(errno.ENOSPC)

    def _fault(self, kind: str, path: str) -> None:
        if path != "journal.sqlite-wal":
            return
        if kind == "sync":
            self._open.wait(20)
        if self._failure and kind in ("write", "sync"):
            raise OSError(self._failure, os.strerror(self._failure))
