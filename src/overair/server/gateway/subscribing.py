"""What a SUBSCRIBE may ask for, and what it gets at once."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from overair.basics.errors import OverairError
from overair.server.broker.model import DisconnectReason
from overair.server.broker.service import Broker, SessionRecord
from overair.server.gateway.authority import DevicePolicy
from overair.server.gateway.limits import GatewayLimits
from overair.wire.mqtt.packets import SUBSCRIPTION_REFUSED
from overair.wire.mqtt.session import ServerSession

SHARED_PREFIX = "$share/"

logger = structlog.get_logger("overair.gateway")


class Refused(Exception):
    """The connection must be closed; nothing of the packet was granted."""

    def __init__(self, why: str, reason: DisconnectReason) -> None:
        super().__init__(why)
        self.reason = reason


def judge_filters(
    filters: Sequence[tuple[str, int]], session: ServerSession[int | None], policy: DevicePolicy, limits: GatewayLimits
) -> tuple[int, ...]:
    """Grant what a SUBSCRIBE asks for: its return codes.

    Raises:
        Refused: one filter isn't allowed by policy, or the packet breaks a limit: then the connection closes (checklist 39).
    """
    if len(filters) > limits.filters_per_subscribe_max:
        raise Refused(
            f"a SUBSCRIBE of {len(filters)} filters; {limits.filters_per_subscribe_max} are allowed",
            DisconnectReason.CLIENT_ERROR,
        )
    for name, _ in filters:
        slashes = name.count("/") - (3 if name.startswith("$aws/rules/") else 0)
        if len(name.encode()) > limits.topic_size_bytes_max or slashes > limits.topic_slashes_max:
            raise Refused(
                f"a filter is over {limits.topic_size_bytes_max} bytes or {limits.topic_slashes_max} slashes",
                DisconnectReason.CLIENT_ERROR,
            )
        if not policy.allows_subscribe(name):
            raise Refused(f"no policy allows iot:Subscribe on topicfilter/{name}", DisconnectReason.AUTH_ERROR)
    codes = []
    for name, qos in filters:
        full = name not in session.subscriptions and len(session.subscriptions) >= limits.subscriptions_count_max
        # Shared subscriptions aren't served: saying so is better than a literal filter that never matches.
        codes.append(SUBSCRIPTION_REFUSED if full or name.startswith(SHARED_PREFIX) else session.grant(name, qos))
    return tuple(codes)


async def send_retained_for(broker: Broker, record: SessionRecord, filters: Sequence[tuple[str, int]]) -> None:
    """Deliver what is retained on new subscriptions that name one topic exactly (wire reference §8.3)."""
    for name, qos in filters:
        try:
            message = await broker.retained(record.account, name)
        except OverairError as error:
            logger.warning("a retained message can't be read now", topic=name, error=str(error))
            return
        if message is not None:
            broker.send_retained(record, message, qos)
