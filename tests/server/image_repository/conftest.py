"""An account with an Image repository, at the default level."""

from __future__ import annotations

from pathlib import Path

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.storage.work import SqlWork
from tests.support.image_room import ImageRoom


@pytest.fixture
def room(work: SqlWork, clock: SettableClock, ids: SeededIds, place: Place, tmp_path: Path) -> ImageRoom:
    return ImageRoom.open(work, clock, ids, place, tmp_path).create()
