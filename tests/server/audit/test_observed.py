"""Reads, denials and uses of keys are written in batches; what doesn't fit is counted, and the count is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import Unavailable
from overair.basics.ids import AccountId, SeededIds
from overair.basics.work import Tx
from overair.server.audit.floods import PEER_ROWS_MAX, ROWS_MAX, WINDOW_MS
from overair.server.audit.model import AuditKind, AuditRecord
from overair.server.audit.observed import BATCH_MAX, GATHERED_MAX, KEPT_MAX, STRANGER, AuditWriter, Observed
from overair.server.audit.store import SqlAuditStore
from overair.server.aws_protocol.authentication import CurrentOperation
from overair.server.aws_protocol.operations import Caller
from overair.server.storage.work import SqlWork

T = TypeVar("T")
STORE = SqlAuditStore()
HOME = AccountId("123456789012")


@pytest.fixture
def observed(clock: SettableClock, ids: SeededIds) -> Observed:
    return Observed(home=HOME, clock=clock, ids=ids, kept_max=3)


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


def reads(observed: Observed, caller: Caller, resource: str, **more: Any) -> None:
    observed.read(CurrentOperation(caller=caller, service="iot", operation="DescribeThing", resource=resource, **more))


def written(work: SqlWork) -> list[AuditRecord]:
    return work.read_blocking(lambda tx: STORE.in_chain_order(tx, HOME, after=None, limit=10_000))


def write(work: Any, observed: Observed) -> None:
    asyncio.run(AuditWriter(work=work, observed=observed, store=STORE).finish())


def test_what_is_read_again_within_a_batch_is_one_row_with_a_count(work: SqlWork, observed: Observed, caller: Caller) -> None:
    for _ in range(5):
        reads(observed, caller, "thing/a")
    reads(observed, caller, "thing/b")
    write(work, observed)
    assert [(each.kind, each.resource, each.times) for each in written(work)] == [
        (AuditKind.READ, "thing/a", 5),
        (AuditKind.READ, "thing/b", 1),
    ]
    assert written(work)[0].principal_arn == caller.principal_arn
    write(work, observed)
    assert len(written(work)) == 2


def test_an_operation_that_changed_something_is_no_read(work: SqlWork, observed: Observed, caller: Caller) -> None:
    reads(observed, caller, "thing/a", changes=["its-row"])
    write(work, observed)
    assert written(work) == []


def test_who_is_denied_is_named_and_a_stranger_is_one(work: SqlWork, observed: Observed, caller: Caller) -> None:
    observed.denied(caller, service="iot", operation="DeleteThing", path=b"/things/a", request_id="r", source_ip="192.0.2.7")
    for number in range(4):
        path = b"/things/%d" % number
        observed.denied(None, service="iot", operation="-", path=path, request_id="r", source_ip="198.51.100.1")
    write(work, observed)
    known, stranger = written(work)
    assert (known.kind, known.principal_arn, known.resource) == (AuditKind.DENIAL, caller.principal_arn, "/things/a")
    assert (stranger.principal_arn, stranger.source_ip, stranger.times) == (STRANGER, "198.51.100.1", 4)


def test_what_is_too_much_is_counted_and_the_count_has_a_row(work: SqlWork, observed: Observed, caller: Caller) -> None:
    for number in range(10):
        reads(observed, caller, f"thing/{number}")
    write(work, observed)
    rows = written(work)
    assert [each.kind for each in rows] == [AuditKind.READ] * 3 + [AuditKind.LOST]
    assert rows[-1].times == 7
    reads(observed, caller, "thing/again")
    write(work, observed)
    assert written(work)[-1].resource == "thing/again"


def test_more_than_a_batch_is_written_batch_by_batch(work: SqlWork, caller: Caller, clock: SettableClock) -> None:
    observed = Observed(home=HOME, clock=clock, ids=SeededIds(8))
    for number in range(BATCH_MAX + 1):
        reads(observed, caller, f"thing/{number}")
    writer = AuditWriter(work=work, observed=observed, store=STORE)
    assert asyncio.run(writer.run_once()) is True
    assert asyncio.run(writer.run_once()) is False
    assert len(written(work)) == BATCH_MAX + 1


def test_what_cant_be_written_now_waits_and_counts_on(work: SqlWork, observed: Observed, caller: Caller) -> None:
    class FullDisk:
        async def run(self, unit: Callable[[Tx], T]) -> T:
            reads(observed, caller, "thing/0")
            raise Unavailable("Full.", subject="storage")

    for number in range(5):
        reads(observed, caller, f"thing/{number}")
    with pytest.raises(Unavailable):
        write(FullDisk(), observed)
    write(work, observed)
    rows = written(work)
    assert {each.resource: each.times for each in rows if each.kind != AuditKind.LOST} == {
        "thing/0": 2,
        "thing/1": 1,
        "thing/2": 1,
    }
    assert [each.times for each in rows if each.kind == AuditKind.LOST] == [2]


def test_whoever_waits_for_something_to_write_hears_of_the_first(observed: Observed, caller: Caller) -> None:
    heard: list[bool] = []
    observed.watched_by(lambda: heard.append(True))
    reads(observed, caller, "thing/a")
    reads(observed, caller, "thing/b")
    observed.key_used(HOME, "k", "device-ca")
    assert heard == [True]


# Devices and strangers: many, and without end ---------------------------------------------------------------------------


DEVICE = "arn:aws:iot:us-east-1:123456789012:cert/c1"


def denied(observed: Observed, topic: str, *, principal: str | None = DEVICE, source_ip: str = "192.0.2.9") -> None:
    account = None if principal is None else HOME
    observed.device_denied(account, principal, service="mqtt", operation="Publish", resource=topic, source_ip=source_ip)


@pytest.fixture
def roomy(clock: SettableClock) -> Observed:
    return Observed(home=HOME, clock=clock, ids=SeededIds(8))


def turn(work: SqlWork, observed: Observed) -> None:
    """The worker's turn: what is due, and no more."""
    writer = AuditWriter(work=work, observed=observed, store=STORE)
    while asyncio.run(writer.run_once()):
        pass


