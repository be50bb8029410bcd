"""Targets that come from outside: the rules of the reference's §9.4, whole, with nothing published by a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from overair.basics.errors import InvalidRequest, OverairError, PreconditionFailed, VersionConflict
from overair.server.image_repository.model import Published, TargetStatus
from overair.server.image_repository.pushing import Push
from overair.server.roots.service import Rehearsed
from overair.wire.uptane.canonical import canonical
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role, TargetFile, Targets
from overair.wire.uptane.metadata_writing import payload
from tests.support.image_documents import sign_described
from tests.support.image_room import DAY_MS, ImageRoom, OfflineKey, delegation, plan, signed, target_file
from tests.support.image_view import believed, trusted

pytestmark = pytest.mark.parametrize("work", ["sqlite"], indirect=True)
"""What these tests are about isn't SQL; other files of this room run on both databases."""

ROOT_KEY, TARGETS_KEY = OfflineKey(), OfflineKey()


@pytest.fixture
def offline(room: ImageRoom) -> ImageRoom:
    """At the production level, with one image listed."""
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin", b"one")))
    room.take_offline(ROOT_KEY, TARGETS_KEY)
    return room


def state(room: ImageRoom) -> list[bytes]:
    return [room.document(role, flavour) for role in ("targets", "snapshot", "timestamp") for flavour in Flavour]


def push_targets(room: ImageRoom, targets: Targets, **options: Any) -> Published:
    options.setdefault("checksum", room.checksum())
    published = room.push(Push(targets=signed(targets, [TARGETS_KEY]), **options))
    assert isinstance(published, Published)
    return published


def refusal(room: ImageRoom, push: Push) -> OverairError:
    """Of a push that must be refused; nothing has changed by it, and no number was used."""
    before = state(room)
    with pytest.raises(OverairError) as refused:
        room.push(push)
    assert state(room) == before
    return refused.value


def codes(error: OverairError) -> set[str]:
    errors = error.details["errors"]
    assert isinstance(errors, list)
    return {item["code"] for item in errors}


def test_signed_targets_are_published_in_both_flavours_at_once(offline: ImageRoom) -> None:
    files = {**offline.targets().targets, "gateway-2.bin": target_file("gateway-2.bin")}
    published = push_targets(offline, offline.next_targets(files))
    assert published.warnings == ()
    for flavour in Flavour:
        assert set(believed(offline, flavour, first_root=1).targets) == {"gateway-1.bin", "gateway-2.bin"}
    assert published.checksum == offline.checksum()
    found = offline.read(lambda tx: offline.images.find_target(tx, offline.account, "gateway-2.bin"))
    assert found is not None
    assert (found.uri, found.hardware_ids) == ("https://images.example/gateway-2.bin", ("gw-imx8",))


def test_what_the_document_no_longer_names_is_deleted_with_its_bytes(offline: ImageRoom) -> None:
    push_targets(offline, offline.next_targets({}))
    (gone,), _ = offline.read(
        lambda tx: offline.images.page(tx, offline.account, statuses=[TargetStatus.DELETED], offset=0, limit=9)
    )
    assert (gone.name, gone.content_id) == ("gateway-1.bin", None)


def test_a_push_names_the_document_that_it_started_from(offline: ImageRoom) -> None:
    documents = signed(offline.next_targets(), [TARGETS_KEY])
    missing = refusal(offline, Push(targets=documents))
    assert isinstance(missing, PreconditionFailed)
    assert missing.subject == "role-checksum-missing"
    stale = refusal(offline, Push(targets=documents, checksum="0" * 64))
    assert stale.subject == "role-checksum"
    assert stale.details["checksum"] == offline.checksum()


def test_of_two_operators_who_push_at_once_one_hears_that_he_is_late(offline: ImageRoom) -> None:
    checksum, targets = offline.checksum(), offline.next_targets()
    push_targets(offline, targets, checksum=checksum)
    late = refusal(offline, Push(targets=signed(targets, [TARGETS_KEY]), checksum=checksum))
    assert late.subject == "role-checksum"


def test_a_dry_run_tells_everything_and_publishes_nothing(offline: ImageRoom) -> None:
    before = state(offline)
    with pytest.raises(Rehearsed) as rehearsed:
        push_targets(offline, offline.next_targets({}), dry_run=True)
    assert rehearsed.value.outcome.versions["targets"] == offline.targets().version + 1  # type: ignore[attr-defined]
    assert state(offline) == before
    assert offline.read(lambda tx: offline.images.find_target(tx, offline.account, "gateway-1.bin")) is not None


