"""Uptane vehicles that load a device port: a Primary and two Secondaries each, over mutual TLS, as aktualizr asks.

Manifests are signed before the clock starts. A connection carries one request after another; whether it is kept for the
vehicle's next cycle is what tells the ways of asking apart.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar, cast

from cryptography.hazmat.primitives.asymmetric import ed25519

Item = TypeVar("Item")

IN_FLIGHT = 16
RUN_TIMEOUT_S = 300
HARDWARE_IDS = ("bench-gateway", "bench-cluster", "bench-brake")
"""Of the Primary and its two Secondaries."""
_TIME_CONSTANT = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Image:
    """What an ECU says that it runs."""

    name: str
    length: int
    sha256: str


NOTHING = Image("unknown", 0, hashlib.sha256(b"").hexdigest())
"""Before the first update."""


class Session(StrEnum):
    """How long a TLS session lasts."""

    CALL = "one for each call"
    CYCLE = "one for each cycle"
    KEPT = "kept"


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


class _EcuKey:
    def __init__(self) -> None:
        self._private = ed25519.Ed25519PrivateKey.generate()
        self.public_hex = self._private.public_key().public_bytes_raw().hex().upper()
        self._key_id = hashlib.sha256(f'"{self.public_hex}"'.encode()).hexdigest()

    def signed(self, value: object) -> dict[str, object]:
        signature = base64.b64encode(self._private.sign(_canonical(value))).decode()
        return {"signatures": [{"keyid": self._key_id, "method": "ed25519", "sig": signature}], "signed": value}


class Vehicle:
    """One vehicle with three ECUs."""

    def __init__(self, name: str, context: ssl.SSLContext) -> None:
        self.name, self.context = name, context
        self.serials = tuple(f"{name}-{number}" for number in range(len(HARDWARE_IDS)))
        self._keys = tuple(_EcuKey() for _ in self.serials)
        self._counter = 0
        self._installed = NOTHING
        self._secondaries: dict[str, dict[str, object]] = {}
        self.install(NOTHING)
        self.connection: Connection | None = None
        """Kept between cycles, if sessions are."""

    def registration(self) -> bytes:
        ecus = [
            {
                "ecu_serial": serial,
                "hardware_identifier": hardware_id,
                "clientKey": {"keytype": "ED25519", "keyval": {"public": key.public_hex}},
            }
            for serial, hardware_id, key in zip(self.serials, HARDWARE_IDS, self._keys, strict=True)
        ]
        return _canonical({"primary_ecu_serial": self.serials[0], "ecus": ecus})

    def install(self, image: Image) -> None:
        """On all three ECUs; what later manifests say."""
        self._installed = image
        self._secondaries = {
            serial: key.signed(self._report(serial)) for serial, key in zip(self.serials[1:], self._keys[1:], strict=True)
        }

    def manifest(self, *, report_on: str = "") -> bytes:
        """The next one, the counter one higher; ``report_on``: with a report of success for this correlation id."""
        self._counter += 1
        own = {**self._report(self.serials[0]), "report_counter": str(self._counter)}
        reports = {self.serials[0]: self._keys[0].signed(own), **self._secondaries}
        signed: dict[str, object] = {"primary_ecu_serial": self.serials[0], "ecu_version_manifests": reports}
        if report_on:
            good: dict[str, object] = {"success": True, "code": "OK", "description": "Installing package was successful"}
            summary: dict[str, object] = good | {"description": "Device has been successfully installed"}
            signed["installation_report"] = {
                "content_type": "application/vnd.com.here.otac.installationReport.v1",
                "report": {
                    "correlation_id": report_on,
                    "raw_report": "Installation succesful",
                    "result": summary,
                    "items": [{"ecu": serial, "result": good} for serial in self.serials],
                },
            }
        return _canonical(self._keys[0].signed(signed))

    def _report(self, serial: str) -> dict[str, object]:
        return {
            "attacks_detected": "",
            "ecu_serial": serial,
            "installed_image": {
                "filepath": self._installed.name,
                "fileinfo": {"length": self._installed.length, "hashes": {"sha256": self._installed.sha256}},
            },
            "previous_timeserver_time": _TIME_CONSTANT,
            "timeserver_time": _TIME_CONSTANT,
        }


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it goes out, and the statuses that its answer may have."""

    data: bytes
    expect: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DevicePort:
    """Where vehicles call."""

    host: str
    port: int
    ca: Path

    def request(
        self, method: str, path: str, body: bytes = b"", *, expect: tuple[int, ...] = (200,), extra: str = ""
    ) -> Request:
        """With libcurl's headers in its order."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        lines += [extra] if extra else []
        lines += ["User-Agent: Aktualizr/2025.10", "Accept: */*"]
        if method != "GET":
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return Request("\r\n".join([*lines, "", ""]).encode() + body, expect)

    def context(self, certificate: Path, key: Path) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.set_alpn_protocols(["h2", "http/1.1"])
        context.load_cert_chain(certificate, key)
        return context

    def cycle(self, vehicle: Vehicle, *, report_on: str = "") -> tuple[Request, ...]:
        """The manifest, the next root that isn't there, and the Director's targets."""
        return (
            self.request("PUT", "/director/manifest", vehicle.manifest(report_on=report_on)),
            self.request("GET", "/director/2.root.json", expect=(404,)),
            self.request("GET", "/director/targets.json"),
        )

    def update(self, vehicle: Vehicle, image: Image, correlation_id: str) -> tuple[Request, ...]:
        """Two cycles: the one that fetches an assignment, and the one that reports it installed."""
        before = self.cycle(vehicle)
        vehicle.install(image)
        return (*before, *self.cycle(vehicle, report_on=correlation_id))


class Connection(asyncio.Protocol):
    """One TLS session; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._remaining: int | None = None
        self._status = 0
        self._taken = 0
        self._answer: asyncio.Future[tuple[int, int]] | None = None
        self._lost: Exception | None = None

    @classmethod
    async def open(cls, port: DevicePort, context: ssl.SSLContext) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            cls, port.host, port.port, ssl=context, server_hostname=port.host
        )
        return connection

    async def ask(self, request: Request) -> int:
        """Send one request; how many bytes the body of its answer had.

        Raises:
            ConnectionError: another status than expected, or none.
        """
        if self._lost is not None:
            raise self._lost
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._buffer, self._remaining, self._taken = b"", None, 0
        self._transport.write(request.data)
        status, size = await self._answer
        if status not in request.expect:
            raise ConnectionError(f"{request.data[:80]!r} was answered {status}: {self._buffer[:600]!r}")
        return size

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports don't derive from asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._remaining is None:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self._buffer[:end].lower(), self._buffer[end + 4 :]
            self._status = int(head[9:12])
            at = head.find(b"\ncontent-length:")
            self._remaining = int(head[at + 16 :].partition(b"\r\n")[0]) if at >= 0 else 0
            self._buffer = b""
        self._remaining -= len(data)
        self._taken += len(data)
        if self._status >= 400:
            self._buffer += data
        if self._remaining == 0 and self._answer is not None:
            self._answer.set_result((self._status, self._taken))
            self._answer = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = ConnectionError(f"closed by the server ({exc})")
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self._lost)


