"""This room's tables and SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Boolean, Column, Index, Integer, RowMapping, String, Table, Text, delete, insert, or_, select, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, BucketName, ObjectKey, SigningJobId, SigningProfileName, VersionId
from overair.basics.work import Tx
from overair.server.signing.model import (
    Encryption,
    Hash,
    ImageFormat,
    JobStatus,
    ObjectLocation,
    Profile,
    ProfilePlan,
    ProfileStatus,
    SignedBy,
    SignedObject,
    SigningJob,
    SigningPlan,
    Validity,
    algorithm_of,
)
from overair.server.signing.permissions import Permission
from overair.server.signing.ports import JobQuery
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import sql

profiles: Final = Table(
    "signing_profiles",
    metadata,
    account_column(),
    Column("name", String(64), primary_key=True),
    Column("version", String(10), primary_key=True),
    Column("is_current", Boolean, nullable=False),
    Column("status", String(16), nullable=False),
    Column("status_reason", Text),
    Column("platform_id", Text, nullable=False),
    Column("certificate_arn", Text, nullable=False),
    Column("parameters", Text, nullable=False),
    Column("encryption", String(8)),
    Column("hash", String(8)),
    Column("image_format", String(16)),
    Column("validity_value", Integer),
    Column("validity_unit", String(8)),
    Column("testing_only", Boolean, nullable=False),
    Column("tags", Text, nullable=False),
    instant_column("created_at"),
    instant_column("revoked_at", nullable=True),
    Column("revoked_by", Text),
    instant_column("revocation_effective_from", nullable=True),
)
Index("ix_signing_profiles_current", profiles.c.account, profiles.c.is_current, profiles.c.name)

jobs: Final = Table(
    "signing_jobs",
    metadata,
    account_column(),
    Column("id", String(36), primary_key=True),
    Column("region", String(32), nullable=False),
    # The token is NULL for SignPayload, which has none; NULLs don't collide on either dialect.
    Column("client_request_token", String(512)),
    Column("source_bucket", Text),
    Column("source_key", Text),
    Column("source_version", Text),
    Column("destination_bucket", Text),
    Column("destination_prefix", Text),
    Column("profile", String(64), nullable=False),
    Column("profile_version", String(10), nullable=False),
    Column("platform_id", Text, nullable=False),
    Column("certificate_arn", Text, nullable=False),
    Column("parameters", Text, nullable=False),
    Column("algorithm", String(32), nullable=False),
    Column("image_format", String(16), nullable=False),
    Column("requested_by", Text, nullable=False),
    # Of another account's principal; empty where the owner's own asked.
    Column("invoker", String(12), nullable=False, server_default=""),
    Column("status", String(16), nullable=False),
    Column("status_reason", Text),
    Column("signed_version", Text),
    Column("signature", Text),
    Column("certificate_sha256", String(64)),
    instant_column("certificate_not_after", nullable=True),
    instant_column("created_at"),
    instant_column("completed_at", nullable=True),
    instant_column("expires_at", nullable=True),
    instant_column("revoked_at", nullable=True),
    Column("revoked_by", Text),
    Column("revocation_reason", Text),
)
Index("uq_signing_jobs_client_request_token", jobs.c.account, jobs.c.client_request_token, unique=True)
Index("ix_signing_jobs_newest", jobs.c.account, jobs.c.created_at, jobs.c.id)
Index("ix_signing_jobs_unfinished", jobs.c.status, jobs.c.created_at)
Index("ix_signing_jobs_invoked", jobs.c.invoker, jobs.c.id)

permissions: Final = Table(
    "signing_profile_permissions",
    metadata,
    account_column(),
    Column("profile", String(64), primary_key=True),
    Column("statement_id", String(64), primary_key=True),
    Column("action", String(64), nullable=False),
    Column("principal", Text, nullable=False),
    Column("profile_version", String(10)),
)


class SqlSigningStore:
    """``SigningStore`` over SQL."""

    def profile(self, tx: Tx, account: AccountId, name: SigningProfileName, version: str | None = None) -> Profile | None:
        wanted = profiles.c.is_current.is_(True) if version is None else profiles.c.version == version
        query = select(*profiles.c).where(profiles.c.account == account, profiles.c.name == name, wanted)
        row = sql(tx).execute(query).mappings().first()
        return None if row is None else _profile(row)

    def profiles(
        self,
        tx: Tx,
        account: AccountId,
        *,
        statuses: Sequence[ProfileStatus],
        platform_id: str | None,
        after: SigningProfileName | None,
        limit: int,
    ) -> Sequence[Profile]:
        query = select(*profiles.c).where(
            profiles.c.account == account,
            profiles.c.is_current.is_(True),
            profiles.c.status.in_([status.value for status in statuses]),
        )
        if platform_id is not None:
            query = query.where(profiles.c.platform_id == platform_id)
        if after is not None:
            query = query.where(profiles.c.name > after)
        return [_profile(row) for row in sql(tx).execute(query.order_by(profiles.c.name).limit(limit)).mappings()]

    def add_profile(self, tx: Tx, account: AccountId, profile: Profile) -> None:
        sql(tx).execute(
            update(profiles).where(profiles.c.account == account, profiles.c.name == profile.name).values(is_current=False)
        )
        plan = profile.plan
        sql(tx).execute(
            insert(profiles).values(
                account=account,
                name=profile.name,
                version=profile.version,
                is_current=True,
                platform_id=plan.platform_id,
                certificate_arn=plan.certificate_arn,
                parameters=_text(plan.parameters),
                encryption=plan.encryption,
                hash=plan.hash,
                image_format=plan.image_format,
                validity_value=plan.validity.value if plan.validity else None,
                validity_unit=plan.validity.unit if plan.validity else None,
                testing_only=profile.testing_only,
                created_at=profile.created_at,
                **_changeable(profile),
            )
        )

    def change_profile(self, tx: Tx, account: AccountId, profile: Profile) -> None:
        sql(tx).execute(
            update(profiles)
            .where(profiles.c.account == account, profiles.c.name == profile.name, profiles.c.version == profile.version)
            .values(**_changeable(profile))
        )

    def profiles_using(self, tx: Tx, account: AccountId, certificate_arn: str) -> Sequence[SigningProfileName]:
        query = select(profiles.c.name).where(
            profiles.c.account == account,
            profiles.c.is_current.is_(True),
            profiles.c.status == ProfileStatus.ACTIVE.value,
            profiles.c.certificate_arn == certificate_arn,
        )
        return [SigningProfileName(row.name) for row in sql(tx).execute(query.order_by(profiles.c.name))]

    def set_testing_only(self, tx: Tx, account: AccountId, certificate_arn: str, testing_only: bool) -> None:
        sql(tx).execute(
            update(profiles)
            .where(
                profiles.c.account == account,
                profiles.c.is_current.is_(True),
                profiles.c.certificate_arn == certificate_arn,
            )
            .values(testing_only=testing_only)
        )

    def testing_only(self, tx: Tx, account: AccountId) -> Sequence[SigningProfileName]:
        query = select(profiles.c.name).where(
            profiles.c.account == account,
            profiles.c.is_current.is_(True),
            profiles.c.status == ProfileStatus.ACTIVE.value,
            profiles.c.testing_only.is_(True),
        )
        return [SigningProfileName(row.name) for row in sql(tx).execute(query.order_by(profiles.c.name))]

    def permissions(self, tx: Tx, account: AccountId, profile: SigningProfileName) -> Sequence[Permission]:
        query = (
            select(*permissions.c)
            .where(permissions.c.account == account, permissions.c.profile == profile)
            .order_by(permissions.c.statement_id)
        )
        return [
            Permission(
                statement_id=row["statement_id"],
                action=row["action"],
                principal=row["principal"],
                profile_version=row["profile_version"],
            )
            for row in sql(tx).execute(query).mappings()
        ]

    def add_permission(self, tx: Tx, account: AccountId, profile: SigningProfileName, permission: Permission) -> None:
        sql(tx).execute(
            insert(permissions).values(
                account=account,
                profile=profile,
                statement_id=permission.statement_id,
                action=permission.action,
                principal=permission.principal,
                profile_version=permission.profile_version,
            )
        )

    def remove_permission(self, tx: Tx, account: AccountId, profile: SigningProfileName, statement_id: str) -> None:
        sql(tx).execute(
            delete(permissions).where(
                permissions.c.account == account,
                permissions.c.profile == profile,
                permissions.c.statement_id == statement_id,
            )
        )

    def job(self, tx: Tx, account: AccountId, job: SigningJobId) -> SigningJob | None:
        query = select(*jobs.c).where(jobs.c.account == account, jobs.c.id == job)
        row = sql(tx).execute(query).mappings().first()
        return None if row is None else _job(row)

    def job_invoked(self, tx: Tx, invoker: AccountId, job: SigningJobId) -> SigningJob | None:
        query = select(*jobs.c).where(jobs.c.invoker == invoker, jobs.c.id == job)
        row = sql(tx).execute(query).mappings().first()
        return None if row is None else _job(row)

    def job_of_token(self, tx: Tx, account: AccountId, client_request_token: str) -> SigningJob | None:
        query = select(*jobs.c).where(jobs.c.account == account, jobs.c.client_request_token == client_request_token)
        row = sql(tx).execute(query).mappings().first()
        return None if row is None else _job(row)

    def jobs(self, tx: Tx, account: AccountId, query: JobQuery) -> Sequence[SigningJob]:
        statement = select(*jobs.c).where(or_(jobs.c.account == account, jobs.c.invoker == account))
        if query.invoker is not None:
            by_owner = (jobs.c.account == query.invoker) & (jobs.c.invoker == "")
            statement = statement.where(or_(jobs.c.invoker == query.invoker, by_owner))
        if query.status is not None:
            statement = statement.where(jobs.c.status == query.status.value)
        if query.platform_id is not None:
            statement = statement.where(jobs.c.platform_id == query.platform_id)
        if query.requested_by is not None:
            statement = statement.where(jobs.c.requested_by == query.requested_by)
        if query.is_revoked is not None:
            revoked = jobs.c.revoked_at
            statement = statement.where(revoked.is_not(None) if query.is_revoked else revoked.is_(None))
        if query.expires_before is not None:
            statement = statement.where(jobs.c.expires_at < query.expires_before)
        if query.expires_after is not None:
            statement = statement.where(jobs.c.expires_at > query.expires_after)
        if query.after is not None:
            moment, job_id = query.after
            statement = statement.where(or_(jobs.c.created_at < moment, (jobs.c.created_at == moment) & (jobs.c.id < job_id)))
        statement = statement.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(query.limit)
        return [_job(row) for row in sql(tx).execute(statement).mappings()]

    def add_job(self, tx: Tx, job: SigningJob) -> None:
        plan = job.plan
        sql(tx).execute(
            insert(jobs).values(
                account=job.account,
                id=job.id,
                region=job.region,
                client_request_token=plan.client_request_token if plan else None,
                source_bucket=plan.source.bucket if plan else None,
                source_key=plan.source.key if plan else None,
                source_version=plan.source.version if plan else None,
                destination_bucket=plan.destination_bucket if plan else None,
                destination_prefix=plan.destination_prefix if plan else None,
                profile=job.profile,
                profile_version=job.profile_version,
                platform_id=job.platform_id,
                certificate_arn=job.certificate_arn,
                parameters=_text(job.parameters),
                algorithm=job.algorithm.signer_name,
                image_format=job.image_format.value,
                requested_by=job.requested_by,
                invoker="" if job.invoker == job.account else job.invoker,
                status=job.status.value,
                status_reason=job.status_reason,
                created_at=job.created_at,
                completed_at=job.completed_at,
                expires_at=job.expires_at,
                **_certificate(job),
            )
        )

    def take_job(self, tx: Tx, job: SigningJob) -> bool:
        # The row is locked from here to the commit: another process that has signed it too waits, and finds it done.
        touched = sql(tx).execute(
            update(jobs)
            .where(jobs.c.account == job.account, jobs.c.id == job.id, jobs.c.status == JobStatus.IN_PROGRESS.value)
            .values(status=jobs.c.status)
        )
        return touched.rowcount == 1

    def finish_job(self, tx: Tx, job: SigningJob) -> bool:
        touched = sql(tx).execute(
            update(jobs)
            .where(jobs.c.account == job.account, jobs.c.id == job.id, jobs.c.status == JobStatus.IN_PROGRESS.value)
            .values(
                status=job.status.value,
                status_reason=job.status_reason,
                completed_at=job.completed_at,
                signed_version=job.signed.location.version if job.signed else None,
                signature=job.signed.signature if job.signed else None,
                **_certificate(job),
            )
        )
        return touched.rowcount == 1

    def signed_by_version(
        self, tx: Tx, account: AccountId, profile: SigningProfileName, version: str, *, since: Instant
    ) -> Sequence[SigningJobId]:
        query = select(jobs.c.id).where(
            jobs.c.account == account,
            jobs.c.profile == profile,
            jobs.c.profile_version == version,
            jobs.c.completed_at >= since,
            jobs.c.signature.is_not(None),
        )
        return [SigningJobId(row.id) for row in sql(tx).execute(query)]

    def change_job(self, tx: Tx, job: SigningJob) -> None:
        sql(tx).execute(
            update(jobs)
            .where(jobs.c.account == job.account, jobs.c.id == job.id)
            .values(revoked_at=job.revoked_at, revoked_by=job.revoked_by, revocation_reason=job.revocation_reason)
        )

    def unfinished(self, tx: Tx, *, limit: int) -> Sequence[SigningJob]:
        query = (
            select(*jobs.c)
            .where(jobs.c.status == JobStatus.IN_PROGRESS.value)
            .order_by(jobs.c.created_at, jobs.c.account, jobs.c.id)
            .limit(limit)
        )
        return [_job(row) for row in sql(tx).execute(query).mappings()]


def _text(mapping: Mapping[str, str]) -> str:
    return msgspec.json.encode(dict(mapping), order="sorted").decode()


def _mapping(text: str) -> Mapping[str, str]:
    return msgspec.json.decode(text, type=dict[str, str])


def _changeable(profile: Profile) -> dict[str, Any]:
    return {
        "status": profile.status.value,
        "status_reason": profile.status_reason,
        "tags": _text(profile.tags),
        "revoked_at": profile.revoked_at,
        "revoked_by": profile.revoked_by,
        "revocation_effective_from": profile.revocation_effective_from,
    }


def _certificate(job: SigningJob) -> dict[str, Any]:
    by = job.certificate
    return {
        "certificate_sha256": None if by is None else by.sha256,
        "certificate_not_after": None if by is None else by.not_after,
    }


def _signed_by(row: RowMapping) -> SignedBy | None:
    if row["certificate_sha256"] is None:
        return None
    return SignedBy(sha256=row["certificate_sha256"], not_after=Instant(row["certificate_not_after"]))


def _profile(row: RowMapping) -> Profile:
    validity = Validity(value=row["validity_value"], unit=row["validity_unit"]) if row["validity_unit"] else None
    return Profile(
        name=SigningProfileName(row["name"]),
        version=row["version"],
        plan=ProfilePlan(
            platform_id=row["platform_id"],
            certificate_arn=row["certificate_arn"],
            parameters=_mapping(row["parameters"]),
            encryption=Encryption(row["encryption"]) if row["encryption"] else None,
            hash=Hash(row["hash"]) if row["hash"] else None,
            image_format=ImageFormat(row["image_format"]) if row["image_format"] else None,
            validity=validity,
        ),
        status=ProfileStatus(row["status"]),
        status_reason=row["status_reason"],
        created_at=Instant(row["created_at"]),
        testing_only=row["testing_only"],
        tags=_mapping(row["tags"]),
        revoked_at=row["revoked_at"],
        revoked_by=row["revoked_by"],
        revocation_effective_from=row["revocation_effective_from"],
    )


def _job(row: RowMapping) -> SigningJob:
    plan = None
    if row["client_request_token"] is not None:
        plan = SigningPlan(
            profile=SigningProfileName(row["profile"]),
            source=ObjectLocation(
                bucket=BucketName(row["source_bucket"]),
                key=ObjectKey(row["source_key"]),
                version=VersionId(row["source_version"]),
            ),
            destination_bucket=BucketName(row["destination_bucket"]),
            destination_prefix=row["destination_prefix"],
            client_request_token=row["client_request_token"],
        )
    algorithm = algorithm_of(row["algorithm"])
    signed = None
    if plan is not None and row["signature"] is not None:
        location = ObjectLocation(
            bucket=plan.destination_bucket,
            key=ObjectKey(f"{plan.destination_prefix}{row['id']}"),
            version=VersionId(row["signed_version"]),
        )
        signed = SignedObject(location=location, signature=row["signature"], algorithm=algorithm)
    return SigningJob(
        account=AccountId(row["account"]),
        region=row["region"],
        id=SigningJobId(row["id"]),
        plan=plan,
        profile=SigningProfileName(row["profile"]),
        profile_version=row["profile_version"],
        platform_id=row["platform_id"],
        certificate_arn=row["certificate_arn"],
        parameters=_mapping(row["parameters"]),
        algorithm=algorithm,
        image_format=ImageFormat(row["image_format"]),
        requested_by=row["requested_by"],
        invoker=AccountId(row["invoker"] or row["account"]),
        status=JobStatus(row["status"]),
        status_reason=row["status_reason"],
        created_at=Instant(row["created_at"]),
        completed_at=row["completed_at"],
        expires_at=row["expires_at"],
        signed=signed,
        certificate=_signed_by(row),
        revoked_at=row["revoked_at"],
        revoked_by=row["revoked_by"],
        revocation_reason=row["revocation_reason"],
    )
