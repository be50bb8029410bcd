"""A fleet to move: an old server, OTA Connect before it over real HTTPS, and a server of ours in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from overair.agent.durable import Disk
from overair.basics.clock import SettableClock, WallClock
from overair.cli.migrate.exporting import Exported, Exporter, ExportOptions
from overair.cli.migrate.importing import Importer, ImportOptions
from overair.cli.migrate.layout import ExportDirectory
from overair.cli.migrate.source import Access, open_source
from overair.cli.migrate.target import TargetServer
from overair.cli.rest import RestAnswer
from overair.wire.uptane.metadata import Role
from tests.support.authority import Authority
from tests.support.fleet_pki import FleetAuthority
from tests.support.old_server import OldServer
from tests.support.ota_connect import OldDevice, OtaConnect
from tests.support.uptane_repository import KeyHolder
from tests.support.whole_server import WholeServer

AUTHORITY = Authority()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a disk here."""
    monkeypatch.setattr(Disk, "sync", lambda self, descriptor: None)
    monkeypatch.setattr(Disk, "sync_directory", lambda self, directory: None)


def fleet_of(authority: FleetAuthority, *names: str) -> list[OldDevice]:
    """Vehicles of a Primary and a Secondary each; every third has shown no certificate to the registry."""
    devices = []
    for number, name in enumerate(names):
        image = {"filepath": "gateway-1", "size": 11, "hash": {"sha256": "ab" * 32}}
        devices.append(
            OldDevice(
                uuid=f"00000000-0000-4000-8000-{number:012d}",
                device_id=name,
                certificate="" if number % 3 == 2 else authority.device(name, days=3650).chain_pem.decode(),
                ecus={
                    f"{name}-primary": ("gw-imx8", KeyHolder().public_key),
                    f"{name}-dash": ("cluster-s32", KeyHolder().public_key),
                },
                installed={f"{name}-primary": image},
            )
        )
    return devices


@pytest.fixture(scope="module")
def fleet_authority() -> FleetAuthority:
    return FleetAuthority("works")


@pytest.fixture
def old() -> OldServer:
    return OldServer(WallClock().now())


@pytest.fixture
def ota_connect(old: OldServer, fleet_authority: FleetAuthority) -> Iterator[OtaConnect]:
    with OtaConnect(old, AUTHORITY) as server:
        server.devices = fleet_of(fleet_authority, "car-1", "car-2", "car-3")
        yield server


class Export:
    """Runs exports of one old server into one directory."""

    def __init__(self, server: OtaConnect, folder: Path, fleet: FleetAuthority) -> None:
        self.server, self.folder = server, folder
        self.directory = ExportDirectory(folder / "export")
        self.options = ExportOptions(fleet_authorities=(fleet.pem.decode(),))

    def __call__(
        self,
        options: ExportOptions | None = None,
        *,
        named: str | None = None,
        access: Access | None = None,
        after_step: Callable[[str], None] = lambda step: None,
    ) -> Exported:
        named = named or str(self.server.bundle(self.folder / "credentials.zip"))
        clock = WallClock()
        with open_source(named, access or Access(), clock=clock) as source:
            exporter = Exporter(source, self.directory, options or self.options, clock=clock, after_step=after_step)
            return exporter.run()


@pytest.fixture
def export(ota_connect: OtaConnect, tmp_path: Path, fleet_authority: FleetAuthority) -> Export:
    return Export(ota_connect, tmp_path, fleet_authority)


class InProcess:
    """``Rest`` of a server in this process."""

    def __init__(self, server: WholeServer) -> None:
        self._server = server
        self.asked: list[tuple[str, str]] = []

    def ask(
        self,
        method: str,
        url: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
        payload: str | None = None,
    ) -> RestAnswer:
        path = url.removeprefix("https://new.test")
        self.asked.append((method, path))
        data = body if isinstance(body, bytes) else body.read()
        target = path + (f"?{urlencode(query)}" if query else "")
        kept = {name: value for name, value in (headers or {}).items() if name != "content-length"}
        reply = self._server.operator(method, target, body=data, headers=kept)
        return RestAnswer(status=reply.status, headers=reply.headers, body=reply.body)


class Move:
    """An exported directory and an account that has never been used."""

    def __init__(self, directory: ExportDirectory, old: OldServer, server: WholeServer) -> None:
        self.directory, self.old, self.server = directory, old, server
        self.rest = InProcess(server)

    def importer(
        self, options: ImportOptions | None = None, *, after_step: Callable[[str], None] = lambda step: None
    ) -> Importer:
        return Importer(
            self.directory,
            TargetServer(self.rest, "https://new.test"),
            options or ImportOptions(),
            clock=self.server.clock,
            after_step=after_step,
        )

    def key_files(self) -> tuple[Path, ...]:
        """The old root keys, as the old server's ``root/private_keys`` hands them out."""
        found = []
        for repository in (self.old.image, self.old.director):
            for number, holder in enumerate(repository.keys[Role.ROOT]):
                path = self.directory.path.parent / f"{repository.kind}-{number}.key.json"
                private = holder.key.private_bytes_raw() + holder.key.public_key().public_bytes_raw()  # type: ignore[union-attr]
                keyval = {"public": private[32:].hex(), "private": private.hex()}
                path.write_text(json.dumps({"keytype": "ED25519", "keyval": keyval}))
                found.append(path)
        return tuple(found)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, fleet_authority: FleetAuthority) -> tuple[Path, OldServer]:
    """Made once for all imports of a module."""
    folder = tmp_path_factory.mktemp("exported")
    old = OldServer(WallClock().now())
    with OtaConnect(old, AUTHORITY) as server:
        server.devices = fleet_of(fleet_authority, "car-1", "car-2", "car-3", "car 4")
        Export(server, folder, fleet_authority)()
    return folder / "export", old


@dataclass(frozen=True, slots=True)
class Unused:
    """A server on which nothing has happened but its first start."""

    data: Path
    made: Any


@pytest.fixture(scope="session")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Unused:
    """Copied for each test: a first start makes many keys."""
    data = tmp_path_factory.mktemp("unused") / "data"
    server = WholeServer(data, SettableClock(WallClock().now()))
    server.close()
    return Unused(data, server.made)


@pytest.fixture
def move(exported: tuple[Path, OldServer], unused: Unused, tmp_path: Path) -> Iterator[Move]:
    """With a server of its own."""
    path, old = exported
    shutil.copytree(path, tmp_path / "export")
    shutil.copytree(unused.data, tmp_path / "data")
    server = _opened(unused, tmp_path / "data")
    yield Move(ExportDirectory(tmp_path / "export"), old, server)
    server.close()


@pytest.fixture(scope="module")
def bystander(unused: Unused, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    folder = tmp_path_factory.mktemp("bystander")
    shutil.copytree(unused.data, folder / "data")
    server = _opened(unused, folder / "data")
    yield server
    server.close()


@pytest.fixture
def vain(exported: tuple[Path, OldServer], bystander: WholeServer, tmp_path: Path) -> Move:
    """For imports that publish nothing: their server is shared."""
    path, old = exported
    shutil.copytree(path, tmp_path / "export")
    return Move(ExportDirectory(tmp_path / "export"), old, bystander)


def _opened(unused: Unused, data: Path) -> WholeServer:
    return WholeServer(data, SettableClock(WallClock().now()), made=unused.made, seed=11)
