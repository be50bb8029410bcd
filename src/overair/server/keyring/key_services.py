"""Keys in a cloud's key service, through securesystemslib's signers (ADR 0013, 0022): ``awskms:KEY``, ``gcpkms:PATH``,
``hv:KEY/1``, and any scheme that somebody has registered there.

The words that ``overair sign`` and the server's keyring share. securesystemslib brings the signers, the cloud's library must
be there too; its credentials come from where that library looks for them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from overair.basics.errors import Conflict
from overair.server.keyring.keys import PublicKey
from overair.server.keyring.model import SignatureAlgorithm

T = TypeVar("T")

_NEEDS: Final = {
    "awskms": "boto3",
    "gcpkms": "google-cloud-kms",
    "azurekms": "azure-identity and azure-keyvault-keys",
    "hv": "hvac",
}
"""What each key service's own library is called, for a refusal that helps."""
_NOT_OURS: Final = {"file2", "gnupg", "hsm", "tkey", "sigstore", "fn", "envvar"}
"""Schemes of securesystemslib's that aren't a key service."""
_SCHEMES: Final = {
    SignatureAlgorithm.ECDSA_SHA256: ("ecdsa", "ecdsa-sha2-nistp256"),
    SignatureAlgorithm.RSA_PKCS1_SHA256: ("rsa", "rsa-pkcs1v15-sha256"),
    SignatureAlgorithm.RSA_PSS_SHA256: ("rsa", "rsassa-pss-sha256"),
    SignatureAlgorithm.ED25519: ("ed25519", "ed25519"),
}
"""How each of our signatures is called there; what isn't here no key service makes."""


class Why(Enum):
    """What the refusal is about."""

    NAME = "name"
    """No key service answers to the URI."""
    LIBRARY = "library"
    UNREACHABLE = "unreachable"
    ALGORITHM = "algorithm"


class ServiceRefused(Conflict):
    """A key service can't be used as was asked."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message, subject="key-holder")
        self.why = why


def described_key(uri: str) -> Any:
    """The key as securesystemslib describes it once the service has told, or None where it can't be asked.

    Raises:
        ServiceRefused: NAME, LIBRARY, UNREACHABLE, ALGORITHM.
    """
    scheme, _, rest = uri.partition(":")
    signers = _signers()
    if not is_service(scheme):
        known = ", ".join(sorted(f"{name}:" for name in signers if name not in _NOT_OURS))
        raise ServiceRefused(Why.NAME, f"No key service answers to {scheme[:40]}: (there are {known}).")
    if scheme == "azurekms":
        raise ServiceRefused(
            Why.ALGORITHM, "Azure's signer makes ECDSA signatures only, and aktualizr refuses every document with an ECDSA key."
        )
    ask: Callable[[], tuple[str, Any]] | None = None
    if scheme in {"awskms", "gcpkms"}:
        ask = lambda: signers[scheme].import_(rest)  # noqa: E731 (one call, said where its arguments are)
    elif scheme == "hv":
        ask = lambda: signers[scheme].import_(rest.split("/")[0])  # noqa: E731
    if ask is None:
        return None
    return told_plainly(scheme, lambda: ask()[1])


def public_key(uri: str) -> PublicKey | None:
    """The public half as the service tells it, or None where it can't be asked.

    Raises:
        ServiceRefused: see ``described_key``; ALGORITHM: a key of a kind that isn't used here.
    """
    described = described_key(uri)
    if described is None:
        return None
    text = described.keyval["public"]
    try:
        if described.keytype == "ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
        key = serialization.load_pem_public_key(text.encode())
    except (ValueError, TypeError):
        raise ServiceRefused(Why.ALGORITHM, "The key service's public key can't be read.") from None
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise ServiceRefused(Why.ALGORITHM, "The key service holds a key that is neither Ed25519, RSA nor EC.")
    return key


def sign(uri: str, public: PublicKey, data: bytes, *, algorithm: SignatureAlgorithm) -> bytes:
    """Have the service sign ``data``: hashed here, sent as a digest.

    Raises:
        ServiceRefused: NAME, LIBRARY, UNREACHABLE, ALGORITHM.
    """
    signer = _signer_for(uri, public, algorithm)
    return bytes.fromhex(told_plainly(uri.partition(":")[0], lambda: signer.sign(data)).signature)


def sign_digest(uri: str, public: PublicKey, digest: bytes, *, algorithm: SignatureAlgorithm) -> bytes:
    """Have the service sign what has this digest. The library's signers hash by themselves, so this asks Amazon's service
    through its client; others can't sign images.

    Raises:
        ServiceRefused: NAME, LIBRARY, UNREACHABLE, ALGORITHM.
    """
    scheme = uri.partition(":")[0]
    if scheme != "awskms":
        raise ServiceRefused(
            Why.ALGORITHM, f"Keys at {scheme[:40]}: sign documents and certificates, not images: awskms: does."
        )
    signer = _signer_for(uri, public, algorithm)

    def ask() -> bytes:
        asked = {"KeyId": signer.aws_key_id, "Message": digest, "MessageType": "DIGEST", "SigningAlgorithm": signer.aws_algo}
        return bytes(signer.client.sign(**asked)["Signature"])

    return told_plainly(scheme, ask)


def _signer_for(uri: str, public: PublicKey, algorithm: SignatureAlgorithm) -> Any:
    if algorithm not in _SCHEMES:
        raise ServiceRefused(Why.ALGORITHM, f"No key service makes {algorithm.value} signatures.")
    key_type, scheme = _SCHEMES[algorithm]
    if isinstance(public, ed25519.Ed25519PublicKey):
        text = public.public_bytes_raw().hex()
    else:
        text = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    return signer_at(uri, key_type, scheme, text)


def signer_at(uri: str, key_type: str, scheme: str, public_text: str, *, key_id: str = "") -> Any:
    """securesystemslib's signer for a key.

    Raises:
        ServiceRefused: NAME, LIBRARY, UNREACHABLE.
    """
    name = uri.partition(":")[0]
    signers = _signers()
    if not is_service(name):
        raise ServiceRefused(Why.NAME, f"No key service answers to {name[:40]}: here.")
    from securesystemslib import signer as services

    public = services.SSlibKey(key_id, key_type, scheme, {"public": public_text})  # type: ignore[attr-defined]
    return told_plainly(name, lambda: signers[name].from_priv_key_uri(uri, public))


def is_service(scheme: str) -> bool:
    """Whether a key service answers to this scheme.

    Raises:
        ServiceRefused: LIBRARY.
    """
    return scheme in _signers() and scheme not in _NOT_OURS


def _signers() -> dict[str, Any]:
    try:
        from securesystemslib import signer as services
    except ImportError:
        raise ServiceRefused(Why.LIBRARY, 'Keys in a key service need securesystemslib: pip install "overair[kms]".') from None
    registered: dict[str, Any] = services.SIGNER_FOR_URI_SCHEME  # type: ignore[attr-defined]
    return registered


def told_plainly(scheme: str, ask: Callable[[], T]) -> T:
    """What the service's library raises becomes a refusal in words."""
    from securesystemslib.exceptions import UnsupportedLibraryError

    try:
        return ask()
    except UnsupportedLibraryError as error:
        needed = _NEEDS.get(scheme, "the library of its service")
        raise ServiceRefused(Why.LIBRARY, f"Keys at {scheme}: need {needed} beside securesystemslib ({error}).") from None
    except ServiceRefused:
        raise
    except Exception as error:  # each cloud's library has exceptions of its own
        raise ServiceRefused(Why.UNREACHABLE, f"The key service at {scheme}: doesn't answer as it should: {error}") from error
