"""The devices' door of plain REST as an ASGI application: prove the peer of the TLS session, route, ask its policies, do.

The handshake takes any certificate; the verdict is *provisioning*'s, asked at each request, so that a device that is blocked
hears of it at its next call, whatever connection it keeps. Whoever shows a shared provisioning credential may call the routes
that are marked for it and no others; a device's own certificate may call the others and not those (Uptane reference §12.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from overair.basics.arn import Place
from overair.basics.errors import AccessDenied
from overair.basics.ids import CertificateId, IdSource
from overair.server.aws_protocol.asgi import Observe, Scope, Send
from overair.server.aws_protocol.body import Receive
from overair.server.error_codes import HTTP_STATUSES
from overair.server.gateway.authority import RefusalCode
from overair.server.gateway.denials import HTTPS, DenialWitness, Unwitnessed
from overair.server.rest.exchange import Exchange
from overair.server.rest.operations import (
    DeviceAuthenticator,
    DeviceCaller,
    DeviceHandler,
    DeviceRefusal,
    DeviceRoute,
    RestAnswer,
    device_routes_of,
)
from overair.server.rest.templates import Templates

logger = structlog.get_logger("overair.rest")

_NO_CERTIFICATE: Final = DeviceRefusal(
    code="certificate_required",
    message="This path needs a client certificate in the TLS handshake; the peer sent none.",
)
_CREDENTIAL_ELSEWHERE: Final = DeviceRefusal(
    code="credential_not_allowed_here",
    message="A shared provisioning credential gets a device its own certificate and does nothing else.",
    hint="Call this path with the device's own certificate.",
)
_DEVICE_AT_PROVISIONING: Final = DeviceRefusal(
    code="device_certificate_not_allowed_here",
    message="This path is for shared provisioning credentials; the peer showed a device's own certificate.",
    hint="A device that has a certificate is provisioned already.",
)


@dataclass(frozen=True, slots=True)
class _Bound:
    route: DeviceRoute
    handler: DeviceHandler
    name: str
    """For metrics: the action, or what the path begins with."""


class DeviceDoor:
    """The engine. Rooms' doors are registered with ``add``; then it is an ASGI application."""

    def __init__(
        self,
        devices: DeviceAuthenticator,
        *,
        ids: IdSource,
        observe: Observe | None = None,
        denials: DenialWitness | None = None,
    ) -> None:
        self._devices = devices
        self._ids = ids
        self._observe = observe
        self._denials = denials or Unwitnessed()
        self._templates: Templates[_Bound] = Templates()

    def add(self, *doors: object) -> None:
        """Register every marked route of these doors.

        Raises:
            RuntimeError: a template is none, two routes stand for the same requests, or a route for devices names no action (or
                one for shared credentials does: they have no policies).
        """
        for door in doors:
            for route, handler in device_routes_of(door):
                if (route.action is None) is not route.for_shared_credential:
                    raise RuntimeError(
                        f"{route.method} {route.template}: a route names an action, or is for shared credentials."
                    )
                name = (route.action or route.template).rpartition(":")[2]
                self._templates.add(route.method, route.template, _Bound(route, handler, name))

    @property
    def bound(self) -> Iterable[tuple[DeviceRoute, DeviceHandler]]:
        """Every route with its meaning."""
        return [(bound.route, bound.handler) for bound in self._templates]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("The device door serves HTTP only.")
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        exchange = Exchange("device", scope, receive, send, self._ids.uuid())
        status = await exchange.run(lambda: self._perform(exchange))
        if self._observe is not None and status is not None:
            self._observe("device", exchange.name, status, loop.time() - begun_s)

    async def _perform(self, exchange: Exchange) -> RestAnswer:
        device = await self._admit(exchange)
        if isinstance(device, DeviceRefusal):
            return self._refused(device, exchange, device.place, device.certificate_id)
        found = exchange.find(self._templates)
        is_shared = device.credential_id is not None
        if is_shared and (found is None or not found[0].route.for_shared_credential):
            return self._refused(_CREDENTIAL_ELSEWHERE, exchange, device.place, device.certificate_id)
        if found is None:
            raise exchange.unknown(self._templates)
        bound, labels = found
        route = bound.route
        exchange.name = bound.name
        if not is_shared:
            if route.action is None:
                return self._refused(_DEVICE_AT_PROVISIONING, exchange, device.place, device.certificate_id)
            try:
                _ask(device, route.action)
            except AccessDenied:
                self._tell_denied(exchange, device.place, device.certificate_id, device.place.iot("thing", device.thing))
                raise
        request = exchange.request(labels)
        if exchange.has_body:
            request = replace(request, body=await exchange.whole_body(route.body_size_bytes_max))
        return await bound.handler(device, request)

    def _refused(
        self, refusal: DeviceRefusal, exchange: Exchange, place: Place | None, certificate: CertificateId | None
    ) -> RestAnswer:
        if refusal.code != RefusalCode.UNAVAILABLE:
            self._tell_denied(exchange, place, certificate, exchange.raw_path.decode("latin-1"))
        return _refused(refusal, exchange)

    def _tell_denied(self, exchange: Exchange, place: Place | None, certificate: CertificateId | None, resource: str) -> None:
        self._denials.device_denied(
            None if place is None else place.account,
            place.iot("cert", certificate) if place is not None and certificate is not None else None,
            service=HTTPS,
            operation=exchange.name,
            resource=resource,
            source_ip=exchange.source_ip,
            request_id=exchange.request_id,
        )

    async def _admit(self, exchange: Exchange) -> DeviceCaller | DeviceRefusal:
        state = exchange.scope.get("state") or {}
        chain_der: tuple[bytes, ...] = state.get("peer_chain_der") or ()
        if not chain_der:
            return _NO_CERTIFICATE
        return await self._devices.admit(chain_der, exchange.source_ip, exchange.request_id, state.get("server_name") or "")


def _ask(device: DeviceCaller, action: str) -> None:
    """Ask the device's policies for the action on its thing.

    Raises:
        AccessDenied: they don't allow it, or deny it; subject ``action``.
    """
    resource = device.place.iot("thing", device.thing)
    if not device.policy.allows(action, resource):
        raise AccessDenied(
            f"The policies of this device's certificate don't allow {action} on {resource}.",
            subject="action",
            details={"action": action, "resource": resource},
        )


def _refused(refusal: DeviceRefusal, exchange: Exchange) -> RestAnswer:
    logger.info("device request refused", code=refusal.code, request_id=exchange.request_id, source_ip=exchange.source_ip)
    told = {"code": refusal.code, "description": refusal.message, "cause": None, "errorId": exchange.request_id}
    if refusal.hint:
        told["hint"] = refusal.hint
    status = refusal.status if refusal.status is not None else HTTP_STATUSES.get(refusal.code, 403)
    return RestAnswer(status=status, json=told)
