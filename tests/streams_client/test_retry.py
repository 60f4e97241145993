"""When a client tries again, and when it gives up."""

from __future__ import annotations

import pytest
from tests.streams_client.surroundings import NOON_S

from perdure.streams_client.retry import Backoff, Retry, retry_after_ms


def test_waits_grow_to_a_limit() -> None:
    """Each is up to 1.3 times the one before, from 100 ms to a minute; success begins anew."""
    backoff = Backoff(lambda: 1.0)
    waits = [backoff.next_ms() for _ in range(30)]
    assert waits[:4] == pytest.approx([100, 130, 169, 219.7])
    assert waits[24] == pytest.approx(100 * 1.3**24)
    assert waits[25:] == [60_000] * 5
    backoff.reset()
    assert backoff.next_ms() == 100


def test_chance_takes_a_part_of_a_wait() -> None:
    """Many clients that failed together do not come back together."""
    chances = iter([0.0, 0.25, 1.0])
    backoff = Backoff(lambda: next(chances))
    assert [backoff.next_ms() for _ in range(3)] == pytest.approx([0, 32.5, 169])


def test_the_last_try_is_made_when_the_time_is_over() -> None:
    """Not before, and none after it."""
    retry = Retry(lambda: 1.0, retry_for_s=0.2)
    assert retry.next_wait_ms(1_000) == 100
    assert retry.next_wait_ms(1_100) == 100  # 130, but only 100 are left
    assert retry.next_wait_ms(1_199) == 1
    assert retry.next_wait_ms(1_200) is None


def test_progress_gives_the_whole_time_again() -> None:
    """The time counts from the first failure in a row."""
    retry = Retry(lambda: 1.0, retry_for_s=0.2)
    retry.next_wait_ms(1_000)
    retry.succeeded()
    assert retry.next_wait_ms(5_000) == 100
    assert retry.next_wait_ms(5_200) is None


@pytest.mark.parametrize(("retry_for_s", "wait_ms"), [(0, None), (None, 100)], ids=["never again", "for ever"])
def test_no_time_and_endless_time(retry_for_s: float | None, wait_ms: float | None) -> None:
    """0 tries once, None for ever."""
    assert Retry(lambda: 1.0, retry_for_s).next_wait_ms(1_000) == wait_ms


def test_what_the_server_asks_for_is_the_least() -> None:
    """A longer wait than the rest of the time leaves no try."""
    retry = Retry(lambda: 1.0, retry_for_s=3)
    assert retry.next_wait_ms(1_000, at_least_ms=2_000) == 2_000
    assert retry.next_wait_ms(3_000, at_least_ms=1_000) == 1_000
    assert retry.next_wait_ms(3_001, at_least_ms=1_000) is None


@pytest.mark.parametrize(
    ("headers", "wait_ms"),
    [
        ({}, 0),
        ({"retry-after": "7"}, 7_000),
        ({"retry-after": "0.5"}, 500),
        ({"retry-after": "3600"}, 3_600_000),
        ({"retry-after": "3601"}, 3_600_000),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "Wed, 15 Jul 2026 12:00:09 GMT"}, 9_000),
        ({"retry-after": "Wed, 15 Jul 2026 11:59:00 GMT"}, 0),
        ({"retry-after": "Thu, 16 Jul 2026 12:00:00 GMT"}, 3_600_000),
        ({"retry-after": "Wed, 15 Jul 2026 20:00:02 GMT", "date": "Wed, 15 Jul 2026 20:00:00 GMT"}, 2_000),
        ({"retry-after": "Wed, 15 Jul 2026 12:00:03 GMT", "date": "today"}, 3_000),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], wait_ms: float) -> None:
    """A date counts by the server's own clock where it says its time; an hour is the most."""
    assert retry_after_ms(headers, NOON_S) == wait_ms
