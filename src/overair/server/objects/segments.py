"""Hot pieces of contents in memory, for the blocks that a fleet asks for again and again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Protocol

from overair.server.objects.model import ContentId

SEGMENT_SIZE_BYTES: Final = 128 * 1024
CACHE_SIZE_BYTES_DEFAULT: Final = 64 * 1024 * 1024


class Readable(Protocol):
    """Where bytes come from (``contents.ContentStore``)."""

    def read(self, content_id: ContentId, offset_bytes: int, size_bytes: int) -> bytes: ...
    def forget(self, content_id: ContentId) -> None: ...


class SegmentCache:
    """The least recently used segments go first; bounded in bytes. Contents are immutable, so nothing here grows stale; what
    is deleted should be evicted, so that it isn't served for longer than its record says. For any thread."""

    def __init__(self, contents: Readable, *, size_bytes_max: int = CACHE_SIZE_BYTES_DEFAULT) -> None:
        self._contents = contents
        self._size_bytes_max = size_bytes_max
        self._segments: OrderedDict[tuple[ContentId, int], bytes] = OrderedDict()
        self._gate = threading.Lock()
        self.size_bytes = 0

    def read(self, content_id: ContentId, offset_bytes: int, size_bytes: int) -> bytes:
        """As ``ContentStore.read``: blocking, though only for what isn't in memory.

        Raises:
            NotFound: with subject ``content``.
        """
        number, begin = divmod(offset_bytes, SEGMENT_SIZE_BYTES)
        if begin + size_bytes <= SEGMENT_SIZE_BYTES:
            return self._segment(content_id, number)[begin : begin + size_bytes]
        pieces = []
        while size_bytes > 0:
            piece = self._segment(content_id, number)[begin : begin + size_bytes]
            if not piece:
                break
            pieces.append(piece)
            size_bytes -= len(piece)
            number, begin = number + 1, 0
        return b"".join(pieces)

    def cached(self, content_id: ContentId, offset_bytes: int, size_bytes: int) -> bytes | None:
        """The same without blocking, or None where something of it isn't in memory; for an event loop, which then asks a
        thread to ``read``."""
        number, begin = divmod(offset_bytes, SEGMENT_SIZE_BYTES)
        if begin + size_bytes > SEGMENT_SIZE_BYTES:
            last = (offset_bytes + size_bytes - 1) // SEGMENT_SIZE_BYTES
            if any((content_id, each) not in self._segments for each in range(number, last + 1)):
                return None
            return self.read(content_id, offset_bytes, size_bytes)
        segment = self._segments.get((content_id, number))
        return None if segment is None else segment[begin : begin + size_bytes]

    def evict(self, content_id: ContentId) -> None:
        """Forget a content."""
        with self._gate:
            for key in [key for key in self._segments if key[0] == content_id]:
                self.size_bytes -= len(self._segments.pop(key))

    def heard_gone(self, parts: Sequence[str]) -> None:
        """Another node has taken contents away (``nodes.switchboard``)."""
        for part in parts:
            self.evict(ContentId(part))
            self._contents.forget(ContentId(part))

    def _segment(self, content_id: ContentId, number: int) -> bytes:
        key = (content_id, number)
        segment = self._segments.get(key)
        if segment is not None:
            with self._gate:
                # Another thread may have dropped it between the two lines; the bytes are good all the same.
                if key in self._segments:
                    self._segments.move_to_end(key)
            return segment
        segment = self._contents.read(content_id, number * SEGMENT_SIZE_BYTES, SEGMENT_SIZE_BYTES)
        with self._gate:
            if key not in self._segments:
                self._segments[key] = segment
                self.size_bytes += len(segment)
            while self.size_bytes > self._size_bytes_max:
                _, dropped = self._segments.popitem(last=False)
                self.size_bytes -= len(dropped)
        return segment
