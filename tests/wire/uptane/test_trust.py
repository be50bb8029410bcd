from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import MetaFile, Repository, Role, RoleKeys, Snapshot, TargetFile, Timestamp
from overair.wire.uptane.metadata_writing import meta_of
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.trust import Accepted, AcceptedButExpired, Chain, Refused, TrustedSet
from tests.support.uptane_repository import DAY, KeyHolder, UptaneRepository, assigned, target_file
from tests.support.uptane_trust import NOW, begin, believing, director, reason_of, update

YEAR = 365 * DAY
FLAVOURS = pytest.mark.parametrize("flavour", Flavour)
APP = target_file("app-2.bin", b"two", hardware_ids=["gw"])


def later(days: int) -> Instant:
    return Instant(NOW + days * DAY)


# --- the order ---


@FLAVOURS
def test_a_whole_repository_is_believed_in_order(flavour: Flavour) -> None:
    repository = UptaneRepository(flavour=flavour)
    repository.add_target(APP)
    trusted = begin(repository)
    assert trusted.check_usable(NOW) is not None
    assert isinstance(update(trusted, repository), Accepted)
    assert trusted.check_usable(NOW) is None
    assert trusted.targets is not None
    assert trusted.targets.targets == {"app-2.bin": APP}
    assert dict(trusted.documents) == {
        name: repository.files[name] for name in ("root.json", "timestamp.json", "snapshot.json", "targets.json")
    }


@FLAVOURS
def test_nothing_is_believed_before_what_vouches_for_it(flavour: Flavour) -> None:
    repository = UptaneRepository(flavour=flavour)
    trusted, files = begin(repository), repository.files
    assert reason_of(trusted.update_snapshot(files["snapshot.json"], now=NOW)) is Reason.OUT_OF_ORDER
    assert reason_of(trusted.update_targets(files["targets.json"], now=NOW)) is Reason.OUT_OF_ORDER
    trusted.update_timestamp(files["timestamp.json"], now=NOW)
    assert reason_of(trusted.update_targets(files["targets.json"], now=NOW)) is Reason.OUT_OF_ORDER
    trusted.update_snapshot(files["snapshot.json"], now=NOW)
    assert reason_of(trusted.check_usable(NOW)) is Reason.OUT_OF_ORDER
    assert isinstance(trusted.update_targets(files["targets.json"], now=NOW), Accepted)


def test_a_newer_timestamp_takes_the_use_of_what_it_no_longer_means() -> None:
    repository = UptaneRepository()
    trusted = believing(repository)
    assert trusted.targets_are_current
    old_targets = repository.files["targets.json"]
    repository.add_target(APP)
    trusted.update_timestamp(repository.files["timestamp.json"], now=NOW)
    assert (trusted.snapshot_is_current, trusted.targets_are_current) == (False, False)
    assert reason_of(trusted.check_usable(NOW)) is Reason.OUT_OF_ORDER
    assert reason_of(trusted.update_targets(old_targets, now=NOW)) is Reason.OUT_OF_ORDER
    trusted.update_snapshot(repository.files["snapshot.json"], now=NOW)
    assert (trusted.snapshot_is_current, trusted.targets_are_current) == (True, False)
    # Old targets beside a new snapshot: what mix-and-match would have us believe.
    assert reason_of(trusted.update_targets(old_targets, now=NOW)) is Reason.HASH_MISMATCH


def test_the_same_documents_again_change_nothing() -> None:
    repository = UptaneRepository()
    trusted = believing(repository)
    before = dict(trusted.documents)
    for verdict in (
        trusted.update_timestamp(before["timestamp.json"], now=NOW),
        trusted.update_snapshot(before["snapshot.json"], now=NOW),
        trusted.update_targets(before["targets.json"], now=NOW),
    ):
        assert isinstance(verdict, Accepted)
        assert not verdict.changed
    assert dict(trusted.documents) == before


# --- roots ---


def test_a_set_begins_with_a_root_that_vouches_for_itself() -> None:
    repository = UptaneRepository()
    data = repository.signed(repository.root, [KeyHolder()])
    with pytest.raises(MetadataRefused) as caught:
        TrustedSet.begin(data, repository=Repository.IMAGE)
    assert caught.value.reason is Reason.BAD_KEY_ID


def test_the_image_repository_is_never_read_without_its_snapshot() -> None:
    with pytest.raises(RuntimeError):
        begin(UptaneRepository(), chain=Chain.ROOT_AND_TARGETS)


