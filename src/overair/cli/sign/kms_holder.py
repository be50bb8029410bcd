"""Keys in a cloud's key service, for ``overair sign`` (docs/adr/0013): what ``server.keyring.key_services`` knows, in the words
and with the exits of these commands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from overair.cli.sign.ends import SignEnded, SignExit, refused, usage
from overair.cli.sign.key_records import KeyRecord
from overair.server.keyring import key_services
from overair.server.keyring.key_services import ServiceRefused, Why
from overair.wire.uptane.keys import Flavour, KeyType, PublicKey, read_public_key
from overair.wire.uptane.refusals import MetadataRefused

T = TypeVar("T")

_EXITS: Final = {
    Why.NAME: SignExit.USAGE,
    Why.LIBRARY: SignExit.USAGE,
    Why.UNREACHABLE: SignExit.UNREACHABLE,
    Why.ALGORITHM: SignExit.REFUSED,
}


def describe(uri: str) -> PublicKey | None:
    """The public half as the service tells it, or None where it can't be asked (the operator then names a file).

    Raises:
        SignEnded: USAGE: unknown scheme, or a library that isn't installed; UNREACHABLE: the service; REFUSED: not a key for
        us.
    """
    found = _told(lambda: key_services.described_key(uri))
    return None if found is None else _public_key(found)


def open_key(record: KeyRecord) -> ServiceSigner:
    """A signer for a key that is recorded.

    Raises:
        SignEnded: USAGE: unknown scheme or a library that isn't installed.
    """
    scheme = record.holder.partition(":")[0]
    if not _told(lambda: key_services.is_service(scheme)):
        raise usage(f"{record.name} lies at {scheme}:, and no key service answers to that here.")
    described: dict[str, Any] = record.key.to_json(Flavour.TUF)
    signer = _told(
        lambda: key_services.signer_at(
            record.holder,
            described["keytype"],
            described["scheme"],
            described["keyval"]["public"],
            key_id=record.id,
        )
    )
    return ServiceSigner(signer, record.key, scheme)


class ServiceSigner:
    """A private key that a service holds."""

    def __init__(self, signer: Any, key: PublicKey, scheme: str) -> None:
        self._signer = signer
        self._scheme = scheme
        self.public_key = key

    def sign(self, data: bytes) -> bytes:
        signature = _told(lambda: key_services.told_plainly(self._scheme, lambda: self._signer.sign(data)))
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


def _told(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except ServiceRefused as end:
        raise SignEnded(_EXITS[end.why], end.message) from end
