"""Checksums of objects that came in parts, from those of the parts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

from overair.server.aws_protocol.checksums import checksum

_CRC_POLYNOMIALS: Final = {
    # Reflected, with their width in bits.
    "crc32": (0xEDB88320, 32),
    "crc32c": (0x82F63B78, 32),
    "crc64nvme": (0x9A6C9329AC4BC9B5, 64),
}


def full_object_crc(algorithm: str, parts: Sequence[tuple[str, int]]) -> str:
    """The CRC of the whole from those of its parts: (Base64, size in bytes) of each, in order."""
    polynomial, width = _CRC_POLYNOMIALS[algorithm]
    whole = 0
    for part_checksum, size_bytes in parts:
        part = int.from_bytes(base64.b64decode(part_checksum), "big")
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
    running = checksum(algorithm)
    running.update(b"".join(base64.b64decode(part) for part in checksums))
    return f"{base64.b64encode(running.digest()).decode()}-{len(checksums)}"
