"""Links that carry their own proof, for tools that send no other with them: good for one method at one path, for a while.

OTA Connect's tools send the parts of a large file to addresses that the server gives them, and fetch it again from one, as they
would from a storage service (Uptane reference §9.3).
"""

from __future__ import annotations

from typing import Final, Protocol
from urllib.parse import quote

from overair.basics.clock import Instant
from overair.server.aws_protocol.authentication import HttpRequest
from overair.server.aws_protocol.operations import Caller

TICKET_PARAMETER: Final = "ticket"


class Tickets(Protocol):
    """Issues tickets, and knows whose they are. *access* has it."""

    def ticket(self, caller: Caller, link: str, *, expires: Instant) -> str:
        """A ticket that speaks for the caller's access key at this link."""
        ...

    async def redeem(self, ticket: str, link: str, request: HttpRequest) -> Caller:
        """Whose ticket it is, as his key, he himself and his policies are now.

        Raises:
            NotAuthenticated: it isn't one of ours, isn't for this link, has expired, or its key is gone or inactive; subject
                ``ticket``.
        """
        ...


def link_of(method: str, raw_path: bytes) -> str:
    """What a ticket is bound to."""
    return f"{method} {raw_path.decode('latin-1')}"


def ticketed_url(
    tickets: Tickets, caller: Caller, method: str, origin: str, path: str, *, expires: Instant, query: str = ""
) -> str:
    """The whole address. ``path``: percent-decoded; ``query``: what else the request says, encoded already."""
    raw_path = quote(path, safe="/-._~")
    ticket = tickets.ticket(caller, link_of(method, raw_path.encode("ascii")), expires=expires)
    return f"{origin}{raw_path}?{query}{'&' if query else ''}{TICKET_PARAMETER}={ticket}"
