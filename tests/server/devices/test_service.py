"""Things and what is attached to them, on both databases."""

from __future__ import annotations

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, NotFound, VersionConflict
from overair.basics.ids import GroupName, SeededIds, ThingName, ThingTypeName
from overair.basics.work import Tx
from overair.server.certificates.model import CertificateStatus
from overair.server.certificates.x509 import new_device_key
from overair.server.devices.model import AWS, ThingPrincipalType, ThingQuery
from overair.server.devices.service import ThingUpdate
from overair.server.devices.thing_types import TypeSettings
from overair.server.storage.work import SqlWork
from tests.support.registry import Registry

DEV_1 = ThingName("dev-1")
KEY = new_device_key().public_key()


def certificate_arn(registry: Registry, place: Place) -> str:
    return registry.work.run_blocking(  # type: ignore[attr-defined, no-any-return]
        lambda tx: registry.certificates.issue(tx, place, public_key=KEY, active=True).arn
    )


def test_an_identical_repeat_of_a_creation_gives_the_same_thing(registry: Registry, work: SqlWork, place: Place) -> None:
    first = work.run_blocking(lambda tx: registry.devices.create(tx, place, DEV_1, attributes={"colour": "red"}))
    again = work.run_blocking(lambda tx: registry.devices.create(tx, place, DEV_1, attributes={"colour": "red"}))
    assert again == first
    assert work.read_blocking(lambda tx: registry.devices.find(tx, place.account, DEV_1)) == first


def test_a_different_repeat_of_a_creation_is_refused_and_names_what_stands(
    registry: Registry, work: SqlWork, place: Place
) -> None:
    work.run_blocking(lambda tx: registry.devices.create(tx, place, DEV_1))
    with pytest.raises(AlreadyExists) as refused:
        work.run_blocking(lambda tx: registry.devices.create(tx, place, DEV_1, attributes={"colour": "red"}))
    assert refused.value.details == {
        "resourceId": "dev-1",
        "resourceArn": "arn:aws:iot:us-east-1:123456789012:thing/dev-1",
    }


def test_things_of_another_account_are_not_seen(registry: Registry, work: SqlWork, place: Place) -> None:
    work.run_blocking(lambda tx: registry.devices.create(tx, place, DEV_1))
    other = Place("us-east-1", type(place.account)("999999999999"))
    with pytest.raises(NotFound):
        work.read_blocking(lambda tx: registry.devices.find(tx, other.account, DEV_1))
    work.run_blocking(lambda tx: registry.devices.create(tx, other, DEV_1, attributes={"own": "1"}))


def test_an_update_replaces_or_merges_attributes_and_raises_the_version(
    registry: Registry, work: SqlWork, place: Place
) -> None:
    work.run_blocking(lambda tx: registry.devices.create(tx, place, DEV_1, attributes={"a": "1", "b": "2"}))

    def update(change: ThingUpdate) -> dict[str, str]:
        return dict(work.run_blocking(lambda tx: registry.devices.update(tx, place.account, DEV_1, change)).attributes)

    assert update(ThingUpdate(attributes={"c": "3", "a": ""}, merge=True, expected_version=1)) == {"b": "2", "c": "3"}
    assert update(ThingUpdate(attributes={"d": "4"})) == {"d": "4"}
    with pytest.raises(VersionConflict):
        update(ThingUpdate(attributes={}, expected_version=2))
    found = work.read_blocking(lambda tx: registry.devices.find(tx, place.account, DEV_1))
    assert (found.version, dict(found.attributes)) == (3, {"d": "4"})


def test_deleting_a_thing_that_is_not_there_succeeds(registry: Registry, work: SqlWork, place: Place) -> None:
    work.run_blocking(lambda tx: registry.devices.delete(tx, place.account, DEV_1))


