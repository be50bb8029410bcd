"""Roots that come from outside: every rule of the reference's §9.4, asked whole and told in one answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.wire.uptane.canonical import canonical
from overair.wire.uptane.keys import Flavour, public_key_of
from overair.wire.uptane.metadata import Repository, Role, RoleKeys, Root
from overair.wire.uptane.metadata_writing import payload
from tests.server.roots.conftest import RootRoom
from tests.support.image_documents import sign_described
from tests.support.image_room import OfflineKey, signed

pytestmark = pytest.mark.parametrize("work", ["sqlite"], indirect=True)
"""What these tests are about isn't SQL; other files of this room run on both databases."""

Described = dict[Flavour, dict[str, Any]]


def described(root: Root) -> Described:
    """What is signed, in both flavours, to be spoilt."""
    return {flavour: json.loads(canonical(payload(root, flavour))) for flavour in Flavour}


def codes(refused: pytest.ExceptionInfo[InvalidRequest]) -> set[str]:
    errors = refused.value.details["errors"]
    assert isinstance(errors, list)
    assert all(error["description"] for error in errors)
    return {error["code"] for error in errors}


def refused(room: RootRoom, documents: Mapping[Flavour, bytes]) -> set[str]:
    """The codes of a push that must be refused; nothing has changed by it."""
    before, held = room.document(None), room.held()
    with pytest.raises(InvalidRequest) as error:
        room.push(dict(documents))
    assert error.value.subject == "root-role"
    assert room.document(None) == before
    assert room.held() == held
    return codes(error)


def test_a_root_by_old_and_new_keys_is_accepted_and_keys_that_it_no_longer_lists_are_deleted(room: RootRoom) -> None:
    room.create()
    old = room.root()
    new_root, new_targets = [OfflineKey(), OfflineKey()], OfflineKey()
    pushed = room.push(signed(room.next(root=(new_root, 2), targets=([new_targets], 1)), [*new_root, *room.signers()]))
    assert pushed.stored.is_published
    assert pushed.warnings == ()
    assert room.held() == set(old.role_keys(Role.SNAPSHOT).key_ids) | set(old.role_keys(Role.TIMESTAMP).key_ids)
    assert set(room.root().role_keys(Role.ROOT).key_ids) == {key.public_key.id for key in new_root}


def test_pretty_printed_json_is_accepted_and_stored_in_canonical_form(room: RootRoom) -> None:
    room.create()
    documents = signed(room.next(), room.signers())
    room.push({flavour: json.dumps(json.loads(data), indent=2).encode() for flavour, data in documents.items()})
    assert {flavour: room.document(2, flavour) for flavour in Flavour} == documents


Spoil = Callable[[RootRoom, Root], Mapping[Flavour, bytes]]


def by_server(room: RootRoom, root: Root) -> dict[Flavour, bytes]:
    return signed(root, room.signers())


def with_described(change: Callable[[dict[str, Any]], None]) -> Spoil:
    """A change of what is signed, the same in both flavours."""

    def spoil(room: RootRoom, root: Root) -> Mapping[Flavour, bytes]:
        members = described(root)
        for signed_members in members.values():
            change(signed_members)
        return sign_described(members, room.signers())

    return spoil


def rsa_root(size_bits: int) -> Spoil:
    def spoil(room: RootRoom, root: Root) -> Mapping[Flavour, bytes]:
        key = public_key_of(rsa.generate_private_key(65537, size_bits).public_key())
        roles = {**root.roles, "targets": RoleKeys(key_ids=(key.id,), threshold=1)}
        return by_server(room, replace(root, keys={**root.keys, key.id: key}, roles=roles))

    return spoil


def ecdsa_root(room: RootRoom, root: Root) -> Mapping[Flavour, bytes]:
    key = public_key_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    roles = {**root.roles, "targets": RoleKeys(key_ids=(key.id,), threshold=1)}
    return by_server(room, replace(root, keys={**root.keys, key.id: key}, roles=roles))


def foreign_snapshot(room: RootRoom, root: Root) -> Mapping[Flavour, bytes]:
    key = OfflineKey().public_key
    roles = {**root.roles, "snapshot": RoleKeys(key_ids=(key.id,), threshold=1)}
    return by_server(room, replace(root, keys={**root.keys, key.id: key}, roles=roles))


