"""How a room says what a path means, to operators (``@route``) and to devices (``@device_route``).

A template is a path with labels: ``{name}`` stands for one segment or a part of one (``{version}.root.json``), ``{name:path}``
for one or more segments at the end. Labels are percent-decoded. Literal segments win over labels, whatever the order of
registration. A query parameter stands in a request once; labels outweigh a query parameter of the same name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId, CertificateId, ThingName
from overair.server.aws_protocol.operations import Body, Caller
from overair.wire import strict_json

BODY_SIZE_BYTES_MAX: Final = 1024 * 1024
"""Of a request's body where its route names no other bound."""
STREAM_SIZE_BYTES_MAX: Final = 5 * 1024**3
"""Of one streamed body where its route names no other bound; larger files come in parts."""
JSON_DEPTH_MAX: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RestRequest:
    """One request, as a handler reads it."""

    method: str
    """HEAD may stand here for a route marked GET: the engine leaves the body out of the answer."""
    path: str
    """Percent-decoded; for logs. What it means stands in the labels."""
    labels: Mapping[str, str]
    query: Mapping[str, str]
    """Without the parameters of a query signature (``X-Amz-…``)."""
    headers: Mapping[str, str]
    """By lower-case name; a field that came several times is joined by commas."""
    origin: str = ""
    """Scheme, host and port as the client spelt them: ``https://ota.example:9443``."""
    body: bytes = b""
    stream: Body | None = None
    """The body of a route that streams. Commit only after the last piece: checks that need the whole body come at its end."""

    def json(self) -> object:
        """The body as one JSON value, read strictly.

        Raises:
            InvalidRequest: it isn't one; subject ``malformed-body``.
        """
        try:
            return strict_json.decode(self.body, size_bytes_max=len(self.body), depth_max=JSON_DEPTH_MAX)
        except strict_json.MalformedJson as error:
            raise malformed_body(str(error)) from None

    def json_object(self) -> dict[str, object]:
        """The same, where it must be an object."""
        value = self.json()
        if not isinstance(value, dict):
            raise malformed_body("The top level must be a JSON object.")
        return value


