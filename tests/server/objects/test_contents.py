"""Contents are durable under their hash before anyone hears of them, and cost little memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from overair.basics.clock import Instant, SettableClock
from overair.basics.errors import InvalidRequest, NotFound, Unavailable
from overair.basics.ids import SeededIds
from overair.server.objects.contents import BUFFER_SIZE_BYTES, ContentStore


async def pieces(*contents: bytes) -> AsyncIterator[bytes]:
    for content in contents:
        yield content


def files(contents: ContentStore) -> list[Path]:
    return sorted(path for path in contents._folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("size_bytes", [0, 1, BUFFER_SIZE_BYTES, 3 * BUFFER_SIZE_BYTES + 7])
async def test_what_was_stored_is_read_back(contents: ContentStore, size_bytes: int) -> None:
    content = os.urandom(size_bytes)
    stored = await contents.store(
        pieces(*(content[at : at + 70_000] for at in range(0, size_bytes, 70_000))), algorithms=["sha1"]
    )
    assert stored.content_id == hashlib.sha256(content).hexdigest()
    assert stored.md5_hex == hashlib.md5(content).hexdigest()
    assert stored.size_bytes == size_bytes
    assert set(stored.checksums) == {"sha1"}
    assert contents.read(stored.content_id, 0, size_bytes + 10) == content
    assert contents.read(stored.content_id, 5, 100) == content[5:105]
    assert b"".join([piece async for piece in contents.stream(stored.content_id, 3, max(0, size_bytes - 3))]) == content[3:]


async def test_the_same_bytes_are_kept_once(contents: ContentStore) -> None:
    first = await contents.store(pieces(b"abc"))
    second = await contents.store(pieces(b"a", b"bc"))
    assert first == second
    assert len(files(contents)) == 1


async def test_a_stream_that_breaks_off_leaves_nothing(contents: ContentStore) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"x" * (2 * BUFFER_SIZE_BYTES)
        raise InvalidRequest("the digest is another one", subject="digest")

    with pytest.raises(InvalidRequest):
        await contents.store(breaks())
    assert files(contents) == []


async def test_an_asker_that_goes_away_leaves_nothing(contents: ContentStore) -> None:
    reached = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            reached.set()
            yield b"x" * BUFFER_SIZE_BYTES
            await asyncio.sleep(0)

    task = asyncio.create_task(contents.store(endless()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(contents) == []


async def test_a_stream_over_the_limit_is_refused_before_it_is_read_whole(contents: ContentStore) -> None:
    given = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(1000):
            given += 1000
            yield b"x" * 1000

    with pytest.raises(InvalidRequest) as refused:
        await contents.store(counted(), size_bytes_max=10_000)
    assert refused.value.subject == "too-large"
    assert given == 11_000
    assert files(contents) == []


async def test_a_full_disk_is_said_so_and_leaves_nothing(contents: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Unavailable, match="No space left"):
        await contents.store(pieces(b"abc"))
    assert files(contents) == []


async def test_a_list_reads_as_one_content_without_a_copy(contents: ContentStore) -> None:
    parts = [os.urandom(size) for size in (1000, 1, 0, 5000)]
    stored = [await contents.store(pieces(part)) for part in parts]
    whole = b"".join(parts)
    before = sum(path.stat().st_size for path in files(contents))
    listed = contents.store_list([(part.content_id, part.size_bytes) for part in stored])
    assert sum(path.stat().st_size for path in files(contents)) - before < 300
    for offset, size in ((0, 7000), (0, 1000), (999, 3), (1000, 1), (1001, 1), (5999, 10), (6001, 1), (9000, 1)):
        assert contents.read(listed, offset, size) == whole[offset : offset + size]
    assert b"".join([piece async for piece in contents.stream(listed, 500, 4000)]) == whole[500:4500]


async def test_a_content_that_is_gone_is_not_found(contents: ContentStore) -> None:
    with pytest.raises(NotFound):
        contents.read("0" * 64, 0, 1)
    with pytest.raises(NotFound):
        contents.read("m-" + "0" * 64, 0, 1)


async def test_what_a_killed_process_left_half_written_is_cleared(
    contents: ContentStore, tmp_path: Path, clock: SettableClock, ids: SeededIds
) -> None:
    stored = await contents.store(pieces(b"whole"))
    (tmp_path / "contents" / "incoming" / "half").write_bytes(b"ha")
    again = ContentStore(tmp_path / "contents", clock=clock, ids=ids)
    assert again.read(stored.content_id, 0, 10) == b"whole"
    assert [path.name for path in files(again)] == [stored.content_id]
    again.close()


async def test_storing_again_keeps_a_content_from_being_swept(contents: ContentStore, clock: SettableClock) -> None:
    stored = await contents.store(pieces(b"abc"))
    clock.advance(milliseconds=10_000)
    limit = Instant(clock.now() - 1)
    shard = stored.content_id[:2]
    assert list(contents.older_than(shard, limit)) == [stored.content_id]
    await contents.store(pieces(b"abc"))
    assert list(contents.older_than(shard, limit)) == []
    assert not contents.delete_if_older(stored.content_id, limit)
    clock.advance(milliseconds=10_000)
    assert contents.delete_if_older(stored.content_id, Instant(clock.now() - 1))
    with pytest.raises(NotFound):
        contents.read(stored.content_id, 0, 1)
