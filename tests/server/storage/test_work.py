"""Units are atomic, in order, apart from each other; what was acknowledged stays."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Boolean, Column, Integer, LargeBinary, String, Table, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from overair.basics.errors import InvalidRequest, NotFound, Unavailable
from overair.basics.ids import AccountId
from overair.basics.work import Notice, Tx
from overair.server.storage.schema import account_column, metadata, outbox
from overair.server.storage.work import HotStatement, SqlWork, sql

ACCOUNT = AccountId("123456789012")

probes = Table(
    "test_probes",
    metadata,
    account_column(),
    Column("name", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("ready", Boolean, nullable=False),
    Column("content", LargeBinary, nullable=False),
)

add_probe = HotStatement(insert(probes))
raise_version = HotStatement(
    update(probes)
    .where(probes.c.account == bindparam("b_account"), probes.c.name == bindparam("b_name"))
    .where(probes.c.version == bindparam("b_expected"))
    .values(version=probes.c.version + 1)
)
find_probe = HotStatement(
    select(probes.c.version, probes.c.ready, probes.c.content).where(
        probes.c.account == bindparam("b_account"), probes.c.name == bindparam("b_name")
    )
)


def add(tx: Tx, name: str) -> None:
    add_probe.run(tx, account=ACCOUNT, name=name, version=1, ready=True, content=b"\x00\xff")


def names(tx: Tx) -> list[str]:
    return list(sql(tx).execute(select(probes.c.name).order_by(probes.c.name)).scalars())


async def test_a_unit_returns_its_result_and_is_there_for_readers(work: SqlWork) -> None:
    assert await work.run(lambda tx: (add(tx, "a"), 7)[1]) == 7
    assert await work.read(names) == ["a"]


async def test_a_unit_that_raises_leaves_nothing_behind_and_its_neighbours_stand(work: SqlWork) -> None:
    def fails(tx: Tx) -> None:
        add(tx, "half")
        tx.publish(Notice(account=ACCOUNT, topic="half", payload=b""))
        raise NotFound("no such thing")

    results = await asyncio.gather(
        *(work.run(lambda tx, n=n: add(tx, f"p{n}")) if n != 3 else work.run(fails) for n in range(6)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None)] * 3 + [NotFound] + [type(None)] * 2
    assert await work.read(names) == ["p0", "p1", "p2", "p4", "p5"]
    assert await work.read(lambda tx: sql(tx).execute(select(func.count()).select_from(outbox)).scalar()) == 0


async def test_units_run_in_the_order_they_were_asked(work: SqlWork) -> None:
    seen: list[int] = []
    await asyncio.gather(*(work.run(lambda tx, n=n: seen.append(n)) for n in range(600)))
    assert seen == list(range(600))


async def test_after_commit_actions_run_before_the_caller_is_told_and_not_for_a_failed_unit(work: SqlWork) -> None:
    heard: list[str] = []

    def succeeds(tx: Tx) -> None:
        tx.after_commit(lambda: heard.append("committed"))

    def fails(tx: Tx) -> None:
        tx.after_commit(lambda: heard.append("never"))
        raise NotFound("no")

    await work.run(succeeds)
    assert heard == ["committed"]
    with pytest.raises(NotFound):
        await work.run(fails)
    assert heard == ["committed"]


async def test_an_after_commit_action_that_fails_does_not_hide_the_commit(work: SqlWork) -> None:
    await work.run(lambda tx: (add(tx, "a"), tx.after_commit(lambda: 1 // 0)))
    assert await work.read(names) == ["a"]


async def test_a_broken_unique_constraint_runs_the_unit_again_once(work: SqlWork) -> None:
    await work.run(lambda tx: add(tx, "taken"))
    looks: list[int] = []

    def races(tx: Tx) -> str:
        looks.append(1)
        if len(looks) == 1:
            # What a look before another node's commit amounts to.
            add(tx, "taken")
        return "saw it"

    assert await work.run(races) == "saw it"
    assert len(looks) == 2

    with pytest.raises((IntegrityError, Exception), match=r"(?i)unique"):
        await work.run(lambda tx: add(tx, "taken"))
    assert await work.read(names) == ["taken"]


async def test_core_statements_break_constraints_in_the_same_way(work: SqlWork) -> None:
    values = {"account": ACCOUNT, "name": "a", "version": 1, "ready": False, "content": b""}
    await work.run(lambda tx: sql(tx).execute(insert(probes).values(**values)))
    with pytest.raises(IntegrityError):
        await work.run(lambda tx: sql(tx).execute(insert(probes).values(**values)))
    await work.run(lambda tx: add(tx, "b"))
    assert await work.read(names) == ["a", "b"]


async def test_a_reader_may_not_write(work: SqlWork) -> None:
    with pytest.raises(Exception, match=r"(?i)read-?only|readonly"):
        await work.read(lambda tx: add(tx, "a"))
    with pytest.raises(RuntimeError):
        await work.read(lambda tx: tx.publish(Notice(account=ACCOUNT, topic="t", payload=b"")))
    with pytest.raises(RuntimeError):
        await work.read(lambda tx: tx.after_commit(lambda: None))
    assert await work.read(names) == []


async def test_a_reader_sees_one_snapshot(work: SqlWork) -> None:
    loop = asyncio.get_running_loop()

    def looks_twice(tx: Tx) -> tuple[list[str], list[str]]:
        before = names(tx)
        asyncio.run_coroutine_threadsafe(work.run(lambda tx: add(tx, "late")), loop).result(10)
        return before, names(tx)

    assert await work.read(looks_twice) == ([], [])
    assert await work.read(names) == ["late"]


async def test_a_version_checked_update_has_one_winner(work: SqlWork) -> None:
    await work.run(lambda tx: add(tx, "a"))
    touched = await asyncio.gather(
        *(work.run(lambda tx: raise_version.run(tx, b_account=ACCOUNT, b_name="a", b_expected=1)) for _ in range(20))
    )
    assert sorted(touched) == [0] * 19 + [1]


async def test_a_hot_select_gives_the_column_types(work: SqlWork) -> None:
    await work.run(lambda tx: add(tx, "a"))
    row = await work.read(lambda tx: find_probe.first(tx, b_account=ACCOUNT, b_name="a"))
    assert row == (1, True, b"\x00\xff")
    assert isinstance(row[1], bool)
    assert await work.read(lambda tx: find_probe.all(tx, b_account=ACCOUNT, b_name="none")) == []


async def test_a_hot_statement_says_which_value_is_missing(work: SqlWork) -> None:
    with pytest.raises(RuntimeError, match="b_name"):
        await work.read(lambda tx: find_probe.first(tx, b_account=ACCOUNT))


async def test_a_hot_statement_holds_no_list_of_values(work: SqlWork) -> None:
    listed = HotStatement(select(probes.c.name).where(probes.c.name.in_(["a", "b"])))
    with pytest.raises(RuntimeError, match="list of values"):
        await work.read(listed.all)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["add", "raise version", "fail after adding", "add twice"])),
        max_size=30,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mix_of_units_leaves_what_they_would_leave_one_by_one(work: SqlWork, steps: list[tuple[str, str]]) -> None:
    def unit(name: str, what: str, tx: Tx) -> None:
        if what == "raise version":
            row = find_probe.first(tx, b_account=ACCOUNT, b_name=name)
            if row is None or not raise_version.run(tx, b_account=ACCOUNT, b_name=name, b_expected=row[0]):
                raise NotFound("nothing to raise")
            return
        add(tx, name)
        if what == "add twice":
            add(tx, name)
        if what == "fail after adding":
            raise NotFound("changed its mind")

    expected: dict[str, int] = {}
    outcomes: list[bool] = []
    for name, what in steps:
        taken = name in expected
        outcomes.append(taken if what == "raise version" else not taken and what == "add")
        if outcomes[-1]:
            expected[name] = expected.get(name, 0) + 1

    async def together() -> list[object]:
        units = (work.run(partial(unit, name, what)) for name, what in steps)
        return await asyncio.gather(*units, return_exceptions=True)

    work.run_blocking(lambda tx: sql(tx).execute(delete(probes)) and None)
    results = asyncio.run(together())
    assert [result is None for result in results] == outcomes
    rows = work.read_blocking(lambda tx: sql(tx).execute(select(probes.c.name, probes.c.version)).all())
    assert {row.name: row.version for row in rows} == expected


async def test_a_coroutine_is_no_unit_of_work(work: SqlWork) -> None:
    async def waits(tx: Tx) -> None: ...

    with pytest.raises(RuntimeError, match="plain function"):
        await work.run(waits)
    with pytest.raises(RuntimeError, match="plain function"):
        await work.read(waits)


async def test_a_cancelled_caller_does_not_stop_the_writer(work: SqlWork) -> None:
    task = asyncio.create_task(work.run(lambda tx: add(tx, "maybe")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await work.run(lambda tx: add(tx, "sure"))
    assert "sure" in await work.read(names)


@pytest.mark.parametrize("name", ["a\ud800", pytest.param("a\x00", id="nul")])
async def test_text_that_no_column_takes_is_the_askers_fault(work: SqlWork, name: str) -> None:
    if name == "a\x00" and work.engine.dialect.name == "sqlite":
        # SQLite keeps it; the doors refuse it where a name is meant.
        await work.run(lambda tx: add(tx, name))
        return
    with pytest.raises(InvalidRequest, match="can't be kept"):
        await work.run(lambda tx: add(tx, name))
    with pytest.raises(InvalidRequest, match="can't be kept"):
        await work.read(lambda tx: find_probe.first(tx, b_account=ACCOUNT, b_name=name))
    with pytest.raises(InvalidRequest, match="can't be kept"):
        await work.run(lambda tx: raise_version.run(tx, b_account=ACCOUNT, b_name="a", b_expected=1 << 70))
    assert await work.read(names) == []


def test_blocking_callers_get_the_same(work: SqlWork) -> None:
    heard: list[Any] = []
    work.run_blocking(lambda tx: (add(tx, "a"), tx.after_commit(lambda: heard.append(1))))
    assert heard == [1]
    assert work.read_blocking(names) == ["a"]
    with pytest.raises(NotFound):
        work.run_blocking(lambda tx: (_ for _ in ()).throw(NotFound("no")))


async def test_close_ends_what_was_asked_and_refuses_the_rest(work: SqlWork) -> None:
    asked = [asyncio.ensure_future(work.run(lambda tx, n=n: add(tx, f"p{n:03}"))) for n in range(300)]
    await asyncio.sleep(0)
    await asyncio.to_thread(work.close)
    await asyncio.gather(*asked)
    with pytest.raises(Unavailable):
        await work.run(lambda tx: None)
    with pytest.raises(Unavailable):
        await work.read(names)
