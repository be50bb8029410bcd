"""Keys for links to objects, handed to devices: each good for one role until one moment, and kept nowhere.

A link is signed as the role of a job's ``presignedUrlConfig``. A row for each link would be a write for each job document
that leaves, so the key travels inside its own session token, sealed by the key that wraps everything else. What the role may
do is asked when the link is used: taking the grant away ends every link at once.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from overair.basics.clock import Instant
from overair.basics.errors import OverairError
from overair.basics.ids import ALPHANUMERIC, UPPER_AND_DIGITS, AccessKeyId, AccountId, IdSource
from overair.basics.redacted import Redacted
from overair.server.access.model import AssumedRole, Credential
from overair.server.access.stores import SecretBox
from overair.wire.sigv4_signing import SigningCredentials

LINK_KEY_PREFIX: Final = "ASIALINK"
TOKEN_LENGTH_MAX: Final = 1024
_CONTEXT: Final = "link-key"
_SECRET_LENGTH: Final = 40


class _Sealed(msgspec.Struct, frozen=True, array_like=True):
    """What a token holds; as an array, since every byte of it stands in a URL."""

    account: str
    key_id: str
    secret: str
    role_arn: str
    role_id: str
    session_arn: str
    expires: int


class LinkKeys:
    """Makes link keys, and opens those that come back."""

    def __init__(self, box: SecretBox, ids: IdSource) -> None:
        self._box = box
        self._ids = ids

    def mint(self, role: AssumedRole, *, expires: Instant) -> SigningCredentials:
        """A new key that speaks for ``role`` until ``expires``."""
        key_id = LINK_KEY_PREFIX + self._ids.token(12, UPPER_AND_DIGITS)
        secret = self._ids.token(_SECRET_LENGTH, ALPHANUMERIC)
        sealed = _Sealed(
            account=role.place.account,
            key_id=key_id,
            secret=secret,
            role_arn=role.role_arn,
            role_id=role.role_id,
            session_arn=role.session_arn,
            expires=expires,
        )
        token = self._box.wrap(Redacted(msgspec.msgpack.encode(sealed)), context=_CONTEXT)
        return SigningCredentials(
            access_key_id=key_id,
            secret_access_key=secret,
            session_token=base64.urlsafe_b64encode(token).rstrip(b"=").decode("ascii"),
        )

    def open(self, key_id: str, token: str | None) -> Credential | None:
        """The credential in a token, or None where we didn't make it for this key id."""
        if token is None or len(token) > TOKEN_LENGTH_MAX:
            return None
        try:
            wrapped = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
            sealed = msgspec.msgpack.decode(self._box.unwrap(wrapped, context=_CONTEXT).reveal(), type=_Sealed)
        except (ValueError, binascii.Error, OverairError):
            return None
        if sealed.key_id != key_id:
            return None
        session_name = sealed.session_arn.rpartition("/")[2]
        return Credential(
            account=AccountId(sealed.account),
            key_id=AccessKeyId(key_id),
            secret=Redacted(sealed.secret),
            is_active=True,
            principal_arn=sealed.session_arn,
            user_id=f"{sealed.role_id}:{session_name}",
            session_name=session_name,
            role_arn=sealed.role_arn,
            expires=Instant(sealed.expires),
        )
