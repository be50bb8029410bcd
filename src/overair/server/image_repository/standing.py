"""What the Image repository says at one moment: the newest version of each document, in each flavour. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from overair.basics.errors import NotFound
from overair.server.image_repository.model import SNAPSHOT, TARGETS, TIMESTAMP, Published, StoredDocument
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Delegation, Role, Root, TargetFile, Targets
from overair.wire.uptane.metadata_reading import check_signatures, read_document, read_targets
from overair.wire.uptane.refusals import MetadataRefused

BODIES_IN_MEMORY_MAX: Final = 16
DELEGATIONS_WALKED_MAX: Final = 256
_OWN: Final = frozenset({TARGETS, SNAPSHOT, TIMESTAMP})


@lru_cache(maxsize=BODIES_IN_MEMORY_MAX)
def targets_body(document: bytes, flavour: Flavour) -> Targets:
    """What a stored targets document, delegated or not, says."""
    return read_targets(read_document(document, Role.TARGETS, flavour=flavour))


def meets_root(document: bytes, flavour: Flavour, root: Root) -> bool:
    """Whether a stored targets document is signed by the keys that this root names."""
    read = read_document(document, Role.TARGETS, flavour=flavour)
    try:
        check_signatures(read, root.keys, root.role_keys(Role.TARGETS))
    except MetadataRefused:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest version of each document, in each flavour."""

    documents: Mapping[tuple[str, Flavour], StoredDocument]

    def get(self, role: str, flavour: Flavour = Flavour.UPTANE) -> StoredDocument | None:
        return self.documents.get((role, flavour))

    def with_(self, documents: Collection[StoredDocument]) -> Standing:
        return Standing({**self.documents, **{(each.role, each.flavour): each for each in documents}})

    def files(self, flavour: Flavour) -> dict[str, bytes]:
        """By the name that clients fetch: ``targets.json``, ``vendor-b.json``."""
        return {f"{role}.json": each.document for (role, of), each in self.documents.items() if of is flavour}

    def delegated(self, flavour: Flavour) -> list[StoredDocument]:
        """Of every delegation that there ever was: what a snapshot named once, it names for ever (Standard 5.4.4.5)."""
        return [each for (role, of), each in sorted(self.documents.items()) if of is flavour and role not in _OWN]

    def targets(self) -> Targets | None:
        """What the newest targets say."""
        return self.body(TARGETS)

    def body(self, role: str) -> Targets | None:
        """What the newest document of targets or of a delegation says."""
        found = self.get(role)
        if found is None:
            return None
        return found.body or targets_body(found.document, found.flavour)

    def targets_document(self) -> StoredDocument:
        """Raises:
        NotFound: with subject ``repository``: the account has no Image repository yet.
        """
        found = self.get(TARGETS)
        if found is None:
            raise NotFound("This account has no Image repository yet.", subject="repository")
        return found

    def versions(self) -> dict[str, int]:
        """By role, delegations included, without the root."""
        return {role: each.version for (role, flavour), each in self.documents.items() if flavour is Flavour.UPTANE}

    def published(self) -> Published:
        """What a publication came to."""
        return Published(versions=self.versions(), checksum=checksum_of(self.targets_document().document))

    def delegators(self, targets: Targets | None = None) -> Iterator[tuple[Targets, Delegation]]:
        """Every delegation that is in force, with the document that makes it, in the order of a client's search: what a
        delegation delegates itself comes after it.

        Args:
            targets: In place of the targets that stand.
        """
        body = targets or self.targets()
        if body is not None:
            yield from self._delegators_below(body, set())

    def _delegators_below(self, body: Targets, seen: set[str]) -> Iterator[tuple[Targets, Delegation]]:
        for delegation in body.delegations:
            yield body, delegation
            if delegation.name in seen or len(seen) >= DELEGATIONS_WALKED_MAX:
                continue
            below = self.body(delegation.name)
            if below is not None:
                seen.add(delegation.name)
                yield from self._delegators_below(below, seen)

    def delegations_in_force(self, targets: Targets | None = None) -> list[str]:
        """The names of those that have said something."""
        names = dict.fromkeys(delegation.name for _, delegation in self.delegators(targets))
        return [name for name in names if self.get(name) is not None]

    def delegation(self, name: str) -> tuple[Targets, Delegation] | None:
        """Who delegates to this role first, and how."""
        return next(((body, delegation) for body, delegation in self.delegators() if delegation.name == name), None)

    def listing(self, targets: Targets | None = None) -> dict[str, tuple[str, TargetFile]]:
        """Every image that a document in force lists: name → (role, what it says). Where two do, the first in a client's
        search. ``targets``: in place of those that stand."""
        found: dict[str, tuple[str, TargetFile]] = {}
        body = targets or self.targets()
        for name, file in body.targets.items() if body is not None else ():
            found[name] = (TARGETS, file)
        for role in self.delegations_in_force(targets):
            delegated = self.body(role)
            for name, file in delegated.targets.items() if delegated is not None else ():
                found.setdefault(name, (role, file))
        return found

    def lost_with(self, targets: Targets) -> set[str]:
        """The images that no document would list any more if these targets followed."""
        return self.listing().keys() - self.listing(targets).keys()


def checksum_of(document: bytes) -> str:
    """SHA-256 of the canonical JSON of a whole signed document, which is how documents are stored."""
    return hashlib.sha256(document).hexdigest()
