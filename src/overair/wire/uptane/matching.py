"""May this vehicle install this? Both repositories must say so: the Director for these ECUs, the Image repository at all.

Uptane reference §5.1 points 5 to 7, §5.2 point 5, §8.6 (Standard 5.4.3.4, 5.4.4.2). ``match`` is the only way to a
``VerifiedTarget`` for who verifies in full, ``match_partially`` for a Secondary that can't; and ``verify_target_bytes`` is the
only way from there to the ``VerifiedImage`` that an installer takes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from overair.basics.clock import Instant
from overair.wire.image_signature import VerifiedImage
from overair.wire.proof import VERIFIED
from overair.wire.uptane.content import ContentCheck
from overair.wire.uptane.hashing import agree
from overair.wire.uptane.metadata import Repository, TargetFile, Targets
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.search import DelegationNeeded, FoundTarget, search
from overair.wire.uptane.trust import Refused, TrustedSet
from overair.wire.uptane.verdicts import refused

Installed = Mapping[str, TargetFile | None]
"""What runs on each ECU, by serial; None or absent where nobody knows."""


class Verification(StrEnum):
    """How much stands behind a target."""

    FULL = "full"
    """Both repositories."""
    PARTIAL = "partial"
    """The Director alone: the least that a Secondary may do (Standard 5.4.4.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What the Director wants on one ECU that isn't there yet."""

    ecu: str
    """Its serial."""
    hardware_id: str
    target: TargetFile
    """As the Director names it."""


_SEAL: Final = object()


class VerifiedTarget:
    """Proof that an image of this name, length and hashes may be installed on these ECUs. Only this module makes one."""

    __slots__ = ("_correlation_id", "_ecus", "_role", "_target", "_uri", "_verification")

    def __init__(
        self,
        seal: object,
        *,
        target: TargetFile,
        ecus: Mapping[str, str],
        uri: str | None,
        role: str,
        correlation_id: str,
        verification: Verification,
    ) -> None:
        if seal is not _SEAL:
            raise RuntimeError("Only match and match_partially make a VerifiedTarget.")
        self._target = target
        self._ecus = dict(ecus)
        self._uri = uri
        self._role = role
        self._correlation_id = correlation_id
        self._verification = verification

    @property
    def target(self) -> TargetFile:
        """As the Image repository names it, with every hash that either repository gives; after partial verification as the
        Director does. What was installed is remembered as this."""
        return self._target

    @property
    def name(self) -> str:
        return self._target.name

    @property
    def length(self) -> int:
        """In bytes."""
        return self._target.length

    @property
    def ecus(self) -> Mapping[str, str]:
        """On which it may be installed: serial → hardware id."""
        return dict(self._ecus)

    @property
    def uri(self) -> str | None:
        """Where to fetch it, if not from the Image repository: the Director's word goes first."""
        return self._uri

    @property
    def role(self) -> str:
        """Which role of the Image repository vouches: ``targets`` or a delegated one. Empty after partial verification."""
        return self._role

    @property
    def correlation_id(self) -> str:
        """The Director's name for the update; empty where it gave none."""
        return self._correlation_id

    @property
    def verification(self) -> Verification:
        return self._verification

    def __repr__(self) -> str:
        return f"VerifiedTarget({self._target.name!r}, ecus={sorted(self._ecus)}, {self._verification})"


# What the Director wants --------------------------------------------------------------------------------------------------


def check_director_targets(
    targets: Targets, ecus: Mapping[str, str], installed: Installed, *, is_primary: bool = True
) -> tuple[Assignment, ...] | Refused:
    """What of these targets is new to the vehicle; empty: nothing is. ``ecus``: serial → hardware id of each ECU that is there.

    One ECU that isn't there, or is of other hardware, refuses all of it (BAD_ECU_ID, BAD_HARDWARE_ID). A Secondary
    (``is_primary=False``) knows itself alone and passes over the others. A name that is installed with other content is refused
    (TARGET_CONTENT_MISMATCH): names are never used again for other bytes.
    """
    new: list[Assignment] = []
    for target in targets.targets.values():
        for serial, hardware_id in target.ecus.items():
            field = f"signed.targets.{target.name[:64]}.custom.ecuIdentifiers.{serial[:64]}"
            if serial not in ecus:
                if not is_primary:
                    continue
                return Refused(Reason.BAD_ECU_ID, f"This vehicle has no ECU {serial[:64]!r}.", field)
            if ecus[serial] != hardware_id:
                return Refused(
                    Reason.BAD_HARDWARE_ID,
                    f"The ECU {serial[:64]!r} has the hardware id {ecus[serial]!r}, not {hardware_id[:64]!r}.",
                    f"{field}.hardwareId",
                )
            present = installed.get(serial)
            if present is not None and present.name == target.name:
                if _same_content(present, target):
                    continue
                return Refused(
                    Reason.TARGET_CONTENT_MISMATCH,
                    f"The ECU {serial[:64]!r} runs {target.name[:64]!r} already, and with other content.",
                    f"signed.targets.{target.name[:64]}",
                )
            new.append(Assignment(ecu=serial, hardware_id=hardware_id, target=target))
    return tuple(new)


# What both say ------------------------------------------------------------------------------------------------------------

Match = Generator[DelegationNeeded, bytes | None, tuple[VerifiedTarget, ...] | Refused]


def match(
    director: TrustedSet,
    image: TrustedSet,
    *,
    ecus: Mapping[str, str],
    installed: Installed,
    now: Instant,
    is_primary: bool = True,
) -> Match:
    """Full verification of what is new: one ``VerifiedTarget`` for each image that ECUs lack. All of it or, at the first doubt,
    nothing. Yields the delegated documents that it needs and is sent their bytes; ends at once where nothing is new.
    """
    _check_kinds(director, image)
    refusal = director.check_usable(now)
    if refusal is not None:
        return refusal
    targets = director.targets
    assert targets is not None
    new = check_director_targets(targets, ecus, installed, is_primary=is_primary)
    if isinstance(new, Refused):
        return new
    verified: list[VerifiedTarget] = []
    for wanted in {assignment.target.name: assignment.target for assignment in new}.values():
        found = yield from search(wanted.name, image, now=now)
        if isinstance(found, Refused):
            return found
        mine = {each.ecu: each.hardware_id for each in new if each.target.name == wanted.name}
        try:
            _check_agreement(wanted, found)
            _check_release(found.target, {serial: installed.get(serial) for serial in mine})
        except MetadataRefused as error:
            return refused(error)
        verified.append(
            VerifiedTarget(
                _SEAL,
                target=_with_hashes_of(found.target, wanted),
                ecus=mine,
                uri=wanted.uri or found.target.uri,
                role=found.role,
                correlation_id=targets.correlation_id,
                verification=Verification.FULL,
            )
        )
    return tuple(verified)


def matched(running: Match, documents: Mapping[str, bytes]) -> tuple[VerifiedTarget, ...] | Refused:
    """Run a match to its end with delegated documents that are at hand already, by role name."""
    needed: DelegationNeeded | None = None
    try:
        while True:
            needed = next(running) if needed is None else running.send(documents.get(needed.name))
    except StopIteration as end:
        result: tuple[VerifiedTarget, ...] | Refused = end.value
        return result


def match_partially(
    director: TrustedSet, *, ecu: str, hardware_id: str, installed: TargetFile | None, now: Instant
) -> VerifiedTarget | Refused | None:
    """Partial verification, for a Secondary that can't do more: what the Director says of this one ECU. None: nothing new."""
    if director.repository is not Repository.DIRECTOR:
        raise RuntimeError("Partial verification is about the Director's targets.")
    refusal = director.check_usable(now)
    if refusal is not None:
        return refusal
    targets = director.targets
    assert targets is not None
    new = check_director_targets(targets, {ecu: hardware_id}, {ecu: installed}, is_primary=False)
    if isinstance(new, Refused):
        return new
    if not new:
        return None
    wanted = new[0].target
    try:
        _check_release(wanted, {ecu: installed})
    except MetadataRefused as error:
        return refused(error)
    return VerifiedTarget(
        _SEAL,
        target=wanted,
        ecus={ecu: hardware_id},
        uri=wanted.uri,
        role="",
        correlation_id=targets.correlation_id,
        verification=Verification.PARTIAL,
    )


# The bytes ----------------------------------------------------------------------------------------------------------------


class TargetBytes:
    """The bytes of a verified target on their way in; ``finish`` proves that they are the ones that were meant."""

    def __init__(self, target: VerifiedTarget) -> None:
        """
        Raises:
            MetadataRefused: TARGET_HASH_MISMATCH: no hash of a kind that is known.
        """
        if not isinstance(target, VerifiedTarget):
            raise TypeError("Only a VerifiedTarget says which bytes may be installed.")
        self._check = ContentCheck(target.target)

    def update(self, data: bytes) -> None:
        """
        Raises:
            MetadataRefused: OVERSIZED_TARGET: more than the target has; nothing further need be read.
        """
        self._check.update(data)

    def finish(self) -> VerifiedImage:
        """
        Raises:
            MetadataRefused: TARGET_HASH_MISMATCH: too few bytes, or others, by any hash that either repository gives.
        """
        sha256 = self._check.finish()
        return VerifiedImage(VERIFIED, sha256=sha256, size_bytes=self._check.size_bytes)


def verify_target_bytes(chunks: Iterable[bytes], target: VerifiedTarget) -> VerifiedImage:
    """Check an image's bytes, read chunk by chunk; reading stops where there are more than the target has.

    Raises:
        MetadataRefused: OVERSIZED_TARGET, TARGET_HASH_MISMATCH.
    """
    check = TargetBytes(target)
    for chunk in chunks:
        check.update(chunk)
    return check.finish()


# ----------------------------------------------------------------------------------------------------------------------------


def _check_kinds(director: TrustedSet, image: TrustedSet) -> None:
    if director.repository is not Repository.DIRECTOR or image.repository is not Repository.IMAGE:
        raise RuntimeError("A match is between the Director and the Image repository.")


def _same_content(one: TargetFile, other: TargetFile) -> bool:
    return one.length == other.length and agree(one.hashes, other.hashes)


def _check_agreement(wanted: TargetFile, found: FoundTarget) -> None:
    """TARGET_MISMATCH: Standard 5.4.4.2, step 10."""
    name, field = wanted.name[:64], f"signed.targets.{wanted.name[:64]}"
    said = f"The Image repository's {found.role[:64]}" if found.role else "The Image repository"
    if wanted.length != found.target.length:
        raise MetadataRefused(
            Reason.TARGET_MISMATCH,
            f"{said} says that {name!r} has {found.target.length} bytes; the Director says {wanted.length}.",
            field=f"{field}.length",
        )
    if not agree(wanted.hashes, found.target.hashes):
        raise MetadataRefused(
            Reason.TARGET_MISMATCH,
            f"{said} and the Director give {name!r} other hashes, or none of the same kind.",
            field=f"{field}.hashes",
        )
    for serial, hardware_id in wanted.ecus.items():
        # Old publishers wrote the ECUs themselves into the Image repository, as the Director does; aktualizr takes that too.
        if hardware_id not in found.target.hardware_ids and found.target.ecus.get(serial) != hardware_id:
            raise MetadataRefused(
                Reason.TARGET_MISMATCH,
                f"{said} says that {name!r} is for {list(found.target.hardware_ids)}; "
                f"the ECU {serial[:64]!r} has the hardware id {hardware_id[:64]!r}.",
                field=f"{field}.custom.hardwareIds",
            )
    counter = wanted.release_counter
    if counter is not None and counter != found.target.release_counter:
        raise MetadataRefused(
            Reason.TARGET_MISMATCH,
            f"{said} gives {name!r} the release counter {found.target.release_counter}; the Director gives {counter}.",
            field=f"{field}.custom.releaseCounter",
        )


def _check_release(target: TargetFile, installed: Installed) -> None:
    """ROLLBACK: Standard 5.4.3.4. An ECU that has a release counter takes no lower one, nor an image without."""
    for serial, present in installed.items():
        floor = present.release_counter if present is not None else None
        if floor is not None and (target.release_counter is None or target.release_counter < floor):
            raise MetadataRefused(
                Reason.ROLLBACK,
                f"The ECU {serial[:64]!r} runs release {floor}; {target.name[:64]!r} has the counter {target.release_counter}.",
                field=f"signed.targets.{target.name[:64]}.custom.releaseCounter",
            )


def _with_hashes_of(target: TargetFile, other: TargetFile) -> TargetFile:
    return TargetFile(name=target.name, length=target.length, hashes={**other.hashes, **target.hashes}, custom=target.custom)
