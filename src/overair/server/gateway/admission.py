"""From CONNECT to CONNACK: who it is, whether it may, and its session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overair.basics.errors import LimitExceeded, OverairError
from overair.server.gateway.authority import DeviceIdentity, DevicePolicy, Refusal
from overair.server.gateway.limits import GatewayLimits
from overair.server.gateway.model import DisconnectReason, HeldSession, SessionWish
from overair.server.gateway.modern import session_wish
from overair.server.gateway.rights import Refused, Rights
from overair.wire.mqtt.packets import Connect, Will
from overair.wire.mqtt.reasons import Reason

if TYPE_CHECKING:
    from overair.server.gateway.connection import DeviceConnection
    from overair.server.gateway.service import Gateway


@dataclass(slots=True)
class Live:
    """What a connection has once it was admitted."""

    record: HeldSession
    rights: Rights
    limits: GatewayLimits
    wish: SessionWish
    """What it was granted of its session."""


def grounds_to_refuse(verdict: DeviceIdentity | Refusal, client_id: str, will: Will | None) -> str | None:
    """Why a connection may not be, or None. ``will`` is judged where it is given."""
    if isinstance(verdict, Refusal):
        return verdict.reason
    if not verdict.policy.allows_connect(client_id):
        return f"no policy allows iot:Connect on client/{client_id}"
    return None if will is None else will_refusal(will, verdict.policy)


def will_refusal(will: Will, policy: DevicePolicy) -> str | None:
    """Why policy forbids a will, or None."""
    if not policy.allows_publish(will.topic):
        return f"no policy allows iot:Publish on the will's topic/{will.topic}"
    if will.retain and not policy.allows_retain(will.topic):
        return f"no policy allows iot:RetainPublish on the will's topic/{will.topic}"
    return None


async def admit(gateway: Gateway, connection: DeviceConnection, packet: Connect) -> tuple[Live, bool] | None:
    """Judge a CONNECT and take its session up: (what the connection has now, whether the session existed).

    None: it was refused and closed here, or it has ended meanwhile.
    """
    verdict = await gateway.verdict(connection)
    if verdict is None:
        return None
    why = grounds_to_refuse(verdict, connection.client_id, packet.will)
    if why is not None or isinstance(verdict, Refusal):
        connection.write(connection.dialect.connack(Reason.NOT_AUTHORIZED))
        connection.not_admitted(verdict)
        connection.refuse(Refused(why or "", DisconnectReason.AUTH_ERROR))
        return None
    connection.place, connection.certificate_id = verdict.place, verdict.certificate_id
    limits = gateway.limits_for(connection.account)
    gateway.admitted(connection)
    if limits.connects_per_s_max is not None and gateway.connects_too_soon(connection, limits.connects_per_s_max):
        connection.write(connection.dialect.connack(Reason.QUOTA_EXCEEDED))
        why = f"a client id connects at most {limits.connects_per_s_max} times a second"
        connection.refuse(Refused(why, DisconnectReason.THROTTLED))
        return None
    judged_at = gateway.moment(connection)
    connection.ends_at(verdict.until)
    wish = session_wish(packet, limits.broker)
    try:
        record, present = await gateway.broker.attach(connection, wish)
    except OverairError as error:
        gateway.broker.detach(connection, DisconnectReason.SERVER_ERROR, None)
        code = Reason.QUOTA_EXCEEDED if isinstance(error, LimitExceeded) else Reason.SERVER_UNAVAILABLE
        connection.write(connection.dialect.connack(code))
        connection.refuse(Refused(f"the session can't be taken up: {error}", DisconnectReason.SERVER_ERROR))
        return None
    if connection.is_closed:
        # Closed while the session was taken up; unless another connection has it by now, nobody has it.
        gateway.broker.detach(connection, DisconnectReason.CONNECTION_LOST, None)
        return None
    if gateway.is_stale(connection, judged_at, connection.account, connection.certificate_id):
        gateway.reconsider(connection.account, [connection.certificate_id])
    record.session.speak(connection.dialect, in_flight_count_max=connection.receive_maximum)
    rights = Rights(
        policy=verdict.policy,
        limits=limits,
        topics=gateway.topics,
        session=record.session,
        denied=connection.denied,
    )
    return Live(record, rights, limits, wish), present
