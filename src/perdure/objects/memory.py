"""Memory: giving it back to the operating system, and collecting garbage without stopping every room.

An awake object costs some 200 KiB, nearly all of it SQLite's. When thousands hibernate, glibc
keeps their memory for later; a server with many idle rooms wants it back.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

GARBAGE_THRESHOLDS = (5_000, 20, 50)
"""Of Python's collector: a full run comes after some five million objects instead of 70,000."""


def settle() -> None:
    """Set the garbage collector for a process whose only work is to serve; call it when it has started.

    A full run stops every room: 50 ms with 500 of them, most of it for the modules, which never
    become garbage. They are left out from now on, and full runs are rare; what hibernated objects
    leave is collected by `give_back`.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def _find_trim() -> Callable[[], object] | None:
    try:
        library = ctypes.CDLL(None)
        trim = library.malloc_trim
    except (OSError, AttributeError):
        return None  # not glibc
    return lambda: trim(0)


_trim = _find_trim()


def give_back() -> None:
    """Collect what hibernated objects left; return free memory to the system, where that is possible.

    Takes milliseconds: call it from a thread.
    """
    gc.collect()
    if _trim is not None:
        _trim()
