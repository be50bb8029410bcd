"""Tickets in links of plain REST: each stands for one access key at one link until one moment, and is kept nowhere.

Whose key that is, whether it is active and what its holder may do is asked when the link is used, as for bearer tokens.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from overair.basics.clock import Clock, Instant
from overair.basics.errors import NotAuthenticated, OverairError
from overair.basics.redacted import Redacted
from overair.basics.work import Work
from overair.server.access.authenticator import caller_of
from overair.server.access.bearer_tokens import USED_AS
from overair.server.access.keys import CredentialDirectory
from overair.server.access.stores import SecretBox
from overair.server.aws_protocol.authentication import HttpRequest
from overair.server.aws_protocol.operations import Caller

TICKET_LENGTH_MAX: Final = 512
_CONTEXT: Final = "link-ticket/"


class _Sealed(msgspec.Struct, frozen=True, array_like=True):
    key_id: str
    expires: int


class SealedTickets:
    """``rest.tickets.Tickets``. The link is part of the seal, so a ticket opens no other."""

    def __init__(self, work: Work, credentials: CredentialDirectory, box: SecretBox, *, clock: Clock, region: str) -> None:
        self._work = work
        self._credentials = credentials
        self._box = box
        self._clock = clock
        self._region = region

    def ticket(self, caller: Caller, link: str, *, expires: Instant) -> str:
        """See ``Tickets``."""
        sealed = _Sealed(key_id=caller.access_key_id, expires=expires)
        wrapped = self._box.wrap(Redacted(msgspec.msgpack.encode(sealed)), context=_CONTEXT + link)
        return base64.urlsafe_b64encode(wrapped).rstrip(b"=").decode("ascii")

    async def redeem(self, ticket: str, link: str, request: HttpRequest) -> Caller:
        """See ``Tickets``."""
        now = self._clock.now()
        sealed = self._open(ticket, link)
        if sealed is None or now >= sealed.expires:
            raise _refused()
        credential = await self._credentials.fetch(self._work, sealed.key_id)
        if credential is None or not credential.is_active or (credential.expires is not None and now >= credential.expires):
            raise _refused()
        self._credentials.uses.note(credential, service=USED_AS, region=self._region, now=now)
        return caller_of(request, credential, region=self._region, now=now)

    def _open(self, ticket: str, link: str) -> _Sealed | None:
        if len(ticket) > TICKET_LENGTH_MAX or not ticket.isascii():
            return None
        try:
            wrapped = base64.b64decode(ticket + "=" * (-len(ticket) % 4), altchars=b"-_", validate=True)
            return msgspec.msgpack.decode(self._box.unwrap(wrapped, context=_CONTEXT + link).reveal(), type=_Sealed)
        except (ValueError, binascii.Error, OverairError):
            return None


def _refused() -> NotAuthenticated:
    return NotAuthenticated(
        "The link's ticket isn't valid: it is for another link, has expired, or the access key that it stands for is inactive "
        "or gone. Ask for a new link.",
        subject="ticket",
    )
