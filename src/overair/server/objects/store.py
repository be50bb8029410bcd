"""Buckets and versions in the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    Column,
    Index,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, BucketName, ObjectKey, VersionId
from overair.basics.work import Tx
from overair.server.objects.columns import CONTENT_ID_LENGTH, properties_text, read_properties, within
from overair.server.objects.model import (
    AnyVersion,
    Bucket,
    ContentId,
    DeleteMarker,
    ObjectVersion,
    PublicAccessBlock,
    Versioning,
)
from overair.server.objects.ports import Position
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import HotStatement, sql

buckets = Table(
    "objects_buckets",
    metadata,
    account_column(),
    Column("name", String(63), primary_key=True),
    Column("region", String(32), nullable=False),
    instant_column("created"),
    Column("versioning", String(16), nullable=False),
    Column("policy", Text),
    # One digit for each field of PublicAccessBlock; none where it was taken away.
    Column("public_access_block", String(4), server_default="1111"),
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
    Column("content_id", String(CONTENT_ID_LENGTH)),
    Column("size_bytes", BigInteger),
    Column("etag", String(40)),
    Column("properties", Text),
    UniqueConstraint("account", "bucket", "key", "sequence"),
    Index(None, "account", "bucket", "is_latest", "key"),
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
    """``ports.ObjectStore`` over SQL."""

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
                public_access_block=_block_text(bucket.public_access_block),
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

    def set_public_access_block(self, tx: Tx, account: AccountId, name: BucketName, block: PublicAccessBlock | None) -> None:
        sql(tx).execute(
            update(buckets)
            .where(buckets.c.account == account, buckets.c.name == name)
            .values(public_access_block=_block_text(block))
        )

    def delete_bucket(self, tx: Tx, account: AccountId, name: BucketName) -> None:
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
                "properties": properties_text(version.properties),
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

    def delete(self, tx: Tx, version: AnyVersion) -> None:
        sql(tx).execute(delete(versions).where(_is(version)))

    def current_objects(
        self, tx: Tx, account: AccountId, bucket: BucketName, *, at: Position, below: str | None, limit: int
    ) -> Sequence[AnyVersion]:
        statement = (
            select(*versions.c)
            .where(versions.c.account == account, versions.c.bucket == bucket)
            .where(versions.c.is_latest.is_(True), versions.c.content_id.is_not(None))
            .where(*within(versions.c.key, at, below))
            .order_by(versions.c.key)
            .limit(limit)
        )
        return [_any_version(row) for row in sql(tx).execute(statement)]

    def all_versions(
        self, tx: Tx, account: AccountId, bucket: BucketName, *, at: Position, below: str | None, limit: int
    ) -> Sequence[AnyVersion]:
        behind = None if at.tie is None else versions.c.sequence < at.tie
        statement = (
            select(*versions.c)
            .where(versions.c.account == account, versions.c.bucket == bucket)
            .where(*within(versions.c.key, at, below, behind))
            .order_by(versions.c.key, versions.c.sequence.desc())
            .limit(limit)
        )
        return [_any_version(row) for row in sql(tx).execute(statement)]

    def named_contents(self, tx: Tx, contents: Sequence[ContentId]) -> set[ContentId]:
        rows = sql(tx).execute(select(versions.c.content_id).where(versions.c.content_id.in_(contents)).distinct())
        return {ContentId(row.content_id) for row in rows}


def _is(version: AnyVersion) -> Any:
    return and_(
        versions.c.account == version.account,
        versions.c.bucket == version.bucket,
        versions.c.key == version.key,
        versions.c.version_id == version.version_id,
    )


def _bucket(row: Any) -> Bucket:
    account, name, region, created, versioning, policy, block = row
    return Bucket(
        account=AccountId(account),
        name=BucketName(name),
        region=region,
        created=Instant(created),
        versioning=Versioning(versioning),
        policy=policy,
        public_access_block=None if block is None else PublicAccessBlock(*(digit == "1" for digit in block)),
    )


def _block_text(block: PublicAccessBlock | None) -> str | None:
    return None if block is None else "".join("1" if held else "0" for held in astuple(block))


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
        **shared, content_id=ContentId(content_id), size_bytes=size_bytes, etag=etag, properties=read_properties(properties)
    )
