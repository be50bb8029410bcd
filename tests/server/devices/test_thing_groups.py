"""Groups inside groups, and who hears of their members."""

from __future__ import annotations

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import AlreadyExists, InvalidRequest, NotFound, VersionConflict
from overair.basics.ids import GroupName, PolicyName, SeededIds, ThingName
from overair.basics.work import Tx
from overair.server.devices.model import AWS, GroupQuery
from overair.server.devices.thing_groups import GroupSettings
from overair.server.storage.work import SqlWork
from tests.support.registry import Registry

ROOT, MIDDLE, LEAF, ASIDE = GroupName("root"), GroupName("root-middle"), GroupName("leaf"), GroupName("aside")
DEV_1 = ThingName("dev-1")
ANYTHING = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'


@pytest.fixture
def tree(registry: Registry, work: SqlWork, place: Place) -> Registry:
    """root → root-middle → leaf, and aside; one thing in none of them."""

    def plant(tx: Tx) -> None:
        registry.groups.create(tx, place, ROOT)
        registry.groups.create(tx, place, MIDDLE, parent=ROOT)
        registry.groups.create(tx, place, LEAF, parent=MIDDLE)
        registry.groups.create(tx, place, ASIDE)
        registry.devices.create(tx, place, DEV_1)

    work.run_blocking(plant)
    return registry


def test_an_identical_repeat_gives_the_same_group_and_a_different_one_is_refused(
    tree: Registry, work: SqlWork, place: Place
) -> None:
    standing = work.read_blocking(lambda tx: tree.groups.find(tx, place.account, LEAF))
    assert work.run_blocking(lambda tx: tree.groups.create(tx, place, LEAF, parent=MIDDLE)) == standing
    with pytest.raises(AlreadyExists):
        work.run_blocking(lambda tx: tree.groups.create(tx, place, LEAF, parent=ROOT))
    with pytest.raises(AlreadyExists):
        work.run_blocking(
            lambda tx: tree.groups.create(tx, place, LEAF, parent=MIDDLE, settings=GroupSettings(description="x"))
        )


def test_ancestors_go_from_the_root_to_the_parent(tree: Registry, work: SqlWork, place: Place) -> None:
    assert work.read_blocking(lambda tx: tree.groups.ancestors(tx, place.account, LEAF)) == [ROOT, MIDDLE]
    assert work.read_blocking(lambda tx: tree.groups.ancestors(tx, place.account, ROOT)) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (GroupQuery(), ["aside", "leaf", "root", "root-middle"]),
        (GroupQuery(recursive=False), ["aside", "root"]),
        (GroupQuery(recursive=True), ["aside", "leaf", "root", "root-middle"]),
        (GroupQuery(parent=ROOT), ["root-middle"]),
        (GroupQuery(parent=ROOT, recursive=True), ["leaf", "root-middle"]),
        (GroupQuery(parent=LEAF, recursive=True), []),
        (GroupQuery(name_prefix="root"), ["root", "root-middle"]),
        (GroupQuery(name_prefix="root-"), ["root-middle"]),
    ],
)
def test_lists_of_groups(tree: Registry, work: SqlWork, place: Place, query: GroupQuery, expected: list[str]) -> None:
    found = work.read_blocking(lambda tx: tree.groups.page(tx, place.account, query, after=None, limit=10))
    assert list(found) == expected
    rest = (
        work.read_blocking(lambda tx: tree.groups.page(tx, place.account, query, after=expected[0], limit=10))
        if (expected)
        else []
    )
    assert list(rest) == expected[1:]


def test_a_list_below_a_group_that_is_not_there_is_not_found(tree: Registry, work: SqlWork, place: Place) -> None:
    with pytest.raises(NotFound):
        work.read_blocking(
            lambda tx: tree.groups.page(tx, place.account, GroupQuery(parent=GroupName("x")), after=None, limit=1)
        )


def test_entering_a_child_group_enters_its_parents_once(tree: Registry, work: SqlWork, place: Place) -> None:
    account, heard = place.account, tree.membership.heard
    work.run_blocking(lambda tx: tree.groups.add(tx, account, MIDDLE, DEV_1))
    assert heard == [("joined", "dev-1", "root"), ("joined", "dev-1", "root-middle")]
    heard.clear()
    work.run_blocking(lambda tx: tree.groups.add(tx, account, LEAF, DEV_1))
    assert heard == [("joined", "dev-1", "leaf")]
    heard.clear()
    work.run_blocking(lambda tx: tree.groups.add(tx, account, LEAF, DEV_1))
    assert heard == []
    work.run_blocking(lambda tx: tree.groups.remove(tx, account, MIDDLE, DEV_1))
    assert heard == []  # still in the leaf, and so in all above it
    work.run_blocking(lambda tx: tree.groups.remove(tx, account, LEAF, DEV_1))
    assert sorted(heard) == [("left", "dev-1", "leaf"), ("left", "dev-1", "root"), ("left", "dev-1", "root-middle")]
    heard.clear()
    work.run_blocking(lambda tx: tree.groups.remove(tx, account, LEAF, DEV_1))
    assert heard == []


