"""Signed documents as aktualizr reads and checks them, with the checks that it leaves out (Uptane reference §4, §5.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.aktualizr import jsoncpp
from tests.support.aktualizr.errors import (
    BadKeyId,
    IllegalThreshold,
    InvalidMetadata,
    NonUniqueSignatures,
    SecurityException,
    UnmetThreshold,
)
from tests.support.aktualizr.keys import PublicKey

THRESHOLD_MAX = 1000
METHODS = {"rsassa-pss", "rsassa-pss-sha256", "ed25519"}
KEY_TYPES = {"rsa", "ed25519"}
TOP_LEVEL = {"root", "targets", "snapshot", "timestamp"}
LEGACY_FILLER_URI = "https://example.com/"


def version_untrusted(data: bytes) -> int:
    """What a document says of itself before anything is checked; -1 where it says nothing."""
    version = _at(jsoncpp.parse(data), "signed", "version")
    return version if isinstance(version, int) else -1


class KeyHolder:
    """What names keys and roles: a root, or a targets document with delegations."""

    def __init__(self) -> None:
        self._keys: dict[str, PublicKey] = {}
        self._keys_for_role: set[tuple[str, str]] = set()
        self._thresholds: dict[str, int] = {}

    def parse_keys(self, keys: Any) -> None:
        for key_id, value in _members(keys).items():
            if str(_at(value, "keytype")).lower() not in KEY_TYPES:
                raise SecurityException(f"Unsupported key type: {_at(value, 'keytype')}")
            self._keys[key_id] = PublicKey.read(value)

    def parse_role(self, name: str, value: Any) -> None:
        threshold = _at(value, "threshold")
        threshold = threshold if isinstance(threshold, int) else 0
        if not 1 <= threshold <= THRESHOLD_MAX:
            raise IllegalThreshold(f"The role {name} had an illegal signature threshold.")
        self._thresholds[name] = threshold
        self._keys_for_role |= {(name, key_id) for key_id in _at(value, "keyids") or []}

    def check(self, role: str, document: Any) -> None:
        """The type and the signatures of a document of ``role``; nothing but these."""
        is_delegation = role not in TOP_LEVEL
        kind = str(_at(document, "signed", "_type")).lower()
        if kind != ("targets" if is_delegation else role):
            raise SecurityException(f"Metadata type {kind} does not match expected role {role}")
        canonical = jsoncpp.bytes_of(_at(document, "signed"))
        signatures = _at(document, "signatures") or []
        seen: set[str] = set()
        valid = 0
        for signature in signatures:
            key_id = str(_at(signature, "keyid"))
            if key_id in seen:
                raise NonUniqueSignatures(role)
            seen.add(key_id)
            if str(_at(signature, "method")).lower() not in METHODS:
                raise SecurityException(f"Unsupported sign method: {_at(signature, 'method')}")
            key = self._keys.get(key_id)
            if key is not None and (role, key_id) in self._keys_for_role:
                valid += key.verifies(str(_at(signature, "sig")), canonical)
        threshold = self._thresholds.get(role, 0)
        if not 1 <= threshold <= THRESHOLD_MAX:
            raise IllegalThreshold("Invalid signature threshold")
        if len(signatures) == 1 and not valid:
            raise BadKeyId(role)
        if valid < threshold:
            raise UnmetThreshold(role)


@dataclass(frozen=True, slots=True)
class Base:
    """What every document says."""

    version: int
    expires: str

    def is_expired(self, now: str) -> bool:
        """Dates are compared as strings."""
        return self.expires < now


def _base(document: Any) -> Base:
    if not isinstance(document, dict) or not isinstance(document.get("signed"), dict):
        raise InvalidMetadata("invalid metadata json")
    version, expires = _at(document, "signed", "version"), str(_at(document, "signed", "expires"))
    if len(expires) != 20 or expires[19] != "Z":
        raise InvalidMetadata("invalid timestamp")
    return Base(version if isinstance(version, int) else 0, expires)


class Root(KeyHolder):
    """A root; whoever has one that was checked can check the next."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        document = jsoncpp.parse(data)
        self.base = _base(document)
        signed = document["signed"]
        for name in ("keys", "roles"):
            if name not in signed:
                raise InvalidMetadata(f"missing {name} field")
        self.parse_keys(signed["keys"])
        for name, value in _members(signed["roles"]).items():
            if name.lower() in TOP_LEVEL:
                self.parse_role(name.lower(), value)
        self._document = document

    @property
    def version(self) -> int:
        return self.base.version

    def check_itself(self) -> None:
        self.check("root", self._document)

    def check_next(self, following: Root) -> None:
        """Signed by a threshold of this one's keys, and of its own."""
        self.check("root", following._document)
        following.check_itself()


