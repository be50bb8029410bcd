"""Campaigns, what drivers say of them, and ECUs that are updated by themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, func, insert, select, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CampaignId, EcuSerial, GroupName, JobId, MultiTargetUpdateId, ThingName
from overair.basics.work import Tx
from overair.server.director.campaign_model import ApprovalState, AutoUpdate, Campaign, MetadataType
from overair.server.director.store.rows import instant, strings, text
from overair.server.director.tables import approvals, auto_updates, campaigns
from overair.server.storage.work import sql


class SqlCampaignStore:
    """``ports.CampaignStore`` over SQL."""

    def add(self, tx: Tx, account: AccountId, campaign: Campaign) -> None:
        sql(tx).execute(insert(campaigns).values(account=account, id=campaign.id, **_values(campaign)))

    def save(self, tx: Tx, account: AccountId, campaign: Campaign) -> None:
        statement = update(campaigns).where(campaigns.c.account == account, campaigns.c.id == campaign.id)
        sql(tx).execute(statement.values(**_values(campaign)))

    def find(self, tx: Tx, account: AccountId, campaign: CampaignId) -> Campaign | None:
        query = select(*campaigns.c).where(campaigns.c.account == account, campaigns.c.id == campaign)
        row = sql(tx).execute(query).mappings().first()
        return None if row is None else _campaign(row)

    def find_all(self, tx: Tx, account: AccountId, ids: Collection[CampaignId]) -> Mapping[CampaignId, Campaign]:
        query = select(*campaigns.c).where(campaigns.c.account == account, campaigns.c.id.in_(ids))
        return {CampaignId(row["id"]): _campaign(row) for row in sql(tx).execute(query).mappings()}

    def page(
        self, tx: Tx, account: AccountId, *, name_contains: str, by_name: bool, offset: int, limit: int
    ) -> tuple[int, Sequence[Campaign]]:
        """(how many there are, those of the page), newest first or by name."""
        rows = select(*campaigns.c).where(campaigns.c.account == account)
        if name_contains:
            needle = name_contains.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            rows = rows.where(func.lower(campaigns.c.name).like(f"%{needle}%", escape="\\"))
        total = int(sql(tx).execute(select(func.count()).select_from(rows.subquery())).scalar_one())
        order = (campaigns.c.name, campaigns.c.id) if by_name else (campaigns.c.created_at.desc(), campaigns.c.id)
        found = sql(tx).execute(rows.order_by(*order).offset(offset).limit(limit)).mappings()
        return total, [_campaign(row) for row in found]

    def all(self, tx: Tx, account: AccountId) -> Sequence[Campaign]:
        query = (
            select(*campaigns.c).where(campaigns.c.account == account).order_by(campaigns.c.created_at.desc(), campaigns.c.id)
        )
        return [_campaign(row) for row in sql(tx).execute(query).mappings()]

    def retries_of(self, tx: Tx, account: AccountId, campaign: CampaignId) -> Sequence[Campaign]:
        query = select(*campaigns.c).where(campaigns.c.account == account, campaigns.c.main_campaign == campaign)
        return [_campaign(row) for row in sql(tx).execute(query.order_by(campaigns.c.created_at)).mappings()]

    # Approvals ------------------------------------------------------------------------------------------------------------

    def approval(self, tx: Tx, account: AccountId, campaign: CampaignId, thing: ThingName) -> ApprovalState | None:
        query = select(approvals.c.state).where(
            approvals.c.account == account, approvals.c.campaign == campaign, approvals.c.thing == thing
        )
        found = sql(tx).execute(query).scalar()
        return None if found is None else ApprovalState(found)

    def put_approval(
        self, tx: Tx, account: AccountId, campaign: CampaignId, thing: ThingName, state: ApprovalState, *, now: Instant
    ) -> None:
        mine = (approvals.c.account == account, approvals.c.campaign == campaign, approvals.c.thing == thing)
        sql(tx).execute(delete(approvals).where(*mine))
        sql(tx).execute(insert(approvals).values(account=account, campaign=campaign, thing=thing, state=state.value, at=now))

    def count_approvals(self, tx: Tx, account: AccountId, campaign: CampaignId) -> Mapping[ApprovalState, int]:
        query = (
            select(approvals.c.state, func.count())
            .where(approvals.c.account == account, approvals.c.campaign == campaign)
            .group_by(approvals.c.state)
        )
        return {ApprovalState(state): int(count) for state, count in sql(tx).execute(query)}

    # Automatic updates ----------------------------------------------------------------------------------------------------

    def put_auto_update(self, tx: Tx, account: AccountId, auto: AutoUpdate) -> None:
        self.drop_auto_update(tx, account, auto.thing, auto.serial, auto.target_name)
        sql(tx).execute(
            insert(auto_updates).values(
                account=account,
                thing=auto.thing,
                serial=auto.serial,
                target_name=auto.target_name,
                created_at=auto.created_at,
                last_file=auto.last_file,
            )
        )

    def drop_auto_update(
        self, tx: Tx, account: AccountId, thing: ThingName, serial: EcuSerial, target_name: str | None
    ) -> None:
        """One, or with None all of an ECU."""
        statement = delete(auto_updates).where(
            auto_updates.c.account == account, auto_updates.c.thing == thing, auto_updates.c.serial == serial
        )
        if target_name is not None:
            statement = statement.where(auto_updates.c.target_name == target_name)
        sql(tx).execute(statement)

    def auto_updates_of(self, tx: Tx, account: AccountId, thing: ThingName, serial: EcuSerial) -> Sequence[AutoUpdate]:
        query = select(*auto_updates.c).where(
            auto_updates.c.account == account, auto_updates.c.thing == thing, auto_updates.c.serial == serial
        )
        return [_auto_update(row) for row in sql(tx).execute(query.order_by(auto_updates.c.target_name)).mappings()]

    def auto_updates(self, tx: Tx, account: AccountId) -> Sequence[AutoUpdate]:
        """All of an account."""
        query = select(*auto_updates.c).where(auto_updates.c.account == account)
        query = query.order_by(auto_updates.c.thing, auto_updates.c.serial, auto_updates.c.target_name)
        return [_auto_update(row) for row in sql(tx).execute(query).mappings()]

    def accounts_with_auto_updates(self, tx: Tx) -> Sequence[AccountId]:
        return [AccountId(account) for account in sql(tx).execute(select(auto_updates.c.account).distinct()).scalars()]

    def forget(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """The thing is gone."""
        for table in (auto_updates, approvals):
            sql(tx).execute(delete(table).where(table.c.account == account, table.c.thing == thing))


def _values(campaign: Campaign) -> dict[str, Any]:
    return {
        "name": campaign.name,
        "update_id": campaign.update,
        "groups": text(campaign.groups),
        "metadata": text({kind.value: value for kind, value in campaign.metadata.items()}),
        "approval_needed": campaign.approval_needed,
        "created_at": campaign.created_at,
        "updated_at": campaign.updated_at,
        "job": campaign.job,
        "main_campaign": campaign.main_campaign,
        "failure_code": campaign.failure_code,
        "cancelled_at": campaign.cancelled_at,
    }


def _campaign(row: Mapping[Any, Any]) -> Campaign:
    return Campaign(
        id=CampaignId(row["id"]),
        name=row["name"],
        update=MultiTargetUpdateId(row["update_id"]),
        groups=tuple(GroupName(name) for name in msgspec.json.decode(row["groups"], type=list[str])),
        metadata={MetadataType(kind): value for kind, value in strings(row["metadata"]).items()},
        approval_needed=row["approval_needed"],
        created_at=Instant(row["created_at"]),
        updated_at=Instant(row["updated_at"]),
        job=None if row["job"] is None else JobId(row["job"]),
        main_campaign=None if row["main_campaign"] is None else CampaignId(row["main_campaign"]),
        failure_code=row["failure_code"],
        cancelled_at=instant(row["cancelled_at"]),
    )


def _auto_update(row: Mapping[Any, Any]) -> AutoUpdate:
    return AutoUpdate(
        thing=ThingName(row["thing"]),
        serial=EcuSerial(row["serial"]),
        target_name=row["target_name"],
        created_at=Instant(row["created_at"]),
        last_file=row["last_file"],
    )
