"""Each reason for which something isn't believed, shown once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from overair.basics.clock import Instant
from overair.wire.uptane.matching import match, matched, verify_target_bytes
from overair.wire.uptane.metadata import MetaFile, Role, RoleKeys, TargetFile
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.search import search
from overair.wire.uptane.trust import Refused, TrustedSet
from tests.support.uptane_repository import KeyHolder, UptaneRepository, assigned, target_file
from tests.support.uptane_trust import NOW, begin, believing, director, reason_of, update

ECUS = {"primary": "gw"}
DATA = b"two"
APP = target_file("app-2.bin", DATA, hardware_ids=["gw"])


def raised(call: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with pytest.raises(MetadataRefused) as caught:
            call()
        return Refused(caught.value.reason, caught.value.message)

    return run


def refreshed(change: Callable[[UptaneRepository], object]) -> Callable[[], object]:
    """A client that believed what was there before the change, refreshing after it."""

    def run() -> object:
        repository = UptaneRepository()
        repository.delegate("vendor", ["vendor/*"])
        trusted = believing(repository)
        change(repository)
        return update(trusted, repository)

    return run


def begun(change: Callable[[UptaneRepository], bytes]) -> Callable[[], object]:
    """A client that is given this as its first root."""
    return raised(lambda: TrustedSet.begin(change(UptaneRepository()), repository=UptaneRepository().kind))


def matching(wanted: TargetFile, image: TargetFile = APP, installed: TargetFile | None = None) -> Callable[[], object]:
    def run() -> object:
        director_repository, image_repository = director(), UptaneRepository()
        director_repository.put_targets(wanted)
        image_repository.put_targets(image)
        sets = believing(director_repository), believing(image_repository)
        return matched(match(*sets, ecus=ECUS, installed={"primary": installed}, now=NOW), {})

    return run


def bytes_of(data: bytes) -> Callable[[], object]:
    def run() -> object:
        (target,) = matching(assigned(APP, ECUS))()  # type: ignore[misc]
        return raised(lambda: verify_target_bytes([data], target))()

    return run


def unknown_method(repository: UptaneRepository) -> bytes:
    return repository.files["root.json"].replace(b'"method":"ed25519"', b'"method":"ed448"')


def same_signature_twice(repository: UptaneRepository) -> bytes:
    holder = repository.keys[Role.ROOT][0]
    return repository.signed(repository.root, [holder, holder])


def zero_threshold(repository: UptaneRepository) -> bytes:
    roles = {**repository.root.roles, "root": replace(repository.root.role_keys(Role.ROOT), threshold=0)}
    return repository.signed(replace(repository.root, roles=roles), repository.keys[Role.ROOT])


def two_needed(repository: UptaneRepository) -> bytes:
    holders = [KeyHolder(), KeyHolder()]
    keys = {holder.public_key.id: holder.public_key for holder in holders}
    roles = {**repository.root.roles, "root": RoleKeys(key_ids=tuple(keys), threshold=2)}
    body = replace(repository.root, keys={**repository.root.keys, **keys}, roles=roles)
    return repository.signed(body, holders[:1])


def older(repository: UptaneRepository) -> None:
    repository.timestamp = replace(repository.timestamp, version=0)
    repository.publish_timestamp()


def signed_by_a_stranger(repository: UptaneRepository) -> None:
    repository.keys[Role.TIMESTAMP] = [KeyHolder()]
    repository.publish_timestamp()


def above(change: Callable[[MetaFile], MetaFile]) -> Callable[[UptaneRepository], None]:
    def run(repository: UptaneRepository) -> None:
        meta = repository.snapshot.meta
        repository.publish_snapshot(meta={**meta, "targets.json": change(meta["targets.json"])})

    return run


def long_timestamp(repository: UptaneRepository) -> None:
    repository.files["timestamp.json"] += b" " * 64 * 1024


def delegation(data: Callable[[UptaneRepository], bytes | None]) -> Callable[[], object]:
    def run() -> object:
        repository = UptaneRepository()
        repository.delegate("vendor", ["*"])
        walk = search("app", believing(repository), now=NOW)
        next(walk)
        with pytest.raises(StopIteration) as ended:
            walk.send(data(repository))
        return ended.value.value

    return run


SHOWN: Final[dict[Reason, Callable[[], object]]] = {
    Reason.INVALID_METADATA: begun(lambda _: b"{}"),
    Reason.WRONG_TYPE: begun(lambda repository: repository.files["targets.json"]),
    Reason.UNSUPPORTED_METHOD: begun(unknown_method),
    Reason.BAD_KEY_ID: refreshed(signed_by_a_stranger),
    Reason.UNMET_THRESHOLD: begun(two_needed),
    Reason.NON_UNIQUE_SIGNATURES: begun(same_signature_twice),
    Reason.ILLEGAL_THRESHOLD: begun(zero_threshold),
    Reason.EXPIRED_METADATA: refreshed(lambda repository: repository.publish_timestamp(expires=NOW)),
    Reason.ROOT_ROTATION: refreshed(
        lambda repository: repository.files.update({"2.root.json": repository.files["1.root.json"]})
    ),
    Reason.ROLLBACK: refreshed(older),
    Reason.VERSION_MISMATCH: refreshed(above(lambda meta: replace(meta, version=9))),
    Reason.HASH_MISMATCH: refreshed(above(lambda meta: replace(meta, hashes={"sha256": "0" * 64}))),
    Reason.OVERSIZED: refreshed(long_timestamp),
    Reason.DELEGATION_MISSING: delegation(lambda _: None),
    Reason.DELEGATION_HASH_MISMATCH: delegation(lambda repository: repository.files["targets.json"]),
    Reason.TARGET_MISMATCH: matching(assigned(APP, ECUS), replace(APP, length=9)),
    Reason.TARGET_HASH_MISMATCH: bytes_of(b"TWO"),
    Reason.OVERSIZED_TARGET: bytes_of(b"two and more"),
    Reason.TARGET_CONTENT_MISMATCH: matching(assigned(APP, ECUS), installed=replace(APP, length=9)),
    Reason.BAD_ECU_ID: matching(assigned(APP, {"stranger": "gw"})),
    Reason.BAD_HARDWARE_ID: matching(assigned(APP, {"primary": "cluster"})),
    Reason.OUT_OF_ORDER: lambda: begin(UptaneRepository()).update_targets(b"{}", now=Instant(NOW)),
}


@pytest.mark.parametrize("reason", SHOWN)
def test_each_reason_is_given_where_it_applies(reason: Reason) -> None:
    assert reason_of(SHOWN[reason]()) is reason


def test_every_reason_is_shown() -> None:
    assert set(SHOWN) == set(Reason)


def test_a_refusal_says_what_happened_in_words() -> None:
    for show in SHOWN.values():
        result = show()
        assert isinstance(result, Refused)
        assert result.message.endswith((".", ")"))
