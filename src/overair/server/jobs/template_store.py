"""The SQL of job templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, insert, select

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.jobs.model import JobSettings, JobTemplate, MaintenanceWindow
from overair.server.jobs.tables import job_templates as templates
from overair.server.storage.work import sql


class SqlTemplateStore:
    """``ports.TemplateStore`` over SQL."""

    def insert(self, tx: Tx, template: JobTemplate) -> None:
        row = {
            "account": template.place.account,
            "id": template.id,
            "region": template.place.region,
            "description": template.description,
            "document": template.document,
            "document_source": template.document_source,
            "settings": _text(template.settings),
            "windows": _text(template.windows),
            "destination_package_versions": _text(template.destination_package_versions),
            "created_at": template.created_at,
        }
        sql(tx).execute(insert(templates).values(row))

    def find(self, tx: Tx, account: AccountId, template: str) -> JobTemplate | None:
        query = select(*templates.c).where(templates.c.account == account, templates.c.id == template)
        row = sql(tx).execute(query).mappings().first()
        return None if row is None else _template(row)

    def page(self, tx: Tx, account: AccountId, *, after: str | None, limit: int) -> Sequence[JobTemplate]:
        """By id."""
        query = select(*templates.c).where(templates.c.account == account)
        if after is not None:
            query = query.where(templates.c.id > after)
        return [_template(row) for row in sql(tx).execute(query.order_by(templates.c.id).limit(limit)).mappings()]

    def delete(self, tx: Tx, account: AccountId, template: str) -> bool:
        statement = delete(templates).where(templates.c.account == account, templates.c.id == template)
        return sql(tx).execute(statement).rowcount == 1


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _template(row: Mapping[Any, Any]) -> JobTemplate:
    return JobTemplate(
        id=row["id"],
        place=Place(row["region"], AccountId(row["account"])),
        description=row["description"],
        document=row["document"],
        document_source=row["document_source"],
        settings=msgspec.json.decode(row["settings"], type=JobSettings),
        windows=msgspec.json.decode(row["windows"], type=tuple[MaintenanceWindow, ...]),
        destination_package_versions=msgspec.json.decode(row["destination_package_versions"], type=tuple[str, ...]),
        created_at=Instant(row["created_at"]),
    )
