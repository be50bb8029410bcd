"""One range of bytes in a ``Range`` header. Pure. Reference: RFC 9110 §14, as S3 applies it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from overair.basics.errors import InvalidRequest

ONE_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """Part of an object, never empty."""

    offset_bytes: int
    size_bytes: int

    def content_range(self, whole_size_bytes: int) -> str:
        """The ``Content-Range`` header."""
        return f"bytes {self.offset_bytes}-{self.offset_bytes + self.size_bytes - 1}/{whole_size_bytes}"


def byte_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """What a ``Range`` header asks for; None for the whole object: no header, several ranges, another unit or nonsense, all of
    which a server may leave aside.

    Raises:
        InvalidRequest: with subject ``range``: it begins behind the object's end (416).
    """
    found = ONE_RANGE.fullmatch(header.strip()) if header is not None else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        wanted = min(int(found[2]), size_bytes)
        if wanted == 0:
            raise _unsatisfiable(header, size_bytes)
        return ByteRange(offset_bytes=size_bytes - wanted, size_bytes=wanted)
    first = int(found[1])
    last = min(int(found[2]), size_bytes - 1) if found[2] else size_bytes - 1
    if found[2] and int(found[2]) < first:
        return None
    if first >= size_bytes:
        raise _unsatisfiable(header, size_bytes)
    return ByteRange(offset_bytes=first, size_bytes=last - first + 1)


def _unsatisfiable(header: str | None, size_bytes: int) -> InvalidRequest:
    return InvalidRequest(
        "The requested range is not satisfiable: it begins behind the object's end.",
        subject="range",
        details={"RangeRequested": header or "", "ActualObjectSize": str(size_bytes)},
    )