def malformed_body(why: str) -> InvalidRequest:
    """The refusal of a body that can't be read."""
    return InvalidRequest(f"The request's body can't be read. {why}", subject="malformed-body", details={"field": "body"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RestAnswer:
    """What a handler answers: JSON, bytes as they are, or a stream; nothing at all for 204."""

    status: int = 200
    json: object = None
    """What ``msgspec.json`` can write. None: no JSON."""
    body: bytes | None = None
    """Sent verbatim; outweighs ``json``."""
    content_type: str | None = None
    """``application/json`` unless said otherwise."""
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None
    """Outweighs both. Closed by the engine if it isn't sent to its end."""
    length_bytes: int | None = None
    """Of the stream: its Content-Length. None: sent in chunks."""


class DevicePathPolicy(Protocol):
    """The IoT policies of one device, bound to this request (``policy_language.iot.BoundPolicySet``)."""

    def allows(self, action: str, resource: str) -> bool:
        """Whether ``action`` on the resource's ARN is allowed and not denied. Costs microseconds."""
        ...


class AllowsNothing:
    """The policy of whoever has none: a shared provisioning credential."""

    def allows(self, action: str, resource: str) -> bool:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCaller:
    """Who calls at the device door, once proved."""

    place: Place
    thing: ThingName
    """Empty where the peer showed a shared provisioning credential: nobody knows yet who it is."""
    certificate_id: CertificateId
    source_ip: str
    now: Instant
    """When the request was accepted: one moment for the whole request."""
    request_id: str
    credential_id: str | None = None
    """Of the shared provisioning credential that the peer showed; None for a device's own certificate."""
    policy: DevicePathPolicy = field(default_factory=AllowsNothing)

    @property
    def account(self) -> AccountId:
        return self.place.account


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRefusal:
    """Why a peer isn't admitted. Told to it as it stands: a message for the device's owner, nothing that helps a stranger."""

    code: str
    """As in ``error_codes.HTTP_STATUSES``: ``certificate_unknown``, ``device_blocked``, …"""
    message: str
    status: int | None = None
    """None: the status that the table has for the code; 403 where it has none."""
    hint: str = ""
    place: Place | None = None
    """Where the certificate is known, if it is."""
    certificate_id: CertificateId | None = None


class DeviceAuthenticator(Protocol):
    """Proves who is at the device door; *provisioning* has it. Asked at each request, so that a revocation counts at once."""

    async def admit(
        self, chain_der: tuple[bytes, ...], source_ip: str, request_id: str, domain_name: str = ""
    ) -> DeviceCaller | DeviceRefusal:
        """Judge the certificates that the peer sent in its handshake: the leaf first, then the others in the order in which
        they came. Never empty. A refusal is returned, not raised."""
        ...


Handler = Callable[[Caller, RestRequest], Awaitable[RestAnswer]]
DeviceHandler = Callable[[DeviceCaller, RestRequest], Awaitable[RestAnswer]]
Method = TypeVar("Method", bound=Callable[..., Awaitable[RestAnswer]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One mark of an operator's route."""

    method: str
    template: str
    operation: str
    """Stands in ``access/actions_uptane.py`` as ``("overair", operation)``."""
    streams: bool
    body_size_bytes_max: int
    takes_ticket: bool = False
    """Whether a ticket in the query proves the sender (``tickets.py``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRoute:
    """One mark of a device's route."""

    method: str
    template: str
    action: str | None
    """What the device's policies must allow on the ARN of its thing; None for a shared credential, which has no policies."""
    body_size_bytes_max: int
    for_shared_credential: bool


_ROUTES: Final = "__overair_routes__"
_DEVICE_ROUTES: Final = "__overair_device_routes__"


def route(
    method: str,
    template: str,
    *,
    operation: str,
    streams: bool = False,
    body_size_bytes_max: int | None = None,
    takes_ticket: bool = False,
) -> Callable[[Method], Method]:
    """Mark a method as what an operator's path means: ``async def …(self, caller: Caller, request: RestRequest)``.

    ``streams``: the handler reads ``request.stream`` as it comes, at most ``body_size_bytes_max`` of it; otherwise the body is
    read whole before the handler is called. A GET answers HEAD too. One method may carry several marks, several routes may
    share one operation. ``takes_ticket``: a link with a ticket in its query proves its sender.
    """
    mark = Route(
        method=method,
        template=template,
        operation=operation,
        streams=streams,
        body_size_bytes_max=_bound(body_size_bytes_max, streams),
        takes_ticket=takes_ticket,
    )
    return _marker(_ROUTES, mark)


def device_route(
    method: str,
    template: str,
    *,
    action: str | None = None,
    body_size_bytes_max: int = BODY_SIZE_BYTES_MAX,
    for_shared_credential: bool = False,
) -> Callable[[Method], Method]:
    """Mark a method as what a device's path means: ``async def …(self, device: DeviceCaller, request: RestRequest)``.

    ``action`` is such as ``overair:DirectorPutManifest`` and is asked of the device's policies on the ARN of its thing; every
    route has one but those for a shared provisioning credential, which are for nobody else.
    """
    mark = DeviceRoute(
        method=method,
        template=template,
        action=action,
        body_size_bytes_max=body_size_bytes_max,
        for_shared_credential=for_shared_credential,
    )
    return _marker(_DEVICE_ROUTES, mark)


def routes_of(door: object) -> Iterator[tuple[Route, Handler]]:
    """Every operator's route that a door has marked, with its bound handler."""
    yield from _marks_of(door, _ROUTES)


def device_routes_of(door: object) -> Iterator[tuple[DeviceRoute, DeviceHandler]]:
    """Every device's route that a door has marked, with its bound handler."""
    yield from _marks_of(door, _DEVICE_ROUTES)


def _bound(size_bytes_max: int | None, streams: bool) -> int:
    if size_bytes_max is not None:
        return size_bytes_max
    return STREAM_SIZE_BYTES_MAX if streams else BODY_SIZE_BYTES_MAX


def _marker(attribute: str, mark: Route | DeviceRoute) -> Callable[[Method], Method]:
    def apply(method: Method) -> Method:
        marks: Sequence[Any] = getattr(method, attribute, ())
        setattr(method, attribute, (*marks, mark))
        return method

    return apply


def _marks_of(door: object, attribute: str) -> Iterator[tuple[Any, Any]]:
    for name in dir(type(door)):
        for mark in getattr(getattr(type(door), name), attribute, ()):
            yield mark, getattr(door, name)
