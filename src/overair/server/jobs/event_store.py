"""The SQL of what an account wants to hear of its jobs."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, insert, select, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.jobs.model import EventConfiguration, EventKind
from overair.server.jobs.tables import job_event_configurations as configurations
from overair.server.storage.work import HotStatement, sql

_of_account: Final = HotStatement(
    select(
        configurations.c.kind, configurations.c.enabled, configurations.c.created_at, configurations.c.last_updated_at
    ).where(configurations.c.account == bindparam("b_account"))
)


class SqlEventConfigurations:
    """``ports.EventConfigurations`` over SQL."""

    def all(self, tx: Tx, account: AccountId) -> dict[EventKind, EventConfiguration]:
        """What was ever set; absent means that it is off."""
        return {
            EventKind(kind): EventConfiguration(
                enabled=enabled, created_at=Instant(created_at), last_updated_at=Instant(last_updated_at)
            )
            for kind, enabled, created_at, last_updated_at in _of_account.all(tx, b_account=account)
        }

    def set(self, tx: Tx, account: AccountId, kind: EventKind, *, enabled: bool, now: Instant) -> None:
        changed = (
            update(configurations)
            .where(configurations.c.account == account, configurations.c.kind == kind.value)
            .values(enabled=enabled, last_updated_at=now)
        )
        if sql(tx).execute(changed).rowcount == 0:
            row = {"account": account, "kind": kind.value, "enabled": enabled, "created_at": now, "last_updated_at": now}
            sql(tx).execute(insert(configurations).values(row))
