"""What gateways and jobs tell the index: connections in batches, statuses one by one."""

from __future__ import annotations

import asyncio
import json

import pytest

from overair.basics.clock import Instant
from overair.basics.ids import ClientId, JobId, ThingName
from overair.basics.work import Tx
from overair.server.fleet_index import connectivity as connectivity_module
from overair.server.fleet_index.connectivity import Connectivity
from overair.server.fleet_index.operator_api import FleetIndexOperatorApi
from overair.server.packages.installed import InstalledPackages
from overair.server.packages.model import Configuration
from overair.server.packages.service import PackagesService, VersionContent
from overair.server.packages.store import SqlPackageStore
from tests.support.engine_door import CALLER
from tests.support.fleet_room import FleetRoom
from tests.support.jobs_room import Roles, Tags
from tests.support.streams_room import Buckets

ONLINE = "connectivity.connected:true"


def flush(connectivity: Connectivity) -> None:
    async def all_of_it() -> None:
        while await connectivity.run_once():
            pass

    asyncio.run(all_of_it())


def connect(room: FleetRoom, connectivity: Connectivity, *names: str) -> None:
    for name in names:
        room.connected.clients.append(ClientId(name))
        connectivity.connected(room.account, ClientId(name))


def disconnect(room: FleetRoom, connectivity: Connectivity, name: str, reason: str = "CONNECTION_LOST") -> None:
    room.connected.clients.remove(ClientId(name))
    connectivity.disconnected(room.account, ClientId(name), reason)


def test_who_comes_and_goes_is_found_and_joins_and_leaves_groups(room: FleetRoom) -> None:
    for name in ("one", "two"):
        room.thing(name)
    room.configure(thingConnectivityIndexingMode="STATUS")
    room.dynamic("online", ONLINE)
    connectivity = room.connectivity()
    flush(connectivity)
    connect(room, connectivity, "one", "no-thing")
    assert room.search(ONLINE) == [], "nothing is written where devices wait"
    flush(connectivity)
    assert (room.search(ONLINE), room.members("online")) == (["one"], ["one"])
    assert room.search(f"connectivity.timestamp:{room.clock.now()}") == ["one"]
    assert room.search("connectivity.connected:false AND NOT connectivity.timestamp:*") == ["two"]
    room.clock.set(Instant(room.clock.now() + 5_000))
    disconnect(room, connectivity, "one", "MQTT_KEEP_ALIVE_TIMEOUT")
    flush(connectivity)
    assert room.search("connectivity.disconnectReason:MQTT_KEEP_ALIVE_TIMEOUT") == ["one"]
    assert (room.search(ONLINE), room.members("online")) == ([], [])


def test_a_flapping_client_is_written_once_as_it_is_in_the_end(room: FleetRoom) -> None:
    room.thing("one")
    room.configure(thingConnectivityIndexingMode="STATUS")
    room.dynamic("online", ONLINE)
    connectivity = room.connectivity()
    flush(connectivity)
    for _ in range(5):
        connect(room, connectivity, "one")
        disconnect(room, connectivity, "one")
    flush(connectivity)
    assert room.registry.membership.heard == []
    connect(room, connectivity, "one")
    flush(connectivity)
    assert room.registry.membership.heard == [("joined", "one", "online")]


def test_after_a_restart_nobody_is_connected_but_who_has_come_back(room: FleetRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connectivity_module, "NOTES_AT_ONCE_MAX", 2)
    names = [f"t-{number}" for number in range(5)]
    for name in names:
        room.thing(name)
    room.configure(thingConnectivityIndexingMode="STATUS")
    room.dynamic("online", ONLINE)
    before = room.connectivity("before")
    flush(before)
    connect(room, before, *names)
    flush(before)
    assert room.members("online") == names
    room.clock.set(Instant(room.clock.now() + 60_000))
    room.connected.clients = [ClientId("t-3")]
    flush(room.connectivity("after"))
    assert (room.search(ONLINE), room.members("online")) == (["t-3"], ["t-3"])
    assert room.search(f"connectivity.timestamp>={room.clock.now()} AND connectivity.disconnectReason:SERVER*") == [
        "t-0",
        "t-1",
        "t-2",
        "t-4",
    ]


