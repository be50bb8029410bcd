"""Keys in a cloud's key service, through securesystemslib's signers (docs/adr/0013): ``awskms:KEY``, ``gcpkms:PATH``,
``hv:KEY/1``, and any scheme that somebody has registered there.

securesystemslib brings the signers, the cloud's own library must be there too; its credentials come from where that library
looks for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from overair.cli.sign.ends import SignEnded, SignExit, refused, usage
from overair.cli.sign.key_records import KeyRecord
from overair.wire.uptane.keys import Flavour, KeyType, PublicKey, read_public_key
from overair.wire.uptane.refusals import MetadataRefused

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


def describe(uri: str) -> PublicKey | None:
    """The public half as the service tells it, or None where it can't be asked (the operator then names a file).

    Raises:
        SignEnded: USAGE: unknown scheme, or a library that isn't installed; UNREACHABLE: the service; REFUSED: not a key for
        us.
    """
    scheme, _, rest = uri.partition(":")
    signers = _signers()
    if scheme not in signers or scheme in _NOT_OURS:
        known = ", ".join(sorted(f"{name}:" for name in signers if name not in _NOT_OURS))
        raise usage(f"No key service answers to {scheme}: (there are {known}).")
    ask: Callable[[], tuple[str, Any]] | None = None
    if scheme in {"awskms", "gcpkms"}:
        ask = lambda: signers[scheme].import_(rest)  # noqa: E731 (one call, said where its arguments are)
    elif scheme == "hv":
        ask = lambda: signers[scheme].import_(rest.split("/")[0])  # noqa: E731
    elif scheme == "azurekms":
        raise refused("Azure's signer makes ECDSA signatures only, and aktualizr refuses every document with an ECDSA key.")
    if ask is None:
        return None
    return _public_key(_told(scheme, lambda: ask()[1]))


def open_key(record: KeyRecord) -> ServiceSigner:
    """A signer for a key that is recorded.

    Raises:
        SignEnded: USAGE: unknown scheme or a library that isn't installed.
    """
    from securesystemslib import signer as services

    scheme = record.holder.partition(":")[0]
    signers = _signers()
    if scheme not in signers or scheme in _NOT_OURS:
        raise usage(f"{record.name} lies at {scheme}:, and no key service answers to that here.")
    described: dict[str, Any] = record.key.to_json(Flavour.TUF)
    public = services.SSlibKey(record.id, described["keytype"], described["scheme"], described["keyval"])  # type: ignore[attr-defined]
    signer = _told(scheme, lambda: signers[scheme].from_priv_key_uri(record.holder, public))
    return ServiceSigner(signer, record.key, scheme)


class ServiceSigner:
    """A private key that a service holds."""

    def __init__(self, signer: Any, key: PublicKey, scheme: str) -> None:
        self._signer = signer
        self._scheme = scheme
        self.public_key = key

    def sign(self, data: bytes) -> bytes:
        signature = _told(self._scheme, lambda: self._signer.sign(data))
        return bytes.fromhex(signature.signature)


def _public_key(key: Any) -> PublicKey:
    try:
        found = read_public_key({"keytype": key.keytype, "scheme": key.scheme, "keyval": key.keyval}, Flavour.TUF)
    except MetadataRefused as error:
        raise refused(
            f"The key service holds a key that can't be used: {error.message} Make one for RSASSA-PSS with SHA-256."
        ) from None
    if found.type is KeyType.ECDSA:
        raise refused("ECDSA keys can't be used: one of them in a root makes aktualizr refuse the whole document.")
    return found


def _signers() -> dict[str, Any]:
    try:
        from securesystemslib import signer as services
    except ImportError:
        raise usage('Keys in a key service need securesystemslib: pip install "overair[kms]".') from None
    registered: dict[str, Any] = services.SIGNER_FOR_URI_SCHEME  # type: ignore[attr-defined]
    return registered


def _told(scheme: str, ask: Callable[[], T]) -> T:
    from securesystemslib.exceptions import UnsupportedLibraryError

    try:
        return ask()
    except UnsupportedLibraryError as error:
        library = _NEEDS.get(scheme, "the library of its service")
        raise usage(f"Keys at {scheme}: need {library} beside securesystemslib ({error}).") from None
    except (SignEnded, MetadataRefused):
        raise
    except Exception as error:  # each cloud's library has exceptions of its own
        raise SignEnded(SignExit.UNREACHABLE, f"The key service at {scheme}: doesn't answer as it should: {error}") from error