Spoil = Callable[[ImageRoom, Targets], Mapping[Flavour, bytes]]


def with_file(name: str = "new.bin", **changes: Any) -> Spoil:
    """One new target that is wrong in a member of its entry or of its custom."""

    def spoil(room: ImageRoom, targets: Targets) -> Mapping[Flavour, bytes]:
        file = target_file(name)
        members = {each: value for each, value in changes.items() if each in {"length", "hashes"}}
        custom = {**file.custom, **{each: value for each, value in changes.items() if each not in members}}
        custom = {each: value for each, value in custom.items() if value != "absent"}
        file = replace(file, custom=custom, **members)
        return signed(replace(targets, targets={**targets.targets, name: file}), [TARGETS_KEY])

    return spoil


def with_changes(**changes: Any) -> Spoil:
    return lambda room, targets: signed(replace(targets, **changes), [TARGETS_KEY])


def other_content(room: ImageRoom, targets: Targets) -> Mapping[Flavour, bytes]:
    files = {"gateway-1.bin": target_file("gateway-1.bin", b"not the same")}
    return signed(replace(targets, targets=files), [TARGETS_KEY])


def with_delegation(**changes: Any) -> Spoil:
    def spoil(room: ImageRoom, targets: Targets) -> Mapping[Flavour, bytes]:
        key = OfflineKey()
        made = replace(delegation("vendor-b", [key], ["vendor-b/*"]), **changes)
        keys = {key.public_key.id: key.public_key}
        return signed(replace(targets, delegations=(made,), delegation_keys=keys, has_delegations=True), [TARGETS_KEY])

    return spoil


def flavours_differ(room: ImageRoom, targets: Targets) -> Mapping[Flavour, bytes]:
    one, other = signed(targets, [TARGETS_KEY]), signed(replace(targets, targets={}), [TARGETS_KEY])
    return {Flavour.UPTANE: one[Flavour.UPTANE], Flavour.TUF: other[Flavour.TUF]}


def raw(change: Callable[[dict[str, Any]], None]) -> Spoil:
    def spoil(room: ImageRoom, targets: Targets) -> Mapping[Flavour, bytes]:
        members = {flavour: json.loads(canonical(payload(targets, flavour))) for flavour in Flavour}
        for described in members.values():
            change(described)
        return sign_described(members, [TARGETS_KEY])

    return spoil


BROKEN: list[tuple[str, Spoil, str]] = [
    ("by another key", lambda room, targets: signed(targets, [OfflineKey()]), "bad_key_id"),
    ("by nobody", lambda room, targets: signed(targets, []), "unmet_threshold"),
    ("expired", lambda room, targets: signed(replace(targets, expires=room.clock.now()), [TARGETS_KEY]), "expired_metadata"),
    (
        "for three years",
        lambda room, targets: signed(replace(targets, expires=room.in_days(1095)), [TARGETS_KEY]),
        "expires_too_late",
    ),
    ("no version", with_file(version="absent"), "invalid_custom"),
    ("no hardware ids", with_file(hardwareIds=[]), "invalid_custom"),
    ("a hardware id with a comma", with_file(hardwareIds=["a,b"]), "invalid_custom"),
    ("no creation time", with_file(createdAt="absent"), "invalid_custom"),
    ("an unknown format", with_file(targetFormat="ZIP"), "invalid_custom"),
    ("no SHA-256", with_file(hashes={"sha512": "ab" * 64}), "sha256_missing"),
    ("a name with ..", with_file("a/../b"), "invalid_target_name"),
    ("a name that begins with a slash", with_file("/etc/passwd"), "invalid_target_name"),
    ("a name that isn't ASCII", with_file("naïve.bin"), "not_printable_ascii"),
    ("a binary that was never uploaded", with_file(cliUploaded=True), "binary_missing"),
    ("a name with other bytes", other_content, "target_content_changed"),
    ("flavours that differ", flavours_differ, "flavours_differ"),
    ("a delegation with a bad name", with_delegation(name=".hidden"), "invalid_delegation_name"),
    ("a delegation without paths", with_delegation(paths=()), "paths_missing"),
    ("a delegation with a path that climbs", with_delegation(paths=("../*",)), "invalid_delegation_path"),
    ("a delegation by hash prefixes", with_delegation(path_hash_prefixes=("ab",)), "path_hash_prefixes_unsupported"),
    ("a version beyond 31 bits", raw(lambda m: m.update(version=2**40)), "invalid_metadata"),
    ("a negative length", raw(lambda m: m["targets"]["gateway-1.bin"].update(length=-1)), "invalid_metadata"),
    ("no hashes", raw(lambda m: m["targets"]["gateway-1.bin"].update(hashes={})), "invalid_metadata"),
    ("of another type", raw(lambda m: m.update(_type="Snapshot")), "wrong_type"),
]


