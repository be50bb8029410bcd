"""AWS's cron expressions, in UTC: ``cron(minutes hours day-of-month month day-of-week year)``. Pure.

Each field takes ``*``, numbers, ``a-b``, lists by commas and steps by ``/``; months and days of the week have names too, and
the week begins with SUN as 1. Of the two fields for days one is ``?``. Days of the month know ``L`` (the last) and ``nW`` (the
weekday nearest to n); days of the week know ``nL`` (the last of the month) and ``n#m`` (the m-th of the month).
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final

from overair.basics.clock import Instant, as_datetime, from_datetime
from overair.basics.errors import InvalidRequest

EXPRESSION_LENGTH_MAX: Final = 256
YEAR_MIN: Final = 1970
YEAR_MAX: Final = 2199
SEARCH_DAYS_MAX: Final = 366 * 9
"""How far ahead the next start is looked for: two leap years are never further apart before 2100."""
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELDS: Final = ("minutes", "hours", "day-of-month", "month", "day-of-week", "year")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """One field's range, and what its values may be called."""

    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()


_MINUTES: Final = _Field(name="minutes", first=0, last=59)
_HOURS: Final = _Field(name="hours", first=0, last=23)
_DAYS: Final = _Field(name="day-of-month", first=1, last=31)
_MONTH: Final = _Field(name="month", first=1, last=12, names=_MONTHS)
_WEEKDAY: Final = _Field(name="day-of-week", first=1, last=7, names=_WEEKDAYS)
_YEAR: Final = _Field(name="year", first=YEAR_MIN, last=YEAR_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A parsed expression. Exactly one of the two kinds of days is asked for."""

    minutes: frozenset[int]
    hours: frozenset[int]
    months: frozenset[int]
    years: frozenset[int]
    days: frozenset[int] | None
    last_day: bool = False
    nearest_weekdays: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    last_weekdays: frozenset[int] = frozenset()
    numbered_weekdays: frozenset[tuple[int, int]] = frozenset()

    def on(self, day: date) -> bool:
        """Whether it starts at some time of this day."""
        if day.year not in self.years or day.month not in self.months:
            return False
        length = monthrange(day.year, day.month)[1]
        if self.days is not None:
            near = any(day == _nearest_weekday(day.year, day.month, wanted) for wanted in self.nearest_weekdays)
            return near or day.day in self.days or (self.last_day and day.day == length)
        weekday = day.isoweekday() % 7 + 1
        return (
            weekday in self.weekdays
            or (weekday in self.last_weekdays and day.day + 7 > length)
            or (weekday, (day.day + 6) // 7) in self.numbered_weekdays
        )

    def next_at(self, at: Instant) -> Instant | None:
        """The first start at or after ``at``; None where there is none in the next nine years."""
        earliest = as_datetime(Instant(at + (-at) % 60_000))
        times = sorted((hour, minute) for hour in self.hours for minute in self.minutes)
        for offset in range(SEARCH_DAYS_MAX):
            day = earliest.date() + timedelta(days=offset)
            if day.year > YEAR_MAX:
                return None
            if not self.on(day):
                continue
            for hour, minute in times:
                start = datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)
                if start >= earliest:
                    return from_datetime(start)
        return None


@lru_cache(maxsize=256)
def parse_cron(expression: str) -> Cron:
    """Read ``cron(…)``.

    Raises:
        InvalidRequest: it isn't one. Subject ``schedule``.
    """
    text = expression.strip()
    if len(text) > EXPRESSION_LENGTH_MAX or not (text.startswith("cron(") and text.endswith(")")):
        raise _refused(expression, "it is written cron(minutes hours day-of-month month day-of-week year)")
    fields = text[len("cron(") : -1].upper().split()
    if len(fields) != len(_FIELDS):
        raise _refused(expression, f"it has {len(fields)} fields, not six: {', '.join(_FIELDS)}")
    minutes, hours, days, months, weekdays, years = fields
    if (days == "?") == (weekdays == "?"):
        raise _refused(expression, "exactly one of day-of-month and day-of-week is '?'")
    common = Cron(
        minutes=_values(expression, _MINUTES, minutes),
        hours=_values(expression, _HOURS, hours),
        months=_values(expression, _MONTH, months),
        years=_values(expression, _YEAR, years),
        days=None,
    )
    if weekdays == "?":
        return _with_days(expression, days, common)
    return _with_weekdays(expression, weekdays, common)


def _with_days(expression: str, text: str, common: Cron) -> Cron:
    plain: set[int] = set()
    nearest: set[int] = set()
    last = False
    for part in text.split(","):
        if part == "L":
            last = True
        elif part.endswith("W") and part != "W":
            nearest.add(_number(expression, _DAYS, part[:-1]))
        else:
            plain |= _part(expression, _DAYS, part)
    return replace(common, days=frozenset(plain), last_day=last, nearest_weekdays=frozenset(nearest))


def _with_weekdays(expression: str, text: str, common: Cron) -> Cron:
    plain: set[int] = set()
    last: set[int] = set()
    numbered: set[tuple[int, int]] = set()
    for part in text.split(","):
        day, mark, number = part.partition("#")
        if mark:
            if number not in ("1", "2", "3", "4", "5"):
                raise _refused(expression, f"day-of-week {part!r}: after '#' stands 1 to 5")
            numbered.add((_number(expression, _WEEKDAY, day), int(number)))
        elif part == "L":
            plain.add(_WEEKDAY.last)
        elif part.endswith("L"):
            last.add(_number(expression, _WEEKDAY, part[:-1]))
        else:
            plain |= _part(expression, _WEEKDAY, part)
    return replace(common, weekdays=frozenset(plain), last_weekdays=frozenset(last), numbered_weekdays=frozenset(numbered))


def _values(expression: str, field: _Field, text: str) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        values |= _part(expression, field, part)
    return frozenset(values)


def _part(expression: str, field: _Field, text: str) -> frozenset[int]:
    spread, slash, step_text = text.partition("/")
    step = 1
    if slash:
        if not (step_text.isascii() and step_text.isdigit()) or not 1 <= int(step_text[:6]) <= field.last:
            raise _refused(expression, f"{field.name} {text!r}: after '/' stands 1 to {field.last}")
        step = int(step_text)
    first, dash, last = spread.partition("-")
    if spread == "*":
        return frozenset(range(field.first, field.last + 1, step))
    begin = _number(expression, field, first)
    if dash:
        end = _number(expression, field, last)
        if end >= begin:
            return frozenset(range(begin, end + 1, step))
        if field.names:
            # FRI-MON goes over the end of the week, NOV-FEB over the end of the year.
            size = field.last - field.first + 1
            return frozenset(
                (begin - field.first + offset) % size + field.first for offset in range(0, end + size - begin + 1, step)
            )
        raise _refused(expression, f"{field.name} {text!r} runs backwards")
    return frozenset(range(begin, field.last + 1, step)) if slash else frozenset({begin})


def _number(expression: str, field: _Field, text: str) -> int:
    if text in field.names:
        return field.names.index(text) + field.first
    if text.isascii() and text.isdigit() and len(text) <= 4 and field.first <= int(text) <= field.last:
        return int(text)
    raise _refused(expression, f"{field.name} {text[:32]!r} is not between {field.first} and {field.last}")


def _nearest_weekday(year: int, month: int, wanted: int) -> date | None:
    length = monthrange(year, month)[1]
    if wanted > length:
        return None
    day = date(year, month, wanted)
    # Never over the month's edge.
    if day.isoweekday() == 6:
        return day - timedelta(days=1) if wanted > 1 else day + timedelta(days=2)
    if day.isoweekday() == 7:
        return day + timedelta(days=1) if wanted < length else day - timedelta(days=2)
    return day


def _refused(expression: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{expression[:80]!r} is no cron expression: {why}.", subject="schedule")
