"""What the operator door's engine asks of whoever knows the keys and the policies: who is this, and may they?

Declared here and implemented above, in *access*; joined in ``app.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from overair.server.aws_protocol.operations import Caller, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request as it stands on the wire, before anything about it is believed."""

    method: str
    raw_path: bytes
    """Still percent-encoded, without the query."""
    query_string: bytes
    """Without the question mark."""
    headers: Sequence[tuple[bytes, bytes]]
    """Names in lower case, in the order of arrival."""
    body_sha256: str | None
    """Of the whole body, in hexadecimal. None while the body still streams (object uploads): then the request's own
    ``x-amz-content-sha256`` is what is signed, and the engine holds the bytes to it as they pass."""
    source_ip: str
    secure: bool
    """Whether it came over TLS (condition key ``aws:SecureTransport``)."""
    request_id: str
    streamed: bool = False
    """Whether the engine reads the body only after this proof, whatever the service, and then holds it to what the signature
    says of it (plain REST's uploads). Requests to the object store always are."""


class ChunkChain(Protocol):
    """The chain of signatures over the chunks of a streamed, signed body (``wire.sigv4.ChunkSignatures``)."""

    def next(self, data_sha256: str) -> str:
        """The signature due for the next chunk."""
        ...

    def trailer(self, lines: bytes) -> str:
        """The signature due for the trailing headers."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """A request whose sender is proved."""

    caller: Caller
    service: str
    """The signing name in the credential's scope: ``iot``, ``iotdata``, ``s3``, …"""
    payload: str
    """What the signature says about the body: 64 hexadecimal digits, ``UNSIGNED-PAYLOAD`` or a ``STREAMING-…`` word. The
    engine refuses a body that doesn't hold to it."""
    chunks: ChunkChain | None = None
    """For the two ``STREAMING-AWS4-HMAC-SHA256-PAYLOAD…`` words."""
    presigned: bool = False


class Authenticator(Protocol):
    """Proves who sent a request."""

    async def authenticate(self, request: HttpRequest) -> Authentication:
        """Check the signature, its moment, region and service, and the key.

        Raises:
            NotAuthenticated: by subject: ``missing-token``, ``malformed-signature``, ``signature``, ``expired``,
                ``presigned-expired``, ``time-skew``, ``access-key``, ``session-token``, ``expired-token``, ``region``.
        """
        ...


class Authoriser(Protocol):
    """Decides whether a proved caller may do one operation."""

    async def authorise(self, caller: Caller, service: str, operation: str, request: Request) -> str:
        """Return the resource that it was allowed on (an ARN or ``*``; the dispatcher puts it in ``current_operation``).
        ``service`` and ``operation`` as in ``@operation``; ``request`` is the validated input.

        Raises:
            AccessDenied: not allowed, or no rule is known for the operation (deny by default).
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentOperation:
    """The operation that the dispatcher is running in this task: what the audit room writes down."""

    caller: Caller
    service: str
    operation: str
    resource: str
    """The ARN (or ``*``) that it was authorised for."""
    changes: list[str] = field(default_factory=list)
    """The ids of the audit rows that its changes have left."""


class Witness(Protocol):
    """Hears what leaves no row of its own. Called on the event loop for each request: it must return at once and never fail."""

    def read(self, operation: CurrentOperation) -> None:
        """An operation was done that changed nothing."""
        ...

    def downloaded(self, operation: CurrentOperation, *, denied: bool) -> None:
        """A presigned link was used at the devices' door, or may not be any more; one download is many requests."""
        ...

    def denied(
        self, caller: Caller | None, *, service: str, operation: str, path: bytes, request_id: str, source_ip: str
    ) -> None:
        """Somebody wasn't let in (``caller`` None), or wasn't allowed to."""
        ...


current_operation: ContextVar[CurrentOperation | None] = ContextVar("current_operation", default=None)
"""Set by the dispatcher around each handler; None in workers and at start-up."""
