"""This room's tables and SQL. A file's plan is kept as the members that it was asked for with, and read by the same parser."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    RowMapping,
    String,
    Table,
    Text,
    delete,
    insert,
    or_,
    select,
    update,
)

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, BucketName, ObjectKey, OtaUpdateId, SigningJobId, StreamId, VersionId
from overair.basics.work import Tx
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import sql
from overair.server.updates.model import (
    UNFINISHED,
    CustomSigning,
    Failure,
    FileProgress,
    JobSettings,
    StoredFile,
    TargetSelection,
    Update,
    UpdateFile,
    UpdatePlan,
    UpdateStatus,
)
from overair.server.updates.plan import file_members, file_of
from overair.server.updates.ports import UpdateQuery
from overair.server.updates.steps import Step
from overair.wire.image_signature import SignatureAlgorithm
from overair.wire.job_document import TransferProtocol, read_encryption

updates: Final = Table(
    "ota_updates",
    metadata,
    account_column(),
    Column("id", String(64), primary_key=True),
    Column("region", String(32), nullable=False),
    Column("description", Text),
    Column("targets", Text, nullable=False),
    Column("protocols", Text, nullable=False),
    Column("selection", String(16), nullable=False),
    Column("rollout", Text),
    Column("abort", Text),
    Column("timeout", Text),
    Column("presign_expiry_s", Integer, nullable=False),
    Column("role_arn", Text, nullable=False),
    Column("additional_parameters", Text, nullable=False),
    Column("status", String(32), nullable=False),
    Column("step", String(32), nullable=False),
    Column("stream", String(128), nullable=False),
    Column("stream_made", Boolean, nullable=False),
    Column("is_unsigned", Boolean, nullable=False),
    Column("failure_code", Text),
    Column("failure_message", Text),
    Column("created_by", Text, nullable=False),
    instant_column("signature_ends_at", nullable=True),
    instant_column("created_at"),
    instant_column("modified_at"),
)
Index("ix_ota_updates_newest", updates.c.account, updates.c.created_at, updates.c.id)
Index("ix_ota_updates_unfinished", updates.c.status, updates.c.created_at)
Index("ix_ota_updates_signature_ends", updates.c.signature_ends_at)

files: Final = Table(
    "ota_update_files",
    metadata,
    account_column(),
    Column("ota_update", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("plan", Text, nullable=False),
    Column("signature_checked", Boolean, nullable=False),
    # That it is encrypted, and to whom, as a job document says it.
    Column("encryption", Text),
    Column("signing_job", String(64)),
    Column("bucket", Text),
    Column("object_key", Text),
    Column("object_version", Text),
    Column("size_bytes", BigInteger),
    Column("signature", LargeBinary),
    Column("algorithm", String(32)),
    Column("certificate_path", Text, nullable=False),
)
Index("ix_ota_update_files_signing_job", files.c.account, files.c.signing_job)
JOBS_PER_STATEMENT: Final = 500


class SqlUpdatesStore:
    """``UpdatesStore`` over SQL."""

    def find(self, tx: Tx, account: AccountId, update_id: OtaUpdateId) -> Update | None:
        query = select(*updates.c).where(updates.c.account == account, updates.c.id == update_id)
        row = sql(tx).execute(query).mappings().first()
        return None if row is None else self._update(tx, row)

    def add(self, tx: Tx, added: Update) -> None:
        plan = added.plan
        sql(tx).execute(
            insert(updates).values(
                account=added.account,
                id=added.id,
                region=added.region,
                description=plan.description,
                targets=_text(plan.targets),
                protocols=_text([protocol.value for protocol in plan.protocols]),
                selection=plan.selection.value,
                rollout=_optional_text(plan.settings.rollout),
                abort=_optional_text(plan.settings.abort),
                timeout=_optional_text(plan.settings.timeout),
                presign_expiry_s=plan.settings.presign_expiry_s,
                role_arn=plan.role_arn,
                additional_parameters=_text(plan.additional_parameters),
                stream=added.stream,
                is_unsigned=added.is_unsigned,
                created_by=added.created_by,
                created_at=added.created_at,
                **_changeable(added),
            )
        )
        sql(tx).execute(
            insert(files),
            [
                {"account": added.account, "ota_update": added.id, "number": number, **_file_values(file, progress)}
                for number, (file, progress) in enumerate(zip(plan.files, added.progress, strict=True))
            ],
        )

    def take(self, tx: Tx, taken: Update) -> bool:
        # The row is locked from here to the commit, so that another process that is at the same step waits and then finds
        # it done.
        touched = sql(tx).execute(
            update(updates)
            .where(
                updates.c.account == taken.account,
                updates.c.id == taken.id,
                updates.c.step == taken.step.value,
                updates.c.status == taken.status.value,
            )
            .values(modified_at=updates.c.modified_at)
        )
        return touched.rowcount == 1

    def save(self, tx: Tx, saved: Update) -> None:
        sql(tx).execute(
            update(updates).where(updates.c.account == saved.account, updates.c.id == saved.id).values(**_changeable(saved))
        )
        for number, (file, progress) in enumerate(zip(saved.plan.files, saved.progress, strict=True)):
            sql(tx).execute(
                update(files)
                .where(files.c.account == saved.account, files.c.ota_update == saved.id, files.c.number == number)
                .values(**_file_values(file, progress))
            )

    def delete(self, tx: Tx, account: AccountId, update_id: OtaUpdateId) -> None:
        sql(tx).execute(delete(files).where(files.c.account == account, files.c.ota_update == update_id))
        sql(tx).execute(delete(updates).where(updates.c.account == account, updates.c.id == update_id))

    def page(self, tx: Tx, account: AccountId, query: UpdateQuery) -> Sequence[Update]:
        statement = select(*updates.c).where(updates.c.account == account)
        if query.status is not None:
            statement = statement.where(updates.c.status == query.status.value)
        if query.after is not None:
            moment, update_id = query.after
            statement = statement.where(
                or_(updates.c.created_at < moment, (updates.c.created_at == moment) & (updates.c.id < update_id))
            )
        return self._newest(tx, statement, query.limit)

    def unfinished(self, tx: Tx, *, limit: int) -> Sequence[tuple[AccountId, OtaUpdateId]]:
        query = (
            select(updates.c.account, updates.c.id)
            .where(updates.c.status.in_(sorted(status.value for status in UNFINISHED)))
            .order_by(updates.c.created_at, updates.c.account, updates.c.id)
            .limit(limit)
        )
        return [(AccountId(row.account), OtaUpdateId(row.id)) for row in sql(tx).execute(query)]

    def failed(self, tx: Tx, account: AccountId, *, limit: int) -> Sequence[Update]:
        statement = select(*updates.c).where(updates.c.account == account, updates.c.status == UpdateStatus.CREATE_FAILED.value)
        return self._newest(tx, statement, limit)

    def unsigned(self, tx: Tx, account: AccountId, *, limit: int) -> Sequence[Update]:
        statement = select(*updates.c).where(updates.c.account == account, updates.c.is_unsigned.is_(True))
        return self._newest(tx, statement, limit)

    def signed_by(self, tx: Tx, account: AccountId, jobs: Sequence[SigningJobId]) -> Sequence[OtaUpdateId]:
        found: set[str] = set()
        for start in range(0, len(jobs), JOBS_PER_STATEMENT):
            query = (
                select(files.c.ota_update)
                .join(updates, (updates.c.account == files.c.account) & (updates.c.id == files.c.ota_update))
                .where(
                    files.c.account == account,
                    files.c.signing_job.in_(jobs[start : start + JOBS_PER_STATEMENT]),
                    updates.c.status == UpdateStatus.CREATE_COMPLETE.value,
                )
            )
            found.update(row.ota_update for row in sql(tx).execute(query))
        return [OtaUpdateId(name) for name in sorted(found)]

    def signatures_ended(self, tx: Tx, now: Instant, *, limit: int) -> Sequence[tuple[AccountId, OtaUpdateId]]:
        query = (
            select(updates.c.account, updates.c.id)
            .where(updates.c.signature_ends_at < now)
            .order_by(updates.c.signature_ends_at, updates.c.account, updates.c.id)
            .limit(limit)
        )
        return [(AccountId(row.account), OtaUpdateId(row.id)) for row in sql(tx).execute(query)]

    def note_signature_end(self, tx: Tx, account: AccountId, update_id: OtaUpdateId, ends_at: Instant | None) -> None:
        sql(tx).execute(
            update(updates).where(updates.c.account == account, updates.c.id == update_id).values(signature_ends_at=ends_at)
        )

    def _newest(self, tx: Tx, statement: Any, limit: int) -> Sequence[Update]:
        ordered = statement.order_by(updates.c.created_at.desc(), updates.c.id.desc()).limit(limit)
        return [self._update(tx, row) for row in sql(tx).execute(ordered).mappings().all()]

    def _update(self, tx: Tx, row: RowMapping) -> Update:
        query = (
            select(*files.c).where(files.c.account == row["account"], files.c.ota_update == row["id"]).order_by(files.c.number)
        )
        rows = sql(tx).execute(query).mappings().all()
        failure = None
        if row["failure_code"] is not None:
            failure = Failure(code=row["failure_code"], message=row["failure_message"])
        plan = UpdatePlan(
            id=OtaUpdateId(row["id"]),
            description=row["description"],
            targets=tuple(msgspec.json.decode(row["targets"], type=list[str])),
            protocols=tuple(TransferProtocol(word) for word in msgspec.json.decode(row["protocols"], type=list[str])),
            selection=TargetSelection(row["selection"]),
            settings=JobSettings(
                rollout=_optional_members(row["rollout"]),
                abort=_optional_members(row["abort"]),
                timeout=_optional_members(row["timeout"]),
                presign_expiry_s=row["presign_expiry_s"],
            ),
            files=tuple(_file(file) for file in rows),
            role_arn=row["role_arn"],
            additional_parameters=msgspec.json.decode(row["additional_parameters"], type=dict[str, str]),
            tags={},
        )
        return Update(
            account=AccountId(row["account"]),
            region=row["region"],
            plan=plan,
            status=UpdateStatus(row["status"]),
            step=Step(row["step"]),
            stream=StreamId(row["stream"]),
            stream_made=row["stream_made"],
            progress=tuple(_progress(file) for file in rows),
            failure=failure,
            created_by=row["created_by"],
            created_at=Instant(row["created_at"]),
            modified_at=Instant(row["modified_at"]),
        )


def _changeable(saved: Update) -> dict[str, Any]:
    return {
        "status": saved.status.value,
        "step": saved.step.value,
        "stream_made": saved.stream_made,
        "failure_code": saved.failure.code if saved.failure else None,
        "failure_message": saved.failure.message if saved.failure else None,
        "modified_at": saved.modified_at,
    }


def _file_values(file: UpdateFile, progress: FileProgress) -> dict[str, Any]:
    at = progress.delivered
    return {
        "plan": _text(_without_nothing(file_members(file))),
        "signature_checked": isinstance(file.signing, CustomSigning) and file.signing.checked,
        "encryption": None if file.encryption is None else _text(file.encryption.to_members()),
        "signing_job": progress.signing_job,
        "bucket": at.bucket if at else None,
        "object_key": at.key if at else None,
        "object_version": at.version if at else None,
        "size_bytes": progress.size_bytes,
        "signature": progress.signature,
        "algorithm": progress.algorithm.value if progress.algorithm else None,
        "certificate_path": progress.certificate_path,
    }


def _file(row: RowMapping) -> UpdateFile:
    members = msgspec.json.decode(row["plan"], type=dict[str, Any])
    custom = (members.get("codeSigning") or {}).get("customCodeSigning")
    if custom:
        custom["signature"]["inlineDocument"] = base64.b64decode(custom["signature"]["inlineDocument"])
    file = file_of(members)
    if row["encryption"] is not None:
        file = replace(file, encryption=read_encryption(msgspec.json.decode(row["encryption"])))
    if isinstance(file.signing, CustomSigning) and row["signature_checked"]:
        return replace(file, signing=replace(file.signing, checked=True))
    return file


def _progress(row: RowMapping) -> FileProgress:
    delivered = None
    if row["bucket"] is not None:
        delivered = StoredFile(
            bucket=BucketName(row["bucket"]), key=ObjectKey(row["object_key"]), version=VersionId(row["object_version"])
        )
    return FileProgress(
        signing_job=SigningJobId(row["signing_job"]) if row["signing_job"] is not None else None,
        delivered=delivered,
        size_bytes=row["size_bytes"],
        signature=row["signature"],
        algorithm=SignatureAlgorithm(row["algorithm"]) if row["algorithm"] is not None else None,
        certificate_path=row["certificate_path"],
    )


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _optional_text(value: Mapping[str, object] | None) -> str | None:
    return None if value is None else _text(value)


def _optional_members(text: str | None) -> Mapping[str, object] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, Any])


def _without_nothing(value: Any) -> Any:
    """Members that are absent are left out, as the request left them out."""
    if isinstance(value, dict):
        return {key: _without_nothing(item) for key, item in value.items() if item is not None}
    return value