def test_a_device_that_is_denied_in_a_loop_leaves_a_few_rows_with_a_count(
    work: SqlWork, roomy: Observed, clock: SettableClock
) -> None:
    for second in range(10):
        for number in range(10_000):
            denied(roomy, f"topic/{second * 10_000 + number}")
        turn(work, roomy)
        clock.advance(milliseconds=1000)
    clock.advance(milliseconds=WINDOW_MS)
    turn(work, roomy)
    rows = written(work)
    assert len(rows) == PEER_ROWS_MAX + 1
    assert sum(row.times for row in rows) == 10 * 10_000
    assert {row.principal_arn for row in rows} == {DEVICE}
    assert [row.resource for row in rows[:-1]] == [f"topic/{number}" for number in range(PEER_ROWS_MAX)]
    assert rows[-1].resource == "*"


def test_the_same_denial_without_end_keeps_its_name(work: SqlWork, roomy: Observed, clock: SettableClock) -> None:
    for _ in range(2 * PEER_ROWS_MAX):
        denied(roomy, "topic/always")
        turn(work, roomy)
    clock.advance(milliseconds=WINDOW_MS)
    turn(work, roomy)
    rows = written(work)
    assert {row.resource for row in rows} == {"topic/always"}
    assert [row.times for row in rows] == [1] * PEER_ROWS_MAX + [PEER_ROWS_MAX]


def test_a_flood_from_everywhere_grows_neither_memory_nor_records_without_bound(
    work: SqlWork, roomy: Observed, clock: SettableClock
) -> None:
    for number in range(20_000):
        denied(roomy, "topic/x", principal=None, source_ip=f"10.0.{number // 250}.{number % 250}")
        denied(roomy, "topic/x", principal=f"{DEVICE}-{number}")
    assert roomy.waiting == ROWS_MAX
    clock.advance(milliseconds=WINDOW_MS)
    assert roomy.waiting <= ROWS_MAX + GATHERED_MAX + 1
    turn(work, roomy)
    rows = written(work)
    assert len(rows) == ROWS_MAX + GATHERED_MAX + 1
    assert sum(row.times for row in rows) == 40_000
    assert [row.operation for row in rows if row.kind == AuditKind.LOST] == ["AuditOverflow"]


def test_a_flood_of_devices_keeps_no_operator_out(work: SqlWork, roomy: Observed, caller: Caller) -> None:
    for number in range(20_000):
        denied(roomy, "topic/x", principal=f"{DEVICE}-{number}")
    for number in range(KEPT_MAX - ROWS_MAX):
        reads(roomy, caller, f"thing/{number}")
    turn(work, roomy)
    assert sum(row.kind == AuditKind.READ for row in written(work)) == KEPT_MAX - ROWS_MAX


def test_a_stranger_is_told_by_his_address_alone(work: SqlWork, roomy: Observed) -> None:
    for number in range(100):
        denied(roomy, f"topic/{number}", principal=None)
    turn(work, roomy)
    (row,) = written(work)
    assert (row.principal_arn, row.source_ip, row.resource, row.times) == (STRANGER, "192.0.2.9", "*", 100)


def test_what_was_gathered_is_written_when_the_process_stops(work: SqlWork, roomy: Observed) -> None:
    for number in range(100):
        denied(roomy, f"topic/{number}")
    turn(work, roomy)
    assert len(written(work)) == PEER_ROWS_MAX
    write(work, roomy)
    assert [row.times for row in written(work)][-1] == 100 - PEER_ROWS_MAX


def test_a_download_of_many_ranges_is_a_few_rows(work: SqlWork, roomy: Observed, caller: Caller, clock: SettableClock) -> None:
    link = CurrentOperation(caller=caller, service="s3", operation="GetObject", resource="arn:aws:s3:::b/k")
    for _ in range(60):
        for _ in range(100):
            roomy.downloaded(link, denied=False)
        turn(work, roomy)
        clock.advance(milliseconds=1000)
    roomy.downloaded(link, denied=True)
    write(work, roomy)
    rows = written(work)
    assert len(rows) == PEER_ROWS_MAX + 2
    assert sum(row.times for row in rows if row.kind == AuditKind.READ) == 6000
    assert rows[-1].kind == AuditKind.DENIAL or rows[-2].kind == AuditKind.DENIAL