def test_a_thing_with_a_certificate_is_not_deleted(registry: Registry, work: SqlWork, place: Place) -> None:
    arn = certificate_arn(registry, place)

    def prepare(tx: Tx) -> None:
        registry.devices.create(tx, place, DEV_1)
        registry.devices.attach(tx, place, DEV_1, arn)

    work.run_blocking(prepare)
    with pytest.raises(InvalidRequest, match="still attached"):
        work.run_blocking(lambda tx: registry.devices.delete(tx, place.account, DEV_1))
    work.run_blocking(lambda tx: registry.devices.detach(tx, place, DEV_1, arn))
    with pytest.raises(VersionConflict):
        work.run_blocking(lambda tx: registry.devices.delete(tx, place.account, DEV_1, expected_version=7))
    work.run_blocking(lambda tx: registry.devices.delete(tx, place.account, DEV_1, expected_version=1))
    with pytest.raises(NotFound):
        work.read_blocking(lambda tx: registry.devices.find(tx, place.account, DEV_1))


def test_lists_filter_by_attribute_prefix_and_type_and_page_by_name(registry: Registry, work: SqlWork, place: Place) -> None:
    def prepare(tx: Tx) -> None:
        registry.types.create(tx, place, ThingTypeName("sensor"), TypeSettings())
        for number in range(5):
            registry.devices.create(
                tx,
                place,
                ThingName(f"dev-{number}"),
                type_name=ThingTypeName("sensor") if number % 2 else None,
                attributes={"site": f"north-{number}" if number < 3 else "south"},
            )

    work.run_blocking(prepare)

    def names(query: ThingQuery, after: str | None = None, limit: int = 100) -> list[str]:
        return [
            thing.name
            for thing in work.read_blocking(
                lambda tx: registry.devices.page(tx, place.account, query, after=after, limit=limit)
            )
        ]

    assert names(ThingQuery(), limit=2) == ["dev-0", "dev-1"]
    assert names(ThingQuery(), after="dev-1", limit=2) == ["dev-2", "dev-3"]
    assert names(ThingQuery(attribute_name="site", attribute_value="south")) == ["dev-3", "dev-4"]
    assert names(ThingQuery(attribute_name="site", attribute_value="north", value_is_prefix=True)) == [
        "dev-0",
        "dev-1",
        "dev-2",
    ]
    assert names(ThingQuery(attribute_name="site", attribute_value="north")) == []
    assert names(ThingQuery(attribute_name="absent")) == []
    assert names(ThingQuery(type_name=ThingTypeName("sensor"), attribute_name="site")) == ["dev-1", "dev-3"]
    work.run_blocking(
        lambda tx: registry.devices.update(tx, place.account, ThingName("dev-3"), ThingUpdate(attributes={"site": "west"}))
    )
    assert names(ThingQuery(attribute_name="site", attribute_value="south")) == ["dev-4"]


def test_a_deprecated_type_takes_no_new_things_and_goes_after_five_minutes(
    registry: Registry, work: SqlWork, place: Place, clock: SettableClock
) -> None:
    name = ThingTypeName("sensor")

    def prepare(tx: Tx) -> None:
        registry.types.create(tx, place, name, TypeSettings(description="measures"))
        registry.devices.create(tx, place, DEV_1, type_name=name)
        registry.types.deprecate(tx, place.account, name, undo=False)

    work.run_blocking(prepare)
    with pytest.raises(InvalidRequest, match="deprecated"):
        work.run_blocking(lambda tx: registry.devices.create(tx, place, ThingName("dev-2"), type_name=name))
    with pytest.raises(InvalidRequest, match="5 minutes"):
        work.run_blocking(lambda tx: registry.types.delete(tx, place, name))
    clock.advance(milliseconds=299_999)
    with pytest.raises(InvalidRequest, match="5 minutes"):
        work.run_blocking(lambda tx: registry.types.delete(tx, place, name))
    clock.advance(milliseconds=1)
    with pytest.raises(InvalidRequest, match="still things"):
        work.run_blocking(lambda tx: registry.types.delete(tx, place, name))
    work.run_blocking(lambda tx: registry.devices.update(tx, place.account, DEV_1, ThingUpdate(remove_type=True)))
    work.run_blocking(lambda tx: registry.types.delete(tx, place, name))
    with pytest.raises(NotFound):
        work.read_blocking(lambda tx: registry.types.find(tx, place.account, name))


