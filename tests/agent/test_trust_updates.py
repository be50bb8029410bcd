"""A new signer's certificate comes as an update that the old one signed; both count for a time; the old one goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overair.agent.flash import flash, read_status
from overair.agent.platform import FileContext, PlatformError, PlatformErrorCode
from overair.agent.platforms.posix import PosixPlatform
from overair.agent.slots import SlotNotBootable, SlotStore, load_anchors, verify_slot
from overair.wire.agent_reasons import TrustRefusal, is_signature_refusal, reason_in_words
from overair.wire.image import ImageManifest, ImageVersion
from overair.wire.trust_document import TRUST_FILE_TYPE, TRUST_SIZE_BYTES_MAX, build_trust
from tests.agent.test_posix_platform import receive
from tests.support.device import HARDWARE, Signer, cached_image, make_device

OLD, NEW = Signer(), Signer()


class Device:
    """A device whose active slot and its other one hold images that the old signer signed."""

    def __init__(self, root: Path) -> None:
        self.directory, self.settings = make_device(root, OLD)
        image = root / "first.zip"
        image.write_bytes(cached_image("1.0.0"))
        flash(self.directory, image, signature=None)
        self.platform = self.platform_of("1.0.0")

    def platform_of(self, version: str) -> PosixPlatform:
        manifest = ImageManifest(name="demo", version=ImageVersion.parse(version), hardware_id=HARDWARE)
        return PosixPlatform(self.directory, self.settings, running_image=manifest)

    def install(self, version: str, signer: Signer, *, anchor: str = "signer") -> None:
        """As an update, accepted."""
        from overair.agent.platform import ImageState

        data = cached_image(version)
        context, image = receive(self.platform, signer.file(data, certificate_path=f"/certificates/{anchor}"), data)
        self.platform.activate(context, image)
        self.platform = self.platform_of(version)
        self.platform.set_image_state(ImageState.ACCEPTED)

    def trust(self, document: bytes, signer: Signer = OLD, *, path: str = "trust/signer.pem", anchor: str = "signer") -> None:
        file = signer.file(document, path=path, file_type=TRUST_FILE_TYPE, certificate_path=anchor)
        receive(self.platform, file, document)

    def refusal(self, document: bytes, **how: Any) -> tuple[PlatformErrorCode, int]:
        before = sorted((path.name, path.read_bytes()) for path in self.directory.trust.iterdir())
        with pytest.raises(PlatformError) as caught:
            self.trust(document, **how)
        assert sorted((path.name, path.read_bytes()) for path in self.directory.trust.iterdir()) == before
        return caught.value.code, caught.value.sub_code

    def boots(self) -> list[str]:
        """The slots that a boot loader would run."""
        state = SlotStore(self.directory, self.platform._disk).read()
        found = []
        for slot in ("a", "b"):
            record = state.record(slot)
            if record is not None:
                try:
                    verify_slot(self.directory, slot, record)
                    found.append(record.version)
                except SlotNotBootable:
                    continue
        return found


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "d")


def document(serial: int, *signers: Signer, name: str = "signer") -> bytes:
    return build_trust(name, serial, [signer.certificate_pem for signer in signers])


def test_a_new_signer_is_shipped_ahead_both_count_and_the_old_one_goes_when_nothing_needs_it(device: Device) -> None:
    device.install("2.0.0", OLD)
    device.trust(document(1, OLD, NEW))
    assert len(load_anchors(device.directory, "/certificates/signer.pem")) == 2
    device.install("3.0.0", NEW)
    device.install("4.0.0", OLD)
    assert sorted(device.boots()) == ["3.0.0", "4.0.0"], "both count while they overlap"
    device.install("5.0.0", NEW)
    assert device.refusal(document(2, NEW), signer=NEW) == (PlatformErrorCode.BAD_SIGNER_CERTIFICATE, TrustRefusal.STILL_NEEDED)
    device.install("6.0.0", NEW)
    device.trust(document(2, NEW), NEW)
    [trusted] = read_status(device.directory).trust
    [signer] = load_anchors(device.directory, "signer")
    assert (trusted.name, trusted.serial, trusted.signers) == ("signer", 2, (signer.fingerprint,))
    assert sorted(device.boots()) == ["5.0.0", "6.0.0"]
    data = cached_image("7.0.0")
    with pytest.raises(PlatformError) as caught:
        receive(device.platform, OLD.file(data), data)
    assert caught.value.code is PlatformErrorCode.SIGNATURE_CHECK_FAILED


def test_a_new_name_stands_beside_the_old_one(device: Device) -> None:
    device.trust(document(1, NEW, name="signer-2"), path="/certs/signer-2.pem")
    device.install("2.0.0", NEW, anchor="signer-2")
    device.install("3.0.0", OLD)
    assert sorted(device.boots()) == ["2.0.0", "3.0.0"]


def test_a_stranger_adds_nobody(device: Device) -> None:
    assert device.refusal(document(1, NEW), signer=NEW)[0] is PlatformErrorCode.SIGNATURE_CHECK_FAILED
    unsigned = OLD.file(document(1, NEW), path="trust/signer.pem", file_type=TRUST_FILE_TYPE, signature=None)
    with pytest.raises(PlatformError):
        device.platform.create_file(FileContext(file=unsigned, block_size_bytes=4096))


@pytest.mark.parametrize(
    ("data", "path", "why"),
    [
        (NEW.certificate_pem, "trust/signer.pem", TrustRefusal.NO_DOCUMENT),
        (document(1, NEW) + b"more", "trust/signer.pem", TrustRefusal.NO_DOCUMENT),
        (document(1, NEW, name="other"), "trust/signer.pem", TrustRefusal.OTHER_NAME),
    ],
)
def test_what_was_signed_for_something_else_is_no_trust(device: Device, data: bytes, path: str, why: TrustRefusal) -> None:
    assert device.refusal(data, path=path) == (PlatformErrorCode.BAD_SIGNER_CERTIFICATE, why)


def test_an_older_document_does_not_bring_a_retired_signer_back_and_the_same_one_again_is_done(device: Device) -> None:
    device.trust(document(3, OLD, NEW))
    newest = document(4, NEW)
    device.trust(newest, NEW)
    device.trust(newest, NEW)
    for serial in (3, 4):
        refused = device.refusal(document(serial, OLD, NEW), signer=NEW)
        assert refused == (PlatformErrorCode.BAD_SIGNER_CERTIFICATE, TrustRefusal.NOT_NEWER)


@pytest.mark.parametrize("path", ["trust/..", "trust/a b.pem", "trust/.hidden"])
def test_a_path_that_names_no_anchor_is_refused_before_a_byte_is_fetched(device: Device, path: str) -> None:
    assert device.refusal(document(1, NEW), path=path)[0] is PlatformErrorCode.FILE_CREATE_FAILED


def test_what_is_too_large_for_trust_is_refused_before_a_byte_is_fetched(device: Device) -> None:
    file = OLD.file(b"x", path="trust/signer.pem", file_type=TRUST_FILE_TYPE, size_bytes=TRUST_SIZE_BYTES_MAX + 1)
    with pytest.raises(PlatformError) as caught:
        device.platform.create_file(FileContext(file=file, block_size_bytes=4096))
    assert caught.value.code is PlatformErrorCode.FILE_TOO_LARGE


def test_an_anchor_without_a_head_trusts_its_first_certificate_alone(device: Device) -> None:
    (device.directory.trust / "signer.pem").write_bytes(OLD.certificate_pem + NEW.certificate_pem)
    assert len(load_anchors(device.directory, "signer")) == 1


@pytest.mark.parametrize("why", list(TrustRefusal))
def test_each_refusal_has_words(why: TrustRefusal) -> None:
    reason = f"0x000000e7: 0x{why.value:08x}"
    assert "trust" in reason_in_words(reason) or "certificate that would go" in reason_in_words(reason)
    assert not is_signature_refusal(reason)
