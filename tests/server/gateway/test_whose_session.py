"""A client id is a name, not a proof: what another certificate gets when it uses the same one."""

from __future__ import annotations

from overair.wire.mqtt.packets import NOT_AUTHORIZED, Connect, Publish, Will, encode
from tests.support.gateway_world import Patterns, World


async def test_a_certificate_that_may_not_use_the_client_id_neither_takes_nor_disturbs_its_session(world: World) -> None:
    world.authority.policies[b"c2"] = Patterns(connect=["mine"])
    owner = await world.client("shared", clean_session=False)
    await owner.subscribe(("orders", 1))
    stranger = await world.open(b"c2")
    assert (await stranger.connect("shared", clean_session=True)).return_code == NOT_AUTHORIZED
    assert await stranger.is_closed_by_server()
    publisher = await world.client("publisher")
    publisher.publish("orders", b"1", qos=1)
    received = await owner.next()
    assert isinstance(received, Publish)
    assert received.payload == b"1"


async def test_a_certificate_that_may_use_the_client_id_gets_of_its_session_what_its_own_policy_lets_it_receive(
    world: World,
) -> None:
    owner = await world.client("shared", clean_session=False)
    await owner.subscribe(("secret", 1), ("plain", 1), ("narrow/#", 1))
    owner.abort()
    await world.gone("shared")
    publisher = await world.client("publisher")
    for topic in ("secret", "narrow/x", "plain"):
        publisher.publish(topic, topic.encode(), qos=1)
        await publisher.next()
    world.authority.policies[b"c2"] = Patterns(receive=["plain", "narrow/*"], subscribe=["plain"])
    other = await world.open(b"c2")
    assert (await other.connect("shared", clean_session=False)).session_present
    received = await other.next()
    assert isinstance(received, Publish)
    assert received.topic == "plain"
    other.acknowledge(received)
    publisher.publish("secret", b"again", qos=0)
    publisher.publish("narrow/x", b"again", qos=0)
    await publisher.before_ping_answer()
    assert await other.before_ping_answer() == []


async def test_a_will_is_never_a_message_of_the_servers_own(world: World) -> None:
    listener = await world.client("listener")
    await listener.subscribe(("$aws/things/x/jobs/notify", 0))
    forger = await world.open()
    forger.send(encode(Connect(client_id="forger", will=Will(topic="$aws/things/x/jobs/notify", payload=b"{}"))))
    await forger.next()
    forger.abort()
    await world.settled()
    assert await listener.before_ping_answer() == []
