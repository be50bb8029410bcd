"""Each change leaves its record, in one transaction with it; reading and failing leave none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import select

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock
from overair.basics.errors import Conflict
from overair.basics.ids import AccountId, SeededIds
from overair.basics.work import Tx
from overair.server.access.model import User
from overair.server.access.store import SqlIdentityStore, users
from overair.server.audit.model import AuditRecord
from overair.server.audit.service import AuditedWork, AuditService
from overair.server.audit.store import SqlAuditStore
from overair.server.aws_protocol.authentication import CurrentOperation, current_operation
from overair.server.aws_protocol.operations import Caller
from overair.server.storage.work import SqlWork, sql

AUDIT = AuditService(SqlAuditStore())


@pytest.fixture
def caller(place: Place, clock: SettableClock) -> Caller:
    return Caller(
        place=place,
        principal_arn="arn:aws:iam::123456789012:user/ann",
        user_id="AIDA1",
        access_key_id="AKIA1",
        now=clock.now(),
        source_ip="192.0.2.7",
        request_id="r-1",
    )


@contextmanager
def inside(caller: Caller, operation: str, resource: str) -> Iterator[None]:
    token = current_operation.set(CurrentOperation(caller=caller, service="iot", operation=operation, resource=resource))
    try:
        yield
    finally:
        current_operation.reset(token)


def add_mark(tx: Tx, account: AccountId) -> str:
    user = User(account=account, name="ann", path="/", user_id="AIDA1", created=Instant(0))
    SqlIdentityStore().add_user(tx, user)
    return "done"


def rows(work: SqlWork, account: AccountId) -> list[AuditRecord]:
    return list(work.read_blocking(lambda tx: AUDIT.newest(tx, account)))


def test_a_change_in_a_request_leaves_one_record_with_it(
    work: SqlWork, clock: SettableClock, ids: SeededIds, caller: Caller
) -> None:
    audited = AuditedWork(work, SqlAuditStore(), clock=clock, ids=ids)

    async def request() -> str:
        with inside(caller, "CreateThing", "arn:aws:iot:us-east-1:123456789012:thing/t"):
            await audited.read(lambda tx: sql(tx).execute(select(users)).all())
            return await audited.run(lambda tx: add_mark(tx, caller.account))

    assert asyncio.run(request()) == "done"
    (record,) = rows(work, caller.account)
    assert record == AuditRecord(
        account=caller.account,
        at=clock.now(),
        record_id=record.record_id,
        sequence=1,
        chain_hash=record.chain_hash,
        principal_arn="arn:aws:iam::123456789012:user/ann",
        access_key_id="AKIA1",
        service="iot",
        operation="CreateThing",
        resource="arn:aws:iot:us-east-1:123456789012:thing/t",
        request_id="r-1",
        source_ip="192.0.2.7",
    )


def test_a_change_that_fails_leaves_no_record(work: SqlWork, clock: SettableClock, ids: SeededIds, caller: Caller) -> None:
    audited = AuditedWork(work, SqlAuditStore(), clock=clock, ids=ids)

    def fails(tx: Tx) -> None:
        add_mark(tx, caller.account)
        raise Conflict("No.")

    async def request() -> None:
        with inside(caller, "CreateThing", "*"):
            await audited.run(fails)

    with pytest.raises(Conflict):
        asyncio.run(request())
    assert rows(work, caller.account) == []
    assert work.read_blocking(lambda tx: sql(tx).execute(select(users)).all()) == []


def test_what_workers_do_is_not_an_operators_deed(work: SqlWork, clock: SettableClock, ids: SeededIds, caller: Caller) -> None:
    audited = AuditedWork(work, SqlAuditStore(), clock=clock, ids=ids)
    asyncio.run(audited.run(lambda tx: add_mark(tx, caller.account)))
    assert rows(work, caller.account) == []


def test_records_come_newest_first_page_by_page_and_by_account(
    work: SqlWork, clock: SettableClock, ids: SeededIds, caller: Caller
) -> None:
    audited = AuditedWork(work, SqlAuditStore(), clock=clock, ids=ids)

    async def requests() -> None:
        for number in range(5):
            if number % 2:
                clock.advance(milliseconds=1)
            with inside(caller, f"Operation{number}", "*"):
                await audited.run(lambda tx: None)

    asyncio.run(requests())
    everything = rows(work, caller.account)
    assert [(r.at, r.record_id) for r in everything] == sorted(((r.at, r.record_id) for r in everything), reverse=True)
    assert {r.operation for r in everything} == {f"Operation{number}" for number in range(5)}
    seen: list[AuditRecord] = []
    before = None
    while page := work.read_blocking(lambda tx, before=before: AUDIT.newest(tx, caller.account, before=before, limit=2)):
        seen.extend(page)
        before = (page[-1].at, page[-1].record_id)
    assert seen == everything
    since = work.read_blocking(lambda tx: AUDIT.newest(tx, caller.account, since=clock.now()))
    assert [r for r in everything if r.at >= clock.now()] == list(since)
    assert rows(work, AccountId("210987654321")) == []
