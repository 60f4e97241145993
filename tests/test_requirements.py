"""A missing requirement skips a test, or fails it where everything must be there."""

from __future__ import annotations

import pytest
from tests.requirements import need


def test_what_is_there_changes_nothing() -> None:
    """A test whose requirement is met runs on."""
    need("node", True, "apt-get install nodejs")


def test_what_is_missing_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason says how to get it."""
    monkeypatch.delenv("PERDURE_TEST_ALL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="node is not installed; get it with `apt-get install nodejs`"):
        need("node", False, "apt-get install nodejs")


def test_what_is_missing_fails_where_all_tests_must_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """PERDURE_TEST_ALL=1 is for machines on which a skip would hide a hole."""
    monkeypatch.setenv("PERDURE_TEST_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match="node is not installed; get it with `apt-get install nodejs`"):
        need("node", False, "apt-get install nodejs")
