"""An encrypted image: a COSE_Encrypt that says who can read it, and the image behind it in segments (docs/encryption.md).

::

    magic, 8 bytes    length of the COSE_Encrypt, 4 bytes    COSE_Encrypt    segment 0    segment 1    …    last segment

The COSE_Encrypt (RFC 9052 §5.1) has no ciphertext of its own: its protected header names AES-256-GCM, an IV, and, as a
member that whoever doesn't know it must refuse, the size of the image and of a segment. Each segment is encrypted by itself and
has its own tag, as STREAM has it (Hoang, Reyhanitabar, Rogaway, Vizár 2015): its nonce is the IV with the segment's number, and
whether it is the last, mixed in; its associated data are COSE's, so that it belongs to this header. So each segment can be
believed as soon as it is there, and none can be changed, left out, repeated, moved, cut off or taken from another image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overair.wire import strict_cbor
from overair.wire.job_document import FILE_SIZE_BYTES_MAX, RECIPIENTS_MAX, SHORT_KEY_ID_LENGTH, FileEncryption
from overair.wire.key_wrapping import (
    KEY_ID_SIZE_BYTES,
    MalformedRecipient,
    WrappedKey,
    read_recipient,
    wrap,
)

FORMAT: Final = 1
"""Of what this file reads and writes; a job document names it."""
MAGIC: Final = b"\x89OVAIRE\x01"
LEADER_SIZE_BYTES: Final = len(MAGIC) + 4
"""What must be there to know how long the rest of the head is."""
COSE_SIZE_BYTES_MAX: Final = 64 * 1024
HEAD_SIZE_BYTES_MAX: Final = LEADER_SIZE_BYTES + COSE_SIZE_BYTES_MAX
SEGMENT_SIZE_BYTES: Final = 64 * 1024
SEGMENT_SIZE_BYTES_MIN: Final = 4 * 1024
SEGMENT_SIZE_BYTES_MAX: Final = 256 * 1024
"""What a device holds in memory at once."""
TAG_SIZE_BYTES: Final = 16
CONTENT_KEY_SIZE_BYTES: Final = 32
IV_SIZE_BYTES: Final = 12

_TAG_COSE_ENCRYPT: Final = b"\xd8\x60"
_ALG, _CRIT, _CONTENT_TYPE, _IV = 1, 2, 3, 5
_A256GCM: Final = 3
_SEGMENTED: Final = "overair-segments"
_TYPE: Final = "application/vnd.overair.image"
_WRAPPED_SIZE_BYTES: Final = CONTENT_KEY_SIZE_BYTES + 8


class MalformedEnvelope(ValueError):
    """It is no encrypted image as we read them; the message says why."""


class SegmentRefused(Exception):
    """A segment isn't what belongs in its place: changed, moved, cut, or of another image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The head of an encrypted image, understood. It says nothing of the image but its size."""

    head: bytes
    """As it stands before the first segment."""
    protected: bytes
    iv: bytes
    plain_size_bytes: int
    segment_size_bytes: int
    """Of a segment's plain bytes, but for the last one's."""
    recipients: tuple[WrappedKey, ...]

    @property
    def segments(self) -> int:
        return -(-self.plain_size_bytes // self.segment_size_bytes)

    @property
    def size_bytes(self) -> int:
        """Of the whole."""
        return len(self.head) + self.plain_size_bytes + self.segments * TAG_SIZE_BYTES

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Whose it is to read: each name in hexadecimal digits, sorted."""
        return tuple(sorted(recipient.key_id.hex() for recipient in self.recipients))

    @property
    def encryption(self) -> FileEncryption:
        """What a job document says of it."""
        short = sorted({key_id[:SHORT_KEY_ID_LENGTH] for key_id in self.key_ids})
        return FileEncryption(format=FORMAT, key_ids=tuple(short))

    def plain_offset_bytes(self, number: int) -> int:
        """Where in the image a segment begins."""
        return number * self.segment_size_bytes

    def plain_length_bytes(self, number: int) -> int:
        """How much of the image it holds."""
        return min(self.segment_size_bytes, self.plain_size_bytes - self.plain_offset_bytes(number))

    def sealed_offset_bytes(self, number: int) -> int:
        """Where in the whole it begins."""
        return len(self.head) + number * (self.segment_size_bytes + TAG_SIZE_BYTES)

    def sealed_length_bytes(self, number: int) -> int:
        return self.plain_length_bytes(number) + TAG_SIZE_BYTES


class Segments:
    """Encrypts and decrypts the segments of one image; holds its content key."""

    __slots__ = ("_associated", "_cipher", "_envelope")

    def __init__(self, envelope: Envelope, content_key: bytes) -> None:
        if len(content_key) != CONTENT_KEY_SIZE_BYTES:
            raise SegmentRefused(f"A content key has {CONTENT_KEY_SIZE_BYTES} bytes.")
        self._envelope = envelope
        self._cipher = AESGCM(content_key)
        # Enc_structure (RFC 9052 §5.3). The format is bound from outside, since it stands before the COSE_Encrypt.
        self._associated = cbor2.dumps(["Encrypt", envelope.protected, MAGIC])

    def seal(self, number: int, plain: bytes) -> bytes:
        """Encrypt one segment. Each number once for a content key: a nonce that comes twice gives the key away."""
        if len(plain) != self._envelope.plain_length_bytes(number):
            raise ValueError(
                f"Segment {number} has {len(plain)} bytes where {self._envelope.plain_length_bytes(number)} belong."
            )
        return self._cipher.encrypt(self._nonce(number), plain, self._associated)

    def open(self, number: int, sealed: bytes) -> bytes:
        """Decrypt one segment.

        Raises:
            SegmentRefused: it isn't the one that was sealed with this number for this image.
        """
        if not 0 <= number < self._envelope.segments or len(sealed) != self._envelope.sealed_length_bytes(number):
            raise SegmentRefused(f"Segment {number} isn't as long as its place demands.")
        try:
            return self._cipher.decrypt(self._nonce(number), sealed, self._associated)
        except InvalidTag:
            raise SegmentRefused(f"Segment {number} of {self._envelope.segments} isn't what was encrypted.") from None

    def _nonce(self, number: int) -> bytes:
        is_last = number == self._envelope.segments - 1
        mixed = int.from_bytes(self._envelope.iv, "big") ^ (number << 8 | is_last)
        return mixed.to_bytes(IV_SIZE_BYTES, "big")


def is_encrypted(start: bytes) -> bool:
    """Whether these first bytes are those of an encrypted image, of this format or another."""
    return start[: len(MAGIC) - 1] == MAGIC[:-1]


def make_envelope(
    *,
    plain_size_bytes: int,
    content_key: bytes,
    iv: bytes,
    readers: Sequence[tuple[ec.EllipticCurvePublicKey, ec.EllipticCurvePrivateKey]],
    segment_size_bytes: int = SEGMENT_SIZE_BYTES,
) -> Envelope:
    """The head for a new image.

    Args:
        content_key, iv: Random, for this image alone.
        readers: Each one's public key, and a key made for this reader alone.

    Raises:
        MalformedEnvelope: a size or a number that nobody would read.
    """
    protected = cbor2.dumps(
        {
            _ALG: _A256GCM,
            _CRIT: [_SEGMENTED],
            _CONTENT_TYPE: _TYPE,
            _IV: iv,
            _SEGMENTED: [segment_size_bytes, plain_size_bytes],
        }
    )
    recipients = [wrap(content_key, reader, ephemeral).to_cose() for reader, ephemeral in readers]
    cose = _TAG_COSE_ENCRYPT + cbor2.dumps([protected, {}, None, recipients])
    return read_head(MAGIC + len(cose).to_bytes(4, "big") + cose)


def head_size_bytes(leader: bytes) -> int:
    """How long the head is, by its first ``LEADER_SIZE_BYTES``.

    Raises:
        MalformedEnvelope: it isn't one, or longer than anybody reads.
    """
    if leader[: len(MAGIC)] != MAGIC:
        what = "an encrypted image of another format" if is_encrypted(leader) else "no encrypted image"
        raise MalformedEnvelope(f"This is {what}; format {FORMAT} is read here.")
    if len(leader) < LEADER_SIZE_BYTES:
        raise MalformedEnvelope("The encrypted image ends within its head.")
    size = int.from_bytes(leader[len(MAGIC) : LEADER_SIZE_BYTES], "big")
    if not 1 <= size <= COSE_SIZE_BYTES_MAX:
        raise MalformedEnvelope(f"The head of an encrypted image has 1 to {COSE_SIZE_BYTES_MAX} bytes, not {size}.")
    return LEADER_SIZE_BYTES + size


def read_head(head: bytes) -> Envelope:
    """Read a whole head and nothing behind it.

    Raises:
        MalformedEnvelope: anything else.
    """
    if len(head) != head_size_bytes(head[:LEADER_SIZE_BYTES]):
        raise MalformedEnvelope("The head of the encrypted image has another length than it says.")
    cose = head[LEADER_SIZE_BYTES:]
    if cose[: len(_TAG_COSE_ENCRYPT)] != _TAG_COSE_ENCRYPT:
        raise MalformedEnvelope("The head of an encrypted image is a COSE_Encrypt with its tag.")
    try:
        members = strict_cbor.decode(cose[len(_TAG_COSE_ENCRYPT) :], size_bytes_max=COSE_SIZE_BYTES_MAX, depth_max=8)
    except strict_cbor.MalformedCbor as error:
        raise MalformedEnvelope(f"The head of the encrypted image can't be read: {error}") from None
    if not isinstance(members, list) or len(members) != 4:
        raise MalformedEnvelope("A COSE_Encrypt has four members.")
    protected, unprotected, ciphertext, recipients = members
    if unprotected != {} or ciphertext is not None:
        raise MalformedEnvelope("Nothing is said unprotected, and the ciphertext stands behind the head.")
    iv, segment_size, plain_size = _read_protected(protected)
    return Envelope(
        head=head,
        protected=protected,
        iv=iv,
        plain_size_bytes=plain_size,
        segment_size_bytes=segment_size,
        recipients=_read_recipients(recipients),
    )


def _read_protected(protected: object) -> tuple[bytes, int, int]:
    if not isinstance(protected, bytes):
        raise MalformedEnvelope("The protected header is no byte string.")
    try:
        said: dict[Any, Any] = strict_cbor.decode_map(protected, size_bytes_max=1024, depth_max=3)
    except strict_cbor.MalformedCbor as error:
        raise MalformedEnvelope(f"The protected header can't be read: {error}") from None
    if set(said) != {_ALG, _CRIT, _CONTENT_TYPE, _IV, _SEGMENTED}:
        raise MalformedEnvelope(
            "The protected header names the algorithm, the type, the IV and the segments, and nothing else."
        )
    if (said[_ALG], said[_CRIT], said[_CONTENT_TYPE]) != (_A256GCM, [_SEGMENTED], _TYPE):
        raise MalformedEnvelope("The content is an image in segments under AES-256-GCM; anything else isn't read here.")
    iv, sizes = said[_IV], said[_SEGMENTED]
    if not isinstance(iv, bytes) or len(iv) != IV_SIZE_BYTES:
        raise MalformedEnvelope(f"The IV has {IV_SIZE_BYTES} bytes.")
    if not isinstance(sizes, list) or len(sizes) != 2 or any(type(size) is not int for size in sizes):
        raise MalformedEnvelope("The segments are told by two numbers.")
    segment_size, plain_size = sizes
    if not SEGMENT_SIZE_BYTES_MIN <= segment_size <= SEGMENT_SIZE_BYTES_MAX:
        raise MalformedEnvelope(f"A segment has {SEGMENT_SIZE_BYTES_MIN} to {SEGMENT_SIZE_BYTES_MAX} bytes.")
    if not 1 <= plain_size <= FILE_SIZE_BYTES_MAX:
        raise MalformedEnvelope(f"An image has 1 to {FILE_SIZE_BYTES_MAX} bytes.")
    return iv, segment_size, plain_size


def _read_recipients(recipients: object) -> tuple[WrappedKey, ...]:
    if not isinstance(recipients, list) or not 1 <= len(recipients) <= RECIPIENTS_MAX:
        raise MalformedEnvelope(f"An encrypted image has 1 to {RECIPIENTS_MAX} recipients.")
    try:
        found = tuple(read_recipient(recipient) for recipient in recipients)
    except MalformedRecipient as error:
        raise MalformedEnvelope(str(error)) from None
    if any(len(each.wrapped) != _WRAPPED_SIZE_BYTES or len(each.key_id) != KEY_ID_SIZE_BYTES for each in found):
        raise MalformedEnvelope("Each recipient is named by the SHA-256 of its key, and gets a content key of 256 bits.")
    if len({each.key_id for each in found}) != len(found):
        raise MalformedEnvelope("One recipient stands there twice.")
    return found
