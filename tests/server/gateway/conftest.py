"""The gateway on SQLite: what differs between databases is tested with the broker."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.storage.work import SqlWork, open_sqlite
from tests.support.gateway_world import World


@pytest.fixture
def work(clock: SettableClock, tmp_path: Path, sqlite_template: Callable[[], Path]) -> Iterator[SqlWork]:
    path = tmp_path / "records.sqlite3"
    shutil.copyfile(sqlite_template(), path)
    work = open_sqlite(path, clock=clock)
    yield work
    work.close()


@pytest.fixture
async def world(work: SqlWork, clock: SettableClock, ids: SeededIds) -> AsyncIterator[World]:
    world = World(work, clock, ids)
    await world.start()
    yield world
    await world.stop()
