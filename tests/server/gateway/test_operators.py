"""Connections of operators: who has shown a proof in place of a certificate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from overair.basics.clock import Instant, SettableClock
from overair.basics.ids import CertificateId, ClientId
from overair.server.gateway.authority import DeviceIdentity, Refusal
from overair.server.gateway.model import DisconnectReason
from overair.wire.mqtt.packets import Connack, Disconnect, Publish
from overair.wire.mqtt.reasons import Reason
from tests.support.gateway_world import PATIENCE_S, PLACE, Client, Facade, Facing, Patterns, World


@dataclass
class Operator:
    """A proof that a test may take back."""

    policy: Patterns = field(default_factory=Patterns)
    until: Instant | None = None
    gone: bool = False
    principal_arn: str = "arn:aws:iam::123456789012:user/ann"

    async def admit(self, client_id: ClientId) -> DeviceIdentity | Refusal:
        if self.gone:
            return Refusal(reason="the access key is gone")
        return DeviceIdentity(place=PLACE, certificate_id=CertificateId("AIDAX"), policy=self.policy, until=self.until)


class Proved(Facade):
    """A transport with a proof, and no certificate."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._peer_der if name == "proof" else None if name == "peer_der" else super().get_extra_info(name, default)


class FacingProof(Facing):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.inner.connection_made(Proved(transport, self.peer_der))  # type: ignore[arg-type]


@pytest.fixture
def operator() -> Operator:
    return Operator()


@pytest.fixture
async def port(world: World, operator: Operator) -> AsyncIterator[int]:
    proof: Any = operator
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: FacingProof(world.gateway.protocol(), proof), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def connect(port: int, client_id: str = "app") -> tuple[Client, Connack]:
    client = Client(*await asyncio.open_connection("127.0.0.1", port), 5)
    return client, await client.connect(client_id)


async def test_an_operator_is_admitted_by_his_proof_and_hears_devices(world: World, operator: Operator, port: int) -> None:
    operator.policy = Patterns(connect=["app"], subscribe=["a"], receive=["a"], publish=[])
    client, answer = await connect(port)
    assert answer.return_code == Reason.SUCCESS
    assert world.authority.asked == []
    assert await client.subscribe(("a", 0), ("b", 0)) == (0, Reason.NOT_AUTHORIZED)
    device = await world.client("dev")
    device.publish("a", b"hello")
    assert await client.next() == Publish(topic="a", payload=b"hello")
    assert (await connect(port, "other"))[1].return_code == Reason.NOT_AUTHORIZED
    assert {each.principal_arn for each in world.denials.heard} == {operator.principal_arn}
    assert world.denials.told() == [("Subscribe", "topicfilter/b"), ("Connect", "client/other")]
    client.abort()


async def test_an_operator_who_loses_his_right_is_cut_and_devices_are_not_asked_about(
    world: World, operator: Operator, port: int
) -> None:
    client, _ = await connect(port)
    await world.client("dev")
    asked = len(world.authority.asked)
    world.gateway.reconsider_operators()
    await world.settled()
    assert await client.before_ping_answer() == []
    operator.gone = True
    world.gateway.reconsider_operators()
    assert await client.next() == Disconnect(reason_code=Reason.NOT_AUTHORIZED)
    assert await client.is_closed_by_server()
    assert len(world.authority.asked) == asked
    assert (await connect(port))[1].return_code == Reason.NOT_AUTHORIZED


async def test_a_connection_ends_with_the_session_that_has_proved_it_and_after_a_day(
    world: World, operator: Operator, port: int, clock: SettableClock
) -> None:
    operator.until = Instant(clock.now() + 1_500)
    client, _ = await connect(port)
    async with asyncio.timeout(PATIENCE_S):
        assert await client.next() == Disconnect(reason_code=Reason.MAXIMUM_CONNECT_TIME)
    assert world.gateway.ended[DisconnectReason.WEBSOCKET_TTL_EXPIRATION] == 1
    operator.until = None
    await connect(port)
    (connection,) = world.gateway.connections()
    day_s = 24 * 3600
    assert connection._ends_s == pytest.approx(asyncio.get_running_loop().time() + day_s, abs=60)
