"""A vehicle and its gateway for tests: a Primary with an identity, Secondaries where asked for, a server over real TLS."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from overair.agent.device_directory import DeviceDirectory, DeviceSettings, create_device_directory
from overair.agent.durable import Disk
from overair.agent.platform import Platform
from overair.agent.uptane.assembly import Surroundings, assemble, provision
from overair.agent.uptane.https import HttpClient, Patience
from overair.agent.uptane.outcomes import Outcome
from overair.agent.uptane.primary import Primary
from overair.agent.uptane.settings import UptaneSettings, parse_uptane
from overair.agent.uptane.state import ClientState, StateStore
from overair.basics.clock import SettableClock, WallClock
from overair.basics.ids import SeededIds
from overair.wire.uptane.metadata import TargetFile
from tests.support.uptane_repository import assigned, target_file
from tests.support.uptane_server import Issuer, UptaneServer

PRIMARY = "primary-1"
PRIMARY_HARDWARE = "gateway-hw"
DEVICE = "vehicle-1"
CORRELATION = "urn:here-ota:mtu:1"


@cache
def issuer() -> Issuer:
    return Issuer()


@cache
def device_pair() -> tuple[bytes, bytes]:
    return issuer().issue_pem(DEVICE)


@dataclass
class Pauses:
    """Takes no time, notes what was asked."""

    seconds: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        return False


class Vehicle:
    """One device directory, restarted at will: ``primary`` is the present process, ``restart`` the next."""

    def __init__(
        self,
        root: Path,
        *,
        server: UptaneServer | None = None,
        provisioned: bool = True,
        thing_name: str = DEVICE,
        roots: bool = True,
        server_in_settings: bool = True,
        hardware_id: str = PRIMARY_HARDWARE,
        **members: Any,
    ) -> None:
        self.clock = SettableClock(WallClock().now())
        self.server = server or UptaneServer(root / "server", issuer=issuer(), clock=self.clock)
        self.root = root / "device"
        self.disk = Disk()
        self.pauses = Pauses()
        self.chance = Random(7)
        self.machine_run = "run-1"
        self.patience = Patience(answer_timeout_s=5, window_s=5)
        self.monotonic: Callable[[], float] = time.monotonic
        self.http: Callable[..., HttpClient] = HttpClient
        self.updates = 0
        base: dict[str, Any] = {
            **({"server": self.server.url} if server_in_settings else {}),
            "ecu_serial": PRIMARY,
            "polling_s": 10,
            "install": {"file": "primary.bin"},
        }
        uptane = parse_uptane(base | members)
        self.hardware_id = hardware_id
        self.settings = DeviceSettings(thing_name=thing_name, hardware_id=hardware_id, uptane=uptane)
        certificate, key = device_pair() if provisioned else (None, None)
        self.directory: DeviceDirectory = create_device_directory(
            self.root,
            self.settings,
            certificate_pem=certificate,
            private_key_pem=key,
            ca_pem=self.server.issuer.pem if provisioned else None,
            anchors={},
        )
        if roots:
            self.pin_roots()
        self._primary: Primary | None = None
        self.self_test: Callable[[], bool] = lambda: True

    @property
    def uptane(self) -> UptaneSettings:
        assert self.settings.uptane is not None
        return self.settings.uptane

    def pin_roots(self) -> None:
        folder = self.root / "uptane" / "roots"
        for name, repository in (("director", self.server.director), ("repo", self.server.image)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / "root.json").write_bytes(repository.files["1.root.json"])

    # --- the device ---

    @property
    def around(self) -> Surroundings:
        return Surroundings(
            monotonic=self.monotonic,
            pause=self.pauses,
            disk=self.disk,
            clock=self.clock,
            ids=SeededIds(3),
            chance=self.chance,
            patience=self.patience,
            machine_run=lambda: self.machine_run,
            http=self.http,
        )

    @property
    def primary(self) -> Primary:
        if self._primary is None:
            self._primary = self.start()
        return self._primary

    def start(self) -> Primary:
        provision(self.directory, self.settings, self.around)
        return assemble(self.directory, self.settings, self.around, platform=self.platform(), application=self, version="test")

    def platform(self) -> Platform | None:
        """Where the Primary's own image goes into slots."""
        return None

    def restart(self) -> Vehicle:
        """The process ends and another begins."""
        self._primary = None
        return self

    def round(self) -> Outcome:
        return self.primary.round()

    def close(self) -> None:
        self.server.close()

    @property
    def state(self) -> ClientState:
        return StateStore(self.directory.uptane / "state.json", Disk()).read()

    def installed(self, name: str = "primary.bin") -> bytes | None:
        path = self.directory.files / name
        return path.read_bytes() if path.exists() else None

    # --- what is wanted of it ---

    def offer(self, name: str, content: bytes, *, hardware_ids: tuple[str, ...] | None = None, **custom: Any) -> TargetFile:
        """An image in the Image repository."""
        target = target_file(name, content, hardware_ids=hardware_ids or (self.hardware_id,), **custom)
        self.server.images[name] = content
        return self.server.image.add_target(target)

    def assign(self, *targets: TargetFile, correlation_id: str = CORRELATION) -> None:
        """The Director wants these, and nothing else."""
        self.server.director.put_targets(*targets, custom={"correlationId": correlation_id})

    def want(self, name: str, content: bytes, ecus: Mapping[str, str] | None = None, **custom: Any) -> TargetFile:
        """An image that both repositories agree on, for the Primary unless told otherwise."""
        chosen = dict(ecus or {PRIMARY: self.hardware_id})
        target = self.offer(name, content, hardware_ids=tuple(sorted(set(chosen.values()))), **custom)
        self.updates += 1
        self.assign(assigned(target, chosen), correlation_id=f"urn:here-ota:mtu:{self.updates}")
        return target

    # --- what it told ---

    @property
    def manifest(self) -> dict[str, Any]:
        """The last one."""
        return dict(self.server.manifests[-1]["signed"])

    @property
    def report(self) -> dict[str, Any] | None:
        """The last installation report that came."""
        for manifest in reversed(self.server.manifests):
            found = manifest["signed"].get("installation_report")
            if found is not None:
                return dict(found["report"])
        return None

    def image_of(self, serial: str) -> str:
        """What an ECU says that it runs."""
        return str(self.manifest["ecu_version_manifests"][serial]["signed"]["installed_image"]["filepath"])

    @property
    def attacks(self) -> list[str]:
        """What manifests told of attacks."""
        reports = [each["signed"]["ecu_version_manifests"][PRIMARY] for each in self.server.manifests]
        return [report["signed"]["attacks_detected"] for report in reports if report["signed"]["attacks_detected"]]
