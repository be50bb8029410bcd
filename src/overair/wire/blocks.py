"""Files cut into blocks: numbering, bitmaps, what a request names, and a download as bookkeeping without IO.

Block ``i`` of a file is its bytes ``i * block_size .. (i + 1) * block_size``; the last one is what remains. A bitmap's bit
``i`` of byte ``j`` (least significant first) stands for block ``base + 8*j + i`` (wire reference §4.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NewType

BlockNumber = NewType("BlockNumber", int)

BLOCK_SIZE_BYTES_MIN: Final = 256
BLOCK_SIZE_BYTES_MAX: Final = 131_072
BLOCK_OFFSET_MAX: Final = 98_304
BLOCK_COUNT_MAX: Final = 98_304
BITMAP_SIZE_BYTES_MAX: Final = 12_287
"""A bitmap has fewer than 12,288 bytes."""
ANSWER_SIZE_BYTES_MAX: Final = 131_072
"""Payload sent for one GetStream request; further wanted blocks are dropped silently and asked for again."""

WINDOW_SPAN_BLOCKS_MAX: Final = 1024
"""First to last block of one window: keeps a request's bitmap within 128 bytes, however scattered the missing blocks are."""

_BYTE_WITH_BITS: Final = re.compile(rb"[^\x00]")


