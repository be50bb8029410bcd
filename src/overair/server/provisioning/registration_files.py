"""Reads a bulk registration's file line by line, never more of it than a turn needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from overair.server.provisioning.registration_task_model import LINE_SIZE_BYTES_MAX

WINDOW_SIZE_BYTES: Final = 1024 * 1024
NEWLINE: Final = b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line, without its end."""

    number: int
    """Counted from 1."""
    end_bytes: int
    """Where the next one begins."""
    text: bytes | None
    """None: it is longer than a line may be."""


def read_lines(
    read: Callable[[int, int], bytes], *, position_bytes: int, size_bytes: int, lines_before: int, lines_max: int
) -> Sequence[Line]:
    """Up to ``lines_max`` lines from a position on; none at the file's end. Blocking.

    ``read(offset, size)`` gives fewer bytes only at the end. A line that is too long is passed over without being kept.
    """
    found: list[Line] = []
    number, offset = lines_before, position_bytes
    while offset < size_bytes and len(found) < lines_max:
        window = read(offset, min(WINDOW_SIZE_BYTES, size_bytes - offset))
        is_last = offset + len(window) >= size_bytes
        begin = 0
        while begin < len(window) and len(found) < lines_max:
            end = window.find(NEWLINE, begin)
            if end < 0 and not is_last:
                break
            after = len(window) if end < 0 else end + 1
            text = window[begin : len(window) if end < 0 else end]
            number += 1
            too_long = len(text) > LINE_SIZE_BYTES_MAX
            found.append(Line(number=number, end_bytes=offset + after, text=None if too_long else text.rstrip(b"\r")))
            begin = after
        if begin == 0:  # a whole window without an end of line
            number += 1
            offset = _end_of_line(read, offset + len(window), size_bytes)
            found.append(Line(number=number, end_bytes=offset, text=None))
        else:
            offset += begin
    return found


def _end_of_line(read: Callable[[int, int], bytes], offset: int, size_bytes: int) -> int:
    while offset < size_bytes:
        window = read(offset, min(WINDOW_SIZE_BYTES, size_bytes - offset))
        end = window.find(NEWLINE)
        if end >= 0:
            return offset + end + 1
        offset += len(window)
    return size_bytes
