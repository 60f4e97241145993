"""Cron texts against a brute force that looks at every minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.agents.cron import parse_cron

RANGES = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}

WEEKDAY_NAMES = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]

Field = tuple[str, set[int]]


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _next(cron: str, after: str, zone: str = "UTC") -> str:
    due_ms = parse_cron(cron).next_ms(_ms(after), ZoneInfo(zone))
    return datetime.fromtimestamp(due_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")


@pytest.mark.parametrize(
    ("cron", "after", "due"),
    [
        ("* * * * *", "2026-01-01T00:00Z", "2026-01-01T00:01Z"),
        ("*/15 * * * *", "2026-01-01T00:15:00.001Z", "2026-01-01T00:30Z"),
        ("5/20 * * * *", "2026-01-01T00:06Z", "2026-01-01T00:25Z"),
        ("0 9 * * mon-fri", "2026-01-02T10:00Z", "2026-01-05T09:00Z"),
        ("0 0 13 * 5", "2026-01-03T00:00Z", "2026-01-09T00:00Z"),
        ("0 0 13 * *", "2026-01-03T00:00Z", "2026-01-13T00:00Z"),
        ("0 0 */2 * 1", "2026-01-01T00:00Z", "2026-01-05T00:00Z"),
        ("0 0 * * sat-sun", "2026-01-03T00:00Z", "2026-01-04T00:00Z"),
        ("0 0 * * sun-mon", "2026-01-03T00:00Z", "2026-01-04T00:00Z"),
        ("0 0 * * 7", "2026-01-01T00:00Z", "2026-01-04T00:00Z"),
        ("0 0 29 2 *", "2026-01-01T00:00Z", "2028-02-29T00:00Z"),
        ("0 0 29 2 *", "2096-03-01T00:00Z", "2104-02-29T00:00Z"),
        ("30 4 1,15 JAN,jul *", "2026-01-15T04:30Z", "2026-07-01T04:30Z"),
        ("@hourly", "2026-01-01T00:00Z", "2026-01-01T01:00Z"),
        ("@Daily", "2026-01-01T00:00Z", "2026-01-02T00:00Z"),
        ("@weekly", "2026-01-01T00:00Z", "2026-01-04T00:00Z"),
        ("@monthly", "2026-01-01T00:00Z", "2026-02-01T00:00Z"),
        ("@yearly", "2026-01-01T00:00Z", "2027-01-01T00:00Z"),
    ],
)
def test_times(cron: str, after: str, due: str) -> None:
    """The next time after a time, from the manual pages of cron."""
    assert _next(cron, after) == due


@pytest.mark.parametrize(
    ("cron", "after", "due"),
    [
        # Berlin puts its clock forward at 01:00Z, from 02:00 to 03:00.
        ("30 2 * * *", "2026-03-28T12:00Z", "2026-03-29T01:30Z"),
        ("30 2 * * *", "2026-03-29T01:30Z", "2026-03-30T00:30Z"),
        ("0 3 * * *", "2026-03-29T00:00Z", "2026-03-29T01:00Z"),
        ("*/30 * * * *", "2026-03-29T00:30Z", "2026-03-29T01:00Z"),
        ("*/30 * * * *", "2026-03-29T01:00Z", "2026-03-29T01:30Z"),
        # And back at 01:00Z, from 03:00 to 02:00.
        ("30 2 * * *", "2026-10-24T12:00Z", "2026-10-25T00:30Z"),
        ("30 2 * * *", "2026-10-25T00:30Z", "2026-10-26T01:30Z"),
        ("*/30 * * * *", "2026-10-25T00:30Z", "2026-10-25T01:00Z"),
        ("*/30 * * * *", "2026-10-25T01:00Z", "2026-10-25T01:30Z"),
        ("0 3 * * *", "2026-10-25T01:00Z", "2026-10-25T02:00Z"),
    ],
)
def test_times_where_the_clock_is_changed(cron: str, after: str, due: str) -> None:
    """A time that is left out is that much later; one that comes twice counts once, but every hour is every hour."""
    assert _next(cron, after, "Europe/Berlin") == due


@pytest.mark.parametrize(
    "text",
    [
        *("", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *"),
        *("* * * * 8", "*/0 * * * *", "5-1 * * * *", "1-2-3 * * * *", "a * * * *", "1, * * * *", "-1 * * * *"),
        *("* * * foo *", "mon * * * *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "@never", "² * * * *", "*-5 * * * *"),
    ],
)
def test_what_is_none(text: str) -> None:
    """A text that means nothing, or never, is refused."""
    with pytest.raises(ValueError, match="cron text"):
        parse_cron(text)


@st.composite
def _field(draw: st.DrawFn, name: str) -> Field:
    low, high = RANGES[name]
    kind = draw(st.sampled_from(["*", "*/n", "list"]))
    if kind == "*":
        return "*", set(range(low, high + 1))
    if kind == "*/n":
        step = draw(st.integers(1, high))
        # Sunday is 7, too, for who counts.
        values = range(low, (7 if name == "weekday" else high) + 1, step)
        return f"*/{step}", {value % 7 if name == "weekday" else value for value in values}
    texts: list[str] = []
    all_values: set[int] = set()
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        step = draw(st.integers(1, 5))
        all_values.update(range(first, last + 1, step))
        ends = [
            WEEKDAY_NAMES[end] if name == "weekday" and draw(st.booleans()) else str(end) for end in (first, last)
        ]
        texts.append(f"{ends[0]}-{ends[1]}/{step}" if first != last else str(first))
    return ",".join(texts), all_values


AROUND = {
    "UTC": ["2026-01-31T12:00Z", "2028-02-28T20:00Z"],
    "Europe/Berlin": ["2026-03-28T20:00Z", "2026-10-24T20:00Z"],
    "America/New_York": ["2026-03-08T00:00Z", "2026-11-01T00:00Z"],
    "Australia/Lord_Howe": ["2026-04-04T10:00Z", "2026-10-03T10:00Z"],  # half an hour
}

WINDOW = timedelta(days=2)


def _by_force(fields: list[Field], after: datetime, zone: ZoneInfo) -> datetime | None:
    """The earliest instant after ``after`` of any minute of the wall clock that matches, in the next two days."""
    (_, minutes), (_, hours), (day_text, days), (_, months), (weekday_text, weekdays) = fields
    either = not day_text.startswith("*") and not weekday_text.startswith("*")
    wall = after.astimezone(zone).replace(tzinfo=None, second=0, microsecond=0) - timedelta(days=1)
    end = wall + WINDOW + timedelta(days=2)
    found = []
    while wall < end:
        day, weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
        if (
            wall.minute in minutes
            and wall.hour in hours
            and wall.month in months
            and ((day or weekday) if either else (day and weekday))
        ):
            for fold in (0, 1) if len(hours) == 24 else (0,):
                at = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
                exists = at.astimezone(zone).replace(tzinfo=None) == wall
                if at > after and (exists or fold == 0):
                    found.append(at)
        wall += timedelta(minutes=1)
    best = min(found, default=None)
    return best if best is not None and best <= after + WINDOW else None


@settings(max_examples=60, deadline=None)
@given(
    fields=st.tuples(*(_field(name) for name in RANGES)),
    place=st.sampled_from([(zone, start) for zone, starts in AROUND.items() for start in starts]),
    seconds=st.integers(0, 24 * 3_600),
)
def test_every_minute_was_looked_at(fields: tuple[Field, ...], place: tuple[str, str], seconds: int) -> None:
    """For any text, around the days when clocks are changed: the time that a look at every minute finds."""
    zone = ZoneInfo(place[0])
    after = datetime.fromisoformat(place[1]) + timedelta(seconds=seconds)
    expected = _by_force(list(fields), after, zone)
    try:
        cron = parse_cron(" ".join(text for text, _ in fields))
    except ValueError:
        assert expected is None
        return
    due = datetime.fromtimestamp(cron.next_ms(round(after.timestamp() * 1000), zone) / 1000, UTC)
    if expected is None:
        assert due > after + WINDOW
    else:
        assert due == expected
