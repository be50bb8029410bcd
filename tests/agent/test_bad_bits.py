"""Every single bit of an image counts, and of its signature."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from overair.agent.platform import FileContext, PlatformError, PlatformErrorCode
from overair.wire.blocks import bitmap_for
from overair.wire.image_signature import (
    SignatureAlgorithm,
    SignatureCheckFailed,
    load_signer_certificate,
    verify_image_signature,
)
from tests.agent.test_posix_platform import SIGNER, platform_at
from tests.support.device import image_of_size

SIZE_BYTES = 4096


def image_of_4_kib() -> bytes:
    return image_of_size("2.0.0", SIZE_BYTES)


def bits_that_pass(image: bytes, bits: Iterable[int]) -> list[int]:
    """Those of ``bits`` that could be flipped without being noticed, on the one path of verification there is."""
    signature = SIGNER.sign(image)
    signer = load_signer_certificate(SIGNER.certificate_pem)
    buffer = bytearray(image)
    unnoticed = []
    for bit in bits:
        buffer[bit >> 3] ^= 1 << (bit & 7)
        try:
            verify_image_signature((buffer,), signature=signature, algorithm=SignatureAlgorithm.ECDSA_SHA256, signer=signer)
            unnoticed.append(bit)
        except SignatureCheckFailed:
            pass
        buffer[bit >> 3] ^= 1 << (bit & 7)
    assert buffer == image
    return unnoticed


def test_one_bit_of_each_byte_of_an_image_of_4_kib_is_refused() -> None:
    chance = Random(4)
    assert bits_that_pass(image_of_4_kib(), (8 * byte + chance.randrange(8) for byte in range(SIZE_BYTES))) == []


@pytest.mark.long
def test_all_32768_single_bit_flips_of_an_image_of_4_kib_are_refused() -> None:
    assert bits_that_pass(image_of_4_kib(), range(8 * SIZE_BYTES)) == []


def test_all_single_bit_flips_of_a_signature_are_refused() -> None:
    image = image_of_4_kib()
    signer = load_signer_certificate(SIGNER.certificate_pem)
    signature = SIGNER.sign(image)
    assert verify_image_signature(
        (image,), signature=signature, algorithm=SignatureAlgorithm.ECDSA_SHA256, signer=signer
    ).size_bytes == len(image)
    for bit in range(8 * len(signature)):
        flipped = bytearray(signature)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(SignatureCheckFailed):
            verify_image_signature((image,), signature=bytes(flipped), algorithm=SignatureAlgorithm.ECDSA_SHA256, signer=signer)


@pytest.mark.parametrize("bit", [0, 7, 8 * 2048 + 3, 8 * SIZE_BYTES - 1])
def test_a_flipped_bit_is_refused_by_the_platform_and_leaves_nothing(tmp_path: Path, bit: int) -> None:
    platform = platform_at(tmp_path / "d")
    image = bytearray(image_of_4_kib())
    context = FileContext(file=SIGNER.file(bytes(image)), block_size_bytes=SIZE_BYTES)
    image[bit >> 3] ^= 1 << (bit & 7)
    platform.create_file(context)
    platform.write_block(context, 0, bytes(image))
    platform.make_durable(context, bitmap_for(range(1)))
    with pytest.raises(PlatformError) as caught:
        platform.close_file(context)
    assert caught.value.code is PlatformErrorCode.SIGNATURE_CHECK_FAILED
    assert not list((tmp_path / "d" / "slots").glob("receiving.*"))
