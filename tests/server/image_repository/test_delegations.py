"""Delegations: made by targets, filled by others' documents, kept apart from each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overair.basics.errors import Conflict, InvalidRequest, OverairError
from overair.server.image_repository.pushing import Push
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Delegation, Targets
from overair.wire.uptane.trust import Accepted
from tests.support.image_room import DAY_MS, ImageRoom, OfflineKey, delegation, plan, signed, target_file
from tests.support.image_view import trusted

VENDOR = OfflineKey()


def delegate(room: ImageRoom, *delegations: Delegation, keys: tuple[OfflineKey, ...] = (VENDOR,)) -> None:
    room.run(
        lambda tx: room.images.set_delegations(
            tx,
            room.place,
            keys={key.public_key.id: key.public_key for key in keys},
            delegations=delegations,
        )
    )


def document(room: ImageRoom, version: int, *names: str, **changes: object) -> Targets:
    files = {name: target_file(name) for name in names}
    made = Targets(version=version, expires=room.in_days(365), targets=files)
    return replace(made, **changes)  # type: ignore[arg-type]


def push(room: ImageRoom, targets: Targets, *, name: str = "vendor-b", key: OfflineKey = VENDOR, **options: bool) -> None:
    room.push(Push(delegations={name: signed(targets, [key])}, **options))


def codes(refused: pytest.ExceptionInfo[OverairError]) -> set[str]:
    errors = refused.value.details["errors"]
    assert isinstance(errors, list)
    return {item["code"] for item in errors}


def believed_of(room: ImageRoom, name: str, flavour: Flavour = Flavour.UPTANE) -> set[str]:
    client = trusted(room, flavour)
    verdict = client.update_delegation(name, room.document(name, flavour), now=room.clock.now())
    assert isinstance(verdict, Accepted), verdict
    return set(client.delegations[name].targets)


@pytest.fixture
def delegated(room: ImageRoom) -> ImageRoom:
    delegate(room, delegation("vendor-b", [VENDOR], ["vendor-b/*"]))
    return room


def test_a_delegated_document_is_believed_in_both_flavours_once_snapshot_and_timestamp_name_it(delegated: ImageRoom) -> None:
    push(delegated, document(delegated, 1, "vendor-b/dash-1.bin"))
    for flavour in Flavour:
        assert believed_of(delegated, "vendor-b", flavour) == {"vendor-b/dash-1.bin"}
    found = delegated.read(lambda tx: delegated.images.find_target(tx, delegated.account, "vendor-b/dash-1.bin"))
    assert found is not None
    assert found.role == "vendor-b"


@pytest.mark.parametrize(
    ("version", "names", "key", "code", "subject"),
    [
        (1, ["vendor-b/dash-1.bin"], OfflineKey(), "bad_key_id", "payload-signature"),
        (1, ["elsewhere.bin"], VENDOR, "target_outside_of_delegation", "delegated-target"),
        (1, ["vendor-b/../x"], VENDOR, "invalid_target_name", "delegated-target"),
    ],
)
def test_a_delegated_document_stays_within_its_keys_and_paths(
    delegated: ImageRoom, version: int, names: list[str], key: OfflineKey, code: str, subject: str
) -> None:
    with pytest.raises(OverairError) as refused:
        push(delegated, document(delegated, version, *names), key=key)
    assert code in codes(refused)
    assert refused.value.subject == subject


def test_versions_of_a_delegation_go_up_one_by_one(delegated: ImageRoom) -> None:
    push(delegated, document(delegated, 4, "vendor-b/dash-1.bin"))
    for version in (4, 6, 3):
        with pytest.raises(OverairError) as refused:
            push(delegated, document(delegated, version, "vendor-b/dash-1.bin"))
        assert refused.value.subject == "version-bump"
    push(delegated, document(delegated, 5, "vendor-b/dash-2.bin"))
    assert believed_of(delegated, "vendor-b") == {"vendor-b/dash-2.bin"}


def test_nobody_may_push_for_a_role_that_targets_dont_name(room: ImageRoom) -> None:
    with pytest.raises(InvalidRequest) as refused:
        push(room, document(room, 1))
    assert refused.value.subject == "delegations-not-defined"


def test_a_vendor_cant_give_other_bytes_to_a_name_that_stands(delegated: ImageRoom) -> None:
    delegated.run(lambda tx: delegated.images.add_target(tx, delegated.place, plan("vendor-b/dash-1.bin", b"ours")))
    with pytest.raises(OverairError) as refused:
        push(delegated, document(delegated, 1, "vendor-b/dash-1.bin"))
    assert "target_content_changed" in codes(refused)


def test_a_vendor_cant_take_away_what_vehicles_need(delegated: ImageRoom) -> None:
    push(delegated, document(delegated, 1, "vendor-b/dash-1.bin"))
    delegated.in_use.names["vendor-b/dash-1.bin"] = "installed on 1 ECU"
    with pytest.raises(OverairError) as refused:
        push(delegated, document(delegated, 2))
    assert codes(refused) == {"target_in_use"}
    with pytest.raises(Conflict):
        delegate(delegated)
    push(delegated, document(delegated, 2), force=True)
    assert believed_of(delegated, "vendor-b") == set()


def test_a_delegation_that_is_taken_away_lists_nothing_more_and_clients_follow(delegated: ImageRoom) -> None:
    push(delegated, document(delegated, 1, "vendor-b/dash-1.bin"))
    client = trusted(delegated)
    delegate(delegated)
    now = delegated.clock.now()
    for update, role in (
        (client.update_timestamp, "timestamp"),
        (client.update_snapshot, "snapshot"),
        (client.update_targets, "targets"),
    ):
        assert isinstance(update(delegated.document(role), now=now), Accepted)
    assert delegated.read(lambda tx: delegated.images.find_target(tx, delegated.account, "vendor-b/dash-1.bin")) is None
    # It may come back, and goes on where it was.
    delegate(delegated, delegation("vendor-b", [VENDOR], ["vendor-b/*"]))
    assert believed_of(delegated, "vendor-b") == {"vendor-b/dash-1.bin"}


def test_keys_of_a_delegation_change_together_with_its_document(delegated: ImageRoom) -> None:
    push(delegated, document(delegated, 1, "vendor-b/dash-1.bin"))
    new = OfflineKey()
    with pytest.raises(InvalidRequest) as refused:
        delegate(delegated, delegation("vendor-b", [new], ["vendor-b/*"]), keys=(new,))
    assert refused.value.subject == "client-refuses"
    targets_key, root_key = OfflineKey(), OfflineKey()
    delegated.take_offline(root_key, targets_key)
    body = delegated.next_targets(
        delegation_keys={new.public_key.id: new.public_key}, delegations=(delegation("vendor-b", [new], ["vendor-b/*"]),)
    )
    delegated.push(
        Push(
            targets=signed(body, [targets_key]),
            delegations={"vendor-b": signed(document(delegated, 2, "vendor-b/dash-1.bin"), [new])},
            checksum=delegated.checksum(),
        )
    )
    for flavour in Flavour:
        assert believed_of(delegated, "vendor-b", flavour) == {"vendor-b/dash-1.bin"}


def test_a_delegation_may_delegate_further(delegated: ImageRoom) -> None:
    below = OfflineKey()
    inner = delegation("vendor-c", [below], ["vendor-b/c/*"])
    outer = document(
        delegated,
        1,
        "vendor-b/dash-1.bin",
        delegations=(inner,),
        delegation_keys={below.public_key.id: below.public_key},
        has_delegations=True,
    )
    inner_document = document(delegated, 1, "vendor-b/c/lamp-1.bin")
    delegated.push(Push(delegations={"vendor-c": signed(inner_document, [below]), "vendor-b": signed(outer, [VENDOR])}))
    client = trusted(delegated)
    now = delegated.clock.now()
    assert isinstance(client.update_delegation("vendor-b", delegated.document("vendor-b"), now=now), Accepted)
    assert isinstance(client.update_delegation("vendor-c", delegated.document("vendor-c"), now=now, by="vendor-b"), Accepted)


def test_a_delegation_that_has_expired_holds_nobody_else_up(delegated: ImageRoom) -> None:
    push(delegated, document(delegated, 1, "vendor-b/dash-1.bin", expires=delegated.in_days(3)))
    delegated.clock.advance(milliseconds=5 * DAY_MS)
    delegated.run(lambda tx: delegated.images.add_target(tx, delegated.place, plan("gateway-1.bin")))
    assert set(trusted(delegated).targets.targets) == {"gateway-1.bin"}  # type: ignore[union-attr]
    alarms = {
        each.role: each.alarm_days for each in delegated.read(lambda tx: delegated.images.expiries(tx, delegated.account))
    }
    assert alarms["vendor-b"] == 0


def test_the_uptane_flavour_alone_leaves_tufs_clients_with_the_vendors_last_document(delegated: ImageRoom) -> None:
    push(delegated, document(delegated, 1, "vendor-b/dash-1.bin"))
    second = signed(document(delegated, 2, "vendor-b/dash-2.bin"), [VENDOR])
    delegated.push(Push(delegations={"vendor-b": {Flavour.UPTANE: second[Flavour.UPTANE]}}))
    assert believed_of(delegated, "vendor-b") == {"vendor-b/dash-2.bin"}
    assert believed_of(delegated, "vendor-b", Flavour.TUF) == {"vendor-b/dash-1.bin"}