def test_a_type_that_was_not_deprecated_is_not_deleted(registry: Registry, work: SqlWork, place: Place) -> None:
    name = ThingTypeName("sensor")
    work.run_blocking(lambda tx: registry.types.create(tx, place, name, TypeSettings()))
    with pytest.raises(InvalidRequest, match="deprecate it"):
        work.run_blocking(lambda tx: registry.types.delete(tx, place, name))
    work.run_blocking(lambda tx: registry.types.deprecate(tx, place.account, name, undo=False))
    work.run_blocking(lambda tx: registry.types.deprecate(tx, place.account, name, undo=True))
    work.run_blocking(lambda tx: registry.devices.create(tx, place, DEV_1, type_name=name))


def test_an_exclusive_attachment_suffers_no_other_thing(registry: Registry, work: SqlWork, place: Place) -> None:
    arn = certificate_arn(registry, place)
    exclusive = ThingPrincipalType.EXCLUSIVE_THING

    def prepare(tx: Tx) -> None:
        registry.devices.create(tx, place, DEV_1)
        registry.devices.create(tx, place, ThingName("dev-2"))
        registry.devices.attach(tx, place, DEV_1, arn, exclusive)
        registry.devices.attach(tx, place, DEV_1, arn, exclusive)

    work.run_blocking(prepare)
    with pytest.raises(InvalidRequest, match="exclusive"):
        work.run_blocking(lambda tx: registry.devices.attach(tx, place, ThingName("dev-2"), arn))
    listed = work.read_blocking(lambda tx: registry.devices.things_of_principal(tx, place, arn, limit=10))
    assert [(row.thing, row.type) for row in listed] == [("dev-1", exclusive)]
    # What is attached otherwise can become exclusive only while it is alone.
    work.run_blocking(lambda tx: registry.devices.attach(tx, place, DEV_1, arn))
    work.run_blocking(lambda tx: registry.devices.attach(tx, place, ThingName("dev-2"), arn))
    with pytest.raises(InvalidRequest, match="exclusive"):
        work.run_blocking(lambda tx: registry.devices.attach(tx, place, DEV_1, arn, exclusive))


@pytest.mark.parametrize(
    "principal",
    [
        "nonsense",
        "arn:aws:iot:eu-west-1:123456789012:cert/" + "a" * 64,
        "arn:aws:iot:us-east-1:999999999999:cert/" + "a" * 64,
        "arn:aws:iot:us-east-1:123456789012:thing/dev-1",
        "us-east-1:cognito-id",
    ],
)
def test_a_principal_that_is_no_certificate_of_ours_is_refused(
    registry: Registry, work: SqlWork, place: Place, principal: str
) -> None:
    work.run_blocking(lambda tx: registry.devices.create(tx, place, DEV_1))
    with pytest.raises(InvalidRequest) as refused:
        work.run_blocking(lambda tx: registry.devices.attach(tx, place, DEV_1, principal))
    assert refused.value.subject == "principal"


def test_attaching_what_is_not_there_is_not_found(registry: Registry, work: SqlWork, place: Place) -> None:
    arn = certificate_arn(registry, place)
    with pytest.raises(NotFound) as refused:
        work.run_blocking(lambda tx: registry.devices.attach(tx, place, DEV_1, arn))
    assert refused.value.subject == "thing"
    work.run_blocking(lambda tx: registry.devices.create(tx, place, DEV_1))
    with pytest.raises(NotFound) as refused:
        work.run_blocking(lambda tx: registry.devices.attach(tx, place, DEV_1, place.iot("cert", "0" * 64)))
    assert refused.value.subject == "certificate"


