"""The fleet index over a test's records."""

from __future__ import annotations

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.storage.work import SqlWork
from tests.support.fleet_room import FleetRoom


@pytest.fixture
def room(work: SqlWork, clock: SettableClock, ids: SeededIds, place: Place) -> FleetRoom:
    return FleetRoom(work, clock, ids, place)
