"""Rows of provisioning templates, of certificates that wait to be provisioned, and of temporary claims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId
from overair.basics.work import Tx
from overair.server.provisioning.store.tables import (
    certificate_ownerships,
    provisioning_template_versions,
    provisioning_templates,
    temporary_claims,
)
from overair.server.provisioning.template_model import (
    CertificateOwnership,
    ProvisioningHook,
    ProvisioningTemplate,
    TemplateName,
    TemplateType,
    TemplateVersion,
    TemporaryClaim,
)
from overair.server.storage.work import sql


class SqlTemplateRows:
    """``templates.TemplateStore`` and ``fleet_provisioning.OwnershipStore``."""

    # Templates --------------------------------------------------------------------------------------------------------------

    def find_template(self, tx: Tx, account: AccountId, name: TemplateName) -> ProvisioningTemplate | None:
        table = provisioning_templates
        row = sql(tx).execute(select(*table.c).where(table.c.account == account, table.c.name == name)).one_or_none()
        return None if row is None else _template(row)

    def insert_template(self, tx: Tx, template: ProvisioningTemplate) -> None:
        values = {"account": template.account, "name": template.name, "type": template.type.value}
        sql(tx).execute(insert(provisioning_templates).values(**values, created_at=template.created_at, **_changing(template)))
        version = TemplateVersion(
            template=template.name,
            version=template.default_version,
            body=template.body,
            created_at=template.created_at,
            is_default=True,
        )
        self.insert_template_version(tx, template.account, version)

    def update_template(self, tx: Tx, template: ProvisioningTemplate) -> None:
        table = provisioning_templates
        sql(tx).execute(
            update(table)
            .where(table.c.account == template.account, table.c.name == template.name)
            .values(**_changing(template))
        )

    def delete_template(self, tx: Tx, account: AccountId, name: TemplateName) -> None:
        table, versions = provisioning_templates, provisioning_template_versions
        sql(tx).execute(delete(versions).where(versions.c.account == account, versions.c.template == name))
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.name == name))

    def page_templates(self, tx: Tx, account: AccountId, *, after: str | None, limit: int) -> Sequence[ProvisioningTemplate]:
        table = provisioning_templates
        query = select(*table.c).where(table.c.account == account)
        if after is not None:
            query = query.where(table.c.name > after)
        return [_template(row) for row in sql(tx).execute(query.order_by(table.c.name).limit(limit))]

    def count_templates(self, tx: Tx, account: AccountId) -> int:
        table = provisioning_templates
        found = sql(tx).execute(select(func.count()).select_from(table).where(table.c.account == account)).scalar_one()
        return int(found)

    def insert_template_version(self, tx: Tx, account: AccountId, version: TemplateVersion) -> None:
        sql(tx).execute(
            insert(provisioning_template_versions).values(
                account=account,
                template=version.template,
                version=version.version,
                body=version.body,
                created_at=version.created_at,
            )
        )

    def template_versions(self, tx: Tx, account: AccountId, name: TemplateName) -> Sequence[TemplateVersion]:
        table, templates = provisioning_template_versions, provisioning_templates
        default = select(templates.c.default_version).where(templates.c.account == account, templates.c.name == name)
        in_force = sql(tx).execute(default).scalar_one_or_none()
        rows = sql(tx).execute(
            select(table.c.version, table.c.body, table.c.created_at)
            .where(table.c.account == account, table.c.template == name)
            .order_by(table.c.version.desc())
        )
        return [
            TemplateVersion(
                template=name,
                version=row.version,
                body=row.body,
                created_at=Instant(row.created_at),
                is_default=row.version == in_force,
            )
            for row in rows
        ]

    def delete_template_version(self, tx: Tx, account: AccountId, name: TemplateName, version: int) -> None:
        table = provisioning_template_versions
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.template == name, table.c.version == version))

    # Certificates that wait -------------------------------------------------------------------------------------------------

    def insert_ownership(self, tx: Tx, ownership: CertificateOwnership) -> None:
        sql(tx).execute(
            insert(certificate_ownerships).values(
                account=ownership.account,
                token_sha256=ownership.token_sha256,
                certificate_id=ownership.certificate_id,
                claim=ownership.claim,
                expires_at=ownership.expires_at,
            )
        )

    def find_ownership(self, tx: Tx, account: AccountId, token_sha256: str) -> CertificateOwnership | None:
        table = certificate_ownerships
        query = select(*table.c).where(table.c.account == account, table.c.token_sha256 == token_sha256)
        row = sql(tx).execute(query).one_or_none()
        return None if row is None else _ownership(row)

    def delete_ownership(self, tx: Tx, account: AccountId, token_sha256: str) -> None:
        table = certificate_ownerships
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.token_sha256 == token_sha256))

    def count_ownerships(self, tx: Tx, account: AccountId) -> int:
        table = certificate_ownerships
        found = sql(tx).execute(select(func.count()).select_from(table).where(table.c.account == account)).scalar_one()
        return int(found)

    def expired_ownerships(self, tx: Tx, now: Instant, *, limit: int) -> Sequence[CertificateOwnership]:
        table = certificate_ownerships
        query = select(*table.c).where(table.c.expires_at < now).order_by(table.c.expires_at, table.c.token_sha256).limit(limit)
        return [_ownership(row) for row in sql(tx).execute(query)]

    # Temporary claims -------------------------------------------------------------------------------------------------------

    def insert_claim(self, tx: Tx, claim: TemporaryClaim) -> None:
        sql(tx).execute(
            insert(temporary_claims).values(
                account=claim.account,
                certificate_id=claim.certificate_id,
                template=claim.template,
                expires_at=claim.expires_at,
            )
        )

    def find_claim(self, tx: Tx, account: AccountId, certificate: str) -> TemporaryClaim | None:
        table = temporary_claims
        query = select(*table.c).where(table.c.account == account, table.c.certificate_id == certificate)
        row = sql(tx).execute(query).one_or_none()
        return None if row is None else _claim(row)

    def delete_claim(self, tx: Tx, account: AccountId, certificate: CertificateId) -> None:
        table = temporary_claims
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.certificate_id == certificate))

    def expired_claims(self, tx: Tx, now: Instant, *, limit: int) -> Sequence[TemporaryClaim]:
        table = temporary_claims
        query = select(*table.c).where(table.c.expires_at < now).order_by(table.c.expires_at, table.c.certificate_id)
        return [_claim(row) for row in sql(tx).execute(query.limit(limit))]


def _changing(template: ProvisioningTemplate) -> dict[str, Any]:
    hook = template.hook
    return {
        "description": template.description,
        "enabled": template.enabled,
        "role_arn": template.role_arn,
        "hook_target_arn": None if hook is None else hook.target_arn,
        "hook_payload_version": None if hook is None else hook.payload_version,
        "default_version": template.default_version,
        "last_version": template.last_version,
        "body": template.body,
        "modified_at": template.modified_at,
    }


def _template(row: Any) -> ProvisioningTemplate:
    hook = None
    if row.hook_target_arn is not None:
        hook = ProvisioningHook(target_arn=row.hook_target_arn, payload_version=row.hook_payload_version)
    return ProvisioningTemplate(
        account=AccountId(row.account),
        name=TemplateName(row.name),
        type=TemplateType(row.type),
        description=row.description,
        enabled=bool(row.enabled),
        role_arn=row.role_arn,
        hook=hook,
        default_version=row.default_version,
        last_version=row.last_version,
        body=row.body,
        created_at=Instant(row.created_at),
        modified_at=Instant(row.modified_at),
    )


def _ownership(row: Any) -> CertificateOwnership:
    return CertificateOwnership(
        account=AccountId(row.account),
        token_sha256=row.token_sha256,
        certificate_id=CertificateId(row.certificate_id),
        claim=row.claim,
        expires_at=Instant(row.expires_at),
    )


def _claim(row: Any) -> TemporaryClaim:
    return TemporaryClaim(
        account=AccountId(row.account),
        certificate_id=CertificateId(row.certificate_id),
        template=TemplateName(row.template),
        expires_at=Instant(row.expires_at),
    )
