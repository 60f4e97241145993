"""Trying again: how often, and after how long."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from ..errors import PerdureError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often durable work is tried, and how long it waits between: up to a bound that doubles (full jitter).

    Raises ValueError for numbers that cannot work.
    """

    attempts_max: int = 7
    base_delay_ms: int = 2_000
    delay_ms_max: int = 10 * 60 * 1000

    def __post_init__(self) -> None:
        if self.attempts_max < 1 or self.base_delay_ms < 1 or self.delay_ms_max < self.base_delay_ms:
            raise ValueError("Retry: attempts_max >= 1 and delay_ms_max >= base_delay_ms >= 1")

    def delay_ms(self, attempts: int, random: Random) -> int:
        """The wait after so many failed attempts (1 or more)."""
        bound = min(self.delay_ms_max, self.base_delay_ms * 2 ** min(attempts - 1, 40))
        return round(random.uniform(0, bound))


AT_ONCE = Retry(attempts_max=3, base_delay_ms=100, delay_ms_max=3_000)
"""The default of work whose caller waits."""


def is_worth_a_retry(error: Exception) -> bool:
    """Whether an error may pass: one of perdure's says so itself, any other might."""
    return error.retryable if isinstance(error, PerdureError) else True


async def with_retries(
    work: Callable[[], Awaitable[Result] | Result],
    retry: Retry,
    should_retry: Callable[[Exception], bool],
    random: Random,
) -> Result:
    """What ``work()`` gives, tried again while it fails with errors that may pass. The last error is raised."""
    attempts = 0
    while True:
        try:
            result: Any = work()
            if inspect.isawaitable(result):
                result = await result
            value: Result = result
            return value
        except Exception as error:
            attempts += 1
            if attempts >= retry.attempts_max or not should_retry(error):
                raise
        await asyncio.sleep(retry.delay_ms(attempts, random) / 1000)
