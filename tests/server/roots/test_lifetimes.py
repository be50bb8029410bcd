"""Countdowns: when somebody is told that a document ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from overair.basics.clock import Instant
from overair.server.keyring.endings import ALARM_DAYS, DAY_MS
from overair.server.roots.lifetimes import HOUR_MS, LIFETIMES, alarm_days

NOW = Instant(1_767_225_600_000)


@pytest.mark.parametrize(
    ("days", "alarm"),
    [(60, None), (30.5, None), (30, 30), (14.1, 30), (14, 14), (7, 7), (3, 3), (1, 1), (0.1, 1), (0, 0), (-9, 0)],
)
def test_what_people_sign_is_counted_down(days: float, alarm: int | None) -> None:
    assert alarm_days(Instant(NOW + int(days * DAY_MS)), NOW, lifetime=None) == alarm


def test_what_the_server_signs_alarms_only_when_its_renewal_is_overdue() -> None:
    for lifetime in LIFETIMES.values():
        assert alarm_days(Instant(NOW + lifetime.renewed_before_ms - HOUR_MS), NOW, lifetime=lifetime) is None
        overdue = Instant(NOW + lifetime.renewed_before_ms // 2 - 1)
        assert alarm_days(overdue, NOW, lifetime=lifetime) is not None


def test_every_document_is_renewed_well_before_it_ends() -> None:
    assert all(0 < lifetime.renewed_before_ms <= lifetime.lasts_ms // 2 for lifetime in LIFETIMES.values())


@given(integers(-400, 400), integers(0, 400))
def test_a_countdown_never_goes_back(days: int, sooner: int) -> None:
    order = (None, *ALARM_DAYS, 0)
    later = alarm_days(Instant(NOW + days * DAY_MS), NOW, lifetime=None)
    earlier = alarm_days(Instant(NOW + (days - sooner) * DAY_MS), NOW, lifetime=None)
    assert order.index(later) <= order.index(earlier)