@pytest.mark.parametrize(("spoil", "code"), [(spoil, code) for _, spoil, code in BROKEN], ids=[name for name, _, _ in BROKEN])
def test_targets_that_break_a_rule_are_refused_by_its_code(offline: ImageRoom, spoil: Spoil, code: str) -> None:
    documents = spoil(offline, offline.next_targets())
    error = refusal(offline, Push(targets=documents, checksum=offline.checksum()))
    assert error.subject == "offline-targets"
    assert code in codes(error)


@pytest.mark.parametrize("step", [0, 2, -1])
def test_a_version_is_the_next_one(offline: ImageRoom, step: int) -> None:
    targets = replace(offline.next_targets(), version=offline.targets().version + step)
    error = refusal(offline, Push(targets=signed(targets, [TARGETS_KEY]), checksum=offline.checksum()))
    assert isinstance(error, VersionConflict)
    assert error.subject == "version-bump"


def test_after_a_restore_a_higher_version_may_follow_on_demand(offline: ImageRoom) -> None:
    targets = replace(offline.next_targets(), version=offline.targets().version + 7)
    push_targets(offline, targets, after_restore=True)
    assert believed(offline, first_root=1).version == targets.version


def test_everything_that_is_wrong_is_told_in_one_answer(offline: ImageRoom) -> None:
    bad = {
        f"bad-{number}.bin": TargetFile(name=f"bad-{number}.bin", length=1, hashes={"sha512": "00" * 64}) for number in range(3)
    }
    targets = replace(offline.next_targets(bad), version=99, expires=offline.in_days(-1))
    error = refusal(offline, Push(targets=signed(targets, [OfflineKey()]), checksum=offline.checksum()))
    assert codes(error) >= {"bad_key_id", "invalid_version_bump", "expired_metadata", "invalid_custom", "sha256_missing"}
    errors = error.details["errors"]
    assert isinstance(errors, list)
    named = {item["field"].split(".")[2] for item in errors if item["code"] == "sha256_missing"}
    assert named == {"bad-0", "bad-1", "bad-2"}


def test_each_target_that_cant_be_read_is_named(offline: ImageRoom) -> None:
    def spoil(members: dict[str, Any]) -> None:
        for number in range(3):
            members["targets"][f"bad-{number}"] = {"length": "many", "hashes": {"sha256": "no"}}

    documents = raw(spoil)(offline, offline.next_targets())
    error = refusal(offline, Push(targets=documents, checksum=offline.checksum()))
    errors = error.details["errors"]
    assert isinstance(errors, list)
    assert {f"bad-{number}" for number in range(3)} <= {part for item in errors for part in item["field"].split(".")}


def test_an_uploaded_binary_and_its_entry_say_the_same(offline: ImageRoom) -> None:
    whole = plan("gateway-2.bin", b"two")
    assert whole.content_id is not None
    content_id = whole.content_id
    offline.run(
        lambda tx: offline.images.uploaded(
            tx, offline.place, "gateway-2.bin", sha256=whole.sha256, length=3, content_id=content_id
        )
    )
    wrong = target_file("gateway-2.bin", b"2 wo", cliUploaded=True, uri=None)
    files = {**offline.targets().targets, "gateway-2.bin": wrong}
    documents = signed(offline.next_targets(files), [TARGETS_KEY])
    assert codes(refusal(offline, Push(targets=documents, checksum=offline.checksum()))) == {"target_content_changed"}
    right = target_file("gateway-2.bin", b"two", cliUploaded=True, uri=None)
    push_targets(offline, offline.next_targets({**files, "gateway-2.bin": right}))
    found = offline.read(lambda tx: offline.images.find_target(tx, offline.account, "gateway-2.bin"))
    assert found is not None
    assert found.content_id == content_id


def test_what_vehicles_need_is_taken_away_by_force_alone(offline: ImageRoom) -> None:
    offline.in_use.names["gateway-1.bin"] = "assigned to car-7"
    documents = signed(offline.next_targets({}), [TARGETS_KEY])
    error = refusal(offline, Push(targets=documents, checksum=offline.checksum()))
    assert codes(error) == {"target_in_use"}
    assert "assigned to car-7" in error.message
    offline.push(Push(targets=documents, checksum=offline.checksum(), force=True))
    assert believed(offline).targets == {}


