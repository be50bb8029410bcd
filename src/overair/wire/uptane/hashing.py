"""Hashes as documents give them: algorithm → hexadecimal digits. What isn't known can't be checked and counts for nothing."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final

HASH_SIZES_BYTES: Final[Mapping[str, int]] = {"sha256": 32, "sha384": 48, "sha512": 64}
"""The algorithms that are known, as ``hashlib`` calls them."""


def known_hashes(hashes: Mapping[str, str]) -> Mapping[str, str]:
    """Those that can be checked."""
    return {algorithm: digits for algorithm, digits in hashes.items() if algorithm in HASH_SIZES_BYTES}


def differing_hash(hashes: Mapping[str, str], data: bytes) -> str | None:
    """The first known algorithm by which ``data`` isn't what is meant; None when all agree."""
    running = RunningHashes(hashes)
    running.update(data)
    return running.differing()


def agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two lists of hashes are of the same bytes: every algorithm that both give is equal, and both give one at least
    that is known (Uptane reference §4.4)."""
    shared = one.keys() & other.keys()
    return bool(known_hashes(one).keys() & shared) and all(one[algorithm] == other[algorithm] for algorithm in shared)


class RunningHashes:
    """All known hashes of bytes that come piece by piece."""

    def __init__(self, expected: Mapping[str, str]) -> None:
        self._expected = known_hashes(expected)
        self._running: dict[str, Any] = {algorithm: hashlib.new(algorithm) for algorithm in {*self._expected, "sha256"}}

    def update(self, data: bytes) -> None:
        for each in self._running.values():
            each.update(data)

    def differing(self) -> str | None:
        """The first algorithm by which the bytes so far aren't what was expected."""
        for algorithm, digits in self._expected.items():
            if not hmac.compare_digest(self._running[algorithm].hexdigest(), digits.lower()):
                return algorithm
        return None

    @property
    def sha256(self) -> str:
        """Of the bytes so far, whether it was expected or not."""
        digest: str = self._running["sha256"].hexdigest()
        return digest
