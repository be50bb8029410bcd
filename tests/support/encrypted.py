"""Images encrypted for tests, as an operator's tool does it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from overair.wire.image_envelope import FORMAT, SEGMENT_SIZE_BYTES_MIN, Segments, make_envelope
from overair.wire.job_document import SHORT_KEY_ID_LENGTH, DocumentFile, FileEncryption
from overair.wire.key_wrapping import key_id_of
from tests.support.device import Signer


def encrypted(
    image: bytes,
    *readers: ec.EllipticCurvePublicKey,
    segment_size_bytes: int = SEGMENT_SIZE_BYTES_MIN,
    seed: int = 1,
) -> bytes:
    """The whole envelope; the same for the same seed."""
    chance = Random(seed)
    content_key = chance.randbytes(32)
    pairs = [(reader, ec.derive_private_key(chance.getrandbits(250) + 1, ec.SECP256R1())) for reader in readers]
    envelope = make_envelope(
        plain_size_bytes=len(image),
        content_key=content_key,
        iv=chance.randbytes(12),
        readers=pairs,
        segment_size_bytes=segment_size_bytes,
    )
    segments = Segments(envelope, content_key)
    step = segment_size_bytes
    return envelope.head + b"".join(
        segments.seal(number, image[number * step : (number + 1) * step]) for number in range(envelope.segments)
    )


def encrypted_file(
    signer: Signer, image: bytes, readers: Sequence[ec.EllipticCurvePublicKey], **changes: Any
) -> tuple[DocumentFile, bytes]:
    """A job document's entry, and what is streamed for it: the signature is over the image, the size is the envelope's."""
    segment = changes.pop("segment_size_bytes", SEGMENT_SIZE_BYTES_MIN)
    whole = encrypted(image, *readers, segment_size_bytes=segment)
    key_ids = tuple(key_id_of(reader).hex()[:SHORT_KEY_ID_LENGTH] for reader in readers)
    encryption = FileEncryption(format=FORMAT, key_ids=key_ids)
    members: dict[str, Any] = {"size_bytes": len(whole), "encryption": encryption, **changes}
    return signer.file(image, **members), whole
