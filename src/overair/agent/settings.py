"""What an agent is given: its application, its times and counts, and how its process ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from overair.wire.job_document import TransferProtocol
from overair.wire.stream_messages import Dialect

if TYPE_CHECKING:
    from overair.agent.device_directory import DeviceSettings

EXIT_STATUS_RESET = 75
"""Tells the boot loader to start the active slot again."""
JSON_VARIABLE = "OVERAIR_STEP_LINES"
"""Set to ``json`` by a boot loader whose standard output is one JSON object a line."""


class Application(Protocol):
    """What the image itself does."""

    def self_test(self) -> bool:
        """Is this image fit to stay? Called once after an update; an exception means no, a hang is ended by the boot loader."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Times and counts (wire reference §7.1)."""

    thing_name: str
    block_size_bytes: int = 4096
    primary_protocol: TransferProtocol = TransferProtocol.MQTT
    """Which way files come where a job offers both."""
    stream_format: Dialect = Dialect.CBOR
    """How blocks are asked for and sent over MQTT."""
    request_timeout_s: float = 10
    back_off_base_s: float = 1
    back_off_s_max: float = 60
    """Beyond the time for an answer, each request that nobody answered adds a wait between nothing and a limit: the base,
    doubled each time, up to the maximum."""
    request_momentum_max: int = 32
    """Unanswered requests for blocks before the work is given up."""
    self_test_timeout_s: float = 16
    """From the start of an image on trial until the server's word on its self-test."""
    acknowledgement_timeout_s: float = 30
    """How long a final report is waited for; it is kept and repeated after that."""


def settings_for(device: DeviceSettings) -> AgentSettings:
    """What ``device.json`` says of an agent's times and counts."""
    return AgentSettings(
        thing_name=device.thing_name,
        block_size_bytes=device.block_size_bytes,
        primary_protocol=device.primary_protocol,
        stream_format=device.stream_format,
        request_timeout_s=device.request_timeout_s,
        self_test_timeout_s=device.self_test_response_timeout_s,
    )
