"""Files on their way into a device directory: received block by block, verified, and handed to whoever keeps them."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from overair.agent.decryption_keys import DecryptionKeys
from overair.agent.device_directory import DeviceDirectory, DeviceSettings
from overair.agent.durable import Disk
from overair.agent.platform import (
    FileContext,
    ImageState,
    PlatformError,
    PlatformErrorCode,
    PlatformImageState,
    VersionNotRising,
)
from overair.agent.platforms.trust_updates import check_place, is_trust, take_over
from overair.agent.platforms.unsealing import Unsealing, files_of
from overair.agent.platforms.vouching import describe, signature_of, vouched_alike
from overair.agent.slots import SlotRecord, SlotState, SlotStore, chunks_of, verify_against
from overair.wire.blocks import bitmap_for, block_count
from overair.wire.image_signature import BadSignerCertificate, SignatureCheckFailed, VerifiedImage
from overair.wire.uptane.matching import verify_target_bytes
from overair.wire.uptane.refusals import MetadataRefused

REPORT_SIZE_BYTES_MAX: Final = 64 * 1024
PATH_LENGTH_MAX: Final = 260


class ReceivingPlatform(ABC):
    """The half of ``agent.platform.Platform`` that is the same wherever images go.

    A file is received in ``slots/receiving.part`` at its full size. Beside it stand a bitmap of the blocks that are on the disk
    and, written last, a description; without a matching description whatever is there is forgotten. What comes encrypted is
    decrypted in that file as it comes (``unsealing``).
    """

    def __init__(self, directory: DeviceDirectory, settings: DeviceSettings, *, disk: Disk | None = None) -> None:
        self._directory = directory
        self._settings = settings
        self._disk = disk or Disk()
        self._slots = SlotStore(directory, self._disk)
        self._part = directory.slots / "receiving.part"
        self._bitmap = directory.slots / "receiving.bitmap"
        self._description = directory.slots / "receiving.json"
        self._report = directory.slots / "report.json"
        self._descriptor: int | None = None
        self._unsealing: Unsealing | None = None
        """Of the file that is received, where it comes encrypted."""
        self._file_failed = False

    @abstractmethod
    def _check_free_for_firmware(self) -> None:
        """Raise PlatformError where the place for a new image is needed for something else."""

    @abstractmethod
    def _keep_firmware(self, context: FileContext, image: VerifiedImage) -> None:
        """Take the verified file from ``self._part``, if it is fit to run here, and forget what was received of it."""

    @abstractmethod
    def _take_back(self, context: FileContext, description: bytes) -> bool:
        """Whether the file is here, verified once and not activated, and was made what has been received."""

    @abstractmethod
    def _forget_waiting(self) -> None:
        """Durably: no verified image waits here."""

    @abstractmethod
    def _commit(self, state: SlotState) -> None:
        """The image on trial stays. Raise PlatformError where that can't be kept."""

    @abstractmethod
    def _give_up(self, state: SlotState, code: PlatformErrorCode) -> None:
        """The image on trial goes. Raise PlatformError with the code where that can't be kept."""

    # --- the fate of the new image ---

    def set_image_state(self, state: ImageState) -> None:
        if not isinstance(state, ImageState):
            raise PlatformError(PlatformErrorCode.BAD_IMAGE_STATE, f"{state!r} is no image state.")
        present = self._slots.read()
        if present.image_state is not PlatformImageState.PENDING_COMMIT or state is ImageState.TESTING:
            return
        if state is ImageState.ACCEPTED:
            self._commit(present)
        else:
            code = PlatformErrorCode.REJECT_FAILED if state is ImageState.REJECTED else PlatformErrorCode.ABORT_FAILED
            self._give_up(present, code)

    def image_state(self) -> PlatformImageState:
        return PlatformImageState.INVALID if self._file_failed else self._slots.read().image_state

    # --- receiving ---

    def abort(self, context: FileContext | None) -> None:
        with failing_as(PlatformErrorCode.FILE_ABORT):
            self._close_descriptor()
            self._forget_received()

    def create_file(self, context: FileContext) -> bytes | None:
        file = context.file
        self._file_failed = False
        self._close_descriptor()
        if file.signature is None and context.target is None:
            raise PlatformError(
                PlatformErrorCode.SIGNATURE_CHECK_FAILED, "The update is unsigned; this device takes signed ones."
            )
        if context.is_firmware:
            _check_label(file.path)
            self._check_free_for_firmware()
        elif is_trust(context):
            check_place(self._directory, context)
        else:
            self._place_for(file.path)
        if file.size_bytes > self._settings.slot_size_bytes_max:
            raise PlatformError(
                PlatformErrorCode.FILE_TOO_LARGE,
                f"{file.size_bytes} bytes don't fit: this device takes {self._settings.slot_size_bytes_max}.",
            )
        self._unsealing = self._unsealing_of(context)
        description = describe(context)
        bitmap_size = (block_count(file.size_bytes, context.block_size_bytes) + 7) // 8
        with failing_as(PlatformErrorCode.FILE_CREATE_FAILED):
            room = file.size_bytes if self._unsealing is None else self._unsealing.room_bytes
            resumed = self._resume(description, bitmap_size, room)
            if resumed is None and context.is_firmware and self._take_back(context, description):
                resumed = self._resume(description, bitmap_size, room)
            if resumed is not None:
                return resumed
            self._forget_received()
            self._unsealing = self._unsealing_of(context)
            self._descriptor = self._disk.create(self._part, os.O_RDWR | os.O_EXCL)
            try:
                self._disk.allocate(self._descriptor, room)
            except OSError as error:
                self._close_descriptor()
                self._disk.remove(self._part)
                raise PlatformError(PlatformErrorCode.FILE_TOO_LARGE, f"No room for {room} bytes: {error}") from None
            self._disk.sync(self._descriptor)
            self._disk.write_whole(self._bitmap, bytes(bitmap_size))
            self._disk.write_whole(self._description, description)
        return None

    def write_block(self, context: FileContext, offset_bytes: int, data: bytes) -> int:
        if self._descriptor is None:
            raise PlatformError(PlatformErrorCode.UNINITIALIZED, "No file is open.")
        if not 0 <= offset_bytes <= context.file.size_bytes - len(data):
            raise PlatformError(PlatformErrorCode.UNINITIALIZED, "The block lies outside the file.")
        with failing_as(PlatformErrorCode.OUT_OF_MEMORY):
            gap = 0 if self._unsealing is None else self._unsealing.gap_bytes
            self._disk.write_at(self._descriptor, data, gap + offset_bytes)
        return len(data)

    def make_durable(self, context: FileContext, bitmap: bytes) -> None:
        if self._descriptor is None:
            raise PlatformError(PlatformErrorCode.UNINITIALIZED, "No file is open.")
        with failing_as(PlatformErrorCode.OUT_OF_MEMORY):
            self._disk.sync(self._descriptor)
            # In place: bits only ever rise, and each newly set one names bytes that are on the disk, so any part of
            # this write that survives a power cut is true.
            descriptor = os.open(self._bitmap, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                self._disk.write_at(descriptor, bitmap, 0)
                self._disk.sync(descriptor)
            finally:
                os.close(descriptor)
            if self._unsealing is not None:
                self._unsealing.advance(self._descriptor, bitmap)

    def _unsealing_of(self, context: FileContext) -> Unsealing | None:
        if not context.is_encrypted:
            return None
        return Unsealing(self._directory.slots, self._disk, context, DecryptionKeys(self._directory).by_id)

    def close_file(self, context: FileContext) -> VerifiedImage:
        if self._descriptor is None:
            raise PlatformError(PlatformErrorCode.NULL_FILE_CONTEXT, "No file is open.")
        try:
            with failing_as(PlatformErrorCode.FILE_CLOSE):
                self._disk.sync(self._descriptor)
                if self._unsealing is not None:
                    self._unsealing.finish(self._descriptor, self._bitmap.read_bytes())
                self._close_descriptor()
                verified = self._verify(context)
        except (PlatformError, VersionNotRising):
            self._file_failed = True
            self._close_descriptor()
            self._forget_received()
            raise
        return verified

    def _verify(self, context: FileContext) -> VerifiedImage:
        """Signature first; what the bytes say counts only after it."""
        with self._part.open("rb") as part:
            try:
                if context.target is not None:
                    verified = verify_target_bytes(chunks_of(part), context.target)
                else:
                    verified = verify_against(self._directory, part, signature_of(context))
            except (SignatureCheckFailed, MetadataRefused) as error:
                raise PlatformError(PlatformErrorCode.SIGNATURE_CHECK_FAILED, str(error)) from None
            except BadSignerCertificate as error:
                raise PlatformError(PlatformErrorCode.BAD_SIGNER_CERTIFICATE, str(error)) from None
        expected = context.file.size_bytes if self._unsealing is None else self._unsealing.plain_size_bytes
        if verified.size_bytes != expected:
            raise PlatformError(PlatformErrorCode.FILE_CLOSE, f"{verified.size_bytes} bytes where the job says another size.")
        if context.is_firmware:
            self._keep_firmware(context, verified)
        elif is_trust(context):
            with self._part.open("rb") as part:
                take_over(self._directory, self._disk, self._slots.read(), context, part)
            self._forget_received()
        else:
            self._store(context, verified)
        return verified

    def _store(self, context: FileContext, image: VerifiedImage) -> None:
        place = self._place_for(context.file.path)
        for parent in reversed(place.relative_to(self._directory.files).parents):
            self._disk.make_directory(self._directory.files / parent)
        self._place_for(context.file.path)  # again: no link may have come in between
        self._disk.rename(self._part, place)
        self._disk.sync_directory(place.parent)
        self._forget_received()

    def _place_for(self, path: str) -> Path:
        """Where a file goes that isn't firmware: below ``files/``, through no link."""
        _check_label(path)
        place = self._directory.files
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if not parts:
            raise PlatformError(PlatformErrorCode.FILE_CREATE_FAILED, "The file has no path to be stored at.")
        for index, part in enumerate(parts):
            place = place / part
            try:
                mode = place.lstat().st_mode
            except FileNotFoundError:
                return self._directory.files.joinpath(*parts)
            except OSError as error:
                raise PlatformError(PlatformErrorCode.FILE_CREATE_FAILED, f"{path!r} can't be a place: {error}") from None
            if not (stat.S_ISREG(mode) if index == len(parts) - 1 else stat.S_ISDIR(mode)):
                raise PlatformError(
                    PlatformErrorCode.FILE_CREATE_FAILED, f"{path!r} leads through something that is in the way."
                )
        return place

    def _resume(self, description: bytes, bitmap_size_bytes: int, size_bytes: int) -> bytes | None:
        try:
            if self._description.read_bytes() != description:
                return None
            bitmap = self._bitmap.read_bytes()
            descriptor = os.open(self._part, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        self._descriptor = descriptor
        size = os.fstat(descriptor).st_size
        whole = size == size_bytes if self._unsealing is None else self._unsealing.resume(size)
        if len(bitmap) != bitmap_size_bytes or not whole:
            self._close_descriptor()
            return None
        return bitmap

    def _take_back_from(self, place: Path, record: SlotRecord | None, context: FileContext, description: bytes) -> bool:
        """An image that was verified but not activated, because of a lost line or a power cut, needn't come a second time: it
        is as good as received, and is verified once more."""
        if record is None or not vouched_alike(record, context):
            return False
        if not context.is_encrypted and record.size_bytes != context.file.size_bytes:
            return False
        self._forget_received()
        self._forget_waiting()
        self._disk.rename(place, self._part)
        self._disk.sync_directory(self._directory.slots)
        if self._unsealing is not None:
            self._unsealing.adopt(record.size_bytes)
        blocks = block_count(context.file.size_bytes, context.block_size_bytes)
        self._disk.write_whole(self._bitmap, bitmap_for(range(blocks)))
        self._disk.write_whole(self._description, description)
        return True

    def _forget_received(self) -> None:
        # The description first: without it the rest means nothing.
        for path in (self._description, self._bitmap, self._part, *files_of(self._directory.slots)):
            self._disk.remove(path)
        self._disk.sync_directory(self._directory.slots)

    def _close_descriptor(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # --- reports ---

    def store_report(self, report: bytes | None) -> None:
        if report is not None:
            self._disk.write_whole(self._report, report)
        elif self._report.exists():
            self._disk.remove(self._report)
            self._disk.sync_directory(self._directory.slots)

    def stored_report(self) -> bytes | None:
        try:
            with self._report.open("rb") as file:
                return file.read(REPORT_SIZE_BYTES_MAX)
        except FileNotFoundError:
            return None


def _check_label(path: str) -> None:
    """A path that climbs is refused for firmware too, though firmware goes to a slot whatever its path says; and so is none."""
    if not path:
        raise PlatformError(PlatformErrorCode.FILE_CREATE_FAILED, "The update names no file: filepath is empty.")
    if len(path) > PATH_LENGTH_MAX or "\x00" in path or "\\" in path or ".." in path.split("/"):
        raise PlatformError(PlatformErrorCode.FILE_CREATE_FAILED, f"{path[:300]!r} leads outside the places for updates.")


@contextmanager
def failing_as(code: PlatformErrorCode) -> Iterator[None]:
    """An error of the operating system is this failure of the platform, with errno as its sub code."""
    try:
        yield
    except OSError as error:
        raise PlatformError(code, str(error), sub_code=(error.errno or 0) & 0xFFFFFF) from None