def test_a_name_that_was_deleted_stands_for_its_bytes_for_ever(offline: ImageRoom) -> None:
    push_targets(offline, offline.next_targets({}))
    documents = other_content(offline, offline.next_targets())
    assert codes(refusal(offline, Push(targets=documents, checksum=offline.checksum()))) == {"target_content_changed"}


# The root and its targets ------------------------------------------------------------------------------------------------


def test_a_root_with_other_targets_keys_waits_for_targets_that_they_signed(room: ImageRoom) -> None:
    """The order of OTA Connect's tools: the root first, then targets. Devices never see the one without the other."""
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    before = state(room)
    root = room.next_root(root=([ROOT_KEY], 1), targets=([TARGETS_KEY], 1))
    pushed = room.push(Push(root=signed(root, [ROOT_KEY, *room.server_signers(Role.ROOT)])))
    assert isinstance(pushed, Published)
    assert pushed.waiting_root == 2
    assert state(room) == before
    assert trusted(room, first_root=1).root.version == 1
    changed = room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-2.bin", b"two")))
    assert changed.unsigned is not None  # who uploads now hears that the keys are offline
    push_targets(room, room.next_targets())
    for flavour in Flavour:
        assert trusted(room, flavour, first_root=1).root.version == 2
        assert set(believed(room, flavour, first_root=1).targets) == {"gateway-1.bin"}


def test_a_root_that_was_pushed_wrong_is_mended_by_the_next_one_before_any_device_sees_either(room: ImageRoom) -> None:
    mistaken, right = OfflineKey(), OfflineKey()
    root = room.next_root(root=([ROOT_KEY], 1), targets=([mistaken], 1))
    room.push(Push(root=signed(root, [ROOT_KEY, *room.server_signers(Role.ROOT)])))
    room.push(Push(root=signed(room.next_root(targets=([right], 1)), [ROOT_KEY])))
    room.push(Push(targets=signed(room.next_targets(), [right]), checksum=room.checksum()))
    assert trusted(room, first_root=1).root.version == 3


def test_root_and_targets_in_one_publication_are_seen_together_or_not_at_all(room: ImageRoom) -> None:
    root = room.next_root(root=([ROOT_KEY], 1), targets=([TARGETS_KEY], 1))
    good_root = signed(root, [ROOT_KEY, *room.server_signers(Role.ROOT)])
    error = refusal(room, Push(root=good_root, targets=signed(room.next_targets(), [OfflineKey()]), checksum=room.checksum()))
    assert error.subject == "publication"
    errors = error.details["errors"]
    assert isinstance(errors, list)
    assert errors[0]["field"] == "targets.signatures"
    assert room.root().version == 1
    room.take_offline(ROOT_KEY, TARGETS_KEY)
    for flavour in Flavour:
        assert trusted(room, flavour, first_root=1).root.version == 2
    held = {key.key_id for key in room.read(lambda tx: room.roots.keys.all(tx, room.account, Repository.IMAGE))}
    assert held == set(room.root().role_keys(Role.SNAPSHOT).key_ids) | set(room.root().role_keys(Role.TIMESTAMP).key_ids)


def test_faults_of_root_and_targets_are_told_together(room: ImageRoom) -> None:
    root = replace(room.next_root(root=([ROOT_KEY], 1), targets=([TARGETS_KEY], 1)), version=5)
    targets = replace(room.next_targets(), version=5)
    error = refusal(room, Push(root=signed(root, [ROOT_KEY]), targets=signed(targets, [TARGETS_KEY]), checksum=room.checksum()))
    errors = error.details["errors"]
    assert isinstance(errors, list)
    assert {item["field"] for item in errors} >= {"root.signed.version", "root.signatures", "targets.signed.version"}


def test_while_a_root_waits_the_next_one_is_offered_with_its_keys_and_not_with_those_that_it_took_away(room: ImageRoom) -> None:
    root = room.next_root(root=([ROOT_KEY], 1), targets=([TARGETS_KEY], 1))
    room.push(Push(root=signed(root, [ROOT_KEY, *room.server_signers(Role.ROOT)])))
    unsigned = room.read(lambda tx: room.roots.unsigned(tx, room.account, Repository.IMAGE))
    room.push(Push(root=sign_described(unsigned.signed, [ROOT_KEY])))
    assert room.root().roles == root.roles


# One flavour --------------------------------------------------------------------------------------------------------------


