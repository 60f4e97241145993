"""Giving memory back to the operating system.

An awake object costs some 200 KiB, nearly all of it SQLite's. When thousands hibernate, glibc
keeps their memory for later; a server with many idle rooms wants it back.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def _find_trim() -> Callable[[], object] | None:
    try:
        library = ctypes.CDLL(None)
        trim = library.malloc_trim
    except (OSError, AttributeError):
        return None  # not glibc
    return lambda: trim(0)


_trim = _find_trim()


def give_back() -> None:
    """Return free memory to the system, where that is possible. Takes milliseconds: call it from a thread."""
    if _trim is not None:
        _trim()
