"""The checksums that S3 clients ask for, computed and combined.

CRCs are reflected; S3 writes them big-endian in Base64. CRC32C and CRC64NVME have no C implementation among our libraries: a
table in Python serves them, at some megabytes a second, so a checksum that the client computed and the door verified is kept
rather than computed again.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import zlib
from collections.abc import Sequence
from typing import Final, Protocol

ALGORITHMS: Final = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")
CRC_POLYNOMIALS: Final = {
    # Reflected, with their width in bits.
    "crc32": (0xEDB88320, 32),
    "crc32c": (0x82F63B78, 32),
    "crc64nvme": (0x9A6C9329AC4BC9B5, 64),
}


class Digest(Protocol):
    """A checksum on its way."""

    def update(self, data: bytes) -> None: ...
    def base64(self) -> str: ...


class _Hash:
    def __init__(self, algorithm: str) -> None:
        self._hash = hashlib.new(algorithm, usedforsecurity=False)

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    def base64(self) -> str:
        return base64.b64encode(self._hash.digest()).decode()


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def base64(self) -> str:
        return base64.b64encode(self._value.to_bytes(4, "big")).decode()


class _TableCrc:
    def __init__(self, algorithm: str) -> None:
        self._table = _table(algorithm)
        self._width = CRC_POLYNOMIALS[algorithm][1]
        self._mask = (1 << self._width) - 1
        self._value = 0

    def update(self, data: bytes) -> None:
        value, table = self._value ^ self._mask, self._table
        for byte in data:
            value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
        self._value = value ^ self._mask

    def base64(self) -> str:
        return base64.b64encode(self._value.to_bytes(self._width // 8, "big")).decode()


def new_digest(algorithm: str) -> Digest:
    """A digest of one of ``ALGORITHMS``."""
    if algorithm in ("sha1", "sha256"):
        return _Hash(algorithm)
    return _Crc32() if algorithm == "crc32" else _TableCrc(algorithm)


@functools.cache
def _table(algorithm: str) -> tuple[int, ...]:
    polynomial, _ = CRC_POLYNOMIALS[algorithm]
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
        table.append(value)
    return tuple(table)


def full_object_crc(algorithm: str, parts: Sequence[tuple[str, int]]) -> str:
    """The CRC of the whole from those of its parts: (Base64, size in bytes) of each, in order."""
    polynomial, width = CRC_POLYNOMIALS[algorithm]
    whole = 0
    for checksum, size_bytes in parts:
        part = int.from_bytes(base64.b64decode(checksum), "big")
        whole = _multiply(whole, _power_of_x(8 * size_bytes, polynomial, width), polynomial, width) ^ part
    return base64.b64encode(whole.to_bytes(width // 8, "big")).decode()


def _multiply(left: int, right: int, polynomial: int, width: int) -> int:
    """The product of two reflected polynomials over GF(2), modulo the CRC's."""
    product = 0
    for bit in range(width - 1, -1, -1):
        # The highest bit of a reflected polynomial is its coefficient of x^0.
        if right >> bit & 1:
            product ^= left
        left = (left >> 1) ^ (polynomial if left & 1 else 0)
    return product


def _power_of_x(exponent: int, polynomial: int, width: int) -> int:
    """x^exponent modulo the CRC's polynomial, by squaring."""
    power, square = 1 << (width - 1), 1 << (width - 2)
    while exponent:
        if exponent & 1:
            power = _multiply(power, square, polynomial, width)
        square = _multiply(square, square, polynomial, width)
        exponent >>= 1
    return power


def composite(algorithm: str, checksums: Sequence[str]) -> str:
    """The checksum of the parts' checksums, with how many there were."""
    digest = new_digest(algorithm)
    digest.update(b"".join(base64.b64decode(checksum) for checksum in checksums))
    return f"{digest.base64()}-{len(checksums)}"