@FLAVOURS
def test_a_chain_of_roots_is_followed_one_by_one_though_those_between_have_expired(flavour: Flavour) -> None:
    repository = UptaneRepository(flavour=flavour)
    trusted = begin(repository)
    for number in range(2, 5):
        old = list(repository.keys[Role.ROOT])
        repository.keys[Role.ROOT] = [KeyHolder(), KeyHolder()]
        repository.thresholds[Role.ROOT] = 2
        repository.publish_root(also_by=old, expires=Instant(NOW - DAY) if number < 4 else None)
    assert reason_of(trusted.update_root(repository.files["3.root.json"])) in (Reason.BAD_KEY_ID, Reason.UNMET_THRESHOLD)
    for number in range(2, 5):
        verdict = trusted.update_root(repository.files[f"{number}.root.json"])
        assert isinstance(verdict, Accepted)
        assert verdict.changed
    assert isinstance(trusted.check_root_expiry(NOW), Accepted)
    assert trusted.root.version == 4


def test_a_new_root_needs_the_old_keys_and_its_own() -> None:
    repository = UptaneRepository()
    trusted = begin(repository)
    old, new = repository.keys[Role.ROOT], [KeyHolder()]
    repository.keys[Role.ROOT] = new
    both = repository.publish_root(also_by=old)
    for signers, by in (([*new], "which is trusted"), ([*old], "own keys")):
        verdict = trusted.update_root(repository.signed(repository.root, signers))
        assert isinstance(verdict, Refused)
        assert verdict.reason is Reason.BAD_KEY_ID
        assert by in verdict.message
    assert trusted.root.version == 1
    assert isinstance(trusted.update_root(both), Accepted)


@pytest.mark.parametrize("version", [1, 3, 2**31 - 1])
def test_a_root_has_the_next_number_and_no_other(version: int) -> None:
    repository = UptaneRepository()
    trusted = begin(repository)
    verdict = trusted.update_root(repository.publish_root(version=version))
    assert reason_of(verdict) is Reason.ROOT_ROTATION
    assert trusted.root.version == 1


def test_under_an_expired_root_nothing_is_believed_and_nothing_may_be_used() -> None:
    repository = UptaneRepository(life_ms=2 * YEAR)
    trusted = believing(repository)
    at = later(366)
    assert isinstance(trusted.check_root_expiry(at), AcceptedButExpired)
    assert reason_of(trusted.check_usable(at)) is Reason.EXPIRED_METADATA
    for verdict in (
        trusted.update_timestamp(repository.files["timestamp.json"], now=at),
        trusted.update_snapshot(repository.files["snapshot.json"], now=at),
        trusted.update_targets(repository.files["targets.json"], now=at),
    ):
        assert reason_of(verdict) is Reason.EXPIRED_METADATA
    repository.publish_root(expires=later(400))
    assert isinstance(trusted.update_root(repository.files["2.root.json"]), Accepted)
    assert trusted.check_usable(at) is None


def fast_forward(repository: UptaneRepository) -> None:
    """Versions as a thief would leave them."""
    repository.targets = replace(repository.targets, version=900)
    repository.snapshot = replace(repository.snapshot, version=900)
    repository.timestamp = replace(repository.timestamp, version=900)
    repository.publish()


def back_to_the_start(repository: UptaneRepository) -> None:
    """Versions as the owner wants them again."""
    repository.targets = replace(repository.targets, version=5)
    repository.snapshot = replace(repository.snapshot, version=5)
    repository.timestamp = replace(repository.timestamp, version=5)
    repository.publish()


def test_new_keys_of_timestamp_and_snapshot_outrun_a_thief_who_counted_versions_up() -> None:
    repository = UptaneRepository(flavour=Flavour.TUF)
    fast_forward(repository)
    trusted = believing(repository)
    back_to_the_start(repository)
    assert reason_of(update(trusted, repository)) is Reason.ROLLBACK
    repository.rotate(Role.TIMESTAMP, Role.SNAPSHOT)
    assert isinstance(update(trusted, repository), Accepted)
    assert trusted.targets is not None
    assert trusted.targets.version == 7


def test_in_the_uptane_flavour_targets_go_back_only_with_new_keys_of_their_own() -> None:
    repository = UptaneRepository()
    fast_forward(repository)
    trusted = believing(repository)
    back_to_the_start(repository)
    repository.rotate(Role.TIMESTAMP, Role.SNAPSHOT)
    assert reason_of(update(trusted, repository)) is Reason.ROLLBACK
    assert trusted.timestamp is not None
    assert trusted.timestamp.version < 900
    repository.rotate(Role.TARGETS)
    assert isinstance(update(trusted, repository), Accepted)


def test_a_root_that_changes_no_keys_takes_nothing_away() -> None:
    repository = UptaneRepository()
    trusted = believing(repository)
    repository.publish_root()
    before = {name: data for name, data in trusted.documents.items() if name != "root.json"}
    assert isinstance(trusted.update_root(repository.files["2.root.json"]), Accepted)
    assert {name: data for name, data in trusted.documents.items() if name != "root.json"} == before
    assert trusted.check_usable(NOW) is None


