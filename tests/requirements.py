"""What tests need beyond the Python packages, and what happens where it is absent."""

from __future__ import annotations

import os

import pytest


def need(name: str, present: bool, how_to_get: str) -> None:
    """Skip the running test where ``name`` is absent, saying how to get it.

    With ``PERDURE_TEST_ALL=1`` in the environment a missing one is a failure: where everything is
    meant to be installed, a skip would hide that nothing was tested.
    """
    if present:
        return
    reason = f"{name} is not installed; get it with `{how_to_get}`"
    if os.environ.get("PERDURE_TEST_ALL") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
