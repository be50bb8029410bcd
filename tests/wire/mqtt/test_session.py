"""Laws of a session, walked by hypothesis beside a model that is a plain list."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from overair.wire.mqtt.client import ClientConnection
from overair.wire.mqtt.dialects import DIALECT_311, Dialect5
from overair.wire.mqtt.packets import (
    Connack,
    Connect,
    MalformedPacket,
    Publish,
    Pubrec,
    Pubrel,
    Will,
    encode,
)
from overair.wire.mqtt.properties import Property
from overair.wire.mqtt.reasons import Reason
from overair.wire.mqtt.session import INCOMING_QOS_2_COUNT_MAX, KeepAlive, Mode, ServerSession, SessionLimits, connect_refusal

LIMITS = SessionLimits(in_flight_count_max=3, in_flight_size_bytes_max=6, pending_count_max=4, pending_size_bytes_max=1000)


class Deliveries(RuleBasedStateMachine):
    """QoS 1 and 2 deliveries over connections that break: nothing lost, order kept, each token told once."""

    def __init__(self) -> None:
        super().__init__()
        self.session: ServerSession[int] = ServerSession(mode=Mode.STANDARD, limits=LIMITS)
        self.owed: list[int] = []
        """Taken by the session and not told as finished, in order."""
        self.heard: list[tuple[int, int, int]] = []
        """(identifier, number, QoS) that the client of this connection has received and not finished."""
        self.half_done: list[tuple[int, int]] = []
        """(identifier, number) for which the client has sent PUBREC."""
        self.next_number = 0
        self.begin()

    def begin(self) -> None:
        self.client = ClientConnection()
        self.client.receive(encode(Connack()))

    def hear(self, data: bytes) -> None:
        for packet in self.client.receive(data):
            if isinstance(packet, Publish):
                number = int(packet.payload)
                assert number in self.owed
                assert packet.packet_id not in [each[0] for each in self.heard]
                self.heard.append((packet.packet_id, number, packet.qos))
            else:
                assert isinstance(packet, Pubrel)

    @rule(qos=st.sampled_from([1, 2]), hold=st.booleans())
    def deliver(self, qos: int, hold: bool) -> None:
        number = self.next_number
        self.next_number += 1
        data = self.session.deliver("t", b"%d" % number, qos=qos, token=number, hold=hold)
        if data is None:
            assert len(self.owed) >= LIMITS.pending_count_max
            return
        self.owed.append(number)
        self.hear(data)

    @precondition(lambda self: self.heard)
    @rule(which=st.integers(0, 2))
    def finish_or_half(self, which: int) -> None:
        identifier, number, qos = self.heard.pop(which % len(self.heard))
        if qos == 2:
            self.hear(self.session.take_pubrec(identifier))
            self.half_done.append((identifier, number))
            return
        token, more = self.session.take_puback(identifier)
        assert token == number
        self.owed.remove(number)
        self.hear(more)

    @precondition(lambda self: self.half_done)
    @rule()
    def complete(self) -> None:
        identifier, number = self.half_done.pop(0)
        token, more = self.session.take_pubcomp(identifier)
        assert token == number
        self.owed.remove(number)
        self.hear(more)

    @rule(identifier=st.integers(40_000, 40_010))
    def acknowledge_nonsense(self, identifier: int) -> None:
        assert self.session.take_puback(identifier) == (None, b"")
        assert self.session.take_pubcomp(identifier) == (None, b"")

    @rule()
    def make_room(self) -> None:
        self.hear(self.session.send_pending())

    @rule()
    def reconnect(self) -> None:
        before = {identifier: number for identifier, number, _ in self.heard}
        self.begin()
        self.heard = []
        self.hear(self.session.resume())
        again = {identifier: number for identifier, number, _ in self.heard}
        assert before.items() <= again.items()
        numbers = [number for _, number, _ in self.heard]
        assert numbers == sorted(numbers)

    @invariant()
    def what_is_owed_is_known_in_order(self) -> None:
        assert sorted(self.session.undelivered()) == sorted(self.owed)
        in_flight = [len(b"t%d" % each[1]) for each in (*self.heard, *self.half_done)]
        assert len(in_flight) <= LIMITS.in_flight_count_max
        assert len(in_flight) <= 1 or sum(in_flight) <= LIMITS.in_flight_size_bytes_max


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_a_qos_2_message_repeated_before_its_release_is_routed_once() -> None:
    session: ServerSession[None] = ServerSession(mode=Mode.STANDARD, limits=LIMITS)
    packet = Publish(topic="t", payload=b"1", qos=2, packet_id=7)
    pubrec = encode(Pubrec(packet_id=7))
    assert session.take_publish(packet) == (pubrec, None)
    assert session.take_publish(packet) == (pubrec, None)
    assert session.take_pubrel(7) == (b"", packet)
    assert session.take_pubrel(7) == (b"\x70\x02\x00\x07", None)
    assert session.acknowledge(packet) == b"\x70\x02\x00\x07"


def test_unreleased_qos_2_messages_are_bounded() -> None:
    session: ServerSession[None] = ServerSession(mode=Mode.STANDARD, limits=LIMITS)
    for number in range(INCOMING_QOS_2_COUNT_MAX):
        session.take_publish(Publish(topic="t", payload=b"", qos=2, packet_id=number + 1))
    with pytest.raises(MalformedPacket):
        session.take_publish(Publish(topic="t", payload=b"", qos=2, packet_id=1000))


CLIENT_ID = Reason.CLIENT_IDENTIFIER_NOT_VALID


@pytest.mark.parametrize(
    ("packet", "standard", "aws"),
    [
        (Connect(client_id="dev"), None, None),
        (Connect(client_id=""), None, CLIENT_ID),
        (Connect(client_id="", protocol_level=5), None, None),
        (Connect(client_id="", clean_session=False, protocol_level=5), None, None),
        (Connect(client_id="", clean_session=False), CLIENT_ID, CLIENT_ID),
        (Connect(client_id="$dev"), None, CLIENT_ID),
        (Connect(client_id="x" * 129), None, CLIENT_ID),
        (
            Connect(client_id="dev", will=Will(topic="$aws/x", payload=b"")),
            Reason.TOPIC_NAME_INVALID,
            Reason.TOPIC_NAME_INVALID,
        ),
        (Connect(client_id="dev", will=Will(topic="w", payload=b"", qos=2)), None, Reason.QOS_NOT_SUPPORTED),
        (
            Connect(client_id="dev", protocol_level=5, properties=((Property.AUTHENTICATION_METHOD, "x"),)),
            Reason.BAD_AUTHENTICATION_METHOD,
            Reason.BAD_AUTHENTICATION_METHOD,
        ),
    ],
)
def test_a_connect_is_judged_by_its_contents(packet: Connect, standard: Reason | None, aws: Reason | None) -> None:
    assert connect_refusal(packet, Mode.STANDARD) == standard
    assert connect_refusal(packet, Mode.AWS) == aws


def messages_in(data: bytes, *, level: int = 5) -> list[Publish]:
    client = ClientConnection(level)
    client.receive(client.encode(Connack()))
    return [packet for packet in client.receive(data) if isinstance(packet, Publish)]


def test_a_message_is_counted_down_while_it_waits_and_goes_no_more_once_it_has_expired() -> None:
    session: ServerSession[int] = ServerSession(mode=Mode.AWS, limits=LIMITS)
    session.speak(Dialect5(), in_flight_count_max=1)
    for number, expires in enumerate((None, 5_000, 9_000, 60_000)):
        session.deliver("t", b"%d" % number, qos=1, token=number, expires=expires, now=1_000)
    assert list(session.undelivered()) == [0, 1, 2, 3]
    token, data = session.take_puback(1, 7_500)
    assert token == 0
    assert messages_in(data) == [
        Publish(topic="t", payload=b"2", qos=1, packet_id=3, properties=((Property.MESSAGE_EXPIRY_INTERVAL, 1),))
    ]
    assert session.take_spoiled() == [1]
    assert session.take_spoiled() == []
    # Sent and not acknowledged: it doesn't come again after its time either.
    assert [message.payload for message in messages_in(session.resume(10_000))] == [b"3"]
    assert session.take_spoiled() == [2]


def test_a_client_gets_no_packet_larger_than_it_takes_and_no_more_at_once_than_it_says() -> None:
    session: ServerSession[int] = ServerSession(mode=Mode.AWS, limits=SessionLimits())
    session.speak(Dialect5(packet_size_bytes_max=10), in_flight_count_max=2)
    heard = b"".join(
        session.deliver("t", payload, qos=1, token=token) or b"" for token, payload in enumerate((b"a", b"b" * 9, b"c"))
    )
    assert [message.payload for message in messages_in(heard)] == [b"a", b"c"]
    assert session.take_spoiled() == [1]
    assert session.deliver("t", b"d", qos=1, token=3) == b""
    # Another connection takes fewer at once: what went out already waits for its turn again.
    session.speak(DIALECT_311, in_flight_count_max=1)
    assert [message.payload for message in messages_in(session.resume(), level=4)] == [b"a"]
    assert list(session.undelivered()) == [0, 2, 3]


def test_keep_alive_zero_is_for_ever_in_standard_mode_and_1200_s_in_aws_mode() -> None:
    assert KeepAlive.honoured(0, Mode.STANDARD).deadline_s(5.0) == float("inf")
    assert KeepAlive.honoured(0, Mode.AWS).deadline_s(5.0) == 1805.0
    assert KeepAlive.honoured(10, Mode.STANDARD).deadline_s(5.0) == 20.0
    assert KeepAlive.honoured(10, Mode.AWS).deadline_s(5.0) == 50.0
