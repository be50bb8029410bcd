from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.wire.image_signature import VerifiedImage
from overair.wire.uptane.hashing import agree
from overair.wire.uptane.matching import (
    Assignment,
    TargetBytes,
    Verification,
    VerifiedTarget,
    check_director_targets,
    match,
    match_partially,
    matched,
    verify_target_bytes,
)
from overair.wire.uptane.metadata import TargetFile, Targets
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.trust import Chain, Refused
from tests.support.uptane_repository import DAY, UptaneRepository, assigned, target_file
from tests.support.uptane_trust import NOW, begin, believing, director, reason_of

ECUS = {"primary": "gw", "dash": "cluster"}
DATA = b"firmware, version two"
APP = target_file("app-2.bin", DATA, hardware_ids=["gw", "cluster"])
WANTED = assigned(APP, {"primary": "gw"})


def outcome(
    wanted: TargetFile = WANTED,
    image: TargetFile | None = APP,
    *,
    ecus: Mapping[str, str] = ECUS,
    installed: Mapping[str, TargetFile | None] | None = None,
) -> tuple[VerifiedTarget, ...] | Refused:
    """What comes of a Director that wants this, and an Image repository that has that."""
    director_repository, image_repository = director(), UptaneRepository()
    director_repository.put_targets(wanted)
    image_repository.put_targets(*([image] if image is not None else []))
    running = match(believing(director_repository), believing(image_repository), ecus=ecus, installed=installed or {}, now=NOW)
    return matched(running, {})


def one(result: tuple[VerifiedTarget, ...] | Refused) -> VerifiedTarget:
    assert not isinstance(result, Refused), result
    (target,) = result
    return target


# --- what the Director wants ---


def targets(*files: TargetFile) -> Targets:
    return Targets(version=1, expires=NOW, targets={file.name: file for file in files})


def test_what_is_new_is_told_ecu_by_ecu() -> None:
    wanted = assigned(APP, ECUS)
    assert check_director_targets(targets(wanted), ECUS, {"primary": None}) == (
        Assignment(ecu="primary", hardware_id="gw", target=wanted),
        Assignment(ecu="dash", hardware_id="cluster", target=wanted),
    )


def test_what_is_installed_already_is_nothing_new_whichever_hashes_are_known_of_it() -> None:
    runs = TargetFile(name="app-2.bin", length=len(DATA), hashes=target_file("x", DATA, algorithms=["sha256", "sha512"]).hashes)
    assert check_director_targets(targets(WANTED), ECUS, {"primary": runs}) == ()
    both = assigned(APP, ECUS)
    (left,) = check_director_targets(targets(both), ECUS, {"primary": runs})
    assert left.ecu == "dash"
    assert check_director_targets(targets(), ECUS, {}) == ()


@pytest.mark.parametrize("present", [replace(APP, length=1), target_file("app-2.bin", b"x" * len(DATA))])
def test_a_name_that_runs_with_other_content_is_never_used_again(present: TargetFile) -> None:
    assert reason_of(check_director_targets(targets(WANTED), ECUS, {"primary": present})) is Reason.TARGET_CONTENT_MISMATCH


@pytest.mark.parametrize(
    ("ecus", "reason", "field"),
    [
        ({"primary": "gw", "stranger": "gw"}, Reason.BAD_ECU_ID, "stranger"),
        ({"primary": "gw", "dash": "gw"}, Reason.BAD_HARDWARE_ID, "dash.hardwareId"),
    ],
)
def test_one_ecu_that_is_not_there_or_is_of_other_hardware_refuses_all(
    ecus: dict[str, str], reason: Reason, field: str
) -> None:
    result = check_director_targets(targets(assigned(APP, ecus)), ECUS, {})
    assert isinstance(result, Refused)
    assert result.reason is reason
    assert result.field == f"signed.targets.app-2.bin.custom.ecuIdentifiers.{field}"
    assert reason_of(outcome(assigned(APP, ecus))) is reason


def test_a_secondary_knows_itself_alone_and_passes_over_the_others() -> None:
    wanted = targets(assigned(APP, ECUS))
    (mine,) = check_director_targets(wanted, {"dash": "cluster"}, {}, is_primary=False)
    assert mine.ecu == "dash"
    assert reason_of(check_director_targets(wanted, {"dash": "other"}, {}, is_primary=False)) is Reason.BAD_HARDWARE_ID
    assert reason_of(check_director_targets(wanted, {"dash": "cluster"}, {})) is Reason.BAD_ECU_ID


