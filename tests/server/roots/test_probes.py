"""Which root each thing has is told by what it asks for."""

from __future__ import annotations

from overair.basics.ids import ThingName
from overair.server.roots.probes import RootProbes
from overair.server.roots.store import SqlRootStore
from overair.wire.uptane.metadata import Repository
from tests.server.roots.conftest import RootRoom


async def test_a_thing_that_asks_for_the_next_root_has_the_one_before(room: RootRoom) -> None:
    probes = RootProbes(work=room.work, store=SqlRootStore(), clock=room.clock)
    account = room.place.account
    for version in (1, 2, 3):
        await probes.note(account, Repository.IMAGE, ThingName("car-1"), version, newest_version=2)
    await probes.note(account, Repository.IMAGE, ThingName("car-2"), 2, newest_version=2)
    await probes.note(account, Repository.DIRECTOR, ThingName("car-2"), 1, newest_version=2)
    found = {probe.thing: probe.client_version for probe in room.read(lambda tx: probes.all(tx, account, Repository.IMAGE))}
    assert found == {"car-1": 2, "car-2": 1}
    behind = room.read(lambda tx: probes.behind(tx, account, Repository.IMAGE, 2))
    assert [probe.thing for probe in behind] == ["car-2"]


async def test_a_version_that_lies_far_ahead_says_nothing_of_what_a_thing_has(room: RootRoom) -> None:
    probes = RootProbes(work=room.work, store=SqlRootStore(), clock=room.clock)
    account = room.place.account
    await probes.note(account, Repository.IMAGE, ThingName("car-1"), 900, newest_version=2)
    assert room.read(lambda tx: probes.all(tx, account, Repository.IMAGE)) == []


async def test_the_highest_counts_across_restarts(room: RootRoom) -> None:
    account, thing = room.place.account, ThingName("car-1")
    for version in (3, 2):
        probes = RootProbes(work=room.work, store=SqlRootStore(), clock=room.clock)
        await probes.note(account, Repository.IMAGE, thing, version, newest_version=5)
    assert [probe.version for probe in room.read(lambda tx: probes.all(tx, account, Repository.IMAGE))] == [3]