def test_targets_in_the_uptane_flavour_alone_leave_tufs_clients_with_what_they_have(offline: ImageRoom) -> None:
    tuf = [offline.document(role, Flavour.TUF) for role in ("targets", "snapshot", "timestamp")]
    targets = offline.next_targets({})
    documents = signed(targets, [TARGETS_KEY])
    published = offline.push(Push(targets={Flavour.UPTANE: documents[Flavour.UPTANE]}, checksum=offline.checksum()))
    assert isinstance(published, Published)
    assert [warning.code for warning in published.warnings] == ["tuf_flavour_missing"]
    assert [offline.document(role, Flavour.TUF) for role in ("targets", "snapshot", "timestamp")] == tuf
    assert believed(offline).targets == {}
    assert set(believed(offline, Flavour.TUF).targets) == {"gateway-1.bin"}
    assert offline.read(lambda tx: offline.images.tuf_stands_still_since(tx, offline.account)) is not None
    offline.push(Push(targets={Flavour.TUF: documents[Flavour.TUF]}, checksum=offline.checksum()))
    assert believed(offline, Flavour.TUF).targets == {}
    assert offline.read(lambda tx: offline.images.tuf_stands_still_since(tx, offline.account)) is None


def test_a_root_in_the_uptane_flavour_alone_keeps_tufs_clients_on_the_old_keys_until_the_other_follows(room: ImageRoom) -> None:
    root = signed(room.next_root(root=([ROOT_KEY], 1), targets=([TARGETS_KEY], 1)), [ROOT_KEY, *room.server_signers(Role.ROOT)])
    targets = signed(room.next_targets(), [TARGETS_KEY])
    uptane = Flavour.UPTANE
    room.push(Push(root={uptane: root[uptane]}, targets={uptane: targets[uptane]}, checksum=room.checksum()))
    assert trusted(room, first_root=1).root.version == 2
    assert trusted(room, Flavour.TUF, first_root=1).root.version == 1
    tuf = Flavour.TUF
    room.push(Push(root={tuf: root[tuf]}, targets={tuf: targets[tuf]}, checksum=room.checksum()))
    assert trusted(room, Flavour.TUF, first_root=1).root.version == 2


def test_a_tuf_root_without_its_targets_isnt_shown_to_tufs_clients(room: ImageRoom) -> None:
    root = signed(room.next_root(root=([ROOT_KEY], 1), targets=([TARGETS_KEY], 1)), [ROOT_KEY, *room.server_signers(Role.ROOT)])
    targets = signed(room.next_targets(), [TARGETS_KEY])
    room.push(Push(root=root, targets={Flavour.UPTANE: targets[Flavour.UPTANE]}, checksum=room.checksum()))
    assert trusted(room, first_root=1).root.version == 2
    assert trusted(room, Flavour.TUF, first_root=1).root.version == 1
    room.push(Push(targets={Flavour.TUF: targets[Flavour.TUF]}, checksum=room.checksum()))
    assert trusted(room, Flavour.TUF, first_root=1).root.version == 2


@pytest.mark.parametrize("member", ["version", "expires"])
def test_a_late_tuf_flavour_says_what_the_uptane_one_says(offline: ImageRoom, member: str) -> None:
    targets = offline.next_targets({})
    offline.push(Push(targets=signed(targets, [TARGETS_KEY], [Flavour.UPTANE]), checksum=offline.checksum()))
    other = replace(targets, **{member: getattr(targets, member) + 1000})
    error = refusal(offline, Push(targets=signed(other, [TARGETS_KEY], [Flavour.TUF]), checksum=offline.checksum()))
    assert codes(error) == {"flavours_differ"}


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"signed":{},"signatures":[]}', b"\xff" * 10])
def test_what_are_no_targets_at_all_is_refused_in_the_same_way(offline: ImageRoom, data: bytes) -> None:
    error = refusal(offline, Push(targets={Flavour.UPTANE: data, Flavour.TUF: data}, checksum=offline.checksum()))
    assert isinstance(error, InvalidRequest)
    assert codes(error)


def test_expired_targets_hold_a_new_root_back_until_new_targets_come(offline: ImageRoom) -> None:
    offline.clock.advance(milliseconds=40 * DAY_MS)
    pushed = offline.push(Push(root=signed(offline.next_root(), [ROOT_KEY])))
    assert isinstance(pushed, Published)
    assert pushed.waiting_root == 3
    push_targets(offline, offline.next_targets())
    assert trusted(offline, first_root=1).root.version == 3
