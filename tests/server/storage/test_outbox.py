"""Notices are heard in order, at least once, and only after their commit."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sqlalchemy import delete, func, select

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Notice, NoticeToMany, Tx
from overair.server.storage.outbox import BATCH_NOTICES_MAX, OutboxRelay
from overair.server.storage.schema import outbox
from overair.server.storage.work import SqlWork, sql

ACCOUNT = AccountId("123456789012")


def notice(number: int) -> Notice:
    more = {"properties": b"\x02\x01\x00", "expires": Instant(number)} if number % 2 else {}
    return Notice(account=ACCOUNT, topic=f"t/{number}", payload=b"\x00%d" % number, qos=number % 2, **more)


async def left(work: SqlWork) -> int:
    count = await work.read(lambda tx: sql(tx).execute(select(func.count()).select_from(outbox)).scalar())
    assert count is not None
    return count


async def test_notices_are_heard_in_the_order_of_their_units(work: SqlWork) -> None:
    heard: list[Notice] = []

    async def deliver(one: Notice) -> None:
        heard.append(one)

    relay = OutboxRelay(work, deliver)
    assert await relay.run_once() is False
    count = BATCH_NOTICES_MAX + 20
    await asyncio.gather(*(work.run(lambda tx, n=n: tx.publish(notice(n))) for n in range(count)))
    while await relay.run_once():
        pass
    assert heard == [notice(n) for n in range(count)]
    assert await left(work) == 0


async def test_what_is_said_on_many_topics_is_heard_on_each_in_the_order_of_its_unit(work: SqlWork) -> None:
    topics = [f"many/{number}" for number in range(3)]
    said = NoticeToMany(account=ACCOUNT, topics=[*topics, 'quo"te/ü'], payload=b"\x00\xff alike")
    nobody = NoticeToMany(account=ACCOUNT, topics=[], payload=b"")

    def unit(tx: Tx) -> None:
        for each in (notice(1), said, nobody, notice(2)):
            tx.publish(each)

    await work.run(unit)
    heard: list[Notice] = []

    async def deliver(one: Notice) -> None:
        heard.append(one)

    await OutboxRelay(work, deliver).run_once()
    alike = [Notice(account=ACCOUNT, topic=topic, payload=b"\x00\xff alike") for topic in said.topics]
    assert heard == [notice(1), *alike, notice(2)]
    assert await left(work) == 0


async def test_a_listener_that_fails_hears_the_same_notice_again_and_none_after_it(work: SqlWork) -> None:
    await work.run(lambda tx: [tx.publish(notice(n)) for n in range(5)])
    heard: list[str] = []
    broken = True

    async def deliver(one: Notice) -> None:
        if broken and one.topic == "t/3":
            raise ConnectionError("nobody there")
        heard.append(one.topic)

    relay = OutboxRelay(work, deliver)
    with pytest.raises(ConnectionError):
        await relay.run_once()
    assert heard == ["t/0", "t/1", "t/2"]
    assert await left(work) == 2
    broken = False
    await relay.run_once()
    assert heard == ["t/0", "t/1", "t/2", "t/3", "t/4"]


async def test_what_appears_in_a_gap_meanwhile_is_not_forgotten(work: SqlWork) -> None:
    await work.run(lambda tx: [tx.publish(notice(n)) for n in range(3)])

    def gap(tx: Tx) -> int:
        second = sorted(sql(tx).execute(select(outbox.c.id)).scalars())[1]
        sql(tx).execute(delete(outbox).where(outbox.c.id == second))
        return second

    second = await work.run(gap)

    async def deliver(one: Notice) -> None:
        if one.topic == "t/0":
            values = {"id": second, "account": ACCOUNT, "topic": "late", "payload": b"", "qos": 1, "created": 1}
            await work.run(lambda tx: sql(tx).execute(outbox.insert().values(**values)) and None)

    await OutboxRelay(work, deliver).run_once()
    assert await left(work) == 1


async def test_the_relay_is_woken_after_a_commit_with_notices_and_by_no_other(work: SqlWork) -> None:
    woken = threading.Semaphore(0)
    work.on_commit_with_outbox(woken.release)
    await work.run(lambda tx: None)
    assert not woken.acquire(blocking=False)
    await work.run(lambda tx: tx.publish(notice(1)))
    assert woken.acquire(timeout=60)
