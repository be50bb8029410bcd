"""Roots in memory: records are asked once for each change, and nothing old outlives one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

from overair.basics.errors import NotFound
from overair.basics.work import Tx
from overair.server.director.served_roots import ServedRoots
from overair.server.storage.work import SqlWork
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository
from tests.support.director_room import DirectorRoom

T = TypeVar("T")


class CountedWork:
    """Reads, counted; ``meanwhile`` happens while one of them is under way."""

    def __init__(self, work: SqlWork) -> None:
        self._work = work
        self.reads = 0
        self.meanwhile: Callable[[], object] = lambda: None

    async def run(self, unit: Callable[[Tx], T]) -> T:
        return await self._work.run(unit)

    async def read(self, query: Callable[[Tx], T]) -> T:
        self.reads += 1
        result = await self._work.read(query)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return result


@pytest.fixture
def counted(room: DirectorRoom) -> CountedWork:
    return CountedWork(room.work)


@pytest.fixture
def served(room: DirectorRoom, counted: CountedWork) -> ServedRoots:
    served = ServedRoots(work=counted, roots=room.roots)
    room.roots_changed = served.evict
    return served


async def rotate(room: DirectorRoom) -> None:
    await room.work.run(lambda tx: room.roots.renew(tx, room.place, Repository.DIRECTOR))


async def test_a_round_asks_no_records_until_there_is_a_new_root(
    room: DirectorRoom, served: ServedRoots, counted: CountedWork
) -> None:
    first = await served.document(room.account, 1)
    assert first == await served.document(room.account, None)
    asked = counted.reads
    for _ in range(3):
        assert await served.document(room.account, 1) == first
        with pytest.raises(NotFound):
            await served.document(room.account, 2)
    assert counted.reads == asked

    await rotate(room)
    assert await served.newest(room.account) == 2
    second = await served.document(room.account, 2)
    assert second == await room.work.read(
        lambda tx: room.roots.document(tx, room.account, Repository.DIRECTOR, 2, Flavour.UPTANE)
    )
    assert second == await served.document(room.account, None) != first


async def test_a_root_that_comes_while_the_records_are_read_is_seen_at_the_next_look(
    room: DirectorRoom, served: ServedRoots, counted: CountedWork
) -> None:
    counted.meanwhile = lambda: served.evict(room.account)
    assert await served.newest(room.account) == 1
    asked = counted.reads
    assert await served.newest(room.account) == 1
    assert counted.reads == asked + 1


async def test_there_is_no_root_nought_and_none_beyond(room: DirectorRoom, served: ServedRoots) -> None:
    for version in (0, 2, 10**9):
        with pytest.raises(NotFound) as refused:
            await served.document(room.account, version)
        assert refused.value.subject == "root-role"
