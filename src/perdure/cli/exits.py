"""How a command ends: one plain sentence on standard error, and a documented exit code.

===== ==========================================================
0     done
1     it failed; the sentence says why
2     wrong usage, or a setting that cannot work
3     another process has the data folder open
4     the address is in use or cannot be bound
5     stored data is damaged (nothing was changed)
130   interrupted with Ctrl-C
===== ==========================================================
"""

from __future__ import annotations

from enum import IntEnum

from ..errors import ConfigError, CorruptionError, DataFolderLocked, PerdureError


class Exit(IntEnum):
    """The exit codes of all commands."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    LOCKED = 3
    ADDRESS = 4
    DAMAGED = 5
    INTERRUPTED = 130


class AddressInUse(ConfigError):
    """The address to listen on is taken or cannot be bound."""

    code = "address_in_use"


def exit_code(error: PerdureError) -> Exit:
    """The code that a command ends with after ``error``."""
    if isinstance(error, AddressInUse):
        return Exit.ADDRESS
    if isinstance(error, ConfigError):
        return Exit.USAGE
    if isinstance(error, DataFolderLocked):
        return Exit.LOCKED
    if isinstance(error, CorruptionError):
        return Exit.DAMAGED
    return Exit.FAILED
