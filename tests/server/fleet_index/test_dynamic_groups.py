"""Dynamic groups: who belongs to them at every moment, whom that is told, and what it costs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest

from overair.basics.errors import InvalidRequest, LimitExceeded, NotFound, VersionConflict
from overair.basics.ids import GroupName, ThingName
from overair.basics.work import Tx
from overair.server.devices.model import DynamicStatus
from overair.server.devices.service import ThingUpdate
from overair.server.devices.thing_groups import GroupSettings
from overair.server.fleet_index import dynamic_groups, worker
from overair.server.storage.work import sql
from tests.support.fleet_room import FleetRoom

RED = GroupName("red")


def status(room: FleetRoom, group: str = RED) -> DynamicStatus:
    found = room.run(lambda tx: room.registry.groups.find(tx, room.account, GroupName(group)))
    assert found.dynamic is not None
    return found.dynamic.status


def update(room: FleetRoom, query: str, *, version: int | None = None) -> int:
    changed = room.run(
        lambda tx: room.fleet.dynamic.update(
            tx, room.account, RED, settings=GroupSettings(), query=query, expected_version=version
        )
    )
    return changed.version


def test_a_new_group_is_filled_with_who_meets_its_query(room: FleetRoom) -> None:
    room.configure()
    for number in range(5):
        room.thing(f"t-{number}", colour="red" if number % 2 else "blue")
    room.dynamic(RED, "attributes.colour:red", settle=False)
    assert (room.members(RED), status(room)) == ([], DynamicStatus.BUILDING)
    room.settle()
    assert (room.members(RED), status(room)) == (["t-1", "t-3"], DynamicStatus.ACTIVE)
    assert room.registry.membership.heard == [("joined", "t-1", "red"), ("joined", "t-3", "red")]


def test_a_thing_that_changes_joins_and_leaves_in_the_same_unit_and_that_is_told(room: FleetRoom) -> None:
    room.configure()
    room.dynamic(RED, "attributes.colour:red AND NOT thingGroupNames:broken")
    thing = room.thing("one", colour="blue")
    assert room.members(RED) == []
    room.attributes(thing, colour="RED")
    assert room.members(RED) == ["one"]
    group = room.group("broken", thing)
    assert room.members(RED) == []
    room.run(lambda tx: room.registry.groups.remove(tx, room.account, group, thing))
    assert room.members(RED) == ["one"]
    room.attributes(thing, other="x")
    room.run(lambda tx: room.registry.devices.delete(tx, room.account, thing))
    assert room.members(RED) == []
    assert room.registry.membership.heard == [
        ("joined", "one", "red"),
        ("joined", "one", "broken"),
        ("left", "one", "red"),
        ("left", "one", "broken"),
        ("joined", "one", "red"),
        ("deleted", "one"),
    ]
    with pytest.raises(NotFound):
        room.run(lambda tx: room.registry.devices.find(tx, room.account, thing))


def test_a_thing_made_with_the_right_attributes_belongs_from_the_first_moment(room: FleetRoom) -> None:
    room.configure()
    room.dynamic(RED, "attributes.colour:red")
    room.thing("one", colour="red")
    assert room.members(RED) == ["one"]


def test_a_new_thing_belongs_to_a_group_of_those_who_have_not_something(room: FleetRoom) -> None:
    room.configure(customFields=[{"name": "jobs.*", "type": "String"}])
    room.dynamic(RED, "NOT jobs.j:*")
    room.thing("one")
    assert room.members(RED) == ["one"]


def test_a_unit_that_fails_leaves_no_member_behind(room: FleetRoom) -> None:
    room.configure()
    room.dynamic(RED, "attributes.colour:red")
    thing = room.thing("one")

    def fails(tx: Tx) -> None:
        room.registry.devices.update(tx, room.account, thing, ThingUpdate(attributes={"colour": "red"}))
        raise InvalidRequest("no", subject="thing")

    with pytest.raises(InvalidRequest, match="no"):
        room.run(fails)
    assert (room.members(RED), room.search("red")) == ([], [])


def test_another_query_lets_some_in_and_others_go_and_may_be_cut_after_any_step(
    room: FleetRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MEMBERS_PER_STEP_MAX", 2)
    monkeypatch.setattr(worker, "DOCUMENTS_PER_STEP_MAX", 3)
    for number in range(10):
        room.thing(f"t-{number}", size=str(number))
    room.configure()
    room.dynamic(RED, "attributes.size<6")
    assert len(room.members(RED)) == 6
    assert update(room, "attributes.size>3") == 2
    assert status(room) is DynamicStatus.REBUILDING
    step = room.fleet.builder.step
    steps = 0
    while room.run(lambda tx: step(tx, now=room.clock.now())):
        steps += 1
        if steps == 2:
            # A thing that changes between two steps is judged by the new query at once.
            room.attributes("t-0", size="40")
            room.attributes("t-9", size="1")
            room.run(lambda tx: room.registry.devices.delete(tx, room.account, ThingName("t-8")))
    assert room.members(RED) == ["t-0", "t-4", "t-5", "t-6", "t-7"]
    assert status(room) is DynamicStatus.ACTIVE
    assert steps > 4, "the work was bounded pieces"


def test_a_query_changed_while_the_group_is_filled_starts_again(room: FleetRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MEMBERS_PER_STEP_MAX", 1)
    room.configure()
    for name in ("a", "b", "c"):
        room.thing(name)
    room.dynamic(RED, "*", settle=False)
    room.run(lambda tx: room.fleet.builder.step(tx, now=room.clock.now()))
    assert room.members(RED) == ["a"]
    update(room, "thingName:(b OR c)")
    room.settle()
    assert (room.members(RED), status(room)) == (["b", "c"], DynamicStatus.ACTIVE)


def test_a_repeated_creation_gives_the_group_that_is_there_and_another_query_is_refused(room: FleetRoom) -> None:
    room.configure()
    made = room.dynamic(RED, "attributes.colour:red")
    again = room.dynamic(RED, "attributes.colour:red", settle=False)
    assert (again.id, status(room)) == (made.id, DynamicStatus.ACTIVE)
    with pytest.raises(Exception, match="already exists"):
        room.dynamic(RED, "attributes.colour:blue")
    with pytest.raises(VersionConflict):
        update(room, "x", version=7)


FOR_STATIC_GROUPS: list[Callable[[FleetRoom, Tx], object]] = [
    lambda room, tx: room.registry.groups.add(tx, room.account, RED, ThingName("one")),
    lambda room, tx: room.registry.groups.remove(tx, room.account, RED, ThingName("one")),
    lambda room, tx: room.registry.groups.regroup(tx, room.account, ThingName("one"), add=[RED], remove=[]),
    lambda room, tx: room.registry.groups.update(tx, room.account, RED, GroupSettings(), expected_version=None),
    lambda room, tx: room.registry.groups.delete(tx, room.place, RED),
    lambda room, tx: room.registry.groups.create(tx, room.place, GroupName("child"), parent=RED),
]


def test_what_is_for_static_groups_refuses_a_dynamic_one_by_name(room: FleetRoom) -> None:
    room.configure()
    room.thing("one")
    room.dynamic(RED, "*")
    for act in FOR_STATIC_GROUPS:
        with pytest.raises(InvalidRequest, match="red is a dynamic thing group"):
            room.run(lambda tx, act=act: act(room, tx))  # type: ignore[misc]
    assert room.members(RED) == ["one"]


def test_what_is_for_dynamic_groups_refuses_a_static_one(room: FleetRoom) -> None:
    room.configure()
    room.group("red")
    with pytest.raises(InvalidRequest, match="red is a static thing group: use UpdateThingGroup"):
        update(room, "*")
    with pytest.raises(InvalidRequest, match="red is a static thing group: use DeleteThingGroup"):
        room.run(lambda tx: room.fleet.dynamic.delete(tx, room.place, RED))


def test_a_deleted_group_has_no_members_and_they_hear_of_it(room: FleetRoom) -> None:
    room.configure()
    room.thing("one")
    room.dynamic(RED, "*")
    room.run(lambda tx: room.fleet.dynamic.delete(tx, room.place, RED))
    assert room.registry.membership.heard[-1] == ("left", "one", "red")
    assert not room.run(lambda tx: room.registry.groups.has(tx, room.account, RED))
    room.run(lambda tx: room.fleet.dynamic.delete(tx, room.place, RED))
    room.dynamic(RED, "nobody")
    assert room.members(RED) == []


def test_a_group_of_many_is_deleted_in_bounded_steps_and_nobody_comes_in_meanwhile(
    room: FleetRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MEMBERS_PER_STEP_MAX", 2)
    monkeypatch.setattr(dynamic_groups, "MEMBERS_AT_ONCE_MAX", 3)
    room.configure()
    for name in ("a", "b", "c", "d", "e"):
        room.thing(name)
    room.dynamic(RED, "*")
    for _ in range(2):
        room.run(lambda tx: room.fleet.dynamic.delete(tx, room.place, RED))
    room.run(lambda tx: room.fleet.builder.step(tx, now=room.clock.now()))
    room.thing("late")
    assert room.members(RED) == ["c", "d", "e"]
    with pytest.raises(NotFound, match="being deleted"):
        update(room, "*")
    assert room.settle() == 2
    assert not room.run(lambda tx: room.registry.groups.has(tx, room.account, RED))
    assert [name for kind, name, *_ in room.registry.membership.heard if kind == "left"] == ["a", "b", "c", "d", "e"]


def test_the_index_stays_on_while_a_dynamic_group_needs_it(room: FleetRoom) -> None:
    with pytest.raises(InvalidRequest, match="things aren't indexed"):
        room.dynamic(RED, "*")
    room.configure(thingConnectivityIndexingMode="STATUS")
    room.dynamic(RED, "connectivity.connected:true")
    with pytest.raises(InvalidRequest, match="dynamic thing group red needs"):
        room.configure(thingIndexingMode="OFF")
    with pytest.raises(InvalidRequest, match="dynamic thing group red needs"):
        room.configure()
    room.configure(thingConnectivityIndexingMode="STATUS", customFields=[{"name": "attributes.x", "type": "Number"}])


def test_dynamic_groups_do_not_count_among_a_things_groups_and_have_a_limit_of_their_own(room: FleetRoom) -> None:
    limits = room.registry.groups._limits
    room.registry.groups._limits = type(limits)(
        **{field: getattr(limits, field) for field in limits.__slots__} | {"groups_of_thing_max": 2, "dynamic_groups_max": 3}
    )
    room.configure()
    room.thing("one")
    for number in range(3):
        room.dynamic(f"d{number}", "*")
    with pytest.raises(LimitExceeded):
        room.dynamic("d3", "*")
    room.group("s0", "one"), room.group("s1", "one")
    with pytest.raises(InvalidRequest, match="at most 2 groups"):
        room.group("s2", "one")
    assert len(room.run(lambda tx: room.registry.groups.all_groups_of(tx, room.account, ThingName("one")))) == 5


# What it costs ------------------------------------------------------------------------------------------------------------


class Measured:
    """The statements of a unit, and how many instructions SQLite took for them."""

    def __init__(self) -> None:
        self.instructions = 0
        self.statements: list[str] = []

    def run(self, room: FleetRoom, unit: Callable[[Tx], object]) -> None:
        def counted(tx: Tx) -> None:
            driver = sql(tx).connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)

            def count() -> int:
                self.instructions += 1
                return 0

            driver.set_progress_handler(count, 1)
            driver.set_trace_callback(self.statements.append)
            try:
                unit(tx)
            finally:
                driver.set_progress_handler(None, 1)
                driver.set_trace_callback(None)

        room.run(counted)

    def scans(self, room: FleetRoom) -> list[str]:
        """The plans among these statements that walk a whole table."""

        def explain(tx: Tx) -> list[str]:
            driver = sql(tx).connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            plans = [
                row[-1]
                for statement in self.statements
                if statement.split(maxsplit=1)[0] in ("SELECT", "UPDATE", "DELETE", "INSERT")
                for row in driver.execute("EXPLAIN QUERY PLAN " + statement)
            ]
            assert any("SEARCH fleet_values" in plan for plan in plans)
            return [plan for plan in plans if plan.startswith("SCAN") and "CONSTANT ROW" not in plan]

        return room.run(explain)


def change_of_one_thing(room: FleetRoom, colour: str) -> Measured:
    measured = Measured()
    change = ThingUpdate(attributes={"colour": colour}, merge=True)
    measured.run(room, lambda tx: room.registry.devices.update(tx, room.account, ThingName("t-0"), change))
    return measured


@pytest.mark.parametrize("work", ["sqlite"], indirect=True)
@pytest.mark.parametrize("count", [400, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_change_of_one_thing_judges_one_thing_however_many_there_are(room: FleetRoom, count: int) -> None:
    def grow(first: int, last: int) -> None:
        for start in range(first, last, 500):

            def make(tx: Tx, start: int = start) -> None:
                for number in range(start, min(start + 500, last)):
                    attributes = {"colour": "blue", "size": str(number)}
                    room.registry.devices.create(tx, room.place, ThingName(f"t-{number}"), attributes=attributes)

            room.run(make)

    room.configure(settle=False)
    room.settle()
    grow(0, 20)
    room.dynamic(RED, "attributes.colour:red")
    room.dynamic("blue", "attributes.colour:blue OR attributes.size>5")
    few = change_of_one_thing(room, "red")
    assert room.members(RED) == ["t-0"]
    change_of_one_thing(room, "blue")
    grow(20, count)
    many = change_of_one_thing(room, "red")
    assert room.members(RED) == ["t-0"]
    assert len(many.statements) == len(few.statements)
    assert many.scans(room) == []
    # Deeper trees cost a step or two more; a look at each of the others would cost thousands.
    assert many.instructions < few.instructions * 1.2, (few.instructions, many.instructions)
