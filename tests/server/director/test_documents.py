"""Versions of what a vehicle is told (design: they rise after a restore too)."""

from __future__ import annotations

import pytest

from overair.basics.clock import Instant
from overair.server.director.documents import VERSIONS_BEGIN, next_version


@pytest.mark.parametrize(
    ("last", "now", "expected"),
    [
        (0, VERSIONS_BEGIN + 5_999, 5),
        (5, VERSIONS_BEGIN + 5_999, 6),
        (100, VERSIONS_BEGIN + 5_000, 101),
        (0, VERSIONS_BEGIN - 1_000, 1),
    ],
)
def test_the_next_version_is_one_higher_or_the_second(last: int, now: int, expected: int) -> None:
    assert next_version(last, Instant(now)) == expected
