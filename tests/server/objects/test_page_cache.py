"""What is in memory is read at once; what isn't comes by a thread; the bytes are the same."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from overair.server.objects import contents as contents_module
from overair.server.objects.contents import STREAMED_SIZE_BYTES, ContentStore
from overair.server.objects.page_cache import read_if_in_memory

BYTES = bytes(range(256)) * 64


@pytest.fixture
def descriptor(tmp_path: Path) -> int:
    path = tmp_path / "file"
    path.write_bytes(BYTES)
    return os.open(path, os.O_RDONLY)


def test_what_was_just_written_is_in_memory(descriptor: int) -> None:
    if read_if_in_memory(descriptor, 1, 0) is None:
        pytest.skip("not run: this file system doesn't tell what is in memory")
    assert read_if_in_memory(descriptor, 100, 300) == BYTES[300:400]


def test_bytes_beyond_the_end_are_left_to_the_thread(descriptor: int) -> None:
    assert read_if_in_memory(descriptor, 2, len(BYTES) - 1) is None


def test_a_descriptor_that_is_closed_gives_nothing(descriptor: int) -> None:
    os.close(descriptor)
    assert read_if_in_memory(descriptor, 1, 0) is None


@pytest.mark.parametrize("is_in_memory", [True, False])
async def test_a_content_streams_the_same_bytes_from_memory_and_from_the_disk(
    contents: ContentStore, monkeypatch: pytest.MonkeyPatch, is_in_memory: bool
) -> None:
    asked: list[int] = []

    def recorded(descriptor: int, size_bytes: int, offset_bytes: int) -> bytes | None:
        asked.append(size_bytes)
        return os.pread(descriptor, size_bytes, offset_bytes) if is_in_memory else None

    async def whole() -> AsyncIterator[bytes]:
        yield content

    content = os.urandom(3 * STREAMED_SIZE_BYTES + 7)
    monkeypatch.setattr(contents_module, "read_if_in_memory", recorded)
    stored = await contents.store(whole())

    pieces = [piece async for piece in contents.stream(stored.content_id, 5, len(content) - 5)]

    assert b"".join(pieces) == content[5:]
    assert max(map(len, pieces)) <= STREAMED_SIZE_BYTES
    # The first piece opens the file, in a thread.
    assert asked == [STREAMED_SIZE_BYTES] * 2 + [2]
