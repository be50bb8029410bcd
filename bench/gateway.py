"""The device gateway: blocks, status updates, idle connections, handshakes, a restart; a plain relay beside it."""

from __future__ import annotations

import asyncio
import resource
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.fleet import IMAGE_SIZE_BYTES, Fleet
from bench.measure import Measured, Subject, interleaved, resident_bytes, settled
from bench.mqtt_load import BlockTaker, Device, Endpoint, Identity, open_many, report_statuses, take_blocks
from bench.processes import NotRun, Overair
from bench.profiles import Profile
from bench.relay import Relay

BLOCK_SIZE_BYTES = 4096
DESCRIPTORS_SPARE = 512


@dataclass(slots=True, kw_only=True)
class GatewayResults:
    """What was measured, and what wasn't, with the reason."""

    blocks: list[Measured] = field(default_factory=list)
    statuses: list[Measured] = field(default_factory=list)
    handshakes: list[Measured] = field(default_factory=list)
    idle_connections_count: int = 0
    idle_certificates_count: int = 0
    idle_kib_each: float = 0.0
    restart_s: list[float] = field(default_factory=list)
    first_start_s: float = 0.0
    things_at_restart_count: int = 0
    not_run: list[str] = field(default_factory=list)

    @property
    def restart_median_s(self) -> float:
        return statistics.median(self.restart_s)


async def measure_gateway(profile: Profile, work: Path) -> GatewayResults:
    """Start the server and its devices, measure, end them."""
    results = GatewayResults()
    with ExitStack() as stack:
        overair = Overair(work / "gateway")
        stack.callback(overair.stop)
        # Before the server starts: it inherits the limit.
        _allow_descriptors(profile.idle_connections_count)
        results.first_start_s = overair.start()
        fleet = Fleet(overair, work)
        await _measure_blocks(profile, fleet, results, work, stack)
        await _measure_statuses(profile, fleet, results)
        await _measure_handshakes(profile, fleet, results)
        fleet.enroll(profile.idle_certificates_count)
        results.things_at_restart_count = len(fleet.identities)
        for _ in range(profile.rounds):
            overair.stop()
            results.restart_s.append(overair.start())
        # In a process that has held no other connections: memory that those left free would hide what these take.
        await _measure_idle(profile, fleet, results)
    return results


