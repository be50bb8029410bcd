"""From CONNECT to CONNACK: who it is, whether it may, and its session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overair.basics.errors import OverairError
from overair.server.gateway.authority import DeviceIdentity, DevicePolicy, Refusal
from overair.server.gateway.limits import GatewayLimits
from overair.server.gateway.model import DisconnectReason, HeldSession
from overair.server.gateway.rights import Refused, Rights
from overair.wire.mqtt.packets import NOT_AUTHORIZED, SERVER_UNAVAILABLE, Connect, Will, encode_connack

if TYPE_CHECKING:
    from overair.server.gateway.connection import DeviceConnection
    from overair.server.gateway.service import Gateway


@dataclass(slots=True)
class Live:
    """What a connection has once it was admitted."""

    record: HeldSession
    rights: Rights
    limits: GatewayLimits


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
    why = grounds_to_refuse(verdict, packet.client_id, packet.will)
    if why is not None or isinstance(verdict, Refusal):
        connection.write(encode_connack(NOT_AUTHORIZED))
        connection.refuse(Refused(why or "", DisconnectReason.AUTH_ERROR))
        return None
    connection.place, connection.certificate_id = verdict.place, verdict.certificate_id
    limits = gateway.limits_for(connection.account)
    gateway.admitted(connection)
    judged_at = gateway.verdicts_changed
    try:
        record, present = await gateway.broker.attach(connection, clean_session=packet.clean_session)
    except OverairError as error:
        gateway.broker.detach(connection, DisconnectReason.SERVER_ERROR, None)
        connection.write(encode_connack(SERVER_UNAVAILABLE))
        connection.refuse(Refused(f"the session can't be taken up: {error}", DisconnectReason.SERVER_ERROR))
        return None
    if connection.is_closed:
        # Closed while the session was taken up; unless another connection has it by now, nobody has it.
        gateway.broker.detach(connection, DisconnectReason.CONNECTION_LOST, None)
        return None
    if gateway.changed_since(judged_at, connection.account, connection.certificate_id):
        gateway.reconsider(connection.account, [connection.certificate_id])
    rights = Rights(policy=verdict.policy, limits=limits, topics=gateway.topics, session=record.session)
    return Live(record, rights, limits), present
