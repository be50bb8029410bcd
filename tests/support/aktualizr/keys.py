"""Keys of ECUs and of roles, as aktualizr holds, names and uses them."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from tests.support.aktualizr import jsoncpp

_PSS_SIGN = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
_PSS_VERIFY = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.AUTO)
_RSA_SIZES_BITS = (2048, 3072, 4096)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What stands in ``keytype`` and ``keyval.public``; ``unknown`` is a key that can't be used."""

    type: str
    value: str

    @classmethod
    def read(cls, value: Any) -> PublicKey:
        """From ``{"keytype", "keyval"}``: the type in any case, an RSA key of an unusable size as unknown."""
        try:
            kind, public = str(value["keytype"]).lower(), value["keyval"]["public"]
        except (KeyError, TypeError):
            return cls("unknown", "")
        if kind == "ed25519":
            return cls("ED25519", public)
        if kind == "rsa" and _rsa(public) is not None:
            return cls("RSA", public)
        return cls("unknown", public)

    @property
    def key_id(self) -> str:
        """SHA-256 of the quoted and escaped text of the public value, without its last line ends."""
        return hashlib.sha256(jsoncpp.bytes_of(self.value.rstrip("\n"))).hexdigest()

    def to_uptane(self) -> dict[str, object]:
        return {"keytype": self.type, "keyval": {"public": self.value}}

    def verifies(self, signature_base64: str, message: bytes) -> bool:
        """Which algorithm is used follows the key, whatever ``method`` says."""
        try:
            signature = base64.b64decode(signature_base64)
            if self.type == "ED25519":
                ed25519.Ed25519PublicKey.from_public_bytes(binascii.unhexlify(self.value)).verify(signature, message)
                return True
            key = _rsa(self.value) if self.type == "RSA" else None
            if key is None:
                return False
            key.verify(signature, message, _PSS_VERIFY, hashes.SHA256())
        except (InvalidSignature, ValueError):
            return False
        return True


@lru_cache(maxsize=256)
def _rsa(pem: str) -> rsa.RSAPublicKey | None:
    try:
        key = serialization.load_pem_public_key(pem.encode("ascii"))
    except ValueError:
        return None
    return key if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_SIZES_BITS else None


class EcuKey:
    """The key pair of one ECU: what signs manifests."""

    def __init__(self, private: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> None:
        self._private = private
        if isinstance(private, ed25519.Ed25519PrivateKey):
            self.public = PublicKey("ED25519", private.public_key().public_bytes_raw().hex().upper())
        else:
            pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            self.public = PublicKey("RSA", pem.decode("ascii"))

    @classmethod
    def generate(cls, kind: str) -> EcuKey:
        """``ED25519``, ``RSA2048``, ``RSA3072`` or ``RSA4096``, as in the client's configuration."""
        if kind == "ED25519":
            return cls(ed25519.Ed25519PrivateKey.generate())
        return cls(rsa.generate_private_key(public_exponent=65537, key_size=int(kind.removeprefix("RSA"))))

    def sign(self, message: bytes) -> str:
        if isinstance(self._private, ed25519.Ed25519PrivateKey):
            signature = self._private.sign(message)
        else:
            signature = self._private.sign(message, _PSS_SIGN, hashes.SHA256())
        return base64.b64encode(signature).decode("ascii")

    def signed(self, value: dict[str, object]) -> dict[str, object]:
        """``{"signatures": [one], "signed": value}``."""
        method = "ed25519" if self.public.type == "ED25519" else "rsassa-pss"
        signature = {"keyid": self.public.key_id, "method": method, "sig": self.sign(jsoncpp.bytes_of(value))}
        return {"signatures": [signature], "signed": value}
