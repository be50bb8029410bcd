"""Rows of the revocation lists of fleets' own authorities."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import delete, insert, select

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.provisioning.model import AuthorityId, StandingList
from overair.server.provisioning.store.tables import fleet_revocation_lists, fleet_revoked_serials
from overair.server.storage.work import sql


class SqlRevocationRows:
    """``ports.RevocationStore``."""

    def find_list(self, tx: Tx, account: AccountId, issuer: AuthorityId) -> StandingList | None:
        table = fleet_revocation_lists
        found = select(*table.c).where(table.c.account == account, table.c.issuer == issuer)
        row = sql(tx).execute(found).one_or_none()
        return None if row is None else _list(row)

    def put_list(self, tx: Tx, standing: StandingList, serial_numbers: Collection[int]) -> None:
        for table in (fleet_revocation_lists, fleet_revoked_serials):
            sql(tx).execute(delete(table).where(table.c.account == standing.account, table.c.issuer == standing.issuer))
        sql(tx).execute(
            insert(fleet_revocation_lists).values(
                account=standing.account,
                issuer=standing.issuer,
                authority=standing.authority,
                issuer_pem=standing.issuer_pem,
                number=f"{standing.number:x}",
                this_update=standing.this_update,
                next_update=standing.next_update,
                entries=standing.entries,
                sha256=standing.sha256,
                refuse_when_stale=standing.refuse_when_stale,
                put_at=standing.put_at,
                put_by=standing.put_by,
            )
        )
        if serial_numbers:
            rows = [
                {"account": standing.account, "issuer": standing.issuer, "serial_number": f"{each:x}"}
                for each in sorted(serial_numbers)
            ]
            sql(tx).execute(insert(fleet_revoked_serials), rows)

    def lists(self, tx: Tx, account: AccountId, authority: AuthorityId | None) -> Sequence[StandingList]:
        table = fleet_revocation_lists
        found = select(*table.c).where(table.c.account == account)
        if authority is not None:
            found = found.where(table.c.authority == authority)
        return [_list(row) for row in sql(tx).execute(found.order_by(table.c.issuer))]

    def is_listed(self, tx: Tx, account: AccountId, issuer: AuthorityId, serial_number: int) -> bool:
        table = fleet_revoked_serials
        found = select(table.c.issuer).where(
            table.c.account == account, table.c.issuer == issuer, table.c.serial_number == f"{serial_number:x}"
        )
        return sql(tx).execute(found).first() is not None


def _list(row: Any) -> StandingList:
    return StandingList(
        account=AccountId(row.account),
        issuer=AuthorityId(row.issuer),
        authority=AuthorityId(row.authority),
        issuer_pem=row.issuer_pem,
        number=int(row.number, 16),
        this_update=Instant(row.this_update),
        next_update=Instant(row.next_update),
        entries=row.entries,
        sha256=row.sha256,
        refuse_when_stale=row.refuse_when_stale,
        put_at=Instant(row.put_at),
        put_by=row.put_by,
    )