def test_a_device_that_has_gone_to_another_gateway_is_not_disconnected_by_the_first(room: FleetRoom) -> None:
    room.thing("one")
    room.configure(thingConnectivityIndexingMode="STATUS")
    living = ["a", "b"]

    def alive(_: Tx) -> list[str]:
        return living

    first, second = room.connectivity("a", alive), room.connectivity("b", alive)
    flush(first), flush(second)
    connect(room, first, "one")
    flush(first)
    second.connected(room.account, ClientId("one"))
    flush(second)
    disconnect(room, first, "one", "DUPLICATE_CLIENTID")
    flush(first)
    assert room.search(ONLINE) == ["one"]
    living.remove("b")
    flush(first)
    assert room.search(ONLINE) == [], "the gateway that held it is gone"


def test_turning_connectivity_on_finds_who_is_connected_already(room: FleetRoom) -> None:
    room.thing("one"), room.thing("two")
    room.configure()
    connectivity = room.connectivity()
    connect(room, connectivity, "one")
    flush(connectivity)
    room.configure(thingConnectivityIndexingMode="STATUS")
    flush(connectivity)
    assert room.search(ONLINE) == ["one"]
    room.configure()
    flush(connectivity)
    room.clock.set(Instant(room.clock.now() + 1_000))
    room.configure(thingConnectivityIndexingMode="STATUS")
    assert room.search(ONLINE) == []
    flush(connectivity)
    assert room.search(ONLINE) == ["one"]


def test_a_thing_made_while_its_device_is_connected_is_connected(room: FleetRoom) -> None:
    room.configure(thingConnectivityIndexingMode="STATUS")
    connectivity = room.connectivity()
    flush(connectivity)
    connect(room, connectivity, "one")
    flush(connectivity)
    room.thing("one")
    flush(connectivity)
    assert room.search(ONLINE) == ["one"]


