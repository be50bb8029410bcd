"""Bearer tokens for plain REST: each stands for one access key for an hour, and is kept nowhere.

A token holds the key's id, sealed by the key that wraps everything else. Whose key that is, whether it is active and what its
holder may do is asked at each request: a key that is taken away, a user who is deleted, a policy that is changed counts for
tokens that are out already.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from hmac import compare_digest
from typing import Final

import msgspec

from overair.basics.clock import Clock
from overair.basics.errors import NotAuthenticated, OverairError
from overair.basics.ids import AccessKeyId
from overair.basics.redacted import Redacted
from overair.basics.work import Work
from overair.server.access.authenticator import caller_of
from overair.server.access.keys import CredentialDirectory
from overair.server.access.model import Credential
from overair.server.access.stores import SecretBox
from overair.server.aws_protocol.authentication import HttpRequest
from overair.server.aws_protocol.operations import Caller
from overair.server.rest.oauth import IssuedToken

LIFETIME_S: Final = 3600
SKEW_MS: Final = 5 * 60_000
"""How far our own clock may have gone back since: a token that a wrong clock dated later than that is none."""
USED_AS: Final = "overair"
"""The service that a key's last use names, where plain REST was asked by a token or a ticket."""
TOKEN_LENGTH_MAX: Final = 512
KEY_ID_LENGTH_MAX: Final = 32
_CONTEXT: Final = "bearer-token"


class _Sealed(msgspec.Struct, frozen=True, array_like=True):
    key_id: str
    expires: int


class SealedTokens:
    """``rest.oauth.BearerTokens``."""

    def __init__(self, work: Work, credentials: CredentialDirectory, box: SecretBox, *, clock: Clock, region: str) -> None:
        self._work = work
        self._credentials = credentials
        self._box = box
        self._clock = clock
        self._region = region

    async def issue(self, client_id: str, client_secret: Redacted[str]) -> IssuedToken | None:
        """See ``BearerTokens``. An id that nobody has costs what a wrong secret does: one read and one comparison."""
        credential: Credential | None = None
        if len(client_id) <= KEY_ID_LENGTH_MAX and client_id.isascii() and client_id.isalnum():
            # Never from memory: how fast the answer comes would tell which ids are in use.
            credential = await self._work.read(lambda tx: self._credentials.load(tx, AccessKeyId(client_id)))
        # The keys of sessions need their session's token too, for which this grant has no field.
        usable = credential is not None and credential.is_active and credential.token_sha256 is None
        expected = credential.secret.reveal() if credential is not None else ""
        given = sha256(client_secret.reveal().encode("utf-8", "replace")).digest()
        matches = compare_digest(given, sha256(expected.encode("ascii")).digest())
        if credential is None or not usable or not matches:
            return None
        expires = self._clock.now() + LIFETIME_S * 1000
        sealed = _Sealed(key_id=credential.key_id, expires=expires)
        token = self._box.wrap(Redacted(msgspec.msgpack.encode(sealed)), context=_CONTEXT)
        return IssuedToken(
            token=Redacted(base64.urlsafe_b64encode(token).rstrip(b"=").decode("ascii")), expires_in_s=LIFETIME_S
        )

    async def authenticate(self, token: str, request: HttpRequest) -> Caller:
        """See ``BearerTokens``."""
        now = self._clock.now()
        sealed = self._open(token)
        if sealed is None or not 0 < sealed.expires - now <= LIFETIME_S * 1000 + SKEW_MS:
            raise _refused()
        credential = await self._credentials.fetch(self._work, sealed.key_id)
        if credential is None or not credential.is_active:
            raise _refused()
        self._credentials.uses.note(credential, service=USED_AS, region=self._region, now=now)
        return caller_of(request, credential, region=self._region, now=now)

    def _open(self, token: str) -> _Sealed | None:
        if len(token) > TOKEN_LENGTH_MAX or not token.isascii():
            return None
        try:
            wrapped = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            return msgspec.msgpack.decode(self._box.unwrap(wrapped, context=_CONTEXT).reveal(), type=_Sealed)
        except (ValueError, binascii.Error, OverairError):
            return None


def _refused() -> NotAuthenticated:
    return NotAuthenticated(
        "The access token isn't valid: it isn't one of this server's, has expired after its hour, or the access key that it "
        "stands for is inactive or gone. Ask POST /oauth2/token for another.",
        subject="bearer-token",
    )
