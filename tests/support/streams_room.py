"""The streams room on real records, with buckets and roles that tests fill by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import AccessDenied, InvalidRequest, NotFound
from overair.basics.ids import AccountId, BucketName, ObjectKey, StreamId, VersionId
from overair.basics.work import Tx
from overair.server.gateway.handlers import Reply
from overair.server.objects.model import ContentId, ObjectVersion, Properties
from overair.server.storage.work import SqlWork
from overair.server.streams.descriptors import Descriptors
from overair.server.streams.device_api import StreamTopics
from overair.server.streams.model import FileSource, Stream, StreamPlan, Versions
from overair.server.streams.service import StreamsService
from overair.server.streams.store import SqlStreamsStore
from tests.support.jobs_room import FakeConnection, answer

ROLE = "arn:aws:iam::123456789012:role/ota"


class Buckets:
    """Objects by bucket, key and version, and their bytes; a bucket without versions overwrites ``null``."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.versions: dict[tuple[str, str], dict[str, ObjectVersion]] = {}
        self.contents: dict[str, bytes] = {}
        self.policies: dict[str, str] = {}
        self.reads = 0
        self.warm: set[ContentId] = set()
        self._count = 0

    def put(self, bucket: str, key: str, data: bytes, *, versioned: bool = True) -> VersionId:
        self._count += 1
        version = VersionId(f"v{self._count}" if versioned else "null")
        content = ContentId(f"c{self._count}")
        self.contents[content] = data
        found = ObjectVersion(
            account=self._place.account,
            bucket=BucketName(bucket),
            key=ObjectKey(key),
            version_id=version,
            sequence=self._count,
            is_latest=True,
            modified=0,  # type: ignore[arg-type]
            content_id=content,
            size_bytes=len(data),
            etag=f"etag-of-{self._count}",
            properties=Properties(),
        )
        self.versions.setdefault((bucket, key), {})[version] = found
        return version

    def find(self, tx: Tx, place: Place, bucket: BucketName, key: ObjectKey, version: VersionId | None) -> ObjectVersion:
        versions = self.versions.get((bucket, key), {})
        if not versions:
            raise NotFound("no such key", subject="key")
        if version is None:
            return list(versions.values())[-1]
        if version not in versions:
            raise NotFound("no such version", subject="version")
        return versions[version]

    def bucket_policy(self, tx: Tx, place: Place, bucket: BucketName) -> str | None:
        return self.policies.get(bucket)

    def cached(self, content_id: ContentId, offset_bytes: int, size_bytes: int) -> bytes | None:
        if content_id not in self.warm or content_id not in self.contents:
            return None
        return self.contents[content_id][offset_bytes : offset_bytes + size_bytes]

    def read(self, content_id: ContentId, offset_bytes: int, size_bytes: int) -> bytes:
        self.reads += 1
        if content_id not in self.contents:
            raise NotFound("no such content", subject="content")
        self.warm.add(content_id)
        return self.contents[content_id][offset_bytes : offset_bytes + size_bytes]


@dataclass
class Grants:
    """What the one role may do; a bucket's policy ``"allow"`` grants, ``"deny"`` takes away."""

    assumable: bool = True
    actions: tuple[str, ...] = ("s3:GetObject", "s3:GetObjectVersion")

    def assume_as_service(self, tx: Tx, place: Place, role_arn: str, *, source_arn: str) -> Any:
        if role_arn != ROLE or not self.assumable:
            raise InvalidRequest(f"The role {role_arn} cannot be assumed", subject="role")
        return role_arn

    def require_for_role(self, tx: Tx, role: Any, action: str, resource: str, *, resource_policy: str | None = None) -> None:
        if resource_policy == "deny" or (action not in self.actions and resource_policy != "allow"):
            raise AccessDenied(f"{action} on {resource} is not allowed", subject="action")


class NoTags:
    def accept(self, kind: str, exists: Callable[[Tx, AccountId, str], bool]) -> None: ...
    def set_new(self, tx: Tx, place: Place, arn: str, tags: Mapping[str, str] | None) -> None: ...
    def forget(self, tx: Tx, place: Place, arn: str) -> None: ...


class StreamsRoom:
    def __init__(self, work: SqlWork, place: Place, clock: SettableClock, *, versions: Versions | None = None) -> None:
        self.work, self.place, self.clock = work, place, clock
        self.buckets = Buckets(place)
        self.grants = Grants()
        self.descriptors = Descriptors()
        self.streams = StreamsService(
            store=SqlStreamsStore(),
            objects=self.buckets,
            roles=self.grants,
            tags=NoTags(),
            clock=clock,
            descriptors=self.descriptors,
            versions=versions,
        )
        self.topics = StreamTopics(work=work, streams=self.streams, descriptors=self.descriptors, contents=self.buckets)

    def create(self, stream: str, *files: FileSource, role_arn: str = ROLE, description: str = "") -> Stream:
        plan = StreamPlan(id=StreamId(stream), files=files, role_arn=role_arn, description=description)
        return self.work.run_blocking(lambda tx: self.streams.create(tx, self.place, plan))

    def of(self, data: bytes, stream: str = "s") -> Stream:
        """A stream of one file 0."""
        version = self.buckets.put("b", stream, data)
        return self.create(stream, source(0, "b", stream, version))

    def find(self, stream: str) -> Stream:
        return self.work.read_blocking(lambda tx: self.streams.find(tx, self.place, StreamId(stream)))

    async def say(self, suffix: str, payload: bytes, *, stream: str = "s", thing: str = "dev-1") -> Sequence[Reply]:
        topic = f"$aws/things/{thing}/streams/{stream}/{suffix}"
        return await answer(self.topics, FakeConnection(place=self.place), topic, payload)


def source(file_id: int, bucket: str, key: str, version: str | None = None) -> FileSource:
    return FileSource(
        file_id=file_id,
        bucket=BucketName(bucket),
        key=ObjectKey(key),
        version=None if version is None else VersionId(version),
    )
