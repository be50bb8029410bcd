"""The contract of a platform as tests, for whoever brings Overair to another device.

The 15 cases of FreeRTOS's platform test group and one for activation. Subclass with pytest (or call the methods yourself)::

    class TestMyPlatform(PlatformContract):
        def make_platform(self): ...
        def make_platform_on_trial(self): ...
        def signed_firmware(self): ...

Only assertions are used: this module needs no test framework.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, cast

from overair.agent.platform import (
    FileContext,
    ImageState,
    Platform,
    PlatformError,
    PlatformErrorCode,
    PlatformImageState,
    ResetRequested,
)
from overair.wire.blocks import bitmap_for, block_count
from overair.wire.image_signature import VerifiedImage
from overair.wire.job_document import DocumentFile, FileSignature

BLOCK_SIZE_BYTES: Final = 1024


class PlatformContract(ABC):
    """What every platform must do."""

    @abstractmethod
    def make_platform(self) -> Platform:
        """A fresh platform whose running image is valid."""

    @abstractmethod
    def make_platform_on_trial(self) -> Platform:
        """A platform that has just started a new image, not yet accepted."""

    @abstractmethod
    def signed_firmware(self) -> tuple[DocumentFile, bytes]:
        """A firmware image that ``make_platform`` accepts, signed by one whom it trusts, and its entry in a job document."""

    # --- CloseFile ---

    def test_close_file_with_a_valid_signature(self) -> None:
        platform, context, data = self._open()
        self._write_all(platform, context, data)
        image = platform.close_file(context)
        assert isinstance(image, VerifiedImage)
        assert image.size_bytes == len(data)

    def test_close_file_with_an_invalid_signature_after_a_block_was_written(self) -> None:
        platform, context, data = self._open(self._with_broken_signature)
        self._write_all(platform, context, data)
        _fails(PlatformErrorCode.SIGNATURE_CHECK_FAILED, lambda: platform.close_file(context))

    def test_close_file_with_an_invalid_signature_and_no_block_written(self) -> None:
        platform, context, _ = self._open(self._with_broken_signature)
        _fails(PlatformErrorCode.SIGNATURE_CHECK_FAILED, lambda: platform.close_file(context))

    def test_close_file_with_a_code_signer_certificate_that_does_not_exist(self) -> None:
        platform, context, data = self._open(lambda file: replace(file, certificate_path="/certificates/nobody"))
        self._write_all(platform, context, data)
        code = _fails(None, lambda: platform.close_file(context))
        assert code in (PlatformErrorCode.BAD_SIGNER_CERTIFICATE, PlatformErrorCode.SIGNATURE_CHECK_FAILED)

    # --- CreateFileForRx ---

    def test_create_file_for_any_file(self) -> None:
        platform, context, _ = self._open()
        platform.abort(context)

    # --- Abort ---

    def test_abort_an_open_file(self) -> None:
        platform, context, data = self._open()
        platform.abort(context)
        _fails(None, lambda: platform.write_block(context, 0, data[:BLOCK_SIZE_BYTES]))

    def test_abort_a_file_with_a_block_written(self) -> None:
        platform, context, data = self._open()
        platform.write_block(context, 0, data[:BLOCK_SIZE_BYTES])
        platform.abort(context)
        assert platform.create_file(context) is None, "what was aborted must be forgotten"

    def test_abort_without_a_context(self) -> None:
        self.make_platform().abort(None)

    def test_abort_a_file_that_does_not_exist(self) -> None:
        file, _ = self.signed_firmware()
        self.make_platform().abort(FileContext(file=replace(file, path="nowhere"), block_size_bytes=BLOCK_SIZE_BYTES))

    # --- WriteBlock ---

    def test_write_block_of_a_single_byte(self) -> None:
        platform, context, data = self._open()
        assert platform.write_block(context, 0, data[:1]) == 1

    def test_write_many_blocks(self) -> None:
        platform, context, data = self._open()
        for offset in range(0, len(data), BLOCK_SIZE_BYTES):
            block = data[offset : offset + BLOCK_SIZE_BYTES]
            assert platform.write_block(context, offset, block) == len(block)

    # --- SetPlatformImageState, GetPlatformImageState ---

    def test_set_image_state_to_testing(self) -> None:
        platform = self.make_platform_on_trial()
        platform.set_image_state(ImageState.TESTING)
        assert platform.image_state() is PlatformImageState.PENDING_COMMIT

    def test_set_image_state_to_one_that_is_invalid(self) -> None:
        platform = self.make_platform_on_trial()
        _fails(PlatformErrorCode.BAD_IMAGE_STATE, lambda: platform.set_image_state(cast("Any", 0)))

    def test_set_image_state_to_one_that_is_unknown(self) -> None:
        platform = self.make_platform_on_trial()
        unknown = max(ImageState) + 1
        _fails(PlatformErrorCode.BAD_IMAGE_STATE, lambda: platform.set_image_state(cast("Any", unknown)))

    def test_image_state_is_invalid_after_closing_a_file_failed(self) -> None:
        platform, context, data = self._open(self._with_broken_signature)
        self._write_all(platform, context, data)
        _fails(PlatformErrorCode.SIGNATURE_CHECK_FAILED, lambda: platform.close_file(context))
        assert platform.image_state() is PlatformImageState.INVALID

    # --- ActivateNewImage ---

    def test_activate_the_image_that_was_verified_and_no_other(self) -> None:
        platform, context, data = self._open()
        self._write_all(platform, context, data)
        before = platform.digests
        assert before.waiting is None
        image = platform.close_file(context)
        received = platform.digests
        assert (received.running, received.waiting) == (before.running, image.sha256)
        platform.activate(context, image)
        assert platform.digests.running == before.running, "before the reset the old image runs"
        assert platform.image_state() is PlatformImageState.PENDING_COMMIT
        try:
            platform.reset()
        except ResetRequested:
            return
        raise AssertionError("reset returned")

    # --- shared ---

    def _open(self, change: Callable[[DocumentFile], DocumentFile] = lambda file: file) -> tuple[Platform, FileContext, bytes]:
        file, data = self.signed_firmware()
        platform = self.make_platform()
        context = FileContext(file=change(file), block_size_bytes=BLOCK_SIZE_BYTES)
        assert platform.create_file(context) is None, "nothing of this file can be here yet"
        return platform, context, data

    @staticmethod
    def _with_broken_signature(file: DocumentFile) -> DocumentFile:
        signature = file.signature
        assert signature is not None
        broken = signature.value[:-1] + bytes((signature.value[-1] ^ 1,))
        return replace(
            file,
            signature=FileSignature(
                hash_algorithm=signature.hash_algorithm, signature_algorithm=signature.signature_algorithm, value=broken
            ),
        )

    @staticmethod
    def _write_all(platform: Platform, context: FileContext, data: bytes) -> None:
        for offset in range(0, len(data), BLOCK_SIZE_BYTES):
            platform.write_block(context, offset, data[offset : offset + BLOCK_SIZE_BYTES])
        platform.make_durable(context, bitmap_for(range(block_count(len(data), BLOCK_SIZE_BYTES))))


def _fails(code: PlatformErrorCode | None, action: Callable[[], object]) -> PlatformErrorCode:
    found: PlatformErrorCode | None = None
    try:
        action()
    except PlatformError as error:
        found = error.code
    assert found is not None, f"succeeded where {code.name if code else 'a failure'} was expected"
    assert code in (None, found), f"failed with {found.name}, expected {code and code.name}"
    return found
