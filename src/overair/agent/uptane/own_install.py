"""How the Primary's own image is installed, and how it shows after a restart whether it stays."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from overair.agent.platform import (
    FileContext,
    ImageState,
    Platform,
    PlatformError,
    PlatformErrorCode,
    PlatformImageState,
    VersionNotRising,
)
from overair.agent.settings import Application
from overair.agent.uptane.image_files import verify_file
from overair.agent.uptane.installers import EcuName, Installer
from overair.agent.uptane.state import InstalledTarget, UpdateUnderWay
from overair.wire.blocks import bitmap_for, block_count
from overair.wire.uptane.matching import VerifiedTarget
from overair.wire.uptane.reports import InstallationResult, ResultCode, result_of

LOG = logging.getLogger("overair.uptane")

SLOT_BLOCK_SIZE_BYTES: Final = 64 * 1024
ROLLED_BACK: Final = "The new image was started and didn't stay: the previous one runs again."
_VERIFICATION_CODES: Final = frozenset({PlatformErrorCode.SIGNATURE_CHECK_FAILED, PlatformErrorCode.BAD_SIGNER_CERTIFICATE})

Note = Callable[[str | None, str | None, str], None]
"""Keep durably: the digest of the image that boots next, the run of the machine that must end, why an image on trial goes."""


class OwnInstall(Protocol):
    """The Primary's own ECU."""

    def running(self, remembered: InstalledTarget | None) -> InstalledTarget | None:
        """What runs; None where that isn't what is remembered, so that nobody knows its name."""
        ...

    def settle(self, update: UpdateUnderWay | None, note: Note) -> InstallationResult | None:
        """At the start: how an installation that needed a restart has ended; None where there was none, or it goes on."""
        ...

    def waits_for_restart(self, update: UpdateUnderWay) -> bool:
        """Whether there is nothing to do before the machine has restarted."""
        ...

    def install(self, target: VerifiedTarget, path: Path, note: Note) -> InstallationResult:
        """Install. May raise ``ResetRequested``: then the process must end so that the new image is started."""
        ...


class SlotOwnInstall:
    """Into the platform's other slot, on trial, exactly as the OTA agent does it."""

    def __init__(self, platform: Platform, application: Application) -> None:
        self._platform = platform
        self._application = application

    def running(self, remembered: InstalledTarget | None) -> InstalledTarget | None:
        if remembered is None:
            return None
        sha256 = remembered.hashes.get("sha256")
        return remembered if sha256 is None or sha256 == self._platform.digests.running else None

    def settle(self, update: UpdateUnderWay | None, note: Note) -> InstallationResult | None:
        activated = None if update is None else update.activated_sha256
        digests = self._platform.digests
        if self._platform.image_state() is PlatformImageState.PENDING_COMMIT:
            self._conduct_trial(activated, note)
        if update is None or activated is None:
            return None
        if digests.running == activated:
            return result_of(ResultCode.OK, f"runs {self._platform.running_image.version}")
        if digests.waiting == activated:
            return None  # the power failed just before it was made the one that boots
        return result_of(ResultCode.INSTALL_FAILED, update.reason or ROLLED_BACK)

    def waits_for_restart(self, update: UpdateUnderWay) -> bool:
        return False

    def install(self, target: VerifiedTarget, path: Path, note: Note) -> InstallationResult:
        context = FileContext.for_target(target, block_size_bytes=SLOT_BLOCK_SIZE_BYTES)
        try:
            self._fill(context, path)
            image = self._platform.close_file(context)
            note(image.sha256, None, "")
            self._platform.activate(context, image)
        except VersionNotRising as error:
            return result_of(ResultCode.VERIFICATION_FAILED, error.message)
        except PlatformError as error:
            code = ResultCode.VERIFICATION_FAILED if error.code in _VERIFICATION_CODES else ResultCode.INSTALL_FAILED
            return result_of(code, error.message)
        except OSError as error:
            return result_of(ResultCode.INSTALL_FAILED, str(error))
        self._platform.reset()
        raise AssertionError("Platform.reset returned; it must not.")

    def _fill(self, context: FileContext, path: Path) -> None:
        size = context.block_size_bytes
        blocks = block_count(context.file.size_bytes, size)
        whole = bitmap_for(range(blocks))
        if self._platform.create_file(context) == whole:
            return
        with path.open("rb") as image:
            for number in range(blocks):
                self._platform.write_block(context, number * size, image.read(size))
        self._platform.make_durable(context, whole)

    def _conduct_trial(self, activated: str | None, note: Note) -> None:
        self._platform.set_image_state(ImageState.TESTING)
        if self._passes():
            self._platform.set_image_state(ImageState.ACCEPTED)
            LOG.info("the self-test passed: this image stays")
            return
        LOG.warning("the self-test failed: going back to the previous image")
        note(activated, None, "The new image failed its self-test: the previous one runs again.")
        self._platform.set_image_state(ImageState.REJECTED)
        self._platform.reset()

    def _passes(self) -> bool:
        try:
            return self._application.self_test()
        except Exception:
            LOG.exception("the self-test failed")
            return False


class PlainOwnInstall:
    """By an installer: a file, or the integrator's program, which may ask for a restart of the machine."""

    def __init__(self, installer: Installer, name: EcuName, *, machine_run: Callable[[], str]) -> None:
        self._installer = installer
        self._name = name
        self._machine_run = machine_run

    def running(self, remembered: InstalledTarget | None) -> InstalledTarget | None:
        return remembered

    def settle(self, update: UpdateUnderWay | None, note: Note) -> InstallationResult | None:
        if update is None or update.restart is None or self.waits_for_restart(update):
            return None
        return self._installer.check(self._name)

    def waits_for_restart(self, update: UpdateUnderWay) -> bool:
        return update.restart is not None and update.restart == self._machine_run()

    def install(self, target: VerifiedTarget, path: Path, note: Note) -> InstallationResult:
        result = self._installer.install(self._name, target, verify_file(path, target), path)
        if result.code == ResultCode.NEED_COMPLETION:
            note(None, self._machine_run(), "")
        return result


def run_of_this_machine() -> str:
    """A word that is another one after each restart of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
