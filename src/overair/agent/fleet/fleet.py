"""A virtual fleet from its start to its summary."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from overair.agent.device_directory import BadDeviceDirectory, DeviceDirectory, DeviceSettings, read_settings
from overair.agent.fleet.connection import Endpoint, keep_connected
from overair.agent.fleet.device import VirtualDevice
from overair.agent.fleet.ranges import FleetRanges
from overair.agent.fleet.running_version import RunningVersion
from overair.agent.fleet.tally import Tally
from overair.agent.mqtt_transport import device_context
from overair.agent.tls import tls_context
from overair.wire.image_signature import BadSignerCertificate, SignerCertificate
from overair.wire.job_document import TransferProtocol
from overair.wire.trust_document import trusted_in

HANDSHAKES_AT_ONCE: Final = 64
TICK_S: Final = 1.0
ANCHORS_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """How a fleet behaves."""

    jobs: int = 1
    """Each device ends after so many; 0: it goes on until it is stopped."""
    seconds: float | None = None
    """The fleet ends after so long, done or not."""
    block_size_bytes: int = 4096
    window_blocks: int = 8
    """Asked for at once; also the most that a device holds out of order."""
    primary: TransferProtocol = TransferProtocol.MQTT
    """How blocks come where a job offers both ways."""
    fail_percent: int = 0
    """So many devices of a hundred refuse whatever they get."""
    reset: bool = False
    """They begin as from the factory, whatever they ran before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What came of it."""

    devices: int
    succeeded: int
    failures: Mapping[str, int]
    refusals: Mapping[str, int]
    """Connections that didn't come about, by reason."""
    unfinished: int
    """Devices that hadn't done what they were to do."""
    seconds: float
    connects: int
    reconnects: int
    blocks: int
    bytes: int
    requests: int
    repeated_requests: int
    cpu_s: float
    """Of this process."""
    memory_mib: float
    """Its largest resident size."""

    @property
    def blocks_per_s(self) -> float:
        return self.blocks / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "devices": self.devices,
            "succeeded": self.succeeded,
            "failures": dict(self.failures),
            "refusals": dict(self.refusals),
            "unfinished": self.unfinished,
            "seconds": round(self.seconds, 3),
            "devices_per_s": round(self.succeeded / self.seconds, 1) if self.seconds else 0.0,
            "connects": self.connects,
            "reconnects": self.reconnects,
            "blocks": self.blocks,
            "bytes": self.bytes,
            "blocks_per_s": round(self.blocks_per_s, 1),
            "requests": self.requests,
            "repeated_requests": self.repeated_requests,
            "cpu_s": round(self.cpu_s, 2),
            "cpu_ms_per_device": round(self.cpu_s / self.devices * 1000, 2) if self.devices else 0.0,
            "memory_mib": round(self.memory_mib, 1),
        }


def directories_below(root: Path, count: int | None) -> list[DeviceDirectory]:
    """The device directories in a folder, by name; the first ``count``.

    Raises:
        BadDeviceDirectory: there are none, or fewer.
    """
    found = sorted(path.parent for path in root.glob("*/device.json"))
    if not found or (count is not None and len(found) < count):
        raise BadDeviceDirectory(
            f"{root} holds {len(found)} device directories{'' if count is None else f', and {count} are wanted'}. "
            f"Make some with: overair device enroll NAME --count N --out {root}"
        )
    return [DeviceDirectory(path) for path in found[:count]]


