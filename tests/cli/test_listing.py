"""Rows for people."""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from overair.cli.listing import for_people, moment, print_rows


def printed(rows: list[list[str]], *, width: int = 80) -> list[str]:
    out = io.StringIO()
    print_rows(["job", "status", "in its own words"], rows, on=Console(file=out, width=width, highlight=False))
    return out.getvalue().splitlines()


def test_a_name_is_never_cut_and_the_last_column_is_wrapped_below_itself() -> None:
    head, first, second, third = printed([["j" * 64, "FAILED", "one two three four five six seven"], ["k", "QUEUED", ""]])
    assert head == f"job{' ' * 63}status  in its own words"
    assert first == f"{'j' * 64}  FAILED  one two three four five"
    assert second == f"{' ' * 74}six seven"
    assert third == f"k{' ' * 65}QUEUED"


@given(st.lists(st.tuples(st.from_regex(r"[a-z0-9-]{1,128}", fullmatch=True), st.text("ab [c]/", max_size=300)), max_size=5))
def test_whatever_is_said_each_name_is_whole_and_words_are_no_markup(rows: list[tuple[str, str]]) -> None:
    lines = printed([[name, "S", words] for name, words in rows])
    for name, words in rows:
        assert any(line == name or line.startswith(f"{name} ") for line in lines)
        assert all(any(word in line for line in lines) for word in words.split() if len(word) <= 24)


def test_times_are_told_in_one_zone_wherever_the_machine_stands() -> None:
    there = datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert moment(there) == "2025-12-31T23:30:00+00:00"
    assert for_people(moment(there)) == "2025-12-31 23:30:00"
    assert (moment(None), for_people(None)) == (None, "")
