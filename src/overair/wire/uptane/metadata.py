"""Signed documents: root, targets, snapshot, timestamp and delegated targets, as values.

Uptane reference §4; §7 for the TUF flavour. A ``Document`` is what stood in the bytes, nothing believed
(``metadata_reading.py``); the typed bodies say what a document means once it is read, or is to mean once it is written
(``metadata_writing.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from overair.basics.clock import Instant
from overair.wire.uptane.canonical import CanonicalForm
from overair.wire.uptane.keys import Flavour, PublicKey

ROOT_SIZE_BYTES_MAX: Final = 64 * 1024
TIMESTAMP_SIZE_BYTES_MAX: Final = 64 * 1024
DIRECTOR_TARGETS_SIZE_BYTES_MAX: Final = 64 * 1024
SNAPSHOT_SIZE_BYTES_MAX: Final = 64 * 1024
"""Where the timestamp says no length."""
TARGETS_SIZE_BYTES_MAX: Final = 8 * 1024 * 1024
"""The Image repository's targets and delegated targets."""
THRESHOLD_MAX: Final = 1000
SIGNATURES_MAX: Final = 1000
SPEC_VERSION: Final = "1.0.31"
"""Of TUF, in the TUF flavour."""
TARGET_NAME_LENGTH_MAX: Final = 253
DELEGATION_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,49}")


class Repository(StrEnum):
    """Who says something: what may be installed anywhere (Image), or what one vehicle installs now (Director)."""

    DIRECTOR = "director"
    IMAGE = "image"


class Role(StrEnum):
    """The four roles that a root names. Delegated roles have names of their own."""

    ROOT = "root"
    TARGETS = "targets"
    SNAPSHOT = "snapshot"
    TIMESTAMP = "timestamp"

    @property
    def type_name(self) -> str:
        """``_type`` in the Uptane flavour."""
        return self.value.capitalize()


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature as it stands in a document."""

    key_id: str
    value: bytes
    method: str | None = None
    """Of the Uptane flavour only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One signed document as it was read; nothing about it is believed yet."""

    role: Role
    """By its ``_type``; delegated targets are TARGETS."""
    flavour: Flavour
    signed: Mapping[str, object]
    signed_bytes: bytes
    """The canonical form of ``signed``: what the signatures are over."""
    signatures: tuple[Signature, ...]
    version: int
    expires: Instant
    raw: bytes
    """As it came."""
    hashed_bytes: bytes
    """What snapshot and timestamp hash: the canonical form of the whole document (Uptane reference §4.1); ``raw`` for TUF."""

    def has_expired(self, now: Instant) -> bool:
        return self.expires <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleKeys:
    """Who may sign for a role, and how many of them must."""

    key_ids: tuple[str, ...]
    threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    version: int
    expires: Instant
    keys: Mapping[str, PublicKey]
    roles: Mapping[str, RoleKeys]
    """By role name; names beyond the four roles are kept and mean nothing to us."""
    consistent_snapshot: bool = False

    def role_keys(self, role: Role) -> RoleKeys:
        """Those that ``read_root`` was told to need are always there: all four, unless somebody said otherwise."""
        return self.roles[role.value]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaFile:
    """What snapshot or timestamp say of another document."""

    version: int
    length: int | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Algorithm → lower-case hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFile:
    """One image, as a targets document names it."""

    name: str
    length: int
    hashes: Mapping[str, str]
    """Algorithm → lower-case hexadecimal digits."""
    custom: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Empty where the document gives another hash only."""
        return self.hashes.get("sha256", "")

    @property
    def hardware_ids(self) -> tuple[str, ...]:
        """``custom.hardwareIds`` of the Image repository."""
        return tuple(item for item in self.custom.get("hardwareIds") or () if isinstance(item, str))

    @property
    def release_counter(self) -> int | None:
        """``custom.releaseCounter``, if it is an integer: an ECU never installs a lower one than it has (Standard 5.4.3.4)."""
        value = self.custom.get("releaseCounter")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def ecus(self) -> Mapping[str, str]:
        """``custom.ecuIdentifiers`` of the Director: ECU serial → hardware id."""
        named = self.custom.get("ecuIdentifiers")
        if not isinstance(named, Mapping):
            return {}
        return {serial: str(ecu.get("hardwareId", "")) for serial, ecu in named.items() if isinstance(ecu, Mapping)}

    @property
    def uri(self) -> str | None:
        """Where else the image lies; the filler that old tools write counts as none (Uptane reference §3.6)."""
        uri = self.custom.get("uri")
        return uri if isinstance(uri, str) and uri and uri != "https://example.com/" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """One role that a targets document trusts for some paths."""

    name: str
    keys: RoleKeys
    paths: tuple[str, ...]
    terminating: bool = False
    path_hash_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    version: int
    expires: Instant
    targets: Mapping[str, TargetFile]
    delegation_keys: Mapping[str, PublicKey] = field(default_factory=dict)
    delegations: tuple[Delegation, ...] = ()
    has_delegations: bool = False
    """Whether the member was there at all: the Director may never have it."""
    custom: Mapping[str, Any] = field(default_factory=dict)

    @property
    def correlation_id(self) -> str:
        value = self.custom.get("correlationId")
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    version: int
    expires: Instant
    meta: Mapping[str, MetaFile]
    """By file name: ``targets.json``, ``vendor-b.json``, ``root.json``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timestamp:
    version: int
    expires: Instant
    snapshot: MetaFile


Body = Root | Targets | Snapshot | Timestamp


def form_of(flavour: Flavour) -> CanonicalForm:
    """The canonical form that a flavour is signed over, unless somebody says otherwise."""
    return CanonicalForm.ESCAPED if flavour is Flavour.UPTANE else CanonicalForm.OLPC
