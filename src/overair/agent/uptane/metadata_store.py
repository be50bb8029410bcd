"""What is trusted of one repository, on the disk: one file that is replaced whole.

After a power cut it holds what was trusted after some accepted document, or the one before: never some files of one set and
some of another, and never a version below one that was kept before. The file is one CBOR map::

    {"format": 1, "chain": "whole", "origin": "imported" | "first-use",
     "documents": {"root.json": bytes, "timestamp.json": bytes, …},
     "roots": {1: bytes, 2: bytes, …}}         every root since the first, for Secondaries that stand further back
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import cbor2

from overair.agent.durable import Disk
from overair.basics.clock import Instant
from overair.wire import strict_cbor
from overair.wire.uptane.metadata import TARGETS_SIZE_BYTES_MAX, Repository
from overair.wire.uptane.refusals import MetadataRefused
from overair.wire.uptane.trust import ROOT_FILE, Chain, TrustedSet
from overair.wire.uptane.verdicts import Refused

LOG = logging.getLogger("overair.uptane")

FORMAT: Final = 1
STORED_SIZE_BYTES_MAX: Final = 8 * TARGETS_SIZE_BYTES_MAX
ROOTS_KEPT_MAX: Final = 1024


class StoredMetadataDamaged(Exception):
    """What is trusted can't be read. It is never begun anew in silence: that would be trust on first use a second time."""


class Origin(StrEnum):
    """How the first root came."""

    IMPORTED = "imported"
    """From a file that was provisioned."""
    FIRST_USE = "first-use"
    """From the server itself, over pinned TLS: whoever held the server then is trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The content of the file."""

    chain: Chain
    origin: Origin
    documents: Mapping[str, bytes]
    roots: Mapping[int, bytes] = field(default_factory=dict)


class MetadataStore:
    """Keeps one repository's trusted set."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._stored: Stored | None = None

    def load(self) -> Stored | None:
        """What was kept; None where nothing was ever trusted.

        Raises:
            StoredMetadataDamaged
        """
        try:
            with self._path.open("rb") as file:
                data = file.read(STORED_SIZE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        try:
            members = strict_cbor.decode_map(data, size_bytes_max=STORED_SIZE_BYTES_MAX, depth_max=4)
            if members["format"] != FORMAT:
                raise ValueError(f"format {members['format']!r}; this program reads {FORMAT}")
            self._stored = Stored(
                chain=Chain(str(members["chain"])),
                origin=Origin(str(members["origin"])),
                documents=_files(members["documents"]),
                roots={int(version): data for version, data in _files(members["roots"]).items()},
            )
        except (ValueError, KeyError, TypeError) as error:
            raise StoredMetadataDamaged(
                f"{self._path} can't be read ({error}). Remove it to begin from the provisioned root, or on first use, again."
            ) from None
        return self._stored

    def keep(self, trusted: TrustedSet, *, chain: Chain, origin: Origin) -> None:
        """Replace the file with what is trusted now."""
        roots = dict(self._stored.roots) if self._stored is not None else {}
        roots[trusted.root.version] = trusted.documents[ROOT_FILE]
        while len(roots) > ROOTS_KEPT_MAX:
            del roots[min(roots)]
        stored = Stored(chain=chain, origin=origin, documents=trusted.documents, roots=roots)
        data = cbor2.dumps(
            {
                "format": FORMAT,
                "chain": stored.chain.value,
                "origin": stored.origin.value,
                "documents": dict(stored.documents),
                "roots": {str(version): root for version, root in stored.roots.items()},
            }
        )
        self._disk.write_whole(self._path, data)
        self._stored = stored

    def root(self, version: int) -> bytes | None:
        """One of the roots that were trusted here."""
        return self._stored.roots.get(version) if self._stored is not None else None


def restored(stored: Stored, *, repository: Repository, vehicle: str | None, now: Instant) -> TrustedSet:
    """The trusted set that was kept. A document that no longer holds is left out and told of; the root must hold.

    Raises:
        StoredMetadataDamaged
    """
    try:
        trusted = TrustedSet.begin(stored.documents[ROOT_FILE], repository=repository, chain=stored.chain, vehicle=vehicle)
    except (KeyError, MetadataRefused) as error:
        raise StoredMetadataDamaged(f"The stored {repository} root can't be used: {error}") from None
    for name, verdict in trusted.adopt(stored.documents, now=now).items():
        if isinstance(verdict, Refused):
            LOG.warning("stored %s of the %s no longer holds: %s", name, repository, verdict.message)
    return trusted


def _files(value: object) -> dict[str, bytes]:
    if not isinstance(value, dict) or not all(isinstance(k, str) and isinstance(v, bytes) for k, v in value.items()):
        raise ValueError("a member has another shape")
    return value
