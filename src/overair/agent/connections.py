"""What one device speaks through, and who keeps its identity good: put together from its directory."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from overair.agent.device_directory import DeviceDirectory, DeviceSettings
from overair.agent.http_ranges import HttpRanges
from overair.agent.identity_keeper import IdentityKeeper
from overair.agent.mqtt_transport import MqttTransport
from overair.basics.clock import WallClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """Of one device."""

    transport: MqttTransport
    ranges: HttpRanges
    keeper: IdentityKeeper


def connections_of(directory: DeviceDirectory, settings: DeviceSettings, *, version: str, chance: Random) -> Connections:
    """Nothing is opened yet, and the keeper not started; a replacement of the identity that was cut is finished first."""

    def changed() -> None:
        ranges.trust_changed()
        transport.identity_changed()

    keeper = IdentityKeeper(directory, settings, clock=WallClock(), chance=Random(chance.random()), changed=changed)
    keeper.recover()
    transport = MqttTransport(directory, settings, version=version, chance=chance)
    ranges = HttpRanges(directory.ca_file(settings), images_ca_file=directory.images_ca_file(settings))
    return Connections(transport=transport, ranges=ranges, keeper=keeper)
