from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.storage.work import SqlWork
from tests.support.updates_road import UpdatesRoad


@pytest.fixture
def road(work: SqlWork, clock: SettableClock, ids: SeededIds, place: Place, tmp_path: Path) -> Iterator[UpdatesRoad]:
    road = UpdatesRoad(work, clock, ids, place, tmp_path)
    road.settle()
    yield road
    road.contents.close()
