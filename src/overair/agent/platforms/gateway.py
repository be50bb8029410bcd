"""A Linux gateway whose images are whatever its own programs install: verified here, installed by hooks.

``slots/state.json`` tells the same story as on a device with slots, read differently: slot a is what runs, slot b an image that
was verified. Its file is ``slots/b.zip``, whatever it holds.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

from overair.agent.device_directory import BadDeviceDirectory, DeviceDirectory, DeviceSettings
from overair.agent.durable import Disk
from overair.agent.hooks import HookEnded, Hooks
from overair.agent.platform import (
    FileContext,
    ImageDigests,
    PlatformError,
    PlatformErrorCode,
    PlatformImageState,
    ResetRequested,
)
from overair.agent.platforms.receiving import ReceivingPlatform, failing_as
from overair.agent.platforms.vouching import signature_of, target_of
from overair.agent.slots import SlotRecord, SlotState
from overair.wire.image import ImageManifest, ImageVersion, InvalidImage
from overair.wire.image_signature import VerifiedImage

LOG = logging.getLogger("overair.agent")

RUNNING: Final = "a"
NEW: Final = "b"
ROLL_BACKS_MAX: Final = 3
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
SUB_NOT_RUN: Final = 0xFFFFFF
"""Sub code of a hook that couldn't be run, or didn't end in time; else it is the hook's exit status."""


