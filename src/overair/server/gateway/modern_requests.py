"""What packets mean where MQTT 5 means something else by them: each function is one packet at one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overair.server.gateway.limits import REFUSALS_MAX
from overair.server.gateway.model import DisconnectReason
from overair.server.gateway.modern import Modern, wants_retained
from overair.server.gateway.rights import Refused
from overair.wire.mqtt.packets import Auth, Disconnect, MalformedPacket, Publish, Subscribe
from overair.wire.mqtt.properties import Property, number_in
from overair.wire.mqtt.reasons import Reason

if TYPE_CHECKING:
    from overair.server.gateway.connection import DeviceConnection


def publish(connection: DeviceConnection, packet: Publish) -> None:
    """The topic may be a number that stands for one. What policy forbids of a QoS 1 message is said in its acknowledgement, and
    the connection goes on; QoS 0 has none.

    Raises:
        Refused: the connection must be closed.
    """
    live, modern = connection.live, connection.modern
    assert live is not None
    assert modern is not None
    try:
        topic = modern.aliases.resolve(packet)
    except MalformedPacket as malformed:
        raise Refused.malformed(malformed) from None
    if topic is not packet.topic:
        packet = msgspec.structs.replace(packet, topic=topic)
    try:
        route = live.rights.judge_publish(packet)
    except Refused as refusal:
        if packet.qos != 1 or refusal.reason is DisconnectReason.CLIENT_ERROR:
            raise
        _refused(connection, modern, refusal)
        connection.answer_in_turn(connection.dialect.puback(packet.packet_id, refusal.code, refusal.text))
        return
    connection.serve(packet, route)


def _refused(connection: DeviceConnection, modern: Modern, refusal: Refused) -> None:
    """Note a refusal that its packet's answer tells. One after the other without end would fill the log.

    Raises:
        Refused: it is one too many.
    """
    modern.refusals += 1
    if modern.refusals >= REFUSALS_MAX:
        raise refusal
    connection.log_refusal(refusal)


def subscribe(connection: DeviceConnection, packet: Subscribe) -> None:
    """Each filter gets a code of its own, and says whether it wants what is retained.

    Raises:
        Refused: subscription identifiers, or too many filters at once.
    """
    live, modern = connection.live, connection.modern
    assert live is not None
    assert modern is not None
    if number_in(packet.properties, Property.SUBSCRIPTION_IDENTIFIER, 0):
        why = "subscription identifiers aren't served here"
        code = Reason.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED
        raise Refused(why, DisconnectReason.CLIENT_ERROR, code=code, text=why)
    held = set(live.record.session.subscriptions)
    codes = live.rights.judge_filters(packet.filters, one_by_one=True)
    options = packet.options or (0,) * len(codes)
    granted, greeted = [], set()
    for (name, _), granted_qos, option in zip(packet.filters, codes, options, strict=True):
        if granted_qos < Reason.UNSPECIFIED_ERROR:
            granted.append((name, granted_qos | option))
            if wants_retained(option, is_new=name not in held):
                greeted.add(name)
    connection.take_subscriptions(packet, codes, granted, greeted)
    refused = [name for (name, _), code in zip(packet.filters, codes, strict=True) if code >= Reason.UNSPECIFIED_ERROR]
    if refused:
        why = f"{len(refused)} of {len(codes)} filters, the first of them {refused[0]}"
        _refused(connection, modern, Refused(why, DisconnectReason.AUTH_ERROR))


def disconnect(connection: DeviceConnection, packet: Disconnect) -> None:
    """A goodbye may change how long the session outlives it, and may leave the will to be published.

    Raises:
        Refused: a session that was to end with its connection can't outlive it after all.
    """
    modern = connection.modern
    assert modern is not None
    expiry_s = number_in(packet.properties, Property.SESSION_EXPIRY_INTERVAL, -1)
    if expiry_s > 0 and not modern.session_expires:
        why = "a session that ends with its connection can't be made to outlive it at the end (section 3.14.2.2.2)"
        raise Refused(why, DisconnectReason.CLIENT_ERROR, code=Reason.PROTOCOL_ERROR, text=why)
    if expiry_s >= 0:
        connection.outlive(expiry_s * 1000)
    # Section 3.14.4: only who leaves with code 0 takes his will along.
    connection.close(DisconnectReason.CLIENT_INITIATED_DISCONNECT, leaves_will=packet.reason_code != Reason.SUCCESS)


def authenticate(_: DeviceConnection, __: Auth) -> None:
    """Nobody asked for it.

    Raises:
        Refused: always.
    """
    why = "extended authentication isn't served here"
    raise Refused(why, DisconnectReason.CLIENT_ERROR, code=Reason.PROTOCOL_ERROR, text=why)
