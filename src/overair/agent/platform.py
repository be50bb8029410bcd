"""The port between the agent and a device: FreeRTOS's platform abstraction contract, in Python's words (wire reference §7.6).

Who brings Overair to another device implements ``Platform`` and runs ``overair.agent.testing.PlatformContract`` on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Final, Protocol

from overair.wire.image import ImageManifest
from overair.wire.image_signature import VerifiedImage
from overair.wire.job_document import DocumentFile

if TYPE_CHECKING:  # the boot loader passes by here, and has no use for metadata
    from overair.wire.uptane.matching import VerifiedTarget

STORED_FILE_TYPE: Final = 1
"""Any type but 0 means: store it."""


class PlatformErrorCode(IntEnum):
    """Main codes of failures, as agents report them (wire reference §7.3)."""

    UNINITIALIZED = 0xE0
    OUT_OF_MEMORY = 0xE1
    NULL_FILE_CONTEXT = 0xE2
    SIGNATURE_CHECK_FAILED = 0xE3
    FILE_CREATE_FAILED = 0xE4
    FILE_TOO_LARGE = 0xE5
    BOOT_INFO_FAILED = 0xE6
    BAD_SIGNER_CERTIFICATE = 0xE7
    BAD_IMAGE_STATE = 0xE8
    ABORT_FAILED = 0xE9
    REJECT_FAILED = 0xEA
    COMMIT_FAILED = 0xEB
    ACTIVATE_FAILED = 0xEC
    FILE_ABORT = 0xED
    FILE_CLOSE = 0xEE
    DECRYPTION_FAILED = 0xF0
    """Ours: the C agent knows no encrypted images. ``DecryptionSubCode`` says more."""


class DecryptionSubCode(IntEnum):
    """Sub codes of DECRYPTION_FAILED."""

    NO_KEY = 1
    BAD_HEAD = 2
    BAD_SEGMENT = 3
    UNKNOWN_FORMAT = 4


class PlatformError(Exception):
    """A platform function didn't succeed. ``sub_code`` (24 bits) is the platform's own."""

    def __init__(self, code: PlatformErrorCode, message: str, *, sub_code: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.sub_code = sub_code
        self.message = message


class ImageState(IntEnum):
    """What the agent tells the platform about the running image."""

    TESTING = 1
    ACCEPTED = 2
    REJECTED = 3
    ABORTED = 4


class PlatformImageState(Enum):
    """What the platform tells the agent."""

    PENDING_COMMIT = "pending_commit"
    """The running image is new and on trial: it must be accepted or it will be replaced by the previous one."""
    VALID = "valid"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDigests:
    """SHA-256 of images' bytes, 64 lower-case hexadecimal digits."""

    running: str
    waiting: str | None
    """Of an image that ``close_file`` has verified and nobody has activated yet; None also once it was activated and didn't
    stay."""


class VersionNotRising(Exception):
    """A verified image may not replace the running one: its version is the same or lower and it doesn't allow that."""

    def __init__(self, message: str, *, same: bool) -> None:
        super().__init__(message)
        self.same = same
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class FileContext:
    """One file that is being received."""

    file: DocumentFile
    block_size_bytes: int
    target: VerifiedTarget | None = None
    """What Uptane's two repositories vouch for, in place of a signature. ``for_target`` makes such a context."""

    @classmethod
    def for_target(cls, target: VerifiedTarget, *, block_size_bytes: int, path: str | None = None) -> FileContext:
        """A verified target as a file: firmware, or, with ``path``, a file that is stored there."""
        file = DocumentFile(
            path=path or target.name,
            size_bytes=target.length,
            file_id=0,
            certificate_path="",
            file_type=None if path is None else STORED_FILE_TYPE,
            signature=None,
        )
        return cls(file=file, block_size_bytes=block_size_bytes, target=target)

    @property
    def is_encrypted(self) -> bool:
        """What comes is an envelope; the signature is over the image in it."""
        return self.file.encryption is not None

    @property
    def is_firmware(self) -> bool:
        """Type 0, the default, is firmware; every other type is stored."""
        return not self.file.file_type


class Platform(Protocol):
    """What the agent needs of a device. Failures are ``PlatformError``."""

    @property
    def running_image(self) -> ImageManifest:
        """What the running image says of itself; the version never comes from anywhere else."""
        ...

    @property
    def digests(self) -> ImageDigests:
        """Which images are here: two may have one version."""
        ...

    def abort(self, context: FileContext | None) -> None:
        """Give up a file and forget its blocks. May be called before a file is open. Fails with FILE_ABORT."""
        ...

    def create_file(self, context: FileContext) -> bytes | None:
        """Make room for a file, or find what is already here of the same one: its durable bitmap, or None for a fresh start.

        Fails with FILE_TOO_LARGE, BOOT_INFO_FAILED, FILE_CREATE_FAILED.
        """
        ...

    def write_block(self, context: FileContext, offset_bytes: int, data: bytes) -> int:
        """Write a whole block at once; returns the bytes written. Not durable yet."""
        ...

    def make_durable(self, context: FileContext, bitmap: bytes) -> None:
        """Everything written is on the disk first, then the bitmap that says so."""
        ...

    def close_file(self, context: FileContext) -> VerifiedImage:
        """What came encrypted is decrypted to its end, or fails with DECRYPTION_FAILED, which ``make_durable`` may say too.
        Check the signature over all bytes with the anchor that ``certfile`` names, or all hashes of the target that Uptane's
        repositories vouch for; then what the image says; then close.

        Fails with SIGNATURE_CHECK_FAILED, BAD_SIGNER_CERTIFICATE, FILE_CLOSE; for firmware also BAD_IMAGE_STATE (not an image
        for this hardware) and ``VersionNotRising``. A failed file is forgotten. A file that isn't firmware is in its place
        when this returns.
        """
        ...

    def activate(self, context: FileContext, image: VerifiedImage) -> None:
        """Make the verified image the one that boots next, on trial. The agent calls ``reset`` after it. Fails with
        ACTIVATE_FAILED, also where the image isn't the one that was received."""
        ...

    def reset(self) -> None:
        """Restart the device. Doesn't return: raises ``ResetRequested`` where a process stands for the device."""
        ...

    def set_image_state(self, state: ImageState) -> None:
        """Accepted commits the image on trial; Rejected and Aborted give it up, so that the next reset brings the previous one
        back. Fails with BAD_IMAGE_STATE for an unknown state, COMMIT_FAILED, REJECT_FAILED, ABORT_FAILED."""
        ...

    def image_state(self) -> PlatformImageState:
        """How the platform sees the image: pending, valid, or invalid after a file failed its checks."""
        ...

    def store_report(self, report: bytes | None) -> None:
        """Keep a final status over a restart until the server has acknowledged it; None forgets it."""
        ...

    def stored_report(self) -> bytes | None:
        """What ``store_report`` kept."""
        ...


class ResetRequested(Exception):
    """Ends the agent's run: the process must end with exit status 75 so that the boot loader runs the active slot."""