# --- what both say ---


def test_a_target_that_both_repositories_know_is_verified_for_its_ecus() -> None:
    target = one(outcome(assigned(APP, ECUS), installed={"dash": APP}))
    assert (target.name, target.length, dict(target.ecus)) == ("app-2.bin", len(DATA), {"primary": "gw"})
    assert (target.role, target.verification, target.uri) == ("targets", Verification.FULL, None)
    assert target.target == APP


def test_where_nothing_is_new_the_image_repository_is_not_asked() -> None:
    repository = director()
    repository.put_targets(WANTED)
    image = UptaneRepository(now=lambda: Instant(NOW - 365 * DAY))  # all of it has expired long ago
    running = match(
        believing(repository),
        begin(image),
        ecus=ECUS,
        installed={"primary": APP},
        now=NOW,
    )
    assert matched(running, {}) == ()


@pytest.mark.parametrize(
    ("image", "field"),
    [
        (None, "signed.targets"),
        (replace(APP, length=len(DATA) + 1), "signed.targets.app-2.bin.length"),
        (replace(APP, hashes={"sha256": "0" * 64}), "signed.targets.app-2.bin.hashes"),
        (target_file("app-2.bin", DATA, hardware_ids=["gw"], algorithms=["sha512"]), "signed.targets.app-2.bin.hashes"),
        (replace(APP, hashes={**APP.hashes, "sha512": "0" * 128}), None),
        (replace(APP, custom={"hardwareIds": ["cluster"]}), "signed.targets.app-2.bin.custom.hardwareIds"),
        (replace(APP, custom={}), "signed.targets.app-2.bin.custom.hardwareIds"),
        (replace(APP, custom={"hardwareIds": "gw"}), "signed.targets.app-2.bin.custom.hardwareIds"),
    ],
)
def test_what_the_two_do_not_say_alike_is_a_mismatch(image: TargetFile | None, field: str | None) -> None:
    result = outcome(image=image)
    if field is None:  # a hash that the Director doesn't give can't differ; the bytes will have to meet both
        assert one(result).target.hashes["sha512"] == "0" * 128
        return
    assert isinstance(result, Refused)
    assert (result.reason, result.field) == (Reason.TARGET_MISMATCH, field)


def test_every_shared_hash_counts_not_only_one() -> None:
    both = target_file("app-2.bin", DATA, hardware_ids=["gw"], algorithms=["sha256", "sha512"])
    wanted = assigned(replace(both, hashes={**both.hashes, "sha512": "0" * 128}), {"primary": "gw"})
    assert reason_of(outcome(wanted, both)) is Reason.TARGET_MISMATCH


def test_hardware_ids_are_looked_at_for_each_ecu_also_those_that_have_the_image_already() -> None:
    result = outcome(assigned(APP, ECUS), replace(APP, custom={"hardwareIds": ["gw"]}), installed={"dash": APP})
    assert reason_of(result) is Reason.TARGET_MISMATCH


def test_one_doubt_refuses_all_of_it() -> None:
    director_repository, image_repository = director(), UptaneRepository()
    other = target_file("other.bin", b"other", hardware_ids=["cluster"])
    director_repository.put_targets(WANTED, assigned(other, {"dash": "cluster"}))
    image_repository.put_targets(APP)
    running = match(believing(director_repository), believing(image_repository), ecus=ECUS, installed={}, now=NOW)
    assert reason_of(matched(running, {})) is Reason.TARGET_MISMATCH


@pytest.mark.parametrize(
    ("wanted", "image", "expected"), [("d", "i", "d"), (None, "i", "i"), (None, None, None), ("https://example.com/", "i", "i")]
)
def test_the_directors_uri_goes_before_the_image_repositorys(
    wanted: str | None, image: str | None, expected: str | None
) -> None:
    target = one(outcome(assigned(APP, {"primary": "gw"}, uri=wanted), replace(APP, custom={**APP.custom, "uri": image})))
    assert target.uri == expected


