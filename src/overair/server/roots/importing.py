"""Root chains of another server, taken over so that its devices follow: what they must be, and when they may take the place of
an account's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from overair.basics.errors import NotFound
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.roots.findings import Findings, code_of
from overair.server.roots.probes import RootProbes
from overair.server.roots.service import RootsService
from overair.server.roots.validation import compare_roots
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import ROOT_SIZE_BYTES_MAX, Repository, Role, Root
from overair.wire.uptane.metadata_reading import read_document, read_root
from overair.wire.uptane.refusals import MetadataRefused
from overair.wire.uptane.trust import TrustedSet
from overair.wire.uptane.verdicts import Refused

CHAIN_LENGTH_MAX: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedChain:
    """Every root of a repository from version 1 on, as the other server serves it, byte for byte."""

    repository: Repository
    documents: tuple[Mapping[Flavour, bytes], ...]
    """The TUF flavour may be missing, or begin at a later version and go on to the last."""


class ChainStanding(StrEnum):
    """How an account's own chain stands to one that is to take its place."""

    UNUSED = "unused"
    """The account has what it began with, and nobody follows it."""
    TAKEN_OVER = "taken-over"
    """It is the very chain, and has gone on since."""
    OCCUPIED = "occupied"
    """Devices may follow another one, or it has gone on by itself."""


def examine_chain(chain: ImportedChain, findings: Findings) -> Root | None:
    """Follow the chain as a device does, in each flavour; its newest root, if nothing is wrong."""
    found_before = len(findings.errors)
    if not 1 <= len(chain.documents) <= CHAIN_LENGTH_MAX:
        findings.error("chain_length", f"{chain.repository}.roots", f"A chain has 1 to {CHAIN_LENGTH_MAX} roots.")
        return None
    _follow(chain, Flavour.UPTANE, findings)
    first = next((number for number, documents in enumerate(chain.documents) if Flavour.TUF in documents), None)
    if first is not None:
        _follow(chain, Flavour.TUF, findings, first=first)
    if len(findings.errors) > found_before:
        return None
    for documents in chain.documents[first:] if first is not None else ():
        compare_roots(_root(documents, Flavour.UPTANE), _root(documents, Flavour.TUF), findings)
    if len(findings.errors) > found_before:
        return None
    return _root(chain.documents[-1], Flavour.UPTANE)


def _follow(chain: ImportedChain, flavour: Flavour, findings: Findings, *, first: int = 0) -> None:
    trusted: TrustedSet | None = None
    for number, documents in enumerate(chain.documents[first:], start=first + 1):
        place = f"{chain.repository}.roots[{number - 1}].{flavour}"
        data = documents.get(flavour)
        if data is None:
            findings.error("root_missing", place, f"Root version {number} is missing in the {flavour} flavour.")
            return
        refusal: Refused | None = None
        try:
            if trusted is None:
                trusted = TrustedSet.begin(data, repository=chain.repository, flavour=flavour)
            else:
                verdict = trusted.update_root(data)
                refusal = verdict if isinstance(verdict, Refused) else None
        except MetadataRefused as error:
            refusal = Refused(error.reason, error.message, error.field)
        if refusal is not None:
            findings.error(
                code_of(refusal.reason),
                f"{place}.{refusal.field}" if refusal.field else place,
                f"Devices wouldn't follow to root version {number}: {refusal.message}",
            )
            return
        assert trusted is not None
        if trusted.root.version != number:
            findings.error(
                "version_mismatch",
                f"{place}.signed.version",
                f"This root has version {trusted.root.version}; version {number} belongs here: a chain begins with version 1.",
            )
            return


def _root(documents: Mapping[Flavour, bytes], flavour: Flavour) -> Root:
    return read_root(read_document(documents[flavour], Role.ROOT, flavour=flavour, size_bytes_max=ROOT_SIZE_BYTES_MAX))


class ChainImports:
    """Whether a chain may take the place of an account's own; ``RootsService.adopt_chain`` does it."""

    def __init__(self, *, roots: RootsService, probes: RootProbes) -> None:
        self._roots = roots
        self._probes = probes

    def standing(self, tx: Tx, account: AccountId, chain: ImportedChain) -> ChainStanding:
        """What the account's chain is to this one."""
        repository = chain.repository
        newest = self._roots.newest_version(tx, account, repository, Flavour.UPTANE, published_only=False)
        if newest > len(chain.documents) and self._is_served(tx, account, repository, chain.documents):
            return ChainStanding.TAKEN_OVER
        if newest > 1 or self._probes.all(tx, account, repository):
            return ChainStanding.OCCUPIED
        return ChainStanding.UNUSED

    def _is_served(
        self, tx: Tx, account: AccountId, repository: Repository, documents: Sequence[Mapping[Flavour, bytes]]
    ) -> bool:
        for version, wanted in enumerate(documents, start=1):
            try:
                served = self._roots.document(tx, account, repository, version, Flavour.UPTANE)
            except NotFound:
                return False
            if served != wanted.get(Flavour.UPTANE):
                return False
        return True