def test_a_certificate_with_a_thing_is_not_deleted(registry: Registry, work: SqlWork, place: Place) -> None:
    arn = certificate_arn(registry, place)
    identity = arn.rpartition("/")[2]

    def prepare(tx: Tx) -> None:
        registry.devices.create(tx, place, DEV_1)
        registry.devices.attach(tx, place, DEV_1, arn)
        registry.certificates.set_status(tx, place, identity, CertificateStatus.INACTIVE)  # type: ignore[arg-type]

    work.run_blocking(prepare)
    with pytest.raises(Conflict) as refused:
        work.run_blocking(lambda tx: registry.certificates.delete(tx, place, identity, force=True))  # type: ignore[arg-type]
    assert refused.value.subject == "delete"


def test_members_of_a_target_are_the_thing_or_the_group_with_all_below(registry: Registry, work: SqlWork, place: Place) -> None:
    def prepare(tx: Tx) -> None:
        registry.groups.create(tx, place, GroupName("root"))
        registry.groups.create(tx, place, GroupName("leaf"), parent=GroupName("root"))
        for number in range(4):
            registry.devices.create(tx, place, ThingName(f"dev-{number}"))
            registry.groups.add(tx, place.account, GroupName("leaf" if number % 2 else "root"), ThingName(f"dev-{number}"))
        registry.groups.add(tx, place.account, GroupName("leaf"), ThingName("dev-0"))

    work.run_blocking(prepare)

    def members(kind: str, name: str, after: str | None = None, limit: int = 10) -> list[str]:
        return list(
            work.read_blocking(
                lambda tx: registry.devices.members(
                    tx,
                    place.account,
                    place.iot(kind, name),
                    after=None if after is None else ThingName(after),
                    limit=limit,
                )
            )
        )

    assert members("thing", "dev-1") == ["dev-1"]
    assert members("thing", "dev-1", after="dev-1") == []
    assert members("thinggroup", "root", limit=3) == ["dev-0", "dev-1", "dev-2"]
    assert members("thinggroup", "root", after="dev-2") == ["dev-3"]
    assert members("thinggroup", "leaf") == ["dev-0", "dev-1", "dev-3"]
    for kind in ("thing", "thinggroup"):
        with pytest.raises(NotFound):
            members(kind, "absent")
    with pytest.raises(InvalidRequest):
        members("job", "j")

    def is_member(kind: str, name: str, thing: str) -> bool:
        return work.read_blocking(
            lambda tx: registry.devices.is_member(tx, place.account, place.iot(kind, name), ThingName(thing))
        )

    assert is_member("thinggroup", "root", "dev-3")
    assert not is_member("thinggroup", "leaf", "dev-2")
    assert not is_member("thinggroup", "absent", "dev-2")
    assert is_member("thing", "dev-2", "dev-2")
    assert not is_member("thing", "dev-2", "dev-3")


def test_a_target_of_another_place_is_refused(registry: Registry, work: SqlWork, place: Place) -> None:
    work.run_blocking(lambda tx: registry.devices.create(tx, place, DEV_1))
    work.read_blocking(lambda tx: registry.devices.require_target(tx, place, place.iot("thing", "dev-1")))
    with pytest.raises(InvalidRequest):
        work.read_blocking(
            lambda tx: registry.devices.require_target(tx, place, "arn:aws:iot:eu-west-1:123456789012:thing/dev-1")
        )
    with pytest.raises(NotFound):
        work.read_blocking(lambda tx: registry.devices.require_target(tx, place, place.iot("thinggroup", "g")))


def test_the_aws_profile_holds_a_thing_without_a_type_to_three_attributes(
    work: SqlWork, place: Place, clock: SettableClock, ids: SeededIds
) -> None:
    registry = Registry(work, clock, ids, limits=AWS)
    four = {f"a{number}": "1" for number in range(4)}
    with pytest.raises(InvalidRequest, match="at most 3 attributes"):
        work.run_blocking(lambda tx: registry.devices.create(tx, place, DEV_1, attributes=four))
    work.run_blocking(lambda tx: registry.types.create(tx, place, ThingTypeName("sensor"), TypeSettings()))
    work.run_blocking(lambda tx: registry.devices.create(tx, place, DEV_1, type_name=ThingTypeName("sensor"), attributes=four))
