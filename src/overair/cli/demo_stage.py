"""The demo's stage: a server, devices, each its own process, and an eye on a job until everybody is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live

from overair.agent.device_directory import DeviceDirectory
from overair.agent.image_builder import build_image
from overair.agent.progress import read_progress
from overair.cli.demo_picture import Outcome, Round, bars
from overair.cli.device import HARDWARE_ID_DEFAULT, enroll_device
from overair.cli.dispatch import wait_until_created
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import Operator, operator_of
from overair.cli.watch import TERMINAL, Follow, executions

DEVICES = ("kitchen", "attic", "garage")
GROUP = "demo"
IMAGE_NAME = "demo"
PAYLOAD_SIZE_BYTES = 4_000_000
START_TIMEOUT_S = 30.0
ROUND_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 10.0
REDRAW_INTERVAL_S = 0.1
DEVICE_COMMAND = "overair.cli.device_main"
OPERATOR_COMMAND = "overair.cli.main"
NOTHING_YET = "nothing yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is running."""

    operator: Operator
    folder: Path
    devices: dict[str, DeviceDirectory]
    console: Console

    @property
    def target(self) -> str:
        endpoints = self.operator.endpoints
        return f"arn:aws:iot:{endpoints.region}:{endpoints.account}:thinggroup/{GROUP}"


# Set-up ---------------------------------------------------------------------------------------------------------------


def set_up(stack: ExitStack, folder: Path, console: Console) -> Stage:
    began = time.monotonic()
    operator = stack.enter_context(_server(folder))
    console.print(f"Server up at {operator.endpoints.operator_url} in {time.monotonic() - began:.1f} s.")
    first = folder / "demo-1.0.0.zip"
    first.write_bytes(build_image(IMAGE_NAME, "1.0.0", HARDWARE_ID_DEFAULT))
    devices = {}
    for name in DEVICES:
        enroll_device(operator, name, folder / name, group=GROUP)
        run_to_end(DEVICE_COMMAND, "flash", str(folder / name), str(first))
        stack.enter_context(running(folder / name / "boot.log", "boot", "--device", str(folder / name)))
        devices[name] = DeviceDirectory(folder / name)
    console.print(f"{len(DEVICES)} devices enrolled, flashed with 1.0.0 and booted, each its own process.")
    return Stage(operator=operator, folder=folder, devices=devices, console=console)


@contextmanager
def _server(folder: Path) -> Iterator[Operator]:
    data = folder / "server"
    ports = [flag for port in ("operator", "mqtt", "device") for flag in (f"--{port}-port", "0")]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", OPERATOR_COMMAND, "up", "--json", "--data", str(data), *ports],
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(),
        )
    try:
        _await_endpoints(process, folder / "server.log")
        yield operator_of(data)
    finally:
        _stop(process)


def _await_endpoints(process: subprocess.Popen[bytes], log: Path) -> None:
    assert process.stdout is not None
    # The document ends with a closing brace at the start of a line; the server prints it once every port accepts.
    for line in process.stdout:
        if line.rstrip() == b"}":
            return
    raise CommandEnded(ExitCode.REFUSED, f"The server did not start:\n{log.read_text(errors='replace')[-2000:]}")


@contextmanager
def running(log: Path, *arguments: str) -> Iterator[None]:
    """A device's command as a process of its own, until the demo ends."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", DEVICE_COMMAND, *arguments], stdout=file, stderr=file, env=_environment()
        )
    try:
        yield
    finally:
        _stop(process)


def run_to_end(module: str, *arguments: str) -> str:
    """One of our commands; what it prints."""
    ended = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
        check=False,
        env=_environment(),
    )
    if ended.returncode:
        raise CommandEnded(ExitCode.REFUSED, f"{' '.join(arguments)}: {ended.stderr.strip()}")
    return ended.stdout


def wait_for(stage: Stage, condition: Callable[[], bool], otherwise: str) -> None:
    """Until it holds, or the demo ends with the last words of everybody in it."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise CommandEnded(ExitCode.TIMED_OUT, f"{otherwise} within {START_TIMEOUT_S:g} s.\n{_last_words(stage)}")
        time.sleep(REDRAW_INTERVAL_S)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "OVERAIR_"))}


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# A job, followed --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Vehicle:
    """A thing with ECUs. ``running`` tells what each of them runs, as its own signed manifest says."""

    thing: str
    running: Callable[[], Mapping[str, str]]


