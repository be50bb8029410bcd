"""``sign image``: an image for devices of the AWS family, signed with a key that the server never sees."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from overair.agent.durable import Disk
from overair.cli.output import Json, print_json
from overair.cli.sign.ends import ending, refused, usage
from overair.cli.sign.image_keys import image_key
from overair.cli.sign.options import PassphraseFile, PinFile, secrets_from, show
from overair.cli.sign.tree import read_file
from overair.wire.custom_signature import CERTIFICATE_NAME_CHARACTERS_MAX, CustomSignature, algorithm_for
from overair.wire.image_signature import (
    CERTIFICATE_SIZE_BYTES_MAX,
    BadSignerCertificate,
    SignatureCheckFailed,
    load_signer_certificate,
    verify_image_signature,
)

PIECE_SIZE_BYTES: Final = 1024 * 1024


def image(
    file: Annotated[Path, typer.Argument(help="The image: the bytes that devices get.")],
    key: Annotated[str, typer.Option("--key", help="The private key: a PEM file, or pkcs11:token=…;object=…?module-path=….")],
    certificate: Annotated[Path, typer.Option("--certificate", help="The key's certificate in PEM, which devices trust.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where the signature is written. [default: FILE.sig.json]")] = None,
    certificate_name: Annotated[
        str | None,
        typer.Option("--certificate-name", help="How devices call the certificate. [default: the name of its file]"),
    ] = None,
    passphrase_file: PassphraseFile = None,
    pin_file: PinFile = None,
    json: Json = False,
) -> None:
    """Sign an image for AWS IoT devices away from the server; `overair ship --signature` sends it. Asks no server."""
    with ending(json):
        name = certificate.name if certificate_name is None else certificate_name
        if not 1 <= len(name) <= CERTIFICATE_NAME_CHARACTERS_MAX:
            raise usage(f"--certificate-name has 1 to {CERTIFICATE_NAME_CHARACTERS_MAX} characters.")
        pem = read_file(certificate, CERTIFICATE_SIZE_BYTES_MAX)
        try:
            signer = load_signer_certificate(pem)
            text = pem.decode("ascii")
        except (BadSignerCertificate, UnicodeDecodeError) as error:
            raise usage(f"{certificate} can't check an image: {error}") from None
        algorithm = algorithm_for(signer.public_key)
        digest = hashlib.sha256()
        for piece in _pieces(file):
            digest.update(piece)
        holder = image_key(key, signer.public_key, secrets_from(passphrase_file, pin_file))
        signature = holder.sign_digest(digest.digest())
        try:
            # As a device does it, over the file once more: a key of another certificate, a swapped token and a file that
            # changed meanwhile all end here.
            verified = verify_image_signature(_pieces(file), signature=signature, algorithm=algorithm, signer=signer)
        except SignatureCheckFailed:
            raise refused(
                f"What the key signed isn't a signature of {certificate}: that is another key's certificate, or {file} has "
                "changed meanwhile. Nothing was written."
            ) from None
        made = CustomSignature(signature=signature, algorithm=algorithm, certificate_pem=text, certificate_name=name)
        target = out or file.with_name(f"{file.name}.sig.json")
        try:
            Disk().write_whole(target, made.to_json())
        except OSError as error:
            raise usage(f"{target} can't be written: {error.strerror}.") from None
        if json:
            print_json(
                {
                    "image": str(file),
                    "sha256": verified.sha256,
                    "size_bytes": verified.size_bytes,
                    "signature": str(target),
                    "algorithm": algorithm.value,
                    "signer": signer.fingerprint,
                    "certificate_name": name,
                }
            )
            return
        show(
            [
                f"{target} signs {file} ({verified.size_bytes:,} bytes, sha256 {verified.sha256[:16]}…)",
                f"  by {signer.fingerprint[:16]}…, which devices must trust as {name}",
                f"  send it with: overair ship {file} --signature {target} --to …",
            ]
        )


def _pieces(file: Path) -> Iterator[bytes]:
    """The file's bytes.

    Raises:
        SignEnded: USAGE: it can't be read, or is empty.
    """
    try:
        with file.open("rb") as opened:
            piece = opened.read(PIECE_SIZE_BYTES)
            if not piece:
                raise usage(f"{file} is empty; a device drops an update of size 0 without a word.")
            while piece:
                yield piece
                piece = opened.read(PIECE_SIZE_BYTES)
    except OSError as error:
        raise usage(f"{file} can't be read: {error.strerror}.") from None