def strayed_key(room: RootRoom, root: Root) -> Mapping[Flavour, bytes]:
    return by_server(room, replace(root, roles={**root.roles, "targets": root.roles["snapshot"]}))


def rename_key(members: dict[str, Any]) -> None:
    key_id = members["roles"]["targets"]["keyids"][0]
    members["keys"]["ab" * 32] = members["keys"].pop(key_id)
    members["roles"]["targets"]["keyids"] = ["ab" * 32]


def unsigned_by_new(room: RootRoom, root: Root) -> Mapping[Flavour, bytes]:
    return signed(room.next(root=([OfflineKey()], 1)), room.signers())


def unsigned_by_old(room: RootRoom, root: Root) -> Mapping[Flavour, bytes]:
    key = OfflineKey()
    return signed(room.next(root=([key], 1)), [key])


BROKEN: list[tuple[str, Spoil, str]] = [
    ("the same version again", lambda room, root: by_server(room, replace(root, version=1)), "invalid_version_bump"),
    ("a version left out", lambda room, root: by_server(room, replace(root, version=3)), "invalid_version_bump"),
    ("not signed by the current keys", unsigned_by_old, "current_root_threshold_unmet"),
    ("not signed by the new keys", unsigned_by_new, "new_root_threshold_unmet"),
    ("threshold 0", with_described(lambda m: m["roles"]["targets"].update(threshold=0)), "illegal_threshold"),
    ("threshold 1001", with_described(lambda m: m["roles"]["root"].update(threshold=1001)), "illegal_threshold"),
    (
        "more signatures than keys",
        with_described(lambda m: m["roles"]["targets"].update(threshold=2)),
        "threshold_exceeds_keys",
    ),
    ("a key that isn't there", with_described(lambda m: m["roles"]["targets"].update(keyids=["cd" * 32])), "unknown_key"),
    ("a key under another name", with_described(rename_key), "key_id_mismatch"),
    ("RSA of 2048 bits", rsa_root(2048), "rsa_key_too_short"),
    ("ECDSA", ecdsa_root, "unsupported_method"),
    ("somebody else's snapshot key", foreign_snapshot, "not_the_servers_key"),
    ("the server's key in another role", strayed_key, "key_of_another_role"),
    ("expired", lambda room, root: by_server(room, replace(root, expires=room.clock.now())), "expired_metadata"),
    ("for three years", lambda room, root: by_server(room, replace(root, expires=room.in_days(1095))), "expires_too_late"),
    ("not ASCII", with_described(lambda m: m["roles"].update({"übrig": m["roles"]["root"]})), "not_printable_ascii"),
    ("a fraction of a second", with_described(lambda m: m.update(expires="2027-01-01T00:00:00.5Z")), "invalid_metadata"),
    ("no timestamp role", with_described(lambda m: m["roles"].pop("timestamp")), "invalid_metadata"),
    ("of another type", with_described(lambda m: m.update(_type="Targets")), "wrong_type"),
]


@pytest.mark.parametrize(("spoil", "code"), [(spoil, code) for _, spoil, code in BROKEN], ids=[name for name, _, _ in BROKEN])
def test_a_root_that_breaks_a_rule_is_refused_by_its_code(room: RootRoom, spoil: Spoil, code: str) -> None:
    room.create()
    assert code in refused(room, spoil(room, room.next()))


def test_everything_that_is_wrong_is_told_at_once_with_the_member_and_what_to_do(room: RootRoom) -> None:
    room.create()

    def spoil(members: dict[str, Any]) -> None:
        members.update(version=7, expires="2031-01-01T00:00:00Z")
        members["roles"]["targets"]["threshold"] = 5
        rename_key(members)

    documents = sign_described(described(room.next()), [OfflineKey()])
    spoilt = described(room.next())
    for members in spoilt.values():
        spoil(members)
    documents = sign_described(spoilt, [OfflineKey()])
    assert refused(room, documents) >= {
        "invalid_version_bump",
        "expires_too_late",
        "threshold_exceeds_keys",
        "key_id_mismatch",
        "current_root_threshold_unmet",
        "new_root_threshold_unmet",
    }
    with pytest.raises(InvalidRequest) as error:
        room.push(documents)
    errors = error.value.details["errors"]
    assert isinstance(errors, list)
    fields = {item["field"] for item in errors}
    assert "signed.roles.targets.threshold" in fields
    assert not any(field.startswith("tuf.") for field in fields)  # what both flavours break alike is told once


