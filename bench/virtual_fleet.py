"""A fleet of virtual devices to SUCCEEDED, over MQTT and over HTTPS; and what making and looking at a job costs beside peers.

The devices are ``overair-device fleet``, a process of its own: each has its key and certificate, shakes hands with mutual TLS,
takes the image, verifies it and reports. The clock runs from the start of that process's first connection to the last
acknowledged report.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from bench.measure import cpu_seconds, settled
from bench.processes import NotRun, Overair, Peer, Target, clean_environment
from bench.profiles import Profile

GROUP: Final = "bench-virtual"
IMAGE_SIZE_BYTES: Final = 256 * 1024
FLEET_TIMEOUT_S: Final = 600.0
PROTOCOLS: Final = ("MQTT", "HTTP")
WINDOWS: Final = {"MQTT": "8", "HTTP": "32"}
"""Blocks of 4 KiB in one request: as C agents ask, and as ranges are asked for by whoever has the room."""
THREADS: Final = 8
CALLS_COUNT: Final = {1: 50, 100: 20}
CALLS_COUNT_OF_MANY: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRun:
    """One update of the whole fleet over one protocol."""

    protocol: str
    devices: int
    succeeded: int
    seconds: float
    blocks_per_s: float
    server_cpu_ms: float
    """For each device: handshake, blocks, reports."""
    fleet_cpu_ms: float
    fleet_memory_mib: float
    repeated_requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCall:
    """One call against one server, through boto3."""

    name: str
    subject: str
    milliseconds: float
    """Median."""
    cpu_ms: float
    """Of the server for each call, with what it does after the answer."""


@dataclass(slots=True, kw_only=True)
class VirtualFleetResults:
    """What was measured."""

    runs: list[FleetRun] = field(default_factory=list)
    calls: list[JobCall] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)


async def measure_virtual_fleet(profile: Profile, work: Path) -> VirtualFleetResults:
    """Start the servers, enrol the fleet, measure, end them."""
    results = VirtualFleetResults()
    with ExitStack() as stack:
        overair = Overair(work / "virtual-fleet")
        overair.start()
        stack.callback(overair.stop)
        devices = work / "virtual-devices"
        enrolled = ("bench-virtual", "--count", str(profile.virtual_devices_count), "--group", GROUP, "--out", str(devices))
        _run("overair.cli.main", "device", "enroll", *enrolled, "--data", str(overair.data))
        for protocol in PROTOCOLS:
            results.runs.append(await _fleet_run(overair, devices, protocol, count=profile.virtual_devices_count))
    subjects = [("overair", None), *((name, name) for name in profile.peers)]
    for name, peer_name in subjects:
        with ExitStack() as stack:
            try:
                target = _started(stack, work, peer_name)
            except NotRun as reason:
                results.not_run.append(str(reason))
                continue
            await _calls(target, profile.job_targets_counts, results, name=name)
    return results


def _started(stack: ExitStack, work: Path, peer_name: str | None) -> Target:
    """Raises NotRun."""
    if peer_name is None:
        overair = Overair(work / "virtual-jobs")
        overair.start()
        stack.callback(overair.stop)
        return overair.target(tls=False)
    peer = Peer(peer_name, work)
    target = peer.start()
    stack.callback(peer.stop)
    return target


# -- the fleet ---------------------------------------------------------------------------------------------------------


async def _fleet_run(overair: Overair, devices: Path, protocol: str, *, count: int) -> FleetRun:
    _offer(overair, protocol)
    await settled(overair.pid)
    before = cpu_seconds(overair.pid)
    how = ("--json", "--protocol", protocol.lower(), "--seconds", str(FLEET_TIMEOUT_S), "--window", WINDOWS[protocol])
    told = json.loads(await asyncio.to_thread(_run, "overair.cli.device_main", "fleet", str(devices), *how))
    await settled(overair.pid)
    return FleetRun(
        protocol=protocol,
        devices=count,
        succeeded=told["succeeded"],
        seconds=told["seconds"],
        blocks_per_s=told["blocks_per_s"],
        server_cpu_ms=(cpu_seconds(overair.pid) - before) / count * 1000,
        fleet_cpu_ms=told["cpu_ms_per_device"],
        fleet_memory_mib=told["memory_mib"],
        repeated_requests=told["repeated_requests"],
    )


def _offer(overair: Overair, protocol: str) -> None:
    """An OTA update of random bytes to all of them, whole when this returns."""
    at, target = overair.endpoints, overair.target(tls=False)
    iot, key = target.client("iot"), f"virtual-{protocol.lower()}.bin"
    uploaded = target.client("s3").put_object(Bucket=at["bucket"], Key=key, Body=os.urandom(IMAGE_SIZE_BYTES))
    update = f"virtual-{protocol.lower()}"
    iot.create_ota_update(
        otaUpdateId=update,
        targets=[f"arn:aws:iot:{at['region']}:{at['account']}:thinggroup/{GROUP}"],
        protocols=[protocol],
        awsJobPresignedUrlConfig={"expiresInSec": 3600},
        files=[
            {
                "fileName": "firmware",
                "fileVersion": "1",
                "fileLocation": {"s3Location": {"bucket": at["bucket"], "key": key, "version": uploaded["VersionId"]}},
                "codeSigning": {
                    "startSigningJobParameter": {
                        "signingProfileName": at["signing_profile"],
                        "destination": {"s3Destination": {"bucket": at["bucket"], "prefix": "SignedImages/"}},
                    }
                },
            }
        ],
        roleArn=at["ota_role_arn"],
    )
    until = time.perf_counter() + 120
    while (status := iot.get_ota_update(otaUpdateId=update)["otaUpdateInfo"]["otaUpdateStatus"]) != "CREATE_COMPLETE":
        if status == "CREATE_FAILED" or time.perf_counter() > until:
            raise RuntimeError(f"{update} is {status}")
        time.sleep(0.05)


def _run(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=False,
    )
    if done.returncode not in (0, 3):  # 3: some devices failed, which the numbers tell
        raise RuntimeError(f"{module} {arguments[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


# -- jobs, beside peers ------------------------------------------------------------------------------------------------


async def _calls(target: Target, counts: Sequence[int], results: VirtualFleetResults, *, name: str) -> None:
    iot = target.client("iot")
    arns = _things(iot, max(counts))
    for count in counts:
        calls = min(CALLS_COUNT.get(count, CALLS_COUNT_OF_MANY), CALLS_COUNT[1])
        took: list[float] = []
        await settled(target.pid)
        before = cpu_seconds(target.pid)
        try:
            for number in range(calls):
                began = time.perf_counter()
                iot.create_job(
                    jobId=f"j-{count}-{number}", targets=arns[:count], document='{"do":"it"}', targetSelection="SNAPSHOT"
                )
                took.append((time.perf_counter() - began) * 1000)
        except (ClientError, BotoCoreError) as error:
            results.not_run.append(f"{name}, CreateJob over {count:,}: {type(error).__name__}: {str(error)[:160]}")
            continue
        await settled(target.pid)
        cpu_ms = (cpu_seconds(target.pid) - before) / calls * 1000
        results.calls.append(
            JobCall(name=f"CreateJob, {count:,} targets", subject=name, milliseconds=statistics.median(took), cpu_ms=cpu_ms)
        )
    await _describe(target, iot, arns[0], results, name=name, job=f"j-{counts[0]}-0")


async def _describe(target: Target, iot: Any, arn: str, results: VirtualFleetResults, *, name: str, job: str) -> None:
    thing, took, calls = arn.rsplit("/", 1)[1], [], CALLS_COUNT[1]
    await settled(target.pid)
    before = cpu_seconds(target.pid)
    try:
        for _ in range(calls):
            began = time.perf_counter()
            iot.describe_job_execution(jobId=job, thingName=thing)
            took.append((time.perf_counter() - began) * 1000)
    except (ClientError, BotoCoreError) as error:
        results.not_run.append(f"{name}, DescribeJobExecution: {type(error).__name__}: {str(error)[:160]}")
        return
    await settled(target.pid)
    cpu_ms = (cpu_seconds(target.pid) - before) / calls * 1000
    results.calls.append(
        JobCall(name="DescribeJobExecution", subject=name, milliseconds=statistics.median(took), cpu_ms=cpu_ms)
    )


def _things(iot: Any, count: int) -> list[str]:
    """So many things; their ARNs."""
    with ThreadPoolExecutor(THREADS) as threads:
        made = threads.map(lambda number: iot.create_thing(thingName=f"many-{number:05}"), range(count))
        return [str(each["thingArn"]) for each in made]


# -- the report --------------------------------------------------------------------------------------------------------


def virtual_fleet_lines(results: VirtualFleetResults) -> list[str]:
    """The section of RESULTS.md."""
    lines = [
        "## A virtual fleet, and jobs beside peers",
        "",
        f"`overair-device fleet`: each device with its own key and certificate and mutual TLS, {IMAGE_SIZE_BYTES // 1024} KiB "
        "each, from the first handshake to the last acknowledged SUCCEEDED; images verified. Fleet and server share the cores. "
        f"Blocks of 4 KiB, {WINDOWS['MQTT']} in one request over MQTT, ranges of {WINDOWS['HTTP']} over HTTPS.",
        "",
        "| | devices | done | seconds | blocks per s | server CPU ms each | fleet CPU ms each | fleet MiB | asked again |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in results.runs:
        lines.append(
            f"| over {run.protocol} | {run.devices:,} | {run.succeeded:,} | {run.seconds:,.1f} | {run.blocks_per_s:,.0f} "
            f"| {run.server_cpu_ms:,.1f} | {run.fleet_cpu_ms:,.1f} | {run.fleet_memory_mib:,.0f} | {run.repeated_requests:,} |"
        )
    lines += [
        "",
        "Through boto3, one call after another, plain HTTP; boto3's own time is in it. We answer after the commit.",
        "",
        "| call | subject | ms, median | server CPU ms |",
        "|---|---|---|---|",
    ]
    for call in sorted(results.calls, key=lambda each: each.name):
        lines.append(f"| {call.name} | {call.subject} | {call.milliseconds:,.1f} | {call.cpu_ms:,.1f} |")
    lines.append("")
    if results.not_run:
        lines += ["Not run: " + "; ".join(results.not_run) + ".", ""]
    return lines


def virtual_fleet_shortfalls(results: VirtualFleetResults) -> list[str]:
    """What isn't as it should be, in sentences."""
    return [
        f"Over {run.protocol} {run.succeeded:,} of {run.devices:,} virtual devices came to SUCCEEDED."
        for run in results.runs
        if run.succeeded < run.devices
    ]


def read_virtual_fleet(document: Any) -> VirtualFleetResults | None:
    """From ``results.json``."""
    if document is None:
        return None
    return VirtualFleetResults(
        runs=[FleetRun(**run) for run in document["runs"]],
        calls=[JobCall(**call) for call in document["calls"]],
        not_run=list(document["not_run"]),
    )
