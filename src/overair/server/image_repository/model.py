"""Nouns of the Image repository. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NewType

from overair.basics.clock import Instant, as_datetime
from overair.basics.errors import InvalidRequest
from overair.server.objects.model import ContentId
from overair.server.roots.model import Finding, Unsigned
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import TARGET_NAME_LENGTH_MAX, Role, TargetFile, Targets

ImageUploadId = NewType("ImageUploadId", str)

TARGETS: Final = Role.TARGETS.value
SNAPSHOT: Final = Role.SNAPSHOT.value
TIMESTAMP: Final = Role.TIMESTAMP.value
HARDWARE_IDS_MAX: Final = 100
RELEASE_COUNTER_MAX: Final = 2**31 - 1
CUSTOM_SIZE_BYTES_MAX: Final = 64 * 1024
COMMENT_LENGTH_MAX: Final = 4096
URI_LENGTH_MAX: Final = 2048
KEPT_VERSIONS: Final = 4
"""How many versions of each document stay readable under their versioned names."""
VERSION_EPOCH_MS: Final = 1_577_836_800_000
"""2020-01-01T00:00:00Z."""
_NAME: Final = re.compile(r"[\x20-\x7e]+")
_HARDWARE_ID: Final = re.compile(r"[\x21-\x2b\x2d-\x7e][\x20-\x2b\x2d-\x7e]{0,199}")
"""Printable, and no comma: OTA Connect's tools send them as a list in one parameter."""
_LABEL: Final = re.compile(r"[\x20-\x7e]{1,255}")


class TargetStatus(StrEnum):
    """Where an image stands between its upload and its end."""

    UPLOADED = "uploaded"
    """Its bytes are here; nobody has said what it is."""
    PENDING = "pending"
    """Everything is known of it; it waits for the signature of offline keys."""
    LISTED = "listed"
    """A signed document names it: devices may install it."""
    DELETED = "deleted"
    """Gone. The name stays taken: devices refuse other bytes under a name that they have installed."""


MAY_BECOME: Final[Mapping[TargetStatus, frozenset[TargetStatus]]] = {
    TargetStatus.UPLOADED: frozenset(TargetStatus),
    TargetStatus.PENDING: frozenset({TargetStatus.PENDING, TargetStatus.LISTED, TargetStatus.DELETED}),
    TargetStatus.LISTED: frozenset({TargetStatus.LISTED, TargetStatus.UPLOADED, TargetStatus.DELETED}),
    TargetStatus.DELETED: frozenset({TargetStatus.UPLOADED, TargetStatus.PENDING, TargetStatus.LISTED}),
}
"""Whatever comes back under a name has the same bytes."""


class TargetFormat(StrEnum):
    BINARY = "BINARY"
    OSTREE = "OSTREE"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTarget:
    """One image of the catalogue."""

    name: str
    """Its file name in the repository, for ever of these bytes."""
    status: TargetStatus
    role: str
    """The document that lists it or is to list it: ``targets``, or a delegation. Empty while it is only uploaded."""
    length: int
    hashes: Mapping[str, str]
    """Algorithm → lower-case hexadecimal digits."""
    custom: Mapping[str, Any]
    content_id: ContentId | None
    """Where its bytes lie; None for one that is elsewhere."""
    uri: str | None
    created_at: Instant
    updated_at: Instant

    @property
    def sha256(self) -> str:
        return self.hashes.get("sha256", "")

    @property
    def hardware_ids(self) -> tuple[str, ...]:
        return self.file.hardware_ids

    @property
    def file(self) -> TargetFile:
        """As a targets document names it."""
        return TargetFile(name=self.name, length=self.length, hashes=self.hashes, custom=self.custom)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPlan:
    """An image as an operator describes it."""

    name: str
    length: int
    sha256: str
    display_name: str
    version: str
    hardware_ids: tuple[str, ...]
    format: TargetFormat = TargetFormat.BINARY
    content_id: ContentId | None = None
    uri: str | None = None
    """Where else devices find it. Required where the bytes aren't here."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More members of ``custom``, under names of the operator's own."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Other hashes than SHA-256, of images that lie elsewhere."""
    release_counter: int | None = None
    """An ECU that runs an image with a counter takes none with a lower one, whoever directs it (Standard 5.4.3.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """One version of one signed document, in one flavour."""

    role: str
    """``targets``, ``snapshot``, ``timestamp``, or the name of a delegation."""
    flavour: Flavour
    version: int
    document: bytes
    expires: Instant
    signed_at: Instant
    body: Targets | None = field(default=None, compare=False, repr=False)
    """What targets say, where that is known without reading them again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a push came to."""

    versions: Mapping[str, int]
    """By role, delegations included."""
    checksum: str
    """SHA-256 of the targets document in the Uptane flavour: what the next push must name."""
    warnings: Sequence[Finding] = ()
    waiting_root: int | None = None
    """A root that was accepted and waits for targets that fit it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """What the Image repository serves now."""

    versions: Mapping[str, int]
    """By role, root and delegations included."""
    targets: Targets
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What became of a change of the catalogue: it is published, or it waits for a signature from outside."""

    target: StoredTarget | None = None
    published: Published | None = None
    """None: nothing had to be signed, or it couldn't be signed here."""
    unsigned: Unsigned | None = None
    """What to sign and push, where the targets keys are offline."""


