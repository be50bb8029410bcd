"""A file as a virtual device has it: blocks are hashed in their order and let go, but for the first few bytes.

Those are kept because an image says there which version it is, and that is what the device runs afterwards.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

from overair.wire.blocks import BlockDownload
from overair.wire.image import (
    MANIFEST_NAME,
    MANIFEST_SIZE_BYTES_MAX,
    ImageManifest,
    ImageVersion,
    InvalidImage,
    parse_manifest,
)
from overair.wire.image_signature import MODERN_ALGORITHMS, SignatureAlgorithm, SignerCertificate, digest_is_signed
from overair.wire.job_document import DocumentFile

HEAD_SIZE_BYTES_MAX: Final = 16 * 1024
_LOCAL: Final = struct.Struct("<4s2xHH8xLLHH")
"""A zip's local header: signature, flags, compression, both sizes, lengths of the name and of what follows it."""
_LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_SIZES_FOLLOW: Final = 0x08


class IncomingFile:
    """One file of an update, on its way."""

    def __init__(self, file: DocumentFile, *, block_size_bytes: int, window_blocks: int) -> None:
        self.blocks = BlockDownload(
            file_size_bytes=file.size_bytes, block_size_bytes=block_size_bytes, window_blocks=window_blocks
        )
        self._file = file
        self._hash = hashlib.sha256()
        self._hashed = 0
        """Blocks of the file that are in the hash."""
        self._early: dict[int, bytes] = {}
        self._head = bytearray()

    def keep(self, number: int, data: bytes) -> None:
        """A block came that wasn't there. One before its turn is held, at most a window of them."""
        self._early[number] = data
        while (following := self._early.pop(self._hashed, None)) is not None:
            self._hash.update(following)
            self._hashed += 1
            begins = self._hashed == 1 and following.startswith(_LOCAL_SIGNATURE)
            if begins or 0 < len(self._head) < HEAD_SIZE_BYTES_MAX:
                self._head += following[: HEAD_SIZE_BYTES_MAX - len(self._head)]

    @property
    def digest(self) -> bytes:
        """SHA-256 of what came in its order."""
        return self._hash.digest()

    @property
    def version(self) -> ImageVersion | None:
        """What an image says that it is; None where it says nothing, like a microcontroller's."""
        told = manifest_told(bytes(self._head))
        return None if told is None else told.version

    def may_replace(self, running: ImageVersion) -> bool:
        """Whether a device that runs this one takes the image, as far as that is a matter of versions."""
        told = manifest_told(bytes(self._head))
        return told is None or told.allow_downgrade or told.version > running

    def signers(self, anchors: Mapping[str, Sequence[SignerCertificate]]) -> Sequence[SignerCertificate]:
        """Whom the device trusts by the document's ``certfile``."""
        return anchors.get(self._file.certificate_path.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".pem"), ())

    def is_signed_by(self, signers: Sequence[SignerCertificate]) -> bool:
        """Whether the whole file is, by one of them and by a method that isn't broken."""
        signature = self._file.signature
        algorithm = None if signature is None else SignatureAlgorithm(signature.key)
        if signature is None or algorithm is None or algorithm not in MODERN_ALGORITHMS:
            return False
        return any(
            digest_is_signed(signer.public_key, digest=self.digest, signature=signature.value, algorithm=algorithm)
            for signer in signers
        )


def manifest_told(head: bytes) -> ImageManifest | None:
    """``image.json`` of a zip of which this is the beginning; None where it isn't found there whole."""
    at = 0
    while head[at : at + 4] == _LOCAL_SIGNATURE and len(head) >= at + _LOCAL.size:
        _, flags, compression, packed, size, name_length, extra_length = _LOCAL.unpack_from(head, at)
        begins = at + _LOCAL.size + name_length + extra_length
        if flags & _SIZES_FOLLOW:
            return None
        if head[at + _LOCAL.size :][:name_length] == MANIFEST_NAME.encode():
            return _manifest_in(head[begins : begins + packed], compression, packed, size)
        at = begins + packed
    return None


def _manifest_in(data: bytes, compression: int, packed: int, size: int) -> ImageManifest | None:
    if len(data) < packed or size > MANIFEST_SIZE_BYTES_MAX or compression not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return None
    try:
        if compression == zipfile.ZIP_DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MANIFEST_SIZE_BYTES_MAX)
        return parse_manifest(data)
    except (zlib.error, InvalidImage):
        return None
