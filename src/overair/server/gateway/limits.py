"""Every bound on what a device may ask of the gateway, in two profiles.

``generous`` (the default) only keeps memory bounded; ``aws`` holds devices to the quotas of AWS IoT (wire reference §11), so
that a fleet tried here meets nothing new there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

BEFORE_CONNECT_TIMEOUT_S: Final = 10
"""From the end of the handshake to a whole CONNECT."""
BEFORE_CONNECT_SIZE_BYTES_MAX: Final = 16 * 1024
"""Buffered before CONNECT is accepted, beside the CONNECT itself."""
CONNECTION_LIFETIME_S_MAX: Final = 24 * 3600
"""Of a connection whose peer has shown a signature: it proves nothing about tomorrow."""
WRITE_BUFFER_SIZE_BYTES: Final = 256 * 1024
"""Held by one transport before its peer counts as slow: the largest answer to a GetStream, and one more under way."""
ROUTES_COUNT_MAX: Final = 256
"""Topics of one connection whose verdicts are remembered until its policy or its subscriptions change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerLimits:
    """Bounds on what the broker keeps for one account."""

    session_expiry_ms: int = 3_600_000
    """How long a persistent session of MQTT 3.1.1 outlives its connection."""
    session_expiry_ms_max: int = 3_600_000
    """How long one of MQTT 5 may ask to."""
    in_flight_count_max: int = 100
    pending_count_max: int = 1000
    pending_size_bytes_max: int = 8 * 1024 * 1024
    queued_count_max: int = 10_000
    """Of QoS 1 messages stored for one persistent session; later ones are dropped and counted."""
    queued_size_bytes_max: int = 64 * 1024 * 1024
    sessions_of_certificate_count_max: int = 100_000
    """Client ids that one certificate has begun sessions under, live and waiting. A fleet may share one certificate."""
    retained_count_max: int = 500_000
    """Of an account."""


REFUSALS_MAX: Final = 100
"""Of one connection of MQTT 5, which is told of each and may go on; then it is closed, as one of 3.1.1 is at the first."""
MESSAGE_EXPIRY_S_MIN: Final = 1
MESSAGE_EXPIRY_S_MAX: Final = 604_800
"""Seven days, as AWS has it; what asks for more or less gets these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLimits:
    """Bounds on one connection, and what the broker may keep for its account."""

    payload_size_bytes_max: int
    topic_size_bytes_max: int
    """Of topics and filters. At most 1,024: they are keys in the store."""
    topic_slashes_max: int
    """The first three of a reserved topic that begins with ``$aws/rules/`` aren't counted."""
    filters_per_subscribe_max: int
    subscriptions_count_max: int
    requests_in_flight_max: int
    """Publishes whose answer still waits for something; reading stops there."""
    publishes_per_s_max: int | None
    """Reading pauses for the rest of the second."""
    throughput_bytes_per_s_max: int | None = None
    """Of publishes and the answers to them; reading pauses for the rest of the second."""
    connects_per_s_max: int | None = None
    """Of one client id."""
    topic_aliases_max: int = 8
    """Of one connection (MQTT 5)."""
    receive_maximum: int = 100
    """Unacknowledged QoS 1 messages that a client of MQTT 5 may have under way. Fewer are looked at at once: reading stops."""
    properties_size_bytes_max: int = 16 * 1024
    """Of what a message of MQTT 5 carries beside topic and payload."""
    jobs_reads_per_s_max: int | None = None
    """Of all devices of an account together, over MQTT and HTTPS; what is above is answered RequestThrottled."""
    jobs_writes_per_s_max: int | None = None
    broker: BrokerLimits = field(default_factory=BrokerLimits)

    @property
    def is_metered(self) -> bool:
        """What a connection moves in a second has a bound."""
        return self.publishes_per_s_max is not None or self.throughput_bytes_per_s_max is not None

    @property
    def packet_size_bytes_max(self) -> int:
        """Of a remaining length: a PUBLISH with the longest topic and payload, or a SUBSCRIBE of as many longest filters."""
        subscribe = min(self.filters_per_subscribe_max, 64) * (self.topic_size_bytes_max + 3)
        return max(self.payload_size_bytes_max + self.topic_size_bytes_max, subscribe) + 64

    @property
    def packet_size_bytes_max_5(self) -> int:
        """The same of MQTT 5, whose packets have properties, too."""
        return self.packet_size_bytes_max + self.properties_size_bytes_max


GENEROUS: Final = GatewayLimits(
    payload_size_bytes_max=1024 * 1024,
    topic_size_bytes_max=1024,
    topic_slashes_max=64,
    filters_per_subscribe_max=1000,
    subscriptions_count_max=1000,
    requests_in_flight_max=32,
    publishes_per_s_max=None,
    topic_aliases_max=256,
    broker=BrokerLimits(session_expiry_ms_max=7 * 24 * 3_600_000),
)

AWS: Final = GatewayLimits(
    payload_size_bytes_max=128 * 1024,
    topic_size_bytes_max=256,
    topic_slashes_max=7,
    filters_per_subscribe_max=8,
    subscriptions_count_max=50,
    requests_in_flight_max=32,
    publishes_per_s_max=100,
    throughput_bytes_per_s_max=512 * 1024,
    connects_per_s_max=1,
    jobs_reads_per_s_max=200,
    jobs_writes_per_s_max=200,
    broker=BrokerLimits(retained_count_max=500_000),
)

PROFILES: Final = {"generous": GENEROUS, "aws": AWS}
