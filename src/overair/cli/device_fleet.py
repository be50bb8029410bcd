"""``overair-device fleet``: N virtual devices in one process."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import secrets
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overair.agent.device_directory import BadDeviceDirectory
from overair.wire.blocks import BLOCK_SIZE_BYTES_MAX, BLOCK_SIZE_BYTES_MIN
from overair.wire.job_document import TransferProtocol

if TYPE_CHECKING:  # the boot loader's command passes by here, and has no use for a broker's client
    from overair.agent.fleet.fleet import Fleet, Summary

DONE, FAILED = 0, 3
FILES_EACH = 2
"""A connection for MQTT, and one for ranges."""
FILES_BESIDES = 64


def add_to(commands: Any) -> None:
    """Add ``fleet`` to the device's commands."""
    fleet = commands.add_parser(
        "fleet",
        help="run many virtual devices in one process, for load and demonstrations",
        description="Each directory below DIR is a device of its own (overair device enroll NAME --count N --out DIR): its "
        "key, its certificate, its connection. They do the jobs they are given, verify every image, and install none.",
    )
    fleet.add_argument("directory", type=Path, metavar="DIR", help="the folder with the devices' directories")
    fleet.add_argument("--count", type=_whole(1, 1_000_000), metavar="N", help="the first N of them [all]")
    fleet.add_argument(
        "--jobs", type=_whole(0, 1_000_000), default=1, metavar="N", help="jobs each does; 0: no end [%(default)s]"
    )
    fleet.add_argument("--seconds", type=float, metavar="S", help="end after so long, done or not")
    fleet.add_argument("--block-size", type=_whole(BLOCK_SIZE_BYTES_MIN, BLOCK_SIZE_BYTES_MAX), default=4096, metavar="BYTES")
    fleet.add_argument("--window", type=_whole(1, 512), default=8, metavar="N", help="blocks asked for at once [%(default)s]")
    fleet.add_argument(
        "--protocol", choices=["mqtt", "http"], default="mqtt", help="how blocks come where a job offers both [%(default)s]"
    )
    fleet.add_argument(
        "--fail-percent", type=_whole(0, 100), default=0, metavar="P", help="so many devices of a hundred refuse every image"
    )
    fleet.add_argument("--reset", action="store_true", help="they begin as from the factory, whatever they ran before")
    fleet.add_argument("--json", action="store_true", help="the summary as one JSON document")
    fleet.set_defaults(command=_fleet)


def _whole(low: int, high: int) -> Any:
    def whole(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"say a whole number from {low} to {high}")
        return int(text)

    return whole


def _fleet(options: argparse.Namespace) -> int:
    from overair.agent.fleet.fleet import Fleet, FleetSettings, directories_below

    settings = FleetSettings(
        jobs=options.jobs,
        seconds=options.seconds,
        block_size_bytes=options.block_size,
        window_blocks=options.window,
        primary=TransferProtocol(options.protocol.upper()),
        fail_percent=options.fail_percent,
        reset=options.reset,
    )
    directories = directories_below(options.directory.resolve(), options.count)
    _allow_connections(len(directories))
    # Not for secrets: apart from other fleets, back-off needs no more.
    fleet = Fleet(directories, settings, monotonic=time.monotonic, chance=random.Random(secrets.randbits(64)))
    summary: Summary = _run_on_a_loop(_until_the_end(fleet, quiet=options.json))
    if options.json:
        print(json.dumps(summary.to_json(), indent=2))
    else:
        _tell(summary)
    return FAILED if summary.failures or summary.unfinished else DONE


def _allow_connections(devices: int) -> None:
    """Raise the limit on open files as far as it takes and may be.

    Raises:
        BadDeviceDirectory: so many devices can't be connected at once here.
    """
    wanted = devices * FILES_EACH + FILES_BESIDES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in (resource.RLIM_INFINITY, -1) and wanted > hard:
        raise BadDeviceDirectory(
            f"{devices} devices need {wanted} open files, and this system lets a program have {hard} (`ulimit -Hn`). "
            "Say a smaller --count, or run several fleets."
        )
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _until_the_end(fleet: Fleet, *, quiet: bool) -> Summary:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await fleet.run(stop, show=None if quiet or not sys.stderr.isatty() else _show)


def _run_on_a_loop(work: Coroutine[Any, Any, Summary]) -> Summary:
    """On uvloop where it is there (the server's install has it, a device's needn't): about half the CPU."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    summary: Summary = uvloop.run(work)
    return summary


def _show(fleet: Fleet) -> None:
    tally, count = fleet.tally, len(fleet.devices)
    left = f"{count:,} devices" if fleet.is_endless else f"{fleet.unfinished:,} of {count:,} to go"
    line = (
        f"{tally.succeeded:,} done, {tally.failures.total():,} failed, {left}; "
        f"{tally.blocks / max(fleet.elapsed_s, 0.001):,.0f} blocks/s"
    )
    sys.stderr.write(f"\r\x1b[K{line[:79]}")
    sys.stderr.flush()


def _tell(summary: Summary) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    told = summary.to_json()
    rate = f"{told['devices_per_s']:,} a second"
    print(f"{summary.devices:,} devices in {summary.seconds:,.1f} s: {summary.succeeded:,} jobs done, {rate}")
    print(
        f"  blocks     {summary.blocks:,} ({summary.bytes / 2**20:,.1f} MiB), {summary.blocks_per_s:,.0f} a second; "
        f"{summary.requests:,} requests, {summary.repeated_requests:,} of them again"
    )
    print(f"  connected  {summary.connects:,} times, {summary.reconnects:,} of them again")
    print(f"  here       {told['cpu_ms_per_device']} ms of CPU each, {summary.memory_mib:,.0f} MiB in all")
    for cause, count in {
        **summary.failures,
        **{f"no connection: {why}": many for why, many in summary.refusals.items()},
    }.items():
        print(f"  {count:>9,}  {cause}")
    if summary.unfinished:
        print(f"  {summary.unfinished:>9,}  not done yet")
