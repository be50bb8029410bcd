"""The bus hears what was committed, in the order of commits, whatever its size, and says when it may have missed something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from sqlalchemy import text

from overair.basics.clock import SettableClock
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId
from overair.basics.work import News, Notice, Tx
from overair.server.nodes.postgresql_bus import PostgresqlBus
from overair.server.storage.schema import metadata
from overair.server.storage.work import SqlWork, open_postgresql

PATIENCE_S = 20


@dataclass
class Node:
    """A process's writer and its bus."""

    work: SqlWork
    bus: PostgresqlBus
    heard: list[tuple[str, News]] = field(default_factory=list)
    missed: int = 0

    def listen(self) -> None:
        self.work.announce_through(self.bus.announce)
        self.bus.listen(lambda teller, news: self.heard.append((teller, news)), self._missed)

    def _missed(self) -> None:
        self.missed += 1

    async def until(self, count: int) -> list[tuple[str, News]]:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.heard) < count:
                await asyncio.sleep(0.01)
        return self.heard

    async def until_missed(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.missed < count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def nodes(postgresql_url: str, clock: SettableClock) -> AsyncIterator[tuple[Node, Node]]:
    made = []
    for number, name in enumerate(("one", "two")):
        bus = PostgresqlBus(postgresql_url, name=name, lock_key=9_000 + number)
        made.append(Node(open_postgresql(postgresql_url, clock=clock), bus))
        made[-1].listen()
    metadata.create_all(made[0].work.engine)
    yield made[0], made[1]
    for node in made:
        await asyncio.to_thread(node.bus.close)
        node.work.close()


async def test_news_of_a_commit_is_heard_by_all_and_news_of_a_failed_unit_by_none(nodes: tuple[Node, Node]) -> None:
    one, two = nodes

    def fails(tx: Tx) -> None:
        tx.tell_nodes(News("grants", ("never",)))
        raise InvalidRequest("no")

    with pytest.raises(InvalidRequest):
        await one.work.run(fails)
    for number in range(20):
        node = nodes[number % 2]
        await node.work.run(lambda tx, number=number: tx.tell_nodes(News("grants", (str(number),))))  # type: ignore[misc]
    expected = [(("one", "two")[number % 2], News("grants", (str(number),))) for number in range(20)]
    # In one order for all, the teller too.
    assert await one.until(20) == expected
    assert await two.until(20) == expected


async def test_much_is_split_and_what_no_payload_holds_is_told_without_its_parts(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    much = [News("access", ("x" * 900, str(number))) for number in range(30)]

    def tell(tx: Tx) -> None:
        for news in (*much, News("access", ("é" * 6_000,)), News("grants", ('\U0001f600 " \\ \n',))):
            tx.tell_nodes(news)

    await one.work.run(tell)
    heard = [news for _, news in await two.until(32)]
    assert heard == [*much, News("access"), News("grants", ('\U0001f600 " \\ \n',))]


async def test_a_group_that_leaves_notices_wakes_the_other_gateways(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    await one.work.run(lambda tx: tx.publish(Notice(account=AccountId("1"), topic="t", payload=b"p")))
    assert await two.until(1) == [("one", News("outbox"))]
    await one.work.run(lambda tx: tx.connection.execute(text("DELETE FROM outbox")))  # type: ignore[attr-defined]


async def test_a_bus_that_was_cut_says_so_until_it_hears_again(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    await two.until_missed(1)  # whatever was said before it listened
    before = two.missed

    def cut(tx: Tx) -> None:
        pid = two.bus._connection.info.backend_pid
        tx.connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})  # type: ignore[attr-defined]

    await one.work.run(cut)
    await two.until_missed(before + 2)
    two.heard.clear()
    await one.work.run(lambda tx: tx.tell_nodes(News("grants")))
    assert await two.until(1) == [("one", News("grants"))]


async def test_what_isnt_ours_on_the_channel_is_passed_over(nodes: tuple[Node, Node]) -> None:
    one, two = nodes

    def shout(tx: Tx) -> None:
        for payload in ("", "hello", "[1,2]", '["x",1,[[]]]', '["x",1,[["grants",7]]]'):
            tx.connection.execute(text("SELECT pg_notify('overair', :payload)"), {"payload": payload})  # type: ignore[attr-defined]
        tx.tell_nodes(News("grants"))

    await one.work.run(shout)
    assert await two.until(1) == [("one", News("grants"))]
