"""Provisioning over a test's records."""

from __future__ import annotations

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.storage.work import SqlWork
from tests.support.provisioning_room import ProvisioningRoom
from tests.support.registry import Registry


@pytest.fixture
def room(work: SqlWork, clock: SettableClock, ids: SeededIds, place: Place) -> ProvisioningRoom:
    return ProvisioningRoom(Registry(work, clock, ids), clock, place)
