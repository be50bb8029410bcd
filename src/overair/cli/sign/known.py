"""What a repository serves, believed because the pinned root vouches for it. Pure: bytes in, a verified view out.

Everything the tool builds on went through the client's own verification first: a server that lies, or somebody between, gets
nothing signed. What has expired is still a base to work from, and is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from overair.basics.clock import Instant
from overair.cli.sign.ends import refused
from overair.cli.sign.items import ROOT, TARGETS, Body
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import Repository, Role, Root, Targets
from overair.wire.uptane.metadata_reading import check_signatures, read_document, read_root
from overair.wire.uptane.refusals import MetadataRefused
from overair.wire.uptane.trust import Accepted, AcceptedButExpired, Refused, TrustedSet, Verdict

BEFORE_ALL: Final = Instant(0)
"""A moment at which nothing has expired yet: what has is told afterwards, and is still what to build on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Bytes as they came."""

    roots: tuple[bytes, ...]
    """From the pinned one to the newest, each the next version."""
    timestamp: bytes | None = None
    snapshot: bytes | None = None
    targets: bytes | None = None
    delegations: Mapping[str, bytes] = field(default_factory=dict)
    checksum: str | None = None
    """``x-ats-role-checksum`` of the targets: what a push must build on."""
    online_key_ids: frozenset[str] = frozenset()
    """Keys whose private half the server says it holds."""
    kept_keys: Mapping[str, str] = field(default_factory=dict)
    """The same of keys that no root names any more, and until when it keeps them."""
    pulled_at: Instant = BEFORE_ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One repository, verified."""

    repository: Repository
    served: Served
    root: Root
    targets: Targets | None
    delegations: Mapping[str, Targets]
    ends: Mapping[str, Instant]
    """When each document ends, by name; snapshot and timestamp among them."""
    expired: tuple[str, ...]
    """Documents that have ended already."""

    @property
    def root_bytes(self) -> bytes:
        return self.served.roots[-1]

    def body(self, name: str) -> Body | None:
        """The current body of a document by its name."""
        return self.root if name == ROOT else self.targets if name == TARGETS else self.delegations.get(name)

    def raw(self, name: str) -> bytes | None:
        """Its bytes."""
        if name == ROOT:
            return self.root_bytes
        return self.served.targets if name == TARGETS else self.served.delegations.get(name)

    def version(self, name: str) -> int:
        """0 where there is none yet."""
        body = self.body(name)
        return 0 if body is None else body.version


def fingerprint(root: bytes) -> str:
    """What people compare over the telephone: SHA-256 of the root as it is served."""
    return hashlib.sha256(root).hexdigest()


def verify(served: Served, repository: Repository, *, now: Instant) -> Known:
    """Believe what the first root vouches for.

    Raises:
        MetadataRefused: the first rule that is broken.
    """
    trusted = TrustedSet.begin(served.roots[0], repository=repository)
    for data in served.roots[1:]:
        _accepted(trusted.update_root(data), ROOT)
    ends: dict[str, Instant] = {ROOT: trusted.root.expires}
    delegations: dict[str, Targets] = {}
    if served.timestamp is not None and served.snapshot is not None and served.targets is not None:
        for name, data, update in (
            ("timestamp", served.timestamp, trusted.update_timestamp),
            ("snapshot", served.snapshot, trusted.update_snapshot),
            (TARGETS, served.targets, trusted.update_targets),
        ):
            ends[name] = _accepted(update(data, now=BEFORE_ALL), name).document.expires
        delegations = _delegations(trusted, served, ends)
    return Known(
        repository=repository,
        served=served,
        root=trusted.root,
        targets=trusted.targets,
        delegations=delegations,
        ends=ends,
        expired=tuple(name for name, end in ends.items() if end <= now),
    )


def _delegations(trusted: TrustedSet, served: Served, ends: dict[str, Instant]) -> dict[str, Targets]:
    found: dict[str, Targets] = {}
    waiting = [(each.name, TARGETS) for each in trusted.targets.delegations] if trusted.targets is not None else []
    while waiting:
        name, by = waiting.pop(0)
        data = served.delegations.get(name)
        if data is None or name in found:
            continue
        verdict = _accepted(trusted.update_delegation(name, data, now=BEFORE_ALL, by=by), name)
        body = verdict.body
        assert isinstance(body, Targets)
        found[name] = body
        ends[name] = verdict.document.expires
        waiting += [(each.name, name) for each in body.delegations]
    return found


def _accepted(verdict: Verdict, name: str) -> Accepted | AcceptedButExpired:
    if isinstance(verdict, Refused):
        raise MetadataRefused(verdict.reason, f"{name}: {verdict.message}", field=verdict.field)
    return verdict


def check_pin(first: bytes, pinned_sha256: str) -> None:
    """The root that everything hangs on is the one that was pinned.

    Raises:
        SignEnded: REFUSED.
    """
    if fingerprint(first) != pinned_sha256:
        raise refused(
            f"The root has the fingerprint {fingerprint(first)}, and {pinned_sha256} was pinned. Somebody serves another "
            "repository "
            "under this address: don't sign, and ask who changed it."
        )


def check_root_step(before: Root, data: bytes, flavour: Flavour) -> Root:
    """The next root, by the rules of a rotation: exactly one version on, signed by old and by new keys.

    Raises:
        MetadataRefused: the rule that is broken.
    """
    document = read_document(data, Role.ROOT, flavour=flavour)
    root = read_root(document)
    check_signatures(document, before.keys, before.role_keys(Role.ROOT))
    check_signatures(document, root.keys, root.role_keys(Role.ROOT))
    return root


def signing_keys(known: Known, name: str) -> Mapping[str, PublicKey]:
    """Who may sign a document now; empty for a delegation that nobody makes."""
    if name in {ROOT, TARGETS}:
        return {key_id: known.root.keys[key_id] for key_id in known.root.role_keys(Role(name)).key_ids}
    for parent in (known.targets, *known.delegations.values()):
        for delegation in parent.delegations if parent is not None else ():
            if delegation.name == name and parent is not None:
                return {key_id: parent.delegation_keys[key_id] for key_id in delegation.keys.key_ids}
    return {}