def block_count(file_size_bytes: int, block_size_bytes: int) -> int:
    """How many blocks a file has; the last may be short. An empty file has none."""
    return -(-file_size_bytes // block_size_bytes)


def block_length(file_size_bytes: int, block_size_bytes: int, number: int) -> int:
    """Bytes of block ``number``: a full block, or what remains in the last one. 0 outside the file."""
    return max(0, min(block_size_bytes, file_size_bytes - number * block_size_bytes)) if number >= 0 else 0


def bitmap_for(wanted: Iterable[int], base: int = 0) -> bytes:
    """Name the wanted blocks, each ``>= base``, in a bitmap padded to whole bytes. No block gives no bytes.

    Reference: AWS IoT developer guide, "GetStream request", field ``b``.
    """
    numbers = [number - base for number in wanted]
    bitmap = bytearray(max(numbers, default=-1) // 8 + 1)
    for number in numbers:
        if number < 0:
            raise ValueError(f"Block {number + base} lies before the bitmap's base {base}.")
        bitmap[number >> 3] |= 1 << (number & 7)
    return bytes(bitmap)


def blocks_named(bitmap: bytes, base: int = 0) -> list[BlockNumber]:
    """The blocks that a bitmap names, ascending."""
    named: list[BlockNumber] = []
    for index, byte in enumerate(bitmap):
        if byte:
            first = base + 8 * index
            named.extend(BlockNumber(first + bit) for bit in range(8) if byte >> bit & 1)
    return named


def blocks_to_send(
    *, file_size_bytes: int, block_size_bytes: int, block_offset: int, block_count_wanted: int | None, bitmap: bytes | None
) -> list[BlockNumber]:
    """What a GetStream request is answered with: ascending, inside the file, never more than asked, at most 128 KiB in all.

    With a bitmap the count caps it; without one the count runs from the offset; with neither, 128 KiB from the offset on.
    Bits beyond the end are ignored (the downloader's ``MQ==`` sets some). Bounds are checked by ``stream_messages``.
    """
    total = block_count(file_size_bytes, block_size_bytes)
    limit = ANSWER_SIZE_BYTES_MAX // block_size_bytes
    if block_count_wanted is not None:
        limit = min(limit, block_count_wanted)
    if bitmap is None:
        return [BlockNumber(number) for number in range(block_offset, min(block_offset + limit, total))]
    if limit == 0:
        return []
    named: list[BlockNumber] = []
    # Near its end a large download's bitmap is thousands of zero bytes and few others: those are found without a loop here.
    for found in _BYTE_WITH_BITS.finditer(bitmap):
        first = block_offset + 8 * found.start()
        byte = found[0][0]
        for bit in range(8):
            if byte >> bit & 1:
                number = first + bit
                if number >= total:
                    return named
                named.append(BlockNumber(number))
                if len(named) == limit:
                    return named
    return named


def file_size_bytes_max(block_size_bytes: int, *, offset_used: bool = True) -> int:
    """The largest file that can be asked for whole with blocks of this size.

    A client that sets the offset reaches block ``98304 + 98295``; one that always sends offset 0 and one bitmap for the whole
    file (the C agent) reaches block 98295. So 8 KiB blocks carry 1.5 GiB and 768 MiB.
    """
    reachable = BITMAP_SIZE_BYTES_MAX * 8 + (BLOCK_OFFSET_MAX if offset_used else 0)
    return reachable * block_size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamBlock:
    """One block as it came: which file, which number, what bytes."""

    file_id: int
    number: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRequest:
    """What to ask for next: ``count`` blocks named by ``bitmap`` from block ``offset`` on."""

    offset: int
    bitmap: bytes
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBlock:
    """Effect: put these bytes there. Not durable until the next ``MakeDurable``."""

    offset_bytes: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDurable:
    """Effect: the window is full. Sync the data, then store ``BlockDownload.durable_bitmap()``, then go on."""

    complete: bool


class UnexpectedBlock(ValueError):
    """A block that no request of this download can have named: outside the file, or not as long as its place demands."""


class BlockDownload:
    """The bookkeeping of one download: which blocks are there, which to ask for, when to make them durable.

    Blocks are asked for a *window* at a time. Bits of the durable bitmap are set only by ``made_durable``, which the caller
    calls after the window's bytes have reached the disk; so after a power cut the bitmap never names a block that isn't there.
    """

    def __init__(
        self,
        *,
        file_size_bytes: int,
        block_size_bytes: int,
        window_blocks: int = 32,
        durable_bitmap: bytes | None = None,
        answer_size_bytes_max: int = ANSWER_SIZE_BYTES_MAX,
    ) -> None:
        """Begin, or resume from a bitmap as ``durable_bitmap()`` gave it (bit set = block is on the disk).

        ``answer_size_bytes_max``: what a request may be answered with, and so the most that a window holds.

        Raises:
            ValueError: a size out of range, or a bitmap of another file's length.
        """
        if file_size_bytes <= 0 or not BLOCK_SIZE_BYTES_MIN <= block_size_bytes <= BLOCK_SIZE_BYTES_MAX:
            raise ValueError("A download needs at least one byte and blocks of 256..131072 bytes.")
        if file_size_bytes > file_size_bytes_max(block_size_bytes):
            raise ValueError(f"{file_size_bytes} bytes can't be asked for in blocks of {block_size_bytes} bytes.")
        self.file_size_bytes = file_size_bytes
        self.block_size_bytes = block_size_bytes
        self.total = block_count(file_size_bytes, block_size_bytes)
        self.window_blocks = max(1, min(window_blocks, answer_size_bytes_max // block_size_bytes))
        size = (self.total + 7) // 8
        if durable_bitmap is not None and len(durable_bitmap) != size:
            raise ValueError("The stored bitmap belongs to a file of another size.")
        self._durable = bytearray(durable_bitmap or bytes(size))
        if self.total % 8 and self._durable[-1] >> (self.total % 8):
            raise ValueError("The stored bitmap names blocks beyond the end of the file.")
        self._have = sum(byte.bit_count() for byte in self._durable)
        self._first_missing = 0
        self._in_window: set[int] = set()
        self._written: set[int] = set()
        self._open_window()

    @property
    def received(self) -> int:
        """Blocks that are here, durable or not."""
        return self._have + len(self._written)

    @property
    def complete(self) -> bool:
        """Every block is on the disk."""
        return self._have == self.total

    def request(self) -> BlockRequest:
        """Ask for what is missing in the window. Asking again after a timeout repeats only what hasn't come."""
        if not self._in_window:
            raise RuntimeError("Nothing to ask for: make the window durable first, or the download is complete.")
        # The offset has a bound below the number of blocks; beyond it the bitmap reaches on.
        offset = min(min(self._in_window), BLOCK_OFFSET_MAX)
        return BlockRequest(offset=offset, bitmap=bitmap_for(self._in_window, offset), count=len(self._in_window))

    def receive(self, number: int, data: bytes) -> list[WriteBlock | MakeDurable]:
        """Take one block. A repeat, or one outside the window, changes nothing: delivery is at least once.

        Raises:
            UnexpectedBlock: the number is outside the file or the length isn't the one its place demands.
        """
        expected = block_length(self.file_size_bytes, self.block_size_bytes, number)
        if expected == 0:
            raise UnexpectedBlock(f"Block {number} lies outside a file of {self.total} blocks.")
        if len(data) != expected:
            raise UnexpectedBlock(f"Block {number} has {len(data)} bytes where {expected} belong.")
        if number not in self._in_window:
            return []
        self._in_window.remove(number)
        self._written.add(number)
        write = WriteBlock(offset_bytes=number * self.block_size_bytes, data=data)
        if self._in_window:
            return [write]
        return [write, MakeDurable(complete=self.received == self.total)]

    def durable_bitmap(self) -> bytes:
        """The bitmap to store once the window's bytes are on the disk: durable blocks and this window's."""
        bitmap = bytearray(self._durable)
        for number in self._written:
            bitmap[number >> 3] |= 1 << (number & 7)
        return bytes(bitmap)

    def made_durable(self) -> None:
        """The window's bytes and then the bitmap are on the disk: open the next window."""
        self._durable = bytearray(self.durable_bitmap())
        self._have += len(self._written)
        self._written.clear()
        self._open_window()

    def written(self) -> bool:
        """Whether blocks have come since the last ``made_durable``. While others of their window are waited for in vain, making
        these durable opens a window that is full again: few requests then carry what many losses left."""
        return bool(self._written)

    def _open_window(self) -> None:
        number = self._first_missing
        end = min(self.total, min(self._in_window) + WINDOW_SPAN_BLOCKS_MAX) if self._in_window else self.total
        while number < end and len(self._in_window) < self.window_blocks:
            byte = self._durable[number >> 3]
            if byte == 0xFF and not number & 7:
                number += 8
                continue
            if not byte >> (number & 7) & 1 and number not in self._in_window:
                if not self._in_window:
                    end = min(end, number + WINDOW_SPAN_BLOCKS_MAX)
                self._in_window.add(number)
            number += 1
        self._first_missing = min(self._in_window, default=self.total)
