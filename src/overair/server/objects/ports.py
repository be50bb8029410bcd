"""What the services of this room ask of their records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from overair.basics.ids import AccountId, BucketName, ObjectKey, VersionId
from overair.basics.work import Tx
from overair.server.objects.model import AnyVersion, Bucket, ContentId, PublicAccessBlock, UploadId, Versioning
from overair.server.objects.upload_model import Part, Upload


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a list goes on: keys from ``at_least`` on; above ``after``, or of ``after`` itself what comes behind ``tie``."""

    at_least: str = ""
    after: str | None = None
    tie: int | str | None = None
    """A version's sequence (the next are lower) or an upload's id (the next are higher)."""


class ObjectStore(Protocol):
    """Buckets and versions."""

    def add_bucket(self, tx: Tx, bucket: Bucket) -> None: ...
    def bucket(self, tx: Tx, account: AccountId, name: BucketName) -> Bucket | None: ...
    def buckets(self, tx: Tx, account: AccountId, *, prefix: str, after: str, limit: int) -> list[Bucket]: ...
    def set_versioning(self, tx: Tx, account: AccountId, name: BucketName, versioning: Versioning) -> None: ...
    def set_policy(self, tx: Tx, account: AccountId, name: BucketName, policy: str | None) -> None: ...
    def set_public_access_block(
        self, tx: Tx, account: AccountId, name: BucketName, block: PublicAccessBlock | None
    ) -> None: ...
    def delete_bucket(self, tx: Tx, account: AccountId, name: BucketName) -> None: ...
    def is_empty(self, tx: Tx, account: AccountId, name: BucketName) -> bool:
        """Neither a version nor a delete marker; unfinished uploads don't count."""
        ...

    def latest(self, tx: Tx, account: AccountId, bucket: BucketName, key: ObjectKey) -> AnyVersion | None: ...
    def version(
        self, tx: Tx, account: AccountId, bucket: BucketName, key: ObjectKey, version_id: VersionId
    ) -> AnyVersion | None: ...
    def newest_but(
        self, tx: Tx, account: AccountId, bucket: BucketName, key: ObjectKey, version_id: VersionId
    ) -> AnyVersion | None:
        """The version that becomes the latest when one goes."""
        ...

    def add(self, tx: Tx, version: AnyVersion) -> None: ...
    def set_latest(self, tx: Tx, version: AnyVersion, *, is_latest: bool) -> None: ...
    def delete(self, tx: Tx, version: AnyVersion) -> None: ...

    def current_objects(
        self, tx: Tx, account: AccountId, bucket: BucketName, *, at: Position, below: str | None, limit: int
    ) -> Sequence[AnyVersion]:
        """Latest versions that aren't markers, by key, from a position on and below a key."""
        ...

    def all_versions(
        self, tx: Tx, account: AccountId, bucket: BucketName, *, at: Position, below: str | None, limit: int
    ) -> Sequence[AnyVersion]:
        """By key, each key's newest first."""
        ...

    def named_contents(self, tx: Tx, contents: Sequence[ContentId]) -> set[ContentId]:
        """Those among ``contents`` that a version names, in whatever account."""
        ...


class NamesContents(Protocol):
    """A room above that keeps contents of its own (*image_repository*)."""

    def named_contents(self, tx: Tx, contents: Sequence[ContentId]) -> set[ContentId]:
        """Those among ``contents`` that one of its records names, in whatever account."""
        ...


class UploadStore(Protocol):
    """Unfinished multipart uploads and their parts."""

    def add_upload(self, tx: Tx, upload: Upload) -> None: ...
    def upload(self, tx: Tx, account: AccountId, upload_id: UploadId) -> Upload | None: ...
    def uploads(
        self, tx: Tx, account: AccountId, bucket: BucketName, *, at: Position, below: str | None, limit: int
    ) -> Sequence[Upload]:
        """By key and upload id."""
        ...

    def delete_upload(self, tx: Tx, account: AccountId, upload_id: UploadId) -> None:
        """With its parts."""
        ...

    def put_part(self, tx: Tx, account: AccountId, upload_id: UploadId, part: Part) -> None:
        """In place of an earlier one of its number."""
        ...

    def parts(self, tx: Tx, account: AccountId, upload_id: UploadId, *, after: int, limit: int) -> Sequence[Part]: ...

    def delete_uploads(self, tx: Tx, account: AccountId, bucket: BucketName) -> None:
        """All of a bucket, with their parts."""
        ...

    def named_contents(self, tx: Tx, contents: Sequence[ContentId]) -> set[ContentId]:
        """Those among ``contents`` that a part names, in whatever account."""
        ...
