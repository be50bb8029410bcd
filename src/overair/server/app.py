"""One server's life: opened, made on its first start, told where it listens, drained and closed.

Who is joined to whom stands in ``composition``, the ports in ``doors.py``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import structlog

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import Unavailable
from overair.basics.ids import AccountId, IdSource
from overair.server import first_start
from overair.server.access.accounts import new_account
from overair.server.certificates.authorities import ServerIdentity
from overair.server.certificates.renewal import ServerCertificateRenewal
from overair.server.composition import compose
from overair.server.config import Settings
from overair.server.doors import Doors
from overair.server.joined import Joined
from overair.server.metrics import Metrics
from overair.server.nodes.model import Role
from overair.server.state_directory import Marker, StateDirectory, StateDirectoryRefused, write_file
from overair.server.storage.outbox import OutboxRelay

logger = structlog.get_logger("overair")


def build_server(
    settings: Settings,
    *,
    clock: Clock,
    ids: IdSource,
    schedule_clock: Clock | None = None,
    after_step: Callable[[str], None] = lambda _step: None,
    role: Role | None = None,
) -> Server:
    """Compose a server; nothing is opened before ``start``.

    Args:
        clock: Signatures, certificates and records.
        schedule_clock: Jobs, windows and the expiry of presigned links; the same clock unless a test moves it.
        after_step: Told the name of each saga step right after its commit.
        role: The part that this process holds of a server with several; None: it is the whole server.
    """
    return Server(settings, clock=clock, ids=ids, schedule_clock=schedule_clock or clock, after_step=after_step, role=role)


class Server:
    """One process: every room, and of the doors and workers all, or those of its role. ``start`` once, ``stop`` once."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        ids: IdSource,
        schedule_clock: Clock,
        after_step: Callable[[str], None],
        role: Role | None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._ids = ids
        self._schedule_clock = schedule_clock
        self._after_step = after_step
        self._role = role
        self._state = StateDirectory(settings.data, is_shared=role is not None)
        self._closing = AsyncExitStack()
        self._metrics = Metrics()
        self._joined: Joined | None = None
        self._doors: Doors | None = None
        self._is_up = False
        self.is_first_start = False

    async def start(self) -> dict[str, Any]:
        """Open records, make what is missing, open every port; what ``run/endpoints.json`` then says.

        Raises:
            OverairError: with the one line that an operator sees; whatever was opened is closed again by ``stop``.
        """
        marker = self._state.open()
        self._closing.callback(self._state.close)
        place = self._place(marker)
        joined = self._joined = compose(
            self._settings,
            place,
            self._state,
            self._closing,
            clock=self._clock,
            ids=self._ids,
            schedule_clock=self._schedule_clock,
            after_step=self._after_step,
            role=self._role,
            observe=self._metrics.observe_request,
            observe_device=self._metrics.observe_device_request,
            plain_routes={"/healthz": self._healthz, "/metrics": self._print_metrics},
            download_url=lambda: self._download_url,
            operator_address=lambda: self._operator_address,
            show_identity=self._show_identity,
        )
        self._metrics.watch(joined.readings)
        made = None
        if marker is None:
            self.is_first_start = True
            made = await joined.work.run(lambda tx: first_start.seed(tx, joined.first, place))
        else:
            await joined.work.run(lambda tx: first_start.complete_all(tx, joined.first, place))
        identity = await joined.renewal.first()
        write_file(self._state.ca_file, identity.authority_pem.encode("ascii"), mode=0o644)
        if made is not None:
            first_start.write_down(self._state, made, place)
        self._state.let_others_start()
        await self._begin(joined)
        self._doors = Doors(self._settings, joined, ids=self._ids)
        await self._doors.open(identity, self._closing)
        joined.renewal.watch(identity)
        endpoints = self._endpoints(place, self._doors)
        self._state.show(joined.cluster.name, endpoints)
        self._is_up = True
        logger.info("up", operator_url=endpoints["operator_url"], first_start=self.is_first_start)
        return endpoints

    async def stop(self, *, drain_timeout_s: float) -> None:
        """Let what is in flight end, then close everything in the opposite order of its opening."""
        if self._doors is not None:
            self._doors.drain_within(drain_timeout_s)
        await self._closing.aclose()
        if self._is_up:
            logger.info("down")

    @property
    def joined(self) -> Joined:
        """The rooms, once started."""
        assert self._joined is not None, "not started"
        return self._joined

    @property
    def doors(self) -> Doors:
        """The ports, once started."""
        assert self._doors is not None, "not started"
        return self._doors

    def reload_server_certificate(self) -> None:
        """Look at the server's certificate again; connections that stand go on. On the event loop."""
        if self._is_up:
            self.joined.renewal.ask()
            self.joined.workers.wake(ServerCertificateRenewal.name)

    def wake_workers(self) -> None:
        """There may be work now. On the event loop."""
        self.joined.workers.wake()

    async def _begin(self, joined: Joined) -> None:
        """What goes on by itself, before the first client is let in."""
        await joined.broker.start()
        self._closing.push_async_callback(joined.broker.stop)
        loop = asyncio.get_running_loop()

        def outbox_filled() -> None:
            loop.call_soon_threadsafe(joined.workers.wake, OutboxRelay.name)

        joined.work.on_commit_with_outbox(outbox_filled)
        joined.cluster.when_others_change(self._state.look_around)
        await joined.cluster.begin()
        await joined.before_the_doors_open()
        joined.workers.start()
        self._closing.push_async_callback(joined.workers.stop)
        joined.gateway.start()
        self._closing.push_async_callback(joined.gateway.stop)

    def _show_identity(self, identity: ServerIdentity) -> None:
        if self._doors is not None:
            self._doors.show(identity)
            write_file(self._state.ca_file, identity.authority_pem.encode("ascii"), mode=0o644)

    def _place(self, marker: Marker | None) -> Place:
        if marker is None:
            account = AccountId(self._settings.account) if self._settings.account else new_account(self._ids)
            return Place(self._settings.region, account)
        asked = self._settings
        if "region" in asked.model_fields_set and asked.region != marker.region:
            raise StateDirectoryRefused(
                f"{self._state.path} is of region {marker.region}, not {asked.region}: the region stands in every ARN and is "
                "fixed at first start. Drop --region, or name another directory."
            )
        if asked.account is not None and asked.account != marker.account:
            raise StateDirectoryRefused(
                f"{self._state.path} is of account {marker.account}, not {asked.account}. "
                "Drop --account, or name another directory."
            )
        return Place(marker.region, marker.account)

    def _endpoints(self, place: Place, doors: Doors) -> dict[str, Any]:
        host = self._settings.host[0]
        return {
            "pid": os.getpid(),
            "operator_url": f"https://{self._operator_address}" if doors.operator else None,
            "plain_http_url": f"http://127.0.0.1:{doors.plain.port}" if doors.plain else None,
            "mqtt_host": host if doors.mqtt else None,
            "mqtt_port": doors.mqtt.port if doors.mqtt else None,
            "device_url": self._download_url if doors.device else None,
            "ca_file": str(self._state.ca_file.resolve()),
            "region": place.region,
            "account": place.account,
            "bucket": first_start.default_bucket(place.account),
            "ota_role_arn": first_start.role_arn(place),
            "signing_profile": first_start.PROFILE_NAME,
            "signer_certificate_file": str(self._state.signer_certificate_file.resolve()),
        }

    @property
    def _operator_address(self) -> str:
        assert self.doors.operator is not None
        return f"{_in_url(self._settings.host[0])}:{self.doors.operator.port}"

    @property
    def _download_url(self) -> str:
        if self._settings.download_url:
            return self._settings.download_url
        if self.doors.device is not None:
            return f"https://{_in_url(self._settings.host[0])}:{self.doors.device.port}"
        found = self._state.device_url()
        if found is None:
            raise Unavailable(
                "No gateway of this server is up, so devices have no address. Start one (`overair serve gateway`), "
                "or name the address with --download-url.",
                subject="gateway",
            )
        return found

    async def _healthz(self, _scope: Any, _receive: Any, send: Any) -> None:
        await _print(send, b"application/json", b'{"status":"ok"}')

    async def _print_metrics(self, _scope: Any, _receive: Any, send: Any) -> None:
        await _print(send, b"text/plain; version=0.0.4; charset=utf-8", self._metrics.text())


def _in_url(host: str) -> str:
    """A host as URLs spell it: an IPv6 address stands in brackets (RFC 3986 §3.2.2)."""
    return f"[{host}]" if ":" in host else host


async def _print(send: Any, content_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
