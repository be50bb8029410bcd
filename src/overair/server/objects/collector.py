"""Takes away contents that no record names any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from overair.basics.clock import Clock, Instant
from overair.basics.work import News, Tx, Work
from overair.server.objects.contents import ContentStore
from overair.server.objects.model import ContentId
from overair.server.objects.ports import NamesContents, ObjectStore, UploadStore
from overair.server.objects.segments import SegmentCache

GRACE_MS_DEFAULT: Final = 60 * 60 * 1000
"""How long a content may wait for its record: far longer than any unit of work waits for its turn."""
INTERVAL_MS_DEFAULT: Final = 10 * 60 * 1000
BATCH_CONTENTS_MAX: Final = 500

logger = structlog.get_logger("overair.objects")


class ContentCollector:
    """A ``workers.Worker`` that visits one folder of contents at a time.

    A content goes when nobody stored it since the grace period began, no version and no part names it, nor anything of the
    rooms in ``others``, and no list of contents does. The order matters: the records are asked first and the lists after them.
    A completing upload writes its list before its record replaces the parts', so one of the two looks sees the parts' contents
    named.
    """

    name: Final = "content-collector"

    def __init__(
        self,
        *,
        work: Work,
        store: ObjectStore,
        uploads: UploadStore,
        contents: ContentStore,
        segments: SegmentCache | None = None,
        others: Sequence[NamesContents] = (),
        clock: Clock,
        grace_ms: int = GRACE_MS_DEFAULT,
        interval_ms: int = INTERVAL_MS_DEFAULT,
    ) -> None:
        self._work = work
        self._store = store
        self._uploads = uploads
        self._contents = contents
        self._segments = segments
        self._others = others
        self._clock = clock
        self._grace_ms = grace_ms
        self._interval_ms = interval_ms
        self._due = Instant(clock.now() + interval_ms)
        self._shards: list[str] = []

    async def run_once(self) -> bool:
        """Sweep one folder; True while a round isn't over."""
        now = self._clock.now()
        if not self._shards:
            if now < self._due:
                return False
            self._due = Instant(now + self._interval_ms)
            self._shards = self._contents.shards()
        limit = Instant(now - self._grace_ms)
        shard = self._shards.pop()
        old = await self._contents.in_thread(lambda: list(self._contents.older_than(shard, limit)))
        for first in range(0, len(old), BATCH_CONTENTS_MAX):
            await self._sweep(old[first : first + BATCH_CONTENTS_MAX], limit)
        return True

    async def _sweep(self, old: Sequence[ContentId], limit: Instant) -> None:
        def query(tx: Tx) -> set[ContentId]:
            named = self._store.named_contents(tx, old) | self._uploads.named_contents(tx, old)
            return named.union(*(other.named_contents(tx, old) for other in self._others))

        named = await self._work.read(query)
        unnamed = [content_id for content_id in old if content_id not in named]
        if not unnamed:
            return
        listed = await self._contents.in_thread(self._contents.contents_in_lists)
        for content_id in unnamed:
            if content_id in listed:
                continue
            if await self._contents.in_thread(self._contents.delete_if_older, content_id, limit):
                if self._segments is not None:
                    self._segments.evict(content_id)
                await self._work.run(lambda tx, gone=content_id: tx.tell_nodes(News("content-gone", (gone,))))  # type: ignore[misc]
                logger.info("content collected", content=content_id)