def test_a_threshold_that_rises_takes_away_what_no_longer_meets_it() -> None:
    repository = UptaneRepository()
    repository.keys[Role.TARGETS] = [KeyHolder(), KeyHolder()]
    repository.publish_root()
    trusted = begin(repository)
    trusted.update_root(repository.files["2.root.json"])
    holders = repository.keys[Role.TARGETS]
    repository.keys[Role.TARGETS] = holders[:1]
    repository.publish()  # signed by one of the two
    repository.keys[Role.TARGETS] = holders
    assert isinstance(update(trusted, repository), Accepted)
    repository.thresholds[Role.TARGETS] = 2
    trusted.update_root(repository.publish_root())
    assert (trusted.targets, trusted.snapshot is None) == (None, False)


def test_a_new_root_of_the_director_takes_everything_away_as_aktualizr_does() -> None:
    repository = director()
    trusted = believing(repository)
    trusted.update_root(repository.publish_root())
    assert set(trusted.documents) == {"root.json"}
    assert (trusted.timestamp, trusted.snapshot, trusted.targets) == (None, None, None)


# --- rollback, of each role ---


@FLAVOURS
@pytest.mark.parametrize("role", [Role.TIMESTAMP, Role.SNAPSHOT, Role.TARGETS])
def test_no_role_goes_back_even_with_all_keys_but_the_roots(role: Role, flavour: Flavour) -> None:
    repository = UptaneRepository(flavour=flavour)
    repository.publish()
    trusted = believing(repository)
    body = getattr(repository, role.value)
    setattr(repository, role.value, replace(body, version=0))  # the next that is signed has version 1
    repository.publish_timestamp() if role is Role.TIMESTAMP else repository.publish()
    assert reason_of(update(trusted, repository)) is Reason.ROLLBACK


@FLAVOURS
def test_a_timestamp_that_means_an_older_snapshot_is_refused_before_that_is_fetched(flavour: Flavour) -> None:
    repository = UptaneRepository(flavour=flavour)
    repository.publish()
    trusted = believing(repository)
    above(repository, Role.SNAPSHOT, version=1)
    assert reason_of(trusted.update_timestamp(repository.files["timestamp.json"], now=NOW)) is Reason.ROLLBACK


@pytest.mark.parametrize("role", [Role.TIMESTAMP, Role.SNAPSHOT, Role.TARGETS])
def test_one_version_says_one_thing(role: Role) -> None:
    repository = UptaneRepository()
    trusted = believing(repository)
    repository.targets = replace(
        repository.targets, custom={"note": "changed"}, version=repository.targets.version - (role is Role.TARGETS)
    )
    repository.snapshot = replace(repository.snapshot, version=repository.snapshot.version - (role is Role.SNAPSHOT))
    repository.timestamp = replace(repository.timestamp, version=repository.timestamp.version - (role is Role.TIMESTAMP))
    repository.publish()
    verdict = update(trusted, repository)
    assert reason_of(verdict) is Reason.ROLLBACK
    assert isinstance(verdict, Refused)
    assert f"of {role} is trusted already and says something else" in verdict.message


def test_the_same_words_signed_anew_are_taken_and_stored() -> None:
    repository = UptaneRepository()
    repository.keys[Role.TIMESTAMP] = [KeyHolder(), KeyHolder()]
    repository.publish_root()
    repository.publish()
    trusted = begin(repository)
    assert isinstance(update(trusted, repository), Accepted)
    again = repository.signed(repository.timestamp, repository.keys[Role.TIMESTAMP][1:])
    verdict = trusted.update_timestamp(again, now=NOW)
    assert isinstance(verdict, Accepted)
    assert verdict.changed
    assert trusted.documents["timestamp.json"] == again


def test_in_the_tuf_flavour_an_equal_timestamp_is_no_news_whatever_it_says() -> None:
    repository = UptaneRepository(flavour=Flavour.TUF)
    trusted = believing(repository)
    known = trusted.documents["timestamp.json"]
    other = replace(repository.timestamp, snapshot=MetaFile(version=100))
    verdict = trusted.update_timestamp(repository.signed(other, repository.keys[Role.TIMESTAMP]), now=NOW)
    assert isinstance(verdict, Accepted)
    assert not verdict.changed
    assert trusted.documents["timestamp.json"] == known