def test_regrouping_leaves_and_enters_in_one_unit(tree: Registry, work: SqlWork, place: Place) -> None:
    account = place.account
    work.run_blocking(lambda tx: tree.groups.add(tx, account, ROOT, DEV_1))
    work.run_blocking(lambda tx: tree.groups.regroup(tx, account, DEV_1, add=[ASIDE], remove=[ROOT]))
    assert work.read_blocking(lambda tx: tree.groups.groups_of(tx, account, DEV_1, limit=10)) == [ASIDE]
    with pytest.raises(NotFound):
        work.run_blocking(lambda tx: tree.groups.regroup(tx, account, DEV_1, add=[GroupName("x")], remove=[ASIDE]))
    assert work.read_blocking(lambda tx: tree.groups.groups_of(tx, account, DEV_1, limit=10)) == [ASIDE]


def test_a_deleted_thing_leaves_its_groups_and_is_told_once(tree: Registry, work: SqlWork, place: Place) -> None:
    account = place.account
    work.run_blocking(lambda tx: tree.groups.add(tx, account, LEAF, DEV_1))
    tree.membership.heard.clear()
    work.run_blocking(lambda tx: tree.devices.delete(tx, account, DEV_1))
    assert tree.membership.heard == [("deleted", "dev-1")]
    assert work.read_blocking(lambda tx: tree.groups.members(tx, account, ROOT, nested=True, after=None, limit=9)) == []


def test_a_group_with_child_groups_is_not_deleted(tree: Registry, work: SqlWork, place: Place) -> None:
    with pytest.raises(InvalidRequest, match="child groups"):
        work.run_blocking(lambda tx: tree.groups.delete(tx, place, MIDDLE))


def test_deleting_a_group_lets_its_members_and_policies_go(tree: Registry, work: SqlWork, place: Place) -> None:
    account, arn = place.account, place.iot("thinggroup", LEAF)

    def prepare(tx: Tx) -> None:
        tree.groups.add(tx, account, LEAF, DEV_1)
        tree.policies.create(tx, place, PolicyName("p"), ANYTHING)
        tree.policies.attach(tx, place, PolicyName("p"), arn)
        tree.tags.add(tx, place, arn, {"k": "v"})

    work.run_blocking(prepare)
    tree.membership.heard.clear()
    with pytest.raises(VersionConflict):
        work.run_blocking(lambda tx: tree.groups.delete(tx, place, LEAF, expected_version=2))
    work.run_blocking(lambda tx: tree.groups.delete(tx, place, LEAF, expected_version=1))
    assert {entry[0] for entry in tree.membership.heard} == {"left"}
    assert work.read_blocking(lambda tx: tree.policies.targets(tx, account, PolicyName("p"), limit=9)) == []
    work.run_blocking(lambda tx: tree.groups.create(tx, place, LEAF, parent=MIDDLE))
    assert work.read_blocking(lambda tx: tree.tags.list(tx, place, arn)) == {}
    work.run_blocking(lambda tx: tree.groups.delete(tx, place, GroupName("never-there")))


def test_an_update_keeps_what_it_does_not_name(tree: Registry, work: SqlWork, place: Place) -> None:
    def update(settings: GroupSettings, expected: int | None = None) -> tuple[int, str, dict[str, str]]:
        changed = work.run_blocking(lambda tx: tree.groups.update(tx, place.account, LEAF, settings, expected_version=expected))
        return changed.version, changed.description, dict(changed.attributes)

    assert update(GroupSettings(description="d", attributes={"a": "1"})) == (2, "d", {"a": "1"})
    assert update(GroupSettings(attributes={"b": "2"}, merge=True)) == (3, "d", {"a": "1", "b": "2"})
    assert update(GroupSettings(attributes={"a": ""}, merge=True), expected=3) == (4, "d", {"b": "2"})
    with pytest.raises(VersionConflict):
        update(GroupSettings(description="e"), expected=3)


def test_the_aws_profile_bounds_depth_and_memberships(
    work: SqlWork, place: Place, clock: SettableClock, ids: SeededIds
) -> None:
    registry = Registry(work, clock, ids, limits=AWS)

    def nest(tx: Tx) -> None:
        registry.groups.create(tx, place, GroupName("g-1"))
        for level in range(2, 9):
            registry.groups.create(tx, place, GroupName(f"g-{level}"), parent=GroupName(f"g-{level - 1}"))

    with pytest.raises(InvalidRequest, match="at most 7 deep"):
        work.run_blocking(nest)

    def join(tx: Tx) -> None:
        registry.devices.create(tx, place, DEV_1)
        for number in range(11):
            registry.groups.create(tx, place, GroupName(f"h-{number}"))
            registry.groups.add(tx, place.account, GroupName(f"h-{number}"), DEV_1)

    with pytest.raises(InvalidRequest, match="at most 10 groups"):
        work.run_blocking(join)
