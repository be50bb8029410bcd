"""What a device tells the server of the keys with which it decrypts images. A message of ours; AWS has none for it.

It goes to ``$aws/things/THING/jobs/$decryption/declare``, below the topics that every device may use for its jobs, and
replaces what the device said before. The answer comes on the same topic with ``/accepted`` or ``/rejected``, as all answers
about jobs do.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from overair.wire.image_envelope import FORMAT
from overair.wire.job_messages import MalformedMessage, RejectionCode
from overair.wire.key_wrapping import UnsuitableKey, load_public_key, public_key_der
from overair.wire.strict_json import MalformedJson, decode_object

KEYS_MAX: Final = 8
"""Of one device: its own, and its groups'."""
FORMATS_MAX: Final = 8
DECLARATION_SIZE_BYTES_MAX: Final = 8 * 1024
CLIENT_TOKEN_LENGTH_MAX: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """Images that are encrypted to any of these keys can be read. No key: none can, any more."""

    keys: tuple[ec.EllipticCurvePublicKey, ...]
    formats: tuple[int, ...] = (FORMAT,)
    """Of encrypted images (``image_envelope``)."""
    client_token: str | None = None

    def to_json(self) -> bytes:
        keys = [base64.b64encode(public_key_der(key)).decode("ascii") for key in self.keys]
        members: dict[str, Any] = {"formats": list(self.formats), "keys": keys}
        if self.client_token is not None:
            members["clientToken"] = self.client_token
        return msgspec.json.encode(members)


def declare_topic(thing: str) -> str:
    """Where a device says it."""
    return f"$aws/things/{thing}/jobs/$decryption/declare"


def parse_declaration(payload: bytes) -> Declaration:
    """Read such a message.

    Raises:
        MalformedMessage: anything else.
    """
    try:
        members = decode_object(payload, size_bytes_max=DECLARATION_SIZE_BYTES_MAX, depth_max=3)
    except MalformedJson as error:
        raise MalformedMessage(
            RejectionCode.INVALID_JSON, f"The declaration is no JSON object that is read here: {error}"
        ) from None
    token = members.get("clientToken")
    if token is not None and (not isinstance(token, str) or len(token) > CLIENT_TOKEN_LENGTH_MAX):
        raise _refused(f"clientToken is a string of at most {CLIENT_TOKEN_LENGTH_MAX} characters.", None)
    keys, formats = members.get("keys"), members.get("formats")
    if not isinstance(keys, list) or len(keys) > KEYS_MAX:
        raise _refused(f"keys is an array of at most {KEYS_MAX} public keys.", token)
    if not isinstance(formats, list) or not 1 <= len(formats) <= FORMATS_MAX or not all(map(_is_format, formats)):
        raise _refused("formats is an array of the formats of encrypted images that the device reads.", token)
    return Declaration(keys=tuple(_key(key, token) for key in keys), formats=tuple(formats), client_token=token)


def _is_format(value: object) -> bool:
    return type(value) is int and 1 <= value <= 255


def _key(value: object, token: str | None) -> ec.EllipticCurvePublicKey:
    try:
        if not isinstance(value, str):
            raise UnsuitableKey("it is no string")
        return load_public_key(base64.b64decode(value, validate=True))
    except (binascii.Error, UnsuitableKey) as error:
        message = f"A key is a SubjectPublicKeyInfo of EC P-256 in Base64: {error}"
        raise _refused(message, token) from None


def _refused(message: str, token: str | None) -> MalformedMessage:
    return MalformedMessage(RejectionCode.INVALID_REQUEST, message, client_token=token)