def test_the_correlation_id_travels_with_the_target() -> None:
    repository, image = director(), UptaneRepository()
    repository.put_targets(WANTED, custom={"correlationId": "urn:here-ota:mtu:1"})
    image.put_targets(APP)
    running = match(believing(repository), believing(image), ecus=ECUS, installed={}, now=NOW)
    assert one(matched(running, {})).correlation_id == "urn:here-ota:mtu:1"


def released(counter: object) -> TargetFile:
    return replace(APP, custom={**APP.custom, "releaseCounter": counter})


@pytest.mark.parametrize(
    ("installed", "image", "reason"),
    [
        (7, 7, None),
        (7, 8, None),
        (None, 1, None),
        (7, 6, Reason.ROLLBACK),
        (7, None, Reason.ROLLBACK),
        (7, "8", Reason.ROLLBACK),
    ],
)
def test_an_ecu_takes_no_lower_release_than_it_has(installed: int | None, image: object, reason: Reason | None) -> None:
    runs = replace(released(installed), name="app-1.bin")
    assert reason_of(outcome(image=released(image), installed={"primary": runs})) is reason


def test_a_release_counter_that_the_director_gives_is_the_image_repositorys() -> None:
    wanted = replace(WANTED, custom={**WANTED.custom, "releaseCounter": 9})
    assert reason_of(outcome(wanted, released(8))) is Reason.TARGET_MISMATCH
    assert isinstance(outcome(wanted, released(9)), tuple)


def test_a_delegated_role_may_vouch_and_its_document_is_asked_for_on_the_way() -> None:
    repository, image = director(), UptaneRepository()
    app = target_file("vendor/app", DATA, hardware_ids=["gw"])
    image.delegate("vendor", ["vendor/*"], app)
    repository.put_targets(assigned(app, {"primary": "gw"}))
    running = match(believing(repository), believing(image), ecus=ECUS, installed={}, now=NOW)
    needed = next(running)
    assert (needed.name, needed.by, needed.version) == ("vendor", "targets", 1)
    with pytest.raises(StopIteration) as ended:
        running.send(image.files["vendor.json"])
    assert one(ended.value.value).role == "vendor"
    again = match(believing(repository), believing(image), ecus=ECUS, installed={}, now=NOW)
    assert reason_of(matched(again, {})) is Reason.DELEGATION_MISSING


@pytest.mark.parametrize("chain", Chain)
def test_a_director_may_be_read_with_or_without_its_snapshot(chain: Chain) -> None:
    repository, image = director(), UptaneRepository()
    repository.put_targets(WANTED)
    image.put_targets(APP)
    running = match(believing(repository, chain=chain), believing(image), ecus=ECUS, installed={}, now=NOW)
    assert one(matched(running, {})).name == "app-2.bin"


@pytest.mark.parametrize("stale", ["director", "image"])
def test_nothing_is_matched_with_what_has_expired(stale: str) -> None:
    repository, image = director(), UptaneRepository(life_ms=60 * DAY)
    if stale == "image":
        repository, image = director(life_ms=60 * DAY), UptaneRepository()
    repository.put_targets(WANTED)
    image.put_targets(APP)
    sets = believing(repository), believing(image)
    at = Instant(NOW + 31 * DAY)
    assert reason_of(matched(match(*sets, ecus=ECUS, installed={}, now=at), {})) is Reason.EXPIRED_METADATA


def test_the_two_repositories_can_not_be_taken_for_each_other() -> None:
    sets = believing(director()), believing(UptaneRepository())
    for wrong in (sets[::-1], (sets[0], sets[0]), (sets[1], sets[1])):
        with pytest.raises(RuntimeError):
            matched(match(*wrong, ecus=ECUS, installed={}, now=NOW), {})


# --- partial verification ---


