"""docs/checklist.md has each of the 63 points, with a place that is there and tests that show it."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
POINTS = 63


def test_no_point_is_missing_and_each_is_done_somewhere_and_shown_by_a_test() -> None:
    rows = re.findall(
        r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", (REPOSITORY / "docs" / "checklist.md").read_text(), re.MULTILINE
    )
    assert [int(number) for number, *_ in rows] == list(range(1, POINTS + 1))
    for number, what, place, shown in rows:
        assert what, number
        [file] = re.findall(r"`([\w/.]+)`", place)
        assert (REPOSITORY / "src" / "overair" / file).exists(), f"{number}: {file}"
        assert re.findall(r"`tests/[\w/.]+\.py::test_\w+`", shown), number