@FLAVOURS
def test_a_snapshot_may_neither_lose_a_targets_file_nor_lower_its_version(flavour: Flavour) -> None:
    repository = UptaneRepository(flavour=flavour)
    repository.delegate("vendor", ["vendor/*"])
    repository.publish()
    trusted = believing(repository)
    whole = dict(repository.snapshot.meta)
    repository.publish_snapshot(meta={"targets.json": whole["targets.json"]})
    verdict = update(trusted, repository)
    assert isinstance(verdict, Refused)
    assert (verdict.reason, "vendor.json" in verdict.message) == (Reason.ROLLBACK, True)
    repository.publish_snapshot(meta={**whole, "vendor.json": replace(whole["vendor.json"], version=1)})
    assert reason_of(update(trusted, repository)) is Reason.ROLLBACK
    repository.publish_snapshot(meta=whole)
    assert isinstance(update(trusted, repository), Accepted)


def test_that_a_snapshot_once_named_the_root_binds_it_to_nothing() -> None:
    repository = UptaneRepository()
    whole = dict(repository.snapshot.meta)
    repository.publish_snapshot(meta={**whole, "root.json": MetaFile(version=7)})
    trusted = believing(repository)
    repository.publish_snapshot(meta=whole)
    assert isinstance(update(trusted, repository), Accepted)


# --- what the document above says ---


def above(repository: UptaneRepository, role: Role, **changes: Any) -> None:
    """Let the document above say something else of this one, properly signed."""
    if role is Role.SNAPSHOT:
        snapshot = replace(meta_of(repository.files["snapshot.json"], repository.snapshot.version), **changes)
        body = Timestamp(version=repository.timestamp.version + 1, expires=repository.expires, snapshot=snapshot)
        repository.files["timestamp.json"] = repository.signed(body, repository.keys[Role.TIMESTAMP])
    else:
        meta = replace(meta_of(repository.files["targets.json"], repository.targets.version), **changes)
        repository.publish_snapshot(meta={"targets.json": meta})


@FLAVOURS
@pytest.mark.parametrize("role", [Role.SNAPSHOT, Role.TARGETS])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 77}, Reason.VERSION_MISMATCH),
        ({"hashes": {"sha256": "0" * 64}}, Reason.HASH_MISMATCH),
        ({"hashes": {"sha512": "0" * 128}}, Reason.HASH_MISMATCH),
        ({"hashes": {"blake9": "0" * 64}}, Reason.HASH_MISMATCH),
    ],
)
def test_a_document_must_be_the_one_that_is_meant(
    flavour: Flavour, role: Role, changes: dict[str, Any], reason: Reason
) -> None:
    repository = UptaneRepository(flavour=flavour)
    trusted = begin(repository)
    above(repository, role, **changes)
    assert reason_of(update(trusted, repository)) is reason


def test_a_snapshot_longer_than_its_timestamp_says_is_not_read() -> None:
    repository = UptaneRepository()
    trusted = begin(repository)
    above(repository, Role.SNAPSHOT, length=10)
    assert reason_of(update(trusted, repository)) is Reason.OVERSIZED
    assert trusted.snapshot_size_bytes_max == 10


def test_in_the_tuf_flavour_a_length_is_exact() -> None:
    repository = UptaneRepository(flavour=Flavour.TUF)
    trusted = begin(repository)
    above(repository, Role.TARGETS, length=len(repository.files["targets.json"]) + 1, hashes={})
    assert reason_of(update(trusted, repository)) is Reason.HASH_MISMATCH


def test_how_much_is_fetched_at_most_is_known_beforehand() -> None:
    repository = UptaneRepository()
    trusted = begin(repository)
    assert trusted.snapshot_size_bytes_max == 64 * 1024
    assert trusted.targets_size_bytes_max == 8 * 1024 * 1024
    above(repository, Role.SNAPSHOT, length=2**50)
    trusted.update_timestamp(repository.files["timestamp.json"], now=NOW)
    assert trusted.snapshot_size_bytes_max == 8 * 1024 * 1024
    assert begin(director()).targets_size_bytes_max == 64 * 1024


def test_pretty_printed_documents_pass_in_the_uptane_flavour_since_their_meaning_is_hashed() -> None:
    repository = UptaneRepository()
    trusted = begin(repository)
    trusted.update_timestamp(repository.files["timestamp.json"], now=NOW)
    trusted.update_snapshot(repository.files["snapshot.json"], now=NOW)
    pretty = json.dumps(json.loads(repository.files["targets.json"]), indent=1).encode()
    assert isinstance(trusted.update_targets(pretty, now=NOW), Accepted)
    assert trusted.documents["targets.json"] == pretty


@FLAVOURS
@pytest.mark.parametrize("role", [Role.TIMESTAMP, Role.SNAPSHOT, Role.TARGETS])
def test_each_role_is_signed_by_its_own_keys(role: Role, flavour: Flavour) -> None:
    repository = UptaneRepository(flavour=flavour)
    trusted = begin(repository)
    repository.keys[role] = [KeyHolder()]
    repository.publish()
    assert reason_of(update(trusted, repository)) is Reason.BAD_KEY_ID
    assert trusted.check_usable(NOW) is not None