def _allow_descriptors(connections_count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections_count + DESCRIPTORS_SPARE
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise NotRun(f"{connections_count} connections need {wanted} open files; this machine allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# Blocks ---------------------------------------------------------------------------------------------------------------


async def _measure_blocks(profile: Profile, fleet: Fleet, results: GatewayResults, work: Path, stack: ExitStack) -> None:
    identities = fleet.enroll(profile.taking_devices_count)
    stream = fleet.offer_stream()
    subjects: list[Subject] = []
    crowds: list[list[Device]] = []
    endpoints: list[tuple[str, int, Endpoint]] = [("overair GetStream", fleet.overair.pid, fleet.endpoint)]
    if profile.relay:
        try:
            relay = Relay(work, [each.thing for each in identities], stream=stream, block_size_bytes=BLOCK_SIZE_BYTES)
            stack.callback(relay.stop)
            endpoints.append(("mosquitto relay", relay.start(), relay.endpoint))
        except NotRun as reason:
            results.not_run.append(str(reason))
    for name, pid, endpoint in endpoints:
        own = identities if name.startswith("overair") else relay.identities
        for blocks_per_request in profile.blocks_per_request:
            devices = await open_many(endpoint, own, count=len(own), prefix=f"n{blocks_per_request}-")
            crowds.append(devices)
            takers = [
                BlockTaker(
                    device,
                    stream=stream,
                    size_bytes=IMAGE_SIZE_BYTES,
                    block_size_bytes=BLOCK_SIZE_BYTES,
                    blocks_per_request=blocks_per_request,
                )
                for device in devices
            ]
            for device, taker in zip(devices, takers, strict=True):
                await device.ask(device.wire.subscribe((taker.data_topic, 0)))
            subjects.append(_taking(f"{name}, n={blocks_per_request}", pid, devices, takers, profile.seconds))
    results.blocks = await interleaved(subjects, rounds=profile.rounds, seconds=profile.seconds)
    _close(crowds)


def _taking(name: str, pid: int, devices: list[Device], takers: list[BlockTaker], seconds: float) -> Subject:
    async def run() -> int:
        return await take_blocks(devices, takers, seconds=seconds)

    return Subject(name=name, pid=pid, run=run)


def _close(crowds: Sequence[Sequence[Device]]) -> None:
    for devices in crowds:
        for device in devices:
            device.close()


# Status updates -------------------------------------------------------------------------------------------------------


async def _measure_statuses(profile: Profile, fleet: Fleet, results: GatewayResults) -> None:
    identities = fleet.enroll(profile.reporting_devices_count)
    jobs = fleet.offer_jobs(identities)
    devices = await open_many(fleet.endpoint, identities, count=len(identities))
    for device, job in zip(devices, jobs, strict=True):
        topic = f"$aws/things/{device.thing}/jobs/{job}/update"
        await device.ask(device.wire.subscribe((f"{topic}/accepted", 0), (f"{topic}/rejected", 0)))
    results.statuses = await interleaved(
        [
            _reporting(
                f"status updates, {len(devices)} devices, {in_flight} in flight each",
                fleet.overair.pid,
                devices,
                jobs,
                in_flight,
            )
            for in_flight in (1, 4)
        ],
        rounds=profile.rounds,
        seconds=profile.seconds,
    )
    _close([devices])


def _reporting(name: str, pid: int, devices: list[Device], jobs: list[str], in_flight: int) -> Subject:
    state = {"each": 1}

    async def prepare(count: int) -> None:
        state["each"] = max(1, count // len(devices))

    async def run() -> int:
        return await report_statuses(devices, jobs=jobs, each=state["each"], in_flight=in_flight)

    return Subject(name=name, pid=pid, prepare=prepare, run=run, first_count=len(devices) * 4, count_max=20_000)


# Connections ----------------------------------------------------------------------------------------------------------


async def _measure_handshakes(profile: Profile, fleet: Fleet, results: GatewayResults) -> None:
    identities = fleet.enroll(profile.reporting_devices_count)
    open_devices: list[Device] = []

    async def prepare(_count: int) -> None:
        _close([open_devices])
        open_devices.clear()

    async def run() -> int:
        open_devices.extend(await open_many(fleet.endpoint, identities, count=profile.handshakes_count))
        return profile.handshakes_count

    subject = Subject(name="mutual TLS handshake and CONNECT", pid=fleet.overair.pid, prepare=prepare, run=run)
    results.handshakes = await interleaved([subject], rounds=profile.rounds, seconds=profile.seconds)
    _close([open_devices])


async def _measure_idle(profile: Profile, fleet: Fleet, results: GatewayResults) -> None:
    # Each with a certificate of its own, as a fleet has; the short profile shares a few.
    identities: Sequence[Identity] = fleet.enroll(profile.idle_certificates_count)
    warm = await open_many(fleet.endpoint, identities[:8], count=8)
    await settled(fleet.overair.pid)
    before = resident_bytes(fleet.overair.pid)
    devices = await open_many(fleet.endpoint, identities, count=profile.idle_connections_count, prefix="idle-")
    await settled(fleet.overair.pid)
    await asyncio.sleep(min(2.0, profile.seconds))
    for device in devices:
        if device.lost.done():
            device.lost.result()
    grown = resident_bytes(fleet.overair.pid) - before
    results.idle_connections_count = len(devices)
    results.idle_certificates_count = len(identities)
    results.idle_kib_each = grown / len(devices) / 1024
    _close([devices, warm])
