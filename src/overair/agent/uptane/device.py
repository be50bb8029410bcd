"""A Uptane device as a running program: it gets an identity, then goes round after round.

What ``overair-device uptane`` and the images themselves call.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from overair.agent.device_directory import DeviceDirectory, DeviceSettings
from overair.agent.device_lock import sole_client
from overair.agent.platform import Platform, ResetRequested
from overair.agent.progress import NoProgress, Progress, ProgressSink
from overair.agent.settings import EXIT_STATUS_RESET, Application
from overair.agent.uptane.assembly import Surroundings, assemble, provision
from overair.agent.uptane.ecu_key import BadEcuKey
from overair.agent.uptane.https import TransportFailed
from overair.agent.uptane.identity import BadIdentity
from overair.agent.uptane.metadata_store import StoredMetadataDamaged
from overair.agent.uptane.outcomes import Kind, Outcome
from overair.agent.uptane.primary import Primary
from overair.agent.uptane.provisioning import ProvisioningFailed
from overair.agent.uptane.state import DamagedState

LOG = logging.getLogger("overair.uptane")

PROVISIONING_PAUSE_S: Final = 10.0
PROVISIONING_PAUSE_S_MAX: Final = 3600.0
CANT_START_PAUSE_S: Final = 600.0


class CantStart(Exception):
    """What lies on the disk can't be used, or no identity can be had without a change by hand; the message says what to do."""


class UptaneDevice:
    """One device directory in the hands of one program."""

    def __init__(
        self,
        directory: DeviceDirectory,
        settings: DeviceSettings,
        *,
        platform: Platform | None,
        application: Application,
        version: str,
        progress: ProgressSink | None = None,
        around: Surroundings | None = None,
        heard: Callable[[Outcome], None] | None = None,
    ) -> None:
        """``platform``: where its own image goes into slots. ``heard`` is told of each round of ``run``."""
        self._directory = directory
        self._settings = settings
        self._platform = platform
        self._application = application
        self._version = version
        self._progress = progress or NoProgress()
        self._stopping = threading.Event()
        self._around = around or Surroundings(monotonic=time.monotonic, pause=self._stopping.wait)
        self._heard = heard or (lambda outcome: None)

    def stop(self) -> None:
        """End ``run`` soon; from any thread."""
        self._stopping.set()

    def run(self) -> int:
        """Until stopped (0), or until the device must restart (75).

        Raises:
            CantStart, BadDeviceDirectory
        """
        with sole_client(self._directory):
            if not self._provision_until_done():
                return 0
            primary = self._assemble()
            failures = 0
            try:
                while not self._stopping.is_set():
                    outcome = primary.round()
                    self._heard(outcome)
                    failures = 0 if outcome.well else failures + 1
                    if self._around.pause(primary.delay_s(failures)):
                        break
            except ResetRequested:
                return EXIT_STATUS_RESET
            return 0

    def run_as_image(self) -> int:
        """As ``run``, for an image under the boot loader, which starts it again and again: what can't start says so once in ten
        minutes, instead of asking the gateway every other second."""
        try:
            return self.run()
        except CantStart as error:
            LOG.error("%s", error)  # noqa: TRY400  the message is for people
            self._progress.show(Progress(state="provisioning", version=self._version, reason=str(error)))
            self._around.pause(CANT_START_PAUSE_S)
            return 0 if self._stopping.is_set() else 1

    def once(self) -> Outcome:
        """One round; a restart that it needs is for the caller.

        Raises:
            CantStart, BadDeviceDirectory
        """
        with sole_client(self._directory):
            try:
                provision(self._directory, self._settings, self._around)
            except (ProvisioningFailed, BadIdentity) as error:
                return Outcome(kind=Kind.REFUSED, message=str(error))
            except TransportFailed as error:
                return Outcome(kind=Kind.UNREACHABLE, message=str(error))
            try:
                return self._assemble().round()
            except ResetRequested:
                return Outcome(kind=Kind.WAITING, message="The new image runs after a restart: overair-device boot.")

    def provision(self) -> str:
        """Have an identity; the device's id.

        Raises:
            ProvisioningFailed, TransportFailed, BadIdentity, BadDeviceDirectory
        """
        with sole_client(self._directory):
            return provision(self._directory, self._settings, self._around)

    def _provision_until_done(self) -> bool:
        """Ask until there is an identity; False: stopped before."""
        limit = PROVISIONING_PAUSE_S
        while not self._stopping.is_set():
            self._progress.show(Progress(state="provisioning", version=self._version))
            try:
                name = provision(self._directory, self._settings, self._around)
            except (ProvisioningFailed, TransportFailed, BadIdentity) as error:
                if isinstance(error, BadIdentity) or (isinstance(error, ProvisioningFailed) and error.for_good):
                    raise CantStart(str(error)) from None
                LOG.warning("no identity yet: %s", error)
                self._progress.show(Progress(state="provisioning", version=self._version, reason=str(error)))
                kind = Kind.UNREACHABLE if isinstance(error, TransportFailed) else Kind.REFUSED
                self._heard(Outcome(kind=kind, message=str(error)))
                if self._around.pause(max(1.0, self._around.chance.uniform(0, limit))):
                    return False
                limit = min(2 * limit, PROVISIONING_PAUSE_S_MAX)
            else:
                LOG.info("this device is %s", name)
                return True
        return False

    def _assemble(self) -> Primary:
        try:
            return assemble(
                self._directory,
                self._settings,
                self._around,
                platform=self._platform,
                application=self._application,
                version=self._version,
                progress=self._progress,
            )
        except (ProvisioningFailed, BadIdentity, BadEcuKey, DamagedState, StoredMetadataDamaged) as error:
            raise CantStart(str(error)) from None