# --- expiry ---


@FLAVOURS
@pytest.mark.parametrize("role", [Role.TIMESTAMP, Role.SNAPSHOT, Role.TARGETS])
def test_what_comes_expired_is_refused_and_changes_nothing(role: Role, flavour: Flavour) -> None:
    repository = UptaneRepository(flavour=flavour)
    trusted = believing(repository)
    before = dict(trusted.documents)
    past = Instant(NOW)  # it counts until its moment, not at it
    if role is Role.TARGETS:
        body = replace(repository.targets, version=repository.targets.version + 1, expires=past)
        repository.targets = body
        repository.files["targets.json"] = repository.signed(body, repository.keys[role])
        repository.publish_snapshot()
    elif role is Role.SNAPSHOT:
        repository.publish_snapshot(expires=past)
        repository.publish_timestamp()
    else:
        repository.publish_timestamp(expires=past)
    verdict = update(trusted, repository)
    assert reason_of(verdict) is Reason.EXPIRED_METADATA
    assert trusted.documents[f"{role.value}.json"] == before[f"{role.value}.json"]


def test_a_frozen_repository_stops_being_believed_by_itself() -> None:
    repository = UptaneRepository()
    trusted = believing(repository)
    assert trusted.check_usable(later(29)) is None
    assert reason_of(trusted.check_usable(later(30))) is Reason.EXPIRED_METADATA
    assert reason_of(update(trusted, repository, now=later(30))) is Reason.EXPIRED_METADATA


# --- the Director ---


def test_the_directors_targets_are_believed_with_and_without_a_snapshot() -> None:
    repository = director()
    repository.put_targets(assigned(APP, {"primary": "gw"}))
    for chain in Chain:
        trusted = believing(repository, chain=chain)
        assert trusted.check_usable(NOW) is None
    assert reason_of(trusted.update_timestamp(repository.files["timestamp.json"], now=NOW)) is Reason.OUT_OF_ORDER
    assert reason_of(trusted.update_snapshot(repository.files["snapshot.json"], now=NOW)) is Reason.OUT_OF_ORDER


def test_without_a_snapshot_the_directors_targets_still_do_not_go_back() -> None:
    repository = director()
    old = repository.files["targets.json"]
    repository.put_targets(assigned(APP, {"primary": "gw"}))
    trusted = believing(repository, chain=Chain.ROOT_AND_TARGETS)
    assert reason_of(trusted.update_targets(old, now=NOW)) is Reason.ROLLBACK
    assert reason_of(trusted.check_usable(later(30))) is Reason.EXPIRED_METADATA


def test_a_director_that_has_no_keys_for_a_snapshot_serves_those_who_ask_for_none() -> None:
    repository = director()
    roles = {name: keys for name, keys in repository.root.roles.items() if name in ("root", "targets")}
    data = repository.signed(replace(repository.root, roles=roles), repository.keys[Role.ROOT])
    trusted = TrustedSet.begin(data, repository=Repository.DIRECTOR, chain=Chain.ROOT_AND_TARGETS)
    assert isinstance(trusted.update_targets(repository.files["targets.json"], now=NOW), Accepted)
    with pytest.raises(MetadataRefused):
        TrustedSet.begin(data, repository=Repository.DIRECTOR)


def malformed_targets() -> dict[str, TargetFile]:
    good = assigned(APP, {"primary": "gw"})
    return {
        "nobody": replace(good, custom={}),
        "no-ecus": replace(good, custom={"ecuIdentifiers": {}}),
        "no-object": replace(good, custom={"ecuIdentifiers": ["primary"]}),
        "no-hardware": replace(good, custom={"ecuIdentifiers": {"primary": {}}}),
        "hardware-is-a-number": replace(good, custom={"ecuIdentifiers": {"primary": {"hardwareId": 7}}}),
    }


@pytest.mark.parametrize("case", malformed_targets())
@pytest.mark.parametrize("chain", Chain)
def test_a_director_names_the_ecus_of_each_target(case: str, chain: Chain) -> None:
    repository = director()
    trusted = believing(repository, chain=chain)
    repository.put_targets(malformed_targets()[case])
    verdict = (
        update(trusted, repository)
        if chain is Chain.WHOLE
        else trusted.update_targets(repository.files["targets.json"], now=NOW)
    )
    assert isinstance(verdict, Refused)
    assert verdict.reason is Reason.INVALID_METADATA
    assert verdict.field.startswith("signed.targets.app-2.bin.custom.ecuIdentifiers")


