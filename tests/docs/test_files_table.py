"""docs/reference/on-disk.md has the tables of a room's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.chat.rooms import Echo
from tests.docs.pages import REPOSITORY, rows, sections
from tests.running import running

pytestmark = pytest.mark.anyio


async def test_the_tables_of_files_are_all_there(tmp_path: Path) -> None:
    """Each table has its row, with each of its columns."""
    drawn = {row[0].strip("`"): row[1] for row in rows(sections(REPOSITORY / "docs/reference/on-disk.md")["Files"])}

    async def tables(instance: Any) -> dict[str, list[str]]:
        instance.object.files.begin("text/plain", None)
        names = instance.storage.sql("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'file%'")
        return {
            row["name"]: [column["name"] for column in instance.storage.sql(f"PRAGMA table_info({row['name']})")]
            for row in names
        }

    async with running(tmp_path, Echo) as runtime:
        found = await runtime.run_in(runtime.object_id(Echo, "r"), tables)
    assert sorted(found) == sorted(drawn)
    for table, columns in found.items():
        assert [name for name in columns if f"`{name}`" not in drawn[table]] == [], table
