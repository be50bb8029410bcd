"""Attacks on sets of documents (Uptane reference §8.7), each a story: who has which keys, what is done, what the vehicle does.

The vehicle verifies in full: ``drive`` is one update cycle of a Primary, as far as it is about metadata and images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest

from overair.basics.clock import Instant
from overair.wire.image_signature import VerifiedImage
from overair.wire.uptane.manifest import (
    VerifiedManifest,
    VersionReport,
    build_manifest,
    read_manifest,
    sign_report,
    verify_manifest,
)
from overair.wire.uptane.matching import check_director_targets, match, matched, verify_target_bytes
from overair.wire.uptane.metadata import MetaFile, Repository, Role, TargetFile
from overair.wire.uptane.metadata_writing import meta_of
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.trust import Refused, TrustedSet
from tests.support.uptane_repository import DAY, KeyHolder, UptaneRepository, assigned, target_file
from tests.support.uptane_trust import NOW, begin, director, reason_of, update

ECUS = {"primary": "gw", "dash": "cluster"}
ONE, TWO, EVIL = b"version one", b"version two", b"evil"
APP_1 = target_file("app-1.bin", ONE, hardware_ids=["gw"], releaseCounter=1)
APP_2 = target_file("app-2.bin", TWO, hardware_ids=["gw"], releaseCounter=2)
MALWARE = target_file("app-3.bin", EVIL, hardware_ids=["gw"], releaseCounter=9)


@dataclass
class World:
    """Both repositories and one vehicle. Everything that a thief changes, he changes on the repositories' side."""

    director: UptaneRepository = field(default_factory=director)
    image: UptaneRepository = field(default_factory=UptaneRepository)
    images: dict[str, bytes] = field(default_factory=lambda: {"app-1.bin": ONE, "app-2.bin": TWO, "app-3.bin": EVIL})
    installed: dict[str, TargetFile | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.image.put_targets(APP_1, APP_2)
        self.trusted_director: TrustedSet = begin(self.director)
        self.trusted_image: TrustedSet = begin(self.image)

    def assign(self, target: TargetFile, ecus: Mapping[str, str] | None = None) -> None:
        self.director.put_targets(assigned(target, ecus or {"primary": "gw"}))

    def drive(self, now: Instant = NOW) -> Reason | None:
        """One cycle. What was verified is installed; why not, if not."""
        verdict = update(self.trusted_director, self.director, now=now)
        if isinstance(verdict, Refused):
            return verdict.reason
        assert self.trusted_director.targets is not None
        new = check_director_targets(self.trusted_director.targets, ECUS, self.installed)
        if isinstance(new, Refused):
            return new.reason
        if not new:
            return None
        verdict = update(self.trusted_image, self.image, now=now)
        if isinstance(verdict, Refused):
            return verdict.reason
        delegated = {name: self.image.files[f"{name}.json"] for name in self.image.delegated}
        result = matched(
            match(self.trusted_director, self.trusted_image, ecus=ECUS, installed=self.installed, now=now), delegated
        )
        if isinstance(result, Refused):
            return result.reason
        for target in result:
            try:
                image = verify_target_bytes([self.images[target.name]], target)
            except MetadataRefused as error:
                return error.reason
            assert isinstance(image, VerifiedImage)
            self.installed |= dict.fromkeys(target.ecus, target.target)
        return None

    def runs(self, ecu: str = "primary") -> str | None:
        target = self.installed.get(ecu)
        return target.name if target else None


@pytest.fixture
def world() -> World:
    """The vehicle runs version one, by the owner's wish."""
    found = World()
    found.assign(APP_1)
    assert found.drive() is None
    assert found.runs() == "app-1.bin"
    return found


def steal(repository: UptaneRepository, *roles: Role) -> None:
    """The thief signs for these roles; for the others he has keys of his own, which nobody trusts."""
    for role in Role:
        if role not in roles:
            repository.keys[role] = [KeyHolder()]


def test_an_honest_update_reaches_the_vehicle(world: World) -> None:
    world.assign(APP_2)
    assert world.drive() is None
    assert world.runs() == "app-2.bin"


# --- deny, hold back ---


def test_freeze__whoever_repeats_old_documents_is_found_out_when_they_expire(world: World) -> None:
    assert world.drive(Instant(NOW + 29 * DAY)) is None
    assert world.drive(Instant(NOW + 30 * DAY)) is Reason.EXPIRED_METADATA
    assert world.runs() == "app-1.bin"


def test_freeze__an_image_repository_that_stands_still_holds_the_next_update_up_for_all_to_see(world: World) -> None:
    at = Instant(NOW + 31 * DAY)
    world.director.now = lambda: at
    world.assign(APP_2)
    assert world.drive(at) is Reason.EXPIRED_METADATA
    assert world.runs() == "app-1.bin"


def test_endless_data__metadata_ends_at_its_cap(world: World) -> None:
    world.assign(APP_2)
    for name in ("timestamp.json", "snapshot.json", "targets.json"):
        whole = world.image.files[name]
        world.image.files[name] = whole + b" " * (9 * 1024 * 1024)
        assert world.drive() is Reason.OVERSIZED
        world.image.files[name] = whole
    assert world.drive() is None


def test_endless_data__an_image_ends_at_its_length(world: World) -> None:
    world.assign(APP_2)
    world.images["app-2.bin"] = TWO + b"and so on"
    assert world.drive() is Reason.OVERSIZED_TARGET
    assert world.runs() == "app-1.bin"


def test_slow_and_broken__an_image_that_ends_early_is_not_installed(world: World) -> None:
    world.assign(APP_2)
    world.images["app-2.bin"] = TWO[:-1]
    assert world.drive() is Reason.TARGET_HASH_MISMATCH
    assert world.runs() == "app-1.bin"


# --- back to something old ---


@pytest.mark.parametrize("name", ["timestamp.json", "snapshot.json", "targets.json"])
@pytest.mark.parametrize("which", ["director", "image"])
def test_rollback__old_documents_that_were_once_right_are_refused(world: World, which: str, name: str) -> None:
    repository: UptaneRepository = getattr(world, which)
    old = repository.files[name]
    world.image.put_targets(APP_1, APP_2)
    world.assign(APP_2)
    assert world.drive() is None
    world.image.put_targets(APP_1)
    world.assign(APP_1)
    repository.files[name] = old
    assert world.drive() in (Reason.ROLLBACK, Reason.HASH_MISMATCH)
    assert world.runs() == "app-2.bin"


@pytest.mark.parametrize("which", ["director", "image"])
def test_rollback__an_old_root_is_never_taken_again(world: World, which: str) -> None:
    repository: UptaneRepository = getattr(world, which)
    first = repository.files["1.root.json"]
    repository.rotate(Role.ROOT)
    world.assign(APP_2)
    assert world.drive() is None
    repository.files["3.root.json"] = first
    world.assign(APP_1)
    assert world.drive() in (Reason.BAD_KEY_ID, Reason.UNMET_THRESHOLD)
    assert world.runs() == "app-2.bin"


def test_rollback__nothing_older_than_what_runs_is_installed_though_the_director_says_so(world: World) -> None:
    world.assign(APP_2)
    assert world.drive() is None
    world.assign(APP_1)  # properly signed: the Director's keys are the thief's
    assert world.drive() is Reason.ROLLBACK
    assert world.runs() == "app-2.bin"


def test_rollback__a_snapshot_that_forgets_a_supplier_is_refused(world: World) -> None:
    world.image.delegate("vendor", ["vendor/*"])
    world.assign(APP_2)
    assert world.drive() is None
    world.assign(APP_1)
    world.image.publish_snapshot(meta={"targets.json": world.image.snapshot.meta["targets.json"]})
    assert world.drive() is Reason.ROLLBACK


# --- what doesn't belong together ---


def test_mix_and_match__targets_of_one_day_with_the_snapshot_of_another_are_refused(world: World) -> None:
    old = world.image.files["targets.json"]
    world.image.put_targets(APP_1)  # version two was withdrawn
    world.image.files["targets.json"] = old
    world.assign(APP_2)
    assert world.drive() is Reason.HASH_MISMATCH
    assert world.runs() == "app-1.bin"


def test_mix_and_match__a_suppliers_old_document_does_not_go_with_a_new_snapshot(world: World) -> None:
    dash = target_file("vendor/dash-1", ONE, hardware_ids=["cluster"])
    world.image.delegate("vendor", ["vendor/*"], dash)
    world.images["vendor/dash-1"] = ONE
    old = world.image.files["vendor.json"]
    world.image.delegated["vendor"] = replace(world.image.delegated["vendor"], targets={})
    world.image.publish()
    world.image.files["vendor.json"] = old
    world.assign(dash, {"dash": "cluster"})
    assert world.drive() is Reason.DELEGATION_HASH_MISMATCH
    assert world.runs("dash") is None


def test_mixed_bundles__one_image_that_can_not_be_verified_holds_up_the_other(world: World) -> None:
    unknown = target_file("dash-9.bin", b"dash", hardware_ids=["cluster"])
    world.director.put_targets(assigned(APP_2, {"primary": "gw"}), assigned(unknown, {"dash": "cluster"}))
    assert world.drive() is Reason.TARGET_MISMATCH
    assert (world.runs(), world.runs("dash")) == ("app-1.bin", None)


def test_partial_bundle__the_manifest_shows_which_ecu_has_what(world: World) -> None:
    dash = target_file("dash-2.bin", b"dash", hardware_ids=["cluster"])
    world.images["dash-2.bin"] = b"DASH"  # whoever stands between lets one of the two through
    world.image.put_targets(APP_1, APP_2, dash)
    world.director.put_targets(assigned(APP_2, {"primary": "gw"}), assigned(dash, {"dash": "cluster"}))
    assert world.drive() is Reason.TARGET_HASH_MISMATCH
    keys = {serial: KeyHolder() for serial in ECUS}
    runs = {serial: world.installed.get(serial) or APP_1 for serial in ECUS}
    reports = {
        serial: sign_report(VersionReport(ecu=serial, installed=target), keys[serial]) for serial, target in runs.items()
    }
    manifest = read_manifest(build_manifest("primary", reports, keys["primary"]))
    verified = verify_manifest(manifest, {serial: key.public_key for serial, key in keys.items()}, primary="primary")
    assert isinstance(verified, VerifiedManifest)
    assert {serial: target.name for serial, target in verified.manifest.installed.items()} == {
        "primary": "app-2.bin",
        "dash": "app-1.bin",
    }


def test_another_vehicles_targets_are_refused(world: World) -> None:
    world.assign(APP_2, {"somebody-elses-primary": "gw"})
    assert world.drive() is Reason.BAD_ECU_ID
    assert world.runs() == "app-1.bin"


def test_wrong_hardware__an_image_for_other_hardware_is_refused_by_both_repositories_words(world: World) -> None:
    world.assign(APP_2, {"dash": "gw"})  # the Director lies about the dash
    assert world.drive() is Reason.BAD_HARDWARE_ID
    world.assign(APP_2, {"dash": "cluster"})  # the truth, but the Image repository says that it is for gateways
    assert world.drive() is Reason.TARGET_MISMATCH
    assert world.runs("dash") is None


def test_same_ecu_twice__a_director_that_wants_two_images_on_one_ecu_is_refused(world: World) -> None:
    world.director.put_targets(assigned(APP_1, {"primary": "gw"}), assigned(APP_2, {"primary": "gw"}))
    assert world.drive() is Reason.INVALID_METADATA
    assert world.runs() == "app-1.bin"


def test_unknown_ecu__one_stranger_among_the_ecus_refuses_all(world: World) -> None:
    world.assign(APP_2, {"primary": "gw", "stranger": "gw"})
    assert world.drive() is Reason.BAD_ECU_ID
    assert world.runs() == "app-1.bin"


def test_a_file_name_is_never_used_again_for_other_bytes(world: World) -> None:
    other = target_file("app-1.bin", EVIL, hardware_ids=["gw"], releaseCounter=3)
    world.image.put_targets(other)
    world.assign(other)
    assert world.drive() is Reason.TARGET_CONTENT_MISMATCH


# --- signatures that aren't ---


def forged_root(change: Callable[[UptaneRepository], bytes]) -> Reason:
    """A vehicle with nothing but this for a first root."""
    with pytest.raises(MetadataRefused) as caught:
        TrustedSet.begin(change(UptaneRepository()), repository=Repository.IMAGE)
    return caught.value.reason


def test_threshold_zero__a_role_that_nobody_need_sign_for_is_no_role(world: World) -> None:
    def nobody(repository: UptaneRepository) -> bytes:
        roles = {**repository.root.roles, "targets": replace(repository.root.role_keys(Role.TARGETS), threshold=0)}
        return repository.signed(replace(repository.root, roles=roles), repository.keys[Role.ROOT])

    assert forged_root(nobody) is Reason.ILLEGAL_THRESHOLD
    # Neither does a vehicle that trusts the root before follow to such a one.
    body = replace(world.image.root, version=2)
    world.image.root = body
    world.image.files["2.root.json"] = nobody(world.image)
    world.assign(APP_2)
    assert world.drive() is Reason.ILLEGAL_THRESHOLD


def test_duplicate_signatures__one_key_does_not_make_two(world: World) -> None:
    world.image.keys[Role.TARGETS] = [KeyHolder(), KeyHolder()]
    world.image.thresholds[Role.TARGETS] = 2
    world.image.publish_root()
    thief = world.image.keys[Role.TARGETS][0]
    world.image.targets = replace(world.image.targets, targets={"app-3.bin": MALWARE}, version=9)
    for signers in ([thief, thief], [thief], [thief, KeyHolder()]):
        data = world.image.signed(world.image.targets, signers)
        world.image.files["targets.json"] = data
        world.image.publish_snapshot(meta={"targets.json": meta_of(data, 9)})
        world.assign(MALWARE)
        assert world.drive() in (Reason.NON_UNIQUE_SIGNATURES, Reason.UNMET_THRESHOLD)
    assert world.runs() == "app-1.bin"


def test_duplicate_keys__one_key_under_two_names_does_not_make_two() -> None:
    def twice(repository: UptaneRepository) -> bytes:
        holder = repository.keys[Role.ROOT][0]
        keys = {**repository.root.keys, "alias": holder.public_key}
        root_keys = replace(repository.root.role_keys(Role.ROOT), key_ids=(holder.public_key.id, "alias"), threshold=2)
        body = replace(repository.root, keys=keys, roles={**repository.root.roles, "root": root_keys})

        class Alias:
            public_key = holder.public_key
            sign = staticmethod(holder.sign)

        data = repository.signed(body, [holder, Alias()])
        head, _, tail = data.partition(holder.public_key.id.encode())
        return head + b"alias" + tail  # the first of the two signatures goes by the other name

    assert forged_root(twice) is Reason.UNMET_THRESHOLD


# --- stolen keys ---

DIRECTOR_KEYS = [Role.ROOT, Role.TARGETS, Role.SNAPSHOT, Role.TIMESTAMP]


def plant_in_the_director(world: World, *roles: Role) -> None:
    """The thief assigns his image to the vehicle, as well as he can with the keys that he has."""
    steal(world.director, *roles)
    if Role.ROOT in roles:
        world.director.publish_root()
    world.assign(MALWARE)


def plant_in_the_image_repository(world: World, *roles: Role) -> None:
    """The thief adds his image to the catalogue, as well as he can with the keys that he has."""
    steal(world.image, *roles)
    if Role.ROOT in roles:
        world.image.publish_root()
    world.image.put_targets(APP_1, APP_2, MALWARE)


@pytest.mark.parametrize("role", Role)
def test_any_single_stolen_key_of_the_director_installs_nothing(world: World, role: Role) -> None:
    plant_in_the_director(world, role)
    assert world.drive() is not None
    assert world.runs() == "app-1.bin"


@pytest.mark.parametrize("role", Role)
def test_any_single_stolen_key_of_the_image_repository_installs_nothing(world: World, role: Role) -> None:
    plant_in_the_image_repository(world, role)
    assert world.drive() is None  # nothing new is wanted: the Director isn't the thief's
    world.assign(APP_2)
    reason = world.drive()
    if role is Role.ROOT:  # he has made all other keys his own, and can still do no more than serve what the owner wants
        assert (reason, world.runs()) == (None, "app-2.bin")
    else:
        assert (reason, world.runs()) == (Reason.BAD_KEY_ID, "app-1.bin")


def test_the_whole_director_stolen__nothing_is_installed_that_the_image_targets_role_did_not_sign(world: World) -> None:
    plant_in_the_director(world, *DIRECTOR_KEYS)
    assert world.drive() is Reason.TARGET_MISMATCH
    assert world.runs() == "app-1.bin"


def every_online_key(world: World) -> None:
    """Director whole, and the Image repository's snapshot and timestamp: what a server holds whose root and targets keys are
    offline."""
    plant_in_the_director(world, *DIRECTOR_KEYS)
    plant_in_the_image_repository(world, Role.SNAPSHOT, Role.TIMESTAMP)


def test_all_online_keys_stolen__nothing_is_installed_that_the_image_targets_role_did_not_sign(world: World) -> None:
    every_online_key(world)
    assert world.drive() is Reason.BAD_KEY_ID
    assert world.runs() == "app-1.bin"


def test_all_online_keys_stolen__an_unsigned_entry_can_not_be_slipped_into_what_was_signed(world: World) -> None:
    signed = world.image.files["targets.json"]
    every_online_key(world)
    entry = signed.replace(b'"app-2.bin"', b'"app-3.bin"')
    world.image.files["targets.json"] = entry
    world.image.publish_snapshot(meta={"targets.json": meta_of(entry, 99)})
    assert world.drive() in (Reason.BAD_KEY_ID, Reason.UNMET_THRESHOLD)
    assert world.runs() == "app-1.bin"


def test_all_online_keys_stolen__the_thief_is_left_with_what_was_signed_for_the_right_hardware(world: World) -> None:
    """What divergences.md and ``overair status`` say of this thief: he may choose among signed images that are no older."""
    catalogue = world.image.files["targets.json"], world.image.targets
    every_online_key(world)
    world.image.files["targets.json"], world.image.targets = catalogue
    world.image.publish_snapshot()
    world.assign(APP_2)
    assert world.drive() is None
    assert world.runs() == "app-2.bin"
    world.assign(APP_1)
    assert world.drive() is Reason.ROLLBACK
    world.assign(APP_2, {"dash": "cluster"})
    assert world.drive() is Reason.TARGET_MISMATCH


def test_all_online_keys_stolen__old_targets_can_not_be_brought_back(world: World) -> None:
    old, body = world.image.files["targets.json"], world.image.targets
    world.image.put_targets(APP_2)
    world.assign(APP_2)
    assert world.drive() is None
    every_online_key(world)
    world.assign(APP_1)
    world.image.files["targets.json"] = old
    for version in (body.version, body.version + 1):
        world.image.publish_snapshot(meta={"targets.json": MetaFile(version=version)})
        assert world.drive() in (Reason.ROLLBACK, Reason.VERSION_MISMATCH)
    assert world.runs() == "app-2.bin"


def test_a_suppliers_key_stolen__he_signs_for_his_own_names_and_hardware_alone(world: World) -> None:
    world.image.delegate("vendor", ["vendor/*"], MALWARE, replace(MALWARE, name="vendor/app"))
    world.assign(MALWARE)
    assert world.drive() is Reason.TARGET_MISMATCH
    world.assign(replace(MALWARE, name="vendor/app"), {"dash": "cluster"})
    assert world.drive() is Reason.TARGET_MISMATCH
    assert (world.runs(), world.runs("dash")) == ("app-1.bin", None)


def test_a_stolen_key_is_of_no_more_use_once_the_root_names_another(world: World) -> None:
    stolen = world.image.keys[Role.TARGETS]
    world.image.rotate(Role.TARGETS)
    world.assign(APP_2)
    assert world.drive() is None
    world.image.keys[Role.TARGETS] = stolen
    world.image.put_targets(APP_1, APP_2, MALWARE)
    world.assign(MALWARE)
    assert world.drive() is Reason.BAD_KEY_ID
    assert world.runs() == "app-2.bin"


def test_a_thief_who_counted_versions_up_is_outrun_by_new_keys(world: World) -> None:
    honest = (world.image.targets, world.image.snapshot, world.image.timestamp)
    world.image.timestamp = replace(world.image.timestamp, version=2**31 - 10)
    world.image.snapshot = replace(world.image.snapshot, version=2**31 - 10)
    world.image.publish_snapshot()
    world.assign(APP_2)
    assert world.drive() is None
    world.image.targets, world.image.snapshot, world.image.timestamp = honest
    world.image.publish()
    world.image.put_targets(APP_1, APP_2, MALWARE)
    world.assign(MALWARE)
    assert world.drive() is Reason.ROLLBACK
    world.image.rotate(Role.SNAPSHOT, Role.TIMESTAMP)
    assert world.drive() is None
    assert world.runs() == "app-3.bin"  # by now the owner's own


# --- delegations ---


@pytest.mark.parametrize("depth", [5, 6])
def test_deep_delegations__what_lies_below_five_levels_is_not_believed(world: World, depth: int) -> None:
    above: str | None = None
    for level in range(1, depth + 1):
        world.image.delegate(f"level{level}", ["*"], *([MALWARE] if level == depth else []), below=above)
        above = f"level{level}"
    world.assign(MALWARE)
    assert world.drive() is (None if depth == 5 else Reason.TARGET_MISMATCH)


def test_terminating_delegations__nobody_answers_for_names_that_were_given_away_for_good(world: World) -> None:
    world.image.delegate("vendor", ["app-*"], terminating=True)
    world.image.delegate("rogue", ["*"], MALWARE)
    world.assign(MALWARE)
    assert world.drive() is Reason.TARGET_MISMATCH


def test_prioritised_delegations__a_lower_role_can_not_replace_what_a_higher_one_said(world: World) -> None:
    world.image.delegate("vendor", ["app-*"], target_file("app-3.bin", b"good", hardware_ids=["gw"], releaseCounter=9))
    world.image.delegate("rogue", ["*"], MALWARE)
    world.assign(MALWARE)
    assert world.drive() is Reason.TARGET_MISMATCH
    assert world.runs() == "app-1.bin"


def endless_images() -> Iterator[bytes]:
    while True:
        yield b"x" * 4096


def test_endless_data__an_image_stream_is_left_at_the_first_byte_too_many(world: World) -> None:
    world.assign(APP_2)
    update(world.trusted_director, world.director)
    update(world.trusted_image, world.image)
    result = matched(match(world.trusted_director, world.trusted_image, ecus=ECUS, installed={}, now=NOW), {})
    assert not isinstance(result, Refused)
    with pytest.raises(MetadataRefused) as caught:
        verify_target_bytes(endless_images(), result[0])
    assert caught.value.reason is Reason.OVERSIZED_TARGET
    assert reason_of(result) is None