@dataclass(slots=True)
class Crowd:
    """Vehicles that take turns: ``IN_FLIGHT`` of them ask at any moment."""

    port: DevicePort
    vehicles: Sequence[Vehicle]
    make: Callable[[Vehicle], tuple[Request, ...]]
    session: Session
    _next: int = 0
    _ready: list[tuple[Vehicle, tuple[Request, ...]]] = field(default_factory=list)

    async def prepare(self, count: int) -> None:
        """Make the requests of the next ``count`` cycles, and the sessions that are kept."""
        self._ready = []
        for _ in range(count):
            vehicle = self.vehicles[self._next % len(self.vehicles)]
            self._next += 1
            self._ready.append((vehicle, self.make(vehicle)))
        if self.session is Session.KEPT:
            await each_of({vehicle.name: vehicle for vehicle, _ in self._ready}.values(), self._opened, at_once=IN_FLIGHT)

    async def run(self) -> int:
        """Send what is prepared; how many cycles that were."""
        async with asyncio.timeout(RUN_TIMEOUT_S):
            # Each of those who ask has vehicles of its own: a vehicle's next turn comes when its last is over.
            turns: dict[str, int] = {}
            shares: list[list[tuple[Vehicle, tuple[Request, ...]]]] = [[] for _ in range(IN_FLIGHT)]
            for item in self._ready:
                shares[turns.setdefault(item[0].name, len(turns)) % IN_FLIGHT].append(item)
            await asyncio.gather(*(each_of(share, self._one, at_once=1) for share in shares))
        return len(self._ready)

    def close(self) -> None:
        for vehicle in self.vehicles:
            if vehicle.connection is not None:
                vehicle.connection.close()
                vehicle.connection = None

    async def _opened(self, vehicle: Vehicle) -> None:
        if vehicle.connection is None:
            vehicle.connection = await Connection.open(self.port, vehicle.context)

    async def _one(self, item: tuple[Vehicle, tuple[Request, ...]]) -> None:
        vehicle, requests = item
        if self.session is Session.KEPT:
            assert vehicle.connection is not None
            for request in requests:
                await vehicle.connection.ask(request)
            return
        shared = await Connection.open(self.port, vehicle.context) if self.session is Session.CYCLE else None
        for request in requests:
            connection = shared or await Connection.open(self.port, vehicle.context)
            await connection.ask(request)
            if shared is None:
                connection.close()
        if shared is not None:
            shared.close()


async def each_of(items: Iterable[Item], act: Callable[[Item], Awaitable[object]], *, at_once: int) -> None:
    """``act`` on each, ``at_once`` of them side by side."""
    left = iter(items)

    async def work() -> None:
        for item in left:
            await act(item)

    await asyncio.gather(*(work() for _ in range(at_once)))
