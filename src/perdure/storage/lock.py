"""The lock on a data folder: one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ..errors import DataFolderLocked


def lock_folder(folder: Path) -> int:
    """Lock the data folder for this process; closing the returned descriptor lets go of it.

    Raises:
        DataFolderLocked: another process has it.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise DataFolderLocked(
            f"the data folder {folder} is in use by process {holder or 'unknown'}; "
            f"stop it, or choose another folder with --data"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
