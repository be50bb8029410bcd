from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overair.agent.durable import Disk
from overair.agent.flash import flash
from overair.agent.image_builder import build_image
from overair.agent.platform import (
    FileContext,
    ImageState,
    Platform,
    PlatformError,
    PlatformErrorCode,
    PlatformImageState,
    VersionNotRising,
)
from overair.agent.platforms.posix import PosixPlatform
from overair.agent.slots import SlotNotBootable, SlotStore, verify_slot
from overair.agent.testing import PlatformContract
from overair.wire.blocks import bitmap_for, block_count
from overair.wire.image import ImageManifest, ImageVersion
from overair.wire.image_signature import VerifiedImage
from overair.wire.job_document import DocumentFile, FileSignature, HashAlgorithm, SignatureAlgorithm
from tests.support.device import HARDWARE, Signer, cached_image, make_device

SIGNER = Signer()
OLD = ImageManifest(name="demo", version=ImageVersion.parse("1.0.0"), hardware_id=HARDWARE)


def platform_at(root: Path, version: str = "1.0.0", **settings: Any) -> PosixPlatform:
    directory, read = make_device(root, SIGNER, **settings)
    image = root / "first.zip"
    image.write_bytes(cached_image(version))
    flash(directory, image, signature=None)
    return PosixPlatform(directory, read, running_image=replace(OLD, version=ImageVersion.parse(version)))


def receive(platform: Platform, file: DocumentFile, data: bytes) -> tuple[FileContext, VerifiedImage]:
    context = FileContext(file=file, block_size_bytes=4096)
    platform.create_file(context)
    for offset in range(0, len(data), 4096):
        platform.write_block(context, offset, data[offset : offset + 4096])
    platform.make_durable(context, bitmap_for(range(block_count(file.size_bytes, 4096))))
    return context, platform.close_file(context)


