"""Bytes of one repository read into documents whose signatures hold. What the order of documents demands is ``trust.py``'s."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from overair.wire.uptane.canonical import CanonicalForm
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import (
    DIRECTOR_TARGETS_SIZE_BYTES_MAX,
    ROOT_SIZE_BYTES_MAX,
    TARGETS_SIZE_BYTES_MAX,
    TIMESTAMP_SIZE_BYTES_MAX,
    Body,
    Delegation,
    Document,
    MetaFile,
    Repository,
    Role,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from overair.wire.uptane.metadata_reading import (
    check_signatures,
    read_document,
    read_root,
    read_snapshot,
    read_targets,
    read_timestamp,
)
from overair.wire.uptane.refusals import Reason
from overair.wire.uptane.rules import check_director_form, check_is, check_signed_by_root, check_version

B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True)
class Held(Generic[B]):
    """A document and what it says."""

    document: Document
    body: B


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReader:
    """Everything that doesn't change while one repository is read. ``meta``: what the document above says of this one; None
    where there is none, or where it was asked when the document first came.

    Each method raises ``MetadataRefused``.
    """

    repository: Repository
    flavour: Flavour
    form: CanonicalForm | None
    roles_needed: Collection[Role]
    """Whom a root must name keys for."""
    vehicle: str | None
    """Whose Director targets these must be, where they say whose they are."""

    @property
    def targets_size_bytes_max(self) -> int:
        return DIRECTOR_TARGETS_SIZE_BYTES_MAX if self.repository is Repository.DIRECTOR else TARGETS_SIZE_BYTES_MAX

    def root(self, data: bytes, *, after: Root | None) -> Held[Root]:
        """Signed by its own keys, and by those of the root before it (``after``), if there is one."""
        document = self._read(data, Role.ROOT, ROOT_SIZE_BYTES_MAX)
        if after is not None:
            whose = f"By the keys of root version {after.version}, which is trusted: "
            check_signed_by_root(document, after, Role.ROOT, whose=whose)
        body = read_root(document, roles_needed=self.roles_needed)
        check_signed_by_root(document, body, Role.ROOT, whose="By its own keys: " if after is not None else "")
        return Held(document, body)

    def timestamp(self, data: bytes, root: Root) -> Held[Timestamp]:
        document = self._of_root(data, Role.TIMESTAMP, TIMESTAMP_SIZE_BYTES_MAX, root, None)
        return Held(document, read_timestamp(document))

    def snapshot(self, data: bytes, root: Root, meta: MetaFile | None, *, size_bytes_max: int) -> Held[Snapshot]:
        document = self._of_root(data, Role.SNAPSHOT, size_bytes_max, root, meta)
        return Held(document, read_snapshot(document))

    def targets(self, data: bytes, root: Root, meta: MetaFile | None) -> Held[Targets]:
        document = self._of_root(data, Role.TARGETS, self.targets_size_bytes_max, root, meta)
        body = read_targets(document)
        if self.repository is Repository.DIRECTOR:
            check_director_form(body, self.vehicle)
        return Held(document, body)

    def delegated(self, data: bytes, delegator: Targets, delegation: Delegation, meta: MetaFile | None) -> Held[Targets]:
        document = self._read(data, Role.TARGETS, TARGETS_SIZE_BYTES_MAX)
        if meta is not None:
            check_is(document, meta, Reason.DELEGATION_HASH_MISMATCH)
        check_signatures(document, delegator.delegation_keys, delegation.keys)
        if meta is not None:
            check_version(document, meta)
        return Held(document, read_targets(document))

    def _of_root(self, data: bytes, role: Role, size_bytes_max: int, root: Root, meta: MetaFile | None) -> Document:
        document = self._read(data, role, size_bytes_max)
        if meta is not None:
            check_is(document, meta)
        check_signed_by_root(document, root, role)
        if meta is not None:
            check_version(document, meta)
        return document

    def _read(self, data: bytes, role: Role, size_bytes_max: int) -> Document:
        return read_document(data, role, flavour=self.flavour, form=self.form, size_bytes_max=size_bytes_max)
