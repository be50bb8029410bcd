"""Queries that share a reader's transaction: each gets its own answer, and sees at least what stood when it was asked."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sqlalchemy import Column, String, Table, insert, select, text

from overair.basics.errors import NotFound, OverairError, Unavailable
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.storage.readers import GROUP_QUERIES_MAX
from overair.server.storage.schema import account_column, metadata
from overair.server.storage.work import READERS_DEFAULT, SqlWork, sql

ACCOUNT = AccountId("123456789012")
marks = Table("test_marks", metadata, account_column(), Column("name", String(64), primary_key=True))


def mark(tx: Tx, name: str) -> None:
    sql(tx).execute(insert(marks).values(account=ACCOUNT, name=name))


def names(tx: Tx) -> list[str]:
    return list(sql(tx).execute(select(marks.c.name).order_by(marks.c.name)).scalars())


def missing(_tx: Tx) -> list[str]:
    raise NotFound("no such thing")


def broken(tx: Tx) -> list[str]:
    return list(sql(tx).execute(text("SELECT nothing FROM nowhere")).scalars())


async def test_each_query_of_a_group_gets_its_own_answer_also_beside_failing_ones(work: SqlWork) -> None:
    await work.run(lambda tx: mark(tx, "a"))
    kinds = [names, missing, names, broken] * (2 * GROUP_QUERIES_MAX)

    answers = await asyncio.gather(*(work.read(kind) for kind in kinds), return_exceptions=True)

    for kind, answer in zip(kinds, answers, strict=True):
        if kind is names:
            assert answer == ["a"]
        elif kind is missing:
            assert isinstance(answer, NotFound)
        else:
            assert isinstance(answer, Exception)
            assert not isinstance(answer, NotFound)


async def test_a_query_sees_what_was_committed_before_it_was_asked(work: SqlWork) -> None:
    async def write_then_read(number: int) -> bool:
        name = f"m{number:03}"
        await work.run(lambda tx: mark(tx, name))
        return name in await work.read(names)

    assert all(await asyncio.gather(*(write_then_read(number) for number in range(60))))


async def test_a_query_that_its_asker_has_given_up_is_skipped_and_the_next_is_answered(work: SqlWork) -> None:
    gate = threading.Event()
    holding = [asyncio.ensure_future(work.read(lambda _tx: gate.wait(10))) for _ in range(READERS_DEFAULT)]
    ran: list[str] = []
    given_up = asyncio.ensure_future(work.read(lambda _tx: ran.append("given up")))
    await asyncio.sleep(0)
    given_up.cancel()
    after = asyncio.ensure_future(work.read(names))
    await asyncio.sleep(0)
    gate.set()

    assert await after == []
    assert all(await asyncio.gather(*holding))
    assert ran == []


async def test_closing_answers_what_was_asked_and_refuses_what_comes_later(work: SqlWork) -> None:
    asked = [asyncio.ensure_future(work.read(names)) for _ in range(40)]
    await asyncio.sleep(0)

    await asyncio.to_thread(work.close)

    assert await asyncio.gather(*asked) == [[]] * 40
    with pytest.raises(Unavailable) as refused:
        await work.read(names)
    assert isinstance(refused.value, OverairError)
