"""Nodes join, are missed when they are gone, and share one life of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest

from overair.basics.clock import SettableClock
from overair.basics.ids import AccountId, SeededIds
from overair.basics.work import News, Notice
from overair.server.nodes.model import Role
from overair.server.nodes.postgresql_bus import PostgresqlBus
from overair.server.nodes.service import (
    UNHEARD_INTERVAL_MS,
    Membership,
    NodeWatch,
    SharedOutbox,
    UnheardOutbox,
    lock_key_of,
    new_name,
)
from overair.server.nodes.store import SqlNodeStore
from overair.server.nodes.switchboard import Switchboard
from overair.server.storage.work import SqlWork, open_postgresql
from tests.server.conftest import empty_postgresql

ACCOUNT = AccountId("123456789012")


@pytest.fixture
def work(postgresql_url: str, clock: SettableClock) -> Iterator[SqlWork]:
    work = open_postgresql(postgresql_url, clock=clock)
    empty_postgresql(work)
    yield work
    work.close()


@pytest.fixture
def join(
    work: SqlWork, postgresql_url: str, clock: SettableClock, ids: SeededIds
) -> Iterator[Callable[[Role], tuple[Membership, PostgresqlBus]]]:
    buses: list[PostgresqlBus] = []

    def new(role: Role) -> tuple[Membership, PostgresqlBus]:
        name = new_name(ids)
        bus = PostgresqlBus(postgresql_url, name=name, lock_key=lock_key_of(name))
        buses.append(bus)
        membership = Membership(store=SqlNodeStore(ACCOUNT), name=name, role=role, clock=clock)
        work.run_blocking(membership.join)
        return membership, bus

    yield new
    for bus in buses:
        bus.close()


def test_the_life_of_the_server_began_with_the_first_of_those_who_have_been_there_without_a_gap(
    join: Callable[[Role], tuple[Membership, PostgresqlBus]], clock: SettableClock
) -> None:
    began = clock.now()
    first, first_bus = join(Role.OPERATOR)
    clock.advance(milliseconds=1000)
    second, second_bus = join(Role.GATEWAY)
    assert (first.life_began, second.life_began) == (began, began)
    # Its first node may go: as long as one is there, it is the same life.
    first_bus.close()
    clock.advance(milliseconds=1000)
    third, third_bus = join(Role.WORKERS)
    assert third.life_began == began
    second_bus.close()
    third_bus.close()
    clock.advance(milliseconds=1000)
    fourth, _ = join(Role.OPERATOR)
    assert fourth.life_began == clock.now()


async def test_a_gateway_takes_over_from_one_that_is_gone_and_others_are_struck_off(
    join: Callable[[Role], tuple[Membership, PostgresqlBus]], work: SqlWork, clock: SettableClock
) -> None:
    gateway, _ = join(Role.GATEWAY)
    gone, gone_bus = join(Role.GATEWAY)
    workers, workers_bus = join(Role.WORKERS)
    taken: list[str] = []
    seen: list[list[str]] = []

    async def take_over(name: str) -> None:
        taken.append(name)
        assert await work.run(lambda tx: SqlNodeStore(ACCOUNT).strike_if_dead(tx, name))

    watch = NodeWatch(
        work=work,
        store=SqlNodeStore(ACCOUNT),
        membership=gateway,
        connected=lambda: 3,
        take_over=take_over,
        seen=lambda names: seen.append(sorted(names)),
        clock=clock,
    )
    await watch.run_once()
    assert (taken, seen[-1]) == ([], sorted([gone.me.name, workers.me.name]))
    await asyncio.to_thread(gone_bus.close)
    await asyncio.to_thread(workers_bus.close)
    clock.advance(milliseconds=1000)
    await watch.run_once()
    assert (taken, seen[-1]) == ([gone.me.name], [])
    [left] = work.read_blocking(SqlNodeStore(ACCOUNT).all)
    assert (left.name, left.connected) == (gateway.me.name, 3)


def test_who_was_taken_for_dead_joins_again(join: Callable[[Role], tuple[Membership, PostgresqlBus]], work: SqlWork) -> None:
    gateway, _ = join(Role.GATEWAY)
    assert work.run_blocking(gateway.rejoin) is False
    work.run_blocking(lambda tx: SqlNodeStore(ACCOUNT).remove(tx, gateway.me.name))
    assert work.run_blocking(gateway.rejoin) is True
    assert [node.name for node in work.read_blocking(SqlNodeStore(ACCOUNT).all)] == [gateway.me.name]


async def test_a_notice_goes_once_every_gateway_has_handed_it_on_and_one_that_fails_keeps_its_place(
    join: Callable[[Role], tuple[Membership, PostgresqlBus]], work: SqlWork
) -> None:
    store = SqlNodeStore(ACCOUNT)
    heard: dict[str, list[str]] = {"first": [], "second": []}
    broken: list[str] = []

    def outbox(name: str) -> SharedOutbox:
        membership, _ = join(Role.GATEWAY)

        async def deliver(notice: Notice, number: int) -> None:
            if notice.topic in broken:
                raise RuntimeError("nothing can be delivered")
            heard[name].append(notice.topic)

        return SharedOutbox(work=work, store=store, membership=membership, deliver=deliver, alone=nullcontext)

    first, second = outbox("first"), outbox("second")
    for topic in ("a", "b", "c"):
        await work.run(lambda tx, topic=topic: tx.publish(Notice(account=ACCOUNT, topic=topic, payload=b"")))  # type: ignore[misc]
    broken.append("b")
    with pytest.raises(RuntimeError):
        await first.run_once()
    broken.clear()
    assert await second.run_once()
    assert await first.run_once()
    assert heard == {"first": ["a", "b", "c"], "second": ["a", "b", "c"]}
    assert work.read_blocking(lambda tx: store.notices(tx, after=0, limit=10)) == []
    assert not await first.run_once()


async def test_while_no_gateway_lives_notices_wait_no_longer_than_a_session_and_in_bounded_number(
    join: Callable[[Role], tuple[Membership, PostgresqlBus]], work: SqlWork, clock: SettableClock
) -> None:
    workers, _ = join(Role.WORKERS)
    gateway, gateway_bus = join(Role.GATEWAY)
    store = SqlNodeStore(ACCOUNT)
    unheard = UnheardOutbox(work=work, store=store, membership=workers, session_expiry_ms=100_000, clock=clock, unheard_max=3)

    async def announce(*topics: str) -> None:
        for topic in topics:
            await work.run(lambda tx, topic=topic: tx.publish(Notice(account=ACCOUNT, topic=topic, payload=b"")))  # type: ignore[misc]

    async def waiting() -> list[str]:
        clock.advance(milliseconds=UNHEARD_INTERVAL_MS)
        assert await unheard.run_once() is False
        assert await unheard.run_once() is False
        return [notice.topic for _, notice in work.read_blocking(lambda tx: store.notices(tx, after=0, limit=100))]

    await announce("a", "b", "c", "d", "e")
    assert await waiting() == ["a", "b", "c", "d", "e"], "a gateway is there, and hears them when it comes to it"
    await asyncio.to_thread(gateway_bus.close)
    assert await waiting() == ["c", "d", "e"]
    clock.advance(milliseconds=100_000)
    await announce("f")
    assert await waiting() == ["f"]
    # A gateway that takes over from the dead one finds what is left.
    join(Role.GATEWAY)
    assert work.read_blocking(lambda tx: store.heard_to(tx, gateway.me.name)) == 0
    assert await waiting() == ["f"]


def test_the_switchboard_tells_others_news_and_everything_that_may_be_old() -> None:
    board = Switchboard("me")
    heard: list[object] = []
    echoed: list[object] = []
    board.on("grants", lambda parts: heard.append(tuple(parts)))
    board.on("broken", lambda parts: 1 / 0)  # type: ignore[arg-type, return-value]
    board.on_every("client-connected", lambda teller, parts: echoed.append((teller, tuple(parts))))
    board.hear("me", News("grants", ("mine",)))
    board.hear("other", News("grants", ("theirs",)))
    board.hear("other", News("broken"))
    board.hear("other", News("of a newer version"))
    for teller in ("me", "other"):
        board.hear(teller, News("client-connected", ("x",)))
    board.missed()
    assert heard == [("theirs",), ()]
    assert echoed == [("me", ("x",)), ("other", ("x",))]
    with pytest.raises(RuntimeError, match="Two listen"):
        board.on("grants", lambda parts: None)
