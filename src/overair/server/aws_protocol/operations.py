"""How a room says what an AWS operation means."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId

Request = Mapping[str, Any]
"""An operation's input by the model's member names: str, int, float, bool, bytes (blobs), list, dict, Instant (timestamps).
Members that the request left out are absent. Validated against the model before a handler sees it."""

Members = Mapping[str, Any]
"""An operation's output by the model's member names; None counts as absent. Timestamps are ``Instant``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who makes a request, once proved."""

    place: Place
    """The region and account whose resources the request works on."""
    principal_arn: str
    """``arn:aws:iam::{account}:user/{name}``, ``…:root``, or ``arn:aws:sts::{account}:assumed-role/{role}/{session}``."""
    user_id: str
    access_key_id: str
    now: Instant
    """When the request was accepted: one moment for the whole request."""
    is_root: bool = False
    session_name: str = ""
    source_ip: str = ""
    request_id: str = ""
    context: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Condition keys that hold for this request: ``aws:SourceIp``, ``aws:PrincipalArn``, ``aws:SecureTransport``, …"""

    @property
    def account(self) -> AccountId:
        return self.place.account


class Body(Protocol):
    """A streaming request body (S3 uploads), already freed of HTTP chunks and of aws-chunked framing.

    Iterating may raise: the engine checks the signed SHA-256, the declared length and the trailing checksums as the bytes
    pass, and raises at the end if one doesn't hold. So a handler commits only after it has iterated to the end.
    """

    @property
    def length_bytes(self) -> int | None:
        """Decoded length, where the client declared one."""
        ...

    @property
    def checksums(self) -> Mapping[str, str]:
        """Declared and verified checksums by lower-case algorithm (``crc32``, ``sha256``, …), Base64. Trailing ones appear here
        only after the last byte was read."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """For the few operations whose answer is more than members: a status of its own, headers, or a streamed body."""

    members: Members = field(default_factory=dict)
    status_code: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None
    """The streaming output blob (GetObject's Body). ``members["ContentLength"]`` must be set."""


Handler = Callable[[Caller, Request], Awaitable[Members | Answer | None]]
Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])

_MARK = "__overair_operations__"


def operation(service: str, name: str) -> Callable[[Method], Method]:
    """Mark a method as the meaning of one operation.

    ``service`` is botocore's service id as a directory name (``iot``, ``iot-data``, ``iot-jobs-data``, ``signer``, ``acm``,
    ``s3``, ``iam``, ``sts``, ``overair``), ``name`` the operation's name in its model. An unknown pair fails at start-up.
    One method may carry several marks.
    """

    def mark(method: Method) -> Method:
        marks: tuple[tuple[str, str], ...] = getattr(method, _MARK, ())
        setattr(method, _MARK, (*marks, (service, name)))
        return method

    return mark


def operations_of(door: object) -> Iterator[tuple[str, str, Handler]]:
    """Every (service, operation, bound handler) that a room's door has marked."""
    for attribute in dir(type(door)):
        method = getattr(type(door), attribute)
        for service, name in getattr(method, _MARK, ()):
            yield service, name, getattr(door, attribute)
