"""A custom code signature as AWS writes it (``customCodeSigning``, wire reference §5.2): written by who signs away from the
server, read by who sends it. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from overair.wire.image_signature import (
    CERTIFICATE_SIZE_BYTES_MAX,
    SIGNATURE_SIZE_BYTES_MAX,
    BadSignerCertificate,
    PublicKey,
    SignatureAlgorithm,
    SignerCertificate,
    load_signer_certificate,
)
from overair.wire.strict_json import MalformedJson, decode_object

DOCUMENT_SIZE_BYTES_MAX: Final = 64 * 1024
DEPTH_MAX: Final = 8
CERTIFICATE_NAME_CHARACTERS_MAX: Final = 255
_ENCRYPTION: Final = {SignatureAlgorithm.ECDSA_SHA256: "ECDSA", SignatureAlgorithm.RSA_SHA256: "RSA"}
_ALGORITHM: Final = {word: algorithm for algorithm, word in _ENCRYPTION.items()}


class MalformedSignature(Exception):
    """No document of such a signature, or one that no device could check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomSignature:
    """A signature over an image, and the certificate that it is checked with."""

    signature: bytes
    """DER for ECDSA, PKCS #1 v1.5 for RSA."""
    algorithm: SignatureAlgorithm
    certificate_pem: str
    certificate_name: str
    """The job document's ``certfile``: by which name devices know the certificate."""

    @property
    def signer(self) -> SignerCertificate:
        """Raises:
        BadSignerCertificate: the certificate can't check an image.
        """
        return load_signer_certificate(self.certificate_pem.encode("ascii"))

    def to_members(self, signature: bytes | str | None = None) -> dict[str, Any]:
        """``codeSigning`` of an OTAUpdateFile. The signature is raw bytes, as boto3 takes it, unless another form is given."""
        return {
            "customCodeSigning": {
                "signature": {"inlineDocument": self.signature if signature is None else signature},
                "certificateChain": {
                    "certificateName": self.certificate_name,
                    "inlineDocument": self.certificate_pem,
                },
                "hashAlgorithm": "SHA256",
                "signatureAlgorithm": _ENCRYPTION[self.algorithm],
            }
        }

    def to_json(self) -> bytes:
        """The same as a file, which ``aws iot create-ota-update`` takes as it stands."""
        text = base64.b64encode(self.signature).decode("ascii")
        return json.dumps(self.to_members(text), indent=2).encode("ascii") + b"\n"


def algorithm_for(key: PublicKey) -> SignatureAlgorithm:
    """How this key's owner signs images now."""
    is_elliptic = isinstance(key, ec.EllipticCurvePublicKey)
    return SignatureAlgorithm.ECDSA_SHA256 if is_elliptic else SignatureAlgorithm.RSA_SHA256


def read_custom_signature(data: bytes) -> CustomSignature:
    """Read such a file.

    Raises:
        MalformedSignature: it is too long, isn't JSON, lacks a member, or its certificate can't check an image.
    """
    try:
        custom = _object(decode_object(data, size_bytes_max=DOCUMENT_SIZE_BYTES_MAX, depth_max=DEPTH_MAX), "customCodeSigning")
        chain = _object(custom, "certificateChain")
        if custom.get("hashAlgorithm") != "SHA256":
            raise MalformedSignature("hashAlgorithm must be SHA256.")
        found = CustomSignature(
            signature=base64.b64decode(_text(_object(custom, "signature"), "inlineDocument"), validate=True),
            algorithm=_ALGORITHM[_text(custom, "signatureAlgorithm")],
            certificate_pem=_text(chain, "inlineDocument"),
            certificate_name=_text(chain, "certificateName"),
        )
        if not 1 <= len(found.signature) <= SIGNATURE_SIZE_BYTES_MAX:
            raise MalformedSignature(f"The signature has {len(found.signature)} bytes: 1 to {SIGNATURE_SIZE_BYTES_MAX}.")
        if len(found.certificate_name) > CERTIFICATE_NAME_CHARACTERS_MAX:
            raise MalformedSignature(f"certificateName has more than {CERTIFICATE_NAME_CHARACTERS_MAX} characters.")
        if len(found.certificate_pem) > CERTIFICATE_SIZE_BYTES_MAX or not found.certificate_pem.isascii():
            raise MalformedSignature("certificateChain.inlineDocument is no certificate in PEM.")
        found.signer  # noqa: B018 (that it can be read)
    except MalformedJson as error:
        raise MalformedSignature(f"It isn't JSON that can be read: {error}") from None
    except KeyError as error:
        raise MalformedSignature(f"{error} isn't there, or isn't ECDSA or RSA.") from None
    except (binascii.Error, ValueError):
        raise MalformedSignature("signature.inlineDocument isn't Base64.") from None
    except BadSignerCertificate as error:
        raise MalformedSignature(f"Its certificate can't check an image: {error}") from None
    return found


def _object(members: dict[str, Any], name: str) -> dict[str, Any]:
    found = members[name]
    if not isinstance(found, dict):
        raise MalformedSignature(f"{name} is no object.")
    return found


def _text(members: dict[str, Any], name: str) -> str:
    found = members[name]
    if not isinstance(found, str) or not found:
        raise MalformedSignature(f"{name} is no text.")
    return found
