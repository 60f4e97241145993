"""Where things are in a data folder (see store.py for the whole picture)."""

from __future__ import annotations

import re
from hashlib import blake2b
from pathlib import Path

from ..values import ObjectId


def journal_path(folder: Path) -> Path:
    """The journal and the node index."""
    return folder / "journal.sqlite"


def format_path(folder: Path) -> Path:
    """What says that the folder is one of ours, and which format it has."""
    return folder / "perdure.json"


def object_path(folder: Path, object_id: ObjectId) -> Path:
    """An object's file. The hash tells names apart that look alike to some file system."""
    return folder / "objects" / object_id.class_name / f"{object_slug(object_id)}.sqlite"


def object_slug(object_id: ObjectId) -> str:
    """A file name's stem for an object: readable, and no other object's."""
    slug = re.sub(r"[^a-z0-9]+", "-", object_id.name.lower())[:40].strip("-")
    digest = blake2b(object_id.key.encode(), digest_size=8).hexdigest()
    return f"{slug or 'object'}-{digest}"


def template_path(folder: Path, digest: bytes) -> Path:
    """A template by its digest."""
    return folder / "templates" / f"{digest.hex()}.sqlite"
