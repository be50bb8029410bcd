"""The ordered set of documents of one repository that a client believes: takes bytes, answers with verdicts, does no IO.

Uptane reference §5.1, §5.2, §8.6 (Standard 5.4.4.3 to 5.4.4.6); in the TUF flavour the client workflow of TUF. Each document is
believed only after the one that vouches for it: root, timestamp, snapshot, targets, delegated targets. The set is stricter than
aktualizr where the Standard is: a snapshot may neither lose a targets file nor lower its version, and a version says one thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import Final

from overair.basics.clock import Instant
from overair.wire.uptane.canonical import CanonicalForm
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import (
    DELEGATION_NAME,
    SNAPSHOT_SIZE_BYTES_MAX,
    TARGETS_SIZE_BYTES_MAX,
    Delegation,
    MetaFile,
    Repository,
    Role,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.rules import (
    check_follows,
    check_not_lower,
    check_signed_by_root,
    check_snapshot_follows,
    check_unexpired,
    delegation_named,
    is_meant,
    keys_of,
    meets,
)
from overair.wire.uptane.signed_reader import B, Held, SignedReader
from overair.wire.uptane.verdicts import (
    Accepted,
    AcceptedButExpired,
    Refused,
    Verdict,
    of_stored,
    refusal_of,
    refused,
    verdict_of,
)

__all__ = ["Accepted", "AcceptedButExpired", "Chain", "Refused", "TrustedSet", "Verdict"]

ROOT_FILE: Final = "root.json"
TIMESTAMP_FILE: Final = "timestamp.json"
SNAPSHOT_FILE: Final = "snapshot.json"
TARGETS_FILE: Final = "targets.json"
TARGETS_ROLE: Final = Role.TARGETS.value


class Chain(StrEnum):
    """Which documents a client asks for."""

    WHOLE = "whole"
    """Root, timestamp, snapshot, targets: of both repositories, as the Standard says."""
    ROOT_AND_TARGETS = "root-and-targets"
    """As aktualizr does of the Director, and as a Secondary with partial verification must."""


class TrustedSet:
    """What is believed of one repository. ``begin`` it with a root that came some other way, ``adopt`` what was stored, then
    update it in order. A refusal changes nothing."""

    def __init__(self, root: Held[Root], reader: SignedReader, chain: Chain) -> None:
        self._root = root
        self._timestamp: Held[Timestamp] | None = None
        self._snapshot: Held[Snapshot] | None = None
        self._targets: Held[Targets] | None = None
        self._delegations: dict[str, Held[Targets]] = {}
        self._reader = reader
        self._chain = chain

    @classmethod
    def begin(
        cls,
        root: bytes,
        *,
        repository: Repository,
        flavour: Flavour = Flavour.UPTANE,
        form: CanonicalForm | None = None,
        chain: Chain = Chain.WHOLE,
        vehicle: str | None = None,
    ) -> TrustedSet:
        """Trust this root: it was provisioned, stored, or is believed on first use. It must be signed by its own keys; whether
        it has expired is asked later (``check_root_expiry``).

        ``vehicle``: Director targets that name another vehicle (``custom.deviceId``) are refused.

        Raises:
            MetadataRefused: it isn't a root that vouches for itself.
        """
        if chain is Chain.ROOT_AND_TARGETS and repository is Repository.IMAGE:
            raise RuntimeError("The Image repository is never believed without its timestamp and snapshot.")
        needed = tuple(Role) if chain is Chain.WHOLE else (Role.ROOT, Role.TARGETS)
        reader = SignedReader(repository=repository, flavour=flavour, form=form, roles_needed=needed, vehicle=vehicle)
        return cls(reader.root(root, after=None), reader, chain)

    def copy(self) -> TrustedSet:
        """Another set that believes the same. What is updated in one stays as it was in the other."""
        other = TrustedSet(self._root, self._reader, self._chain)
        other._timestamp, other._snapshot, other._targets = self._timestamp, self._snapshot, self._targets
        other._delegations = dict(self._delegations)
        return other

    # What is believed -----------------------------------------------------------------------------------------------------

    @property
    def repository(self) -> Repository:
        return self._reader.repository

    @property
    def flavour(self) -> Flavour:
        return self._reader.flavour

    @property
    def root(self) -> Root:
        return self._root.body

    @property
    def timestamp(self) -> Timestamp | None:
        return self._timestamp.body if self._timestamp else None

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest that was believed; ``snapshot_is_current`` says whether the timestamp still means it."""
        return self._snapshot.body if self._snapshot else None

    @property
    def targets(self) -> Targets | None:
        """The newest that was believed; ``check_usable`` says whether they may be acted upon."""
        return self._targets.body if self._targets else None

    @property
    def delegations(self) -> Mapping[str, Targets]:
        """Delegated targets that were believed, by role name."""
        return {name: held.body for name, held in self._delegations.items()}

    @property
    def documents(self) -> Mapping[str, bytes]:
        """What was believed, as it came, by file name: to be stored, then given to ``begin`` (``root.json``) and ``adopt``. In
        the TUF flavour the name of a delegated role may hold any character: encode it before it names a file."""
        found = {ROOT_FILE: self._root.document.raw}
        if self._timestamp:
            found[TIMESTAMP_FILE] = self._timestamp.document.raw
        if self._snapshot:
            found[SNAPSHOT_FILE] = self._snapshot.document.raw
        if self._targets:
            found[TARGETS_FILE] = self._targets.document.raw
        return found | {f"{name}.json": held.document.raw for name, held in self._delegations.items()}

    @property
    def snapshot_is_current(self) -> bool:
        """Whether the snapshot is the one that the timestamp names, so that it needn't be fetched again."""
        if self._timestamp is None or self._snapshot is None:
            return False
        return is_meant(self._snapshot.document, self._timestamp.body.snapshot)

    @property
    def targets_are_current(self) -> bool:
        """Whether targets are the ones that the snapshot names. Without a snapshot nobody can know: False."""
        if self._targets is None or self._snapshot is None or not self.snapshot_is_current:
            return False
        return is_meant(self._targets.document, self._snapshot.body.meta[TARGETS_FILE])

    @property
    def snapshot_size_bytes_max(self) -> int:
        """How much of a snapshot to fetch at most."""
        length = self._timestamp.body.snapshot.length if self._timestamp else None
        return min(length or SNAPSHOT_SIZE_BYTES_MAX, TARGETS_SIZE_BYTES_MAX)

    @property
    def targets_size_bytes_max(self) -> int:
        """How much of a targets document, delegated or not, to fetch at most."""
        return self._reader.targets_size_bytes_max

    def check_usable(self, now: Instant) -> Refused | None:
        """Whether targets may be acted upon now: the whole chain is there, each document is the one that is meant, none has
        expired. None: they may."""
        return refusal_of(lambda: self._usable_targets(now))

    def delegation(self, name: str, *, by: str = TARGETS_ROLE, now: Instant) -> Targets | Refused | None:
        """The delegated targets ``name``, if they are held, vouched for by the role ``by``, meant by the snapshot, unexpired.
        None: they are to be fetched. Refused: nothing that could be fetched would be believed."""
        held = self._delegations.get(name)
        try:
            meta = self._delegation_meta(name, now)
            delegator, delegation = self._delegation_by(name, by, now)
        except MetadataRefused as error:
            return refused(error)
        if held is None or not is_meant(held.document, meta) or held.document.has_expired(now):
            return None
        return held.body if meets(held.document, delegator.delegation_keys, delegation) else None

    # Updates --------------------------------------------------------------------------------------------------------------

    def update_root(self, data: bytes) -> Verdict:
        """The next root: exactly one version higher, signed by a threshold of the old keys and of the new ones. It may have
        expired: only the last of a chain may not (``check_root_expiry``).

        A new root takes the documents of keys that it changed out of the set, so that a thief who had counted versions up is
        outrun; of the Director it takes all, as aktualizr does (Uptane reference §5.1, §5.4).
        """
        return verdict_of(lambda: self._take_root(data))

    def check_root_expiry(self, now: Instant) -> Verdict:
        """To be asked once no newer root was found. Nothing else is believed under an expired root."""
        return of_stored(_accepted(self._root, self._root), now)

    def update_timestamp(self, data: bytes, *, now: Instant) -> Verdict:
        return verdict_of(lambda: self._take_timestamp(data, now))

    def update_snapshot(self, data: bytes, *, now: Instant) -> Verdict:
        return verdict_of(lambda: self._take_snapshot(data, now))

    def update_targets(self, data: bytes, *, now: Instant) -> Verdict:
        return verdict_of(lambda: self._take_targets(data, now))

    def update_delegation(self, name: str, data: bytes, *, now: Instant, by: str = TARGETS_ROLE) -> Verdict:
        """Delegated targets, for which the role ``by`` vouches: ``targets``, or a delegated role that is held already."""
        return verdict_of(lambda: self._take_delegation(name, data, now, by))

    def adopt(self, documents: Mapping[str, bytes], *, now: Instant) -> Mapping[str, Verdict]:
        """Take back what was stored (``documents``; its root is passed over, being the one that the set began with).

        Signatures are checked again, and versions of what is held already aren't lowered. What has expired is
        ``AcceptedButExpired``, and what no longer is the document that the one above means (power was lost between the two)
        stays a floor under versions: ``check_usable`` and the ``…current`` properties keep anybody from acting on either.
        """
        verdicts: dict[str, Verdict] = {}
        for name, adopt in (
            (TIMESTAMP_FILE, self._adopt_timestamp),
            (SNAPSHOT_FILE, self._adopt_snapshot),
            (TARGETS_FILE, self._adopt_targets),
        ):
            if name in documents:
                verdicts[name] = _stored(adopt, documents[name], now)
        waiting = {name: data for name, data in documents.items() if name not in verdicts and name != ROOT_FILE}
        while waiting:
            # Whoever is delegated to by what is held comes first; at the end those to whom nobody delegates are refused.
            for name in [name for name in waiting if self._delegators(_role(name))] or list(waiting):
                verdicts[name] = _stored(partial(self._adopt_delegation, _role(name)), waiting.pop(name), now)
        return verdicts

    # How each is believed -------------------------------------------------------------------------------------------------

    def _take_root(self, data: bytes) -> Accepted:
        old = self._root
        new = self._reader.root(data, after=old.body)
        if new.body.version != old.body.version + 1:
            raise MetadataRefused(
                Reason.ROOT_ROTATION,
                f"Root version {new.body.version} can't follow version {old.body.version}: a root has the next number.",
                field="signed.version",
            )
        self._root = new
        self._forget_what_lost_its_keys(old.body)
        return _accepted(new, old)

    def _forget_what_lost_its_keys(self, old: Root) -> None:
        if self.repository is Repository.DIRECTOR:
            self._timestamp = self._snapshot = self._targets = None
            return
        if self._lost(Role.TIMESTAMP, self._timestamp, old) or self._lost(Role.SNAPSHOT, self._snapshot, old):
            self._timestamp = self._snapshot = None
            if self.flavour is Flavour.TUF:  # there the snapshot alone knows versions of targets
                self._targets = None
                self._delegations = {}
        if self._lost(Role.TARGETS, self._targets, old):
            self._targets = None
            self._delegations = {}

    def _lost(self, role: Role, held: Held[B] | None, old: Root) -> bool:
        """Whether this role's keys are others since the root ``old``, or what is held no longer meets them."""
        new = self._root.body
        if keys_of(old, role) != keys_of(new, role):
            return True
        return held is not None and refusal_of(lambda: check_signed_by_root(held.document, new, role)) is not None

    def _take_timestamp(self, data: bytes, now: Instant) -> Accepted:
        self._check_in_chain(Role.TIMESTAMP)
        check_unexpired(self._root.document, now)
        held, before = self._reader.timestamp(data, self._root.body), self._timestamp
        if before is not None:
            if self.flavour is Flavour.TUF and held.document.version == before.document.version:
                held = before  # TUF 5.4.3: an equal version is no news, whatever it says
            check_follows(held.document, before.document)
            check_not_lower("snapshot.json", held.body.snapshot.version, before.body.snapshot.version)
        check_unexpired(held.document, now)
        self._timestamp = held
        return _accepted(held, before)

    def _take_snapshot(self, data: bytes, now: Instant) -> Accepted:
        self._check_in_chain(Role.SNAPSHOT)
        meta, size_bytes_max = self._usable_timestamp(now).snapshot, self.snapshot_size_bytes_max
        held, before = self._reader.snapshot(data, self._root.body, meta, size_bytes_max=size_bytes_max), self._snapshot
        if before is not None:
            check_follows(held.document, before.document)
            check_snapshot_follows(held.body, before.body)
        check_unexpired(held.document, now)
        self._snapshot = held
        return _accepted(held, before)

    def _take_targets(self, data: bytes, now: Instant) -> Accepted:
        check_unexpired(self._root.document, now)
        meta = self._usable_snapshot(now).meta[TARGETS_FILE] if self._chain is Chain.WHOLE else None
        held, before = self._reader.targets(data, self._root.body, meta), self._targets
        # In the TUF flavour the snapshot alone knows versions of targets, and it has been asked.
        if before is not None and self.flavour is Flavour.UPTANE:
            check_follows(held.document, before.document)
        check_unexpired(held.document, now)
        self._targets = held
        return _accepted(held, before)

    def _take_delegation(self, name: str, data: bytes, now: Instant, by: str) -> Accepted:
        meta = self._delegation_meta(name, now)
        delegator, delegation = self._delegation_by(name, by, now)
        held, before = self._reader.delegated(data, delegator, delegation, meta), self._delegations.get(name)
        keys = delegator.delegation_keys
        if before is not None and self.flavour is Flavour.UPTANE and meets(before.document, keys, delegation):
            check_follows(held.document, before.document)
        check_unexpired(held.document, now)
        self._delegations[name] = held
        return _accepted(held, before)

    # The order ------------------------------------------------------------------------------------------------------------

    def _check_in_chain(self, role: Role) -> None:
        if self._chain is not Chain.WHOLE:
            raise MetadataRefused(Reason.OUT_OF_ORDER, f"This client asks for no {role} of the {self.repository} repository.")

    def _usable_timestamp(self, now: Instant) -> Timestamp:
        check_unexpired(self._root.document, now)
        if self._timestamp is None:
            raise MetadataRefused(
                Reason.OUT_OF_ORDER, "A snapshot is believed after the timestamp that names it: there is none."
            )
        check_unexpired(self._timestamp.document, now)
        return self._timestamp.body

    def _usable_snapshot(self, now: Instant) -> Snapshot:
        self._usable_timestamp(now)
        if self._snapshot is None or not self.snapshot_is_current:
            raise MetadataRefused(Reason.OUT_OF_ORDER, "Targets are believed after the snapshot that the timestamp names.")
        check_unexpired(self._snapshot.document, now)
        return self._snapshot.body

    def _usable_targets(self, now: Instant) -> Targets:
        check_unexpired(self._root.document, now)
        if self._chain is Chain.WHOLE:
            self._usable_snapshot(now)
        if self._targets is None or (self._chain is Chain.WHOLE and not self.targets_are_current):
            raise MetadataRefused(Reason.OUT_OF_ORDER, "The targets that are meant aren't here yet.")
        check_unexpired(self._targets.document, now)
        return self._targets.body

    def _delegation_meta(self, name: str, now: Instant) -> MetaFile:
        if self.repository is Repository.DIRECTOR:
            raise MetadataRefused(Reason.INVALID_METADATA, "The Director never delegates.", field="signed.delegations")
        if self.flavour is Flavour.UPTANE and not DELEGATION_NAME.fullmatch(name):
            raise MetadataRefused(
                Reason.INVALID_METADATA,
                f"{name[:64]!r} can't name a delegated role: 1 to 50 letters, digits, hyphens, dots and underscores can.",
                field="signed.delegations.roles",
            )
        meta = self._usable_snapshot(now).meta.get(f"{name}.json")
        if meta is None:
            raise MetadataRefused(
                Reason.DELEGATION_MISSING, f"The snapshot doesn't name {name[:64]}.json: nothing can be believed of it."
            )
        return meta

    def _delegation_by(self, name: str, by: str, now: Instant) -> tuple[Targets, Delegation]:
        delegator = self._usable_targets(now)
        if by != TARGETS_ROLE:
            held = self._delegations.get(by)
            if held is None or not is_meant(held.document, self._delegation_meta(by, now)):
                raise MetadataRefused(
                    Reason.OUT_OF_ORDER, f"The role {by[:64]!r}, which would vouch for {name[:64]!r}, isn't here yet."
                )
            check_unexpired(held.document, now)
            delegator = held.body
        delegation = delegation_named(delegator, name)
        if delegation is None:
            raise MetadataRefused(Reason.DELEGATION_MISSING, f"The role {by[:64]!r} delegates nothing to {name[:64]!r}.")
        return delegator, delegation

    # What was stored ------------------------------------------------------------------------------------------------------

    def _adopt_timestamp(self, data: bytes) -> Accepted:
        self._check_in_chain(Role.TIMESTAMP)
        before = self._timestamp
        self._timestamp = _floored(self._reader.timestamp(data, self._root.body), before)
        return _accepted(self._timestamp, before)

    def _adopt_snapshot(self, data: bytes) -> Accepted:
        self._check_in_chain(Role.SNAPSHOT)
        before = self._snapshot
        read = self._reader.snapshot(data, self._root.body, None, size_bytes_max=TARGETS_SIZE_BYTES_MAX)
        self._snapshot = _floored(read, before)
        return _accepted(self._snapshot, before)

    def _adopt_targets(self, data: bytes) -> Accepted:
        before = self._targets
        self._targets = _floored(self._reader.targets(data, self._root.body, None), before)
        return _accepted(self._targets, before)

    def _adopt_delegation(self, name: str, data: bytes) -> Accepted:
        before = self._delegations.get(name)
        error = MetadataRefused(Reason.DELEGATION_MISSING, f"No role that is held delegates anything to {name[:64]!r}.")
        for delegator, delegation in self._delegators(name):
            try:
                held = _floored(self._reader.delegated(data, delegator, delegation, None), before)
            except MetadataRefused as another:
                error = another
            else:
                self._delegations[name] = held
                return _accepted(held, before)
        raise error

    def _delegators(self, name: str) -> list[tuple[Targets, Delegation]]:
        held = [self._targets, *self._delegations.values()]
        found = [(each.body, delegation_named(each.body, name)) for each in held if each is not None]
        return [(body, delegation) for body, delegation in found if delegation is not None]


# ----------------------------------------------------------------------------------------------------------------------------


def _accepted(held: Held[B], before: Held[B] | None) -> Accepted:
    return Accepted(held.document, held.body, changed=before is None or before.document.raw != held.document.raw)


def _floored(held: Held[B], before: Held[B] | None) -> Held[B]:
    if before is not None:
        check_follows(held.document, before.document)
    return held


def _stored(adopt: Callable[[bytes], Accepted], data: bytes, now: Instant) -> Verdict:
    return of_stored(verdict_of(lambda: adopt(data)), now)


def _role(file: str) -> str:
    return file.removesuffix(".json")