def test_a_director_that_names_an_ecu_twice_or_delegates_is_refused() -> None:
    repository = director()
    trusted = believing(repository)
    repository.put_targets(
        assigned(APP, {"primary": "gw"}), assigned(target_file("other.bin", b"other"), {"primary": "gw", "second": "gw"})
    )
    verdict = update(trusted, repository)
    assert isinstance(verdict, Refused)
    assert (verdict.reason, verdict.field) == (
        Reason.INVALID_METADATA,
        "signed.targets.other.bin.custom.ecuIdentifiers.primary",
    )
    repository.put_targets()
    repository.delegate("vendor", ["*"])
    verdict = update(trusted, repository)
    assert isinstance(verdict, Refused)
    assert verdict.field == "signed.delegations"
    assert reason_of(trusted.update_delegation("vendor", repository.files["vendor.json"], now=NOW)) is Reason.INVALID_METADATA


def test_targets_for_another_vehicle_are_refused_where_both_say_who_they_are() -> None:
    repository = director()
    repository.put_targets(custom={"deviceId": "truck-2"})
    root = repository.files["1.root.json"]
    for vehicle, expected in (("truck-1", Reason.BAD_ECU_ID), ("truck-2", None), (None, None)):
        trusted = TrustedSet.begin(root, repository=Repository.DIRECTOR, vehicle=vehicle)
        assert reason_of(update(trusted, repository)) is expected


# --- delegated targets ---


def delegating(flavour: Flavour = Flavour.UPTANE) -> UptaneRepository:
    repository = UptaneRepository(flavour=flavour)
    repository.delegate("vendor", ["vendor/*"], target_file("vendor/app", b"app"))
    repository.delegate("team", ["vendor/*"], target_file("vendor/tool", b"tool"), below="vendor")
    return repository


@FLAVOURS
def test_delegated_targets_are_believed_for_whom_vouches_for_them(flavour: Flavour) -> None:
    repository = delegating(flavour)
    trusted = believing(repository)
    team = repository.files["team.json"]
    assert reason_of(trusted.update_delegation("team", team, now=NOW, by="vendor")) is Reason.OUT_OF_ORDER
    assert reason_of(trusted.update_delegation("team", team, now=NOW)) is Reason.DELEGATION_MISSING
    assert isinstance(trusted.update_delegation("vendor", repository.files["vendor.json"], now=NOW), Accepted)
    assert isinstance(trusted.update_delegation("team", team, now=NOW, by="vendor"), Accepted)
    assert set(trusted.delegations) == {"vendor", "team"}
    assert trusted.delegation("team", by="vendor", now=NOW) == repository.delegated["team"]
    assert isinstance(trusted.delegation("team", now=NOW), Refused)


def test_a_delegated_document_must_be_the_one_of_the_snapshot_and_unexpired() -> None:
    repository = delegating()
    trusted = believing(repository)
    old = repository.files["vendor.json"]
    repository.publish()
    update(trusted, repository)
    assert reason_of(trusted.update_delegation("vendor", old, now=NOW)) is Reason.DELEGATION_HASH_MISMATCH
    meta = {**repository.snapshot.meta, "vendor.json": MetaFile(version=repository.delegated["vendor"].version)}
    repository.publish_snapshot(meta=meta)  # no hashes any more, as old servers leave them out
    update(trusted, repository)
    assert reason_of(trusted.update_delegation("vendor", old, now=NOW)) is Reason.VERSION_MISMATCH
    repository.publish_snapshot(
        meta={"targets.json": meta["targets.json"], "vendor.json": meta["vendor.json"], "team.json": meta["team.json"]}
    )
    expired = replace(repository.delegated["vendor"], expires=Instant(NOW - 1000))
    data = repository.signed(expired, [repository.delegation_keys["vendor"]])
    assert reason_of(trusted.update_delegation("vendor", data, now=NOW)) is Reason.EXPIRED_METADATA
    assert (
        reason_of(trusted.update_delegation("vendor", repository.signed(expired, [KeyHolder()]), now=NOW)) is Reason.BAD_KEY_ID
    )
    assert trusted.delegations == {}


def test_what_the_snapshot_does_not_name_is_not_even_asked_for() -> None:
    repository = delegating()
    repository.publish_snapshot(meta={"targets.json": repository.snapshot.meta["targets.json"]})
    trusted = believing(repository)
    found = trusted.delegation("vendor", now=NOW)
    assert reason_of(found) is Reason.DELEGATION_MISSING
    assert reason_of(trusted.update_delegation("vendor", repository.files["vendor.json"], now=NOW)) is Reason.DELEGATION_MISSING


def test_a_held_document_is_no_longer_used_once_it_is_not_the_one_that_is_meant() -> None:
    repository = delegating()
    trusted = believing(repository)
    trusted.update_delegation("vendor", repository.files["vendor.json"], now=NOW)
    assert trusted.delegation("vendor", now=NOW) is not None
    repository.publish()
    update(trusted, repository)
    assert trusted.delegation("vendor", now=NOW) is None
    assert (
        reason_of(trusted.update_delegation("team", repository.files["team.json"], now=NOW, by="vendor")) is Reason.OUT_OF_ORDER
    )


