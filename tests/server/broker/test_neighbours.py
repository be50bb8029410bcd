"""Of two gateways that one client id connects to at once exactly one keeps it, whatever each hears when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import msgspec
import pytest

from overair.basics.clock import Instant, SettableClock
from overair.basics.ids import AccountId, CertificateId, ClientId, SeededIds
from overair.basics.work import News, Notice
from overair.server.broker.gate import Gate
from overair.server.broker.neighbours import Neighbours, _Claim
from overair.server.broker.notices import message_of
from overair.server.gateway.model import Link, Message

ACCOUNT, CLIENT, CERTIFICATE = AccountId("123456789012"), ClientId("dev"), CertificateId("c")


@dataclass
class OneLink:
    """A connection that is only looked at."""

    account: AccountId = ACCOUNT
    client_id: ClientId = CLIENT
    certificate_id: CertificateId = CERTIFICATE


@dataclass
class Broker:
    """Remembers whom it let go."""

    gone: list[ClientId] = field(default_factory=list)

    def let_go(self, account: AccountId, client_id: ClientId) -> None:
        self.gone.append(client_id)


def gateway(name: str) -> tuple[Neighbours, Broker]:
    anything: Any = None
    neighbours = Neighbours(
        name=name,
        work=anything,
        records=anything,
        shelf=anything,
        rejoin=lambda _: False,
        clock=SettableClock(Instant(0)),
        ids=SeededIds(1),
    )
    broker: Any = Broker()
    neighbours.serve(broker)
    return neighbours, broker


# Each gateway takes the client (T) before the bus tells of it, and hears both claims in the bus's order: one's, then two's.
INTERLEAVINGS = [
    steps
    for steps in set(permutations(["one T", "two T", "one hears 1", "one hears 2", "two hears 1", "two hears 2"]))
    if all(steps.index(f"{name} hears 1") < steps.index(f"{name} hears 2") for name in ("one", "two"))
    and all(steps.index("one T") < steps.index(f"{name} hears 1") for name in ("one", "two"))
    and all(steps.index("two T") < steps.index(f"{name} hears 2") for name in ("one", "two"))
]


@pytest.mark.parametrize("steps", sorted(INTERLEAVINGS), ids=lambda steps: ", ".join(steps))
def test_of_two_claims_at_once_the_one_that_the_bus_tells_later_stays(steps: tuple[str, ...]) -> None:
    gateways = {name: gateway(name) for name in ("one", "two")}
    said = {"1": ("one", [ACCOUNT, CLIENT, "token-one", "c"]), "2": ("two", [ACCOUNT, CLIENT, "token-two", "c"])}
    for step in steps:
        name, _, rest = step.partition(" ")
        neighbours, _ = gateways[name]
        if rest == "T":
            link: Link = OneLink()  # type: ignore[assignment]
            neighbours._claims[ACCOUNT, CLIENT] = _Claim(f"token-{name}", link)
        else:
            neighbours.heard_connected(*said[rest.removeprefix("hears ")])
    (one, one_let_go), (two, two_let_go) = gateways["one"], gateways["two"]
    assert CLIENT in one_let_go.gone
    assert one.is_elsewhere(ACCOUNT, CLIENT)
    # Two may have heard of one's before it took the client: then it had nothing to let go.
    took = steps.index("two T")
    assert not two_let_go.gone or steps.index("two hears 1") < took
    assert two._claims[ACCOUNT, CLIENT].is_heard
    assert not two._claims[ACCOUNT, CLIENT].is_lost


async def test_who_is_alone_at_the_gate_meets_nobody_and_isnt_kept_out_by_newcomers() -> None:
    gate, inside, seen = Gate(), 0, []

    async def together() -> None:
        nonlocal inside
        async with gate.together():
            inside += 1
            seen.append("together")
            await asyncio.sleep(0)
            inside -= 1

    async def alone() -> None:
        async with gate.alone():
            assert inside == 0
            seen.append("alone")
            await asyncio.sleep(0)
            assert inside == 0

    async with asyncio.timeout(20):
        first = [asyncio.create_task(together()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting = asyncio.create_task(alone())
        await asyncio.sleep(0)
        later = [asyncio.create_task(together()) for _ in range(3)]
        await asyncio.gather(*first, waiting, *later)
    assert seen == ["together"] * 3 + ["alone"] + ["together"] * 3


@dataclass
class Told:
    """A unit of work that remembers what it announces."""

    news: list[News] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def tell_nodes(self, news: News) -> None:
        self.news.append(news)

    def publish(self, notice: Notice) -> None:
        self.notices.append(notice)

    async def run(self, unit: Any) -> Any:
        return unit(self)


@dataclass
class Hearing:
    """A broker that is only told."""

    heard: list[Message] = field(default_factory=list)

    def hand_out_here(self, _: AccountId, message: Message) -> None:
        self.heard.append(message)


async def test_what_mqtt_5_says_beside_a_payload_goes_to_the_other_gateways_at_either_qos() -> None:
    anything: Any = None
    told: Any = Told()
    names = {"records": anything, "shelf": anything, "rejoin": lambda _: False, "clock": SettableClock(Instant(0))}
    here, there = (Neighbours(name=name, work=told, ids=SeededIds(1), **names) for name in ("here", "there"))
    near, far = Hearing(), Hearing()
    here.serve(near)  # type: ignore[arg-type]
    there.serve(far)  # type: ignore[arg-type]
    said = ((0x03, "text/plain"), (0x26, ("k", "v")))
    for message in (
        Message(topic="a", payload=b"\x00", properties=said, expires=Instant(9)),
        Message(topic="a", payload=b"plain"),
    ):
        assert here.publish(ACCOUNT, message, told) is None
        await here.idle()
        there.heard_passing(told.news.pop().parts)
        assert (near.heard.pop(), far.heard.pop()) == (message, message)
        kept = msgspec.structs.replace(message, qos=1)
        pending = here.publish(ACCOUNT, kept, told)
        assert pending is not None
        await pending
        assert message_of(told.notices.pop(), qos=1) == kept
