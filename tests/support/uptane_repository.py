"""A Uptane repository in memory, either one, in either flavour: what it serves, by file name, signed with real keys.

For tests of clients and of whoever publishes. Nothing is checked here: a test may make it say what no repository should.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from overair.basics.clock import Instant
from overair.wire.uptane.keys import Flavour, PublicKey, public_key_of
from overair.wire.uptane.metadata import (
    Delegation,
    MetaFile,
    Repository,
    Role,
    RoleKeys,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from overair.wire.uptane.metadata_writing import MetadataSigner, meta_of, payload, sign_payload

DAY: Final = 24 * 3600 * 1000
PrivateKey = ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class KeyHolder:
    """Implements ``MetadataSigner`` with a key in memory; Ed25519 unless given another, since that is the quickest to make."""

    def __init__(self, key: PrivateKey | None = None) -> None:
        self.key = key or ed25519.Ed25519PrivateKey.generate()

    @property
    def public_key(self) -> PublicKey:
        return public_key_of(self.key.public_key())

    def sign(self, data: bytes) -> bytes:
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(data)
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))


def target_file(
    name: str, content: bytes, *, hardware_ids: Sequence[str] = (), algorithms: Sequence[str] = ("sha256",), **custom: Any
) -> TargetFile:
    """An image's entry as the Image repository has it."""
    members = {"hardwareIds": list(hardware_ids), **custom} if hardware_ids or custom else {}
    digests = {algorithm: hashlib.new(algorithm, content).hexdigest() for algorithm in algorithms}
    return TargetFile(name=name, length=len(content), hashes=digests, custom=members)


def assigned(target: TargetFile, ecus: Mapping[str, str], *, uri: str | None = None) -> TargetFile:
    """The same image as the Director has it: ``ecus`` maps serials to hardware ids."""
    named = {serial: {"hardwareId": hardware_id} for serial, hardware_id in ecus.items()}
    return replace(target, custom={"ecuIdentifiers": named, "uri": uri})


