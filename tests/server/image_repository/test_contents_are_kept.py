"""The collector keeps the bytes of images and of unfinished uploads, and takes away what nobody names any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from overair.basics.clock import SettableClock
from overair.basics.errors import NotFound
from overair.basics.ids import SeededIds
from overair.server.image_repository.store import SqlImageUploadStore, SqlTargetStore
from overair.server.image_repository.uploads import ImageUploads
from overair.server.objects.collector import ContentCollector
from overair.server.objects.contents import ContentStore
from overair.server.objects.model import ContentId
from overair.server.objects.store import SqlObjectStore
from overair.server.objects.upload_store import SqlUploadStore
from tests.support.image_room import ImageRoom, plan

HOUR_MS = 3600 * 1000


@pytest.fixture
async def contents(tmp_path: Path, clock: SettableClock, ids: SeededIds) -> AsyncIterator[ContentStore]:
    contents = ContentStore(tmp_path / "contents", clock=clock, ids=ids)
    yield contents
    contents.close()


async def collect(room: ImageRoom, contents: ContentStore) -> None:
    collector = ContentCollector(
        work=room.work,
        store=SqlObjectStore(),
        uploads=SqlUploadStore(),
        contents=contents,
        others=[SqlTargetStore()],
        clock=room.clock,
        grace_ms=HOUR_MS,
        interval_ms=1000,
    )
    room.clock.advance(milliseconds=2 * HOUR_MS)
    assert await collector.run_once()
    while await collector.run_once():
        pass


def is_there(contents: ContentStore, content_id: ContentId) -> bool:
    try:
        contents.read(content_id, 0, 1)
    except NotFound:
        return False
    return True


async def test_an_images_bytes_stay_as_long_as_it_is_listed(room: ImageRoom, contents: ContentStore) -> None:
    stored = contents.store_blocking([b"one"])
    await room.work.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin", b"one")))
    await collect(room, contents)
    assert is_there(contents, stored.content_id)
    await room.work.run(lambda tx: room.images.delete_target(tx, room.place, "gateway-1.bin"))
    await collect(room, contents)
    assert not is_there(contents, stored.content_id)


async def test_parts_of_an_upload_stay_until_it_is_completed_or_given_up(room: ImageRoom, contents: ContentStore) -> None:
    uploads = ImageUploads(store=SqlImageUploadStore(), targets=SqlTargetStore(), clock=room.clock, ids=SeededIds(3))
    upload, _ = await room.work.run(lambda tx: uploads.begin(tx, room.place, "big.bin", 6))
    parts = [contents.store_blocking([piece]) for piece in (b"abc", b"def")]
    for number, stored in enumerate(parts, start=1):
        await room.work.run(lambda tx: uploads.put_part(tx, room.place, upload.upload_id, number, stored))  # noqa: B023
    await collect(room, contents)
    assert all(is_there(contents, stored.content_id) for stored in parts)

    whole = contents.store_list([(stored.content_id, stored.size_bytes) for stored in parts])
    etags = {number: stored.md5_hex for number, stored in enumerate(parts, start=1)}
    planned = await room.work.read(lambda tx: uploads.plan(tx, room.account, "big.bin", upload.upload_id, etags))

    def complete(tx):  # type: ignore[no-untyped-def]
        uploads.complete(tx, room.place, planned)
        sha256 = plan("big.bin", b"abcdef").sha256
        return room.images.uploaded(tx, room.place, "big.bin", sha256=sha256, length=6, content_id=whole)

    await room.work.run(complete)
    await collect(room, contents)
    assert contents.read(whole, 0, 6) == b"abcdef"
    await room.work.run(lambda tx: room.images.delete_target(tx, room.place, "big.bin"))
    await collect(room, contents)
    await collect(room, contents)
    assert not is_there(contents, whole)
    assert not any(is_there(contents, stored.content_id) for stored in parts)
