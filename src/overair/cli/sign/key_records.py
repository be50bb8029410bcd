"""What is known in the open of a key: its name, for which role it was made, who holds its private half; and foreign key files.

A record without a holder is somebody else's public key, there to be named in a root or a delegation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from overair.basics.redacted import Redacted
from overair.cli.sign.ends import refused, usage
from overair.wire.strict_json import MalformedJson, decode_object
from overair.wire.uptane.keys import RSA_SIZE_BITS_NEW_MIN, RSA_SIZES_BITS, KeyType, PublicKey, public_key_of, read_public_key
from overair.wire.uptane.refusals import MetadataRefused

FORMAT: Final = "overair-public-key/1"
KEY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
KEY_FILE_SIZE_BYTES_MAX: Final = 64 * 1024
ROLES: Final = ("root", "targets", "delegation")
"""What a key is made for. One key has one role: who steals it has one role."""
NEW_TYPES: Final[Mapping[str, int]] = {"ed25519": 0, "rsa-3072": 3072, "rsa-4096": 4096}
"""What ``sign keys new`` makes."""

PrivateKey = ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """One key that this tree knows."""

    name: str
    role: str
    key: PublicKey
    holder: str
    """``file:NAME.key`` below ``keys/``, ``pkcs11:…``, ``awskms:…``; empty for somebody else's."""

    @property
    def id(self) -> str:
        return self.key.id

    @property
    def kind(self) -> str:
        """``ed25519``, ``rsa-3072``: as the command line writes it."""
        return kind_of(self.key)


def kind_of(key: PublicKey) -> str:
    return "ed25519" if key.type is KeyType.ED25519 else f"{key.type.value.lower()}-{key.size_bits}"


def check_name(name: str) -> str:
    """A key's name.

    Raises:
        SignEnded: USAGE.
    """
    if not KEY_NAME.fullmatch(name):
        raise usage(f"{name!r} is no name for a key: letters, digits, '.', '_' and '-', at most 64, no '.' first.")
    return name


def check_new_size(key: PublicKey) -> None:
    """A key that is made now, wherever it lies.

    Raises:
        SignEnded: REFUSED: RSA below 3072 bits, or a kind that aktualizr refuses whole documents for.
    """
    check_any(key)
    if key.type is KeyType.RSA and key.size_bits < RSA_SIZE_BITS_NEW_MIN:
        raise refused(f"A new RSA key has at least {RSA_SIZE_BITS_NEW_MIN} bits; this one has {key.size_bits}.")


def check_any(key: PublicKey) -> None:
    """A key of any age.

    Raises:
        SignEnded: REFUSED: a kind that can't stand in a root.
    """
    if key.type is KeyType.ECDSA:
        raise refused("ECDSA keys can't be used: one of them in a root makes aktualizr refuse the whole document.")
    if key.type is KeyType.RSA and key.size_bits not in RSA_SIZES_BITS:
        raise refused(f"RSA keys have 2048, 3072 or 4096 bits; this one has {key.size_bits}.")


def write_record(record: KeyRecord) -> bytes:
    document = {
        "format": FORMAT,
        "name": record.name,
        "role": record.role,
        "key_id": record.id,
        "key": record.key.to_json(),
        "holder": record.holder,
    }
    return json.dumps(document, indent=1).encode("ascii") + b"\n"


def read_record(data: bytes, *, path: str) -> KeyRecord:
    """A record of ours.

    Raises:
        SignEnded: USAGE: it isn't one, or its key id isn't its key's.
    """
    try:
        document: dict[str, Any] = decode_object(data, size_bytes_max=KEY_FILE_SIZE_BYTES_MAX, depth_max=8)
        if document["format"] != FORMAT:
            raise ValueError
        key = read_public_key(document["key"])
        record = KeyRecord(
            name=check_name(document["name"]), role=str(document["role"]), key=key, holder=str(document["holder"])
        )
        if record.id != document["key_id"] or record.role not in ROLES:
            raise ValueError
    except (MalformedJson, KeyError, ValueError, TypeError, MetadataRefused):
        raise usage(f"{path} is no key record that this tool wrote, or was changed.") from None
    return record


def read_public(data: bytes, *, path: str) -> PublicKey:
    """A public key in a file: our record, PEM, or the JSON of OTA Connect's tools.

    Raises:
        SignEnded: USAGE: none of these. REFUSED: a kind that can't be used.
    """
    if len(data) > KEY_FILE_SIZE_BYTES_MAX:
        raise usage(f"{path} is too long for a key.")
    try:
        if data.lstrip().startswith(b"{"):
            document: dict[str, Any] = decode_object(data, size_bytes_max=KEY_FILE_SIZE_BYTES_MAX, depth_max=8)
            key = read_public_key(document.get("key", document))
        else:
            loaded = serialization.load_pem_public_key(data)
            if not isinstance(loaded, rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey):
                raise ValueError
            key = public_key_of(loaded)
    except MetadataRefused as error:
        raise refused(f"The key in {path} can't be used: {error.message}") from None
    except (MalformedJson, ValueError, UnsupportedAlgorithm):
        raise usage(f"{path} holds no public key that can be read: our own record, PEM, or OTA Connect's JSON.") from None
    check_any(key)
    return key


def read_private(data: Redacted[bytes], *, path: str) -> PrivateKey:
    """A private key made elsewhere: unencrypted PEM, or the JSON of OTA Connect's tools (a hexadecimal seed, alone or followed
    by the public key; PKCS #1 PEM for RSA; Uptane reference §4.2).

    Raises:
        SignEnded: USAGE, REFUSED.
    """
    # What the library says could quote the key, so nothing of it is passed on.
    unreadable = usage(f"{path} holds no private key that can be read: unencrypted PEM, or OTA Connect's JSON.")
    raw = data.reveal()
    if len(raw) > KEY_FILE_SIZE_BYTES_MAX:
        raise unreadable
    try:
        key = (
            private_of(decode_object(raw, size_bytes_max=KEY_FILE_SIZE_BYTES_MAX, depth_max=8)) if _is_json(raw) else _pem(raw)
        )
    except (MalformedJson, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        raise unreadable from None
    if not isinstance(key, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        raise refused(f"The key in {path} is neither Ed25519 nor RSA.")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size not in RSA_SIZES_BITS:
        raise refused(f"RSA keys have 2048, 3072 or 4096 bits; the one in {path} has {key.key_size}.")
    return key


def private_of(document: Mapping[str, object]) -> PrivateKey:
    """``{"keytype", "keyval": {"private"}}`` as key servers hand it out."""
    keyval = cast("Mapping[str, object]", document["keyval"])
    private = keyval["private"]
    if not isinstance(private, str):
        raise TypeError("no text")
    if str(document["keytype"]).upper() == KeyType.ED25519.value:
        seed = bytes.fromhex(private)
        if len(seed) not in {32, 64}:
            raise ValueError("neither 64 nor 128 digits")
        key = ed25519.Ed25519PrivateKey.from_private_bytes(seed[:32])
        if len(seed) == 64 and key.public_key().public_bytes_raw() != seed[32:]:
            raise ValueError("halves that don't belong together")
        return key
    loaded = _pem(private.encode("ascii"))
    if not isinstance(loaded, rsa.RSAPrivateKey):
        raise TypeError("no RSA key")
    return loaded


def _is_json(raw: bytes) -> bool:
    return raw.lstrip().startswith(b"{")


def _pem(raw: bytes) -> object:
    return serialization.load_pem_private_key(raw, password=None)