def test_a_delegated_document_does_not_go_back_under_the_same_keys() -> None:
    repository = delegating()
    repository.publish()
    trusted = believing(repository)
    trusted.update_delegation("vendor", repository.files["vendor.json"], now=NOW)
    stale = replace(repository.delegated["vendor"], version=1)
    data = repository.signed(stale, [repository.delegation_keys["vendor"]])
    # A snapshot that lowers it is refused already; so begin anew, with the stored vendor document alone as a floor.
    fresh = begin(repository)
    fresh.adopt({"targets.json": trusted.documents["targets.json"], "vendor.json": trusted.documents["vendor.json"]}, now=NOW)
    repository.publish_snapshot(meta={**repository.snapshot.meta, "vendor.json": MetaFile(version=1)})
    assert isinstance(update(fresh, repository), Accepted)
    assert reason_of(fresh.update_delegation("vendor", data, now=NOW)) is Reason.ROLLBACK


def test_in_the_uptane_flavour_names_of_delegated_roles_are_plain_words() -> None:
    repository = UptaneRepository()
    repository.delegate("who?", ["*"])
    trusted = believing(repository)
    assert reason_of(trusted.update_delegation("who?", repository.files["who?.json"], now=NOW)) is Reason.INVALID_METADATA
    tuf = UptaneRepository(flavour=Flavour.TUF)
    tuf.delegate("who?", ["*"])
    trusted = believing(tuf)
    assert isinstance(trusted.update_delegation("who?", tuf.files["who?.json"], now=NOW), Accepted)


# --- what was stored ---


@FLAVOURS
def test_what_was_stored_is_taken_back_and_may_be_used_again(flavour: Flavour) -> None:
    repository = delegating(flavour)
    trusted = believing(repository)
    trusted.update_delegation("vendor", repository.files["vendor.json"], now=NOW)
    trusted.update_delegation("team", repository.files["team.json"], now=NOW, by="vendor")
    stored = dict(trusted.documents)
    again = TrustedSet.begin(stored["root.json"], repository=Repository.IMAGE, flavour=flavour)
    verdicts = again.adopt(dict(sorted(stored.items(), reverse=True)), now=NOW)
    assert {type(verdict) for verdict in verdicts.values()} == {Accepted}
    assert set(verdicts) == set(stored) - {"root.json"}
    assert dict(again.documents) == stored
    assert again.check_usable(NOW) is None
    assert isinstance(update(again, repository), Accepted)


def test_what_was_stored_and_has_expired_is_a_floor_and_no_more() -> None:
    repository = UptaneRepository()
    old = dict(repository.files)
    repository.publish()
    stored = believing(repository).documents
    at = later(31)
    trusted = begin(repository)
    verdicts = trusted.adopt(stored, now=at)
    assert {type(verdict) for verdict in verdicts.values()} == {AcceptedButExpired}
    assert reason_of(trusted.check_usable(at)) is Reason.EXPIRED_METADATA
    assert reason_of(trusted.update_timestamp(old["timestamp.json"], now=NOW)) is Reason.ROLLBACK
    repository.now = lambda: at
    repository.publish()
    assert isinstance(update(trusted, repository, now=at), Accepted)


def test_power_lost_between_two_documents_leaves_a_floor_that_is_not_used() -> None:
    repository = UptaneRepository()
    stored = dict(believing(repository).documents)
    repository.add_target(APP)
    stored["timestamp.json"] = repository.files["timestamp.json"]
    trusted = begin(repository)
    assert {type(verdict) for verdict in trusted.adopt(stored, now=NOW).values()} == {Accepted}
    assert reason_of(trusted.check_usable(NOW)) is Reason.OUT_OF_ORDER
    assert isinstance(update(trusted, repository), Accepted)


def test_stored_documents_that_nobody_vouches_for_are_not_taken_back() -> None:
    repository = UptaneRepository()
    other = delegating()
    trusted = begin(repository)
    verdicts = trusted.adopt({**other.files, "targets.json": b"{", "vendor.json": other.files["vendor.json"]}, now=NOW)
    assert {name: reason_of(verdict) for name, verdict in verdicts.items()}["vendor.json"] is Reason.DELEGATION_MISSING
    assert reason_of(verdicts["timestamp.json"]) is Reason.BAD_KEY_ID
    assert reason_of(verdicts["targets.json"]) is Reason.INVALID_METADATA
    assert set(trusted.documents) == {"root.json"}


