"""This room's tables and SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    RowMapping,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, BucketName, ObjectKey, StreamId, VersionId
from overair.basics.work import Tx
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import sql
from overair.server.streams.model import FileSource, Stream, StreamFile

streams: Final = Table(
    "streams",
    metadata,
    account_column(),
    Column("id", String(128), primary_key=True),
    Column("version", Integer, nullable=False),
    # A deleted stream stays as a tombstone, so that its id never returns to a version that devices have seen.
    Column("deleted", Boolean, nullable=False),
    Column("description", Text, nullable=False),
    Column("role_arn", Text, nullable=False),
    instant_column("created_at"),
    instant_column("last_updated_at"),
)
Index("ix_streams_listed", streams.c.account, streams.c.deleted, streams.c.id)

stream_files: Final = Table(
    "stream_files",
    metadata,
    account_column(),
    Column("stream", String(128), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("file_id", Integer, nullable=False),
    Column("bucket", String(255), nullable=False),
    Column("key", Text, nullable=False),
    Column("version_asked", Text),
    Column("version", Text, nullable=False),
    Column("etag", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
)


class SqlStreamsStore:
    """``StreamsStore`` over SQL."""

    def find(self, tx: Tx, account: AccountId, stream: StreamId) -> Stream | None:
        query = select(*streams.c).where(streams.c.account == account, streams.c.id == stream, streams.c.deleted.is_(False))
        row = sql(tx).execute(query).mappings().first()
        return None if row is None else _stream(row, self._files(tx, account, [stream]))

    def last_version(self, tx: Tx, account: AccountId, stream: StreamId) -> tuple[int, Instant] | None:
        query = select(streams.c.version, streams.c.last_updated_at).where(streams.c.account == account, streams.c.id == stream)
        row = sql(tx).execute(query).first()
        return None if row is None else (int(row[0]), Instant(row[1]))

    def page(self, tx: Tx, account: AccountId, *, after: StreamId | None, limit: int, ascending: bool) -> Sequence[Stream]:
        query = select(*streams.c).where(streams.c.account == account, streams.c.deleted.is_(False))
        if after is not None:
            query = query.where(streams.c.id > after if ascending else streams.c.id < after)
        query = query.order_by(streams.c.id.asc() if ascending else streams.c.id.desc()).limit(limit)
        rows = sql(tx).execute(query).mappings().all()
        files = self._files(tx, account, [StreamId(row["id"]) for row in rows])
        return [_stream(row, files) for row in rows]

    def save(self, tx: Tx, account: AccountId, stream: Stream) -> None:
        """Put a stream in its newest version, with its files."""
        values: dict[str, Any] = {
            "version": stream.version,
            "deleted": False,
            "description": stream.description,
            "role_arn": stream.role_arn,
            "created_at": stream.created_at,
            "last_updated_at": stream.last_updated_at,
        }
        touched = sql(tx).execute(
            update(streams).where(streams.c.account == account, streams.c.id == stream.id).values(**values)
        )
        if touched.rowcount == 0:
            sql(tx).execute(insert(streams).values(account=account, id=stream.id, **values))
        self._drop_files(tx, account, stream.id)
        sql(tx).execute(
            insert(stream_files),
            [
                {
                    "account": account,
                    "stream": stream.id,
                    "position": position,
                    "file_id": file.source.file_id,
                    "bucket": file.source.bucket,
                    "key": file.source.key,
                    "version_asked": file.source.version,
                    "version": file.version,
                    "etag": file.etag,
                    "size_bytes": file.size_bytes,
                }
                for position, file in enumerate(stream.files)
            ],
        )

    def bury(self, tx: Tx, account: AccountId, stream: StreamId, *, now: Instant) -> None:
        """Leave only the tombstone with the last version."""
        sql(tx).execute(
            update(streams)
            .where(streams.c.account == account, streams.c.id == stream)
            .values(deleted=True, description="", role_arn="", last_updated_at=now)
        )
        self._drop_files(tx, account, stream)

    def _drop_files(self, tx: Tx, account: AccountId, stream: StreamId) -> None:
        sql(tx).execute(delete(stream_files).where(stream_files.c.account == account, stream_files.c.stream == stream))

    def _files(self, tx: Tx, account: AccountId, ids: Sequence[StreamId]) -> Mapping[str, list[StreamFile]]:
        query = (
            select(*stream_files.c)
            .where(stream_files.c.account == account, stream_files.c.stream.in_(ids))
            .order_by(stream_files.c.stream, stream_files.c.position)
        )
        files: dict[str, list[StreamFile]] = {}
        for row in sql(tx).execute(query).mappings():
            files.setdefault(row["stream"], []).append(_file(row))
        return files


def _stream(row: RowMapping, files: Mapping[str, list[StreamFile]]) -> Stream:
    return Stream(
        id=StreamId(row["id"]),
        version=row["version"],
        description=row["description"],
        files=tuple(files.get(row["id"], ())),
        role_arn=row["role_arn"],
        created_at=Instant(row["created_at"]),
        last_updated_at=Instant(row["last_updated_at"]),
    )


def _file(row: RowMapping) -> StreamFile:
    return StreamFile(
        source=FileSource(
            file_id=row["file_id"],
            bucket=BucketName(row["bucket"]),
            key=ObjectKey(row["key"]),
            version=None if row["version_asked"] is None else VersionId(row["version_asked"]),
        ),
        version=VersionId(row["version"]),
        etag=row["etag"],
        size_bytes=row["size_bytes"],
    )
