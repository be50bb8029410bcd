"""What no record names goes after its grace; what any record names stays."""

from __future__ import annotations

import pytest

from overair.basics.errors import NotFound
from overair.server.objects.collector import ContentCollector
from overair.server.objects.model import PART_SIZE_BYTES_MIN, Properties
from overair.server.objects.segments import SegmentCache
from overair.server.objects.store import SqlObjectStore
from overair.server.objects.upload_model import CompletedPart
from overair.server.objects.upload_store import SqlUploadStore
from overair.server.objects.uploads import UploadsService

HOUR_MS = 3_600_000


@pytest.fixture
def segments(contents) -> SegmentCache:
    return SegmentCache(contents)


@pytest.fixture
def collect(work, contents, clock, segments):
    collector = ContentCollector(
        work=work,
        store=SqlObjectStore(),
        uploads=SqlUploadStore(),
        contents=contents,
        segments=segments,
        clock=clock,
        grace_ms=HOUR_MS,
        interval_ms=1000,
    )

    async def round_of(milliseconds: int) -> None:
        clock.advance(milliseconds=milliseconds)
        assert await collector.run_once()
        while await collector.run_once():
            pass

    return round_of


def is_there(contents, content_id) -> bool:
    try:
        contents.read(content_id, 0, 1)
    except NotFound:
        return False
    return True


async def test_a_content_that_never_got_its_record_goes_after_the_grace(contents, collect, segments) -> None:
    stored = contents.store_blocking([b"orphan"])
    segments.read(stored.content_id, 0, 6)
    await collect(HOUR_MS // 2)
    assert is_there(contents, stored.content_id)
    await collect(HOUR_MS)
    assert not is_there(contents, stored.content_id)
    assert segments.cached(stored.content_id, 0, 6) is None


async def test_a_named_content_stays_until_its_last_version_is_gone(work, objects, contents, place, bucket, collect) -> None:
    stored = contents.store_blocking([b"image"])
    first = await work.run(lambda tx: objects.put(tx, place, bucket, "a", stored))
    second = await work.run(lambda tx: objects.put(tx, place, bucket, "b", stored))
    await collect(2 * HOUR_MS)
    await work.run(lambda tx: objects.delete(tx, place, bucket, "a", first.version_id))
    await collect(2 * HOUR_MS)
    await work.run(lambda tx: objects.delete(tx, place, bucket, "b"))
    await collect(2 * HOUR_MS)
    assert is_there(contents, stored.content_id)
    await work.run(lambda tx: objects.delete(tx, place, bucket, "b", second.version_id))
    await collect(2 * HOUR_MS)
    assert not is_there(contents, stored.content_id)


async def test_parts_stay_while_their_upload_and_then_their_object_lives(
    work, objects, contents, place, bucket, collect, clock, ids
) -> None:
    uploads = UploadsService(objects, SqlUploadStore(), clock=clock, ids=ids)
    upload = await work.run(lambda tx: uploads.create(tx, place, bucket, "big", properties=Properties()))
    pieces = [contents.store_blocking([b"1" * PART_SIZE_BYTES_MIN]), contents.store_blocking([b"2"])]
    for number, piece in enumerate(pieces, 1):
        await work.run(
            lambda tx, number=number, piece=piece: uploads.put_part(tx, place, bucket, "big", upload.upload_id, number, piece)
        )
    await collect(2 * HOUR_MS)
    asked = [CompletedPart(number=n, etag=piece.md5_hex, checksums={}) for n, piece in enumerate(pieces, 1)]
    arguments = (place, bucket, "big", upload.upload_id, asked)
    planned = await work.read(lambda tx: uploads.plan_completion(tx, *arguments))
    listed = contents.store_list([(part.content_id, part.size_bytes) for part in planned.parts])
    version = await work.run(lambda tx: uploads.complete(tx, *arguments, planned=planned, content_id=listed))
    await collect(2 * HOUR_MS)
    assert contents.read(listed, PART_SIZE_BYTES_MIN - 1, 5) == b"12"
    await work.run(lambda tx: objects.delete(tx, place, bucket, "big", version.version_id))
    await collect(2 * HOUR_MS)
    assert not is_there(contents, listed)
    # The parts were named by the list while their folders were swept; the next round takes them.
    await collect(2 * HOUR_MS)
    assert not any(is_there(contents, piece.content_id) for piece in pieces)
