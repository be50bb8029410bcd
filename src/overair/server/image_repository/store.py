"""This room's SQL."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import and_, bindparam, delete, func, insert, select, update
from sqlalchemy.engine import Row

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.image_repository.model import ImageUploadId, StoredDocument, StoredTarget, TargetStatus
from overair.server.image_repository.tables import (
    comments,
    delegations,
    documents,
    hardware,
    parts,
    settings,
    targets,
    uploads,
)
from overair.server.image_repository.upload_model import ImageUpload, UploadedPart
from overair.server.objects.model import ContentId
from overair.server.storage.work import HotStatement, sql
from overair.wire.uptane.keys import Flavour

T = TypeVar("T")

NAMES_IN_QUERY_MAX: Final = 500

_encoder: Final = msgspec.json.Encoder()
_insert_target: Final = HotStatement(insert(targets))
_find_target: Final = HotStatement(
    select(*targets.c).where(targets.c.account == bindparam("b_account"), targets.c.name == bindparam("b_name"))
)
_TARGET_COLUMNS: Final = tuple(column.name for column in targets.columns)
_insert_hardware: Final = HotStatement(insert(hardware))


class SqlDocumentStore:
    """``ports.DocumentStore`` over SQL."""

    def current(self, tx: Tx, account: AccountId, role: str, flavour: Flavour) -> StoredDocument | None:
        query = (
            select(documents)
            .where(documents.c.account == account, documents.c.role == role, documents.c.flavour == flavour.value)
            .order_by(documents.c.version.desc())
            .limit(1)
        )
        row = sql(tx).execute(query).first()
        return None if row is None else _document(row)

    def all_current(self, tx: Tx, account: AccountId) -> Sequence[StoredDocument]:
        newest = (
            select(documents.c.role, documents.c.flavour, func.max(documents.c.version).label("version"))
            .where(documents.c.account == account)
            .group_by(documents.c.role, documents.c.flavour)
            .subquery()
        )
        query = (
            select(documents)
            .join(
                newest,
                and_(
                    documents.c.role == newest.c.role,
                    documents.c.flavour == newest.c.flavour,
                    documents.c.version == newest.c.version,
                ),
            )
            .where(documents.c.account == account)
            .order_by(documents.c.role, documents.c.flavour)
        )
        return [_document(row) for row in sql(tx).execute(query)]

    def version(self, tx: Tx, account: AccountId, role: str, flavour: Flavour, version: int) -> StoredDocument | None:
        query = select(documents).where(
            documents.c.account == account,
            documents.c.role == role,
            documents.c.flavour == flavour.value,
            documents.c.version == version,
        )
        row = sql(tx).execute(query).first()
        return None if row is None else _document(row)

    def add(self, tx: Tx, account: AccountId, document: StoredDocument, *, keep_versions: int) -> None:
        sql(tx).execute(
            insert(documents).values(
                account=account,
                role=document.role,
                flavour=document.flavour.value,
                version=document.version,
                document=document.document,
                expires=document.expires,
                signed_at=document.signed_at,
            )
        )
        of_role = (
            documents.c.account == account,
            documents.c.role == document.role,
            documents.c.flavour == document.flavour.value,
        )
        oldest_kept = (
            select(documents.c.version).where(*of_role).order_by(documents.c.version.desc()).limit(1).offset(keep_versions - 1)
        )
        version = sql(tx).execute(oldest_kept).scalar_one_or_none()
        if version is not None:
            sql(tx).execute(delete(documents).where(*of_role, documents.c.version < version))

    def clear(self, tx: Tx, account: AccountId) -> None:
        sql(tx).execute(delete(documents).where(documents.c.account == account))

    def not_before(self, tx: Tx, account: AccountId) -> Instant | None:
        found = sql(tx).execute(select(settings.c.not_before).where(settings.c.account == account)).scalar_one_or_none()
        return None if found is None else Instant(found)

    def set_not_before(self, tx: Tx, account: AccountId, moment: Instant) -> None:
        changed = sql(tx).execute(update(settings).where(settings.c.account == account).values(not_before=moment))
        if changed.rowcount == 0:
            sql(tx).execute(insert(settings).values(account=account, not_before=moment))

    def friendly_name(self, tx: Tx, account: AccountId, delegation: str) -> str | None:
        query = select(delegations.c.friendly_name).where(delegations.c.account == account, delegations.c.name == delegation)
        return sql(tx).execute(query).scalar_one_or_none()

    def set_friendly_name(self, tx: Tx, account: AccountId, delegation: str, name: str) -> None:
        of_delegation = (delegations.c.account == account, delegations.c.name == delegation)
        changed = sql(tx).execute(update(delegations).where(*of_delegation).values(friendly_name=name))
        if changed.rowcount == 0:
            sql(tx).execute(insert(delegations).values(account=account, name=delegation, friendly_name=name))


class SqlTargetStore:
    """``ports.TargetStore`` over SQL."""

    def find(self, tx: Tx, account: AccountId, name: str) -> StoredTarget | None:
        row = _find_target.first(tx, b_account=account, b_name=name)
        return None if row is None else _target(SimpleNamespace(**dict(zip(_TARGET_COLUMNS, row, strict=True))))

    def find_all(self, tx: Tx, account: AccountId, names: Collection[str]) -> Mapping[str, StoredTarget]:
        found: dict[str, StoredTarget] = {}
        for some in _in_pieces(sorted(names)):
            query = select(targets).where(targets.c.account == account, targets.c.name.in_(some))
            found |= {row.name: _target(row) for row in sql(tx).execute(query)}
        return found

    def with_status(
        self, tx: Tx, account: AccountId, status: TargetStatus, *, role: str | None = None
    ) -> Sequence[StoredTarget]:
        query = select(targets).where(targets.c.account == account, targets.c.status == status.value)
        if role is not None:
            query = query.where(targets.c.role == role)
        return [_target(row) for row in sql(tx).execute(query.order_by(targets.c.name))]

    def page(
        self, tx: Tx, account: AccountId, *, statuses: Collection[TargetStatus], name_contains: str, offset: int, limit: int
    ) -> tuple[Sequence[StoredTarget], int]:
        meant = [targets.c.account == account, targets.c.status.in_([status.value for status in statuses])]
        if name_contains:
            meant.append(targets.c.name.contains(name_contains, autoescape=True))
        total = sql(tx).execute(select(func.count()).select_from(targets).where(*meant)).scalar_one()
        query = select(targets).where(*meant).order_by(targets.c.name).offset(offset).limit(limit)
        return [_target(row) for row in sql(tx).execute(query)], total

    def for_hardware(self, tx: Tx, account: AccountId, hardware_id: str) -> Sequence[StoredTarget]:
        query = (
            select(targets)
            .join(hardware, and_(hardware.c.account == targets.c.account, hardware.c.name == targets.c.name))
            .where(hardware.c.account == account, hardware.c.hardware_id == hardware_id)
            .order_by(targets.c.name)
        )
        return [_target(row) for row in sql(tx).execute(query)]

    def count(self, tx: Tx, account: AccountId, status: TargetStatus) -> int:
        query = select(func.count()).select_from(targets).where(targets.c.account == account, targets.c.status == status.value)
        return sql(tx).execute(query).scalar_one()

    def put(self, tx: Tx, account: AccountId, target: StoredTarget) -> None:
        self.put_all(tx, account, [target])

    def put_all(self, tx: Tx, account: AccountId, targets_put: Sequence[StoredTarget]) -> None:
        for some in _in_pieces([target.name for target in targets_put]):
            sql(tx).execute(delete(targets).where(targets.c.account == account, targets.c.name.in_(some)))
            sql(tx).execute(delete(hardware).where(hardware.c.account == account, hardware.c.name.in_(some)))
        for target in targets_put:
            _insert_target.run(tx, account=account, **_target_values(target))
            if target.status is TargetStatus.LISTED:
                for hardware_id in sorted(set(target.hardware_ids)):
                    _insert_hardware.run(tx, account=account, hardware_id=hardware_id, name=target.name)

    def comments(self, tx: Tx, account: AccountId, names: Collection[str] | None) -> Mapping[str, str]:
        query = select(comments.c.name, comments.c.comment).where(comments.c.account == account).order_by(comments.c.name)
        if names is None:
            return {row.name: row.comment for row in sql(tx).execute(query)}
        found: dict[str, str] = {}
        for some in _in_pieces(sorted(names)):
            found |= {row.name: row.comment for row in sql(tx).execute(query.where(comments.c.name.in_(some)))}
        return found

    def set_comment(self, tx: Tx, account: AccountId, name: str, comment: str, *, now: Instant) -> None:
        of_target = (comments.c.account == account, comments.c.name == name)
        changed = sql(tx).execute(update(comments).where(*of_target).values(comment=comment, updated_at=now))
        if changed.rowcount == 0:
            sql(tx).execute(insert(comments).values(account=account, name=name, comment=comment, updated_at=now))

    def named_contents(self, tx: Tx, contents: Sequence[ContentId]) -> set[ContentId]:
        found: set[ContentId] = set()
        for column in (targets.c.content_id, parts.c.content_id):
            found |= {ContentId(row[0]) for row in sql(tx).execute(select(column).where(column.in_(contents)).distinct())}
        return found


class SqlImageUploadStore:
    """``ports.ImageUploadStore`` over SQL."""

    def add(self, tx: Tx, account: AccountId, upload: ImageUpload) -> None:
        sql(tx).execute(
            insert(uploads).values(
                account=account,
                upload_id=upload.upload_id,
                name=upload.name,
                size_bytes=upload.size_bytes,
                created_at=upload.created_at,
            )
        )

    def find(self, tx: Tx, account: AccountId, upload_id: ImageUploadId) -> ImageUpload | None:
        row = sql(tx).execute(select(uploads).where(uploads.c.account == account, uploads.c.upload_id == upload_id)).first()
        if row is None:
            return None
        return ImageUpload(
            upload_id=ImageUploadId(row.upload_id),
            name=row.name,
            size_bytes=row.size_bytes,
            created_at=Instant(row.created_at),
        )

    def parts(self, tx: Tx, account: AccountId, upload_id: ImageUploadId) -> Sequence[UploadedPart]:
        query = select(parts).where(parts.c.account == account, parts.c.upload_id == upload_id).order_by(parts.c.number)
        return [
            UploadedPart(
                number=row.number, content_id=ContentId(row.content_id), size_bytes=row.size_bytes, md5_hex=row.md5_hex
            )
            for row in sql(tx).execute(query)
        ]

    def put_part(self, tx: Tx, account: AccountId, upload_id: ImageUploadId, part: UploadedPart) -> None:
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
            )
        )

    def delete(self, tx: Tx, account: AccountId, upload_id: ImageUploadId) -> None:
        for table in (parts, uploads):
            sql(tx).execute(delete(table).where(table.c.account == account, table.c.upload_id == upload_id))

    def begun_before(self, tx: Tx, moment: Instant) -> Sequence[tuple[AccountId, ImageUploadId]]:
        query = select(uploads.c.account, uploads.c.upload_id).where(uploads.c.created_at < moment)
        return [(AccountId(row.account), ImageUploadId(row.upload_id)) for row in sql(tx).execute(query)]


def _in_pieces(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), NAMES_IN_QUERY_MAX):
        yield items[first : first + NAMES_IN_QUERY_MAX]


def _text(value: Any) -> str:
    return _encoder.encode(value).decode()


def _target_values(target: StoredTarget) -> dict[str, Any]:
    return {
        "name": target.name,
        "status": target.status.value,
        "role": target.role,
        "length": target.length,
        "hashes": _text(target.hashes),
        "custom": _text(target.custom),
        "content_id": target.content_id,
        "uri": target.uri,
        "created_at": target.created_at,
        "updated_at": target.updated_at,
    }


def _target(row: Any) -> StoredTarget:
    return StoredTarget(
        name=row.name,
        status=TargetStatus(row.status),
        role=row.role,
        length=row.length,
        hashes=msgspec.json.decode(row.hashes),
        custom=msgspec.json.decode(row.custom),
        content_id=None if row.content_id is None else ContentId(row.content_id),
        uri=row.uri,
        created_at=Instant(row.created_at),
        updated_at=Instant(row.updated_at),
    )


def _document(row: Row[Any]) -> StoredDocument:
    return StoredDocument(
        role=row.role,
        flavour=Flavour(row.flavour),
        version=row.version,
        document=bytes(row.document),
        expires=Instant(row.expires),
        signed_at=Instant(row.signed_at),
    )
