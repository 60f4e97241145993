"""Cron texts: ``minute hour day month weekday``, and when they are next due. Pure: clocks are arguments.

::

    minute    0-59
    hour      0-23
    day       1-31              of the month
    month     1-12 or jan-dec
    weekday   0-7 or sun-sat    0 and 7 are Sunday

A field is ``*``, a value, a range ``a-b``, a range with a step ``a-b/n``, ``*/n``, or a list of these.
When both day and weekday are restricted, one of them is enough (as in Vixie's cron).
``@hourly``, ``@daily`` (``@midnight``), ``@weekly``, ``@monthly`` and ``@yearly`` (``@annually``) are short forms.

The fields are of the wall clock of a time zone. Where it is put back, a time that comes twice counts once, unless
the hour is ``*``: then it counts both times. Where it is put forward, a time that is left out counts that
much later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

SHORT_FORMS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

MONTHS = {name: at for at, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
WEEKDAYS = {name: at for at, name in enumerate("sun mon tue wed thu fri sat".split())}

YEARS_AHEAD = 9
"""How far a time is looked for: 29 February comes again after eight years at most."""

SHIFT = timedelta(hours=3)
"""More than any zone puts its clock forward or back at once."""

_ITEM = re.compile(r"(\*|[a-z0-9]+(?:-[a-z0-9]+)?)(?:/([0-9]+))?", re.ASCII)
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed cron text: the values of each field that are due."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    """Whether one of day and weekday is enough."""

    def matches_day(self, at: datetime) -> bool:
        """Whether the date is one of the text's."""
        if at.month not in self.months:
            return False
        day, weekday = at.day in self.days, at.isoweekday() % 7 in self.weekdays
        return day or weekday if self.either_day else day and weekday

    def wall_times(self, start: datetime) -> Iterator[datetime]:
        """The wall clock's times that match, from ``start`` (naive, a whole minute) on, for some years."""
        end = start + timedelta(days=366 * YEARS_AHEAD)
        day = start.replace(hour=0, minute=0)
        while day <= end:
            if self.matches_day(day):
                for hour in self.hours:
                    for minute in self.minutes:
                        at = day.replace(hour=hour, minute=minute)
                        if at >= start:
                            yield at
            day += timedelta(days=1)

    def next_ms(self, after_ms: int, zone: tzinfo = UTC) -> int:
        """The first time after ``after_ms`` (Unix ms) that is due.

        Raises:
            ValueError: there is none, as on 30 February.
        """
        after = datetime.fromtimestamp(after_ms / 1000, UTC)
        start = after.astimezone(zone).replace(tzinfo=None, second=0, microsecond=0) - SHIFT
        best: datetime | None = None
        for wall in self.wall_times(start):
            if best is not None and wall > best.astimezone(zone).replace(tzinfo=None) + SHIFT:
                break
            for instant in self._instants(wall, zone):
                if instant > after and (best is None or instant < best):
                    best = instant
        if best is None:
            raise ValueError("a cron text that is never due")
        return round(best.timestamp() * 1000)

    def _instants(self, wall: datetime, zone: tzinfo) -> Iterator[datetime]:
        first = wall.replace(tzinfo=zone).astimezone(UTC)
        yield first
        if len(self.hours) == 24:
            second = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
            if second > first:
                yield second


def parse_cron(text: str) -> Cron:
    """The meaning of a cron text.

    Raises:
        ValueError: it is none, or it is never due.
    """
    words = SHORT_FORMS.get(text.strip().lower(), text).lower().split()
    if len(words) != 5:
        raise ValueError(f"a cron text has five fields (minute hour day month weekday), not {text[:80]!r}")
    try:
        minutes = _field(words[0], 0, 59)
        hours = _field(words[1], 0, 23)
        days = _field(words[2], 1, 31)
        months = _field(words[3], 1, 12, MONTHS)
        weekdays = {day % 7 for day in _field(words[4].replace("-sun", "-7"), 0, 7, WEEKDAYS)}
    except ValueError as error:
        raise ValueError(f"not a cron text: {text[:80]!r}: {error}") from None
    either = not words[2].startswith("*") and not words[4].startswith("*")
    cron = Cron(
        tuple(sorted(minutes)), tuple(sorted(hours)), frozenset(days), frozenset(months), frozenset(weekdays), either
    )
    if not either and not any(_fits(day, month) for day in days for month in months):
        raise ValueError(f"not a cron text: {text[:80]!r} is never due")
    return cron


def _field(text: str, low: int, high: int, names: dict[str, int] | None = None) -> set[int]:
    found: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(f"{item!r} is no value, range or step")
        span, step_text = match.groups()
        step = int(step_text) if step_text is not None else 1
        if step == 0:
            raise ValueError(f"the step of {item!r} is 0")
        if span == "*":
            first, last = low, high
        else:
            ends = [_value(end, low, high, names or {}) for end in span.split("-")]
            first, last = ends[0], ends[-1] if len(ends) == 2 or step_text is None else high
        if first > last:
            raise ValueError(f"{item!r} runs backwards")
        found.update(range(first, last + 1, step))
    return found


def _value(text: str, low: int, high: int, names: dict[str, int]) -> int:
    value = names.get(text)
    if value is None:
        if not text.isdigit():
            raise ValueError(f"{text!r} is no number")
        value = int(text)
    if not low <= value <= high:
        raise ValueError(f"{text} is not within {low} and {high}")
    return value


def _fits(day: int, month: int) -> bool:
    return day <= (29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31)
