"""Rows of renewals: each account's rule, and requests that an authority elsewhere answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, select

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId, ThingName
from overair.basics.work import Tx
from overair.server.provisioning.renewal_model import RenewalRequest, RenewalRequestState, RenewalRule
from overair.server.provisioning.store.tables import renewal_requests, renewal_rules
from overair.server.storage.work import sql


class SqlRenewalRows:
    """``ports.RenewalStore``."""

    def find_renewal_rule(self, tx: Tx, account: AccountId) -> RenewalRule | None:
        table = renewal_rules
        row = sql(tx).execute(select(*table.c).where(table.c.account == account)).one_or_none()
        if row is None:
            return None
        return RenewalRule(overlap_days=row.overlap_days, relay=row.relay, retry_after_s=row.retry_after_s)

    def put_renewal_rule(self, tx: Tx, account: AccountId, rule: RenewalRule) -> None:
        table = renewal_rules
        sql(tx).execute(delete(table).where(table.c.account == account))
        sql(tx).execute(
            insert(table).values(
                account=account, overlap_days=rule.overlap_days, relay=rule.relay, retry_after_s=rule.retry_after_s
            )
        )

    def find_request(self, tx: Tx, account: AccountId, thing: ThingName) -> RenewalRequest | None:
        table = renewal_requests
        row = sql(tx).execute(select(*table.c).where(table.c.account == account, table.c.thing == thing)).one_or_none()
        return None if row is None else _request(row)

    def put_request(self, tx: Tx, request: RenewalRequest) -> None:
        self.delete_request(tx, request.account, request.thing)
        sql(tx).execute(
            insert(renewal_requests).values(
                account=request.account,
                thing=request.thing,
                certificate_id=request.certificate_id,
                request_pem=request.request_pem,
                key_sha256=request.key_sha256,
                state=request.state.value,
                requested_at=request.requested_at,
                answered_at=request.answered_at,
                answered_by=request.answered_by,
                chain_pem=request.chain_pem,
                reason=request.reason,
            )
        )

    def delete_request(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        table = renewal_requests
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.thing == thing))

    def page_requests(
        self, tx: Tx, account: AccountId, *, state: RenewalRequestState | None, after: str | None, limit: int
    ) -> Sequence[RenewalRequest]:
        table = renewal_requests
        wanted = select(*table.c).where(table.c.account == account)
        if state is not None:
            wanted = wanted.where(table.c.state == state.value)
        if after is not None:
            wanted = wanted.where(table.c.thing > after)
        return [_request(row) for row in sql(tx).execute(wanted.order_by(table.c.thing).limit(limit))]


def _request(row: Any) -> RenewalRequest:
    return RenewalRequest(
        account=AccountId(row.account),
        thing=ThingName(row.thing),
        certificate_id=CertificateId(row.certificate_id),
        request_pem=row.request_pem,
        key_sha256=row.key_sha256,
        state=RenewalRequestState(row.state),
        requested_at=Instant(row.requested_at),
        answered_at=None if row.answered_at is None else Instant(row.answered_at),
        answered_by=row.answered_by,
        chain_pem=row.chain_pem,
        reason=row.reason,
    )
