"""The Director's room over real records."""

from __future__ import annotations

from pathlib import Path

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.server.storage.work import SqlWork
from tests.support.director_room import DirectorRoom


@pytest.fixture
def room(work: SqlWork, place: Place, clock: SettableClock, tmp_path: Path) -> DirectorRoom:
    return DirectorRoom(work, place, clock, tmp_path)