class GatewayPlatform(ReceivingPlatform):
    """Implements ``agent.platform.Platform`` with hooks. ``begin`` comes before anything else."""

    def __init__(
        self,
        directory: DeviceDirectory,
        settings: DeviceSettings,
        *,
        hooks: Hooks,
        disk: Disk | None = None,
        boot_id_file: Path = BOOT_ID,
    ) -> None:
        """Raises BadDeviceDirectory: what runs doesn't say its version."""
        super().__init__(directory, settings, disk=disk)
        self._hooks = hooks
        self._boot_id_file = boot_id_file
        self._activated_under = directory.slots / "boot-id"
        self._running = ImageManifest(name="gateway", version=self._ask_version(), hardware_id=settings.hardware_id)

    def _ask_version(self) -> ImageVersion:
        ended = self._hooks.run("version")
        try:
            return ImageVersion.parse(ended.output.strip())
        except InvalidImage as error:
            told = f"status {ended.status}: {ended.output.strip()[:200]!r}"
            raise BadDeviceDirectory(f"The hook version must write MAJOR.MINOR.BUILD: {error} ({told})") from None

    @property
    def running_image(self) -> ImageManifest:
        return self._running

    @property
    def digests(self) -> ImageDigests:
        state = self._slots.read()
        valid = state.image_state is PlatformImageState.VALID
        return ImageDigests(
            running="" if state.a is None else state.a.sha256,
            waiting=state.b.sha256 if valid and state.b is not None else None,
        )

    # --- at the start of the process: what became of the image on trial? ---

    def begin(self) -> None:
        """Count the trial's one start; go back after it, or note that the machine went back by itself.

        Raises:
            ResetRequested: the image that runs has had its trial, or the restart into it is still to come.
        """
        state = self._slots.read()
        before = None if state.a is None else state.a.version
        went_back = before == str(self._running.version)
        if state.a is None or (state.image_state is PlatformImageState.VALID and not went_back):
            self._slots.write(self._now_running(state, sha256=""))
        elif state.image_state is PlatformImageState.VALID:
            return
        elif self._restart_is_still_to_come():
            LOG.warning("the restart is still to come")
            self._restart()
        elif went_back:
            LOG.warning("the new image isn't what runs: %s runs again", before)
            self._forget_new(state)
        elif state.image_state is PlatformImageState.PENDING_COMMIT and state.boots == 0:
            self._slots.write(replace(state, boots=1))
        elif state.boots > ROLL_BACKS_MAX:
            LOG.error("the hook roll_back was run %s times, and %s still runs", ROLL_BACKS_MAX, self._running.version)
        else:
            LOG.warning("version %s had its trial and didn't accept itself: going back", self._running.version)
            self._give_up(replace(state, boots=state.boots + 1), PlatformErrorCode.REJECT_FAILED)
            self._restart()

    def _now_running(self, state: SlotState, *, sha256: str) -> SlotState:
        record = SlotRecord(
            sha256=sha256, size_bytes=0, version=str(self._running.version), signature=None, accepted=True, target=None
        )
        return replace(state, active=RUNNING, a=record)

    def _restart_is_still_to_come(self) -> bool:
        if not self._hooks.settings.reboot:
            return False
        try:
            return self._activated_under.read_bytes() == self._boot_id_file.read_bytes()
        except FileNotFoundError:
            return False

    # --- a new image ---

    def _check_free_for_firmware(self) -> None:
        if self._slots.read().image_state is not PlatformImageState.VALID:
            raise PlatformError(PlatformErrorCode.BOOT_INFO_FAILED, "The running image is on trial.")

    def _keep_firmware(self, context: FileContext, image: VerifiedImage) -> None:
        place = self._directory.slot_file(NEW)
        self._forget_waiting()
        self._disk.rename(self._part, place)
        self._disk.sync_directory(self._directory.slots)
        record = SlotRecord(
            sha256=image.sha256,
            size_bytes=image.size_bytes,
            version="0.0.0",
            signature=None if context.target is not None else signature_of(context),
            accepted=False,
            target=target_of(context),
        )
        self._slots.write(self._slots.read().with_record(NEW, record))
        self._forget_received()
        ended = self._hooks.run("install", str(place), variables=self._variables(image, context))
        if not ended.done:
            self._forget_new(self._slots.read())
            raise _failure(PlatformErrorCode.FILE_CLOSE, "install", ended)

    def _variables(self, image: VerifiedImage, context: FileContext | None = None) -> dict[str, str]:
        named = {} if context is None else {"OVERAIR_FILE_PATH": context.file.path}
        return {
            "OVERAIR_SHA256": image.sha256,
            "OVERAIR_SIZE_BYTES": str(image.size_bytes),
            "OVERAIR_RUNNING_VERSION": str(self._running.version),
            **named,
        }

    def _take_back(self, context: FileContext, description: bytes) -> bool:
        return self._take_back_from(self._directory.slot_file(NEW), self._slots.read().b, context, description)

    def _forget_waiting(self) -> None:
        self._slots.write(self._slots.read().with_record(NEW, None))

    def _forget_new(self, state: SlotState) -> None:
        self._slots.write(replace(state.with_record(NEW, None), image_state=PlatformImageState.VALID, boots=0))
        self._disk.remove(self._directory.slot_file(NEW))
        self._disk.sync_directory(self._directory.slots)

    # --- the running image ---

    def activate(self, context: FileContext, image: VerifiedImage) -> None:
        state = self._slots.read()
        if state.b is None or state.b.sha256 != image.sha256:
            raise PlatformError(PlatformErrorCode.ACTIVATE_FAILED, "The verified image isn't the one that was installed.")
        with failing_as(PlatformErrorCode.ACTIVATE_FAILED):
            self._disk.write_whole(self._activated_under, self._boot_id_file.read_bytes())
            # First the word, then the deed: an image that runs without this word would never be tested.
            self._slots.write(replace(state, image_state=PlatformImageState.PENDING_COMMIT, boots=0))
            ended = self._hooks.run("activate", variables=self._variables(image))
            if not ended.done:
                self._forget_new(self._slots.read())
                raise _failure(PlatformErrorCode.ACTIVATE_FAILED, "activate", ended)

    def reset(self) -> None:
        self._close_descriptor()
        self._restart()

    def _restart(self) -> None:
        if self._slots.read().image_state is not PlatformImageState.VALID:
            self._hooks.run("reboot")
        raise ResetRequested

    def _commit(self, state: SlotState) -> None:
        ended = self._hooks.run("commit")
        if not ended.done:
            raise _failure(PlatformErrorCode.COMMIT_FAILED, "commit", ended)
        with failing_as(PlatformErrorCode.COMMIT_FAILED):
            sha256 = "" if state.b is None else state.b.sha256
            self._forget_new(self._now_running(state, sha256=sha256))

    def _give_up(self, state: SlotState, code: PlatformErrorCode) -> None:
        with failing_as(code):
            self._slots.write(replace(state, image_state=PlatformImageState.INVALID))
            self._disk.write_whole(self._activated_under, self._boot_id_file.read_bytes())
        ended = self._hooks.run("roll_back")
        if not ended.done:
            raise _failure(code, "roll_back", ended)


def _failure(code: PlatformErrorCode, name: str, ended: HookEnded) -> PlatformError:
    sub_code = SUB_NOT_RUN if ended.status is None else ended.status & 0xFFFF
    return PlatformError(code, f"The hook {name} failed ({ended.status}): {ended.last_line[:300]}", sub_code=sub_code)
