"""The ports: which door listens where, what it asks for in the handshake, and what it shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from OpenSSL import SSL

from overair.basics.ids import IdSource
from overair.server.access.websockets import PATH as WEBSOCKET_PATH
from overair.server.certificates.authorities import ServerIdentity
from overair.server.config import Settings
from overair.server.gateway.http_publish import HttpPublish
from overair.server.joined import Joined
from overair.server.listeners.acceptor import Accept, TlsListener, open_socket
from overair.server.listeners.demultiplexer import HTTP_ALPN, MQTT_ALPN, speak_by_alpn, speak_http, speak_mqtt
from overair.server.listeners.device_http import DevicePaths, Path
from overair.server.listeners.http import HttpService, PlainHttpListener
from overair.server.listeners.tls_context import ClientCertificate, tls_context
from overair.server.listeners.websocket import WebSocketService
from overair.server.nodes.model import Role
from overair.server.rest.front import OperatorFront, is_object_link

UPTANE_PREFIXES: Final = (
    "/director/",
    "/repo/",
    "/tuf/",
    "/core/",
    "/system_info",
    "/events",
    "/campaigner/",
    "/devices",
    "/.well-known/est/",
)
"""Of the device port: what belongs to plain REST (Uptane reference §1.2), but for links to objects in buckets of such names."""


_TOO_LARGE_BODY: Final = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>RequestHeaderSectionTooLarge</Code>'
    b"<Message>Your request header section exceeds the maximum allowed length.</Message></Error>"
)
HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/xml\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
    % (len(_TOO_LARGE_BODY), _TOO_LARGE_BODY)
)
"""In the object store's words: nothing of such a request was read that would say which service it is for, and of all clients
the object store's alone know a code for it."""


class Doors:
    """Every port of one server. ``open`` once; ``closing`` shuts them in the opposite order."""

    def __init__(self, settings: Settings, joined: Joined, *, ids: IdSource) -> None:
        self._settings = settings
        self._joined = joined
        self._ids = ids
        self._contexts: list[tuple[TlsListener, Callable[[ServerIdentity], SSL.Context]]] = []
        self._drained_by_s = 0.0
        # None where another process of the server holds the door.
        self.operator: TlsListener | None = None
        self.plain: PlainHttpListener | None = None
        self.mqtt: TlsListener | None = None
        self.device: TlsListener | None = None

    def drain_within(self, timeout_s: float) -> None:
        """Requests in flight have this long from now: one time for all doors, lest each that waits for its own adds up."""
        self._drained_by_s = asyncio.get_running_loop().time() + timeout_s

    async def open(self, identity: ServerIdentity, closing: AsyncExitStack) -> None:
        """Take every port first, then accept.

        Raises:
            PortRefused: a port is taken; no client was served yet.
        """
        settings = self._settings
        holds = self._joined.cluster.has
        mqtt = self._joined.gateway.protocol
        websocket = None
        if holds(Role.GATEWAY):
            # At both doors, as the cloud has it at its one: of several processes none has a gateway behind an operator port.
            judge = self._joined.websockets.judge
            websocket = WebSocketService(path=WEBSOCKET_PATH, subprotocol="mqtt", judge=judge, application=mqtt)
        front = OperatorFront(rest=self._joined.rest_door, aws=self._joined.operator_door)
        operator_http = HttpService(front, websocket, head_too_large=HEAD_TOO_LARGE)
        device_http = HttpService(self._device_paths(), websocket, head_too_large=HEAD_TOO_LARGE)

        def listen(port: int, asks: ClientCertificate, alpn: tuple[bytes, ...], accept: Accept) -> TlsListener:
            def context(shown: ServerIdentity) -> SSL.Context:
                return tls_context(shown.certificate_pem, shown.key_pem, client_certificate=asks, alpn=alpn)

            listener = TlsListener(open_socket(settings.bind, port), context(identity), accept)
            self._contexts.append((listener, context))
            closing.push_async_callback(listener.close)
            return listener

        if holds(Role.OPERATOR):
            self.operator = listen(settings.operator_port, ClientCertificate.NOT_ASKED, HTTP_ALPN, speak_http(operator_http))
            if settings.plain_http is not None:
                self.plain = PlainHttpListener(open_socket("127.0.0.1", settings.plain_http), operator_http)
        if holds(Role.GATEWAY):
            self.mqtt = listen(settings.mqtt_port, ClientCertificate.DEMANDED, MQTT_ALPN, speak_mqtt(mqtt))
            self.device = listen(
                settings.device_port, ClientCertificate.ASKED, MQTT_ALPN + HTTP_ALPN, speak_by_alpn(mqtt, device_http)
            )
        # Drained before their connections are closed, so pushed after them.
        for service in (operator_http, device_http):
            service.start()
            closing.push_async_callback(self._drain, service)
        # Every socket is ours by now: a taken port was told before any client was served.
        for listener, _ in self._contexts:
            listener.start()
            closing.push_async_callback(listener.stop_accepting)
        if self.plain is not None:
            await self.plain.start()
            closing.callback(self.plain.stop_accepting)

    def show(self, identity: ServerIdentity) -> None:
        """Who connects from now on sees this certificate; connections that stand go on."""
        for listener, context in self._contexts:
            listener.context = context(identity)

    def _device_paths(self) -> DevicePaths:
        return DevicePaths(
            [
                Path(
                    methods=frozenset({"POST"}),
                    prefix="/topics/",
                    application=HttpPublish(gateway=self._joined.gateway, ids=self._ids),
                ),
                *[
                    # No certificate is demanded before the door is asked: it refuses in the words that its clients read.
                    Path(prefix=prefix, application=self._joined.device_door, needs_certificate=False, unless=is_object_link)
                    for prefix in UPTANE_PREFIXES
                ],
                Path(
                    prefix="/things/", application=self._joined.device_jobs_door, needs_certificate=False, unless=is_object_link
                ),
                # Last: whatever path no room has a word for may be a bucket's; the signature in it is the proof.
                Path(
                    methods=frozenset({"GET", "HEAD"}),
                    prefix="/",
                    application=self._joined.downloads,
                    needs_certificate=False,
                ),
            ]
        )

    async def _drain(self, service: HttpService) -> None:
        await service.drain(max(0.0, self._drained_by_s - asyncio.get_running_loop().time()))
