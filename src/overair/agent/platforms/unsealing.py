"""An encrypted image on its way in: decrypted segment by segment where it lies, in little memory and little more room.

The file of the download begins with a gap; what comes is written behind it. Segments are decrypted to the file's
beginning, in their order, as soon as all before them are on the disk: a run of segments is no longer than the gap, so that it
never overwrites what hasn't been decrypted yet. How far that has come is written down after the bytes are on the disk;
whatever a power cut leaves, the run that was under way is decrypted once more, from bytes that are still whole. In the end the
file is cut off behind the image, and what is left is verified as every image is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from overair.agent.decryption_keys import BadDecryptionKeys
from overair.agent.durable import Disk
from overair.agent.platform import DecryptionSubCode, FileContext, PlatformError, PlatformErrorCode
from overair.wire import strict_json
from overair.wire.image_envelope import (
    FORMAT,
    HEAD_SIZE_BYTES_MAX,
    LEADER_SIZE_BYTES,
    SEGMENT_SIZE_BYTES_MAX,
    Envelope,
    MalformedEnvelope,
    SegmentRefused,
    Segments,
    head_size_bytes,
    read_head,
)
from overair.wire.key_wrapping import NotUnwrapped, unwrap

GAP_SIZE_BYTES: Final = 512 * 1024
assert GAP_SIZE_BYTES >= SEGMENT_SIZE_BYTES_MAX
PROGRESS_SIZE_BYTES_MAX: Final = 1024

Keys = Callable[[], Mapping[bytes, ec.EllipticCurvePrivateKey]]


class Unsealing:
    """One encrypted file. What it needs besides the download's own files stands in two beside them."""

    def __init__(self, folder: Path, disk: Disk, context: FileContext, keys: Keys) -> None:
        """Raises PlatformError: DECRYPTION_FAILED, where the format is one that nobody here reads."""
        assert context.file.encryption is not None
        if context.file.encryption.format != FORMAT:
            raise _failed(
                DecryptionSubCode.UNKNOWN_FORMAT,
                f"The image is encrypted in format {context.file.encryption.format}; this device reads {FORMAT}.",
            )
        self._disk = disk
        self._context = context
        self._keys = keys
        self._head, self._progress = files_of(folder)
        self._envelope: Envelope | None = None
        self._segments: Segments | None = None
        self._done = 0
        self._plain_size_bytes: int | None = None
        """Known once everything is decrypted."""

    @property
    def gap_bytes(self) -> int:
        """Where in the file begins what comes."""
        return GAP_SIZE_BYTES

    @property
    def room_bytes(self) -> int:
        """How long the file is while it is received."""
        return self.gap_bytes + self._context.file.size_bytes

    @property
    def plain_size_bytes(self) -> int | None:
        """Of the image, once all of it is decrypted."""
        return self._plain_size_bytes

    def resume(self, size_on_disk_bytes: int) -> bool:
        """Go on where an earlier process stood; whether the file is as long as it must be.

        Raises:
            PlatformError: DECRYPTION_FAILED: the key isn't here any more.
        """
        try:
            data = self._progress.read_bytes()
            members = strict_json.decode_object(data, size_bytes_max=PROGRESS_SIZE_BYTES_MAX, depth_max=2)
            done, plain_size = members["segments"], members["plain_size_bytes"]
        except FileNotFoundError:
            done, plain_size = 0, None
        except (strict_json.MalformedJson, KeyError):
            return False
        if type(done) is not int or (plain_size is not None and type(plain_size) is not int):
            return False
        self._done, self._plain_size_bytes = done, plain_size
        if plain_size is not None:
            return size_on_disk_bytes in (self.room_bytes, plain_size)
        if size_on_disk_bytes != self.room_bytes:
            return False
        try:
            self._open(self._head.read_bytes()[: HEAD_SIZE_BYTES_MAX + 1])
        except FileNotFoundError:
            return done == 0
        except PlatformError as error:
            if error.sub_code != DecryptionSubCode.BAD_HEAD:
                raise
            return False  # it was good when it was written: begin anew
        assert self._envelope is not None
        return 0 <= done <= self._envelope.segments

    def adopt(self, plain_size_bytes: int) -> None:
        """The whole image is here already, decrypted before."""
        self._plain_size_bytes = plain_size_bytes
        self._note()

    def advance(self, descriptor: int, bitmap: bytes) -> None:
        """These blocks are on the disk: decrypt what can be.

        Raises:
            PlatformError: DECRYPTION_FAILED.
        """
        here = self._contiguous_bytes(bitmap)
        if self._plain_size_bytes is not None or (self._envelope is None and not self._find_head(descriptor, here)):
            return
        envelope, segments = self._envelope, self._segments
        assert envelope is not None
        assert segments is not None
        run = self.gap_bytes // envelope.segment_size_bytes
        while self._done < envelope.segments:
            until = min(self._done + run, envelope.segments)
            last = until - 1
            if here < envelope.sealed_offset_bytes(last) + envelope.sealed_length_bytes(last):
                return
            for number in range(self._done, until):
                offset = self.gap_bytes + envelope.sealed_offset_bytes(number)
                sealed = os.pread(descriptor, envelope.sealed_length_bytes(number), offset)
                try:
                    plain = segments.open(number, sealed)
                except SegmentRefused as error:
                    raise _failed(DecryptionSubCode.BAD_SEGMENT, str(error)) from None
                self._disk.write_at(descriptor, plain, envelope.plain_offset_bytes(number))
            self._disk.sync(descriptor)
            self._done = until
            self._note()

    def finish(self, descriptor: int, bitmap: bytes) -> None:
        """Everything has come: leave the image alone in the file.

        Raises:
            PlatformError: DECRYPTION_FAILED.
        """
        self.advance(descriptor, bitmap)
        if self._plain_size_bytes is None:
            if self._envelope is None or self._done < self._envelope.segments:
                raise _failed(DecryptionSubCode.BAD_HEAD, "The encrypted image ends before its head or its last segment.")
            self._plain_size_bytes = self._envelope.plain_size_bytes
            self._note()
        self._disk.shorten(descriptor, self._plain_size_bytes)
        self._disk.sync(descriptor)

    # ------------------------------------------------------------------------------------------------------------------

    def _contiguous_bytes(self, bitmap: bytes) -> int:
        """How much of the envelope is here from its beginning on without a hole."""
        full = len(bitmap) - len(bitmap.lstrip(b"\xff"))
        blocks = 8 * full
        if full < len(bitmap):
            blocks += (~bitmap[full] & (bitmap[full] + 1)).bit_length() - 1
        return min(blocks * self._context.block_size_bytes, self._context.file.size_bytes)

    def _find_head(self, descriptor: int, here: int) -> bool:
        if here < min(LEADER_SIZE_BYTES, self._context.file.size_bytes):
            return False
        leader = os.pread(descriptor, min(here, LEADER_SIZE_BYTES), self.gap_bytes)
        try:
            size = head_size_bytes(leader)
        except MalformedEnvelope as error:
            raise _failed(DecryptionSubCode.BAD_HEAD, str(error)) from None
        if here < min(size, self._context.file.size_bytes):
            return False
        head = os.pread(descriptor, min(size, here), self.gap_bytes)
        self._open(head)
        # Kept beside the file: where it lies now, the image will.
        self._disk.write_whole(self._head, head)
        return True

    def _open(self, head: bytes) -> None:
        try:
            envelope = read_head(head)
        except MalformedEnvelope as error:
            raise _failed(DecryptionSubCode.BAD_HEAD, str(error)) from None
        if envelope.size_bytes != self._context.file.size_bytes:
            raise _failed(
                DecryptionSubCode.BAD_HEAD,
                f"The encrypted image says {envelope.size_bytes} bytes; the job says {self._context.file.size_bytes}.",
            )
        self._envelope = envelope
        self._segments = Segments(envelope, self._content_key(envelope))

    def _content_key(self, envelope: Envelope) -> bytes:
        try:
            keys = self._keys()
        except BadDecryptionKeys as error:
            raise _failed(DecryptionSubCode.NO_KEY, str(error)) from None
        for recipient in envelope.recipients:
            private = keys.get(recipient.key_id)
            if private is None:
                continue
            try:
                return unwrap(recipient, private)
            except NotUnwrapped as error:
                raise _failed(DecryptionSubCode.BAD_HEAD, str(error)) from None
        raise _failed(
            DecryptionSubCode.NO_KEY,
            f"The image is encrypted to {len(envelope.recipients)} key(s), none of which is among this device's {len(keys)}.",
        )

    def _note(self) -> None:
        members = {"segments": self._done, "plain_size_bytes": self._plain_size_bytes}
        self._disk.write_whole(self._progress, json.dumps(members).encode())


def files_of(folder: Path) -> tuple[Path, Path]:
    """The head of what is received, and how far it is decrypted."""
    return folder / "receiving.head", folder / "receiving.unsealed"


def _failed(sub_code: DecryptionSubCode, message: str) -> PlatformError:
    return PlatformError(PlatformErrorCode.DECRYPTION_FAILED, message, sub_code=sub_code)
