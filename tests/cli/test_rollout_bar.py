"""What ``overair watch`` draws: one bar over the fleet, legible in 80 columns with and without colours."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from overair.cli.rollout_bar import STAGES, WIDTH, Rollout, cells, lines
from overair.cli.watch import Follow, device_line

IN_THE_MIDDLE: dict[str, Any] = {
    "status": "IN_PROGRESS",
    "targetSelection": "SNAPSHOT",
    "ratePerMinute": 1000,
    "waiting": 300,
    "queued": 12,
    "notified": 40,
    "begun": 5,
    "downloading": 205,
    "selfTest": 15,
    "succeeded": 410,
    "failed": 10,
    "timedOut": 3,
    "blocksReceived": 8266,
    "blocksTotal": 13120,
    "causes": [
        {"status": "FAILED", "reason": "the job document could not be used: a field is missing [0x24000000: 5]", "count": 10},
        {"status": "TIMED_OUT", "reason": "it ran out of time", "count": 3},
    ],
}


def drawn(answer: dict[str, Any], *, elapsed_s: float | None = 83.0, job: str = "ship-2_0_0-ab12cd34") -> list[str]:
    return [line.plain for line in lines(job, Rollout(answer), elapsed_s=elapsed_s)]


def test_a_rollout_in_the_middle_is_drawn_whole() -> None:
    head, bar, *rest = drawn(IN_THE_MIDDLE)
    assert head == "ship-2_0_0-ab12cd34  in progress, 1,000 a minute"
    assert bar.endswith("▏  42 %  0:01:23")
    for stage in STAGES:
        assert (stage.glyph in bar) == bool(IN_THE_MIDDLE.get(stage.member)) or stage.glyph in " x✗", stage.member
    assert "▒ downloading 205 (63 %)" in " ".join(rest)
    assert "○ waiting 300" in " ".join(rest)
    assert rest[-2:] == [
        "     10 ✗ the job document could not be used: a field is missing [0x24000000: 5]",
        "      3 ✗ it ran out of time",
    ]


def test_a_long_reason_keeps_its_end_which_tells_one_code_from_another() -> None:
    reason = "the job document could not be used: it is no OTA document, or a field is missing or malformed [0x24000000: 5]"
    lasts = drawn({"status": "IN_PROGRESS", "failed": 1, "causes": [{"status": "FAILED", "reason": reason, "count": 1}]})[-2:]
    assert " ".join(line.strip() for line in lasts) == f"1 ✗ {reason}"


def test_a_job_that_nobody_has_yet_says_so() -> None:
    assert drawn({"status": "SCHEDULED"}, elapsed_s=None)[1:] == ["▕" + " " * (WIDTH - 8) + "▏   0 %", " nobody has it yet"]


@given(
    counts=st.lists(st.integers(0, 2_000_000), min_size=len(STAGES), max_size=len(STAGES)),
    causes=st.lists(st.tuples(st.text(max_size=200), st.integers(1, 10**6)), max_size=8),
    job=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
)
def test_no_line_is_longer_than_80_columns_and_every_stage_with_anybody_in_it_is_seen(
    counts: list[int], causes: list[tuple[str, int]], job: str
) -> None:
    answer: dict[str, Any] = {stage.member: count for stage, count in zip(STAGES, counts, strict=True)}
    answer |= {
        "status": "IN_PROGRESS",
        "causes": [{"status": "FAILED", "reason": text, "count": many} for text, many in causes],
    }
    picture = lines(job, Rollout(answer), elapsed_s=359_999)
    assert max(line.cell_len for line in picture) <= WIDTH
    assert picture[1].cell_len == WIDTH
    told = " ".join(line.plain for line in picture[2:])
    for stage, count in zip(STAGES, counts, strict=True):
        assert not count or f"{stage.word} {count:,}" in told


@given(counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=12), width=st.integers(12, 200))
def test_cells_fill_the_width_and_the_smallest_count_has_one(counts: list[int], width: int) -> None:
    given_cells = cells(counts, width)
    assert sum(given_cells) == (width if sum(counts) else 0)
    assert all((many > 0) == (count > 0) for many, count in zip(given_cells, counts, strict=True))


def test_a_device_of_a_small_fleet_has_a_line_of_its_own_with_its_words_decoded() -> None:
    receiving = Follow(thing="dev-1", status="IN_PROGRESS", details={"receive": "64/128"})
    assert device_line(receiving).plain == "  dev-1                ██████████░░░░░░░░░░ 64/128 blocks"
    testing = Follow(thing="dev-1", status="IN_PROGRESS", details={"receive": "1/1", "self_test": "active"})
    assert device_line(testing).plain == "  dev-1                IN_PROGRESS  self-test active"
    failed = Follow(thing="d" * 128, status="FAILED", details={"reason": "0x24000000: 5"})
    line = device_line(failed)
    assert line.cell_len <= WIDTH
    assert "the job document could not be used" in line.plain