def test_a_set_that_knows_better_does_not_take_older_documents_back() -> None:
    repository = UptaneRepository()
    stored = dict(believing(repository).documents)
    repository.publish()
    trusted = believing(repository)
    before = dict(trusted.documents)
    assert {reason_of(verdict) for verdict in trusted.adopt(stored, now=NOW).values()} == {Reason.ROLLBACK}
    assert dict(trusted.documents) == before


# --- whatever comes ---


@given(data=st.binary(max_size=300), flavour=st.sampled_from(Flavour))
def test_arbitrary_bytes_are_refused_and_never_raise(data: bytes, flavour: Flavour) -> None:
    repository = REPOSITORIES[flavour]
    trusted = believing(repository)
    before = dict(trusted.documents)
    for verdict in (
        trusted.update_root(data),
        trusted.update_timestamp(data, now=NOW),
        trusted.update_snapshot(data, now=NOW),
        trusted.update_targets(data, now=NOW),
        trusted.update_delegation("vendor", data, now=NOW),
        *trusted.adopt({"timestamp.json": data, "vendor.json": data}, now=NOW).values(),
    ):
        assert isinstance(verdict, Refused)
    assert dict(trusted.documents) == before


REPOSITORIES = {flavour: delegating(flavour) for flavour in Flavour}


class Pool:
    """Three versions of each role, properly signed, in every combination that a thief of all keys but the root's could sign."""

    def __init__(self, repository: UptaneRepository) -> None:
        keys, expires, versions = repository.keys, repository.expires, (1, 2, 3)
        self.targets: dict[bytes, bytes] = {}
        self.snapshots: dict[bytes, bytes] = {}
        self.timestamps: list[bytes] = []
        for version in versions:
            body = replace(repository.targets, version=version, custom={"n": version})
            targets = repository.signed(body, keys[Role.TARGETS])
            for number in versions:
                snapshot = Snapshot(version=number, expires=expires, meta={"targets.json": meta_of(targets, version)})
                data = repository.signed(snapshot, keys[Role.SNAPSHOT])
                self.targets[data] = targets
                for at in versions:
                    timestamp = Timestamp(version=at, expires=expires, snapshot=meta_of(data, number))
                    self.timestamps.append(repository.signed(timestamp, keys[Role.TIMESTAMP]))
                    self.snapshots[self.timestamps[-1]] = data


POOLS = {flavour: Pool(repository) for flavour, repository in REPOSITORIES.items()}
STEPS = st.tuples(
    st.sampled_from(["timestamp", "snapshot", "targets", "refresh", "refresh", "store", "adopt"]), st.integers(0, 26)
)


@settings(max_examples=100)
@given(flavour=st.sampled_from(Flavour), steps=st.lists(STEPS, min_size=1, max_size=25))
def test_no_sequence_of_updates_lowers_a_version_or_mixes_what_does_not_belong_together(
    flavour: Flavour, steps: list[tuple[str, int]]
) -> None:
    trusted, pool = begin(REPOSITORIES[flavour]), POOLS[flavour]
    stored: list[dict[str, bytes]] = [{}]
    versions = {"timestamp": 0, "snapshot": 0, "targets": 0}
    for step, number in steps:
        timestamp = pool.timestamps[number]
        snapshot = pool.snapshots[timestamp]
        if step in ("timestamp", "refresh"):
            trusted.update_timestamp(timestamp, now=NOW)
        if step in ("snapshot", "refresh"):
            trusted.update_snapshot(snapshot, now=NOW)
        if step in ("targets", "refresh"):
            trusted.update_targets(pool.targets[snapshot], now=NOW)
        if step == "store":
            stored.append(dict(trusted.documents))
        if step == "adopt":
            trusted.adopt(stored[number % len(stored)], now=NOW)
        bodies = {"timestamp": trusted.timestamp, "snapshot": trusted.snapshot, "targets": trusted.targets}
        now = {role: body.version if body is not None else 0 for role, body in bodies.items()}
        assert all(now[role] >= versions[role] for role in versions), (versions, now)
        versions = now
        usable = trusted.check_usable(NOW) is None
        event(f"usable: {usable}")
        if usable:
            assert trusted.timestamp is not None
            assert trusted.snapshot is not None
            files = trusted.documents
            assert trusted.timestamp.snapshot == meta_of(files["snapshot.json"], versions["snapshot"])
            assert trusted.snapshot.meta["targets.json"] == meta_of(files["targets.json"], versions["targets"])


def test_role_keys_without_keys_sign_nothing() -> None:
    repository = UptaneRepository()
    roles = {**repository.root.roles, "timestamp": RoleKeys(key_ids=(), threshold=1)}
    data = repository.signed(replace(repository.root, roles=roles), repository.keys[Role.ROOT])
    trusted = TrustedSet.begin(data, repository=Repository.IMAGE)
    assert reason_of(trusted.update_timestamp(repository.files["timestamp.json"], now=NOW)) is Reason.BAD_KEY_ID
