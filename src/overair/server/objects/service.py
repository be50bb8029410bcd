"""Buckets and versions of objects: what S3's operations mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Protocol

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    PreconditionFailed,
)
from overair.basics.ids import AccountId, BucketName, IdSource, ObjectKey, VersionId
from overair.basics.work import Tx
from overair.server.objects.model import (
    BUCKETS_MAX,
    NO_CONDITIONS,
    NULL_VERSION,
    POLICY_SIZE_BYTES_MAX,
    AnyVersion,
    Bucket,
    Conditions,
    DeleteMarker,
    Deletion,
    ObjectVersion,
    Properties,
    PublicAccessBlock,
    StoredContent,
    Versioning,
    check_bucket_name,
    check_key,
    check_metadata,
    check_version_id,
)
from overair.server.objects.ports import ObjectStore, UploadStore

__all__ = ["ObjectGone", "ObjectsService"]

VERSION_ID_LENGTH: Final = 32
_DEFAULT: Final = Properties()


class ObjectGone(Protocol):
    """Whoever holds copies of what an object version or a bucket policy said; told inside the unit of work that changes it."""

    def object_gone(self, tx: Tx, version: ObjectVersion) -> None: ...
    def bucket_policy_changed(self, tx: Tx, account: AccountId, bucket: BucketName) -> None: ...


class ObjectsService:
    """One account's buckets at a time; a bucket's name means nothing in another account."""

    def __init__(
        self,
        store: ObjectStore,
        uploads: UploadStore,
        *,
        clock: Clock,
        ids: IdSource,
        when_gone: tuple[ObjectGone, ...] = (),
    ) -> None:
        self._store = store
        self._uploads = uploads
        self._clock = clock
        self._ids = ids
        self._when_gone = when_gone

    # Buckets ----------------------------------------------------------------------------------------------------------

    def create_bucket(self, tx: Tx, place: Place, name: str, *, versioning: Versioning = Versioning.NEVER) -> Bucket:
        """Make a bucket. Making it again is no error in us-east-1, and changes nothing (as S3 has it).

        Raises:
            InvalidRequest: with subject ``bucket-name``.
            AlreadyExists: with subject ``bucket``: it is yours already, in another region than us-east-1.
            LimitExceeded: with subject ``buckets``.
        """
        bucket = check_bucket_name(name)
        known = self._store.bucket(tx, place.account, bucket)
        if known is not None:
            if place.region != "us-east-1":
                raise AlreadyExists(
                    "Your previous request to create the named bucket succeeded and you already own it.",
                    subject="bucket",
                    details={"BucketName": name},
                )
            return known
        if len(self._store.buckets(tx, place.account, prefix="", after="", limit=BUCKETS_MAX)) >= BUCKETS_MAX:
            raise LimitExceeded(f"An account has at most {BUCKETS_MAX} buckets. Delete one first.", subject="buckets")
        made = Bucket(
            account=place.account,
            name=bucket,
            region=place.region,
            created=self._clock.now(),
            versioning=versioning,
            policy=None,
        )
        self._store.add_bucket(tx, made)
        return made

    def require_bucket(self, tx: Tx, place: Place, name: str) -> Bucket:
        """Raises:
        NotFound: with subject ``bucket``.
        """
        bucket = self._store.bucket(tx, place.account, BucketName(name))
        if bucket is None:
            raise NotFound(f"The specified bucket does not exist: {name}.", subject="bucket", details={"BucketName": name})
        return bucket

    def require_policy(self, tx: Tx, place: Place, name: str) -> str:
        """A bucket's policy, as it was put.

        Raises:
            NotFound: with subject ``bucket`` or ``policy``.
        """
        bucket = self.require_bucket(tx, place, name)
        if bucket.policy is None:
            raise NotFound("The bucket policy does not exist.", subject="policy", details={"BucketName": bucket.name})
        return bucket.policy

    def buckets(self, tx: Tx, place: Place, *, prefix: str = "", after: str = "", limit: int = BUCKETS_MAX) -> list[Bucket]:
        """By name, from the first above ``after`` on."""
        return self._store.buckets(tx, place.account, prefix=prefix, after=after, limit=limit)

    def delete_bucket(self, tx: Tx, place: Place, name: str) -> None:
        """Raises:
        NotFound: with subject ``bucket``.
        Conflict: with subject ``bucket-not-empty``: it holds a version or a delete marker.
        """
        bucket = self.require_bucket(tx, place, name)
        if not self._store.is_empty(tx, place.account, bucket.name):
            raise Conflict(
                "The bucket you tried to delete is not empty. You must delete all versions in the bucket.",
                subject="bucket-not-empty",
                details={"BucketName": name},
            )
        self._uploads.delete_uploads(tx, place.account, bucket.name)
        self._store.delete_bucket(tx, place.account, bucket.name)

    def set_versioning(self, tx: Tx, place: Place, name: str, versioning: Versioning) -> None:
        """Raises:
        NotFound: with subject ``bucket``.
        InvalidRequest: with subject ``versioning``: what keeps versions can be suspended, but never made not to have.
        """
        bucket = self.require_bucket(tx, place, name)
        if versioning is Versioning.NEVER:
            raise InvalidRequest("The versioning status of a bucket is Enabled or Suspended.", subject="versioning")
        self._store.set_versioning(tx, place.account, bucket.name, versioning)

    def set_public_access_block(self, tx: Tx, place: Place, name: str, block: PublicAccessBlock | None) -> None:
        """What stands already stays as it is, a public policy too.

        Raises:
            NotFound: with subject ``bucket``.
        """
        bucket = self.require_bucket(tx, place, name)
        self._store.set_public_access_block(tx, place.account, bucket.name, block)

    def set_policy(self, tx: Tx, place: Place, name: str, policy: str | None, *, is_public: bool = False) -> None:
        """Keep a policy document that the door found well formed, or none.

        Raises:
            NotFound: with subject ``bucket``.
            InvalidRequest: with subject ``policy``: too long.
            AccessDenied: with subject ``public-policy``: it is public, and the bucket blocks such ones.
        """
        bucket = self.require_bucket(tx, place, name)
        if is_public and bucket.public_access_block is not None and bucket.public_access_block.public_policy:
            raise AccessDenied(
                f"Access Denied: public policies are prevented by the BlockPublicPolicy setting of the bucket {name}. Name the "
                "principals, or change that setting first (PutPublicAccessBlock).",
                subject="public-policy",
                details={"BucketName": name},
            )
        if policy is not None and len(policy.encode()) > POLICY_SIZE_BYTES_MAX:
            raise InvalidRequest(f"A bucket policy has at most {POLICY_SIZE_BYTES_MAX} bytes.", subject="policy")
        self._store.set_policy(tx, place.account, bucket.name, policy)
        for listener in self._when_gone:
            listener.bucket_policy_changed(tx, place.account, bucket.name)

    def bucket_policy(self, tx: Tx, place: Place, bucket: str) -> str | None:
        """The bucket's policy document, or None, also where there is no such bucket: then there is nothing to grant."""
        found = self._store.bucket(tx, place.account, BucketName(bucket))
        return None if found is None else found.policy

    # Reading ----------------------------------------------------------------------------------------------------------

    def find(self, tx: Tx, place: Place, bucket: str, key: str, version: VersionId | str | None = None) -> ObjectVersion:
        """One version of an object: the latest where none is named.

        Raises:
            NotFound: with subject ``bucket``, ``key`` (no such key, or a delete marker is its latest) or ``version`` (no such
                version, or it is a delete marker).
        """
        found = self.look(tx, place, bucket, key, version)
        if isinstance(found, DeleteMarker):
            if version is None:
                raise _no_such_key(bucket, key)
            raise NotFound(
                f"The specified version is a delete marker, it has no content: s3://{bucket}/{key}, version {version}.",
                subject="version",
                details={"Key": key, "VersionId": str(version)},
            )
        return found

    def look(self, tx: Tx, place: Place, bucket: str, key: str, version: VersionId | str | None = None) -> AnyVersion:
        """As ``find``, but a delete marker is an answer too.

        Raises:
            NotFound: with subject ``bucket``, ``key`` or ``version``.
        """
        owner = self.require_bucket(tx, place, bucket)
        if version is None:
            latest = self._store.latest(tx, place.account, owner.name, ObjectKey(key))
            if latest is None:
                raise _no_such_key(bucket, key)
            return latest
        found = self._store.version(tx, place.account, owner.name, ObjectKey(key), check_version_id(version))
        if found is None:
            raise NotFound(
                f"The specified version does not exist: s3://{bucket}/{key}, version {version}.",
                subject="version",
                details={"Key": key, "VersionId": str(version)},
            )
        return found

    # Writing ----------------------------------------------------------------------------------------------------------

    def put(
        self,
        tx: Tx,
        place: Place,
        bucket: str,
        key: str,
        content: StoredContent,
        *,
        content_type: str | None = None,
        properties: Properties = _DEFAULT,
        conditions: Conditions = NO_CONDITIONS,
        etag: str | None = None,
    ) -> ObjectVersion:
        """Record a new latest version over content that is already durable.

        Args:
            etag: Where it isn't the content's MD5 (multipart uploads).

        Raises:
            NotFound: with subject ``bucket``; with ``key`` where ``if_match`` names a version of nothing.
            InvalidRequest: with subject ``key``, ``key-too-long`` or ``metadata-too-large``.
            PreconditionFailed: the conditions don't hold.
        """
        owner = self.require_bucket(tx, place, bucket)
        object_key = check_key(key)
        check_metadata(properties.metadata)
        latest = self._store.latest(tx, place.account, owner.name, object_key)
        check_conditions(latest, conditions, bucket, key)
        version = ObjectVersion(
            account=place.account,
            bucket=owner.name,
            key=object_key,
            version_id=self._new_version_id(owner),
            sequence=self._make_room(tx, owner, object_key, latest),
            is_latest=True,
            modified=self._clock.now(),
            content_id=content.content_id,
            size_bytes=content.size_bytes,
            etag=etag or content.md5_hex,
            properties=properties if content_type is None else replace(properties, content_type=content_type),
        )
        self._store.add(tx, version)
        return version

    def delete(
        self,
        tx: Tx,
        place: Place,
        bucket: str,
        key: str,
        version: VersionId | str | None = None,
        *,
        if_match: str | None = None,
    ) -> Deletion:
        """Take a named version away for good; or, where none is named, hide the object behind a delete marker (or, in a bucket
        that never kept versions, take it away). Deleting what isn't there succeeds.

        Raises:
            NotFound: with subject ``bucket``; with ``key`` where ``if_match`` was sent and there is nothing.
            PreconditionFailed: ``if_match`` isn't the ETag.
        """
        owner = self.require_bucket(tx, place, bucket)
        object_key = check_key(key)
        latest = self._store.latest(tx, place.account, owner.name, object_key)
        if version is not None:
            found = self._store.version(tx, place.account, owner.name, object_key, check_version_id(version))
            check_conditions(found, Conditions(if_match=if_match), bucket, key)
            if found is not None:
                self._take_away(tx, found)
            return Deletion(version_id=VersionId(version), is_marker=isinstance(found, DeleteMarker))
        check_conditions(latest, Conditions(if_match=if_match), bucket, key)
        if owner.versioning is Versioning.NEVER:
            if latest is not None:
                self._take_away(tx, latest)
            return Deletion(version_id=None, is_marker=False)
        marker = DeleteMarker(
            account=place.account,
            bucket=owner.name,
            key=object_key,
            version_id=self._new_version_id(owner),
            sequence=self._make_room(tx, owner, object_key, latest),
            is_latest=True,
            modified=self._clock.now(),
        )
        self._store.add(tx, marker)
        return Deletion(version_id=marker.version_id, is_marker=True)

    def _new_version_id(self, bucket: Bucket) -> VersionId:
        return VersionId(self._ids.token(VERSION_ID_LENGTH)) if bucket.versioning is Versioning.ENABLED else NULL_VERSION

    def _make_room(self, tx: Tx, bucket: Bucket, key: ObjectKey, latest: AnyVersion | None) -> int:
        """Let the present latest version be so no more, take away the null version that the next one replaces, and return the
        next sequence."""
        if latest is not None:
            self._store.set_latest(tx, latest, is_latest=False)
        if bucket.versioning is not Versioning.ENABLED:
            replaced = self._store.version(tx, bucket.account, bucket.name, key, NULL_VERSION)
            if replaced is not None:
                self._drop(tx, replaced)
        return latest.sequence + 1 if latest is not None else 1

    def _take_away(self, tx: Tx, version: AnyVersion) -> None:
        self._drop(tx, version)
        if version.is_latest:
            next_latest = self._store.newest_but(tx, version.account, version.bucket, version.key, version.version_id)
            if next_latest is not None:
                self._store.set_latest(tx, next_latest, is_latest=True)

    def _drop(self, tx: Tx, version: AnyVersion) -> None:
        self._store.delete(tx, version)
        if isinstance(version, ObjectVersion):
            for listener in self._when_gone:
                listener.object_gone(tx, version)


def check_conditions(present: AnyVersion | None, conditions: Conditions, bucket: str, key: str) -> None:
    """Hold a writer's conditions against what is there now.

    Raises:
        NotFound: with subject ``key``: ``if_match`` needs an object, and there is none.
        PreconditionFailed: they don't hold.
    """
    etag = present.etag if isinstance(present, ObjectVersion) else None
    if conditions.if_match is not None:
        if etag is None:
            raise _no_such_key(bucket, key)
        if conditions.if_match != "*" and conditions.if_match.strip('"') != etag:
            raise precondition_failed("If-Match")
    if conditions.if_none_match is not None and etag is not None and conditions.if_none_match.strip('"') in ("*", etag):
        raise precondition_failed("If-None-Match")


def precondition_failed(condition: str) -> PreconditionFailed:
    return PreconditionFailed(
        f"At least one of the pre-conditions you specified did not hold: {condition}.", details={"Condition": condition}
    )


def _no_such_key(bucket: str, key: str) -> NotFound:
    # The bucket too: whoever hears this may have asked for a stream or a signature, not for an object.
    return NotFound(f"The specified key does not exist: s3://{bucket}/{key}.", subject="key", details={"Key": key})
