"""Templates: the bytes that a new object's file begins with.

Making an object's tables with SQL on first use would cost a millisecond and several pages
of journal each time. Instead the tables of a class (the engine's own, then the class's
migrations) are made once in memory; a new object's file is a copy of those bytes, and the
journal's first record of the object names the template by its digest. Templates are kept
in the data folder (``templates/<digest>.sqlite``, synced before first use), so recovery can
rebuild a file that a power cut swallowed whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import apsw

PAGE_BYTES = 4096
APPLICATION_ID = 0x70657264  # "perd"

BASE_SCHEMA = """
CREATE TABLE _perdure_meta(key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE _perdure_kv(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE _perdure_streams(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  content_type TEXT NOT NULL,
  position INTEGER NOT NULL DEFAULT 0,
  first INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0,
  closed INTEGER NOT NULL DEFAULT 0,
  created_ms INTEGER NOT NULL,
  options BLOB,
  base INTEGER,
  base_end INTEGER NOT NULL DEFAULT 0,
  forks INTEGER NOT NULL DEFAULT 0,
  hidden INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE _perdure_segments(
  stream INTEGER NOT NULL,
  first INTEGER NOT NULL,
  count INTEGER NOT NULL,
  sizes BLOB NOT NULL,
  data BLOB NOT NULL,
  written_ms INTEGER NOT NULL,
  PRIMARY KEY(stream, first)
) WITHOUT ROWID;
CREATE TABLE _perdure_notes(
  stream INTEGER NOT NULL,
  key TEXT NOT NULL,
  value BLOB NOT NULL,
  PRIMARY KEY(stream, key)
) WITHOUT ROWID;
"""
"""The engine's own tables in every object's file.

``_perdure_streams.position`` counts the entries that are in ``_perdure_segments``; entries
past it are in the journal and in memory. ``first`` is the oldest entry kept. A segment holds
``count`` entries from ``first`` on: ``sizes`` is their lengths (u32 little-endian each),
``data`` their bytes one after another; none of them is younger than ``written_ms``.

A fork's entries before ``base_end`` are those of the stream ``base``; ``forks`` counts the streams
that have this one for a base. ``hidden``: it was deleted and lives on for its forks only.
``_perdure_notes`` are small values of a stream by key; newer ones are in the journal and in memory.
``options`` is for whoever made the stream.
"""


class Template(NamedTuple):
    """The first bytes of an object's file, and their digest (16 bytes)."""

    digest: bytes
    data: bytes


def build_template(migrations: Sequence[str]) -> Template:
    """Make the template of a class with these schema migrations."""
    connection = apsw.Connection(":memory:")
    try:
        for pragma in (f"page_size={PAGE_BYTES}", f"application_id={APPLICATION_ID}"):
            for _ in connection.execute(f"PRAGMA {pragma}"):
                pass
        for statement in (BASE_SCHEMA, *migrations):
            for _ in connection.execute(statement):
                pass
        connection.execute("INSERT INTO _perdure_meta VALUES('schema', ?)", (len(migrations),))
        data = bytearray(connection.serialize("main"))
    finally:
        connection.close()
    # Bytes 18 and 19 of the header are the file format's write and read versions: 2 is WAL.
    # Setting them here saves the two syncs of a `PRAGMA journal_mode=WAL` on the new file.
    data[18] = data[19] = 2
    return Template(blake2b(data, digest_size=16).digest(), bytes(data))
