"""Which role of a repository answers for a target: the delegations, in their order, as far as they must be asked.

Uptane reference §5.2, §8.6 (Standard 5.4.4.7). Pre-order; the first role that names the target is the one that counts, whatever
a later one says; a terminating delegation ends the search. Delegated documents come from outside, one at a time and only when
they are needed, so a search is a generator: it yields what it needs and is sent the bytes.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from overair.basics.clock import Instant
from overair.wire.uptane.metadata import TargetFile, Targets
from overair.wire.uptane.patterns import delegates
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.trust import TARGETS_ROLE, Refused, TrustedSet
from overair.wire.uptane.verdicts import refused

DEPTH_MAX: Final = 5
"""Levels of delegation below targets, as aktualizr has them. What lies deeper is not asked."""
VISITED_MAX: Final = 64
"""Roles asked in one search; beyond, somebody is playing with us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegationNeeded:
    """The document that a search can't go on without. Send it its bytes, or None if they can't be had."""

    name: str
    by: str
    """The role that delegates to it: ``targets`` or another delegated one."""
    version: int
    size_bytes_max: int
    """How much to fetch at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTarget:
    """What a repository says of a target, and by which role."""

    target: TargetFile
    role: str


Search = Generator[DelegationNeeded, bytes | None, FoundTarget | Refused]


def search(name: str, repository: TrustedSet, *, now: Instant) -> Search:
    """Find the target ``name``. Documents that are sent are believed by ``repository`` first, which keeps them.

    Ends with Refused: TARGET_MISMATCH: nobody who may names it; DELEGATION_MISSING; whatever else a document on the way was
    refused for (an expired one too: skipping it would let a role of lower priority answer).
    """
    walk = _Walk(name, repository, now)
    refusal = repository.check_usable(now)
    if refusal is not None:
        return refusal
    targets = repository.targets
    assert targets is not None
    try:
        found = yield from walk.visit(TARGETS_ROLE, targets, depth=0)
    except MetadataRefused as error:
        return refused(error)
    return found or Refused(
        Reason.TARGET_MISMATCH,
        f"No role of the {repository.repository} repository that may name {name[:64]!r} does.",
        field="signed.targets",
    )


class _Walk:
    def __init__(self, name: str, repository: TrustedSet, now: Instant) -> None:
        self._name = name
        self._repository = repository
        self._now = now
        self._visited = {TARGETS_ROLE}
        self._ended = False
        """Whether a terminating delegation has been asked."""

    def visit(
        self, role: str, targets: Targets, *, depth: int
    ) -> Generator[DelegationNeeded, bytes | None, FoundTarget | None]:
        target = targets.targets.get(self._name)
        if target is not None:
            return FoundTarget(target=target, role=role)
        for delegation in targets.delegations:
            if not delegates(delegation, self._name, self._repository.flavour):
                continue
            if delegation.name not in self._visited and depth < DEPTH_MAX:
                below = yield from self._document(delegation.name, role)
                found = yield from self.visit(delegation.name, below, depth=depth + 1)
                if found is not None or self._ended:
                    return found
            if delegation.terminating:
                self._ended = True
                return None
        return None

    def _document(self, name: str, by: str) -> Generator[DelegationNeeded, bytes | None, Targets]:
        self._visited.add(name)
        if len(self._visited) > VISITED_MAX:
            raise MetadataRefused(Reason.INVALID_METADATA, f"More than {VISITED_MAX} roles claim {self._name[:64]!r}.")
        held = self._repository.delegation(name, by=by, now=self._now)
        if isinstance(held, Targets):
            return held
        if isinstance(held, Refused):
            raise MetadataRefused(held.reason, held.message, field=held.field)
        snapshot = self._repository.snapshot
        assert snapshot is not None
        version = snapshot.meta[f"{name}.json"].version
        data = yield DelegationNeeded(name=name, by=by, version=version, size_bytes_max=self._repository.targets_size_bytes_max)
        if data is None:
            raise MetadataRefused(Reason.DELEGATION_MISSING, f"The document of the delegated role {name[:64]!r} can't be had.")
        verdict = self._repository.update_delegation(name, data, now=self._now, by=by)
        if isinstance(verdict, Refused):
            raise MetadataRefused(verdict.reason, verdict.message, field=verdict.field)
        assert isinstance(verdict.body, Targets)
        return verdict.body
