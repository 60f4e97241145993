"""The data folder's secret: what signed URLs are signed with."""

from __future__ import annotations

import secrets
from pathlib import Path

from ..errors import CorruptionError
from .files import Files

SECRET_BYTES = 32


def load_secret(folder: Path, files: Files) -> bytes:
    """The folder's secret (``secret.key``, 32 bytes), made when there is none.

    Raises:
        CorruptionError: the file does not hold 32 bytes.
    """
    path = folder / "secret.key"
    try:
        found = files.read(path)
    except FileNotFoundError:
        found = secrets.token_bytes(SECRET_BYTES)
        path.with_name(f"{path.name}.new").touch(mode=0o600)  # what `replace` fills
        files.replace(path, found)
    if len(found) != SECRET_BYTES:
        raise CorruptionError(f"it holds {len(found)} bytes, not {SECRET_BYTES}", str(path))
    return found
