"""What an image's own ``__main__`` calls: the agent, put together for the posix platform.

One build of an image serves both families: a device whose ``device.json`` has a member ``uptane`` is run by the Uptane Primary,
any other by the OTA agent. Either is loaded only where it runs.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from overair.agent.deferral import Permission
from overair.agent.device_directory import DeviceDirectory, DeviceSettings, read_settings
from overair.agent.other_jobs import JobHandler
from overair.agent.platform import Platform
from overair.agent.platforms.posix import PosixPlatform
from overair.agent.progress import ProgressFile, ProgressSink, ProgressSinks
from overair.agent.settings import Application
from overair.agent.step_lines import SerialPort, StepLines, write_to_stdout
from overair.agent.stop_signals import call_on_stop_signals
from overair.wire.image import ImageManifest, read_manifest


class _Image:
    def __init__(self, self_test: Callable[[], bool]) -> None:
        self._self_test = self_test

    def self_test(self) -> bool:
        return self._self_test()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What else an application has to say."""

    permission: Permission | None = None
    on_job: JobHandler | None = None


def main(
    self_test: Callable[[], bool],
    arguments: list[str] | None = None,
    *,
    permission: Permission | None = None,
    on_job: JobHandler | None = None,
) -> int:
    """Run the agent inside an image; returns the exit status that the boot loader expects.

    ``self_test`` is called once after an update: True keeps the new image, False or an exception brings the old one back.
    ``permission`` is asked before a download and before a restart, and may put either off; ``on_job`` does jobs that are no
    updates. Both are the OTA agent's alone.
    """
    parser = argparse.ArgumentParser(prog="image", description="An Overair image: run it with overair-device boot.")
    parser.add_argument("--device", type=Path, required=True, metavar="DIR")
    parser.add_argument("--supervised", action="store_true", help="end when standard input ends: the boot loader is gone")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    directory = DeviceDirectory(options.device)
    settings = read_settings(directory)
    with Path(sys.argv[0]).open("rb") as own_image:
        manifest = read_manifest(own_image)
    platform = PosixPlatform(directory, settings, running_image=manifest)
    writers = [write_to_stdout]
    if settings.serial_port:
        writers.append(SerialPort(settings.serial_port, baud=settings.serial_baud).write)
    progress = ProgressSinks(ProgressFile(directory.run / "progress.json"), StepLines(*writers))
    application = _Image(self_test)
    wishes = Wishes(permission=permission, on_job=on_job)
    run, stop = (_ota_agent if settings.uptane is None else _uptane_primary)(
        directory, settings, platform, application, progress, manifest, wishes
    )
    call_on_stop_signals(stop)
    if options.supervised:
        threading.Thread(target=_end_with_boot_loader, daemon=True).start()
    return run()


Running = tuple[Callable[[], int], Callable[[], None]]
"""What runs until the process is to end, with its exit status; and what ends it, from any thread."""


def _ota_agent(
    directory: DeviceDirectory,
    settings: DeviceSettings,
    platform: Platform,
    application: Application,
    progress: ProgressSink,
    manifest: ImageManifest,
    wishes: Wishes,
) -> Running:
    from overair.agent.agent import Agent
    from overair.agent.connections import connections_of
    from overair.agent.decryption_keys import declared_of
    from overair.agent.settings import settings_for
    from overair.agent.states import Event

    chance = Random()
    connections = connections_of(directory, settings, version=str(manifest.version), chance=chance)
    agent = Agent(
        platform=platform,
        transport=connections.transport,
        application=application,
        settings=settings_for(settings),
        monotonic=time.monotonic,
        chance=chance,
        ranges=connections.ranges,
        progress=progress,
        permission=wishes.permission,
        declaration=declared_of(directory),
    )
    if wishes.on_job is not None:
        agent.on_job(wishes.on_job)
    connections.keeper.start()
    return agent.run, lambda: agent.signal(Event.SHUTDOWN)


def _uptane_primary(
    directory: DeviceDirectory,
    settings: DeviceSettings,
    platform: Platform,
    application: Application,
    progress: ProgressSink,
    manifest: ImageManifest,
    wishes: Wishes,
) -> Running:
    from overair.agent.uptane.device import UptaneDevice

    device = UptaneDevice(
        directory,
        settings,
        platform=platform,
        application=application,
        version=str(manifest.version),
        progress=progress,
    )
    return device.run_as_image, device.stop


def _end_with_boot_loader() -> None:
    """An image must not outlive its boot loader: the next one would run a second copy beside it."""
    # The descriptor itself: a thread inside the buffered reader would break an orderly end.
    while os.read(0, 4096):
        pass
    os._exit(1)
