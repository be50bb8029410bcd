"""Images in two slots of a directory: the platform for Linux and other POSIX systems."""

from __future__ import annotations

from dataclasses import replace
from typing import IO, Final

from overair.agent.device_directory import DeviceDirectory, DeviceSettings
from overair.agent.durable import Disk
from overair.agent.platform import (
    FileContext,
    ImageDigests,
    PlatformError,
    PlatformErrorCode,
    PlatformImageState,
    ResetRequested,
    VersionNotRising,
)
from overair.agent.platforms.receiving import ReceivingPlatform, failing_as
from overair.agent.platforms.vouching import signature_of, target_of
from overair.agent.slots import SlotRecord, SlotState
from overair.wire.image import ImageManifest, ImageVersion, InvalidImage, read_manifest
from overair.wire.image_signature import VerifiedImage

SUB_NOT_AN_IMAGE: Final = 1
SUB_OTHER_HARDWARE: Final = 2


class PosixPlatform(ReceivingPlatform):
    """Implements ``agent.platform.Platform`` over a device directory."""

    def __init__(
        self,
        directory: DeviceDirectory,
        settings: DeviceSettings,
        *,
        running_image: ImageManifest,
        disk: Disk | None = None,
    ) -> None:
        super().__init__(directory, settings, disk=disk)
        self._running_image = running_image
        state = self._slots.read()
        running = None if state.active is None else state.record(state.active)
        self._running_sha256 = "" if running is None else running.sha256

    @property
    def running_image(self) -> ImageManifest:
        return self._running_image

    @property
    def digests(self) -> ImageDigests:
        state = self._slots.read()
        other = state.record(state.inactive)
        # What was accepted once is there to fall back to, and isn't waiting.
        waiting = None if other is None or other.accepted else other.sha256
        return ImageDigests(running=self._running_sha256, waiting=waiting)

    # --- a new image ---

    def _check_free_for_firmware(self) -> None:
        if self._slots.read().image_state is not PlatformImageState.VALID:
            raise PlatformError(
                PlatformErrorCode.BOOT_INFO_FAILED, "The running image is on trial; the other slot is needed to go back to."
            )

    def _keep_firmware(self, context: FileContext, image: VerifiedImage) -> None:
        with self._part.open("rb") as part:
            manifest = self._fit_to_run(part)
        self._fill_slot(context, image, manifest.version)

    def _fit_to_run(self, image: IO[bytes]) -> ImageManifest:
        try:
            manifest = read_manifest(image)
        except InvalidImage as error:
            raise PlatformError(PlatformErrorCode.BAD_IMAGE_STATE, str(error), sub_code=SUB_NOT_AN_IMAGE) from None
        if manifest.hardware_id != self._settings.hardware_id:
            raise PlatformError(
                PlatformErrorCode.BAD_IMAGE_STATE,
                f"The image is for hardware {manifest.hardware_id}; this is {self._settings.hardware_id}.",
                sub_code=SUB_OTHER_HARDWARE,
            )
        running = self._running_image.version
        if manifest.version <= running and not manifest.allow_downgrade:
            raise VersionNotRising(
                f"Version {manifest.version} may not replace {running}: versions rise, unless the image allows less.",
                same=manifest.version == running,
            )
        return manifest

    def _fill_slot(self, context: FileContext, image: VerifiedImage, version: ImageVersion) -> None:
        state = self._slots.read()
        slot = state.inactive
        # The slot's record goes before its file changes and comes back after: it never speaks of other bytes.
        self._slots.write(state.with_record(slot, None))
        self._disk.rename(self._part, self._directory.slot_file(slot))
        self._disk.sync_directory(self._directory.slots)
        record = SlotRecord(
            sha256=image.sha256,
            size_bytes=image.size_bytes,
            version=str(version),
            signature=None if context.target is not None else signature_of(context),
            accepted=False,
            target=target_of(context),
        )
        self._slots.write(state.with_record(slot, record))
        self._forget_received()

    def _take_back(self, context: FileContext, description: bytes) -> bool:
        slot = self._slots.read().inactive
        record = self._slots.read().record(slot)
        return self._take_back_from(self._directory.slot_file(slot), record, context, description)

    def _forget_waiting(self) -> None:
        state = self._slots.read()
        self._slots.write(state.with_record(state.inactive, None))

    # --- the running image ---

    def activate(self, context: FileContext, image: VerifiedImage) -> None:
        state = self._slots.read()
        record = state.record(state.inactive)
        if record is None or record.sha256 != image.sha256:
            raise PlatformError(PlatformErrorCode.ACTIVATE_FAILED, "The verified image isn't the one in the other slot.")
        with failing_as(PlatformErrorCode.ACTIVATE_FAILED):
            self._slots.write(replace(state, active=state.inactive, image_state=PlatformImageState.PENDING_COMMIT, boots=0))

    def reset(self) -> None:
        self._close_descriptor()
        raise ResetRequested

    def _commit(self, state: SlotState) -> None:
        with failing_as(PlatformErrorCode.COMMIT_FAILED):
            self._slots.write(_committed(state))

    def _give_up(self, state: SlotState, code: PlatformErrorCode) -> None:
        with failing_as(code):
            self._slots.write(replace(state, image_state=PlatformImageState.INVALID))


def _committed(state: SlotState) -> SlotState:
    assert state.active is not None
    record = state.record(state.active)
    assert record is not None
    accepted = state.with_record(state.active, replace(record, accepted=True))
    return replace(accepted, image_state=PlatformImageState.VALID)