class TestPosixPlatformKeepsTheContract(PlatformContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.root = tmp_path / "device"

    def make_platform(self) -> Platform:
        return platform_at(self.root)

    def make_platform_on_trial(self) -> Platform:
        platform = platform_at(self.root)
        context, image = receive(platform, *self.signed_firmware())
        platform.activate(context, image)
        return platform

    def signed_firmware(self) -> tuple[DocumentFile, bytes]:
        data = cached_image("2.0.0")
        return SIGNER.file(data), data


def refusal(platform: Platform, file: DocumentFile, data: bytes) -> tuple[PlatformErrorCode, int]:
    with pytest.raises(PlatformError) as caught:
        receive(platform, file, data)
    return caught.value.code, caught.value.sub_code


def test_a_wrong_key_is_refused(tmp_path: Path) -> None:
    data = cached_image("2.0.0")
    assert refusal(platform_at(tmp_path / "d"), Signer().file(data), data)[0] is PlatformErrorCode.SIGNATURE_CHECK_FAILED


def test_an_unsigned_file_is_refused_before_a_byte_is_fetched(tmp_path: Path) -> None:
    file = SIGNER.file(cached_image("2.0.0"), signature=None)
    with pytest.raises(PlatformError) as caught:
        platform_at(tmp_path / "d").create_file(FileContext(file=file, block_size_bytes=4096))
    assert caught.value.code is PlatformErrorCode.SIGNATURE_CHECK_FAILED


@pytest.mark.parametrize(
    ("hash_algorithm", "algorithm"),
    [
        (HashAlgorithm.SHA256, SignatureAlgorithm.RSA),
        (HashAlgorithm.SHA1, SignatureAlgorithm.ECDSA),
        (HashAlgorithm.SHA1, SignatureAlgorithm.RSA),
    ],
)
def test_a_wrong_algorithm_is_refused(tmp_path: Path, hash_algorithm: HashAlgorithm, algorithm: SignatureAlgorithm) -> None:
    data = cached_image("2.0.0")
    signature = FileSignature(hash_algorithm=hash_algorithm, signature_algorithm=algorithm, value=SIGNER.sign(data))
    found = refusal(platform_at(tmp_path / "d"), SIGNER.file(data, signature=signature), data)
    assert found[0] is PlatformErrorCode.SIGNATURE_CHECK_FAILED


def test_a_wrong_size_is_refused(tmp_path: Path) -> None:
    data = cached_image("2.0.0")
    padded = SIGNER.file(data, size_bytes=len(data) + 1)
    assert refusal(platform_at(tmp_path / "d"), padded, data)[0] is PlatformErrorCode.SIGNATURE_CHECK_FAILED
    too_large = SIGNER.file(data, size_bytes=10_000_001)
    found = refusal(platform_at(tmp_path / "e", slot_size_bytes_max=10_000_000), too_large, b"")
    assert found[0] is PlatformErrorCode.FILE_TOO_LARGE


def test_another_hardwares_image_is_refused(tmp_path: Path) -> None:
    data = build_image("demo", "2.0.0", "other-board")
    assert refusal(platform_at(tmp_path / "d"), SIGNER.file(data), data) == (PlatformErrorCode.BAD_IMAGE_STATE, 2)


def test_signed_bytes_that_are_no_image_are_refused_as_firmware(tmp_path: Path) -> None:
    data = b"not a zip" * 100
    assert refusal(platform_at(tmp_path / "d"), SIGNER.file(data), data) == (PlatformErrorCode.BAD_IMAGE_STATE, 1)


@pytest.mark.parametrize(("version", "same"), [("2.0.0", True), ("1.9.9", False)])
def test_a_version_that_does_not_rise_is_refused_unless_the_image_allows_it(tmp_path: Path, version: str, same: bool) -> None:
    platform = platform_at(tmp_path / "d", "2.0.0")
    data = cached_image(version)
    with pytest.raises(VersionNotRising) as caught:
        receive(platform, SIGNER.file(data), data)
    assert caught.value.same is same
    allowed = cached_image(version, allow_downgrade=True)
    receive(platform, SIGNER.file(allowed), allowed)


@pytest.mark.parametrize("path", ["../slots/a.zip", "a/../../b", "..", "/../x", "a\\..\\b", "x" * 300, "nul\x00"])
@pytest.mark.parametrize("file_type", [0, 1])
def test_a_path_that_climbs_is_refused(tmp_path: Path, path: str, file_type: int) -> None:
    data = cached_image("2.0.0")
    found = refusal(platform_at(tmp_path / "d"), SIGNER.file(data, path=path, file_type=file_type), data)
    assert found[0] is PlatformErrorCode.FILE_CREATE_FAILED


def test_any_other_file_is_stored_below_files_and_nothing_boots_it(tmp_path: Path) -> None:
    platform = platform_at(tmp_path / "d")
    for path in ("/etc/app/settings.toml", "etc/app/settings.toml"):
        data = path.encode() * 1000
        receive(platform, SIGNER.file(data, path=path, file_type=1), data)
        assert (tmp_path / "d/files/etc/app/settings.toml").read_bytes() == data
    assert SlotStore(platform._directory, Disk()).read().b is None


@pytest.mark.parametrize("path", ["", "/", ".", "link/inside", "taken"])
def test_a_place_that_is_a_link_or_a_directory_or_nothing_is_refused(tmp_path: Path, path: str) -> None:
    platform = platform_at(tmp_path / "d")
    (tmp_path / "outside").mkdir()
    (tmp_path / "d/files/link").symlink_to(tmp_path / "outside")
    (tmp_path / "d/files/taken").mkdir()
    found = refusal(platform, SIGNER.file(b"x", path=path, file_type=7), b"x")
    assert found[0] is PlatformErrorCode.FILE_CREATE_FAILED
    assert not list((tmp_path / "outside").iterdir())


def test_a_download_goes_on_where_the_disk_says_it_stood(tmp_path: Path) -> None:
    platform = platform_at(tmp_path / "d")
    data = cached_image("2.0.0")
    context = FileContext(file=SIGNER.file(data), block_size_bytes=1024)
    platform.create_file(context)
    platform.write_block(context, 0, data[:1024])
    bitmap = bytearray((block_count(len(data), 1024) + 7) // 8)
    bitmap[0] = 1
    platform.make_durable(context, bytes(bitmap))
    platform.write_block(context, 1024, data[1024:2048])  # never made durable
    again = PosixPlatform(platform._directory, platform._settings, running_image=OLD)
    assert again.create_file(context) == bytes(bitmap)
    other = FileContext(file=SIGNER.file(data), block_size_bytes=1024)  # another signature: another download
    assert again.create_file(other) is None


def test_while_an_image_is_on_trial_the_slot_to_go_back_to_is_not_touched(tmp_path: Path) -> None:
    platform = platform_at(tmp_path / "d")
    data = cached_image("2.0.0")
    context, image = receive(platform, SIGNER.file(data), data)
    platform.activate(context, image)
    newer = cached_image("2.0.1")
    for state in (None, ImageState.REJECTED):
        if state is not None:
            platform.set_image_state(state)
        assert refusal(platform, SIGNER.file(newer), newer)[0] is PlatformErrorCode.BOOT_INFO_FAILED


def test_another_image_than_the_verified_one_is_not_activated(tmp_path: Path) -> None:
    platform = platform_at(tmp_path / "d")
    one, other = cached_image("2.0.0"), cached_image("2.0.1")
    context, first = receive(platform, SIGNER.file(one), one)
    receive(platform, SIGNER.file(other), other)
    with pytest.raises(PlatformError) as caught:
        platform.activate(context, first)
    assert caught.value.code is PlatformErrorCode.ACTIVATE_FAILED
    assert platform.image_state() is PlatformImageState.VALID


@pytest.mark.parametrize("change", ["image", "trust", "anchor removed"])
def test_a_slot_is_checked_again_before_each_run(tmp_path: Path, change: str) -> None:
    platform = platform_at(tmp_path / "d")
    data = cached_image("2.0.0")
    receive(platform, SIGNER.file(data), data)
    record = SlotStore(platform._directory, Disk()).read().b
    assert record is not None
    assert verify_slot(platform._directory, "b", record).name == "b.zip"
    if change == "image":
        with (tmp_path / "d/slots/b.zip").open("r+b") as file:
            file.seek(500)
            file.write(b"\x00\x01\x02\x03")
    elif change == "trust":
        (tmp_path / "d/trust/signer.pem").write_bytes(Signer().certificate_pem)
    else:
        (tmp_path / "d/trust/signer.pem").unlink()
    with pytest.raises(SlotNotBootable):
        verify_slot(platform._directory, "b", record)


def test_the_anchor_is_chosen_by_the_last_segment_and_never_leaves_the_trust_folder(tmp_path: Path) -> None:
    platform = platform_at(tmp_path / "d")
    data = cached_image("2.0.0")
    os.link(tmp_path / "d/trust/signer.pem", tmp_path / "d/identity/outside.pem")
    for path in ("signer", "signer.pem", "/a/b/signer.pem", "..\\signer"):
        receive(platform, SIGNER.file(data, certificate_path=path), data)
    for path in ("", "/", "..", "a/..", "other", "../identity/outside.pem"):
        found = refusal(platform, SIGNER.file(data, certificate_path=path), data)
        assert found[0] is PlatformErrorCode.BAD_SIGNER_CERTIFICATE, path


def test_an_image_that_was_verified_but_not_activated_is_not_fetched_again(tmp_path: Path) -> None:
    platform = platform_at(tmp_path / "d")
    data = cached_image("2.0.0")
    file = SIGNER.file(data)
    context, _ = receive(platform, file, data)
    again = PosixPlatform(platform._directory, platform._settings, running_image=OLD)
    bitmap = again.create_file(context)
    assert bitmap == bitmap_for(range(block_count(len(data), 4096)))
    again.activate(context, again.close_file(context))
    assert again.image_state() is PlatformImageState.PENDING_COMMIT
    assert (tmp_path / "d/slots/b.zip").read_bytes() == data