class Fleet:
    """N virtual devices on one loop."""

    def __init__(
        self,
        directories: Sequence[DeviceDirectory],
        settings: FleetSettings,
        *,
        monotonic: Callable[[], float],
        chance: random.Random,
    ) -> None:
        """Raises BadDeviceDirectory where one of the directories can't be used."""
        self._settings = settings
        self._monotonic = monotonic
        self._chance = chance
        self.tally = Tally()
        self._anchors: dict[bytes, Sequence[SignerCertificate]] = {}
        self._members = [(directory, read_settings(directory), self._anchors_of(directory)) for directory in directories]
        self.devices: list[VirtualDevice] = []
        self._began_s = 0.0

    async def run(self, stop: asyncio.Event, *, show: Callable[[Fleet], None] | None = None) -> Summary:
        """Until every device has done its jobs, the time is over, or ``stop`` is set. ``show`` is called each second."""
        self._began_s = self._monotonic()
        cpu_before = _cpu_s()
        gate = asyncio.Semaphore(HANDSHAKES_AT_ONCE)
        tasks: list[asyncio.Task[None]] = []
        ranges: list[FleetRanges] = []
        downloads = _download_contexts()
        try:
            for number, (directory, settings, anchors) in enumerate(self._members):
                ranges.append(FleetRanges(downloads(directory, settings), gate=gate))
                version = RunningVersion(directory.run)
                if self._settings.reset:
                    version.forget()
                device = VirtualDevice(
                    settings.thing_name,
                    anchors=anchors,
                    tally=self.tally,
                    monotonic=self._monotonic,
                    ranges=ranges[-1],
                    block_size_bytes=self._settings.block_size_bytes,
                    window_blocks=self._settings.window_blocks,
                    primary=self._settings.primary,
                    fails=number * 100 // max(1, len(self._members)) < self._settings.fail_percent,
                    running=version.read(),
                    remember=version.write,
                )
                self.devices.append(device)
                endpoint = Endpoint(host=settings.mqtt_host, port=settings.mqtt_port, context=_mutual_tls(directory, settings))
                connecting = keep_connected(
                    device, endpoint, tally=self.tally, gate=gate, chance=random.Random(self._chance.random())
                )
                tasks.append(asyncio.create_task(connecting))
            await self._until_done(stop, show)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for each in ranges:
                each.close()
        return self._summary(cpu_s=_cpu_s() - cpu_before)

    @property
    def unfinished(self) -> int:
        """Devices that have something to do yet."""
        wanted = self._settings.jobs
        return sum(device.ended < wanted for device in self.devices) if wanted else 0

    @property
    def is_endless(self) -> bool:
        """It goes on until it is stopped."""
        return self._settings.jobs == 0

    @property
    def elapsed_s(self) -> float:
        return self._monotonic() - self._began_s

    async def _until_done(self, stop: asyncio.Event, show: Callable[[Fleet], None] | None) -> None:
        wait = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set() and (self._settings.jobs == 0 or self.unfinished):
                left = TICK_S
                if self._settings.seconds is not None:
                    left = min(left, self._settings.seconds - self.elapsed_s)
                if left <= 0:
                    return
                await asyncio.wait((wait,), timeout=min(left, self._look_again_s()))
                for device in self.devices:
                    device.tick()
                if show is not None:
                    show(self)
        finally:
            wait.cancel()

    def _look_again_s(self) -> float:
        """Sooner where a fleet may be done any moment, so that its time is measured and not the tick."""
        return TICK_S if self.unfinished > len(self.devices) // 20 or self._settings.jobs == 0 else 0.05

    def _anchors_of(self, directory: DeviceDirectory) -> Mapping[str, Sequence[SignerCertificate]]:
        """The device's own trust; one certificate for all that have the same."""
        found: dict[str, Sequence[SignerCertificate]] = {}
        for path in sorted(directory.trust.glob("*.pem"))[:ANCHORS_MAX]:
            try:
                pem = path.read_bytes()
                known = self._anchors.get(pem) or trusted_in(pem)[1]
            except (OSError, BadSignerCertificate) as error:
                raise BadDeviceDirectory(f"{path} can't be used: {error}") from None
            self._anchors[pem] = known
            found[path.stem] = known
        return found

    def _summary(self, *, cpu_s: float) -> Summary:
        tally = self.tally
        return Summary(
            devices=len(self.devices),
            succeeded=tally.succeeded,
            failures=dict(tally.failures.most_common()),
            refusals=dict(tally.refusals.most_common()),
            unfinished=self.unfinished,
            seconds=self.elapsed_s,
            connects=tally.connects,
            reconnects=tally.reconnects,
            blocks=tally.blocks,
            bytes=tally.bytes,
            requests=tally.requests,
            repeated_requests=tally.repeated_requests,
            cpu_s=cpu_s,
            memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )


def _mutual_tls(directory: DeviceDirectory, settings: DeviceSettings) -> Callable[[], ssl.SSLContext]:
    return lambda: device_context(directory, settings)


def _download_contexts() -> Callable[[DeviceDirectory, DeviceSettings], ssl.SSLContext]:
    """One context for each authority: downloads show no certificate, so that devices may share it."""
    known: dict[bytes, ssl.SSLContext] = {}

    def context(directory: DeviceDirectory, settings: DeviceSettings) -> ssl.SSLContext:
        authority = directory.ca_file(settings).read_bytes()
        if authority not in known:
            known[authority] = tls_context(directory.ca_file(settings))
        return known[authority]

    return context


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system
