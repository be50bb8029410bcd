"""Bytes that come piece by piece, held to the length and hashes that metadata gives them."""

from __future__ import annotations

from overair.wire.uptane.hashing import RunningHashes, known_hashes
from overair.wire.uptane.metadata import TargetFile
from overair.wire.uptane.refusals import MetadataRefused, Reason


class ContentCheck:
    """One image on its way in. Oversize is told at once, so that endless data ends; the rest at the end."""

    def __init__(self, target: TargetFile) -> None:
        """
        Raises:
            MetadataRefused: TARGET_HASH_MISMATCH: no hash of a kind that is known.
        """
        if not known_hashes(target.hashes):
            raise MetadataRefused(Reason.TARGET_HASH_MISMATCH, f"{target.name[:64]!r} has no hash of a kind that is known.")
        self._target = target
        self._hashes = RunningHashes(target.hashes)
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """How many bytes came so far."""
        return self._size_bytes

    def update(self, data: bytes) -> None:
        """
        Raises:
            MetadataRefused: OVERSIZED_TARGET.
        """
        self._size_bytes += len(data)
        if self._size_bytes > self._target.length:
            raise MetadataRefused(
                Reason.OVERSIZED_TARGET,
                f"{self._target.name[:64]!r} has {self._target.length} bytes; {self._size_bytes} came already.",
            )
        self._hashes.update(data)

    def finish(self) -> str:
        """Every byte has come. The SHA-256 of them all.

        Raises:
            MetadataRefused: TARGET_HASH_MISMATCH: too few bytes, or others.
        """
        name = self._target.name[:64]
        if self._size_bytes != self._target.length:
            raise MetadataRefused(
                Reason.TARGET_HASH_MISMATCH, f"{name!r} has {self._target.length} bytes; only {self._size_bytes} came."
            )
        differing = self._hashes.differing()
        if differing is not None:
            raise MetadataRefused(Reason.TARGET_HASH_MISMATCH, f"The {differing} of {name!r} isn't the one that was signed.")
        return self._hashes.sha256
