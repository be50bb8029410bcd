"""How an image gets onto an ECU that has no slots: it becomes a file, or a program of the integrator's takes it."""

from __future__ import annotations

import logging
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from overair.agent.durable import Disk
from overair.agent.uptane.settings import CommandInstall, FileInstall
from overair.wire.image_signature import VerifiedImage
from overair.wire.uptane.matching import VerifiedTarget
from overair.wire.uptane.reports import InstallationResult, ResultCode, result_of

LOG = logging.getLogger("overair.uptane")

EXIT_STATUS_NEEDS_RESTART: Final = 75
OUTPUT_LENGTH_MAX: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class EcuName:
    """For whom something is installed."""

    serial: str
    hardware_id: str


class Installer(Protocol):
    """Takes an image whose bytes were verified."""

    def install(self, ecu: EcuName, target: VerifiedTarget, image: VerifiedImage, path: Path) -> InstallationResult:
        """Install the file at ``path``, which may be moved away. NEED_COMPLETION: it counts after the machine has restarted."""
        ...

    def check(self, ecu: EcuName) -> InstallationResult:
        """After that restart: does it run?"""
        ...


class FileInstaller:
    """Puts the image in a place below ``files/``."""

    def __init__(self, settings: FileInstall, *, files: Path, disk: Disk) -> None:
        self._place = files / settings.path
        self._files = files
        self._disk = disk

    def install(self, ecu: EcuName, target: VerifiedTarget, image: VerifiedImage, path: Path) -> InstallationResult:
        try:
            self._place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._place.parent.resolve().is_relative_to(self._files.resolve()):
                return result_of(ResultCode.INSTALL_FAILED, f"{self._place} leads outside of {self._files}.")
            temporary = self._place.with_name(self._place.name + ".new")
            with path.open("rb") as source:
                copy_durably(source.fileno(), temporary, self._disk)
            self._disk.rename(temporary, self._place)
            self._disk.sync_directory(self._place.parent)
        except OSError as error:
            return result_of(ResultCode.INSTALL_FAILED, f"{self._place} can't be written: {error.strerror}")
        return result_of(ResultCode.OK, f"stored as {self._place.name}")

    def check(self, ecu: EcuName) -> InstallationResult:
        return result_of(ResultCode.OK)


class CommandInstaller:
    """Runs the integrator's program with the image's path as its last argument, and in its environment ``OVERAIR_ECU_SERIAL``,
    ``OVERAIR_HARDWARE_ID``, ``OVERAIR_TARGET_NAME``, ``OVERAIR_TARGET_SHA256``, ``OVERAIR_TARGET_LENGTH``."""

    def __init__(self, settings: CommandInstall) -> None:
        self._settings = settings

    def install(self, ecu: EcuName, target: VerifiedTarget, image: VerifiedImage, path: Path) -> InstallationResult:
        variables = {
            "OVERAIR_TARGET_NAME": target.name,
            "OVERAIR_TARGET_SHA256": image.sha256,
            "OVERAIR_TARGET_LENGTH": str(image.size_bytes),
        }
        return self._run([*self._settings.argv, str(path)], ecu, variables)

    def check(self, ecu: EcuName) -> InstallationResult:
        if not self._settings.check_argv:
            return result_of(ResultCode.OK, "after the restart")
        result = self._run(list(self._settings.check_argv), ecu, {})
        return result if result.code != ResultCode.NEED_COMPLETION else result_of(ResultCode.INSTALL_FAILED, result.description)

    def _run(self, argv: list[str], ecu: EcuName, variables: dict[str, str]) -> InstallationResult:
        named = {"OVERAIR_ECU_SERIAL": ecu.serial, "OVERAIR_HARDWARE_ID": ecu.hardware_id}
        try:
            ended = subprocess.run(
                argv,
                env={**os.environ, **named, **variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self._settings.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return result_of(ResultCode.INSTALL_FAILED, f"{argv[0]} didn't end within {self._settings.timeout_s:g} s.")
        except OSError as error:
            return result_of(ResultCode.INSTALL_FAILED, f"{argv[0]} can't be run: {error.strerror}")
        said = ended.stdout.decode("utf-8", "replace").strip()[-OUTPUT_LENGTH_MAX:]
        LOG.info("%s ended with status %s: %s", argv[0], ended.returncode, said)
        if ended.returncode == 0:
            return result_of(ResultCode.OK, said)
        if ended.returncode == EXIT_STATUS_NEEDS_RESTART:
            return result_of(ResultCode.NEED_COMPLETION, said)
        return result_of(ResultCode.INSTALL_FAILED, f"{argv[0]} ended with status {ended.returncode}. {said}".strip())


def installer_for(settings: FileInstall | CommandInstall, *, files: Path, disk: Disk) -> Installer:
    """The installer that settings ask for."""
    return FileInstaller(settings, files=files, disk=disk) if isinstance(settings, FileInstall) else CommandInstaller(settings)


def copy_durably(source: int, target: Path, disk: Disk) -> None:
    """Copy an open file's bytes into a new file that is on the disk when this returns."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        offset = 0
        while data := os.pread(source, 1 << 20, offset):
            disk.write_at(descriptor, data, offset)
            offset += len(data)
        disk.sync(descriptor)
    finally:
        os.close(descriptor)
