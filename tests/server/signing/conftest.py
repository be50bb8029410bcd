from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.storage.work import SqlWork
from tests.support.signing_road import SigningRoad


@pytest.fixture
def road(work: SqlWork, clock: SettableClock, ids: SeededIds, place: Place, tmp_path: Path) -> Iterator[SigningRoad]:
    road = SigningRoad(work, clock, ids, place, tmp_path)
    road.make_bucket()
    yield road
    road.contents.close()