@dataclass
class UptaneRepository:
    """One repository. ``publish`` signs what changed; ``document`` is what a server would answer."""

    kind: Repository = Repository.IMAGE
    now: Callable[[], Instant] = lambda: Instant(1_800_000_000_000)
    flavour: Flavour = Flavour.UPTANE
    life_ms: int = 30 * DAY
    keys: dict[Role, list[KeyHolder]] = field(default_factory=dict)
    thresholds: dict[Role, int] = field(default_factory=dict)
    consistent_snapshot: bool = False

    def __post_init__(self) -> None:
        for role in Role:
            self.keys.setdefault(role, [KeyHolder()])
            self.thresholds.setdefault(role, 1)
        self.files: dict[str, bytes] = {}
        """What is served, by file name: ``1.root.json``, ``root.json``, ``targets.json``, ``delegations/NAME.json``, …"""
        self.root = Root(version=0, expires=Instant(0), keys={}, roles={})
        self.targets = Targets(version=0, expires=Instant(0), targets={})
        self.delegated: dict[str, Targets] = {}
        self.delegation_keys: dict[str, KeyHolder] = {}
        self.snapshot = Snapshot(version=0, expires=Instant(0), meta={})
        self.timestamp = Timestamp(version=0, expires=Instant(0), snapshot=MetaFile(version=1))
        self.publish_root()
        self.publish()

    # --- what a test asks of it ---

    def document(self, name: str) -> bytes | None:
        """The bytes of one file; None where there is none."""
        return self.files.get(name)

    def put_targets(self, *targets: TargetFile, custom: Mapping[str, Any] | None = None, **changes: Any) -> None:
        """Say these targets and no others, in the next version, and publish."""
        members = {target.name: target for target in targets}
        self.targets = replace(self.targets, targets=members, custom=custom or self.targets.custom, **changes)
        self.publish()

    def add_target(self, target: TargetFile) -> TargetFile:
        """One target more."""
        self.put_targets(*self.targets.targets.values(), target)
        return target

    def delegate(
        self, name: str, paths: Sequence[str], *targets: TargetFile, terminating: bool = False, below: str | None = None
    ) -> None:
        """One delegation more, after those that are there, with a key of its own; ``below`` another delegated role."""
        holder = self.delegation_keys.setdefault(name, KeyHolder())
        keys = RoleKeys(key_ids=(holder.public_key.id,), threshold=1)
        entry = Delegation(name=name, keys=keys, paths=tuple(paths), terminating=terminating)
        parent = self.targets if below is None else self.delegated[below]
        parent = replace(
            parent,
            delegations=(*parent.delegations, entry),
            delegation_keys={**parent.delegation_keys, holder.public_key.id: holder.public_key},
        )
        if below is None:
            self.targets = parent
        else:
            self.delegated[below] = parent
        members = {target.name: target for target in targets}
        self.delegated.setdefault(name, Targets(version=0, expires=Instant(0), targets=members))
        self.publish()

    def rotate(self, *roles: Role, count: int = 1) -> None:
        """New keys for these roles, in a new root that old and new root keys have signed; then everything anew."""
        before = list(self.keys[Role.ROOT])
        for role in roles:
            self.keys[role] = [KeyHolder() for _ in range(count)]
            self.thresholds[role] = count
        self.publish_root(also_by=before)
        self.publish()

    # --- what it does ---

    @property
    def expires(self) -> Instant:
        return Instant(self.now() + self.life_ms)

    def publish_root(
        self, *, also_by: Iterable[MetadataSigner] = (), expires: Instant | None = None, version: int | None = None
    ) -> bytes:
        """The next root, signed by today's root keys and by ``also_by``."""
        holders = {holder.public_key.id: holder.public_key for role in Role for holder in self.keys[role]}
        roles = {
            role.value: RoleKeys(
                key_ids=tuple(holder.public_key.id for holder in self.keys[role]), threshold=self.thresholds[role]
            )
            for role in Role
        }
        self.root = Root(
            version=version or self.root.version + 1,
            expires=expires or Instant(self.now() + 365 * DAY),
            keys=holders,
            roles=roles,
            consistent_snapshot=self.consistent_snapshot,
        )
        signers = {signer.public_key.id: signer for signer in (*also_by, *self.keys[Role.ROOT])}
        data = self.signed(self.root, list(signers.values()))
        self.files[f"{self.root.version}.root.json"] = data
        self.files["root.json"] = data
        return data

    def publish(self, *, expires: Instant | None = None) -> None:
        """Delegated targets, targets, snapshot and timestamp, each in its next version."""
        until = expires or self.expires
        for name, targets in self.delegated.items():
            self.delegated[name] = replace(targets, version=targets.version + 1, expires=until)
            self._serve(f"delegations/{name}.json", self.signed(self.delegated[name], [self.delegation_keys[name]]))
            self.files[f"{name}.json"] = self.files[f"delegations/{name}.json"]
        self.targets = replace(self.targets, version=self.targets.version + 1, expires=until)
        self._serve("targets.json", self.signed(self.targets, self.keys[Role.TARGETS]))
        self.publish_snapshot(expires=until)

    def publish_snapshot(self, *, expires: Instant | None = None, meta: Mapping[str, MetaFile] | None = None) -> None:
        """A snapshot of what is there, and a timestamp of the snapshot."""
        until = expires or self.expires
        found = {"targets.json": meta_of(self.files["targets.json"], self.targets.version)}
        for name, targets in self.delegated.items():
            found[f"{name}.json"] = meta_of(self.files[f"delegations/{name}.json"], targets.version)
        self.snapshot = Snapshot(version=self.snapshot.version + 1, expires=until, meta=found if meta is None else meta)
        self._serve("snapshot.json", self.signed(self.snapshot, self.keys[Role.SNAPSHOT]))
        self.publish_timestamp(expires=until)

    def publish_timestamp(self, *, expires: Instant | None = None) -> None:
        """A timestamp of the snapshot that is served."""
        until = expires or self.expires
        snapshot = meta_of(self.files["snapshot.json"], self.snapshot.version)
        self.timestamp = Timestamp(version=self.timestamp.version + 1, expires=until, snapshot=snapshot)
        self.files["timestamp.json"] = self.signed(self.timestamp, self.keys[Role.TIMESTAMP])

    def signed(self, body: Root | Targets | Snapshot | Timestamp, signers: Sequence[MetadataSigner]) -> bytes:
        """A document of this repository's flavour."""
        return sign_payload(payload(body, self.flavour), signers, self.flavour)

    def _serve(self, name: str, data: bytes) -> None:
        self.files[name] = data
        folder, _, last = name.rpartition("/")
        body = {"targets.json": self.targets, "snapshot.json": self.snapshot}.get(last) or self.delegated.get(last[:-5])
        assert body is not None
        versioned = f"{body.version}.{last}"
        self.files[f"{folder}/{versioned}" if folder else versioned] = data