def test_what_can_be_told_of_a_root_that_the_typed_reader_refuses_is_told_too(room: RootRoom) -> None:
    room.create()

    def spoil(members: dict[str, Any]) -> None:
        members["version"] = 9
        members["roles"]["root"]["threshold"] = 0
        next(iter(members["keys"].values()))["keyval"]["public"] = "no key"

    spoilt = described(room.next())
    for members in spoilt.values():
        spoil(members)
    found = refused(room, sign_described(spoilt, room.signers()))
    assert found >= {"invalid_version_bump", "illegal_threshold", "invalid_metadata"}


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"signed":{}}', b'{"signed":1,"signatures":[]}', b"x" * 70_000])
def test_what_is_no_root_at_all_is_refused_in_the_same_way(room: RootRoom, data: bytes) -> None:
    room.create()
    assert refused(room, {Flavour.UPTANE: data, Flavour.TUF: data})


@pytest.mark.parametrize(
    ("member", "value"),
    [("expires", "2026-09-01T00:00:00Z"), ("version", 3), ("consistent_snapshot", True)],
)
def test_flavours_that_say_different_things_are_refused(room: RootRoom, member: str, value: object) -> None:
    room.create()
    members = described(room.next())
    members[Flavour.TUF][member] = value
    assert "flavours_differ" in refused(room, sign_described(members, room.signers()))


def test_what_is_only_risky_is_accepted_with_a_warning(room: RootRoom) -> None:
    room.create()
    shared = OfflineKey()
    root = replace(room.next(root=([shared], 1), targets=([shared], 1)), expires=room.in_days(5))
    spare = OfflineKey().public_key
    root = replace(root, keys={**root.keys, spare.id: spare})
    pushed = room.push(signed(root, [shared, *room.signers()]))
    assert {warning.code for warning in pushed.warnings} == {
        "expires_soon",
        "key_in_two_roles",
        "single_root_key",
        "unused_key",
    }


def test_the_uptane_flavour_alone_leaves_tufs_clients_where_they_are_until_the_other_follows(room: RootRoom) -> None:
    room.create()
    documents = signed(room.next(), room.signers())
    pushed = room.push({Flavour.UPTANE: documents[Flavour.UPTANE]})
    assert {warning.code for warning in pushed.warnings} >= {"tuf_flavour_missing"}
    versions = {
        flavour: room.read(lambda tx: room.roots.newest_version(tx, room.place.account, room.repository, flavour))  # noqa: B023
        for flavour in Flavour
    }
    assert versions == {Flavour.UPTANE: 2, Flavour.TUF: 1}
    # The next root in both flavours would leave a gap in TUF's chain.
    assert "tuf_chain_behind" in refused(room, signed(room.next(), room.signers()))
    assert refused(room, {Flavour.TUF: signed(replace(room.root(), expires=room.in_days(9)), room.signers())[Flavour.TUF]}) == {
        "flavours_differ"
    }
    room.push({Flavour.TUF: documents[Flavour.TUF]})
    room.push(signed(room.next(), room.signers()))
    assert room.document(3, Flavour.TUF)


def test_the_servers_own_signature_may_be_added_so_that_its_key_never_leaves(room: RootRoom) -> None:
    room.create()
    key = OfflineKey()
    documents = signed(room.next(root=([key], 1)), [key])
    assert "current_root_threshold_unmet" in refused(room, documents)
    room.push(documents, cosign=True)
    assert room.root().role_keys(Role.ROOT).key_ids == (key.public_key.id,)


def test_of_the_director_targets_stay_with_the_server(room: RootRoom) -> None:
    room.repository = Repository.DIRECTOR
    room.create()
    key = OfflineKey()
    assert refused(room, signed(room.next(targets=([key], 1)), room.signers())) == {"not_the_servers_key"}
    room.push(signed(room.next(root=([key], 1)), [key, *room.signers()]))
    assert room.root().version == 2


def test_a_root_that_lasts_until_the_clocks_end_is_no_fault_of_ours(room: RootRoom) -> None:
    room.create()
    assert "expires_too_late" in refused(room, by_server(room, replace(room.next(), expires=Instant(253_402_300_799_000))))
