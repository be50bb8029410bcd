"""The segment cache gives the content's bytes, within its bound."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from overair.server.objects.segments import SEGMENT_SIZE_BYTES, SegmentCache

WHOLE = os.urandom(5 * SEGMENT_SIZE_BYTES + 77)


class Counted:
    def __init__(self) -> None:
        self.reads = 0

    def read(self, content_id: str, offset_bytes: int, size_bytes: int) -> bytes:
        self.reads += 1
        return WHOLE[offset_bytes : offset_bytes + size_bytes]


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) + 10), st.integers(0, 3 * SEGMENT_SIZE_BYTES)), max_size=20))
def test_reads_are_the_contents_own_bytes_and_the_bound_holds(asked: list[tuple[int, int]]) -> None:
    cache = SegmentCache(Counted(), size_bytes_max=2 * SEGMENT_SIZE_BYTES)
    for offset, size in asked:
        assert cache.read("c", offset, size) == WHOLE[offset : offset + size]
        assert cache.size_bytes <= 2 * SEGMENT_SIZE_BYTES
        in_memory = cache.cached("c", offset, size)
        assert in_memory is None or in_memory == WHOLE[offset : offset + size]


def test_a_hot_segment_is_read_once_and_an_evicted_one_again() -> None:
    contents = Counted()
    cache = SegmentCache(contents)
    assert cache.cached("c", 4096, 4096) is None
    for _ in range(100):
        cache.read("c", 4096, 4096)
    assert cache.cached("c", 4096, 4096) == WHOLE[4096:8192]
    assert contents.reads == 1
    cache.evict("c")
    assert cache.size_bytes == 0
    cache.read("c", 0, 1)
    assert contents.reads == 2
