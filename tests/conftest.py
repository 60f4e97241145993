"""What every test of perdure runs under: a fast loop, and an alarm for code that blocks it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from blockbuster import BlockBuster, BlockBusterFunction
from hypothesis import HealthCheck, settings

# How long an example takes says more about what else the machine does than about us. Where no test may be left out
# the examples are always the same: what new ones find is found by those who run the tests while they change things.
settings.register_profile(
    "perdure",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("PERDURE_TEST_ALL") == "1",
)
settings.load_profile("perdure")

MEANT_ON_THE_LOOP = {
    # The page cache answers in microseconds; DESIGN.md section 3 decides it so.
    "storage/database.py": {"_capture", "remove_log"},
    # An object's file is made, or checked for, when the object wakes: a tenth of a millisecond.
    "storage/store.py": {"_open", "_redo", "close_object"},
    # A time zone is read from the system's files once in a process.
    "agents/schedules.py": {"_zone"},
    # A server makes its models in a thread before it is ready; tests make them where they stand. Starting
    # a child opens /dev/null on the loop in asyncio, not in uvloop.
    "models/local.py": {"_model_file", "start"},
}
"""The file operations of perdure that may run on the event loop, by file and function."""

ALSO_BLOCKING = ("os.open", "os.pread", "os.pwrite", "os.fsync", "os.fdatasync", "os.ftruncate")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Asynchronous tests run on the loop that the server runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def _patient_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests wait for a start that takes longer, as it does beside other tests."""
    monkeypatch.setattr("perdure.server.asgi.START_WAIT_MS", 10_000)


@pytest.fixture(scope="session")
def blockbuster() -> BlockBuster:
    """The alarm, set up but not armed."""
    alarm = BlockBuster("perdure", excluded_modules=["perdure.testing"])
    scanned = alarm.functions["os.stat"]._scanned_modules
    for name in ALSO_BLOCKING:
        function = BlockBusterFunction(None, name)
        function._scanned_modules = scanned
        alarm.functions[name] = function
    for function in alarm.functions.values():
        for file_name, functions in MEANT_ON_THE_LOOP.items():
            function.can_block_in(f"perdure/{file_name}", functions)
        function.can_block_in("perdure/testing/disk.py", {"note", "xOpen", "remove", "write_new"})
    return alarm


@pytest.fixture(autouse=True)
def _no_blocking_on_the_loop(blockbuster: BlockBuster) -> Iterator[None]:
    """A blocking call of perdure's code on an event loop is an error."""
    blockbuster.activate()
    yield
    blockbuster.deactivate()


@pytest.fixture(autouse=True, scope="session")
def _quiet_logs() -> None:
    """Logs go where a failing test shows them, without colours."""
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, structlog.processors.KeyValueRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
