"""AWS's cron expressions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant, as_datetime, from_datetime
from overair.basics.errors import InvalidRequest
from overair.server.jobs.cron import parse_cron


def starts(expression: str, after: str, count: int) -> list[str]:
    at = from_datetime(datetime.fromisoformat(after).replace(tzinfo=UTC))
    found = []
    for _ in range(count):
        start = parse_cron(expression).next_at(at)
        assert start is not None
        found.append(as_datetime(start).strftime("%Y-%m-%d %H:%M"))
        at = Instant(start + 1)
    return found


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("cron(0 18 ? * MON *)", ["2026-01-05 18:00", "2026-01-12 18:00"]),
        ("cron(0/15 8-9 * * ? *)", ["2026-01-01 08:00", "2026-01-01 08:15", "2026-01-01 08:30", "2026-01-01 08:45"]),
        ("cron(0 10 * * ? *)", ["2026-01-01 10:00", "2026-01-02 10:00"]),
        ("cron(15 12 L * ? *)", ["2026-01-31 12:15", "2026-02-28 12:15", "2026-03-31 12:15"]),
        ("cron(0 8 1 * ? *)", ["2026-01-01 08:00", "2026-02-01 08:00"]),
        ("cron(0 9 ? * 2#1 *)", ["2026-01-05 09:00", "2026-02-02 09:00", "2026-03-02 09:00"]),
        ("cron(0 9 ? * 6L *)", ["2026-01-30 09:00", "2026-02-27 09:00"]),
        ("cron(0 9 15W * ? *)", ["2026-01-15 09:00", "2026-02-16 09:00", "2026-03-16 09:00", "2026-04-15 09:00"]),
        ("cron(0 9 31W 1,2,5 ? *)", ["2026-01-30 09:00", "2026-05-29 09:00"]),
        ("cron(0 9 1W 2,8 ? *)", ["2026-02-02 09:00", "2026-08-03 09:00"]),
        ("cron(0 0 29 2 ? *)", ["2028-02-29 00:00", "2032-02-29 00:00"]),
        ("cron(30 6 ? JUN,DEC SUN-TUE 2026-2027)", ["2026-06-01 06:30", "2026-06-02 06:30", "2026-06-07 06:30"]),
        ("cron(0 0 ? * FRI-SUN *)", ["2026-01-02 00:00", "2026-01-03 00:00", "2026-01-04 00:00", "2026-01-09 00:00"]),
        ("cron(0 0 ? * L *)", ["2026-01-03 00:00", "2026-01-10 00:00"]),
        ("cron(0 0 1 1/3 ? *)", ["2026-01-01 00:00", "2026-04-01 00:00", "2026-07-01 00:00"]),
    ],
)
def test_the_next_starts(expression: str, found: list[str]) -> None:
    assert starts(expression, "2026-01-01 00:00", len(found)) == found


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "0 18 ? * MON *",
        "rate(1 day)",
        "cron()",
        "cron(0 18 ? * MON)",
        "cron(0 18 * * * *)",
        "cron(0 18 ? * ? *)",
        "cron(60 18 ? * MON *)",
        "cron(0 24 ? * MON *)",
        "cron(0 0 0 * ? *)",
        "cron(0 0 32 * ? *)",
        "cron(0 0 1 13 ? *)",
        "cron(0 0 ? * 8 *)",
        "cron(0 0 ? * MON#6 *)",
        "cron(0 0 ? * MON *) ; drop",
        "cron(0/0 0 ? * MON *)",
        "cron(5-1 0 ? * MON *)",
        "cron(0 0 1 1 ? 1969)",
        "cron(0 0 1 1 ? 2200)",
        "cron(0 0 W * ? *)",
        "cron(1,,2 0 ? * MON *)",
        "cron(٣ 0 ? * MON *)",
        "cron(" + "1," * 200 + "1 0 ? * MON *)",
    ],
)
def test_what_is_no_expression_is_refused_with_the_rule(expression: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_cron(expression)
    assert caught.value.subject == "schedule"


@pytest.mark.parametrize("expression", ["cron(0 0 30 2 ? *)", "cron(0 0 1 1 ? 2020)"])
def test_what_never_comes_has_no_next_start(expression: str) -> None:
    assert parse_cron(expression).next_at(from_datetime(datetime(2026, 1, 1, tzinfo=UTC))) is None


_field = {
    "minutes": st.one_of(st.just("*"), st.integers(0, 59).map(str), st.integers(1, 30).map(lambda step: f"*/{step}")),
    "hours": st.one_of(st.just("*"), st.integers(0, 23).map(str), st.just("9-17")),
    "month": st.one_of(st.just("*"), st.sampled_from(["JAN", "2", "6-8", "12"])),
}


@given(
    minutes=_field["minutes"],
    hours=_field["hours"],
    month=_field["month"],
    days=st.one_of(
        st.tuples(st.one_of(st.just("*"), st.integers(1, 31).map(str), st.just("L")), st.just("?")),
        st.tuples(st.just("?"), st.sampled_from(["MON", "2-6", "SAT,SUN", "5L", "3#2"])),
    ),
    offset_minutes=st.integers(0, 525_600),
)
def test_the_next_start_is_the_first_minute_that_fits(
    minutes: str, hours: str, month: str, days: tuple[str, str], offset_minutes: int
) -> None:
    cron = parse_cron(f"cron({minutes} {hours} {days[0]} {month} {days[1]} *)")
    begin = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=offset_minutes)
    found = cron.next_at(from_datetime(begin))
    if found is None:
        return
    moment = as_datetime(found)
    assert moment >= begin
    assert moment.minute in cron.minutes
    assert moment.hour in cron.hours
    assert cron.on(moment.date())
    # No earlier minute of the days before it fits, nor of the day itself.
    for day in range((moment.date() - begin.date()).days):
        earlier = begin.date() + timedelta(days=day)
        if day > 0:
            assert not cron.on(earlier)
    same_day = [minute for minute in range(moment.hour * 60 + moment.minute) if moment.date() != begin.date()]
    assert not any(minute // 60 in cron.hours and minute % 60 in cron.minutes for minute in same_day)


@given(st.text(max_size=60))
def test_arbitrary_text_raises_nothing_else(text: str) -> None:
    for candidate in (text, f"cron({text})"):
        try:
            parse_cron(candidate)
        except InvalidRequest:
            continue
