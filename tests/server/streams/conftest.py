from __future__ import annotations

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.server.storage.work import SqlWork
from tests.support.streams_room import StreamsRoom


@pytest.fixture
def room(work: SqlWork, place: Place, clock: SettableClock) -> StreamsRoom:
    return StreamsRoom(work, place, clock)