def test_a_batch_that_fails_is_written_with_the_next(room: FleetRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    room.thing("one")
    room.configure(thingConnectivityIndexingMode="STATUS")
    connectivity = room.connectivity()
    flush(connectivity)
    connect(room, connectivity, "one")
    with monkeypatch.context() as broken:
        broken.setattr(connectivity, "_write", lambda tx, batch: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            flush(connectivity)
    flush(connectivity)
    assert room.search(ONLINE) == ["one"]


def told(room: FleetRoom, job: str, status: str | None, *things: str) -> None:
    names = [ThingName(thing) for thing in things]
    room.run(lambda tx: room.fleet.indexer.statuses_changed(tx, room.account, job, names, status))


def test_a_status_is_found_where_its_job_is_indexed(room: FleetRoom) -> None:
    room.thing("one"), room.thing("two")
    room.statuses.by_thing = {ThingName("one"): {"a": "QUEUED", "b": "QUEUED"}}
    room.configure(customFields=[{"name": "jobs.a", "type": "String"}])
    room.dynamic("failed", "jobs.a:(FAILED OR TIMED_OUT)")
    assert room.search("jobs.a:QUEUED") == ["one"]
    told(room, "a", "FAILED", "one", "two", "nobody")
    told(room, "b", "FAILED", "one")
    assert (room.search("jobs.a:FAILED"), room.members("failed")) == (["one", "two"], ["one", "two"])
    told(room, "a", None, "two")
    told(room, "a", "SUCCEEDED", "one")
    assert (room.search("jobs.a:*"), room.members("failed")) == (["one"], [])


def test_a_status_costs_no_statement_where_nobody_asked_for_it(room: FleetRoom) -> None:
    room.thing("one")
    room.configure(customFields=[{"name": "jobs.a", "type": "String"}])
    told(room, "b", "QUEUED", "one")

    class NoStatements:
        """A unit whose statements would fail."""

    room.fleet.indexer.statuses_changed(NoStatements(), room.account, "b", [ThingName("one")], "FAILED")  # type: ignore[arg-type]


def test_a_group_that_a_job_empties_again_ends(room: FleetRoom) -> None:
    """A job that goes to who doesn't have it gives it, takes it back, and gives it again: after some rounds it rests."""
    room.configure(customFields=[{"name": "jobs.*", "type": "String"}])
    rounds: list[str] = []

    class Job:
        def joined(self, tx: Tx, account: object, thing: ThingName, group: object) -> None:
            rounds.append("joined")
            room.fleet.indexer.statuses_changed(tx, room.account, "j", [thing], "QUEUED")

        def left(self, tx: Tx, account: object, thing: ThingName, group: object) -> None:
            rounds.append("left")
            room.fleet.indexer.statuses_changed(tx, room.account, "j", [thing], "REMOVED")

        def thing_deleted(self, tx: Tx, account: object, thing: ThingName) -> None:
            return None

    room.registry.groups.watched_by(Job())
    room.dynamic("without", "NOT jobs.j:QUEUED")
    room.thing("one")
    assert 2 <= len(rounds) <= 8
    room.thing("two")
    assert room.search("*") == ["one", "two"]


def test_a_job_of_one_group_leads_to_the_next_in_the_same_unit(room: FleetRoom) -> None:
    room.configure(customFields=[{"name": "jobs.*", "type": "String"}])

    class Job:
        def joined(self, tx: Tx, account: object, thing: ThingName, group: object) -> None:
            if group == "first":
                room.fleet.indexer.statuses_changed(tx, room.account, "j", [thing], "QUEUED")

        def left(self, tx: Tx, account: object, thing: ThingName, group: object) -> None:
            return None

        def thing_deleted(self, tx: Tx, account: object, thing: ThingName) -> None:
            return None

    room.registry.groups.watched_by(Job())
    room.dynamic("first", "attributes.colour:red")
    room.dynamic("second", "jobs.j:QUEUED")
    room.thing("one", colour="red")
    assert room.members("second") == ["one"]


def version_of(package: str, value: str) -> str:
    return f"shadow.name.$package.reported.{package}.version:{value}"


async def test_what_jobs_have_put_on_things_is_found_counted_and_followed_by_groups(room: FleetRoom) -> None:
    store = SqlPackageStore()
    installed = InstalledPackages(store=store, things=room.registry.devices)
    room.fleet.hears_of_packages_from(installed)
    installed.searched_by(room.fleet.indexer)
    now = room.clock.now()
    packages = PackagesService(store=store, roles=Roles(), objects=Buckets(room.place), tags=Tags(), clock=room.clock)

    def prepare(tx: Tx) -> None:
        store.save_configuration(tx, room.account, Configuration(enabled=True))
        for package, versions in (("an-app", ("1.0", "2.0")), ("other", ("7",))):
            packages.create(tx, room.place, package)
            for version in versions:
                packages.create_version(tx, room.place, package, version, VersionContent())

    def put(thing: str, *versions: tuple[str, str]) -> None:
        room.run(lambda tx: installed.succeeded(tx, room.account, ThingName(thing), JobId("J"), versions, now=now))

    room.run(prepare)

    for name in ("one", "two", "three"):
        room.thing(name)
    put("one", ("an-app", "1.0"))
    on = {"namedShadowIndexingMode": "ON", "filter": {"namedShadowNames": ["$package"]}}
    field = {"name": "shadow.name.$package.reported.an-app.version", "type": "String"}
    room.configure(**on, customFields=[field])
    assert room.search(version_of("an-app", "1.0")) == ["one"], "what was there before is indexed with the rest"
    room.dynamic("behind", f"NOT {version_of('an-app', '2.0')}")
    assert room.members("behind") == ["one", "three", "two"]
    put("one", ("an-app", "2.0"), ("other", "7"))
    put("two", ("an-app", "2.0"))
    assert (room.search(version_of("an-app", "2.0")), room.members("behind")) == (["one", "two"], ["three"])
    assert room.search(f"{version_of('an-app', '*')} AND NOT {version_of('other', '*')}") == ["two"]
    put("two", ("an-app", "$null"))
    assert (room.search(version_of("an-app", "*")), room.members("behind")) == (["one"], ["three", "two"])
    door = FleetIndexOperatorApi(work=room.work, fleet=room.fleet, groups=room.registry.groups)
    found = (await door.search_index(CALLER, {"queryString": version_of("other", "7")}))["things"]
    reported = {"an-app": {"version": "2.0"}, "other": {"version": "7"}}
    assert json.loads(found[0]["shadow"]) == {"name": {"$package": {"reported": reported, "hasDelta": False}}}
    counted = {"queryString": "*", "aggregationField": field["name"], "bucketsAggregationType": {"termsAggregation": {}}}
    assert (await door.get_buckets_aggregation(CALLER, counted))["buckets"] == [{"keyValue": "2.0", "count": 1}]
    told = (await door.get_indexing_configuration(CALLER, {}))["thingIndexingConfiguration"]
    assert {name: told[name] for name in on} == on
    assert (await door.describe_index(CALLER, {"indexName": "AWS_Things"}))["schema"] == "MULTI_INDEXING_MODE"
