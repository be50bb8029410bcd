"""The operator's door to buckets and objects: S3's operations."""

from __future__ import annotations

from overair.basics.work import Work
from overair.server.objects.contents import ContentStore
from overair.server.objects.listing import ObjectLists
from overair.server.objects.operator_access import AccessOperations
from overair.server.objects.operator_buckets import BucketOperations
from overair.server.objects.operator_lists import ListOperations
from overair.server.objects.operator_objects import ObjectOperations
from overair.server.objects.operator_uploads import UploadOperations
from overair.server.objects.service import ObjectsService
from overair.server.objects.uploads import UploadsService


class ObjectsApi(AccessOperations, BucketOperations, ListOperations, ObjectOperations, UploadOperations):
    """All operations of service ``s3``. The dispatcher has authorised each, copies' sources included."""

    def __init__(
        self,
        *,
        work: Work,
        objects: ObjectsService,
        uploads: UploadsService,
        lists: ObjectLists,
        contents: ContentStore,
    ) -> None:
        self.work = work
        self.objects = objects
        self.uploads = uploads
        self.lists = lists
        self.contents = contents
