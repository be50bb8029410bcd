"""Buckets. What streams hold ready must go with a version or a grant, before whoever took it away is answered."""

from __future__ import annotations

from overair.server.composition.ground import Ground
from overair.server.composition.operators import OperatorRooms
from overair.server.objects.contents import ContentStore
from overair.server.objects.listing import ObjectLists
from overair.server.objects.segments import SegmentCache
from overair.server.objects.service import ObjectsService
from overair.server.objects.store import SqlObjectStore
from overair.server.objects.upload_store import SqlUploadStore
from overair.server.objects.uploads import UploadsService
from overair.server.streams.descriptors import Descriptors


class BucketRooms:
    """The room ``objects``, and what remembers of it."""

    def __init__(self, ground: Ground, operators: OperatorRooms) -> None:
        clock, ids = ground.clock, ground.ids
        self.descriptors = Descriptors()
        operators.grants.watched_by(self.descriptors.evict)
        self.contents = ContentStore(ground.state.contents, clock=clock, ids=ids, is_shared=ground.role is not None)
        ground.closing.callback(self.contents.close)
        self.segments = SegmentCache(self.contents)
        self.object_store, self.upload_store = SqlObjectStore(), SqlUploadStore()
        self.objects = ObjectsService(
            self.object_store,
            self.upload_store,
            clock=clock,
            ids=ids,
            when_gone=(self.descriptors, operators.bucket_policies),
        )
        self.uploads = UploadsService(self.objects, self.upload_store, clock=clock, ids=ids)
        self.lists = ObjectLists(self.objects, self.object_store, self.upload_store)
