"""The agent on a Linux gateway without slots: what ``overair-device run`` puts together."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from random import Random
from typing import Final

from overair.agent.agent import Agent
from overair.agent.connections import connections_of
from overair.agent.decryption_keys import declared_of
from overair.agent.deferral import Deferral, Offer
from overair.agent.device_directory import BadDeviceDirectory, DeviceDirectory, read_settings
from overair.agent.device_lock import sole_holder
from overair.agent.hooks import EXIT_STATUS_NOT_FOR_US, EXIT_STATUS_NOT_NOW, Hooks
from overair.agent.other_jobs import JobOutcome, OtherJob
from overair.agent.platform import ResetRequested
from overair.agent.platforms.gateway import GatewayPlatform
from overair.agent.progress import ProgressFile, ProgressSinks
from overair.agent.settings import EXIT_STATUS_RESET, settings_for
from overair.agent.states import Event
from overair.agent.step_lines import SerialPort, StepLines, write_to_stdout

ASK_AGAIN_S: Final = 300.0
"""After ``permit`` said not now."""
OUTPUT_LENGTH_MAX: Final = 1000


class HookApplication:
    """What the hooks say where an application would."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    def self_test(self) -> bool:
        """Is the new image fit to stay?"""
        return self._hooks.run("self_test").done

    def permit(self, offer: Offer) -> Deferral | None:
        """Is this a good moment? Raises RuntimeError where the hook doesn't say."""
        variables = {"OVERAIR_JOB": offer.job_id, "OVERAIR_SIZE_BYTES": str(offer.size_bytes)}
        ended = self._hooks.run("permit", offer.stage.value, variables=variables)
        if ended.done:
            return None
        if ended.status == EXIT_STATUS_NOT_NOW:
            return Deferral(reason=ended.last_line or "not now", seconds=ASK_AGAIN_S)
        raise RuntimeError(f"The hook permit ended with {ended.status}; 0 and {EXIT_STATUS_NOT_NOW} mean something.")

    def do_job(self, job: OtherJob) -> JobOutcome:
        """Have the hook do a job that is no update."""
        document = json.dumps(job.document).encode()
        ended = self._hooks.run("job", variables={"OVERAIR_JOB": job.job_id}, stdin=document)
        said = "".join(character if character.isprintable() else " " for character in ended.output).strip()[-OUTPUT_LENGTH_MAX:]
        details = {"output": said} if said else {}
        if ended.done:
            return JobOutcome.accepted(**details)
        if ended.status == EXIT_STATUS_NOT_FOR_US:
            return JobOutcome.rejected("the hook job rejects it", **details)
        return JobOutcome.failed(f"the hook job ended with status {ended.status}", **details)


def run_gateway(directory: DeviceDirectory, *, stop_calls: Callable[[Callable[[], None]], None]) -> int:
    """Run until stopped (0), or until the service or the machine must start again (75). ``stop_calls`` is given what ends it.

    Raises:
        BadDeviceDirectory: the directory isn't a gateway's, or another program has it in its hands.
    """
    settings = read_settings(directory)
    if settings.hooks is None:
        raise BadDeviceDirectory(f"{directory.root} has no hooks in device.json: overair-device boot runs a device with slots.")
    with sole_holder(directory):
        hooks = Hooks(settings.hooks)
        platform = GatewayPlatform(directory, settings, hooks=hooks)
        try:
            platform.begin()
        except ResetRequested:
            return EXIT_STATUS_RESET
        chance = Random()
        application = HookApplication(hooks)
        writers = [write_to_stdout]
        if settings.serial_port:
            writers.append(SerialPort(settings.serial_port, baud=settings.serial_baud).write)
        connections = connections_of(directory, settings, version=str(platform.running_image.version), chance=chance)
        agent = Agent(
            platform=platform,
            transport=connections.transport,
            application=application,
            settings=settings_for(settings),
            monotonic=time.monotonic,
            chance=chance,
            ranges=connections.ranges,
            progress=ProgressSinks(ProgressFile(directory.run / "progress.json"), StepLines(*writers)),
            permission=application.permit if settings.hooks.permit else None,
            declaration=declared_of(directory),
        )
        if settings.hooks.job:
            agent.on_job(application.do_job)
        connections.keeper.start()
        stop_calls(lambda: agent.signal(Event.SHUTDOWN))
        return agent.run()
