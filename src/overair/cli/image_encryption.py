"""Encrypting an image on the operator's or the signer's machine: the server never sees what is in it (docs/encryption.md)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from overair.agent.durable import Disk
from overair.cli.ends import CommandEnded, ExitCode
from overair.wire.image_envelope import (
    CONTENT_KEY_SIZE_BYTES,
    HEAD_SIZE_BYTES_MAX,
    IV_SIZE_BYTES,
    LEADER_SIZE_BYTES,
    Envelope,
    MalformedEnvelope,
    Segments,
    head_size_bytes,
    is_encrypted,
    make_envelope,
    read_head,
)
from overair.wire.job_document import RECIPIENTS_MAX
from overair.wire.key_wrapping import PUBLIC_KEY_SIZE_BYTES_MAX, UnsuitableKey, key_id_of, load_public_key

SUFFIX: Final = ".enc"


def encrypt_file(image: Path, out: Path, readers: Sequence[ec.EllipticCurvePublicKey]) -> Envelope:
    """Write the image, encrypted to these readers with a new content key, segment by segment. ``out`` is whole or isn't there.

    Raises:
        CommandEnded: USAGE: a file can't be read or written, is encrypted already, or there are too many readers; REFUSED: it
            changed while it was read.
    """
    distinct = {key_id_of(reader): reader for reader in readers}
    if not 1 <= len(distinct) <= RECIPIENTS_MAX:
        raise CommandEnded(
            ExitCode.USAGE,
            f"An image is encrypted to 1 to {RECIPIENTS_MAX} keys, not {len(distinct)}. Give many devices one key (overair "
            "encrypt key).",
        )
    disk, part = Disk(), out.with_name(f"{out.name}.part")
    try:
        with image.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            if is_encrypted(source.read(LEADER_SIZE_BYTES)):
                raise CommandEnded(ExitCode.USAGE, f"{image} is encrypted already.")
            source.seek(0)
            content_key = secrets.token_bytes(CONTENT_KEY_SIZE_BYTES)
            envelope = make_envelope(
                plain_size_bytes=size,
                content_key=content_key,
                iv=secrets.token_bytes(IV_SIZE_BYTES),
                readers=[(reader, ec.generate_private_key(ec.SECP256R1())) for reader in distinct.values()],
            )
            segments = Segments(envelope, content_key)
            descriptor = disk.create(part, os.O_WRONLY | os.O_TRUNC)
            try:
                disk.write_at(descriptor, envelope.head, 0)
                for number in range(envelope.segments):
                    plain = source.read(envelope.plain_length_bytes(number))
                    if len(plain) != envelope.plain_length_bytes(number):
                        raise CommandEnded(ExitCode.REFUSED, f"{image} changed while it was encrypted. Nothing was written.")
                    disk.write_at(descriptor, segments.seal(number, plain), envelope.sealed_offset_bytes(number))
                disk.sync(descriptor)
            except BaseException:
                disk.remove(part)
                raise
            finally:
                os.close(descriptor)
        disk.rename(part, out)
        disk.sync_directory(out.parent)
    except MalformedEnvelope as error:
        raise CommandEnded(ExitCode.USAGE, f"{image} can't be encrypted: {error}") from error
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{error.filename or out}: {error.strerror}.") from error
    return envelope


def envelope_of(path: Path) -> Envelope | None:
    """What the head of a file says, if it is an encrypted image.

    Raises:
        CommandEnded: USAGE: it begins as one and can't be read, or is cut off.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_SIZE_BYTES_MAX)
            size = os.fstat(file.fileno()).st_size
        if not is_encrypted(head):
            return None
        envelope = read_head(head[: head_size_bytes(head[:LEADER_SIZE_BYTES])])
    except MalformedEnvelope as error:
        raise CommandEnded(ExitCode.USAGE, f"{path} begins as an encrypted image and can't be read as one: {error}") from error
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{path} can't be read: {error.strerror}.") from error
    if envelope.size_bytes != size:
        raise CommandEnded(ExitCode.USAGE, f"{path} has {size} bytes, and its head says {envelope.size_bytes}: it is cut off.")
    return envelope


def public_key_in(path: Path) -> ec.EllipticCurvePublicKey:
    """A reader's public key in PEM.

    Raises:
        CommandEnded: USAGE: it can't be read, or is no key that images are encrypted to.
    """
    try:
        with path.open("rb") as file:
            return load_public_key(file.read(PUBLIC_KEY_SIZE_BYTES_MAX + 1))
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{path} can't be read: {error.strerror}.") from error
    except UnsuitableKey as error:
        raise CommandEnded(ExitCode.USAGE, f"{path} holds no public key that images are encrypted to: {error}") from error