@dataclass(frozen=True, slots=True)
class Target:
    """One file, as a Director or an Image repository names it, or as it is remembered once it is installed."""

    name: str
    length: int
    hashes: Mapping[str, str]
    """In upper case."""
    custom: Any = None
    ecus: Mapping[str, str] = field(default_factory=dict)
    """Serial to hardware id: what the Director says."""
    hardware_ids: tuple[str, ...] = ()
    """What the Image repository says."""
    format: str = ""
    uri: str = ""

    @classmethod
    def read(cls, name: str, value: Any) -> Target:
        custom = _at(value, "custom")
        length = _at(value, "length")
        uri = _at(custom, "uri") or ""
        return cls(
            name=name,
            length=length if isinstance(length, int) else 0,
            hashes={
                kind.lower(): str(digest).upper()
                for kind, digest in _members(_at(value, "hashes")).items()
                if kind.lower() in ("sha256", "sha512")
            },
            custom=custom,
            ecus={
                serial: str(_at(said, "hardwareId") or "") for serial, said in _members(_at(custom, "ecuIdentifiers")).items()
            },
            hardware_ids=tuple(_at(custom, "hardwareIds") or ()),
            format=_at(custom, "targetFormat") or "",
            uri="" if uri == LEGACY_FILLER_URI else uri,
        )

    @property
    def is_ostree(self) -> bool:
        return self.format == "OSTREE" or (not self.format and self.length == 0)

    @property
    def sha256(self) -> str:
        return self.hashes.get("sha256", "").lower()

    def with_uri(self, uri: str) -> Target:
        return replace(self, uri=uri)

    def matches(self, other: Target) -> bool:
        """Same name and length; ECUs and hardware ids that agree; every hash type that both have, and one at least."""
        if self.name != other.name or self.length != other.length:
            return False
        if self.hardware_ids != other.hardware_ids or dict(self.ecus) != dict(other.ecus):
            if self.hardware_ids and not self.ecus and not other.hardware_ids and other.ecus:
                ecus, hardware_ids = other.ecus, self.hardware_ids
            elif other.hardware_ids and not other.ecus and not self.hardware_ids and self.ecus:
                ecus, hardware_ids = self.ecus, other.hardware_ids
            else:
                return False
            if not all(hardware_id in hardware_ids for hardware_id in ecus.values()):
                return False
        shared = self.hashes.keys() & other.hashes.keys()
        return bool(shared) and all(self.hashes[kind] == other.hashes[kind] for kind in shared)


@dataclass(frozen=True, slots=True)
class DelegatedRole:
    name: str
    paths: tuple[str, ...]
    is_terminating: bool


class Targets(KeyHolder):
    """A targets document of either repository, delegated or not, whose signatures ``signer`` has checked."""

    def __init__(self, data: bytes, signer: KeyHolder, *, role: str = "targets") -> None:
        super().__init__()
        document = jsoncpp.parse(data)
        signer.check(role, document)
        self.base = _base(document)
        signed = document["signed"]
        if signed.get("_type") != "Targets":
            raise InvalidMetadata("invalid targets.json")
        self.targets = [Target.read(name, value) for name, value in sorted(_members(signed.get("targets")).items())]
        self.delegations: list[DelegatedRole] = []
        if isinstance(signed.get("delegations"), dict):
            self.parse_keys(signed["delegations"].get("keys"))
            for value in signed["delegations"].get("roles") or []:
                name = str(_at(value, "name"))
                self.parse_role(name, value)
                paths = tuple(str(path) for path in _at(value, "paths") or [])
                self.delegations.append(DelegatedRole(name, paths, bool(_at(value, "terminating"))))
        self.correlation_id = str(_at(signed, "custom", "correlationId") or "")
        self.custom = signed.get("custom")

    @property
    def version(self) -> int:
        return self.base.version


class Timestamp:
    def __init__(self, data: bytes, signer: KeyHolder) -> None:
        document = jsoncpp.parse(data)
        signer.check("timestamp", document)
        self.base = _base(document)
        named = _at(document, "signed", "meta", "snapshot.json")
        length, version, hashes = _at(named, "length"), _at(named, "version"), _at(named, "hashes")
        if document["signed"].get("_type") != "Timestamp" or not isinstance(hashes, dict):
            raise InvalidMetadata("invalid timestamp.json")
        if not isinstance(length, int) or not isinstance(version, int):
            raise InvalidMetadata("invalid timestamp.json")
        self.snapshot_length, self.snapshot_version = length, version
        self.snapshot_hashes = {kind.lower(): str(digest).upper() for kind, digest in hashes.items()}


class Snapshot:
    def __init__(self, data: bytes, signer: KeyHolder) -> None:
        document = jsoncpp.parse(data)
        signer.check("snapshot", document)
        self.base = _base(document)
        meta = _at(document, "signed", "meta")
        if document["signed"].get("_type") != "Snapshot" or not isinstance(meta, dict):
            raise InvalidMetadata("invalid snapshot.json")
        self.versions: dict[str, int] = {}
        self.hashes: dict[str, dict[str, str]] = {}
        for name, value in meta.items():
            version = _at(value, "version")
            if not isinstance(version, int):
                raise InvalidMetadata("invalid snapshot.json")
            role = name.rpartition(".")[0]
            self.versions[role] = version
            self.hashes[role] = {kind.lower(): str(digest).upper() for kind, digest in _members(_at(value, "hashes")).items()}


def _members(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _at(value: Any, *path: str) -> Any:
    """A member of a member, None where there is none: as jsoncpp's null values behave."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
