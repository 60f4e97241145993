"""The command line: `perdure`."""

from .main import main

__all__ = ["main"]
