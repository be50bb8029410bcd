"""Rows of levels."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, insert, select

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.provisioning.model import DestroyedKey, SharedProvisioning
from overair.server.provisioning.store.tables import destroyed_provisioning_keys, shared_provisioning
from overair.server.storage.work import sql


class SqlLevelRows:
    """``ports.LevelStore``."""

    def find_shared_provisioning(self, tx: Tx, account: AccountId) -> SharedProvisioning | None:
        table = shared_provisioning
        row = sql(tx).execute(select(*table.c).where(table.c.account == account)).one_or_none()
        if row is None:
            return None
        return SharedProvisioning(
            account=AccountId(row.account),
            is_on=row.is_on,
            changed_at=None if row.changed_at is None else Instant(row.changed_at),
            changed_by=row.changed_by,
        )

    def put_shared_provisioning(self, tx: Tx, state: SharedProvisioning) -> None:
        table = shared_provisioning
        sql(tx).execute(delete(table).where(table.c.account == state.account))
        sql(tx).execute(
            insert(table).values(
                account=state.account, is_on=state.is_on, changed_at=state.changed_at, changed_by=state.changed_by
            )
        )

    def add_destroyed_key(self, tx: Tx, key: DestroyedKey) -> None:
        sql(tx).execute(
            insert(destroyed_provisioning_keys).values(
                account=key.account,
                key_id=key.key_id,
                purpose=key.purpose,
                created_at=key.created_at,
                destroyed_at=key.destroyed_at,
            )
        )

    def destroyed_keys(self, tx: Tx, account: AccountId) -> Sequence[DestroyedKey]:
        table = destroyed_provisioning_keys
        rows = sql(tx).execute(
            select(*table.c).where(table.c.account == account).order_by(table.c.destroyed_at.desc(), table.c.key_id)
        )
        return [
            DestroyedKey(
                account=AccountId(row.account),
                key_id=row.key_id,
                purpose=row.purpose,
                created_at=Instant(row.created_at),
                destroyed_at=Instant(row.destroyed_at),
            )
            for row in rows
        ]
