from __future__ import annotations

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.server.storage.work import SqlWork
from tests.support.jobs_room import JobsRoom


@pytest.fixture
def room(work: SqlWork, place: Place, clock: SettableClock) -> JobsRoom:
    return JobsRoom(work, place, clock)