RESERVED_CUSTOM: Final = frozenset(
    {
        "name",
        "version",
        "hardwareIds",
        "targetFormat",
        "uri",
        "createdAt",
        "updatedAt",
        "cliUploaded",
        "ecuIdentifiers",
        "releaseCounter",
    }
)


def next_version(last: int, now: Instant) -> int:
    """The version of what the server signs itself: it rises even after a restore from a backup, since no number that was given
    since then is as high as the seconds that have passed (design §7)."""
    return max(last + 1, (now - VERSION_EPOCH_MS) // 1000)


def name_fault(name: str) -> str | None:
    """What is wrong with a target's name, or None (Uptane reference §4.5)."""
    if not 1 <= len(name) <= TARGET_NAME_LENGTH_MAX:
        return f"A target's name has 1 to {TARGET_NAME_LENGTH_MAX} characters."
    if not _NAME.fullmatch(name):
        return "A target's name is of printable ASCII characters."
    if ".." in name or name.startswith("/") or name.endswith("/") or "//" in name or "\\" in name:
        return "A target's name has no '..', no backslash, no empty part, and neither begins nor ends with a slash."
    return None


def check_name(name: str) -> None:
    """Raises:
    InvalidRequest: with subject ``target-name``.
    """
    fault = name_fault(name)
    if fault is not None:
        raise InvalidRequest(
            f"{name[:80]!r} can't name a target. {fault}", subject="target-name", details={"field": "filename"}
        )


def custom_faults(custom: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a new target's ``custom`` lacks: (member, words). Uptane reference §4.5, §9.4."""
    faults: list[tuple[str, str]] = []
    for member in ("name", "version"):
        value = custom.get(member)
        if not isinstance(value, str) or not _LABEL.fullmatch(value):
            faults.append((member, f"A target has a {member} of 1 to 255 printable characters."))
    hardware_ids = custom.get("hardwareIds")
    if not isinstance(hardware_ids, list | tuple) or not 1 <= len(hardware_ids) <= HARDWARE_IDS_MAX:
        faults.append(("hardwareIds", f"A target names 1 to {HARDWARE_IDS_MAX} hardware ids: no ECU could install it."))
    elif not all(isinstance(item, str) and _HARDWARE_ID.fullmatch(item) for item in hardware_ids):
        faults.append(("hardwareIds", "A hardware id has 1 to 200 printable characters and no comma."))
    if custom.get("targetFormat", "BINARY") not in set(TargetFormat):
        faults.append(("targetFormat", "The format is BINARY or OSTREE."))
    for member in ("createdAt", "updatedAt"):
        if not isinstance(custom.get(member), str):
            faults.append((member, f"A target says {member}, as in 2026-05-01T10:00:00Z."))
    uri = custom.get("uri")
    if uri is not None and uri != "" and uri_fault(uri) is not None:
        faults.append(("uri", uri_fault(uri) or ""))
    counter = custom.get("releaseCounter", 0)
    if not isinstance(counter, int) or isinstance(counter, bool) or not 0 <= counter <= RELEASE_COUNTER_MAX:
        faults.append(("releaseCounter", f"A release counter is a number from 0 to {RELEASE_COUNTER_MAX}."))
    return faults


def uri_fault(uri: object) -> str | None:
    """What is wrong with the address of an image that lies elsewhere, or None."""
    if not isinstance(uri, str) or len(uri) > URI_LENGTH_MAX or not re.fullmatch(r"https?://[\x21-\x7e]+", uri):
        return f"A URI is http:// or https:// and at most {URI_LENGTH_MAX} printable characters without spaces."
    return None


def custom_of(plan: TargetPlan, *, created_at: Instant, now: Instant) -> dict[str, Any]:
    """The ``custom`` of a target that the server lists itself."""
    return {
        **plan.extra,
        "name": plan.display_name,
        "version": plan.version,
        "hardwareIds": list(plan.hardware_ids),
        "targetFormat": plan.format.value,
        "uri": plan.uri,
        "createdAt": moment_text(created_at),
        "updatedAt": moment_text(now),
        "cliUploaded": plan.content_id is not None,
        **({} if plan.release_counter is None else {"releaseCounter": plan.release_counter}),
    }


def moment_text(moment: Instant) -> str:
    """``2026-05-01T10:00:00Z``."""
    return as_datetime(moment).strftime("%Y-%m-%dT%H:%M:%SZ")


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of a delegation's shell patterns covers a target's name. As fnmatch without flags: ``*`` covers slashes too
    (Uptane reference §4.5)."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
