"""Brings a trusted set up to date: asks for the documents that it lacks, in the order in which they vouch for each other.

The set decides (``wire/uptane/trust.py``); this only knows what to ask for next, and has each accepted document kept before
the next is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import quote

from overair.basics.clock import Instant
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import ROOT_SIZE_BYTES_MAX, TIMESTAMP_SIZE_BYTES_MAX
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.search import DelegationNeeded
from overair.wire.uptane.trust import SNAPSHOT_FILE, TARGETS_FILE, TIMESTAMP_FILE, TrustedSet
from overair.wire.uptane.verdicts import AcceptedButExpired, Refused, Verdict

LOG = logging.getLogger("overair.uptane")

ROOTS_MAX: Final = 1024
"""Roots that are followed in one go."""


class DocumentMissing(Exception):
    """The server doesn't have a document that is needed."""


class Fetch(Protocol):
    """How a document of this repository is asked for."""

    def __call__(self, name: str, size_bytes_max: int) -> bytes | None:
        """The bytes; None where the server says that there is no such document.

        Raises:
            TransportFailed: no answer, or one beyond its bounds.
        """
        ...


class Refresh:
    """One trusted set and where its documents come from.

    ``keep`` is called after each accepted document that is new; ``now`` says at which time expiry is judged.
    """

    def __init__(
        self, trusted: TrustedSet, *, fetch: Fetch, keep: Callable[[TrustedSet], None], now: Callable[[], Instant]
    ) -> None:
        self.trusted = trusted
        self._fetch = fetch
        self._keep = keep
        self._now = now

    def roots(self) -> None:
        """Follow the chain of roots to its end; the last must not have expired.

        Raises:
            MetadataRefused, TransportFailed
        """
        for _ in range(ROOTS_MAX):
            data = self._fetch(f"{self.trusted.root.version + 1}.root.json", ROOT_SIZE_BYTES_MAX)
            if data is None:
                break
            self._take("root", self.trusted.update_root(data))
        if isinstance(self.trusted.check_root_expiry(self._now()), AcceptedButExpired):
            raise MetadataRefused(
                Reason.EXPIRED_METADATA,
                f"The {self.trusted.repository} root, version {self.trusted.root.version}, has expired; there is no newer one.",
            )

    def timestamp(self) -> bool:
        """The timestamp; whether the server has one.

        Raises:
            MetadataRefused, TransportFailed
        """
        data = self._fetch(TIMESTAMP_FILE, TIMESTAMP_SIZE_BYTES_MAX)
        if data is None:
            return False
        self._take("timestamp", self.trusted.update_timestamp(data, now=self._now()))
        return True

    def snapshot_and_targets(self) -> None:
        """What the timestamp means, as far as it isn't here already.

        Raises:
            MetadataRefused, TransportFailed, DocumentMissing
        """
        trusted = self.trusted
        if not trusted.snapshot_is_current:
            version = None if trusted.timestamp is None else trusted.timestamp.snapshot.version
            data = self._needed(SNAPSHOT_FILE, version, trusted.snapshot_size_bytes_max)
            self._take("snapshot", trusted.update_snapshot(data, now=self._now()))
        if not trusted.targets_are_current:
            version = None if trusted.snapshot is None else trusted.snapshot.meta[TARGETS_FILE].version
            data = self._needed(TARGETS_FILE, version, trusted.targets_size_bytes_max)
            self._take("targets", trusted.update_targets(data, now=self._now()))
        self.check_usable()

    def targets_alone(self) -> None:
        """Targets of a Director that has neither timestamp nor snapshot.

        Raises:
            MetadataRefused, TransportFailed, DocumentMissing
        """
        data = self._needed(TARGETS_FILE, None, self.trusted.targets_size_bytes_max)
        self._take("targets", self.trusted.update_targets(data, now=self._now()))
        self.check_usable()

    def delegated_document(self, needed: DelegationNeeded) -> bytes | None:
        """The bytes that a search for a target can't go on without; it is the search that believes them or not.

        Raises:
            TransportFailed
        """
        name = needed.name
        file = f"delegations/{name}.json" if self.trusted.flavour is Flavour.UPTANE else f"{quote(name, safe='')}.json"
        return self._fetch(self._versioned(file, needed.version), needed.size_bytes_max)

    def check_usable(self) -> None:
        """Nothing may be built on a chain with a gap or with an expired link.

        Raises:
            MetadataRefused
        """
        refused = self.trusted.check_usable(self._now())
        if refused is not None:
            raise _error("chain", refused)

    def _needed(self, name: str, version: int | None, size_bytes_max: int) -> bytes:
        name = self._versioned(name, version)
        data = self._fetch(name, size_bytes_max)
        if data is None:
            raise DocumentMissing(f"The {self.trusted.repository} server has no {name}.")
        return data

    def _versioned(self, name: str, version: int | None) -> str:
        if not self.trusted.root.consistent_snapshot or version is None:
            return name
        folder, _, last = name.rpartition("/")
        return f"{folder}/{version}.{last}" if folder else f"{version}.{last}"

    def _take(self, what: str, verdict: Verdict) -> None:
        if isinstance(verdict, Refused):
            raise _error(f"{self.trusted.repository} {what}", verdict)
        if verdict.changed:
            LOG.info("%s %s: version %s", self.trusted.repository, what, verdict.document.version)
            self._keep(self.trusted)


def _error(what: str, refused: Refused) -> MetadataRefused:
    return MetadataRefused(refused.reason, f"{what}: {refused.message}", field=refused.field)
