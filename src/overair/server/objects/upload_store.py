"""Unfinished uploads and their parts in the records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text, delete, insert, select

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, BucketName, ObjectKey
from overair.basics.work import Tx
from overair.server.objects.columns import CONTENT_ID_LENGTH, properties_text, read_properties, within
from overair.server.objects.model import ChecksumType, ContentId, UploadId
from overair.server.objects.ports import Position
from overair.server.objects.upload_model import Part, Upload
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import sql

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
    Column("content_id", String(CONTENT_ID_LENGTH), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("md5_hex", String(32), nullable=False),
    instant_column("modified"),
    Column("checksums", Text, nullable=False),
    Index(None, "content_id"),
)


class SqlUploadStore:
    """``ports.UploadStore`` over SQL."""

    def add_upload(self, tx: Tx, upload: Upload) -> None:
        sql(tx).execute(
            insert(uploads).values(
                account=upload.account,
                upload_id=upload.upload_id,
                bucket=upload.bucket,
                key=upload.key,
                initiated=upload.initiated,
                properties=properties_text(upload.properties),
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
        self, tx: Tx, account: AccountId, bucket: BucketName, *, at: Position, below: str | None, limit: int
    ) -> Sequence[Upload]:
        behind = None if at.tie is None else uploads.c.upload_id > at.tie
        statement = (
            select(*uploads.c)
            .where(uploads.c.account == account, uploads.c.bucket == bucket)
            .where(*within(uploads.c.key, at, below, behind))
            .order_by(uploads.c.key, uploads.c.upload_id)
            .limit(limit)
        )
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

    def delete_uploads(self, tx: Tx, account: AccountId, bucket: BucketName) -> None:
        of_bucket = select(uploads.c.upload_id).where(uploads.c.account == account, uploads.c.bucket == bucket)
        sql(tx).execute(delete(parts).where(parts.c.account == account, parts.c.upload_id.in_(of_bucket)))
        sql(tx).execute(delete(uploads).where(uploads.c.account == account, uploads.c.bucket == bucket))

    def named_contents(self, tx: Tx, contents: Sequence[ContentId]) -> set[ContentId]:
        rows = sql(tx).execute(select(parts.c.content_id).where(parts.c.content_id.in_(contents)).distinct())
        return {ContentId(row.content_id) for row in rows}


def _upload(row: Any) -> Upload:
    return Upload(
        account=AccountId(row.account),
        bucket=BucketName(row.bucket),
        key=ObjectKey(row.key),
        upload_id=UploadId(row.upload_id),
        initiated=Instant(row.initiated),
        properties=read_properties(row.properties),
        checksum_algorithm=row.checksum_algorithm,
        checksum_type=ChecksumType(row.checksum_type) if row.checksum_type else None,
    )
