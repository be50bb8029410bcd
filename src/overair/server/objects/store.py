"""Buckets, versions, uploads and parts in the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    Column,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    bindparam,
    delete,
    insert,
    or_,
    select,
    update,
)

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, BucketName, ObjectKey, VersionId
from overair.basics.work import Tx
from overair.server.objects.model import (
    AnyVersion,
    Bucket,
    ChecksumType,
    ContentId,
    DeleteMarker,
    ObjectVersion,
    Properties,
    UploadId,
    Versioning,
)
from overair.server.objects.upload_model import Part, Upload
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import HotStatement, sql

_CONTENT_ID_LENGTH: Final = 66

buckets = Table(
    "objects_buckets",
    metadata,
    account_column(),
    Column("name", String(63), primary_key=True),
    Column("region", String(32), nullable=False),
    instant_column("created"),
    Column("versioning", String(16), nullable=False),
    Column("policy", Text),
)

versions = Table(
    "objects_versions",
    metadata,
    account_column(),
    Column("bucket", String(63), primary_key=True),
    Column("key", String(1024), primary_key=True),
    Column("version_id", String(32), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("is_latest", Boolean, nullable=False),
    instant_column("modified"),
    # A delete marker has none of what follows.
    Column("content_id", String(_CONTENT_ID_LENGTH)),
    Column("size_bytes", BigInteger),
    Column("etag", String(40)),
    Column("properties", Text),
    UniqueConstraint("account", "bucket", "key", "sequence"),
    Index(None, "account", "bucket", "is_latest", "key"),
    Index(None, "content_id"),
)

uploads = Table(
    "objects_uploads",
    metadata,
    account_column(),
    Column("upload_id", String(64), primary_key=True),
    Column("bucket", String(63), nullable=False),
    Column("key", String(1024), nullable=False),
    instant_column("initiated"),
    Column("properties", Text, nullable=False),
    Column("checksum_algorithm", String(16)),
    Column("checksum_type", String(16)),
    Index(None, "account", "bucket", "key", "upload_id"),
)

parts = Table(
    "objects_parts",
    metadata,
    account_column(),
    Column("upload_id", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("content_id", String(_CONTENT_ID_LENGTH), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("md5_hex", String(32), nullable=False),
    instant_column("modified"),
    Column("checksums", Text, nullable=False),
    Index(None, "content_id"),
)

_a: BindParameter[str] = bindparam("b_account")
_b: BindParameter[str] = bindparam("b_bucket")
_k: BindParameter[str] = bindparam("b_key")
_of_key = (versions.c.account == _a, versions.c.bucket == _b, versions.c.key == _k)
_find_bucket = HotStatement(
    select(*buckets.c).where(buckets.c.account == _a, buckets.c.name == bindparam("b_name")),
)
_latest = HotStatement(select(*versions.c).where(*_of_key, versions.c.is_latest.is_(True)))
_version = HotStatement(select(*versions.c).where(*_of_key, versions.c.version_id == bindparam("b_version")))
_newest_but = HotStatement(
    select(*versions.c)
    .where(*_of_key, versions.c.version_id != bindparam("b_version"))
    .order_by(versions.c.sequence.desc())
    .limit(1)
)
_add_version = HotStatement(insert(versions))
_set_latest = HotStatement(
    update(versions)
    .where(*_of_key, versions.c.version_id == bindparam("b_version"))
    .values(is_latest=bindparam("b_is_latest", type_=Boolean))
)


class SqlObjectStore:
    """``ports.ObjectStore`` and ``ports.UploadStore`` over SQL."""

    # Buckets ----------------------------------------------------------------------------------------------------------

    def add_bucket(self, tx: Tx, bucket: Bucket) -> None:
        sql(tx).execute(
            insert(buckets).values(
                account=bucket.account,
                name=bucket.name,
                region=bucket.region,
                created=bucket.created,
                versioning=bucket.versioning.value,
                policy=bucket.policy,
            )
        )

    def bucket(self, tx: Tx, account: AccountId, name: BucketName) -> Bucket | None:
        row = _find_bucket.first(tx, b_account=account, b_name=name)
        return None if row is None else _bucket(row)

    def buckets(self, tx: Tx, account: AccountId, *, prefix: str, after: str, limit: int) -> list[Bucket]:
        rows = sql(tx).execute(
            select(*buckets.c)
            .where(buckets.c.account == account, buckets.c.name > after, buckets.c.name.startswith(prefix, autoescape=True))
            .order_by(buckets.c.name)
            .limit(limit)
        )
        return [_bucket(row) for row in rows]

    def set_versioning(self, tx: Tx, account: AccountId, name: BucketName, versioning: Versioning) -> None:
        sql(tx).execute(
            update(buckets).where(buckets.c.account == account, buckets.c.name == name).values(versioning=versioning.value)
        )

    def set_policy(self, tx: Tx, account: AccountId, name: BucketName, policy: str | None) -> None:
        sql(tx).execute(update(buckets).where(buckets.c.account == account, buckets.c.name == name).values(policy=policy))

    def delete_bucket(self, tx: Tx, account: AccountId, name: BucketName) -> None:
        of_bucket = select(uploads.c.upload_id).where(uploads.c.account == account, uploads.c.bucket == name)
        sql(tx).execute(delete(parts).where(parts.c.account == account, parts.c.upload_id.in_(of_bucket)))
        sql(tx).execute(delete(uploads).where(uploads.c.account == account, uploads.c.bucket == name))
        sql(tx).execute(delete(buckets).where(buckets.c.account == account, buckets.c.name == name))

    def is_empty(self, tx: Tx, account: AccountId, name: BucketName) -> bool:
        found = sql(tx).execute(select(versions.c.key).where(versions.c.account == account, versions.c.bucket == name).limit(1))
        return found.first() is None

    # Versions ---------------------------------------------------------------------------------------------------------

    def latest(self, tx: Tx, account: AccountId, bucket: BucketName, key: ObjectKey) -> AnyVersion | None:
        row = _latest.first(tx, b_account=account, b_bucket=bucket, b_key=key)
        return None if row is None else _any_version(row)

    def version(
        self, tx: Tx, account: AccountId, bucket: BucketName, key: ObjectKey, version_id: VersionId
    ) -> AnyVersion | None:
        row = _version.first(tx, b_account=account, b_bucket=bucket, b_key=key, b_version=version_id)
        return None if row is None else _any_version(row)

    def newest_but(
        self, tx: Tx, account: AccountId, bucket: BucketName, key: ObjectKey, version_id: VersionId
    ) -> AnyVersion | None:
        row = _newest_but.first(tx, b_account=account, b_bucket=bucket, b_key=key, b_version=version_id)
        return None if row is None else _any_version(row)

    def add(self, tx: Tx, version: AnyVersion) -> None:
        content: dict[str, Any] = {"content_id": None, "size_bytes": None, "etag": None, "properties": None}
        if isinstance(version, ObjectVersion):
            content = {
                "content_id": version.content_id,
                "size_bytes": version.size_bytes,
                "etag": version.etag,
                "properties": _properties_text(version.properties),
            }
        _add_version.run(
            tx,
            account=version.account,
            bucket=version.bucket,
            key=version.key,
            version_id=version.version_id,
            sequence=version.sequence,
            is_latest=version.is_latest,
            modified=version.modified,
            **content,
        )

    def set_latest(self, tx: Tx, version: AnyVersion, *, is_latest: bool) -> None:
        _set_latest.run(
            tx,
            b_account=version.account,
            b_bucket=version.bucket,
            b_key=version.key,
            b_version=version.version_id,
            b_is_latest=is_latest,
        )

    def set_properties(self, tx: Tx, version: AnyVersion, properties: Properties) -> None:
        sql(tx).execute(update(versions).where(_is(version)).values(properties=_properties_text(properties)))

    def delete(self, tx: Tx, version: AnyVersion) -> None:
        sql(tx).execute(delete(versions).where(_is(version)))

    def current_objects(
        self, tx: Tx, account: AccountId, bucket: BucketName, *, at_least: str, below: str | None, limit: int
    ) -> Sequence[AnyVersion]:
        statement = select(*versions.c).where(
            versions.c.account == account,
            versions.c.bucket == bucket,
            versions.c.is_latest.is_(True),
            versions.c.content_id.is_not(None),
            versions.c.key >= at_least,
        )
        if below is not None:
            statement = statement.where(versions.c.key < below)
        return [_any_version(row) for row in sql(tx).execute(statement.order_by(versions.c.key).limit(limit))]

    def all_versions(
        self,
        tx: Tx,
        account: AccountId,
        bucket: BucketName,
        *,
        at_least: str,
        sequence_below: int | None,
        below: str | None,
        limit: int,
    ) -> Sequence[AnyVersion]:
        statement = select(*versions.c).where(versions.c.account == account, versions.c.bucket == bucket)
        statement = statement.where(versions.c.key >= at_least)
        if sequence_below is not None:
            statement = statement.where(or_(versions.c.key > at_least, versions.c.sequence < sequence_below))
        if below is not None:
            statement = statement.where(versions.c.key < below)
        statement = statement.order_by(versions.c.key, versions.c.sequence.desc()).limit(limit)
        return [_any_version(row) for row in sql(tx).execute(statement)]

    def named_contents(self, tx: Tx, contents: Sequence[ContentId]) -> set[ContentId]:
        named: set[ContentId] = set()
        for table in (versions, parts):
            rows = sql(tx).execute(select(table.c.content_id).where(table.c.content_id.in_(contents)).distinct())
            named.update(ContentId(row.content_id) for row in rows)
        return named

    # Uploads ----------------------------------------------------------------------------------------------------------

    def add_upload(self, tx: Tx, upload: Upload) -> None:
        sql(tx).execute(
            insert(uploads).values(
                account=upload.account,
                upload_id=upload.upload_id,
                bucket=upload.bucket,
                key=upload.key,
                initiated=upload.initiated,
                properties=_properties_text(upload.properties),
                checksum_algorithm=upload.checksum_algorithm,
                checksum_type=upload.checksum_type.value if upload.checksum_type else None,
            )
        )

    def upload(self, tx: Tx, account: AccountId, upload_id: UploadId) -> Upload | None:
        row = (
            sql(tx)
            .execute(select(*uploads.c).where(uploads.c.account == account, uploads.c.upload_id == upload_id))
            .one_or_none()
        )
        return None if row is None else _upload(row)

    def uploads(
        self,
        tx: Tx,
        account: AccountId,
        bucket: BucketName,
        *,
        at_least: str,
        upload_after: str | None,
        below: str | None,
        limit: int,
    ) -> Sequence[Upload]:
        statement = select(*uploads.c).where(
            uploads.c.account == account, uploads.c.bucket == bucket, uploads.c.key >= at_least
        )
        if upload_after is not None:
            statement = statement.where(or_(uploads.c.key > at_least, uploads.c.upload_id > upload_after))
        if below is not None:
            statement = statement.where(uploads.c.key < below)
        statement = statement.order_by(uploads.c.key, uploads.c.upload_id).limit(limit)
        return [_upload(row) for row in sql(tx).execute(statement)]

    def delete_upload(self, tx: Tx, account: AccountId, upload_id: UploadId) -> None:
        sql(tx).execute(delete(parts).where(parts.c.account == account, parts.c.upload_id == upload_id))
        sql(tx).execute(delete(uploads).where(uploads.c.account == account, uploads.c.upload_id == upload_id))

    def put_part(self, tx: Tx, account: AccountId, upload_id: UploadId, part: Part) -> None:
        sql(tx).execute(
            delete(parts).where(parts.c.account == account, parts.c.upload_id == upload_id, parts.c.number == part.number)
        )
        sql(tx).execute(
            insert(parts).values(
                account=account,
                upload_id=upload_id,
                number=part.number,
                content_id=part.content_id,
                size_bytes=part.size_bytes,
                md5_hex=part.md5_hex,
                modified=part.modified,
                checksums=msgspec.json.encode(part.checksums).decode(),
            )
        )

    def parts(self, tx: Tx, account: AccountId, upload_id: UploadId, *, after: int, limit: int) -> Sequence[Part]:
        rows = sql(tx).execute(
            select(*parts.c)
            .where(parts.c.account == account, parts.c.upload_id == upload_id, parts.c.number > after)
            .order_by(parts.c.number)
            .limit(limit)
        )
        return [
            Part(
                number=row.number,
                content_id=ContentId(row.content_id),
                size_bytes=row.size_bytes,
                md5_hex=row.md5_hex,
                modified=Instant(row.modified),
                checksums=msgspec.json.decode(row.checksums, type=dict[str, str]),
            )
            for row in rows
        ]


def _is(version: AnyVersion) -> Any:
    return and_(
        versions.c.account == version.account,
        versions.c.bucket == version.bucket,
        versions.c.key == version.key,
        versions.c.version_id == version.version_id,
    )


def _bucket(row: Any) -> Bucket:
    account, name, region, created, versioning, policy = row
    return Bucket(
        account=AccountId(account),
        name=BucketName(name),
        region=region,
        created=Instant(created),
        versioning=Versioning(versioning),
        policy=policy,
    )


def _any_version(row: Any) -> AnyVersion:
    account, bucket, key, version_id, sequence, is_latest, modified, content_id, size_bytes, etag, properties = row
    shared: Mapping[str, Any] = {
        "account": AccountId(account),
        "bucket": BucketName(bucket),
        "key": ObjectKey(key),
        "version_id": VersionId(version_id),
        "sequence": sequence,
        "is_latest": is_latest,
        "modified": Instant(modified),
    }
    if content_id is None:
        return DeleteMarker(**shared)
    return ObjectVersion(
        **shared, content_id=ContentId(content_id), size_bytes=size_bytes, etag=etag, properties=_properties(properties)
    )


def _upload(row: Any) -> Upload:
    return Upload(
        account=AccountId(row.account),
        bucket=BucketName(row.bucket),
        key=ObjectKey(row.key),
        upload_id=UploadId(row.upload_id),
        initiated=Instant(row.initiated),
        properties=_properties(row.properties),
        checksum_algorithm=row.checksum_algorithm,
        checksum_type=ChecksumType(row.checksum_type) if row.checksum_type else None,
    )


_DEFAULT_PROPERTIES: Final = Properties()
_encoder: Final = msgspec.json.Encoder()


def _properties_text(properties: Properties) -> str:
    """Only what differs from the default, so that most rows stay short."""
    content = {
        name: getattr(properties, name)
        for name in Properties.__dataclass_fields__
        if getattr(properties, name) != getattr(_DEFAULT_PROPERTIES, name)
    }
    return _encoder.encode(content).decode()


def _properties(text: str) -> Properties:
    content = msgspec.json.decode(text)
    if "checksum_type" in content:
        content["checksum_type"] = ChecksumType(content["checksum_type"])
    return Properties(**content)
