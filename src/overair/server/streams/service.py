"""What may be done with streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import AccessDenied, AlreadyExists, InvalidRequest, LimitExceeded, NotFound, OverairError
from overair.basics.ids import AccountId, BucketName, ObjectKey, StreamId, VersionId
from overair.basics.work import Tx
from overair.server.objects.model import ContentId
from overair.server.streams.descriptors import ClosedFile, Descriptor, Descriptors, OpenFile
from overair.server.streams.model import (
    STREAM_ID,
    STREAMED_FILE_SIZE_BYTES_MAX,
    FileSource,
    Stream,
    StreamChange,
    StreamFile,
    StreamPlan,
    Versions,
    check_sources,
    stream_arn,
)
from overair.wire.stream_messages import RefusalCode


class StreamsStore(Protocol):
    """Where streams are kept (``store.SqlStreamsStore``)."""

    def find(self, tx: Tx, account: AccountId, stream: StreamId) -> Stream | None: ...
    def last_version(self, tx: Tx, account: AccountId, stream: StreamId) -> tuple[int, Instant] | None:
        """The last version of an id, deleted or not, and when it was given."""
        ...

    def page(self, tx: Tx, account: AccountId, *, after: StreamId | None, limit: int, ascending: bool) -> Sequence[Stream]: ...
    def save(self, tx: Tx, account: AccountId, stream: Stream) -> None: ...
    def bury(self, tx: Tx, account: AccountId, stream: StreamId, *, now: Instant) -> None: ...


class ObjectFacts(Protocol):
    """What a stream needs to know of a version of an object (``objects.model.ObjectVersion``)."""

    @property
    def content_id(self) -> ContentId: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def etag(self) -> str: ...
    @property
    def version_id(self) -> VersionId: ...


class StreamObjects(Protocol):
    """What streams ask of the buckets (``objects.service.ObjectsService``)."""

    def find(self, tx: Tx, place: Place, bucket: BucketName, key: ObjectKey, version: VersionId | None) -> ObjectFacts:
        """Raises NotFound with subject ``bucket``, ``key`` or ``version``."""
        ...

    def bucket_policy(self, tx: Tx, place: Place, bucket: BucketName) -> str | None: ...


class ServiceRoles(Protocol):
    """What streams ask of roles (``access.service.AccessService``)."""

    def assume_as_service(self, tx: Tx, place: Place, role_arn: str, *, source_arn: str) -> Any: ...

    def require_for_role(
        self, tx: Tx, role: Any, action: str, resource: str, *, resource_policy: str | None = None
    ) -> None: ...


class Tags(Protocol):
    """Where tags are kept (``devices.service.TagsService``)."""

    def accept(self, kind: str, exists: Callable[[Tx, AccountId, str], bool]) -> None: ...
    def set_new(self, tx: Tx, place: Place, arn: str, tags: Mapping[str, str] | None) -> None: ...
    def forget(self, tx: Tx, place: Place, arn: str) -> None: ...


class StreamsService:
    """Streams of one account at a time. Knows no database and no wire but through what it is given."""

    def __init__(
        self,
        *,
        store: StreamsStore,
        objects: StreamObjects,
        roles: ServiceRoles,
        tags: Tags,
        clock: Clock,
        descriptors: Descriptors,
        versions: Versions | None = None,
    ) -> None:
        self._store = store
        self._objects = objects
        self._roles = roles
        self._tags = tags
        self._clock = clock
        self._descriptors = descriptors
        self._versions = versions or Versions()
        tags.accept("stream", lambda tx, account, name: store.find(tx, account, StreamId(name)) is not None)

    def create(self, tx: Tx, place: Place, plan: StreamPlan) -> Stream:
        """Make a stream at version 1, or at the version after the last of a deleted stream of the same id (see ``Versions``).

        Sizes, versions and ETags are read now, with the role; a file without a version is pinned to the current one.

        Raises:
            AlreadyExists: the id is taken. Subject ``stream``.
            InvalidRequest: the files' ids. Subject ``stream-files``.
            NotFound: subjects ``bucket``, ``key``, ``version``.
            AccessDenied: the role can't be assumed by the service or may not read a file.
        """
        check_sources(plan.files)
        last = self._store.last_version(tx, place.account, plan.id)
        if self._store.find(tx, place.account, plan.id) is not None:
            arn = stream_arn(place, plan.id)
            raise AlreadyExists(
                f"Stream {plan.id} already exists. Choose another id, or change it with UpdateStream.",
                subject="stream",
                details={"resourceId": plan.id, "resourceArn": arn},
            )
        now = self._clock.now()
        stream = Stream(
            id=plan.id,
            version=self._versions.first if last is None else self._version_after(plan.id, *last),
            description=plan.description,
            files=self._pin(tx, place, plan.id, plan.role_arn, plan.files),
            role_arn=plan.role_arn,
            created_at=now,
            last_updated_at=now,
        )
        self._store.save(tx, place.account, stream)
        self._tags.set_new(tx, place, stream.arn(place), plan.tags)
        return stream

    def find(self, tx: Tx, place: Place, stream: StreamId) -> Stream:
        """Raises NotFound, subject ``stream``."""
        found = self._store.find(tx, place.account, stream) if STREAM_ID.fullmatch(stream) else None
        if found is None:
            raise NotFound(f"There is no stream {stream[:128]!r} in this account.", subject="stream")
        return found

    def page(self, tx: Tx, place: Place, *, after: StreamId | None, limit: int, ascending: bool = True) -> Sequence[Stream]:
        """Up to ``limit`` streams in the order of their ids."""
        return self._store.page(tx, place.account, after=after, limit=limit, ascending=ascending)

    def change(self, tx: Tx, place: Place, stream: StreamId, change: StreamChange) -> Stream:
        """Give a stream its next version. Every file is pinned anew, so that one without a version becomes the current one.

        Raises:
            NotFound: subject ``stream``, or as in ``create``.
            LimitExceeded: version 65535 has no successor. Subject ``stream-version``.
            InvalidRequest, AccessDenied: as in ``create``.
        """
        current = self.find(tx, place, stream)
        sources = change.files if change.files is not None else tuple(file.source for file in current.files)
        check_sources(sources)
        role_arn = change.role_arn or current.role_arn
        changed = replace(
            current,
            version=self._version_after(stream, current.version, current.last_updated_at),
            description=current.description if change.description is None else change.description,
            files=self._pin(tx, place, stream, role_arn, sources),
            role_arn=role_arn,
            last_updated_at=self._clock.now(),
        )
        self._store.save(tx, place.account, changed)
        self._descriptors.stream_changed(tx, place.account, stream)
        return changed

    def delete(self, tx: Tx, place: Place, stream: StreamId) -> None:
        """Raises NotFound, subject ``stream``. Downloads end before the call is acknowledged."""
        self.find(tx, place, stream)
        self._store.bury(tx, place.account, stream, now=self._clock.now())
        self._tags.forget(tx, place, stream_arn(place, stream))
        self._descriptors.stream_changed(tx, place.account, stream)

    def open(self, tx: Tx, place: Place, stream: StreamId) -> Descriptor:
        """Read what serving needs, checking the role and each file again.

        Raises:
            NotFound: subject ``stream``. A file that can't be served is part of the answer, not an error.
        """
        found = self.find(tx, place, stream)
        try:
            role = self._roles.assume_as_service(tx, place, found.role_arn, source_arn=found.arn(place))
        except OverairError as error:
            files: dict[int, OpenFile | ClosedFile] = {
                file.source.file_id: ClosedFile(
                    code=RefusalCode.UNAUTHORIZED, message=error.message, size_bytes=file.size_bytes
                )
                for file in found.files
            }
        else:
            files = {file.source.file_id: self._open_file(tx, place, role, file) for file in found.files}
        return Descriptor(
            stream=stream,
            version=found.version,
            description=found.description,
            files=files,
            sources=frozenset((file.source.bucket, file.source.key) for file in found.files),
        )

    # ----------------------------------------------------------------------------------------------------------------------

    def _version_after(self, stream: StreamId, version: int, written_at: Instant) -> int:
        following = self._versions.after(version, written_at)
        if following is None:
            raise LimitExceeded(
                f"Stream {stream} has reached version {version}, the last there is. Use another stream id.",
                subject="stream-version",
            )
        return following

    def _pin(
        self, tx: Tx, place: Place, stream: StreamId, role_arn: str, sources: tuple[FileSource, ...]
    ) -> tuple[StreamFile, ...]:
        role = self._roles.assume_as_service(tx, place, role_arn, source_arn=stream_arn(place, stream))
        files = []
        for source in sources:
            found = self._read_as(tx, place, role, source, source.version)
            if found.size_bytes > STREAMED_FILE_SIZE_BYTES_MAX:
                raise InvalidRequest(
                    f"s3://{source.bucket}/{source.key} has {found.size_bytes} bytes; the largest that blocks can name has "
                    f"{STREAMED_FILE_SIZE_BYTES_MAX}.",
                    subject="stream-files",
                )
            files.append(StreamFile(source=source, version=found.version_id, etag=found.etag, size_bytes=found.size_bytes))
        return tuple(files)

    def _read_as(self, tx: Tx, place: Place, role: Any, source: FileSource, version: VersionId | None) -> ObjectFacts:
        """The object, if the role or the bucket's policy lets the service read it and nothing denies it."""
        policy = self._objects.bucket_policy(tx, place, source.bucket)
        action = "s3:GetObject" if source.version is None else "s3:GetObjectVersion"
        self._roles.require_for_role(tx, role, action, f"arn:aws:s3:::{source.bucket}/{source.key}", resource_policy=policy)
        return self._objects.find(tx, place, source.bucket, source.key, version)

    def _open_file(self, tx: Tx, place: Place, role: Any, file: StreamFile) -> OpenFile | ClosedFile:
        source = file.source
        where = f"s3://{source.bucket}/{source.key}"
        try:
            found = self._read_as(tx, place, role, source, file.version)
        except AccessDenied as error:
            return ClosedFile(code=RefusalCode.UNAUTHORIZED, message=error.message, size_bytes=file.size_bytes)
        except NotFound:
            return ClosedFile(
                code=RefusalCode.RESOURCE_NOT_FOUND,
                message=f"File {source.file_id}, {where}, is gone since the stream was made.",
                size_bytes=file.size_bytes,
            )
        if found.etag != file.etag or found.size_bytes != file.size_bytes:
            return ClosedFile(
                code=RefusalCode.ETAG_MISMATCH,
                message=f"File {source.file_id}, {where}, has changed since the stream was made. Update the stream.",
                size_bytes=file.size_bytes,
            )
        return OpenFile(content_id=found.content_id, size_bytes=found.size_bytes)
