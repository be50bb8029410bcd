"""The checksums that S3 clients declare over a body, computed as the bytes pass.

CRC-32, MD5 and the SHA family come from C. CRC-32C and CRC-64/NVME have no C code among our libraries: they run in Python,
two bytes to a table look-up, at some 30 MB a second of one core; their tables, some megabytes, are made at first use.
A CRC is written big-endian. Reference: "Checking object integrity" in the S3 user guide; CRC-64/NVME as in the NVM Express
command set specification.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from array import array
from functools import lru_cache
from typing import Final, Protocol

_REFLECTED: Final = {"crc32c": (0x82F63B78, 4), "crc64nvme": (0x9A6C9329AC4BC9B5, 8)}
SIZES_BYTES: Final = {"crc32": 4, "crc32c": 4, "crc64nvme": 8, "md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}


class Checksum(Protocol):
    """A checksum in the making."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


def checksum(algorithm: str) -> Checksum:
    """A new checksum by its lower-case name, one of ``SIZES_BYTES``."""
    if algorithm == "crc32":
        return _Crc32()
    if algorithm in _REFLECTED:
        return _TableCrc(algorithm)
    return hashlib.new(algorithm, usedforsecurity=False)


def base64_digest(text: str, algorithm: str) -> bytes | None:
    """The bytes of a declared checksum; None where it isn't Base64 of the algorithm's size."""
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == SIZES_BYTES[algorithm] else None


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class _TableCrc:
    def __init__(self, algorithm: str) -> None:
        self._pair, self._single = _tables(algorithm)
        self._size_bytes = _REFLECTED[algorithm][1]
        self._value = (1 << (8 * self._size_bytes)) - 1

    def update(self, data: bytes) -> None:
        value, pair = self._value, self._pair
        even = len(data) & ~1
        words = array("H")
        words.frombytes(memoryview(data)[:even])
        if _BIG_ENDIAN:
            words.byteswap()
        for word in words:
            value = pair[(value ^ word) & 0xFFFF] ^ (value >> 16)
        if even != len(data):
            value = self._single[(value ^ data[-1]) & 0xFF] ^ (value >> 8)
        self._value = value

    def digest(self) -> bytes:
        mask = (1 << (8 * self._size_bytes)) - 1
        return (self._value ^ mask).to_bytes(self._size_bytes, "big")


_BIG_ENDIAN: Final = array("H", b"\x01\x00")[0] != 1


@lru_cache(maxsize=2)
def _tables(algorithm: str) -> tuple[list[int], list[int]]:
    polynomial, _ = _REFLECTED[algorithm]
    single = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
        single.append(value)
    pair = []
    for word in range(65_536):
        value = single[word & 0xFF]
        pair.append(single[(value ^ (word >> 8)) & 0xFF] ^ (value >> 8))
    return pair, single
