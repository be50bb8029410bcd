"""What ``overair ship`` sends, and to whom: looked at before anything leaves this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overair.cli.audience import Audience, targets_of
from overair.cli.ecu_bundle import Part, parts_of, read_bundle
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.image_encryption import envelope_of
from overair.cli.operator import Operator
from overair.cli.parcel import Parcel, read_parcel
from overair.cli.uptane_rest import UptaneRest
from overair.wire.custom_signature import (
    DOCUMENT_SIZE_BYTES_MAX,
    CustomSignature,
    MalformedSignature,
    read_custom_signature,
)
from overair.wire.image_envelope import Envelope
from overair.wire.image_signature import SignatureCheckFailed, verify_image_signature

PIECE_SIZE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """What things without ECUs get, and what ECUs get."""

    parcel: Parcel | None
    parts: tuple[Part, ...]
    signature: CustomSignature | None = None
    """Of the parcel, made elsewhere; None: the server signs."""
    encrypt_to: tuple[str, ...] = ()
    """To whom the parcel is to be encrypted before it leaves; none: it goes as it is."""
    envelope: Envelope | None = None
    """The parcel came encrypted: what its head says."""

    @property
    def is_encrypted(self) -> bool:
        return bool(self.encrypt_to) or self.envelope is not None


def shipment_of(
    image: Path | None,
    bundle: Path | None,
    hardware_ids: Sequence[str],
    *,
    version: str | None = None,
    stored_as: str | None = None,
    name: str | None = None,
    signature: Path | None = None,
    trust: bool = False,
    encrypt_to: Sequence[str] = (),
) -> Shipment:
    if trust and (image is None or bundle is not None or hardware_ids or stored_as is not None):
        raise CommandEnded(
            ExitCode.USAGE, "--trust is of a document alone, which says by itself where it goes: name that file."
        )
    if bundle is not None and (hardware_ids or name is not None):
        raise CommandEnded(ExitCode.USAGE, "A bundle says by itself which hardware gets what, and what it is called.")
    if image is None and bundle is None:
        raise CommandEnded(ExitCode.USAGE, "Name an image, or a --bundle.")
    parcel = None if image is None else read_parcel(image, version=version, stored_as=stored_as, trust=trust)
    if signature is not None and parcel is None:
        raise CommandEnded(ExitCode.USAGE, "--signature is of an image: name the IMAGE too.")
    envelope = None if parcel is None else envelope_of(parcel.path)
    _check_encryption(envelope, encrypt_to, signature, for_ecus=bundle is not None or bool(hardware_ids))
    signed = None
    if signature is not None and parcel is not None:
        signed = _signature_of(parcel, signature, is_encrypted=envelope is not None)
    if bundle is not None:
        return Shipment(parcel=parcel, parts=read_bundle(bundle), signature=signed)
    assert parcel is not None
    parts = parts_of(parcel, hardware_ids, name=name, version=version) if hardware_ids else ()
    return Shipment(parcel=parcel, parts=parts, signature=signed, encrypt_to=tuple(encrypt_to), envelope=envelope)


def _check_encryption(envelope: Envelope | None, encrypt_to: Sequence[str], signature: Path | None, *, for_ecus: bool) -> None:
    if envelope is None and not encrypt_to:
        return
    if for_ecus:
        raise CommandEnded(ExitCode.USAGE, "Uptane devices take no encrypted images: leave out --hardware-id and --bundle.")
    if envelope is not None and encrypt_to:
        raise CommandEnded(ExitCode.USAGE, "The image is encrypted already: leave out --encrypt-to.")
    if signature is None:
        raise CommandEnded(
            ExitCode.USAGE,
            "An encrypted image is signed before it is encrypted, since the server can't see it: overair sign image, and then "
            "--signature.",
        )


def _signature_of(parcel: Parcel, file: Path, *, is_encrypted: bool) -> CustomSignature:
    """What ``overair sign image`` wrote, once it is found to be this image's. Of one that came encrypted only devices can tell.

    Raises:
        CommandEnded: USAGE when it can't be read, REFUSED when it signs something else.
    """
    try:
        with file.open("rb") as opened:
            found = read_custom_signature(opened.read(DOCUMENT_SIZE_BYTES_MAX + 1))
        if is_encrypted:
            return found
        with parcel.path.open("rb") as image:
            pieces = iter(lambda: image.read(PIECE_SIZE_BYTES), b"")
            verify_image_signature(pieces, signature=found.signature, algorithm=found.algorithm, signer=found.signer)
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{error.filename} can't be read: {error.strerror}.") from error
    except MalformedSignature as error:
        raise CommandEnded(ExitCode.USAGE, f"{file} is no signature that `overair sign image` wrote: {error}") from error
    except SignatureCheckFailed as error:
        raise CommandEnded(
            ExitCode.REFUSED, f"{file} isn't a signature of {parcel.path} as it is now; sign this very file. ({error})"
        ) from error
    return found


def audience_of(operator: Operator, rest: UptaneRest, to: str, shipment: Shipment, *, dry_run: bool = False) -> Audience:
    targets, things = targets_of(operator, to, dry_run=dry_run)
    if not things:
        raise CommandEnded(ExitCode.REFUSED, f"{to} names no thing yet: there is nobody to ship to.")
    registered = rest.registered() if shipment.parts else frozenset()
    audience = Audience(targets=targets, things=things, uptane=[thing for thing in things if thing in registered])
    if shipment.parcel is None and not audience.uptane:
        raise CommandEnded(
            ExitCode.REFUSED,
            f"None of the {len(things)} thing(s) of {to} has registered ECUs, and without an IMAGE there is nothing for them.",
        )
    return audience