def follow_update(stage: Stage, update: str, name: str, *, expected_status: str, expected_version: str) -> Round:
    """As ``follow_job``, of an OTA update for the devices alone."""
    job = wait_until_created(stage.operator, update)
    return follow_job(stage, job, name, expected_status=expected_status, expected_version=expected_version)


def follow_job(
    stage: Stage, job: str, name: str, *, expected_status: str, expected_version: str, vehicles: Sequence[Vehicle] = ()
) -> Round:
    """Draw a job until it has ended for every device and vehicle; what came of it."""
    stage.console.print(f"\n[bold]{name}[/bold]")
    before = _running(stage, vehicles)
    everybody = {*stage.devices, *(vehicle.thing for vehicle in vehicles)}
    began = time.monotonic()
    ended: dict[str, float] = {}
    blocks: dict[str, int] = {}
    followed: list[Follow] = []
    asked_at = 0.0
    with Live(console=stage.console, auto_refresh=False, transient=False) as live:
        while not everybody <= ended.keys():
            elapsed = time.monotonic() - began
            if elapsed > ROUND_TIMEOUT_S:
                raise CommandEnded(ExitCode.TIMED_OUT, f"{name}: not done after {ROUND_TIMEOUT_S:g} s.\n{_last_words(stage)}")
            if elapsed - asked_at >= 5 * REDRAW_INTERVAL_S:
                asked_at = elapsed
                followed = executions(stage.operator, job)
                for each in followed:
                    if each.status in TERMINAL:
                        ended.setdefault(each.thing, elapsed)
            progress = {device: read_progress(directory.run / "progress.json") for device, directory in stage.devices.items()}
            for device, moment in progress.items():
                if moment is not None and moment.last_job == job:
                    blocks[device] = moment.last_received_blocks
            live.update(bars(followed, progress, job, ended, elapsed), refresh=True)
            time.sleep(REDRAW_INTERVAL_S)  # the pace of the picture
    for directory in stage.devices.values():
        _wait_until_settled(directory, expected_version)
    after = _running(stage, vehicles)
    outcomes = tuple(
        Outcome(
            device=shown,
            from_version=before[each.thing].get(shown, NOTHING_YET),
            to_version=version,
            blocks=blocks.get(each.thing, 0) if each.thing in stage.devices else None,
            seconds=round(ended[each.thing], 1),
            status=each.status,
            reason=each.what,
        )
        for each in followed
        for shown, version in sorted(after[each.thing].items())
    )
    return Round(name=name, expected_status=expected_status, expected_version=expected_version, outcomes=outcomes)


def _running(stage: Stage, vehicles: Sequence[Vehicle]) -> dict[str, dict[str, str]]:
    """Thing → what runs on it, by the names that the tables show: the thing's own, or one for each ECU."""
    running = {device: {device: _running_version(directory)} for device, directory in stage.devices.items()}
    for vehicle in vehicles:
        running[vehicle.thing] = {
            f"{vehicle.thing} {serial}": image.removeprefix(f"{IMAGE_NAME}-") or NOTHING_YET
            for serial, image in vehicle.running().items()
        }
    return running


def _running_version(directory: DeviceDirectory) -> str:
    progress = read_progress(directory.run / "progress.json")
    return progress.version if progress else "1.0.0"


def _wait_until_settled(directory: DeviceDirectory, expected: str) -> None:
    """After a roll-back the device's process needs a moment to be back."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while _running_version(directory) != expected and time.monotonic() < deadline:
        time.sleep(REDRAW_INTERVAL_S)


def _last_words(stage: Stage) -> str:
    logs = [stage.folder / "server.log", *(device.root / "boot.log" for device in stage.devices.values())]
    logs += sorted(stage.folder.glob("uptane-*.log"))
    return "\n".join(f"--- {log.name} of {log.parent.name}\n{log.read_text(errors='replace')[-800:]}" for log in logs)