def test_a_secondary_may_go_by_the_directors_word_alone() -> None:
    repository = director()
    repository.put_targets(assigned(APP, ECUS), custom={"correlationId": "urn:x"})
    trusted = believing(repository, chain=Chain.ROOT_AND_TARGETS)
    target = match_partially(trusted, ecu="dash", hardware_id="cluster", installed=None, now=NOW)
    assert isinstance(target, VerifiedTarget)
    assert (target.verification, target.role, dict(target.ecus)) == (Verification.PARTIAL, "", {"dash": "cluster"})
    assert match_partially(trusted, ecu="dash", hardware_id="cluster", installed=APP, now=NOW) is None
    assert match_partially(trusted, ecu="third", hardware_id="cluster", installed=None, now=NOW) is None
    for hardware_id, installed, at, reason in (
        ("other", None, NOW, Reason.BAD_HARDWARE_ID),
        ("cluster", replace(APP, length=1), NOW, Reason.TARGET_CONTENT_MISMATCH),
        ("cluster", replace(released(7), name="old"), NOW, Reason.ROLLBACK),
        ("cluster", None, Instant(NOW + 31 * DAY), Reason.EXPIRED_METADATA),
    ):
        found = match_partially(trusted, ecu="dash", hardware_id=hardware_id, installed=installed, now=at)
        assert reason_of(found) is reason
    with pytest.raises(RuntimeError):
        match_partially(believing(UptaneRepository()), ecu="dash", hardware_id="x", installed=None, now=NOW)


# --- the bytes ---


def test_the_bytes_that_were_meant_are_proved_however_they_are_cut() -> None:
    target = one(outcome())
    for size in (1, 5, 100):
        chunks = [DATA[at : at + size] for at in range(0, len(DATA), size)]
        image = verify_target_bytes(chunks, target)
        assert isinstance(image, VerifiedImage)
        assert (image.sha256, image.size_bytes, image.algorithm) == (APP.sha256, len(DATA), None)
        assert "uptane" in repr(image)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (DATA[:-1], Reason.TARGET_HASH_MISMATCH),
        (b"", Reason.TARGET_HASH_MISMATCH),
        (DATA[:-1] + b"!", Reason.TARGET_HASH_MISMATCH),
        (DATA + b"!", Reason.OVERSIZED_TARGET),
    ],
)
def test_other_bytes_prove_nothing(data: bytes, reason: Reason) -> None:
    with pytest.raises(MetadataRefused) as caught:
        verify_target_bytes([data], one(outcome()))
    assert caught.value.reason is reason


def test_every_hash_that_either_repository_gives_must_be_met() -> None:
    target = one(outcome(image=replace(APP, hashes={**APP.hashes, "sha512": "0" * 128})))
    with pytest.raises(MetadataRefused, match="sha512"):
        verify_target_bytes([DATA], target)
    director_gives_more = assigned(replace(APP, hashes={**APP.hashes, "sha384": "0" * 96}), {"primary": "gw"})
    with pytest.raises(MetadataRefused, match="sha384"):
        verify_target_bytes([DATA], one(outcome(director_gives_more)))


def test_endless_data_is_not_read_to_its_end() -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b"x" * 10

    with pytest.raises(MetadataRefused) as caught:
        verify_target_bytes(endless(), one(outcome()))
    assert (caught.value.reason, read) == (Reason.OVERSIZED_TARGET, 3)


def test_proofs_are_made_by_the_verifier_alone() -> None:
    with pytest.raises(RuntimeError):
        VerifiedTarget(object(), target=APP, ecus={}, uri=None, role="", correlation_id="", verification=Verification.FULL)
    with pytest.raises(RuntimeError):
        VerifiedImage(object(), sha256=APP.sha256, size_bytes=1)
    with pytest.raises(TypeError):
        TargetBytes(APP)  # type: ignore[arg-type]


def test_an_image_without_a_hash_that_is_known_can_not_be_proved() -> None:
    repository = director()
    repository.put_targets(replace(WANTED, hashes={"blake9": "0" * 64}))
    trusted = believing(repository, chain=Chain.ROOT_AND_TARGETS)
    target = match_partially(trusted, ecu="primary", hardware_id="gw", installed=None, now=NOW)
    assert isinstance(target, VerifiedTarget)
    with pytest.raises(MetadataRefused) as caught:
        verify_target_bytes([DATA], target)
    assert caught.value.reason is Reason.TARGET_HASH_MISMATCH


HASHES = st.dictionaries(st.sampled_from(["sha256", "sha512", "md5"]), st.sampled_from(["a", "b"]))


@given(one=HASHES, other=HASHES)
def test_hashes_agree_when_all_that_are_shared_are_equal_and_one_of_them_is_known(
    one: dict[str, str], other: dict[str, str]
) -> None:
    shared = {name for name in one if name in other}
    expected = all(one[name] == other[name] for name in shared) and bool(shared & {"sha256", "sha512"})
    assert agree(one, other) is agree(other, one) is expected
